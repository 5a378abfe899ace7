//! HTTP/2 over a connection that stands, for one question.

use std::io;
use std::io::ErrorKind;
use std::pin::pin;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::Response;
use http::header::CONTENT_LENGTH;

use super::body::Pieces;
use super::tls::{self, Connection};
use super::{TimeLimit, words};
use crate::limits::ANSWER_HEAD_BYTES;

/// How a protocol is named that a server may offer (RFC 7301; RFC 9113, 3.1).
pub const PROTOCOL: &str = "h2";

/// Begins, and holds `exchange` over the connection, as long as that lives. The verdict is that of `exchange`.
pub async fn converse<S, T, Exchange>(
    stream: S,
    limit: TimeLimit,
    exchange: impl FnOnce(SendRequest<Bytes>) -> Exchange,
) -> Result<T, String>
where
    S: Connection,
    Exchange: Future<Output = Result<T, String>>,
{
    let handshake = Builder::new()
        .max_header_list_size(u32::try_from(ANSWER_HEAD_BYTES).unwrap_or(u32::MAX))
        .enable_push(false)
        .handshake::<_, Bytes>(stream);
    let (sender, connection) = limit
        .within("no answer within", handshake)
        .await?
        .map_err(|error| unanswered(&error))?;
    let mut conversation = pin!(exchange(sender));
    tokio::select! {
        biased;
        verdict = &mut conversation => verdict,
        // Whatever came before the connection ended is there to be read, and so is why it ended.
        _ = connection => conversation.await,
    }
}

/// The body of an answer.
pub struct Body {
    stream: RecvStream,
    least_bytes: u64,
}

impl Body {
    /// That of this one.
    pub fn of(answer: Response<RecvStream>) -> Self {
        let length = answer.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            stream: answer.into_body(),
            least_bytes: length.unwrap_or_default(),
        }
    }
}

impl Pieces for Body {
    fn least_bytes(&self) -> u64 {
        self.least_bytes
    }

    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        let piece = self.stream.data().await?;
        Some(match piece {
            Ok(piece) => {
                // What was read makes room for more.
                let _ = self.stream.flow_control().release_capacity(piece.len());
                Ok(piece)
            }
            Err(error) => Err(broken(&error)),
        })
    }
}

/// Why there is no answer, or none of HTTP/2.
pub fn unanswered(error: &h2::Error) -> String {
    match error.get_io() {
        Some(error) => lost(error, " before an answer"),
        None => refused(error),
    }
}

/// What broke off an answer.
pub fn broken(error: &h2::Error) -> String {
    match error.get_io() {
        Some(error) => lost(error, ""),
        None => refused(error),
    }
}

fn refused(error: &h2::Error) -> String {
    match error.reason() {
        Some(Reason::PROTOCOL_ERROR) if error.is_reset() && !error.is_remote() => {
            format!("head of the answer exceeds {ANSWER_HEAD_BYTES} bytes or is none of HTTP/2")
        }
        Some(Reason::FRAME_SIZE_ERROR | Reason::PROTOCOL_ERROR) => "answer is no HTTP/2".to_owned(),
        Some(reason) => format!("answer is an error of HTTP/2: {}", reason.description()),
        None => format!("no answer: {error}"),
    }
}

fn lost(error: &io::Error, before: &str) -> String {
    if let Some(error) = tls::error_of(error) {
        return tls::refusal(error);
    }
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => format!("connection reset{before}"),
        ErrorKind::UnexpectedEof => format!("connection closed{before}"),
        _ => format!("connection broke: {}", words(error)),
    }
}
