//! Checks of type Ping. They need a raw socket; where there is none, that is what is told.

use std::net::SocketAddr;

use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use socket2::{Domain, Protocol, Socket, Type};

use crate::played::{PATIENCE_SECONDS, failure, verdict};

fn ping() -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("host".to_owned(), HealthCheckType::Ping)
    }
}

fn may_ping() -> bool {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).is_ok()
}

#[tokio::test]
async fn a_host_that_answers_passes_and_many_questions_at_once_do_not_mix() {
    let here: SocketAddr = "127.0.0.1:9".parse().unwrap();
    if !may_ping() {
        let why = failure(here, &ping()).await;
        assert_eq!(why, "not asked: operation not permitted");
        return;
    }
    // At once and to one address, each gets its own.
    let check = ping();
    let questions = (0..50).map(|_| verdict(here, &check));
    let told = futures::future::join_all(questions).await;
    assert!(told.iter().all(|told| told == &Ok(())), "{told:?}");
    let loopback: SocketAddr = "[::1]:9".parse().unwrap();
    if tokio::net::TcpListener::bind("[::1]:0").await.is_ok() {
        assert_eq!(verdict(loopback, &ping()).await, Ok(()));
    }
}

#[tokio::test]
async fn an_echo_goes_out_from_the_source_address_or_not_at_all() {
    if !may_ping() {
        return;
    }
    let here: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let from = |source: &str| HealthCheck {
        source_address: Some(source.to_owned()),
        ..ping()
    };
    assert_eq!(verdict(here, &from("127.0.0.7")).await, Ok(()));
    let why = failure(here, &from("192.0.2.77")).await;
    assert_eq!(
        why,
        "not asked: this node does not have sourceAddress 192.0.2.77"
    );
}
