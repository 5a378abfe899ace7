//! Checks that log in, and what is told when they are refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use lvs_crds::health_check::{HealthCheck, HealthCheckType, HttpCheck};
use md5::{Digest, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::played::{
    PATIENCE_SECONDS, ended, failure, hasty, head, http, log_in, says, serve, verdict,
};

const USERNAME: &str = "monitor";
const PASSWORD: &str = "p4ss\"wo\\rd";
const CREDENTIALS: [(&str, &str); 2] = [("db.username", USERNAME), ("db.password", PASSWORD)];

fn check(type_: HealthCheckType) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        credentials_name: Some("db".to_owned()),
        ..HealthCheck::new("log-in".to_owned(), type_)
    }
}

/// What a server that says these texts is told, and what comes of it.
async fn told(
    type_: HealthCheckType,
    texts: &'static [&'static str],
    lines: usize,
) -> (Result<(), String>, Vec<String>) {
    let (server, mut told) = says(texts).await;
    let verdict = log_in(server.address, &check(type_), &CREDENTIALS).await;
    let mut heard = Vec::new();
    while heard.len() < lines {
        heard.push(told.recv().await.unwrap());
    }
    (verdict, heard)
}

#[tokio::test]
async fn mailboxes_and_files_let_the_user_in() {
    let texts = &[
        "220 ready\r\n",
        "331-please\r\n331 password\r\n",
        "230 in\r\n",
        "221 bye\r\n",
    ];
    let (verdict, heard) = told(HealthCheckType::FTP, texts, 3).await;
    assert_eq!(verdict, Ok(()));
    assert_eq!(
        heard,
        ["USER monitor\r\n", "PASS p4ss\"wo\\rd\r\n", "QUIT\r\n"]
    );
    let texts = &["+OK\r\n", "+OK\r\n", "+OK in\r\n", "+OK bye\r\n"];
    let (verdict, heard) = told(HealthCheckType::POP3, texts, 3).await;
    assert_eq!(verdict, Ok(()));
    assert_eq!(
        heard,
        ["USER monitor\r\n", "PASS p4ss\"wo\\rd\r\n", "QUIT\r\n"]
    );
    let texts = &[
        "* OK\r\n",
        "* CAPABILITY X\r\nl OK in\r\n",
        "b OK\r\n",
        "c OK\r\n",
    ];
    let (verdict, heard) = told(HealthCheckType::IMAP, texts, 3).await;
    assert_eq!(verdict, Ok(()));
    assert_eq!(heard[0], "l LOGIN \"monitor\" \"p4ss\\\"wo\\\\rd\"\r\n");
    assert_eq!(heard[1..], ["b NOOP\r\n", "c LOGOUT\r\n"]);
}

#[tokio::test]
async fn a_refused_log_in_fails_and_nothing_of_it_is_shown() {
    let cases: [(HealthCheckType, &'static [&'static str], &str); 6] = [
        (
            HealthCheckType::FTP,
            &[
                "220 ready\r\n",
                "331 go\r\n",
                "530 monitor p4ss\"wo\\rd is wrong\r\n",
            ],
            "530",
        ),
        (
            HealthCheckType::FTP,
            &["220 ready\r\n", "530 no monitor\r\n"],
            "530",
        ),
        (
            HealthCheckType::POP3,
            &[
                "+OK\r\n",
                "+OK\r\n",
                "-ERR monitor p4ss\"wo\\rd is wrong\r\n",
            ],
            "ERR",
        ),
        (
            HealthCheckType::IMAP,
            &["* OK\r\n", "l NO [AUTHENTICATIONFAILED] monitor\r\n"],
            "NO",
        ),
        (
            HealthCheckType::IMAP,
            &["* OK\r\n", "l p4ss\"wo\\rd-and-more-of-it\r\n"],
            "no code",
        ),
        (HealthCheckType::POP3, &["+OK\r\n", "-ERR\r\n"], "ERR"),
    ];
    for (type_, texts, code) in cases {
        let (server, _told) = says(texts).await;
        let verdict = log_in(server.address, &check(type_), &CREDENTIALS).await;
        assert_eq!(verdict, Err(format!("log-in refused: {code}")), "{texts:?}");
    }
}

/// A Redis server that knows this log-in.
async fn redis(
    words: &'static str,
    reply: &'static str,
    pong: &'static str,
) -> crate::played::Played {
    serve(move |mut stream| async move {
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), words);
        stream.write_all(reply.as_bytes()).await.unwrap();
        let mut next = [0; 6];
        if stream.read_exact(&mut next).await.is_ok() {
            stream.write_all(pong.as_bytes()).await.unwrap();
        }
        ended(stream).await;
    })
    .await
}

#[tokio::test]
async fn redis_is_told_a_password_and_a_user_if_there_is_one() {
    let check = check(HealthCheckType::Redis);
    let alone = [("db.password", PASSWORD)];
    let words = "*2\r\n$4\r\nAUTH\r\n$10\r\np4ss\"wo\\rd\r\n";
    let server = redis(words, "+OK\r\n", "+PONG\r\n").await;
    assert_eq!(log_in(server.address, &check, &alone).await, Ok(()));
    let words = "*3\r\n$4\r\nAUTH\r\n$7\r\nmonitor\r\n$10\r\np4ss\"wo\\rd\r\n";
    let server = redis(words, "+OK\r\n", "+PONG\r\n").await;
    assert_eq!(log_in(server.address, &check, &CREDENTIALS).await, Ok(()));
    let server = redis(words, "-WRONGPASS monitor\r\n", "").await;
    let verdict = log_in(server.address, &check, &CREDENTIALS).await;
    assert_eq!(verdict, Err("log-in refused: WRONGPASS".to_owned()));
    let server = redis(words, "+OK\r\n", "-NOAUTH\r\n").await;
    let verdict = log_in(server.address, &check, &CREDENTIALS).await;
    let why = "reply to PING is \"-NOAUTH\", expected +PONG";
    assert_eq!(verdict, Err(why.to_owned()));
}

fn page() -> HealthCheck {
    http(HttpCheck {
        credentials_name: Some("db".to_owned()),
        ..HttpCheck::default()
    })
}

#[tokio::test]
async fn a_page_is_asked_for_with_user_and_password() {
    let server = serve(|mut stream| async move {
        let head = head(&mut stream).await;
        let encoded = STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
        let right = head.contains(&format!("Authorization: Basic {encoded}\r\n"));
        let status = if right { "200 OK" } else { "401 Unauthorized" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        ended(stream).await;
    })
    .await;
    assert_eq!(log_in(server.address, &page(), &CREDENTIALS).await, Ok(()));
    let wrong = [("db.username", USERNAME), ("db.password", "other")];
    let refused = "log-in refused: status 401, expected 200-299";
    let verdict = log_in(server.address, &page(), &wrong).await;
    assert_eq!(verdict, Err(refused.to_owned()));
    let colon = [("db.username", "a:b"), ("db.password", "other")];
    let verdict = log_in(server.address, &page(), &colon).await;
    let why = "not asked: the user name has a colon, which HTTP cannot carry";
    assert_eq!(verdict, Err(why.to_owned()));
}

#[tokio::test]
async fn without_credentials_nobody_is_asked() {
    let server = serve(ended).await;
    let types = [
        HealthCheckType::MySQL,
        HealthCheckType::PostgreSQL,
        HealthCheckType::Redis,
        HealthCheckType::LDAP,
        HealthCheckType::FTP,
        HealthCheckType::IMAP,
        HealthCheckType::POP3,
        HealthCheckType::RADIUS,
    ];
    for check in types.map(check).into_iter().chain([page()]) {
        let why = failure(server.address, &check).await;
        let begins = "not asked: no credentials db for namespace shop: add key shop.db.";
        assert!(why.starts_with(begins), "{:?}: {why}", check.type_);
    }
    assert_eq!(server.connections(), 0);
}

/// A directory that answers this bind with this result.
async fn directory(bind: &'static [u8], result: u8) -> crate::played::Played {
    serve(move |mut stream| async move {
        let mut heard = vec![0; bind.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, bind);
        let answer = [0x30, 0x0c, 2, 1, 1, 0x61, 7, 0x0a, 1, result, 4, 0, 4, 0];
        stream.write_all(&answer).await.unwrap();
        ended(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_directory_accepts_a_name_and_a_password() {
    const BIND: &[u8] = b"\x30\x16\x02\x01\x01\x60\x11\x02\x01\x03\x04\x04cn=a\x80\x06secret";
    let check = check(HealthCheckType::LDAP);
    let credentials = [("db.username", "cn=a"), ("db.password", "secret")];
    for (result, expected) in [
        (0, Ok(())),
        (49, Err("log-in refused: result 49".to_owned())),
        (8, Err("reply to the bind is result 8".to_owned())),
    ] {
        let server = directory(BIND, result).await;
        let verdict = log_in(server.address, &check, &credentials).await;
        assert_eq!(verdict, expected);
    }
    // A directory takes it for nobody, and would let him in.
    let empty = [("db.username", "cn=a"), ("db.password", "")];
    let server = directory(BIND, 0).await;
    let verdict = log_in(server.address, &check, &empty).await;
    let why = "not asked: user name and password of a log-in by LDAP must not be empty";
    assert_eq!(verdict, Err(why.to_owned()));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_long_name_is_bound_as_it_is() {
    let check = check(HealthCheckType::LDAP);
    let name: String = "n".repeat(200);
    let credentials = [("db.username", &*name), ("db.password", "secret")];
    let server = serve(|mut stream| async move {
        let mut heard = vec![0; 4 + 3 + 4 + 3 + 4 + 200 + 8];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard[..4], [0x30, 0x82, 0, 222]);
        assert_eq!(heard[14..18], [0x04, 0x82, 0, 200]);
        let answer = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
        stream.write_all(answer).await.unwrap();
        ended(stream).await;
    })
    .await;
    let verdict = log_in(server.address, &check, &credentials).await;
    assert_eq!(verdict, Ok(()));
}

const SECRET: &str = "testing123";

fn radius_credentials(user: bool) -> Vec<(&'static str, &'static str)> {
    let mut credentials = vec![("db.secret", SECRET)];
    if user {
        credentials.extend(CREDENTIALS);
    }
    credentials
}

/// A RADIUS server that answers with this code, once `spoil` has changed the reply, and tells what it was asked.
async fn radius(
    code: u8,
    spoil: fn(&mut Vec<u8>),
) -> (
    std::net::SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut request = vec![0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut request).await.unwrap();
            let request = &request[..length];
            let mut reply = vec![code, request[1], 0, 20];
            reply.extend(&request[4..20]);
            let digest = Md5::new().chain_update(&reply).chain_update(SECRET);
            reply[4..20].copy_from_slice(&digest.finalize());
            spoil(&mut reply);
            socket.send_to(&reply, peer).await.unwrap();
            tell.send(request.to_vec()).unwrap();
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_radius_server_accepts_a_user_or_answers_how_it_is() {
    let check = check(HealthCheckType::RADIUS);
    for (code, is_login, expected) in [
        (2, true, Ok(())),
        (3, true, Err("log-in refused: Access-Reject")),
        (
            11,
            true,
            Err("log-in refused: Access-Challenge, more than a password is wanted"),
        ),
        (2, false, Ok(())),
        (5, false, Ok(())),
        (3, false, Err("Status-Server is answered by Access-Reject")),
        (40, true, Err("reply has code 28")),
    ] {
        let (address, mut told) = radius(code, |_| {}).await;
        let verdict = log_in(address, &check, &radius_credentials(is_login)).await;
        assert_eq!(verdict, expected.map_err(String::from), "{code}");
        let request = told.recv().await.unwrap();
        assert_eq!(request[0], if is_login { 1 } else { 12 });
        assert_eq!(usize::from(request[3]), request.len());
        // It is sealed, first of all.
        assert_eq!(request[20..22], [80, 18]);
        let mut unsealed = request.clone();
        unsealed[22..38].fill(0);
        let seal = Hmac::<Md5>::new_from_slice(SECRET.as_bytes()).unwrap();
        let seal = seal.chain_update(&unsealed).finalize().into_bytes();
        assert_eq!(request[22..38], seal[..]);
        let has_user = request.windows(9).any(|bytes| bytes == b"\x01\x09monitor");
        assert_eq!(has_user, is_login);
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert!(!shown.contains("p4ss"), "the password is hidden");
    }
}

#[tokio::test]
async fn a_reply_by_nobody_who_knows_the_secret_is_none() {
    let check = hasty(check(HealthCheckType::RADIUS));
    let spoils: [fn(&mut Vec<u8>); 3] = [
        |reply| reply[19] ^= 1,
        |reply| reply[1] ^= 1,
        |reply| reply.truncate(3),
    ];
    for spoil in spoils {
        let (address, _told) = radius(2, spoil).await;
        let verdict = log_in(address, &check, &radius_credentials(true)).await;
        let why = "replies are not sealed with the shared secret: is it the server's?";
        assert_eq!(verdict, Err(why.to_owned()));
    }
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let verdict = log_in(address, &check, &radius_credentials(false)).await;
    let why =
        "no reply within 1 s: the server is down, does not know this node or has another secret";
    assert_eq!(verdict, Err(why.to_owned()));
    let nobody = [("db.username", USERNAME), ("db.password", PASSWORD)];
    let verdict = log_in(address, &check, &nobody).await;
    assert!(
        verdict
            .unwrap_err()
            .ends_with("add key shop.db.secret to Secret checks")
    );
    let mut long = radius_credentials(true);
    let password = "p".repeat(129);
    long[2].1 = Box::leak(password.into_boxed_str());
    let verdict = log_in(address, &check, &long).await;
    let why = "not asked: shop.db.password is longer than 128 bytes, which RADIUS cannot carry";
    assert_eq!(verdict, Err(why.to_owned()));
}

#[tokio::test]
async fn a_check_without_credentials_is_as_it_was() {
    let anonymous = HealthCheck {
        credentials_name: None,
        ..check(HealthCheckType::FTP)
    };
    let (server, mut told) = says(&["220 ready\r\n", "221 bye\r\n"]).await;
    assert_eq!(verdict(server.address, &anonymous).await, Ok(()));
    assert_eq!(told.recv().await.unwrap(), "QUIT\r\n");
}
