//! The one who asks real servers, with listeners on loopback.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lvs_agent::health::credentials::CredentialFiles;
use lvs_agent::health::passage::Laid;
use lvs_agent::health::{HealthExchange, calendar};
use lvs_core::health::{Check, Health, Passage, UnixSeconds};
use lvs_core::ipvs::DestinationForwarding;
use lvs_crds::health_check::{HealthCheck, HealthCheckType, TlsCheck, TlsVerification};
use lvs_crds::value::AddressFamily;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(30);

fn check(target: SocketAddr, type_: HealthCheckType) -> Check {
    let question = HealthCheck {
        period_seconds: 1,
        timeout_seconds: 1,
        failure_threshold: 2,
        ..HealthCheck::new(String::new(), type_)
    };
    Check {
        target,
        passage: None,
        subject: None,
        question: Arc::new(question),
        means: Arc::default(),
    }
}

fn want(exchange: &HealthExchange, checks: &[&Check]) {
    let wanted: BTreeMap<_, _> = checks
        .iter()
        .map(|check| ((*check).clone(), check.cadence()))
        .collect();
    exchange.want(&wanted, |_| Health::Unknown);
}

async fn until(exchange: &HealthExchange, check: &Check, expected: &Health) {
    let mut bell = exchange.bell();
    let known = async {
        while exchange.with(|checks| checks.health(check)) != *expected {
            bell.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, known)
        .await
        .unwrap_or_else(|_| {
            let seen = exchange.with(|checks| checks.health(check));
            panic!("{} is {seen:?}, expected {expected:?}", check.target)
        });
}

#[tokio::test]
async fn each_real_server_is_asked_for_itself_and_what_changes_rings() {
    let exchange = HealthExchange::default();
    let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Accepts, in its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good_check = check(good.local_addr().unwrap(), HealthCheckType::TCP);
    let silent_check = check(silent.local_addr().unwrap(), HealthCheckType::HTTP);
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    want(&exchange, &[&good_check, &silent_check]);
    until(&exchange, &good_check, &Health::Up).await;
    assert_eq!(
        exchange.with(|checks| checks.health(&silent_check)),
        Health::Unknown,
        "the one that hangs has had no second failure yet, which is nothing to the other"
    );
    let no_answer = Health::Down("no answer within 1 s".to_owned());
    until(&exchange, &silent_check, &no_answer).await;
    let mut registry = Registry::default();
    exchange.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "lvs_agent_health_checks{state=\"up\"} 1.0",
        "lvs_agent_health_checks{state=\"down\"} 1.0",
        "lvs_agent_health_checks{state=\"unknown\"} 0.0",
        "lvs_agent_health_check_results_total{result=\"failure\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    drop(good);
    let refused = Health::Down("connect refused".to_owned());
    until(&exchange, &good_check, &refused).await;
    let again = TcpListener::bind(good_check.target).await.unwrap();
    until(&exchange, &good_check, &Health::Up).await;
    drop(again);

    want(&exchange, &[]);
    assert_eq!(
        exchange.with(|checks| checks.health(&good_check)),
        Health::Unknown,
        "nobody wants to know any more"
    );
    asker.abort();
}

#[tokio::test]
async fn what_is_remembered_stands_until_the_listener_speaks_against_it() {
    let exchange = HealthExchange::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = check(listener.local_addr().unwrap(), HealthCheckType::TCP);
    drop(listener);
    let wanted = BTreeMap::from([(gone.clone(), gone.cadence())]);
    assert!(exchange.is_new(&wanted));
    exchange.want(&wanted, |_| Health::Up);
    assert!(!exchange.is_new(&wanted));
    assert_eq!(exchange.with(|checks| checks.health(&gone)), Health::Up);
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    let refused = Health::Down("connect refused".to_owned());
    until(&exchange, &gone, &refused).await;
    asker.abort();
}

/// A check through a virtual address at which nobody listens, of a real server that is played.
fn through(real_server: SocketAddr, virtual_address: &str) -> Check {
    Check {
        target: SocketAddr::new(virtual_address.parse().unwrap(), real_server.port()),
        passage: Some(Passage {
            family: AddressFamily::IPv4,
            real_server: real_server.ip(),
            forwarding: DestinationForwarding::DirectRoute,
        }),
        ..check(real_server, HealthCheckType::TCP)
    }
}

#[tokio::test]
async fn nobody_is_asked_through_an_address_before_the_way_is_in_the_kernel() {
    let exchange = HealthExchange::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = through(listener.local_addr().unwrap(), "127.0.0.2");
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    want(&exchange, &[&check]);
    let words = "not asked: the way through 127.0.0.2 is not in the kernel, see condition Programmed of the NodePlan";
    until(&exchange, &check, &Health::Down(words.to_owned())).await;
    asker.abort();
}

#[tokio::test]
async fn a_director_that_forwards_nothing_asks_the_real_server_straight() {
    let exchange = HealthExchange::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = through(listener.local_addr().unwrap(), "127.0.0.2");
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    want(&exchange, &[&check]);
    exchange.lay(Laid::Nothing);
    until(&exchange, &check, &Health::Up).await;
    drop(listener);
    let refused = Health::Down("connect refused".to_owned());
    until(&exchange, &check, &refused).await;
    asker.abort();
}

/// A listener that takes TLS with a certificate that ends then, and hangs up.
async fn shows_certificate(end: UnixSeconds) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec!["own.example.org".to_owned()]).unwrap();
    let since = Duration::from_secs(end.0.try_into().unwrap());
    certificate.not_after = date_time_ymd(1970, 1, 1) + since;
    let certificate = certificate.self_signed(&key).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let settings = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_that_is_to_be_warned_of_rings_and_is_counted() {
    let exchange = HealthExchange::default();
    let mut bell = exchange.bell();
    let end = UnixSeconds(calendar().0 + 5 * 86_400);
    let of_tls = check(shows_certificate(end).await, HealthCheckType::HTTPS);
    let question = HealthCheck {
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            expiry_warning_days: Some(14),
            ..TlsCheck::default()
        }),
        // Nothing else rings.
        failure_threshold: 100,
        ..HealthCheck::clone(&of_tls.question)
    };
    let near = Check {
        question: Arc::new(question),
        ..of_tls
    };
    want(&exchange, &[&near]);
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    let known = async {
        while exchange
            .with(|checks| checks.certificate_expiry(&near))
            .is_none()
        {
            bell.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, known).await.unwrap();
    assert_eq!(
        exchange.with(|checks| checks.certificate_expiry(&near)),
        Some(end)
    );
    let mut registry = Registry::default();
    exchange.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        &format!(
            "lvs_agent_health_check_certificate_expiry_timestamp_seconds {}",
            end.0
        ),
        "lvs_agent_health_check_certificates_expiring 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    asker.abort();
}
