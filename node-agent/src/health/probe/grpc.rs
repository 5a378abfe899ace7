//! Does a gRPC server say that it serves (grpc.health.v1)?

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Method, Request};
use lvs_crds::health_check::GrpcCheck;

use super::http2::{self, unanswered};
use super::target::Target;
use super::{AGENT, NOT_ASKED, TimeLimit, quoted, tls};

/// Longest message of an answer, in bytes: the right one has two.
const LONGEST_MESSAGE_BYTES: usize = 1024;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Words for the statuses of a service (grpc.health.v1.HealthCheckResponse).
const STATUSES: [&str; 4] = ["UNKNOWN", SERVING, "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: &str = "SERVING";
/// Codes of gRPC: done, nobody has heard of the service, and nobody does health checks there.
const OK: &str = "0";
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

/// Asks once, on a connection of its own, in plain text (HTTP/2 from the first byte) or over TLS on these terms. An error is why the
/// server does not pass, in words.
pub async fn ask(
    target: Target,
    check: &GrpcCheck,
    terms: Option<&tls::Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let service = check.service.as_deref().unwrap_or_default();
    let stream = tls::connect(target, terms, Some(http2::PROTOCOL), limit).await?;
    let scheme = if terms.is_some() { "https" } else { "http" };
    let request = request(target, scheme)?;
    http2::converse(stream, limit, |sender| async move {
        let conversation = exchange(sender, request, service);
        limit.within("no answer within", conversation).await?
    })
    .await
}

fn request(target: Target, scheme: &str) -> Result<Request<()>, String> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{target}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|error| format!("{NOT_ASKED}{error}"))
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    service: &str,
) -> Result<(), String> {
    let mut sender = sender.ready().await.map_err(|error| unanswered(&error))?;
    let (answer, mut body) = sender
        .send_request(request, false)
        .map_err(|error| unanswered(&error))?;
    body.send_data(question(service), true)
        .map_err(|error| unanswered(&error))?;
    let answer = answer.await.map_err(|error| unanswered(&error))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(format!("status {status}, expected 200"));
    }
    // An answer without a message has its code in the head.
    if let Some(code) = code_of(answer.headers())
        && code != OK
    {
        return Err(refused(&code, answer.headers(), service));
    }
    let mut body = answer.into_body();
    let message = message(&mut body).await?;
    let trailers = body.trailers().await.map_err(|error| unanswered(&error))?;
    let trailers = trailers.unwrap_or_default();
    match code_of(&trailers) {
        Some(code) if code == OK => judge(&message),
        Some(code) => Err(refused(&code, &trailers, service)),
        None => Err("answer is no gRPC: it has no grpc-status".to_owned()),
    }
}

/// The name of a service as a message (HealthCheckRequest), behind its prefix.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, of bytes, and their number; names are shorter than 2^14.
        message.push(0x0a);
        let length = service.len();
        if let Ok(short @ ..0x80) = u8::try_from(length) {
            message.push(short);
        } else {
            message.extend([length & 0x7f | 0x80, length >> 7].map(|part| part.to_le_bytes()[0]));
        }
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend(
        u32::try_from(message.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    framed.extend(message);
    framed.into()
}

/// The only message of an answer, without its prefix.
async fn message(body: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|error| unanswered(&error))?;
        all.extend_from_slice(&part);
        if all.len() > PREFIX_BYTES + LONGEST_MESSAGE_BYTES {
            return Err(format!("answer exceeds {LONGEST_MESSAGE_BYTES} bytes"));
        }
        // What was read makes room for more.
        let _ = body.flow_control().release_capacity(part.len());
    }
    Ok(all.split_off(PREFIX_BYTES.min(all.len())))
}

/// What a message says (HealthCheckResponse): field 1 is the status, and what is not there is 0.
fn judge(message: &[u8]) -> Result<(), String> {
    let status = match message {
        [0x08, status] => *status,
        [] => 0,
        _ => return Err("answer is no answer of grpc.health.v1".to_owned()),
    };
    match STATUSES.get(usize::from(status)) {
        Some(&SERVING) => Ok(()),
        Some(word) => Err(format!("status {word}, expected {SERVING}")),
        None => Err(format!("status {status}, expected {SERVING}")),
    }
}

fn code_of(headers: &HeaderMap) -> Option<String> {
    let code = headers.get("grpc-status")?;
    Some(String::from_utf8_lossy(code.as_bytes()).into_owned())
}

fn refused(code: &str, headers: &HeaderMap, service: &str) -> String {
    match code {
        UNIMPLEMENTED => "the server knows no grpc.health.v1".to_owned(),
        NOT_FOUND => format!("the server knows no service {}", quoted(service)),
        code => {
            let said = headers.get("grpc-message");
            let said = said.map_or_else(String::new, |said| {
                format!(" {}", quoted(&String::from_utf8_lossy(said.as_bytes())))
            });
            format!("grpc-status {}{said}", quoted(code))
        }
    }
}
