//! A conversation by messages of bytes, each of a length that it says first.

use std::io;
use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{TimeLimit, words};
use crate::limits::ANSWER_HEAD_BYTES;

/// Says a message.
pub async fn say<S>(stream: &mut S, message: &[u8], limit: TimeLimit) -> Result<(), String>
where
    S: AsyncWrite + Unpin,
{
    let written = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    let written = limit.within("no reply within", written).await?;
    written.map_err(|error| format!("connection broke: {}", words(&error)))
}

/// Reads so many bytes of an answer that is called `what`; [`ANSWER_HEAD_BYTES`] at most.
pub async fn hear<S>(
    stream: &mut S,
    length: usize,
    what: &str,
    limit: TimeLimit,
) -> Result<Vec<u8>, String>
where
    S: AsyncRead + Unpin,
{
    if length > ANSWER_HEAD_BYTES {
        return Err(format!("{what} exceeds {ANSWER_HEAD_BYTES} bytes"));
    }
    let mut bytes = vec![0; length];
    let late = format!("no {what} within");
    let read = limit.within(&late, stream.read_exact(&mut bytes)).await?;
    read.map_err(|error| lost(&error, what))?;
    Ok(bytes)
}

/// Waits a little until the other side has ended the connection, which it has been told to or does by itself, so that it does
/// not tell of a client that was lost.
pub async fn await_end<S>(stream: &mut S, limit: TimeLimit)
where
    S: AsyncRead + Unpin,
{
    let mut rest = [0; 64];
    let end = async { while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
    let _ = limit.for_leave().within("", end).await;
}

/// Why no answer that is called `what` could be read.
pub fn lost(error: &io::Error, what: &str) -> String {
    match error.kind() {
        ErrorKind::ConnectionReset => format!("connection reset before a {what}"),
        // A TLS connection that was ended without a word is among these.
        ErrorKind::UnexpectedEof => format!("connection closed before a {what}"),
        _ => format!("connection broke: {}", words(error)),
    }
}

/// Text up to a zero byte, and what comes after that; `None` where there is none.
pub fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}
