//! Devices as they change: the kernel tells of every change of a link (`RTNLGRP_LINK`), and each time all of them are
//! read again, so that a message that was lost or came late changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use lvs_core::host::Link;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::error::KernelError;
use super::link;
use super::socket::NetlinkSocket;

/// Every device of the network namespace by name.
pub type Links = BTreeMap<String, Link>;

/// What the kernel says is not read, only that it says something.
const SCRAP_BYTES: usize = 256;

/// A subscription to changes of links.
#[derive(Debug)]
pub struct LinkWatch {
    messages: AsyncFd<OwnedFd>,
    timeout: Duration,
    links: watch::Sender<Links>,
}

impl LinkWatch {
    /// Subscribes in the network namespace of this thread, then reads every device. Must be called inside the
    /// runtime. `timeout` bounds the wait for each answer of the kernel.
    pub fn open(timeout: Duration) -> Result<Self, KernelError> {
        let failed = |errno| KernelError::Refused {
            doing: "subscribing to changes of devices".to_owned(),
            errno,
            sentence: String::new(),
        };
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .map_err(failed)?;
        #[allow(clippy::cast_sign_loss)]
        let group = libc::RTMGRP_LINK as u32;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, group)).map_err(failed)?;
        let messages = readable(descriptor).map_err(|error| {
            failed(
                error
                    .raw_os_error()
                    .map_or(Errno::UnknownErrno, Errno::from_raw),
            )
        })?;
        let watch = Self {
            messages,
            timeout,
            links: watch::Sender::new(Links::new()),
        };
        watch.read()?;
        Ok(watch)
    }

    /// A receiver that changes whenever some device does.
    pub fn links(&self) -> watch::Receiver<Links> {
        self.links.subscribe()
    }

    /// Follows the kernel for ever; an end is an error.
    pub async fn run(self) -> Result<(), KernelError> {
        loop {
            let mut ready = self.messages.readable().await.map_err(|error| {
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::UnknownErrno, Errno::from_raw);
                refused(errno)
            })?;
            drain(ready.get_inner().as_raw_fd())?;
            ready.clear_ready();
            self.read()?;
        }
    }

    fn read(&self) -> Result<(), KernelError> {
        let mut socket = NetlinkSocket::open(SockProtocol::NetlinkRoute, self.timeout)?;
        let links = link::dump(&mut socket)?;
        self.links.send_if_modified(|known| {
            let changed = *known != links;
            *known = links;
            changed
        });
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

fn refused(errno: Errno) -> KernelError {
    KernelError::Refused {
        doing: "listening for changes of devices".to_owned(),
        errno,
        sentence: String::new(),
    }
}

/// Takes everything there is. An overflow says no more than a message does: read again.
fn drain(descriptor: i32) -> Result<(), KernelError> {
    let mut scrap = [0; SCRAP_BYTES];
    loop {
        match recv(descriptor, &mut scrap, MsgFlags::empty()) {
            Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(refused(errno)),
        }
    }
}
