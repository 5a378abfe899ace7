//! Removals of what is ours, as they happen: the kernel tells of every address and policy rule that goes
//! (`RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_RULE` and those of IPv6), and ours carry our protocol number. It is only a reason to
//! look again: whoever sees that something is missing sees it in the kernel. Of kernels before 5.18, whose addresses have no
//! such number, nothing is heard; the next look finds what is missing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::host::OWNER_PROTOCOL;
use nix::libc;
use tokio::sync::watch;

use super::error::KernelError;
use super::message::{Reply, split_replies};
use super::subscription::Subscription;
use super::{address, rule};

/// `RTMGRP_*` (`include/uapi/linux/rtnetlink.h`): the group's number is the bit, and libc has no mask for IPv6's rules.
const GROUPS: u32 = 1 << 4 | 1 << 7 | 1 << 8 | 1 << 18;
/// More than one notification; of a longer one the rest is not needed.
const RECEIVE_BYTES: usize = 8192;
/// Addresses of which it is kept who removed them.
const REMOVERS_KEPT: usize = 1024;

/// What was removed since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// How many there were, and moments at which the kernel had more to say than was read.
    pub count: u64,
    /// Netlink port of who removed an address last: the process id of a program's first socket (`netlink_autobind`). IPv4 alone,
    /// as the kernel does not say it of IPv6; not of addresses that expired.
    pub removers: BTreeMap<IpAddr, u32>,
}

/// A subscription to removals.
#[derive(Debug)]
pub struct RemovalWatch {
    messages: Subscription,
    removals: watch::Sender<Removals>,
}

impl RemovalWatch {
    /// Subscribes in the network namespace of this thread. Must be called inside the runtime.
    pub fn open() -> Result<Self, KernelError> {
        let messages = Subscription::open(GROUPS, "removals of addresses and policy rules")?;
        Ok(Self {
            messages,
            removals: watch::Sender::new(Removals::default()),
        })
    }

    /// A receiver that changes whenever something of ours was removed.
    pub fn removals(&self) -> watch::Receiver<Removals> {
        self.removals.subscribe()
    }

    /// Follows the kernel for ever; an end is an error.
    pub async fn run(self) -> Result<(), KernelError> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let each = |message: Option<&[u8]>| match message {
                Some(bytes) => self.take(bytes),
                // What was lost may have been ours.
                None => self.removals.send_modify(|removals| {
                    removals.count = removals.count.wrapping_add(1);
                }),
            };
            self.messages.next(&mut buffer, each).await?;
        }
    }

    fn take(&self, bytes: &[u8]) {
        for reply in split_replies(bytes).unwrap_or_default() {
            let Some(removed) = of_ours(&reply) else {
                continue;
            };
            self.removals.send_modify(|removals| {
                removals.count = removals.count.wrapping_add(1);
                if let Removed::Address(address) = removed {
                    if removals.removers.len() >= REMOVERS_KEPT {
                        removals.removers.clear();
                    }
                    match reply.port {
                        0 => removals.removers.remove(&address),
                        port => removals.removers.insert(address, port),
                    };
                }
            });
        }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    Address(IpAddr),
    PolicyRule,
}

/// What a notification says to be gone, if it is ours. One that cannot be read is not.
fn of_ours(reply: &Reply<'_>) -> Option<Removed> {
    match reply.message_type {
        libc::RTM_DELADDR => {
            let (_, address, _, attributes) = address::read(reply.body).ok()??;
            (attributes.protocol == OWNER_PROTOCOL).then_some(Removed::Address(address))
        }
        libc::RTM_DELRULE => rule::read(reply.body).ok()?.map(|_| Removed::PolicyRule),
        _ => None,
    }
}
