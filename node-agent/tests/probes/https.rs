//! Checks of type HTTPS. Whom they trust is tested beside the handshake.

use std::sync::Arc;

use lvs_crds::health_check::{
    HealthCheck, HealthCheckType, HttpBody, HttpBodyType, HttpCheck, TlsCheck, TlsVerification,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::played::{PATIENCE_SECONDS, Played, ended, failure, hasty, serve, verdict};

fn check(http: HttpCheck, server_name: Option<&str>) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        http: Some(http),
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            server_name: server_name.map(String::from),
            ..TlsCheck::default()
        }),
        ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTPS)
    }
}

/// Takes TLS connections with a certificate of its own making, for one of these protocols.
pub fn acceptor(
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> TlsAcceptor {
    acceptor_with(versions, protocols, |_| {})
}

/// The same with a certificate that `change` has changed.
pub fn acceptor_with(
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&[u8]],
    change: impl FnOnce(&mut CertificateParams),
) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec!["own.example.org".to_owned()]).unwrap();
    change(&mut certificate);
    let certificate = certificate.self_signed(&key).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    settings.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(settings))
}

/// A server with a certificate of its own making. Tells by which name it was asked, and in which protocol.
async fn secure(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (
    Played,
    mpsc::UnboundedReceiver<(Option<String>, Option<Vec<u8>>)>,
) {
    let acceptor = acceptor(versions, &[b"h2", b"http/1.1"]);
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let (_, session) = stream.get_ref();
            let name = session.server_name().map(String::from);
            let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
            tell.send((name, protocol)).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
            stream.write_all(answer).await.unwrap();
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
        }
    });
    (server.await, told)
}

#[tokio::test]
async fn without_verification_any_certificate_passes_and_the_answer_decides() {
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let (server, mut told) = secure(versions).await;
        let http1 = Some(b"http/1.1".to_vec());
        let bare = check(HttpCheck::default(), None);
        assert_eq!(verdict(server.address, &bare).await, Ok(()));
        assert_eq!(told.recv().await.unwrap(), (None, http1.clone()));
        let with_host = HttpCheck {
            host: Some("www.example.org:8443".to_owned()),
            ..HttpCheck::default()
        };
        let by_host = check(with_host.clone(), None);
        assert_eq!(verdict(server.address, &by_host).await, Ok(()));
        let name = Some("www.example.org".to_owned());
        assert_eq!(told.recv().await.unwrap(), (name, http1.clone()));
        let by_name = check(with_host, Some("other.example.org"));
        assert_eq!(verdict(server.address, &by_name).await, Ok(()));
        let name = Some("other.example.org".to_owned());
        assert_eq!(told.recv().await.unwrap(), (name, http1));
        let wants_text = HttpCheck {
            body: Some(HttpBody {
                type_: HttpBodyType::Text,
                value: "public".to_owned(),
            }),
            ..HttpCheck::default()
        };
        let why = failure(server.address, &check(wants_text, None)).await;
        assert_eq!(why, "body does not hold \"public\" in its 6 bytes");
        let wants_status = HttpCheck {
            status_codes: vec!["204".to_owned()],
            ..HttpCheck::default()
        };
        let why = failure(server.address, &check(wants_status, None)).await;
        assert_eq!(why, "status 200, expected 204");
    }
}

#[tokio::test]
async fn by_default_a_certificate_of_its_own_making_is_refused() {
    let (server, _told) = secure(rustls::ALL_VERSIONS).await;
    let by_default = HealthCheck {
        tls: None,
        ..check(HttpCheck::default(), None)
    };
    let why = failure(server.address, &by_default).await;
    // Which of them depends on whether this machine has authorities.
    assert!(
        why == "certificate is of no authority that the agent knows"
            || why.starts_with("not asked: the agent knows no certificate authority"),
        "{why}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let bare = check(HttpCheck::default(), None);
    let greets = serve(|mut stream| async move {
        stream.write_all(b"220 mail.example.org\r\n").await.unwrap();
        ended(stream).await;
    })
    .await;
    assert_eq!(failure(greets.address, &bare).await, "answer is no TLS");
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(bare.clone())).await;
    assert_eq!(why, "TLS handshake not complete within 1 s");
    let closes = serve(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream.shutdown().await.unwrap();
        ended(stream).await;
    })
    .await;
    let why = failure(closes.address, &bare).await;
    assert_eq!(why, "connection closed in the TLS handshake");
    let alert = serve(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream
            .write_all(b"\x15\x03\x03\x00\x02\x02\x28")
            .await
            .unwrap();
        ended(stream).await;
    })
    .await;
    let why = failure(alert.address, &bare).await;
    assert_eq!(why, "TLS ended by the real server: HandshakeFailure");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told() {
    let (server, _told) = secure(rustls::ALL_VERSIONS).await;
    let plain = HealthCheck {
        tls: None,
        ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTP)
    };
    let why = failure(server.address, &plain).await;
    assert!(
        why.starts_with("answer is no HTTP/1: ") || why.starts_with("connection "),
        "{why}"
    );
}
