//! Checks of type HTTP that look at the body.

use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HttpBodyType, HttpMethod};
use ring::digest::{SHA256, digest};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::played::{
    Played, answers, body, ended, endlessly, failure, hasty, head, serve, verdict,
};

/// 1 GiB.
const GIGANTIC: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
/// What is sent beyond what was read is in the buffers of two sockets, each of a few MiB at most.
const BUFFERED: usize = 32 << 20;

/// A check that looks at so many bytes.
fn within(check: HealthCheck, maximum_body_bytes: u32) -> HealthCheck {
    let mut check = check;
    check.http.as_mut().unwrap().maximum_body_bytes = maximum_body_bytes;
    check
}

fn text(value: &str) -> HealthCheck {
    body(HttpBodyType::Text, value)
}

fn regex(value: &str) -> HealthCheck {
    body(HttpBodyType::Regex, value)
}

fn sha256(value: &str) -> HealthCheck {
    body(HttpBodyType::SHA256, value)
}

/// The digest in hexadecimal digits.
fn digest_of(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let digits = format!("{:02x?}", digest.as_ref());
    digits.replace(['[', ']', ',', ' '], "")
}

/// A server whose answer begins with these bytes and never ends, and how much of it was sent on each connection.
async fn endless(begin: &'static str) -> (Played, UnboundedReceiver<usize>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(begin.as_bytes()).await.unwrap();
            let sent = endlessly(&mut stream, &[b'x'; 16384], Duration::ZERO).await;
            tell.send(sent).unwrap();
        }
    });
    (server.await, told)
}

#[tokio::test]
async fn a_text_is_found_wherever_it_stands() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmy S\r\n3\r\nerv\r\n5\r\ner is\r\n0\r\n\r\n";
    let server = answers(answer).await;
    for found in ["my", "Server", "is", "my Server is", "v"] {
        assert_eq!(
            verdict(server.address, &text(found)).await,
            Ok(()),
            "{found}"
        );
    }
    let why = failure(server.address, &text("server")).await;
    assert_eq!(why, "body does not hold \"server\" in its 12 bytes");
    // A regular expression it is not.
    let why = failure(server.address, &text("S.*r")).await;
    assert_eq!(why, "body does not hold \"S.*r\" in its 12 bytes");
    let last = within(text("my Server"), 9);
    assert_eq!(verdict(server.address, &last).await, Ok(()));
    let why = failure(server.address, &within(text("my Server"), 8)).await;
    assert_eq!(why, "body does not hold \"my Server\" in its first 8 bytes");
}

#[tokio::test]
async fn a_regular_expression_matches_somewhere_in_the_body() {
    let server = answers("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nServer: §81").await;
    for matches in ["Server", "^Server: [§]8[0-9]$", "(?i)server"] {
        let asked = verdict(server.address, &regex(matches)).await;
        assert_eq!(asked, Ok(()), "{matches}");
    }
    let why = failure(server.address, &regex("erver$")).await;
    assert_eq!(why, "body does not match \"erver$\" in its 12 bytes");
    let why = failure(server.address, &within(regex("r: "), 7)).await;
    assert_eq!(why, "body does not match \"r: \" in its first 7 bytes");
}

#[tokio::test]
async fn what_is_no_regular_expression_is_told_and_nothing_asked() {
    let server = answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let why = failure(server.address, &regex("a(b")).await;
    assert_eq!(
        why,
        "\"a(b\" cannot be used as a regular expression: unclosed group"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_digest_is_that_of_the_whole_body() {
    let server = answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready").await;
    let right = digest_of(b"ready");
    for spelling in [right.clone(), right.to_ascii_uppercase()] {
        let check = within(sha256(&spelling), 5);
        assert_eq!(verdict(server.address, &check).await, Ok(()));
    }
    let other = digest_of(b"read");
    let why = failure(server.address, &sha256(&other)).await;
    assert_eq!(why, format!("body has SHA256 {right}, expected {other}"));
    let longer = "body is longer than the 4 bytes of maximumBodyBytes, its SHA256 is not told";
    let check = within(sha256(&other), 4);
    assert_eq!(failure(server.address, &check).await, longer);
    // The length is not said, and the end is that of the connection.
    let until_closed = serve(|mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\n\r\nready";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let check = within(sha256(&right), 5);
    assert_eq!(verdict(until_closed.address, &check).await, Ok(()));
    let check = within(sha256(&other), 4);
    assert_eq!(failure(until_closed.address, &check).await, longer);
    let empty = answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let check = sha256(&digest_of(b""));
    assert_eq!(verdict(empty.address, &check).await, Ok(()));
}

#[tokio::test]
async fn of_a_gigantic_body_no_more_is_read_than_it_takes() {
    let (server, mut sent) = endless(GIGANTIC).await;
    let why = failure(server.address, &regex("Server")).await;
    assert_eq!(
        why,
        "body does not match \"Server\" in its first 65536 bytes"
    );
    assert!(sent.recv().await.unwrap() < BUFFERED);
    let check = within(text("Server"), 1 << 20);
    let why = failure(server.address, &check).await;
    assert_eq!(
        why,
        "body does not hold \"Server\" in its first 1048576 bytes"
    );
    assert!(sent.recv().await.unwrap() < BUFFERED);
    let why = failure(server.address, &sha256(&digest_of(b""))).await;
    let longer = "body is longer than the 65536 bytes of maximumBodyBytes, its SHA256 is not told";
    assert_eq!(why, longer);
    assert!(sent.recv().await.unwrap() < BUFFERED);
    // Found early, the rest does not matter.
    let check = within(text("xx"), 1 << 20);
    assert_eq!(verdict(server.address, &check).await, Ok(()));
    assert!(sent.recv().await.unwrap() < BUFFERED);
    // Without a length it has no end, and is left all the same.
    let (server, mut sent) = endless("HTTP/1.1 200 OK\r\n\r\n").await;
    let why = failure(server.address, &sha256(&digest_of(b""))).await;
    assert_eq!(why, longer);
    assert!(sent.recv().await.unwrap() < BUFFERED);
}

#[tokio::test]
async fn a_slow_body_fails_in_time_unless_the_text_has_come() {
    let slow = serve(|mut stream| async move {
        head(&mut stream).await;
        let begin = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\nServer";
        stream.write_all(begin).await.unwrap();
        endlessly(&mut stream, b"x", Duration::from_millis(20)).await;
    })
    .await;
    let late = "body not complete within 1 s";
    assert_eq!(failure(slow.address, &hasty(text("absent"))).await, late);
    assert_eq!(failure(slow.address, &hasty(regex("Server$"))).await, late);
    assert_eq!(
        failure(slow.address, &hasty(sha256(&digest_of(b"")))).await,
        late
    );
    for passes in [
        text("Server"),
        regex("Serv[er]+x"),
        within(regex("Server$"), 6),
    ] {
        assert_eq!(verdict(slow.address, &passes).await, Ok(()));
    }
    let why = failure(slow.address, &regex("^erver")).await;
    assert!(
        why.starts_with("body does not match \"^erver\" in its first "),
        "{why}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told() {
    let closed = serve(|mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let why = failure(closed.address, &regex("half.")).await;
    assert_eq!(why, "connection closed after 4 bytes of the body");
    assert_eq!(verdict(closed.address, &text("half")).await, Ok(()));
    let damaged =
        answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno length\r\n")
            .await;
    let why = failure(damaged.address, &regex("half.")).await;
    assert!(why.ends_with(" after 4 bytes of the body"), "{why}");
    let reset = serve(|mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        stream.write_all(answer).await.unwrap();
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let why = failure(reset.address, &regex("half.")).await;
    assert_eq!(why, "connection reset after 4 bytes of the body");
}

#[tokio::test]
async fn a_body_of_no_answer_to_head_is_not_waited_for() {
    let server = serve(|mut stream| async move {
        assert!(head(&mut stream).await.starts_with("HEAD / "));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        ended(stream).await;
    })
    .await;
    let mut check = text("absent");
    check.http.as_mut().unwrap().method = HttpMethod::HEAD;
    let why = failure(server.address, &check).await;
    assert_eq!(why, "body does not hold \"absent\" in its 0 bytes");
}
