//! Checks of type HTTP: the request, and the head of the answer.

use std::collections::BTreeSet;
use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckType, HttpCheck, HttpHeader, HttpMethod};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::played::{
    PATIENCE_SECONDS, answers, ended, endlessly, failure, hasty, head, http, serve, serve_on,
    verdict,
};

fn header(name: &str, value: &str) -> HttpHeader {
    HttpHeader {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn the_request_is_what_the_check_says() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            tell.send(head(&mut stream).await).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            ended(stream).await;
        }
    })
    .await;
    let address = server.address;
    let bare = HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTP)
    };
    assert_eq!(verdict(address, &bare).await, Ok(()));
    let agent = concat!("lvs-operator-agent/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        told.recv().await.unwrap(),
        format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAccept: */*\r\nUser-Agent: {agent}\r\n\r\n"
        )
    );
    let check = http(HttpCheck {
        method: HttpMethod::HEAD,
        path: "/deep/a%20b?x=1&y='2'".to_owned(),
        host: Some("www.example.org:8080".to_owned()),
        headers: vec![
            header("X-Probe", "a  b"),
            header("user-agent", "mine/1"),
            header("X-Empty", ""),
        ],
        ..HttpCheck::default()
    });
    assert_eq!(verdict(address, &check).await, Ok(()));
    let asked = told.recv().await.unwrap();
    let mut lines: Vec<&str> = asked.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "HEAD /deep/a%20b?x=1&y='2' HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "Accept: */*",
            "Connection: close",
            "Host: www.example.org:8080",
            "User-Agent: mine/1",
            "X-Empty: ",
            "X-Probe: a  b",
        ]
    );
}

#[tokio::test]
async fn over_ipv6_the_host_is_an_address_in_brackets() {
    let server = serve_on("[::1]:0", |mut stream| async move {
        let head = head(&mut stream).await;
        let port = stream.local_addr().unwrap().port();
        let host = format!("\r\nHost: [::1]:{port}\r\n");
        let status = if head.contains(&host) { 200 } else { 400 };
        let answer = format!("HTTP/1.1 {status} Said\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        ended(stream).await;
    });
    // A machine without IPv6 has nothing to show here.
    if let Ok(server) = server.await {
        let check = http(HttpCheck::default());
        assert_eq!(verdict(server.address, &check).await, Ok(()));
    }
}

#[tokio::test]
async fn the_status_decides_and_a_body_is_not_awaited() {
    // Of the body that is promised nothing comes.
    let busy = answers("HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n").await;
    let by_default = http(HttpCheck::default());
    let why = failure(busy.address, &by_default).await;
    assert_eq!(why, "status 503, expected 200-299");
    let others = http(HttpCheck {
        status_codes: vec!["204".to_owned(), "500-503".to_owned()],
        ..HttpCheck::default()
    });
    assert_eq!(verdict(busy.address, &others).await, Ok(()));
    let fine = answers("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    assert_eq!(verdict(fine.address, &by_default).await, Ok(()));
    let why = failure(fine.address, &others).await;
    assert_eq!(why, "status 200, expected 204, 500-503");
    let old = answers("HTTP/1.0 200 OK\r\n\r\n").await;
    assert_eq!(verdict(old.address, &by_default).await, Ok(()));
    let interim =
        answers("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 Nothing\r\n\r\n").await;
    assert_eq!(verdict(interim.address, &by_default).await, Ok(()));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let server = serve(|mut stream| async move {
        let address = stream.local_addr().unwrap();
        head(&mut stream).await;
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{address}/\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        ended(stream).await;
    })
    .await;
    let address = server.address;
    let why = failure(address, &http(HttpCheck::default())).await;
    assert_eq!(
        why,
        format!("status 302 to \"http://{address}/\", expected 200-299")
    );
    let wanted = http(HttpCheck {
        status_codes: vec!["302".to_owned()],
        ..HttpCheck::default()
    });
    assert_eq!(verdict(address, &wanted).await, Ok(()));
    assert_eq!(server.connections(), 2, "one for each question");
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_in_time() {
    let check = hasty(http(HttpCheck::default()));
    let silent = answers("").await;
    let why = failure(silent.address, &check).await;
    assert_eq!(why, "no answer within 1 s");
    let slow = serve(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
        endlessly(&mut stream, b"x", Duration::from_millis(20)).await;
    })
    .await;
    let why = failure(slow.address, &check).await;
    assert_eq!(why, "no answer within 1 s");
    let interim = serve(|mut stream| async move {
        head(&mut stream).await;
        let again = b"HTTP/1.1 100 Continue\r\n\r\n";
        endlessly(&mut stream, again, Duration::ZERO).await;
    })
    .await;
    let why = failure(interim.address, &check).await;
    assert_eq!(why, "no answer within 1 s");
}

#[tokio::test]
async fn an_endless_head_is_left_after_a_bounded_part_of_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
            let sent = endlessly(&mut stream, &[b'x'; 4096], Duration::ZERO).await;
            tell.send(sent).unwrap();
        }
    })
    .await;
    let check = http(HttpCheck::default());
    let why = failure(server.address, &check).await;
    let too_large = "head of the answer exceeds 16384 bytes or 100 headers";
    assert_eq!(why, too_large);
    // What was sent beyond is in the buffers of the two sockets.
    let sent = told.recv().await.unwrap();
    assert!(sent < 32 << 20, "{sent}");
    let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    let many = answers(Box::leak(lines.into_boxed_str())).await;
    assert_eq!(failure(many.address, &check).await, too_large);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_told() {
    let check = http(HttpCheck::default());
    let reset = serve(|mut stream| async move {
        head(&mut stream).await;
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let why = failure(reset.address, &check).await;
    assert_eq!(why, "connection reset before an answer");
    let closed = serve(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 20").await.unwrap();
    })
    .await;
    let why = failure(closed.address, &check).await;
    assert_eq!(why, "connection closed before an answer");
    let deaf = serve(|stream| async move {
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    // Before or after the request was sent.
    for _ in 0..20 {
        let why = failure(deaf.address, &check).await;
        assert!(why.starts_with("connect"), "{why}");
        assert!(why.contains("reset"), "{why}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    let check = http(HttpCheck::default());
    // The alert by which a TLS server refuses plain HTTP.
    let tls = answers("\x15\x03\x01\x00\x02\x02\x46").await;
    let why = failure(tls.address, &check).await;
    assert_eq!(why, "answer is no HTTP/1: invalid HTTP version parsed");
    let odd = answers("HTTP/1.1 2xx OK\r\n\r\n").await;
    let why = failure(odd.address, &check).await;
    assert_eq!(why, "answer is no HTTP/1: invalid HTTP status-code parsed");
    let greets = serve(|mut stream| async move {
        stream.write_all(b"220 mail.example.org\r\n").await.unwrap();
        ended(stream).await;
    })
    .await;
    // The greeting may be there before the request was sent, or not.
    for _ in 0..20 {
        let why = failure(greets.address, &check).await;
        assert!(
            [
                "answer is no HTTP/1: invalid HTTP version parsed",
                "answer is no HTTP/1: it came before the request",
            ]
            .contains(&why.as_str()),
            "{why}"
        );
    }
}

#[tokio::test]
async fn servers_that_hang_do_not_hold_up_one_another() {
    let silent = answers("").await;
    let check = hasty(http(HttpCheck::default()));
    // Fewer than connections may wait until a listener takes them.
    let questions = (0..100).map(|_| failure(silent.address, &check));
    let told: BTreeSet<String> = futures::future::join_all(questions)
        .await
        .into_iter()
        .collect();
    assert_eq!(told, ["no answer within 1 s".to_owned()].into());
}
