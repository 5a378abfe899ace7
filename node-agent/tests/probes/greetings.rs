//! Checks of types FTP, IMAP, POP3 and Redis, and TLS that begins at once or after a command.

use std::time::{Duration, Instant};

use lvs_crds::health_check::{HealthCheck, HealthCheckType, TlsCheck, TlsStart, TlsVerification};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::https::acceptor;
use crate::played::{PATIENCE_SECONDS, Played, failure, hasty, says, serve, talk, verdict};

fn check(type_: HealthCheckType) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("greeting".to_owned(), type_)
    }
}

fn secure(type_: HealthCheckType, start: TlsStart) -> HealthCheck {
    HealthCheck {
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            start,
            ..TlsCheck::default()
        }),
        ..check(type_)
    }
}

/// A server that says texts in plain text, then takes TLS, and says other texts over it.
async fn changes(
    plain: &'static [&'static str],
    over_tls: &'static [&'static str],
) -> (Played, mpsc::UnboundedReceiver<String>) {
    let acceptor = acceptor(rustls::ALL_VERSIONS, &[]);
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let mut stream = BufReader::new(stream);
            if let Some((last, before)) = plain.split_last() {
                talk_on(&mut stream, before, &tell).await;
                stream.write_all(last.as_bytes()).await.unwrap();
            }
            let Ok(stream) = acceptor.accept(stream.into_inner()).await else {
                return;
            };
            tell.send("TLS".to_owned()).unwrap();
            let mut stream = BufReader::new(stream);
            // Over TLS that begins after a command it is the client that speaks first.
            if !plain.is_empty() {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                tell.send(line).unwrap();
            }
            talk(stream, over_tls, &tell).await;
        }
    });
    (server.await, told)
}

async fn talk_on(
    stream: &mut BufReader<tokio::net::TcpStream>,
    texts: &[&str],
    tell: &mpsc::UnboundedSender<String>,
) {
    for text in texts {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        tell.send(line).unwrap();
    }
}

async fn lines(mut told: mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        lines.push(told.recv().await.unwrap());
    }
    lines
}

#[tokio::test]
async fn servers_that_greet_and_answer_pass() {
    use HealthCheckType::{FTP, IMAP, POP3, Redis};
    for (type_, texts, told_lines) in [
        (
            FTP,
            &["220 ready\r\n", "221 bye\r\n"][..],
            &["QUIT\r\n"][..],
        ),
        // Lines of a reply in between may look like anything (RFC 959, 4.2).
        (
            FTP,
            &["220-welcome\r\n 220 not yet\r\n230 neither\r\n220 ready\r\n"],
            &["QUIT\r\n"],
        ),
        (POP3, &["+OK dovecot ready\r\n", "+OK\r\n"], &["QUIT\r\n"]),
        (
            IMAP,
            &[
                "* OK ready\r\n",
                "* 1 EXISTS\r\nb OK done\r\n",
                "* BYE\r\nc OK\r\n",
            ],
            &["b NOOP\r\n", "c LOGOUT\r\n"],
        ),
        (
            IMAP,
            &["* PREAUTH as you like\r\n", "b ok\r\n"],
            &["b NOOP\r\n", "c LOGOUT\r\n"],
        ),
        (
            Redis,
            &["", "+PONG\r\n", "+OK\r\n"],
            &["PING\r\n", "QUIT\r\n"],
        ),
        (
            Redis,
            &["", "-NOAUTH Authentication required.\r\n"],
            &["PING\r\n", "QUIT\r\n"],
        ),
    ] {
        let (server, told) = says(texts).await;
        let passed = verdict(server.address, &check(type_)).await;
        assert_eq!(passed, Ok(()), "{type_:?} {texts:?}");
        assert_eq!(lines(told, told_lines.len()).await, told_lines);
    }
}

#[tokio::test]
async fn other_answers_are_told() {
    use HealthCheckType::{FTP, IMAP, POP3, Redis};
    for (type_, texts, why) in [
        (
            FTP,
            &["421 too many users\r\n"][..],
            "greeting is \"421 too many users\", expected 220",
        ),
        (
            POP3,
            &["-ERR [SYS/TEMP] try later\r\n"],
            "greeting is \"-ERR [SYS/TEMP] try later\", expected +OK",
        ),
        (
            IMAP,
            &["* BYE full\r\n"],
            "greeting is \"* BYE full\", expected * OK or * PREAUTH",
        ),
        (
            IMAP,
            &["* OK ready\r\n", "b BAD what?\r\n"],
            "reply to NOOP is \"b BAD what?\", expected OK",
        ),
        (
            Redis,
            &["", "-LOADING Redis is loading the dataset in memory\r\n"],
            "reply to PING is \"-LOADING Redis is loading the dataset in memory\", expected +PONG or -NOAUTH",
        ),
    ] {
        let (server, _told) = says(texts).await;
        assert_eq!(failure(server.address, &check(type_)).await, why);
    }
    for (type_, why) in [
        (FTP, "no greeting within 1 s"),
        (POP3, "no greeting within 1 s"),
        (IMAP, "no greeting within 1 s"),
        (Redis, "no reply to PING within 1 s"),
    ] {
        let (server, _told) = says(&["", "", ""]).await;
        assert_eq!(failure(server.address, &hasty(check(type_))).await, why);
    }
}

#[tokio::test]
async fn tls_begins_with_the_first_byte_or_after_a_command() {
    use HealthCheckType::{FTP, IMAP, POP3, Redis, SMTP};
    for (type_, texts, told_lines) in [
        (FTP, &["220 ready\r\n"][..], &["TLS", "QUIT\r\n"][..]),
        (
            IMAP,
            &["* OK\r\n", "b OK\r\n"],
            &["TLS", "b NOOP\r\n", "c LOGOUT\r\n"],
        ),
        (
            SMTP,
            &["220 ready\r\n", "250 fine\r\n"],
            &["TLS", "EHLO [127.0.0.1]\r\n", "QUIT\r\n"],
        ),
        (Redis, &["", "+PONG\r\n"], &["TLS", "PING\r\n", "QUIT\r\n"]),
    ] {
        let (server, told) = changes(&[], texts).await;
        let check = secure(type_, TlsStart::Immediately);
        assert_eq!(verdict(server.address, &check).await, Ok(()), "{type_:?}");
        assert_eq!(lines(told, told_lines.len()).await, told_lines);
    }
    for (type_, plain, over_tls, told_lines) in [
        (
            FTP,
            &["220 ready\r\n", "234 go on\r\n"][..],
            &["221 bye\r\n"][..],
            &["AUTH TLS\r\n", "TLS", "QUIT\r\n"][..],
        ),
        (
            IMAP,
            &["* OK\r\n", "* OK soon\r\na OK begin\r\n"],
            &["b OK\r\n"],
            &["a STARTTLS\r\n", "TLS", "b NOOP\r\n", "c LOGOUT\r\n"],
        ),
        (
            POP3,
            &["+OK\r\n", "+OK begin\r\n"],
            &["+OK bye\r\n"],
            &["STLS\r\n", "TLS", "QUIT\r\n"],
        ),
        (
            SMTP,
            &[
                "220 ready\r\n",
                "250-fine\r\n250 STARTTLS\r\n",
                "220 go\r\n",
            ],
            &["250 fine\r\n"],
            &[
                "EHLO [127.0.0.1]\r\n",
                "STARTTLS\r\n",
                "TLS",
                "EHLO [127.0.0.1]\r\n",
                "QUIT\r\n",
            ],
        ),
    ] {
        let (server, told) = changes(plain, over_tls).await;
        let check = secure(type_, TlsStart::StartTLS);
        assert_eq!(verdict(server.address, &check).await, Ok(()), "{type_:?}");
        assert_eq!(lines(told, told_lines.len()).await, told_lines);
    }
}

#[tokio::test]
async fn a_server_without_tls_fails_a_check_that_wants_it() {
    use HealthCheckType::{FTP, IMAP, POP3, SMTP};
    for (type_, texts, why) in [
        (
            FTP,
            &["220 ready\r\n", "530 log in first\r\n"][..],
            "reply to AUTH TLS is \"530 log in first\", expected 234",
        ),
        (
            IMAP,
            &["* OK\r\n", "a BAD no\r\n"],
            "reply to STARTTLS is \"a BAD no\", expected OK",
        ),
        (
            POP3,
            &["+OK\r\n", "-ERR no\r\n"],
            "reply to STLS is \"-ERR no\", expected +OK",
        ),
        (
            SMTP,
            &["220 ready\r\n", "250 fine\r\n", "502 no\r\n"],
            "reply to STARTTLS is \"502 no\", expected 220",
        ),
        // What comes in plain text behind the reply must not pass for something that came over TLS.
        (
            POP3,
            &["+OK\r\n", "+OK begin\r\n+OK bye\r\n"],
            "more than a reply came before TLS",
        ),
    ] {
        let (server, _told) = says(texts).await;
        let check = secure(type_, TlsStart::StartTLS);
        assert_eq!(failure(server.address, &check).await, why);
    }
    let (server, _told) = says(&["220 plain\r\n"]).await;
    let check = secure(SMTP, TlsStart::Immediately);
    assert_eq!(failure(server.address, &check).await, "answer is no TLS");
}

#[tokio::test]
async fn a_server_that_does_not_answer_a_good_bye_holds_up_nothing() {
    let (server, _told) = says(&["+OK ready\r\n", "", ""]).await;
    let begin = Instant::now();
    let passed = verdict(server.address, &check(HealthCheckType::POP3)).await;
    assert_eq!(passed, Ok(()));
    assert!(begin.elapsed() < Duration::from_secs(PATIENCE_SECONDS.into()) / 2);
}
