//! Checks of type SMTP.

use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckType, SmtpCheck};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::played::{PATIENCE_SECONDS, endlessly, failure, hasty, says, serve, serve_on, verdict};

fn smtp(hello_name: Option<&str>) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        smtp: Some(SmtpCheck {
            hello_name: hello_name.map(String::from),
        }),
        ..HealthCheck::new("mail".to_owned(), HealthCheckType::SMTP)
    }
}

#[tokio::test]
async fn a_server_that_greets_and_takes_a_greeting_passes() {
    let texts = &[
        "220-mail.example.org ESMTP\r\n220 ready\r\n",
        "250-mail.example.org\r\n250-SIZE 1000\r\n250 HELP\r\n",
        "221 bye\r\n",
    ];
    let (server, mut told) = says(texts).await;
    assert_eq!(verdict(server.address, &smtp(None)).await, Ok(()));
    assert_eq!(told.recv().await.unwrap(), "EHLO [127.0.0.1]\r\n");
    assert_eq!(told.recv().await.unwrap(), "QUIT\r\n");
    let named = smtp(Some("lb.example.org"));
    let (server, mut told) = says(texts).await;
    assert_eq!(verdict(server.address, &named).await, Ok(()));
    assert_eq!(told.recv().await.unwrap(), "EHLO lb.example.org\r\n");
    let by_default = HealthCheck {
        smtp: None,
        ..smtp(None)
    };
    let (server, _told) = says(texts).await;
    assert_eq!(verdict(server.address, &by_default).await, Ok(()));
}

#[tokio::test]
async fn over_ipv6_the_address_is_said_to_be_one() {
    let server = serve_on("[::1]:0", |stream| async move {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let right = line == "EHLO [IPv6:::1]\r\n";
        let reply = if right { "250 fine\r\n" } else { "501 no\r\n" };
        stream.write_all(reply.as_bytes()).await.unwrap();
    });
    // A machine without IPv6 has nothing to show here.
    if let Ok(server) = server.await {
        assert_eq!(verdict(server.address, &smtp(None)).await, Ok(()));
    }
}

#[tokio::test]
async fn other_replies_are_told() {
    for (texts, why) in [
        (
            &["554 no service\r\n"][..],
            "greeting is \"554 no service\", expected 220",
        ),
        (
            &["220 ready\r\n", "502 what?\r\n"],
            "reply to EHLO is \"502 what?\", expected 250",
        ),
        (
            &["HTTP/1.1 400 Bad\r\n"],
            "greeting is \"HTTP/1.1 400 Bad\", expected 220",
        ),
    ] {
        let (server, _told) = says(texts).await;
        assert_eq!(failure(server.address, &smtp(None)).await, why);
    }
}

#[tokio::test]
async fn silence_fails_in_time() {
    for (texts, why) in [
        (&[""][..], "no greeting within 1 s"),
        (&["220-never ends\r\n"], "no greeting within 1 s"),
        (&["220 ready\r\n", ""], "no reply to EHLO within 1 s"),
    ] {
        let (server, _told) = says(texts).await;
        assert_eq!(failure(server.address, &hasty(smtp(None))).await, why);
    }
}

#[tokio::test]
async fn a_connection_that_ends_and_one_that_never_does_are_told() {
    let ends = serve(|mut stream| async move {
        stream.write_all(b"220 rea").await.unwrap();
    })
    .await;
    let why = failure(ends.address, &smtp(None)).await;
    assert_eq!(why, "connection closed before a greeting");
    for line in ["220-more\r\n", "x"] {
        let endless = serve(move |mut stream| async move {
            let bytes = line.repeat(1000);
            endlessly(&mut stream, bytes.as_bytes(), Duration::ZERO).await;
        })
        .await;
        let why = failure(endless.address, &smtp(None)).await;
        assert_eq!(why, "greeting exceeds 16384 bytes");
    }
}
