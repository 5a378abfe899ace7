//! A plain netlink socket: one request at a time, a deadline on every receive, sequence numbers
//! checked, answers read to their end. Any surprise is an error and the socket is not used again:
//! callers open one per task, which costs microseconds.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::error::KernelError;
use super::message::{Attributes, Request, split_replies};

mod option {
    //! Socket options that nix has no name for.
    #![allow(missing_docs, missing_debug_implementations, unsafe_code)]
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// `NETLINK_GET_STRICT_CHK`: dumps honour the filters of their request (Linux 4.20).
        StrictCheck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, bool
    );
    sockopt_impl!(
        /// `NETLINK_EXT_ACK`: errors carry a sentence (Linux 4.12).
        ExtendedAcknowledgement, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool
    );
}

/// Bytes received at once. The kernel fills at most 32 KiB per read of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer asked of the kernel: a dump must not overflow it while we compute.
const RECEIVE_QUEUE_BYTES: usize = 1 << 20;
/// How often a dump that was interrupted by a change is taken again.
const DUMP_ATTEMPTS: u32 = 5;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR` and `NLM_F_ACK_TLVS` in a reply, `NLM_F_CAPPED` likewise.
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACKNOWLEDGEMENT_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const SENTENCE: u16 = 1;

/// An open netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    timeout: Duration,
}

impl NetlinkSocket {
    /// Opens a socket in the network namespace of this thread. `timeout` bounds the wait for each
    /// answer.
    pub fn open(protocol: SockProtocol, timeout: Duration) -> Result<Self, KernelError> {
        let failed = |errno| KernelError::Refused {
            doing: format!("opening a netlink socket ({protocol:?})"),
            errno,
            sentence: String::new(),
        };
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(failed)?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        // These two only improve answers; an old kernel or a missing capability does without.
        let _ = setsockopt(&descriptor, option::ExtendedAcknowledgement, &true);
        let _ = setsockopt(&descriptor, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES);
        Ok(Self {
            descriptor,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
            timeout,
        })
    }

    /// Makes dumps honour the filters of their request. Older kernels answer with more; callers filter too.
    pub fn filter_dumps(&self) {
        let _ = setsockopt(&self.descriptor, option::StrictCheck, &true);
    }

    /// Sends one request and waits until the kernel acknowledges it.
    pub fn execute(&mut self, doing: &str, request: Request) -> Result<(), KernelError> {
        self.get(doing, request, |_| Ok(()))
    }

    /// Sends one request and reads its answers until the acknowledgement.
    pub fn get(
        &mut self,
        doing: &str,
        mut request: Request,
        mut on_reply: impl FnMut(&[u8]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        request.flags |= NlmF::ACK;
        let sequence = self.send(doing, std::slice::from_ref(&request))?;
        self.receive(doing, sequence, sequence, |_, body| on_reply(body))
            .map(drop)
    }

    /// Sends several requests as one datagram, the last of which must carry `NLM_F_ACK` when `acknowledged` is
    /// its position; waits for that acknowledgement. The first error ends it: the socket must not be used again.
    pub fn execute_batch(
        &mut self,
        doing: &str,
        requests: &[Request],
        acknowledged: u32,
    ) -> Result<(), KernelError> {
        let first = self.send(doing, requests)?;
        self.receive(
            doing,
            first,
            first.wrapping_add(acknowledged),
            |_, _| Ok(()),
        )
        .map(drop)
    }

    /// Dumps: calls `on_reply` with the type and body of each message. A dump interrupted by a change is taken
    /// again after `restart`.
    pub fn dump<T: Default>(
        &mut self,
        doing: &str,
        mut request: Request,
        mut on_reply: impl FnMut(&mut T, u16, &[u8]) -> Result<(), KernelError>,
    ) -> Result<T, KernelError> {
        request.flags |= NlmF::DUMP;
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = T::default();
            let sequence = self.send(doing, std::slice::from_ref(&request))?;
            let interrupted = self.receive(doing, sequence, sequence, |message_type, body| {
                on_reply(&mut found, message_type, body)
            })?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(KernelError::Interrupted {
            doing: doing.to_owned(),
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn send(&mut self, doing: &str, requests: &[Request]) -> Result<u32, KernelError> {
        let mut bytes = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request
                .encode(self.sequence, &mut bytes)
                .map_err(|source| KernelError::Message {
                    doing: doing.to_owned(),
                    source,
                })?;
        }
        if bytes.len() > RECEIVE_BYTES {
            // The whole of a transaction must fit one datagram; the kernel counts its own overhead too.
            let _ = setsockopt(&self.descriptor, sockopt::SndBufForce, &(bytes.len() * 2));
        }
        let sent = loop {
            match send(self.descriptor.as_raw_fd(), &bytes, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        match sent {
            Ok(count) if count == bytes.len() => Ok(first),
            Ok(_) => Err(KernelError::Protocol {
                doing: doing.to_owned(),
                what: "the kernel took only a part of the request",
            }),
            Err(errno) => Err(KernelError::Refused {
                doing: doing.to_owned(),
                errno,
                sentence: String::new(),
            }),
        }
    }

    /// Reads until `last` is acknowledged, done or refused. Returns whether a dump was interrupted.
    fn receive(
        &mut self,
        doing: &str,
        first: u32,
        last: u32,
        mut on_reply: impl FnMut(u16, &[u8]) -> Result<(), KernelError>,
    ) -> Result<bool, KernelError> {
        let protocol = |what| KernelError::Protocol {
            doing: doing.to_owned(),
            what,
        };
        let mut interrupted = false;
        loop {
            // Each receive has its deadline: a long dump may take longer than one answer.
            let length = self.receive_once(doing, Instant::now() + self.timeout)?;
            let bytes = self.buffer.get(..length).unwrap_or_default();
            let replies =
                split_replies(bytes).ok_or_else(|| protocol("the answer is not whole messages"))?;
            for reply in replies {
                if reply.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    return Err(protocol("an answer to a request that was not made"));
                }
                interrupted |=
                    reply.flags & FLAG_DUMP_INTERRUPTED != 0 && reply.message_type != ERROR;
                match reply.message_type {
                    ERROR | DONE => {
                        let code = reply
                            .body
                            .get(..4)
                            .and_then(|bytes| bytes.try_into().ok())
                            .map(i32::from_ne_bytes);
                        // NLMSG_DONE carries a code too: a dump that failed half-way.
                        match code {
                            Some(0) => {}
                            None if reply.message_type == DONE => {}
                            None => return Err(protocol("an error without a code")),
                            Some(code) => {
                                return Err(KernelError::Refused {
                                    doing: doing.to_owned(),
                                    errno: Errno::from_raw(code.wrapping_neg()),
                                    sentence: sentence(reply.flags, reply.body).unwrap_or_default(),
                                });
                            }
                        }
                        if reply.sequence == last {
                            return Ok(interrupted);
                        }
                    }
                    message_type => on_reply(message_type, reply.body)?,
                }
            }
        }
    }

    fn receive_once(&mut self, doing: &str, deadline: Instant) -> Result<usize, KernelError> {
        let refused = |errno| KernelError::Refused {
            doing: doing.to_owned(),
            errno,
            sentence: String::new(),
        };
        let timed_out = KernelError::TimedOut {
            doing: doing.to_owned(),
            milliseconds: self.timeout.as_millis(),
        };
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(timed_out);
            }
            // Zero would mean "for ever".
            let microseconds = i64::try_from(remaining.as_micros())
                .unwrap_or(i64::MAX)
                .max(1000);
            setsockopt(
                &self.descriptor,
                sockopt::ReceiveTimeout,
                &TimeVal::new(microseconds / 1_000_000, microseconds % 1_000_000),
            )
            .map_err(refused)?;
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let received = recvmsg::<NetlinkAddr>(
                self.descriptor.as_raw_fd(),
                &mut parts,
                None,
                MsgFlags::empty(),
            );
            match received {
                Ok(message) if message.flags.contains(MsgFlags::MSG_TRUNC) => {
                    return Err(KernelError::Protocol {
                        doing: doing.to_owned(),
                        what: "an answer longer than the receive buffer",
                    });
                }
                // Only the kernel (port 0) may speak to us.
                Ok(message) if message.address.is_some_and(|from| from.pid() != 0) => {}
                Ok(message) => return Ok(message.bytes),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(timed_out),
                Err(errno) => return Err(refused(errno)),
            }
        }
    }
}

/// The kernel's sentence in an error: attributes after the code and the request (or its header alone).
fn sentence(flags: u16, body: &[u8]) -> Option<String> {
    if flags & FLAG_ACKNOWLEDGEMENT_ATTRIBUTES == 0 {
        return None;
    }
    let request = body.get(4..)?;
    let length = if flags & FLAG_CAPPED == 0 {
        u32::from_ne_bytes(request.get(..4)?.try_into().ok()?) as usize
    } else {
        16
    };
    let attributes = request.get(length.checked_next_multiple_of(4)?..)?;
    Attributes::read(attributes).ok()?.text(SENTENCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_sentence_panic(flags: u16, body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = super::sentence(flags | super::FLAG_ACKNOWLEDGEMENT_ATTRIBUTES, &body);
        }
    }
}
