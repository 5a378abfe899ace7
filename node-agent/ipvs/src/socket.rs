//! A generic netlink socket: datagrams out and in, a deadline on every wait.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};

use crate::error::TransportError;

/// `NETLINK_EXT_ACK`: errors carry the kernel's text.
#[derive(Clone)]
struct ExtendedAcknowledgement;
nix::setsockopt_impl!(
    ExtendedAcknowledgement,
    libc::SOL_NETLINK,
    libc::NETLINK_EXT_ACK,
    bool,
    sockopt::SetBool
);

/// `NETLINK_CAP_ACK`: errors do not repeat the request.
#[derive(Clone)]
struct CappedAcknowledgement;
nix::setsockopt_impl!(
    CappedAcknowledgement,
    libc::SOL_NETLINK,
    libc::NETLINK_CAP_ACK,
    bool,
    sockopt::SetBool
);

/// Size of one receive: the kernel fills at most 32 KiB per datagram of a dump and adapts to what we offer.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// Datagrams to the kernel and back. The real one is [`Socket`]; tests answer as the kernel would, and as it
/// should not.
pub trait Transport: std::fmt::Debug + Send {
    /// Sends one datagram. After an error nothing of it was handled. After success all of it was: the kernel
    /// works within the system call.
    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError>;

    /// Receives one datagram into `buffer` and returns its length.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError>;
}

/// An open socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    timeout: Duration,
}

impl Socket {
    /// Opens a socket with this receive buffer, each of whose waits ends after `timeout`.
    pub fn open(receive_buffer_bytes: usize, timeout: Duration) -> Result<Self, TransportError> {
        let failed = |step| move |errno| TransportError::Open { step, errno };
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )
        .map_err(failed("socket"))?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it every operation is refused anyway, but
        // a dump should say so itself.
        if setsockopt(&descriptor, sockopt::RcvBufForce, &receive_buffer_bytes).is_err() {
            setsockopt(&descriptor, sockopt::RcvBuf, &receive_buffer_bytes)
                .map_err(failed("SO_RCVBUF"))?;
        }
        // Both since Linux 4.12 or earlier; they only make errors shorter and clearer.
        let _ = setsockopt(&descriptor, ExtendedAcknowledgement, &true);
        let _ = setsockopt(&descriptor, CappedAcknowledgement, &true);
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("bind"))?;
        Ok(Self {
            descriptor,
            timeout,
        })
    }

    fn receive_now(&self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        let capacity = buffer.len();
        let mut pieces = [IoSliceMut::new(buffer)];
        // With MSG_TRUNC the length is that of the datagram, not of what was copied.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match recvmsg::<NetlinkAddr>(self.descriptor.as_raw_fd(), &mut pieces, None, flags) {
            Ok(received)
                if received.flags.contains(MsgFlags::MSG_TRUNC) || received.bytes > capacity =>
            {
                Err(TransportError::Truncated {
                    length: received.bytes,
                    capacity,
                })
            }
            Ok(received) => Ok(received.bytes),
            Err(Errno::ENOBUFS) => Err(TransportError::Overflow),
            Err(errno) => Err(TransportError::Receive { errno }),
        }
    }

    fn wait(&self, deadline: Instant) -> Result<(), TransportError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || TransportError::Deadline {
            timeout_milliseconds: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        if left.is_zero() {
            return Err(late());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            // Also when poll rounded the rest of the time down to nothing: the next turn decides.
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(TransportError::Receive { errno }),
        }
    }
}

impl Transport for Socket {
    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let failed = |errno| TransportError::Send {
            bytes: bytes.len(),
            errno,
        };
        loop {
            match send(self.descriptor.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(failed(Errno::EMSGSIZE)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        let mut deadline = None;
        loop {
            match self.receive_now(buffer) {
                Err(TransportError::Receive {
                    errno: Errno::EINTR,
                }) => {}
                Err(TransportError::Receive {
                    errno: Errno::EAGAIN,
                }) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                    self.wait(deadline)?;
                }
                result => return result,
            }
        }
    }
}
