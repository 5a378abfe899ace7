//! Log-ins to MySQL and PostgreSQL, with servers that verify them as real ones do.

use lvs_crds::health_check::{HealthCheck, HealthCheckType, TlsCheck, TlsStart, TlsVerification};
use md5::{Digest, Md5};
use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::https::acceptor;
use crate::played::{PATIENCE_SECONDS, Played, ended, log_in, serve};

const CREDENTIALS: [(&str, &str); 2] = [("db.username", "monitor"), ("db.password", "secret")];
/// The number that a server gives with its greeting, in two parts.
const FIRST: &[u8; 8] = b"abcdefgh";
const SECOND: &[u8; 12] = b"ijklmnopqrst";

fn check(type_: HealthCheckType) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        credentials_name: Some("db".to_owned()),
        ..HealthCheck::new("database".to_owned(), type_)
    }
}

fn packet(number: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![u8::try_from(content.len()).unwrap(), 0, 0, number];
    packet.extend(content);
    packet
}

fn greeting(way: &str) -> Vec<u8> {
    let mut content = b"\x0a8.0.36\0\x01\0\0\0".to_vec();
    content.extend(FIRST);
    content.extend(b"\0\xff\xff\x21\x02\0\xff\xdf\x15");
    content.extend([0; 10]);
    content.extend(SECOND);
    content.push(0);
    content.extend(way.as_bytes());
    content.push(0);
    packet(0, &content)
}

/// Whether an answer is that of the password, by the digest of its digest alone, which is all that a server keeps.
fn is_right(answer: &[u8], algorithm: &'static Algorithm, number: &[u8]) -> bool {
    let digest = |parts: &[&[u8]]| {
        let mut context = Context::new(algorithm);
        for part in parts {
            context.update(part);
        }
        context.finish()
    };
    let kept = digest(&[digest(&[b"secret"]).as_ref()]);
    let mask = if algorithm == &SHA256 {
        digest(&[kept.as_ref(), number])
    } else {
        digest(&[number, kept.as_ref()])
    };
    let once: Vec<u8> = answer
        .iter()
        .zip(mask.as_ref())
        .map(|(a, b)| a ^ b)
        .collect();
    digest(&[&once]).as_ref() == kept.as_ref()
}

async fn heard(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    let mut content = vec![0; usize::from(head[0])];
    stream.read_exact(&mut content).await.unwrap();
    content
}

/// A server of MySQL that greets with this way, verifies the answer to it, and says these packets.
async fn mysql(way: &'static str, replies: &'static [&'static [u8]]) -> Played {
    serve(move |mut stream| async move {
        stream.write_all(&greeting(way)).await.unwrap();
        let content = heard(&mut stream).await;
        let (user, rest) = content[32..].split_at(8);
        assert_eq!(user, b"monitor\0");
        let length = usize::from(rest[0]);
        let (answer, named) = rest[1..].split_at(length);
        let number = [&FIRST[..], SECOND].concat();
        let algorithm = if named == b"caching_sha2_password\0" {
            &SHA256
        } else {
            assert_eq!(named, b"mysql_native_password\0");
            &SHA1_FOR_LEGACY_USE_ONLY
        };
        assert!(is_right(answer, algorithm, &number), "{way}");
        for (count, reply) in (2..).step_by(2).zip(replies) {
            stream.write_all(&packet(count, reply)).await.unwrap();
            if reply[0] == 0xfe && reply.ends_with(b"ABCDEFGHIJKLMNOPQRST\0") {
                let answer = heard(&mut stream).await;
                let number = b"ABCDEFGHIJKLMNOPQRST";
                assert!(is_right(&answer, &SHA1_FOR_LEGACY_USE_ONLY, number));
            }
        }
        ended(stream).await;
    })
    .await
}

#[tokio::test]
async fn mysql_lets_the_user_in_by_each_way_that_shows_no_password() {
    const DONE: &[u8] = b"\0\0\0\x02\0\0\0";
    let cases: [(&str, &[&[u8]]); 5] = [
        ("mysql_native_password", &[DONE]),
        ("caching_sha2_password", &[DONE]),
        // The server knows it from before.
        ("caching_sha2_password", &[b"\x01\x03", DONE]),
        ("another_way", &[DONE]),
        (
            "caching_sha2_password",
            &[b"\xfemysql_native_password\0ABCDEFGHIJKLMNOPQRST\0", DONE],
        ),
    ];
    for (way, replies) in cases {
        let server = mysql(way, replies).await;
        let verdict = log_in(server.address, &check(HealthCheckType::MySQL), &CREDENTIALS).await;
        assert_eq!(verdict, Ok(()), "{way} {replies:?}");
    }
}

#[tokio::test]
async fn mysql_that_refuses_or_wants_the_password_itself_is_told() {
    let cases: [(&[&[u8]], &str); 5] = [
        (
            &[b"\xff\x15\x04#28000Access denied for user 'monitor'@'10.0.0.1'"],
            "log-in refused: error 1045",
        ),
        (
            &[b"\xff\x10\x04#08004Too many connections"],
            "error 1040: \"Too many connections\"",
        ),
        (
            &[b"\x01\x04"],
            "not asked: the server knows no short form of this password yet, and it is not sent in plain text: set tls, or make \
             the user one of mysql_native_password",
        ),
        (
            &[b"\xfemysql_clear_password\0"],
            "not asked: the server wants the password in way \"mysql_clear_password\": make the user one of mysql_native_password",
        ),
        (&[b"\x42"], "reply to the log-in is none of MySQL"),
    ];
    for (replies, why) in cases {
        let server = mysql("caching_sha2_password", replies).await;
        let verdict = log_in(server.address, &check(HealthCheckType::MySQL), &CREDENTIALS).await;
        assert_eq!(verdict, Err(why.to_owned()), "{replies:?}");
    }
}

fn over_tls(type_: HealthCheckType) -> HealthCheck {
    HealthCheck {
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            start: TlsStart::StartTLS,
            ..TlsCheck::default()
        }),
        ..check(type_)
    }
}

/// MySQL 8 keeps no short form of a password over its own restart: the first log-in after it says the password itself.
#[tokio::test]
async fn mysql_is_told_the_password_itself_over_tls_and_only_there() {
    let acceptor = acceptor(rustls::ALL_VERSIONS, &[]);
    let server = serve(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let greeting = greeting("caching_sha2_password");
            stream.write_all(&greeting).await.unwrap();
            let wish = heard(&mut stream).await;
            let capabilities = u32::from_le_bytes(wish[..4].try_into().unwrap());
            assert_eq!(capabilities & 0x800, 0x800, "TLS");
            assert_eq!(wish.len(), 32, "nothing of the user yet");
            let mut stream = acceptor.accept(stream).await.unwrap();
            let log_in = heard(&mut stream).await;
            assert_eq!(log_in[..32], wish);
            assert!(log_in[32..].starts_with(b"monitor\0"));
            stream.write_all(&packet(3, b"\x01\x04")).await.unwrap();
            assert_eq!(heard(&mut stream).await, b"secret\0");
            let done = packet(5, b"\0\0\0\x02\0\0\0");
            stream.write_all(&done).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let check = over_tls(HealthCheckType::MySQL);
    let verdict = log_in(server.address, &check, &CREDENTIALS).await;
    assert_eq!(verdict, Ok(()));
}

#[tokio::test]
async fn a_database_without_tls_fails_a_check_that_wants_it_and_learns_nothing() {
    let mut plain = greeting("caching_sha2_password");
    // What it can do, without TLS.
    let length = plain.len();
    let at = 4 + b"\x0a8.0.36\0\x01\0\0\0".len() + FIRST.len() + 1;
    assert!(at + 1 < length);
    plain[at + 1] &= !0x08;
    for (type_, says) in [
        (HealthCheckType::MySQL, plain),
        (HealthCheckType::PostgreSQL, b"N".to_vec()),
    ] {
        let is_postgresql = type_ == HealthCheckType::PostgreSQL;
        let server = serve(move |mut stream| {
            let says = says.clone();
            async move {
                if is_postgresql {
                    let mut wish = [0; 8];
                    stream.read_exact(&mut wish).await.unwrap();
                    assert_eq!(wish, *b"\0\0\0\x08\x04\xd2\x16\x2f");
                }
                stream.write_all(&says).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                assert!(rest.is_empty(), "{rest:?}");
            }
        })
        .await;
        let verdict = log_in(server.address, &over_tls(type_), &CREDENTIALS).await;
        assert_eq!(verdict, Err("the server does not speak TLS".to_owned()));
    }
}

/// A message of PostgreSQL.
fn message(type_: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![type_];
    message.extend(u32::try_from(content.len() + 4).unwrap().to_be_bytes());
    message.extend(content);
    message
}

/// A server of PostgreSQL that wants this, is answered that, and then says these messages.
async fn postgresql(wants: &'static [u8], answer: &'static [u8], rest: Vec<u8>) -> Played {
    serve(move |mut stream| {
        let rest = rest.clone();
        async move {
            let length = stream.read_u32().await.unwrap();
            let mut start = vec![0; usize::try_from(length).unwrap() - 4];
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(start, b"\0\x03\0\0user\0monitor\0database\0postgres\0\0");
            stream.write_all(&message(b'R', wants)).await.unwrap();
            let mut heard = vec![0; answer.len() + 5];
            if !answer.is_empty() {
                stream.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, message(b'p', answer));
            }
            stream.write_all(&rest).await.unwrap();
            ended(stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn postgresql_lets_the_user_in_once_it_is_ready() {
    let done = || message(b'R', &[0; 4]);
    let ready = || message(b'Z', b"I");
    let all = || {
        vec![
            done(),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'K', &[1; 8]),
            ready(),
        ]
    };
    let digest = |first: &[u8], second: &[u8]| {
        let digest = Md5::new()
            .chain_update(first)
            .chain_update(second)
            .finalize();
        let number = u128::from_be_bytes(digest.into());
        format!("{number:032x}")
    };
    let inner = digest(b"secret", b"monitor");
    let hashed = format!("md5{}\0", digest(inner.as_bytes(), b"salt"));
    let hashed: &'static [u8] = Box::leak(hashed.into_bytes().into_boxed_slice());
    let full = b"SFATAL\0C53300\0Mtoo many\0\0";
    let cases = [
        (&b"\0\0\0\0"[..], &b""[..], all()[1..].concat(), ""),
        (b"\0\0\0\x03", b"secret\0", all().concat(), ""),
        (b"\0\0\0\x05salt", hashed, all().concat(), ""),
        (
            b"\0\0\0\x03",
            b"secret\0",
            [done(), message(b'E', full)].concat(),
            "error \"53300\": \"too many\"",
        ),
        (
            b"\0\0\0\x03",
            b"secret\0",
            ready(),
            "reply to the log-in is none of PostgreSQL",
        ),
        (
            b"\0\0\0\x07",
            b"",
            vec![],
            "not asked: the server wants way 7 of this user: let pg_hba.conf say scram-sha-256 for him",
        ),
    ];
    for (wants, answer, rest, expected) in cases {
        let server = postgresql(wants, answer, rest).await;
        let check = check(HealthCheckType::PostgreSQL);
        let verdict = log_in(server.address, &check, &CREDENTIALS).await;
        let why = verdict.err().unwrap_or_default();
        assert_eq!(why, expected, "{wants:?}");
    }
}
