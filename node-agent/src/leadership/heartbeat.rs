//! Heartbeats on the wire: UDP between the directors' addresses, each datagram sealed with a key that all agents of an
//! installation share.
//!
//! A datagram is a [`Message`] followed by its HMAC-SHA256 (RFC 2104). Sending is the fence thread's, so that a heartbeat
//! says what the one knows that refreshes the addresses. Receiving is a thread that drops what is not sealed, and hands
//! the rest to the fence thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lvs_core::heartbeat::{Message, MessageError};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, sendmsg};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::exchanges::{PeerPath, Source};
use super::fence::Command;

/// Key that seals and is accepted.
const KEY_FILE: &str = "key";
/// Key that is accepted besides, for a rotation without silence.
const ACCEPTED_KEY_FILE: &str = "accepted-key";
/// Bytes a key must have at least: the strength of the seal's hash would be wasted on less.
const KEY_BYTES: usize = 32;
/// Longest datagram that is looked at. Names of nodes have at most 253 bytes.
const DATAGRAM_BYTES: usize = 2048;
/// Bytes of the seal.
const SEAL_BYTES: usize = 32;
/// How often the receiver looks whether it is to end.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Where heartbeats are exchanged, and with which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// UDP port, the same on every node.
    pub port: u16,
    /// Directory with the file `key` and, during a rotation, `accepted-key`.
    pub key_directory: PathBuf,
}

/// Heartbeats cannot be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// A key cannot be read.
    #[error("reading the heartbeat key {}: {source}", path.display())]
    Key {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key is too short.
    #[error("the heartbeat key {} has {bytes} bytes, must have at least {KEY_BYTES}", path.display())]
    ShortKey {
        /// File.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The port cannot be had.
    #[error("listening for heartbeats on UDP port {port}: {source}")]
    Socket {
        /// Port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("starting the heartbeat receiver: {0}")]
    Thread(#[source] io::Error),
}

/// The keys in force.
#[derive(Clone)]
pub struct Keys {
    bytes: Vec<Vec<u8>>,
    keys: Vec<hmac::Key>,
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} keys", self.keys.len())
    }
}

impl Keys {
    /// Reads the keys of a directory. Spaces and line ends around a key do not count.
    ///
    /// # Errors
    /// When `key` cannot be read, or a key is too short. `accepted-key` need not be there.
    pub fn read(directory: &Path) -> Result<Self, HeartbeatError> {
        let mut bytes = Vec::new();
        for name in [KEY_FILE, ACCEPTED_KEY_FILE] {
            let path = directory.join(name);
            let content = match std::fs::read(&path) {
                Ok(content) => content.trim_ascii().to_vec(),
                Err(error)
                    if name == ACCEPTED_KEY_FILE && error.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(source) => return Err(HeartbeatError::Key { path, source }),
            };
            if content.len() < KEY_BYTES {
                let bytes = content.len();
                return Err(HeartbeatError::ShortKey { path, bytes });
            }
            bytes.push(content);
        }
        let keys = bytes
            .iter()
            .map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, bytes))
            .collect();
        Ok(Self { bytes, keys })
    }

    /// The datagram of a message.
    pub fn seal(&self, message: &Message) -> Vec<u8> {
        let mut datagram = message.encode();
        if let Some(key) = self.keys.first() {
            let seal = hmac::sign(key, &datagram);
            datagram.extend_from_slice(seal.as_ref());
        }
        datagram
    }

    /// The message of a datagram that one of the keys sealed.
    ///
    /// # Errors
    /// [`Unsealed`] says what is wrong with it.
    pub fn open(&self, datagram: &[u8]) -> Result<Message, Unsealed> {
        let length = datagram
            .len()
            .checked_sub(SEAL_BYTES)
            .ok_or(Unsealed::Forged)?;
        let (content, seal) = datagram.split_at(length);
        if !self
            .keys
            .iter()
            .any(|key| hmac::verify(key, content, seal).is_ok())
        {
            return Err(Unsealed::Forged);
        }
        Message::decode(content).map_err(Unsealed::Unreadable)
    }
}

/// A datagram that is no heartbeat of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// None of the keys sealed it.
    #[error("none of the keys sealed it")]
    Forged,
    /// It was sealed, but by an agent that says things differently.
    #[error(transparent)]
    Unreadable(MessageError),
}

/// Counts of the receiver since the start.
#[derive(Debug, Default)]
pub struct ReceiverCounts {
    /// Datagrams with the seal of another key, or none.
    pub forged: AtomicU64,
    /// Sealed datagrams that this version cannot read.
    pub unreadable: AtomicU64,
    /// Heartbeats dropped since the fence thread did not keep up.
    pub dropped: AtomicU64,
}

/// The socket, and the thread that reads it.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    /// The socket speaks IPv6 too; IPv4 addresses are written as ::ffff:a.b.c.d then.
    dual: bool,
    port: u16,
    keys: Arc<Mutex<Arc<Keys>>>,
    sealing: Arc<Keys>,
    /// Counts of the receiver.
    pub counts: Arc<ReceiverCounts>,
    stop: Arc<AtomicBool>,
}

impl Wire {
    /// Opens the port and starts receiving into `commands`.
    ///
    /// # Errors
    /// When keys, port or thread cannot be had.
    pub fn open(
        config: &HeartbeatConfig,
        commands: SyncSender<Command>,
    ) -> Result<Self, HeartbeatError> {
        let sealing = Arc::new(Keys::read(&config.key_directory)?);
        let (socket, dual) = open_socket(config.port).map_err(|source| HeartbeatError::Socket {
            port: config.port,
            source,
        })?;
        let wire = Self {
            socket: Arc::new(socket),
            dual,
            port: config.port,
            keys: Arc::new(Mutex::new(Arc::clone(&sealing))),
            sealing,
            counts: Arc::default(),
            stop: Arc::default(),
        };
        let receiver = Receiver {
            socket: Arc::clone(&wire.socket),
            keys: Arc::clone(&wire.keys),
            counts: Arc::clone(&wire.counts),
            stop: Arc::clone(&wire.stop),
            commands,
        };
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || receiver.run())
            .map_err(HeartbeatError::Thread)?;
        Ok(wire)
    }

    /// Seals with these keys from now on, and accepts what they sealed.
    pub fn set_keys(&mut self, keys: Keys) {
        self.sealing = Arc::new(keys);
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.sealing);
    }

    /// Sends a message to a node. Never waits: what a full queue does not take is lost, as on any wire.
    ///
    /// # Errors
    /// As `sendmsg(2)`; `AddrNotAvailable` for a path that leaves from nowhere.
    pub fn send(&self, message: &Message, path: PeerPath) -> io::Result<()> {
        let datagram = self.sealing.seal(message);
        let (index, from) = match path.from {
            Source::Routed => (0, None),
            Source::Interface { index, address } => (index, Some(address)),
            Source::Nowhere => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let fd = self.socket.as_raw_fd();
        let content = [io::IoSlice::new(&datagram)];
        let flags = MsgFlags::MSG_DONTWAIT;
        // Device and source go with each datagram: one socket serves all routers.
        if self.dual {
            let source = from.map(|from| libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: mapped(from).octets(),
                },
                ipi6_ifindex: index,
            });
            let source = source.as_ref().map(ControlMessage::Ipv6PacketInfo);
            let to = SocketAddrV6::new(mapped(path.to), self.port, 0, 0);
            let to = SockaddrIn6::from(to);
            sendmsg(fd, &content, source.as_slice(), flags, Some(&to))?;
        } else {
            let (IpAddr::V4(to), None | Some(IpAddr::V4(_))) = (path.to, from) else {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            };
            let source = match from {
                Some(IpAddr::V4(from)) => Some(libc::in_pktinfo {
                    ipi_ifindex: libc::c_int::try_from(index).map_err(io::Error::other)?,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(from.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                }),
                _ => None,
            };
            let source = source.as_ref().map(ControlMessage::Ipv4PacketInfo);
            let to = SockaddrIn::from(SocketAddrV4::new(to, self.port));
            sendmsg(fd, &content, source.as_slice(), flags, Some(&to))?;
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An address as a socket of both families writes it.
const fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Both families by one socket; IPv4 alone where the kernel has no IPv6.
fn open_socket(port: u16) -> io::Result<(Socket, bool)> {
    let dual = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).and_then(|socket| {
        socket.set_only_v6(false)?;
        Ok(socket)
    });
    let (socket, address, is_dual) = if let Ok(socket) = dual {
        (socket, IpAddr::V6(Ipv6Addr::UNSPECIFIED), true)
    } else {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        (socket, IpAddr::V4(Ipv4Addr::UNSPECIFIED), false)
    };
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    Ok((socket, is_dual))
}

struct Receiver {
    socket: Arc<Socket>,
    keys: Arc<Mutex<Arc<Keys>>>,
    counts: Arc<ReceiverCounts>,
    stop: Arc<AtomicBool>,
    commands: SyncSender<Command>,
}

impl Receiver {
    fn run(self) {
        let mut buffer = [0; DATAGRAM_BYTES];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(length) = io::Read::read(&mut &*self.socket, &mut buffer) else {
                // A timeout, or an ICMP error that an earlier datagram brought back.
                continue;
            };
            let keys = Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner));
            match keys.open(&buffer[..length]) {
                Ok(message) => {
                    if self.commands.try_send(Command::Received(message)).is_err() {
                        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(Unsealed::Forged) => {
                    self.counts.forged.fetch_add(1, Ordering::Relaxed);
                }
                Err(Unsealed::Unreadable(_)) => {
                    self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_core::heartbeat::{Carriage, Standing};

    use super::*;

    fn message() -> Message {
        Message {
            router: "edge".to_owned(),
            from: "lb-a".to_owned(),
            incarnation: "1".to_owned(),
            to: "lb-b".to_owned(),
            sequence: 7,
            echo: None,
            carriage: Carriage::Announced,
            standing: Standing {
                epoch: 3,
                holder: Some("lb-a".to_owned()),
                ..Standing::default()
            },
        }
    }

    fn keys(name: &str, key: &str, accepted: Option<&str>) -> Keys {
        let directory =
            std::env::temp_dir().join(format!("lvs-keys-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(KEY_FILE), key).unwrap();
        if let Some(accepted) = accepted {
            std::fs::write(directory.join(ACCEPTED_KEY_FILE), accepted).unwrap();
        }
        let keys = Keys::read(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        keys.unwrap()
    }

    const OLD: &str = "0123456789abcdef0123456789abcdef\n";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn what_one_key_sealed_the_same_key_opens_and_no_other() {
        let (old, new) = (keys("old", OLD, None), keys("new", NEW, None));
        let datagram = old.seal(&message());
        assert_eq!(old.open(&datagram), Ok(message()));
        assert_eq!(new.open(&datagram), Err(Unsealed::Forged));
        for index in 0..datagram.len() {
            let mut bent = datagram.clone();
            bent[index] ^= 1;
            assert_eq!(old.open(&bent), Err(Unsealed::Forged), "byte {index}");
            assert_eq!(old.open(&datagram[..index]), Err(Unsealed::Forged));
        }
    }

    #[test]
    fn a_key_is_rotated_by_accepting_the_new_one_first() {
        let (before, after) = (
            keys("before", OLD, Some(NEW)),
            keys("after", NEW, Some(OLD)),
        );
        assert_eq!(after.open(&before.seal(&message())), Ok(message()));
        assert_eq!(before.open(&after.seal(&message())), Ok(message()));
    }
}
