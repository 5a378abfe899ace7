//! Is a datagram answered by one that is expected?

use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;

use lvs_crds::health_check::UdpCheck;
use tokio::net::UdpSocket;

use super::target::Target;
use super::{NOT_ASKED, TimeLimit, hexadecimal, quoted, words};
use crate::limits::DATAGRAM_BYTES;

/// Asks once, from a port of its own. An error is why the answer is not as expected, in words.
pub async fn ask(target: Target, check: &UdpCheck, limit: TimeLimit) -> Result<(), String> {
    let payload = bytes_of(&check.payload)?;
    let wanted = bytes_of(check.reply_prefix.as_deref().unwrap_or_default())?;
    let reply = exchange(target, &payload, limit).await?;
    if reply.starts_with(&wanted) {
        return Ok(());
    }
    let shown = reply.get(..wanted.len()).unwrap_or(&reply);
    let length = reply.len();
    let (shown, wanted) = (hexadecimal(shown), hexadecimal(&wanted));
    Err(format!(
        "reply of {length} bytes begins with {}, expected {}",
        quoted(&shown),
        quoted(&wanted)
    ))
}

/// The first datagram that comes back.
pub async fn exchange(target: Target, payload: &[u8], limit: TimeLimit) -> Result<Vec<u8>, String> {
    let conversation = Conversation::begin(target, payload).await?;
    conversation.next(limit).await
}

/// A socket of its own for one question by datagrams.
pub struct Conversation(UdpSocket);

impl Conversation {
    /// Opens it, at a port that the kernel chooses. An error is why that failed, in words.
    pub async fn open(target: Target) -> Result<Self, String> {
        let socket = UdpSocket::bind(target.own_end()).await;
        let socket = socket.map_err(|error| target.unopened(&error))?;
        let marked = target.mark(&socket);
        marked.map_err(|error| target.unopened(&error))?;
        // Then the kernel takes datagrams of nobody else, and tells of errors that come back by ICMP.
        socket
            .connect(target.address)
            .await
            .map_err(|error| unsent(&error))?;
        Ok(Self(socket))
    }

    /// The same, and sends a datagram.
    pub async fn begin(target: Target, payload: &[u8]) -> Result<Self, String> {
        let conversation = Self::open(target).await?;
        conversation.send(payload).await?;
        Ok(conversation)
    }

    /// Where answers are to come to.
    pub fn own_address(&self) -> Result<SocketAddr, String> {
        let own = self.0.local_addr();
        own.map_err(|error| format!("{NOT_ASKED}{}", words(&error)))
    }

    /// Sends a datagram. An error is why it could not be sent, in words.
    pub async fn send(&self, payload: &[u8]) -> Result<(), String> {
        let sent = self.0.send(payload).await;
        sent.map(drop).map_err(|error| unsent(&error))
    }

    /// The next datagram that comes back, cut at [`DATAGRAM_BYTES`].
    pub async fn next(&self, limit: TimeLimit) -> Result<Vec<u8>, String> {
        let mut reply = vec![0; DATAGRAM_BYTES];
        let length = limit.within("no reply within", self.0.recv(&mut reply));
        let length = length.await?.map_err(|error| unsent(&error))?;
        reply.truncate(length);
        Ok(reply)
    }
}

fn unsent(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "port unreachable".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => format!("datagram not sent: {}", words(error)),
    }
}

/// The bytes that pairs of hexadecimal digits say.
fn bytes_of(digits: &str) -> Result<Vec<u8>, String> {
    let digit = |at: usize| char::from(*digits.as_bytes().get(at)?).to_digit(16);
    let byte = |at: usize| u8::try_from(16 * digit(at)? + digit(at + 1)?).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| format!("{NOT_ASKED}{} is not hexadecimal", quoted(digits)))
}
