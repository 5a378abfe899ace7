//! When the certificate expires that a check is shown.

use std::time::Duration;

use lvs_agent::health::calendar;
use lvs_agent::health::probe::Answer;
use lvs_core::health::UnixSeconds;
use lvs_crds::health_check::{
    HealthCheck, HealthCheckType, HttpCheck, TlsCheck, TlsStart, TlsVerification,
};
use rcgen::date_time_ymd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::https::acceptor_with;
use crate::played::{PATIENCE_SECONDS, answer, answers, http, serve};

/// A certificate that ends so many days from now, and when that is.
fn ending_in(
    days: i64,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (TlsAcceptor, UnixSeconds) {
    let end = calendar().0 + days * 86_400;
    let since = Duration::from_secs(end.try_into().unwrap());
    let acceptor = acceptor_with(versions, &[], |certificate| {
        certificate.not_after = date_time_ymd(1970, 1, 1) + since;
    });
    (acceptor, UnixSeconds(end))
}

fn unverified(type_: HealthCheckType, start: TlsStart) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            start,
            ..TlsCheck::default()
        }),
        ..HealthCheck::new("page".to_owned(), type_)
    }
}

#[tokio::test]
async fn without_verification_the_end_is_noted_and_fails_nobody() {
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        for days in [5, -2] {
            let (acceptor, end) = ending_in(days, versions);
            let server = serve(move |stream| {
                let acceptor = acceptor.clone();
                async move {
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    let mut rest = [0; 1024];
                    while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
                }
            })
            .await;
            let check = unverified(HealthCheckType::HTTPS, TlsStart::Immediately);
            let expected = Answer {
                verdict: Ok(()),
                certificate_expiry: Some(end),
            };
            assert_eq!(answer(server.address, &check).await, expected);
            // Also where the rest of the answer is wrong.
            let check = HealthCheck {
                http: Some(HttpCheck {
                    status_codes: vec!["204".to_owned()],
                    ..HttpCheck::default()
                }),
                ..check
            };
            let expected = Answer {
                verdict: Err("status 200, expected 204".to_owned()),
                certificate_expiry: Some(end),
            };
            assert_eq!(answer(server.address, &check).await, expected);
        }
    }
}

#[tokio::test]
async fn it_is_noted_where_tls_begins_after_a_command() {
    let (acceptor, end) = ending_in(5, rustls::ALL_VERSIONS);
    let server = serve(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            stream.write_all(b"+OK\r\n").await.unwrap();
            let mut command = Vec::new();
            while !command.ends_with(b"\r\n") {
                command.push(stream.read_u8().await.unwrap());
            }
            assert_eq!(command, b"STLS\r\n");
            stream.write_all(b"+OK\r\n").await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {
                let _ = stream.write_all(b"+OK\r\n").await;
            }
        }
    })
    .await;
    let check = unverified(HealthCheckType::POP3, TlsStart::StartTLS);
    let Answer {
        certificate_expiry, ..
    } = answer(server.address, &check).await;
    assert_eq!(certificate_expiry, Some(end));
}

#[tokio::test]
async fn who_speaks_no_tls_has_none() {
    let server = answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let expected = Answer {
        verdict: Ok(()),
        certificate_expiry: None,
    };
    let plain = http(HttpCheck::default());
    assert_eq!(answer(server.address, &plain).await, expected);
}
