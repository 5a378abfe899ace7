//! Checks of type LDAP.

use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::played::{PATIENCE_SECONDS, Played, ended, endlessly, failure, hasty, serve, verdict};

fn ldap() -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("directory".to_owned(), HealthCheckType::LDAP)
    }
}

/// A server that reads the bind and answers with this.
async fn answers(answer: &'static [u8]) -> Played {
    serve(move |mut stream| async move {
        let mut bind = [0; 14];
        stream.read_exact(&mut bind).await.unwrap();
        assert_eq!(
            bind,
            *b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"
        );
        stream.write_all(answer).await.unwrap();
        ended(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_directory_that_answers_a_bind_passes() {
    for answer in [
        &b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"[..],
        // As some servers write lengths.
        b"\x30\x84\0\0\0\x10\x02\x01\x01\x61\x84\0\0\0\x07\x0a\x01\x00\x04\x00\x04\x00",
        // Anonymous binds are not permitted there.
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x30\x04\x00\x04\x00",
    ] {
        let server = answers(answer).await;
        assert_eq!(verdict(server.address, &ldap()).await, Ok(()), "{answer:?}");
    }
}

#[tokio::test]
async fn other_answers_are_told() {
    for (answer, why) in [
        (
            &b"\x30\x10\x02\x01\x01\x61\x0b\x0a\x01\x33\x04\x00\x04\x04busy"[..],
            "reply to the bind is result 51 \"busy\"",
        ),
        (b"HTTP/1.1 400 Bad", "reply to the bind is none of LDAP"),
        // A notice of disconnection is no answer.
        (
            b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00",
            "reply to the bind is none of LDAP",
        ),
        (b"\x30\x80", "reply to the bind is none of LDAP"),
        (
            b"\x30\x84\xff\xff\xff\xff",
            "reply to the bind exceeds 16384 bytes",
        ),
        (b"\x30\x02\x02\x7f", "reply to the bind is none of LDAP"),
    ] {
        let server = answers(answer).await;
        assert_eq!(failure(server.address, &ldap()).await, why, "{answer:?}");
    }
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(ldap())).await;
    assert_eq!(why, "no reply to the bind within 1 s");
    let slow = serve(|mut stream| async move {
        stream.write_all(b"\x30\x7f").await.unwrap();
        endlessly(&mut stream, b"\0", Duration::from_millis(50)).await;
    });
    let why = failure(slow.await.address, &hasty(ldap())).await;
    assert_eq!(why, "no reply to the bind within 1 s");
}
