//! Checks of types HTTP and HTTPS by HTTP/2, friendly and hostile servers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use lvs_crds::health_check::{
    HealthCheck, HealthCheckType, HttpBody, HttpBodyType, HttpCheck, HttpMethod, HttpVersion,
    TlsCheck, TlsVerification,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::https::acceptor;
use crate::played::{Played, ended, endlessly, failure, hasty, http, serve, verdict};

/// What is sent beyond what was read is in the buffers of two sockets, each of a few MiB at most.
const BUFFERED: usize = 32 << 20;
/// Protocols of a server that knows no other.
const HTTP1_ALONE: &[&[u8]] = &[b"http/1.1"];
/// A frame without settings, which each side begins with (RFC 9113, 3.4).
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fn second(check: HttpCheck) -> HealthCheck {
    http(HttpCheck {
        version: HttpVersion::HTTP2,
        ..check
    })
}

fn page() -> HealthCheck {
    second(HttpCheck::default())
}

fn wanting(type_: HttpBodyType, value: &str) -> HealthCheck {
    let value = value.to_owned();
    second(HttpCheck {
        body: Some(HttpBody { type_, value }),
        ..HttpCheck::default()
    })
}

fn secure(check: HealthCheck) -> HealthCheck {
    HealthCheck {
        type_: HealthCheckType::HTTPS,
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            ..TlsCheck::default()
        }),
        ..check
    }
}

/// Answers each request with this status and body, and tells the requests.
async fn answer<S>(
    stream: S,
    status: u16,
    body: &'static str,
    tell: mpsc::UnboundedSender<Request<()>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let _ = tell.send(request.map(drop));
        let answer = Response::builder().status(status).header("location", "/");
        let mut stream = respond
            .send_response(answer.body(()).unwrap(), body.is_empty())
            .unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::from(body), true).unwrap();
        }
    }
}

async fn answers(
    status: u16,
    body: &'static str,
) -> (Played, mpsc::UnboundedReceiver<Request<()>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |stream| answer(stream, status, body, tell.clone()));
    (server.await, told)
}

#[tokio::test]
async fn the_request_is_what_the_check_says_in_plain_text() {
    let (server, mut told) = answers(200, "It is a Server.").await;
    let check = second(HttpCheck {
        path: "/ok?a=b".to_owned(),
        host: Some("www.example.org".to_owned()),
        ..wanting(HttpBodyType::Regex, "Serv[er]+").http.unwrap()
    });
    assert_eq!(verdict(server.address, &check).await, Ok(()));
    let request = told.recv().await.unwrap();
    assert_eq!(request.method(), "GET");
    assert_eq!(request.uri().to_string(), "http://www.example.org/ok?a=b");
    assert_eq!(request.headers()["accept"], "*/*");
    let check = wanting(HttpBodyType::Text, "absent");
    let why = failure(server.address, &check).await;
    assert_eq!(why, "body does not hold \"absent\" in its 15 bytes");
    let authority = told.recv().await.unwrap();
    assert_eq!(
        authority.uri().authority().unwrap().as_str(),
        server.address.to_string()
    );
    let (server, mut told) = answers(200, "").await;
    let check = second(HttpCheck {
        method: HttpMethod::HEAD,
        ..HttpCheck::default()
    });
    assert_eq!(verdict(server.address, &check).await, Ok(()));
    assert_eq!(told.recv().await.unwrap().method(), "HEAD");
}

#[tokio::test]
async fn over_tls_the_server_must_offer_it() {
    let speaks = |protocols: &'static [&'static [u8]]| async move {
        let acceptor = acceptor(rustls::ALL_VERSIONS, protocols);
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                // It fails where there is no protocol for both.
                if let Ok(stream) = acceptor.accept(stream).await {
                    let (tell, _) = mpsc::unbounded_channel();
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        answer(stream, 200, "ok", tell).await;
                    }
                }
            }
        })
        .await
    };
    let both = speaks(&[b"http/1.1", b"h2"]).await;
    assert_eq!(verdict(both.address, &secure(page())).await, Ok(()));
    for protocols in [HTTP1_ALONE, &[]] {
        let other = speaks(protocols).await;
        let why = failure(other.address, &secure(page())).await;
        assert_eq!(
            why,
            "the server does not offer the protocol that is asked for (ALPN)"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (server, _told) = answers(302, "").await;
    let why = failure(server.address, &page()).await;
    assert_eq!(why, "status 302 to \"/\", expected 200-299");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn of_an_endless_body_no_more_is_read_than_it_takes() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = serve(move |stream| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            let answer = Response::builder().body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            tokio::spawn(async move {
                let mut sent = 0;
                loop {
                    stream.reserve_capacity(4096);
                    let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
                    let Some(Ok(room)) = room else { break };
                    if stream.send_data(vec![b'x'; room].into(), false).is_err() {
                        break;
                    }
                    sent += room;
                }
                tell.send(sent).unwrap();
            });
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let check = wanting(HttpBodyType::Text, "Server");
    let why = failure(server.address, &check).await;
    assert_eq!(
        why,
        "body does not hold \"Server\" in its first 65536 bytes"
    );
    // No more than the window that the agent opens, and what it has read.
    let sent = told.recv().await.unwrap();
    assert!(sent < 1 << 20, "{sent}");
}

/// A server that greets, and then sends these bytes over and over. Tells how many it got rid of.
async fn floods(begin: Vec<u8>, bytes: Vec<u8>) -> (Played, mpsc::UnboundedReceiver<usize>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |mut stream: TcpStream| {
        let (tell, begin, bytes) = (tell.clone(), begin.clone(), bytes.clone());
        async move {
            stream.write_all(SETTINGS).await.unwrap();
            stream.write_all(&begin).await.unwrap();
            let sent = endlessly(&mut stream, &bytes, Duration::ZERO).await;
            tell.send(sent).unwrap();
        }
    });
    (server.await, told)
}

/// A frame of this type with these flags on a stream.
fn frame(type_: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [
        length[1], length[2], length[3], type_, flags, 0, 0, 0, stream,
    ];
    [&head[..], payload].concat()
}

const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const CONTINUATION: u8 = 9;

#[tokio::test]
async fn floods_of_frames_end_in_time_and_fill_no_memory() {
    // A header without an index, x: y (RFC 7541, 6.2.2).
    let header = b"\x00\x01x\x01y";
    let headers = header.repeat(3000);
    // Each counts with 32 bytes more than it says (RFC 9113, 10.5.1).
    let large = [&b"\x88"[..], &header.repeat(500)].concat();
    let late = "no answer within 1 s";
    let excess = "answer is an error of HTTP/2: detected excessive load generating behavior";
    // What is answered or passed over is read as long as there is time, and not kept; else the rest is left.
    for (is_read, begin, bytes, why) in [
        // Headers that never end.
        (
            false,
            frame(HEADERS, 0, 1, b"\x88"),
            frame(CONTINUATION, 0, 1, &headers),
            excess,
        ),
        (
            false,
            frame(HEADERS, 0, 1, b"\x88"),
            frame(CONTINUATION, 0, 1, b""),
            excess,
        ),
        // More than the bound in one frame.
        (
            false,
            Vec::new(),
            frame(HEADERS, END_HEADERS, 1, &large),
            "head of the answer exceeds 16384 bytes or is none of HTTP/2",
        ),
        // What the other side must answer each time: settings, pings.
        (true, Vec::new(), SETTINGS.to_vec(), late),
        (true, Vec::new(), frame(6, 0, 0, &[0; 8]), late),
        // Answers before the answer: status 100 in words.
        (
            true,
            Vec::new(),
            frame(HEADERS, END_HEADERS, 1, b"\x08\x03100"),
            late,
        ),
        // Frames that nobody knows, and of a stream that nobody opened.
        (true, Vec::new(), frame(0xee, 0, 0, &[0; 1024]), late),
        (
            false,
            Vec::new(),
            frame(0, 0, 2, &[0; 1024]),
            "answer is no HTTP/2",
        ),
    ] {
        let (server, mut told) = floods(begin, bytes).await;
        assert_eq!(failure(server.address, &hasty(page())).await, why);
        let sent = told.recv().await.unwrap();
        assert!(is_read || sent < BUFFERED, "{why}: {sent}");
    }
}

#[tokio::test]
async fn what_is_no_http_2_and_what_breaks_off_is_told() {
    let first = serve(|mut stream| async move {
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        ended(stream).await;
    });
    let why = failure(first.await.address, &page()).await;
    assert_eq!(why, "answer is no HTTP/2");
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(page())).await;
    assert_eq!(why, "no answer within 1 s");
    let broken = serve(|mut stream| async move {
        let begin = frame(HEADERS, END_HEADERS, 1, b"\x88");
        let data = frame(0, 0, 1, b"Serv");
        let all = [SETTINGS, &begin[..], &data[..]].concat();
        // After the request, which answers come to.
        let mut request = [0; 64];
        tokio::io::AsyncReadExt::read(&mut stream, &mut request)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&all).await.unwrap();
    });
    let check = wanting(HttpBodyType::Text, "Server");
    let why = failure(broken.await.address, &check).await;
    assert!(
        why.starts_with("connection closed") || why.starts_with("connection reset"),
        "{why}"
    );
}
