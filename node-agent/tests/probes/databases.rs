//! Checks of types MySQL and PostgreSQL.

use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckType, MySqlCheck, PostgreSqlCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::played::{PATIENCE_SECONDS, Played, ended, endlessly, failure, hasty, serve, verdict};

fn mysql(user: Option<&str>) -> HealthCheck {
    let user = user.map(String::from);
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        mysql: Some(MySqlCheck { user }),
        ..HealthCheck::new("database".to_owned(), HealthCheckType::MySQL)
    }
}

fn postgresql() -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("database".to_owned(), HealthCheckType::PostgreSQL)
    }
}

/// A packet of MySQL.
fn packet(number: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![u8::try_from(content.len()).unwrap(), 0, 0, number];
    packet.extend(content);
    packet
}

/// A greeting, of which only the beginning is looked at.
fn greeting() -> Vec<u8> {
    packet(0, b"\x0a10.11.6-MariaDB\0and so on")
}

async fn heard(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let mut content = vec![0; usize::from(head[0])];
    stream.read_exact(&mut content).await.ok()?;
    Some((head[3], content))
}

/// A server that greets and answers each packet with the next of these; tells what it heard.
async fn judges(
    answers: &'static [&'static [u8]],
) -> (Played, mpsc::UnboundedReceiver<(u8, Vec<u8>)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(&greeting()).await.unwrap();
            let mut answers = answers.iter();
            while let Some((number, content)) = heard(&mut stream).await {
                // Whoever tested may have seen enough.
                let _ = tell.send((number, content));
                let Some(answer) = answers.next() else {
                    return;
                };
                let answer = packet(number.wrapping_add(1), answer);
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
    (server.await, told)
}

const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied for user 'lvs'@'10.0.0.1'";

#[tokio::test]
async fn a_mysql_server_that_judges_a_user_passes() {
    let (server, mut told) = judges(&[DENIED]).await;
    assert_eq!(verdict(server.address, &mysql(None)).await, Ok(()));
    let (number, content) = told.recv().await.unwrap();
    assert_eq!(number, 1, "the packet after the greeting");
    // Capabilities, the longest packet, characters and 23 bytes; then the user, no password, and how it would be sent.
    assert_eq!(&content[32..], b"lvs\0\0mysql_native_password\0");

    let (server, mut told) = judges(&[b"\0\0\0\x02\0\0\0"]).await;
    let named = mysql(Some("monitor"));
    assert_eq!(verdict(server.address, &named).await, Ok(()));
    let (_, content) = told.recv().await.unwrap();
    assert!(content[32..].starts_with(b"monitor\0\0"));
    assert_eq!(told.recv().await.unwrap(), (0, vec![1]), "good-bye");

    // Another way to log in, with as empty a password.
    let (server, mut told) = judges(&[b"\xfecaching_sha2_password\0salt", DENIED]).await;
    assert_eq!(verdict(server.address, &mysql(None)).await, Ok(()));
    told.recv().await.unwrap();
    assert_eq!(told.recv().await.unwrap(), (3, vec![]));
}

#[tokio::test]
async fn a_mysql_server_that_is_full_or_has_blocked_the_director_fails() {
    let full = serve(|mut stream| async move {
        let packet = packet(0, b"\xff\x10\x04Too many connections");
        stream.write_all(&packet).await.unwrap();
    });
    let why = failure(full.await.address, &mysql(None)).await;
    assert_eq!(why, "error 1040: \"Too many connections\"");
    let (blocked, _told) = judges(&[b"\xff\x69\x04#HY000Host is blocked"]).await;
    let why = failure(blocked.address, &mysql(None)).await;
    assert_eq!(why, "error 1129: \"Host is blocked\"");
    let web = serve(|mut stream| async move {
        stream.write_all(b"\x05\0\0\0HTTP/").await.unwrap();
        ended(stream).await;
    });
    let why = failure(web.await.address, &mysql(None)).await;
    assert_eq!(why, "greeting is none of MySQL");
    let large = serve(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad").await.unwrap();
        ended(stream).await;
    });
    let why = failure(large.await.address, &mysql(None)).await;
    assert_eq!(why, "greeting exceeds 16384 bytes");
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(mysql(None))).await;
    assert_eq!(why, "no greeting within 1 s");
    let cut = serve(|mut stream| async move {
        stream.write_all(b"\x05\0\0").await.unwrap();
    });
    let why = failure(cut.await.address, &mysql(None)).await;
    assert_eq!(why, "connection closed before a greeting");
}

/// An error message of PostgreSQL.
fn error(state: &str, text: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{state}\0M{text}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    let mut message = b"E".to_vec();
    message.extend(length.to_be_bytes());
    message.extend(fields.as_bytes());
    message
}

/// A server that reads the beginning of a log-in and answers with this.
async fn answers(answer: &[u8]) -> (Played, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let answer = answer.to_vec();
    let server = serve(move |mut stream| {
        let (tell, answer) = (tell.clone(), answer.clone());
        async move {
            let length = stream.read_u32().await.unwrap();
            let mut content = vec![0; usize::try_from(length).unwrap() - 4];
            stream.read_exact(&mut content).await.unwrap();
            tell.send(content).unwrap();
            stream.write_all(&answer).await.unwrap();
            ended(stream).await;
        }
    });
    (server.await, told)
}

#[tokio::test]
async fn a_postgresql_server_that_judges_a_user_passes() {
    for answer in [
        // A password as SCRAM, one that is not needed, a user that is not there, a database that is not.
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec(),
        b"R\0\0\0\x08\0\0\0\0".to_vec(),
        error("28000", "role \"lvs\" does not exist"),
        error("3D000", "database \"lvs\" does not exist"),
        b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0R\0\0\0\x08\0\0\0\0".to_vec(),
    ] {
        let (server, mut told) = answers(&answer).await;
        let passed = verdict(server.address, &postgresql()).await;
        assert_eq!(passed, Ok(()), "{answer:?}");
        let said = told.recv().await.unwrap();
        assert_eq!(said, b"\0\x03\0\0user\0lvs\0database\0postgres\0\0");
    }
    let named = HealthCheck {
        postgresql: Some(PostgreSqlCheck {
            user: Some("monitor".to_owned()),
            database: Some("shop".to_owned()),
        }),
        ..postgresql()
    };
    let (server, mut told) = answers(b"R\0\0\0\x08\0\0\0\0").await;
    assert_eq!(verdict(server.address, &named).await, Ok(()));
    let said = told.recv().await.unwrap();
    assert_eq!(said, b"\0\x03\0\0user\0monitor\0database\0shop\0\0");
}

#[tokio::test]
async fn a_postgresql_server_that_starts_or_is_full_fails() {
    for (answer, why) in [
        (
            error("57P03", "the database is starting up"),
            "error \"57P03\": \"the database is starting up\"",
        ),
        (
            error("53300", "too many clients"),
            "error \"53300\": \"too many clients\"",
        ),
        (
            b"HTTP/1.1 400 Bad".to_vec(),
            "reply to the log-in is none of PostgreSQL",
        ),
        (
            b"R\xff\xff\xff\xff".to_vec(),
            "reply to the log-in exceeds 16384 bytes",
        ),
    ] {
        let (server, _told) = answers(&answer).await;
        assert_eq!(failure(server.address, &postgresql()).await, why);
    }
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(postgresql())).await;
    assert_eq!(why, "no reply to the log-in within 1 s");
    let endless = serve(|mut stream| async move {
        let version = b"v\0\0\0\x04".repeat(200);
        endlessly(&mut stream, &version, Duration::ZERO).await;
    });
    let why = failure(endless.await.address, &hasty(postgresql())).await;
    assert_eq!(why, "no reply to the log-in within 1 s");
}
