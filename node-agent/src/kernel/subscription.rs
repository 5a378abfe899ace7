//! What the kernel tells by itself: messages of groups of rtnetlink, as they come.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;

/// A subscription to some groups.
#[derive(Debug)]
pub struct Subscription {
    messages: AsyncFd<OwnedFd>,
    /// What is told, in words.
    what: &'static str,
}

impl Subscription {
    /// Subscribes in the network namespace of this thread to `groups`, a mask of `RTMGRP_*`
    /// (`include/uapi/linux/rtnetlink.h`), which tell of `what`. Must be called inside the runtime.
    pub fn open(groups: u32, what: &'static str) -> Result<Self, KernelError> {
        let failed = |errno| refused(format!("subscribing to {what}"), errno);
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .map_err(failed)?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(failed)?;
        let messages = readable(descriptor).map_err(|error| failed(errno_of(&error)))?;
        Ok(Self { messages, what })
    }

    /// Waits for messages and gives all that are there to `take`, each as far as `buffer` has room for it; `None` = the kernel
    /// had more to say than was read, and some were lost.
    pub async fn next(
        &self,
        buffer: &mut [u8],
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<(), KernelError> {
        let failed = |errno| refused(format!("listening for {}", self.what), errno);
        let ready = self.messages.readable().await;
        let mut ready = ready.map_err(|error| failed(errno_of(&error)))?;
        let descriptor = ready.get_inner().as_raw_fd();
        loop {
            match recv(descriptor, buffer, MsgFlags::empty()) {
                Ok(length) => take(Some(buffer.get(..length).unwrap_or_default())),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => take(None),
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(failed(errno)),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

/// Has the runtime wait for something that owns its descriptor.
#[allow(unsafe_code)]
pub fn readable<T: AsRawFd + AsFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the owners that there are, a descriptor and a socket, keep the descriptor they have until they are dropped,
    // which happens after the registration has ended.
    let registered = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

fn errno_of(error: &io::Error) -> Errno {
    let number = error.raw_os_error();
    number.map_or(Errno::UnknownErrno, Errno::from_raw)
}

const fn refused(doing: String, errno: Errno) -> KernelError {
    KernelError::Refused {
        doing,
        errno,
        sentence: String::new(),
    }
}
