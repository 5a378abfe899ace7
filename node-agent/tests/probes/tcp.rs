//! Checks of type TCP, and of none.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::played::{PATIENCE_SECONDS, answers, failure, hasty, serve, serve_on, verdict};

fn check(type_: HealthCheckType) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("port".to_owned(), type_)
    }
}

/// A port that nobody listens on.
async fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_connection_that_is_accepted_passes_and_ends_with_a_reset() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            let end = stream.read(&mut [0]).await;
            tell.send(end.map_err(|error| error.kind())).unwrap();
        }
    })
    .await;
    let tcp = check(HealthCheckType::TCP);
    assert_eq!(verdict(server.address, &tcp).await, Ok(()));
    // No byte was sent, and no socket is left in TIME_WAIT where an orderly close would leave one.
    assert_eq!(told.recv().await, Some(Err(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_refused() {
    let tcp = check(HealthCheckType::TCP);
    assert_eq!(failure(closed().await, &tcp).await, "connect refused");
    let http = check(HealthCheckType::HTTP);
    assert_eq!(failure(closed().await, &http).await, "connect refused");
}

#[tokio::test]
async fn a_server_that_takes_no_more_connections_fails_in_time() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(&any.into()).unwrap();
    // The kernel completes one connection more than the backlog says, and is silent to the next.
    socket.listen(0).unwrap();
    let target = socket.local_addr().unwrap().as_socket().unwrap();
    let _waits = std::net::TcpStream::connect(target).unwrap();
    for type_ in [HealthCheckType::TCP, HealthCheckType::HTTP] {
        let why = failure(target, &hasty(check(type_))).await;
        assert_eq!(why, "connect timed out after 1 s");
    }
}

#[tokio::test]
async fn type_none_passes_without_a_question() {
    let server = answers("").await;
    let none = check(HealthCheckType::None);
    assert_eq!(verdict(server.address, &none).await, Ok(()));
    assert_eq!(verdict(closed().await, &none).await, Ok(()));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn ipv6_is_asked_as_ipv4_is() {
    // A machine without IPv6 has nothing to show here.
    let Ok(server) = serve_on("[::1]:0", |_| async {}).await else {
        return;
    };
    let tcp = check(HealthCheckType::TCP);
    assert_eq!(verdict(server.address, &tcp).await, Ok(()));
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(failure(closed, &tcp).await, "connect refused");
}

#[tokio::test]
async fn the_source_address_is_what_the_server_sees() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let from = |source: &str| HealthCheck {
        source_address: Some(source.to_owned()),
        ..check(HealthCheckType::TCP)
    };
    for source in ["127.0.0.7", "127.0.0.8"] {
        assert_eq!(verdict(target, &from(source)).await, Ok(()));
        let (_, seen) = listener.accept().await.unwrap();
        assert_eq!(seen.ip().to_string(), source);
    }
    // One of the other family is for real servers of that family.
    assert_eq!(verdict(target, &from("2001:db8::7")).await, Ok(()));
    for type_ in [HealthCheckType::TCP, HealthCheckType::SIP] {
        let absent = HealthCheck {
            type_,
            ..from("192.0.2.77")
        };
        let why = failure(target, &absent).await;
        assert_eq!(
            why,
            "not asked: this node does not have sourceAddress 192.0.2.77"
        );
    }
}
