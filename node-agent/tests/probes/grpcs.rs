//! Checks of type GRPC.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use lvs_crds::health_check::{GrpcCheck, HealthCheck, HealthCheckType, TlsCheck, TlsVerification};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::https::acceptor;
use crate::played::{PATIENCE_SECONDS, Played, ended, failure, hasty, serve, verdict};

fn grpc(service: Option<&str>) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        grpc: service.map(|service| GrpcCheck {
            service: Some(service.to_owned()),
        }),
        ..HealthCheck::new("calls".to_owned(), HealthCheckType::GRPC)
    }
}

/// What a server answers.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    /// Code in the head; then there is nothing else.
    head_code: Option<&'static str>,
    message: &'static [u8],
    code: Option<&'static str>,
}

const GOOD: Answer = Answer {
    status: 200,
    head_code: None,
    message: b"\0\0\0\0\x02\x08\x01",
    code: Some("0"),
};

/// Reads the question, and answers.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    wanted: &[u8],
    answer: Answer,
) {
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let mut body = request.into_body();
    let mut question = Vec::new();
    while let Some(part) = body.data().await {
        question.extend_from_slice(&part.unwrap());
    }
    assert_eq!(question, wanted);
    let mut head = Response::builder().status(answer.status);
    if let Some(code) = answer.head_code {
        head = head
            .header("grpc-status", code)
            .header("grpc-message", "so");
    }
    let ends = answer.head_code.is_some();
    let mut stream = respond.send_response(head.body(()).unwrap(), ends).unwrap();
    if ends {
        return;
    }
    let message = Bytes::from_static(answer.message);
    stream.send_data(message, answer.code.is_none()).unwrap();
    if let Some(code) = answer.code {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        stream.send_trailers(trailers).unwrap();
    }
}

async fn converse<S>(stream: S, wanted: &'static [u8], with: Answer)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, wanted, with));
    }
}

const NOTHING: &[u8] = b"\0\0\0\0\0";

async fn answers(wanted: &'static [u8], with: Answer) -> Played {
    serve(move |stream| converse(stream, wanted, with)).await
}

#[tokio::test]
async fn a_server_that_serves_passes_in_plain_text_and_over_tls() {
    let server = answers(NOTHING, GOOD).await;
    assert_eq!(verdict(server.address, &grpc(None)).await, Ok(()));
    let server = answers(b"\0\0\0\0\x0b\x0a\x09shop.Cart", GOOD).await;
    assert_eq!(
        verdict(server.address, &grpc(Some("shop.Cart"))).await,
        Ok(())
    );
    let acceptor = acceptor(rustls::ALL_VERSIONS, &[b"h2"]);
    let server = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            assert_eq!(protocol, Some(b"h2".to_vec()));
            converse(stream, NOTHING, GOOD).await;
        }
    })
    .await;
    let secure = HealthCheck {
        tls: Some(TlsCheck {
            verification: TlsVerification::None,
            ..TlsCheck::default()
        }),
        ..grpc(None)
    };
    assert_eq!(verdict(server.address, &secure).await, Ok(()));
}

#[tokio::test]
async fn a_long_name_has_its_length_in_two_bytes() {
    let service = "s".repeat(253);
    let wanted: Vec<u8> = [&b"\0\0\0\x01\0\x0a\xfd\x01"[..], service.as_bytes()].concat();
    let server = answers(wanted.leak(), GOOD).await;
    assert_eq!(verdict(server.address, &grpc(Some(&service))).await, Ok(()));
}

#[tokio::test]
async fn other_answers_are_told() {
    for (with, why) in [
        (
            Answer {
                message: b"\0\0\0\0\x02\x08\x02",
                ..GOOD
            },
            "status NOT_SERVING, expected SERVING",
        ),
        // A status that is not there is 0.
        (
            Answer {
                message: NOTHING,
                ..GOOD
            },
            "status UNKNOWN, expected SERVING",
        ),
        (
            Answer {
                head_code: Some("12"),
                ..GOOD
            },
            "the server knows no grpc.health.v1",
        ),
        (
            Answer {
                head_code: Some("5"),
                ..GOOD
            },
            "the server knows no service \"\"",
        ),
        (
            Answer {
                head_code: Some("14"),
                ..GOOD
            },
            "grpc-status \"14\" \"so\"",
        ),
        (
            Answer {
                code: Some("13"),
                ..GOOD
            },
            "grpc-status \"13\"",
        ),
        (
            Answer {
                status: 404,
                ..GOOD
            },
            "status 404, expected 200",
        ),
        (
            Answer { code: None, ..GOOD },
            "answer is no gRPC: it has no grpc-status",
        ),
        (
            Answer {
                message: &[7; 4096],
                ..GOOD
            },
            "answer exceeds 1024 bytes",
        ),
        (
            Answer {
                message: b"\0\0\0\0\x02\x12\x00",
                ..GOOD
            },
            "answer is no answer of grpc.health.v1",
        ),
    ] {
        let server = answers(NOTHING, with).await;
        assert_eq!(failure(server.address, &grpc(None)).await, why);
    }
}

#[tokio::test]
async fn what_is_no_grpc_server_fails_in_time() {
    let web = serve(|mut stream| async move {
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        ended(stream).await;
    });
    let why = failure(web.await.address, &grpc(None)).await;
    assert_eq!(why, "answer is no HTTP/2");
    let silent = serve(ended).await;
    let why = failure(silent.address, &hasty(grpc(None))).await;
    assert_eq!(why, "no answer within 1 s");
}
