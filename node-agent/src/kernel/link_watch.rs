//! Devices as they change: the kernel tells of every change of a link (`RTNLGRP_LINK`), and each time all of them are
//! read again, so that a message that was lost or came late changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::host::Link;
use nix::libc;
use nix::sys::socket::SockProtocol;
use tokio::sync::watch;

use super::error::KernelError;
use super::link;
use super::socket::NetlinkSocket;
use super::subscription::Subscription;

/// Every device of the network namespace by name.
pub type Links = BTreeMap<String, Link>;

/// What the kernel says is not read, only that it says something.
const SCRAP_BYTES: usize = 256;

/// A subscription to changes of links.
#[derive(Debug)]
pub struct LinkWatch {
    messages: Subscription,
    timeout: Duration,
    links: watch::Sender<Links>,
}

impl LinkWatch {
    /// Subscribes in the network namespace of this thread, then reads every device. Must be called inside the
    /// runtime. `timeout` bounds the wait for each answer of the kernel.
    pub fn open(timeout: Duration) -> Result<Self, KernelError> {
        #[allow(clippy::cast_sign_loss)]
        let group = libc::RTMGRP_LINK as u32;
        let messages = Subscription::open(group, "changes of devices")?;
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
        let mut scrap = [0; SCRAP_BYTES];
        loop {
            // An overflow says no more than a message does: read again.
            self.messages.next(&mut scrap, |_| ()).await?;
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
