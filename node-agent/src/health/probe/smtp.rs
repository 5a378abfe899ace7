//! Does a mail server greet, and take a greeting?

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use lvs_crds::health_check::SmtpCheck;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{NOT_ASKED, TimeLimit, quoted, tcp, words};
use crate::limits::ANSWER_HEAD_BYTES;

/// A server is there (RFC 5321, 4.2).
const READY: u16 = 220;
/// What was asked is done.
const DONE: u16 = 250;

/// Asks once: greeting, EHLO, and QUIT, so that the server does not tell of a client that was lost. An error is why that went
/// otherwise, in words.
pub async fn ask(target: SocketAddr, check: &SmtpCheck, limit: TimeLimit) -> Result<(), String> {
    let stream = tcp::connect(target, limit).await?;
    let own = stream.local_addr();
    let own = own.map_err(|error| format!("{NOT_ASKED}{}", words(&error)))?;
    let name = check.hello_name.clone();
    let name = name.unwrap_or_else(|| address_literal(own.ip()));
    let mut conversation = Conversation {
        stream: BufReader::new(stream),
        limit,
    };
    conversation.expect(READY, "greeting").await?;
    conversation.say(&format!("EHLO {name}\r\n")).await?;
    conversation.expect(DONE, "reply to EHLO").await?;
    // The verdict is made; what comes of this is not looked at.
    let _ = conversation.say("QUIT\r\n").await;
    let _ = conversation.reply("reply to QUIT").await;
    Ok(())
}

/// An address where a name is wanted (RFC 5321, 4.1.3).
fn address_literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

struct Conversation {
    stream: BufReader<TcpStream>,
    limit: TimeLimit,
}

impl Conversation {
    async fn say(&mut self, line: &str) -> Result<(), String> {
        let written = self.stream.get_mut().write_all(line.as_bytes());
        let written = self.limit.within("no reply within", written).await?;
        written.map_err(|error| format!("connection broke: {}", words(&error)))
    }

    /// Reads a reply, which must have this code.
    async fn expect(&mut self, code: u16, what: &str) -> Result<(), String> {
        let reply = self.reply(what).await?;
        if reply.get(..3) == Some(&code.to_string()) {
            return Ok(());
        }
        let reply = quoted(&reply);
        Err(format!("{what} is {reply}, expected {code}"))
    }

    /// The last line of a reply.
    async fn reply(&mut self, what: &str) -> Result<String, String> {
        let mut rest = ANSWER_HEAD_BYTES;
        loop {
            let mut line = Vec::new();
            let mut reader = (&mut self.stream).take(rest as u64);
            let read = reader.read_until(b'\n', &mut line);
            let late = format!("no {what} within");
            let length = match self.limit.within(&late, read).await? {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(format!("connection reset before a {what}"));
                }
                Err(error) => return Err(format!("connection broke: {}", words(&error))),
            };
            rest -= length;
            if line.last() != Some(&b'\n') {
                return Err(if rest == 0 {
                    format!("{what} exceeds {ANSWER_HEAD_BYTES} bytes")
                } else {
                    format!("connection closed before a {what}")
                });
            }
            if line.get(3) != Some(&b'-') {
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
        }
    }
}
