//! Checks of type SIP.

use lvs_crds::health_check::{HealthCheck, HealthCheckType, SipCheck, SipTransport};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use crate::played::{PATIENCE_SECONDS, ended, failure, hasty, head, serve, verdict};

fn sip(transport: SipTransport) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        sip: Some(SipCheck { transport }),
        ..HealthCheck::new("calls".to_owned(), HealthCheckType::SIP)
    }
}

/// The headers of a request that its answer repeats.
fn repeated(request: &str) -> String {
    let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
    let lines = request
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.fold(String::new(), |all, line| all + line + "\r\n")
}

/// A server that answers each datagram with all of these status lines.
async fn by_datagram(statuses: &'static [&'static str]) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            let request = String::from_utf8_lossy(&datagram[..length]).into_owned();
            assert!(request.starts_with(&format!("OPTIONS sip:{address} SIP/2.0\r\n")));
            assert!(request.ends_with("Content-Length: 0\r\n\r\n"), "{request}");
            assert!(request.contains(&format!("Via: SIP/2.0/UDP {from};branch=z9hG4bK")));
            // Somebody else's answer comes first.
            let late = b"SIP/2.0 500 Late\r\nCall-ID: x\r\n\r\n";
            let _ = socket.send_to(late, from).await;
            for status in statuses {
                let answer = format!("{status}\r\n{}\r\n", repeated(&request));
                // The one who asked may be gone already.
                let _ = socket.send_to(answer.as_bytes(), from).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_answers_options_passes() {
    let server = by_datagram(&["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]).await;
    assert_eq!(verdict(server, &sip(SipTransport::UDP)).await, Ok(()));
    let by_default = HealthCheck {
        sip: None,
        ..sip(SipTransport::UDP)
    };
    assert_eq!(verdict(server, &by_default).await, Ok(()));
    let server = serve(|mut stream| async move {
        let request = head(&mut stream).await;
        let answer = format!(
            "SIP/2.0 100 Trying\r\n{0}\r\nSIP/2.0 200 OK\r\n{0}\r\n",
            repeated(&request)
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        ended(stream).await;
    })
    .await;
    let passed = verdict(server.address, &sip(SipTransport::TCP)).await;
    assert_eq!(passed, Ok(()));
}

#[tokio::test]
async fn other_answers_and_silence_are_told() {
    let server = by_datagram(&["SIP/2.0 503 Overloaded"]).await;
    let why = failure(server, &sip(SipTransport::UDP)).await;
    assert_eq!(
        why,
        "reply to OPTIONS is \"SIP/2.0 503 Overloaded\", expected 2xx"
    );
    let silent = by_datagram(&["SIP/2.0 100 Trying"]).await;
    let why = failure(silent, &hasty(sip(SipTransport::UDP))).await;
    assert_eq!(why, "no reply within 1 s");
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(sip(SipTransport::TCP))).await;
    assert_eq!(why, "no reply to OPTIONS within 1 s");
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let why = failure(address, &sip(SipTransport::UDP)).await;
    assert_eq!(why, "port unreachable");
}
