//! A conversation by lines of text, as mail and files are talked about.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::message::{lost, say};
use super::tls::Connection;
use super::{TimeLimit, quoted};
use crate::limits::ANSWER_HEAD_BYTES;

/// One over a connection that stands.
pub struct Conversation<S> {
    stream: BufReader<S>,
    limit: TimeLimit,
}

impl<S: Connection> Conversation<S> {
    /// Nothing was said yet.
    pub fn over(stream: S, limit: TimeLimit) -> Self {
        Self {
            stream: BufReader::new(stream),
            limit,
        }
    }

    /// The connection, to go on with otherwise. An error is that the other side said more than it was asked, in words: what
    /// came in plain text must not be taken for what was said over TLS.
    pub fn into_stream(self) -> Result<S, String> {
        if self.stream.buffer().is_empty() {
            Ok(self.stream.into_inner())
        } else {
            Err("more than a reply came before TLS".to_owned())
        }
    }

    /// Says a line, which ends as lines do.
    pub async fn say(&mut self, line: &str) -> Result<(), String> {
        self.say_all(&format!("{line}\r\n")).await
    }

    /// Says lines that end already.
    pub async fn say_all(&mut self, lines: &str) -> Result<(), String> {
        say(self.stream.get_mut(), lines.as_bytes(), self.limit).await
    }

    /// The next line, which is to begin with one of these words.
    pub async fn expect(&mut self, begins: &[&str], what: &str) -> Result<String, String> {
        let mut room = ANSWER_HEAD_BYTES;
        let line = self.line(what, &mut room).await?;
        expected(line, begins, what)
    }

    /// The next line, whatever it is.
    pub async fn next(&mut self, what: &str) -> Result<String, String> {
        let mut room = ANSWER_HEAD_BYTES;
        self.line(what, &mut room).await
    }

    /// The next reply of one or more lines that are led by a number (RFC 959, 4.2; RFC 5321, 4.2.1), which is to be this
    /// one; its last line.
    pub async fn expect_code(&mut self, code: &str, what: &str) -> Result<String, String> {
        expected(self.next_code(what).await?, &[code], what)
    }

    /// The same, whichever number it is.
    pub async fn next_code(&mut self, what: &str) -> Result<String, String> {
        let mut room = ANSWER_HEAD_BYTES;
        let mut line = self.line(what, &mut room).await?;
        if line.as_bytes().get(3) == Some(&b'-') {
            let number = line.as_bytes().get(..3).unwrap_or_default().to_vec();
            // Lines between the first and the last may hold anything.
            loop {
                line = self.line(what, &mut room).await?;
                let bytes = line.as_bytes();
                if bytes.starts_with(&number) && bytes.get(3) != Some(&b'-') {
                    break;
                }
            }
        }
        Ok(line)
    }

    /// Reads lines until one begins with this; that one.
    pub async fn find(&mut self, begins: &str, what: &str) -> Result<String, String> {
        let mut room = ANSWER_HEAD_BYTES;
        loop {
            let line = self.line(what, &mut room).await?;
            if line.starts_with(begins) {
                return Ok(line);
            }
        }
    }

    /// Says the last line, and waits until the other side has taken it, so that it does not tell of a client that was lost. The
    /// verdict is made; what comes of this is not looked at.
    pub async fn take_leave(mut self, line: &str) {
        let mut room = ANSWER_HEAD_BYTES;
        self.limit = self.limit.for_leave();
        if self.say(line).await.is_ok() {
            let _ = self.line("reply", &mut room).await;
        }
    }

    /// The next line, without its end. `room` is how many bytes may still come.
    async fn line(&mut self, what: &str, room: &mut usize) -> Result<String, String> {
        let mut line = Vec::new();
        let mut reader = (&mut self.stream).take(*room as u64);
        let read = reader.read_until(b'\n', &mut line);
        let late = format!("no {what} within");
        let read = self.limit.within(&late, read).await?;
        let length = read.map_err(|error| lost(&error, what))?;
        *room -= length;
        if line.last() != Some(&b'\n') {
            return Err(if *room == 0 {
                format!("{what} exceeds {ANSWER_HEAD_BYTES} bytes")
            } else {
                format!("connection closed before a {what}")
            });
        }
        Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
    }
}

/// Whether a reply to a log-in begins with one of these. An error has no more of it than its first word, as what follows may
/// be what was sent.
pub fn accepted(reply: &str, begins: &[&str]) -> Result<(), String> {
    const LONGEST_WORD: usize = 16;
    if begins.iter().any(|word| reply.starts_with(word)) {
        return Ok(());
    }
    let word = reply.split(' ').next().unwrap_or_default();
    let is_code = word.len() <= LONGEST_WORD && word.is_ascii();
    let word = if is_code { word } else { "no code" };
    Err(format!("log-in refused: {}", word.trim_start_matches('-')))
}

fn expected(line: String, begins: &[&str], what: &str) -> Result<String, String> {
    if begins.iter().any(|word| line.starts_with(word)) {
        return Ok(line);
    }
    let (line, begins) = (quoted(&line), begins.join(" or "));
    Err(format!("{what} is {line}, expected {begins}"))
}
