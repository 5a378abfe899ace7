//! Is an ICMP echo answered?
//!
//! The socket is a raw one, for which the agent has its capability. One that the kernel keeps for this (`ping_group_range`) is
//! open to nobody by default, and that is a setting of the node. A raw socket that is connected gets the messages of one
//! address alone, so that many questions at once do not see each other's answers.

use std::io;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};

use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::target::Target;
use super::{TimeLimit, words};
use crate::kernel::subscription::readable;

/// Bytes of the head of a message (RFC 792): type, code, checksum, and four that come back.
const HEAD_BYTES: usize = 8;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 32;
/// Bytes of the longest head of an IPv4 packet, and of a message with room for a longer one of somebody else.
const PACKET_BYTES: usize = 60 + 4 * MESSAGE_BYTES;

/// What tells an echo from its reply in a family.
struct Family {
    domain: Domain,
    protocol: Protocol,
    echo: u8,
    reply: u8,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self {
                domain: Domain::IPV4,
                protocol: Protocol::ICMPV4,
                echo: 8,
                reply: 0,
            },
            IpAddr::V6(_) => Self {
                domain: Domain::IPV6,
                protocol: Protocol::ICMPV6,
                echo: 128,
                reply: 129,
            },
        }
    }
}

/// Asks once. An error is why no reply came, in words.
pub async fn ask(target: Target, limit: TimeLimit) -> Result<(), String> {
    let family = Family::of(target.address.ip());
    let echo = echo(&family).map_err(|error| target.unopened(&error))?;
    let socket = socket(&family, target).map_err(|error| match error.kind() {
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => unanswered(&error),
        _ => target.unopened(&error),
    })?;
    socket
        .get_ref()
        .send(&echo)
        .map_err(|error| unanswered(&error))?;
    await_reply(&socket, &family, &echo, limit).await
}

async fn await_reply(
    socket: &AsyncFd<Socket>,
    family: &Family,
    echo: &[u8],
    limit: TimeLimit,
) -> Result<(), String> {
    limit
        .within("no echo reply within", replied(socket, family, echo))
        .await?
        .map_err(|error| unanswered(&error))
}

/// A message with a number that nobody guesses.
fn echo(family: &Family) -> io::Result<[u8; MESSAGE_BYTES]> {
    let mut message = [0; MESSAGE_BYTES];
    let random = SystemRandom::new().fill(&mut message[HEAD_BYTES / 2..]);
    random.map_err(|_| io::Error::other("the kernel gives no random number"))?;
    message[0] = family.echo;
    // Of ICMPv6 the kernel writes the checksum itself.
    if family.domain == Domain::IPV4 {
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(message)
}

/// The checksum of the Internet (RFC 1071) over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([word[0], word[1]]));
        sum + u16::from(carry)
    });
    !sum
}

fn socket(family: &Family, target: Target) -> io::Result<AsyncFd<Socket>> {
    let socket = Socket::new(family.domain, Type::RAW, Some(family.protocol))?;
    socket.set_nonblocking(true)?;
    if target.source.is_some() {
        socket.bind(&target.own_end().into())?;
    }
    socket.connect(&SocketAddr::new(target.address.ip(), 0).into())?;
    readable(socket)
}

/// Waits for the reply to this echo. What else the address sends is passed over.
async fn replied(socket: &AsyncFd<Socket>, family: &Family, echo: &[u8]) -> io::Result<()> {
    let mut packet = [0; PACKET_BYTES];
    loop {
        let mut ready = socket.readable().await?;
        let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut packet)) else {
            continue;
        };
        if is_reply(&packet[..length?], family, echo) {
            return Ok(());
        }
    }
}

fn is_reply(packet: &[u8], family: &Family, echo: &[u8]) -> bool {
    // IPv4 is handed over with its head, whose length stands in its first byte.
    let head = match family.domain {
        Domain::IPV4 => packet
            .first()
            .map_or(0, |first| usize::from(first & 15) * 4),
        _ => 0,
    };
    packet.get(head..).is_some_and(|message| {
        message.first() == Some(&family.reply) && message.get(4..) == echo.get(4..)
    })
}

fn unanswered(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => format!("no echo reply: {}", words(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_internet() {
        // The example of RFC 1071, 3: the sum of these is ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        let family = Family::of("192.0.2.1".parse().unwrap());
        // With the checksum in its place a message sums up to nothing.
        assert_eq!(checksum(&echo(&family).unwrap()), 0);
    }

    #[test]
    fn only_the_reply_to_the_echo_is_one() {
        let family = Family::of("192.0.2.1".parse().unwrap());
        let echo = echo(&family).unwrap();
        let packet = |type_: u8, head: u8| {
            let mut packet = vec![0; usize::from(head) * 4];
            packet[0] = 0x40 | head;
            packet.extend(echo);
            packet[usize::from(head) * 4] = type_;
            packet
        };
        assert!(is_reply(&packet(0, 5), &family, &echo));
        assert!(is_reply(&packet(0, 15), &family, &echo));
        assert!(!is_reply(&packet(8, 5), &family, &echo), "its own echo");
        let mut other = packet(0, 5);
        other[30] ^= 1;
        assert!(!is_reply(&other, &family, &echo), "to somebody else");
        for length in 0..packet(0, 5).len() {
            assert!(
                !is_reply(&packet(0, 5)[..length], &family, &echo),
                "{length}"
            );
        }
    }

    #[tokio::test]
    async fn an_echo_that_nobody_answers_ends_in_time_though_others_are_answered() {
        let here = Target {
            address: "127.0.0.1:0".parse().unwrap(),
            source: None,
            passage: None,
        };
        let family = Family::of(here.address.ip());
        // Where raw sockets are forbidden there is nothing to show here.
        let Ok(socket) = socket(&family, here) else {
            return;
        };
        // It was not sent.
        let never = echo(&family).unwrap();
        let others = async {
            for _ in 0..10 {
                assert_eq!(ask(here, TimeLimit::from_now(10)).await, Ok(()));
            }
        };
        let limit = TimeLimit::from_now(1);
        let (told, ()) = tokio::join!(await_reply(&socket, &family, &never, limit), others);
        assert_eq!(told, Err("no echo reply within 1 s".to_owned()));
    }
}
