//! What is done to addresses, and how it went.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::election::{Lifetime, Tick};

/// Last moment at which an address may be added or refreshed: t0 + L − V − g.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderUntil(Tick);

impl HolderUntil {
    /// Permission until this moment, inclusive.
    pub const fn new(until: Tick) -> Self {
        Self(until)
    }

    /// Whether an address may be added or refreshed at `now`.
    pub fn permits(self, now: Tick) -> bool {
        now <= self.0
    }

    /// The last moment.
    pub const fn tick(self) -> Tick {
        self.0
    }
}

impl fmt::Display for HolderUntil {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An address of a router on a device of this node, programmed as /32 or /128.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectorAddress {
    /// Address.
    pub address: IpAddr,
    /// Device name.
    pub device: String,
}

impl fmt::Display for DirectorAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if self.address.is_ipv4() { 32 } else { 128 };
        write!(formatter, "{}/{length} dev {}", self.address, self.device)
    }
}

/// One thing to do to one address. Display is one line in the words of `ip address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add it; it must not be there yet, or it is not ours.
    Add(Lifetime),
    /// Set its lifetime, adding it when it has expired.
    Refresh(Lifetime),
    /// Delete it.
    Delete,
    /// Tell the neighbours: gratuitous ARP, or an unsolicited neighbour advertisement.
    Announce,
}

/// A step, for whom and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Router.
    pub router: String,
    /// Address.
    pub address: DirectorAddress,
    /// What.
    pub step: Step,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, lifetime) = match &self.step {
            Step::Add(lifetime) => ("addr add", Some(lifetime)),
            Step::Refresh(lifetime) => ("addr replace", Some(lifetime)),
            Step::Delete => ("addr del", None),
            Step::Announce => ("announce", None),
        };
        write!(formatter, "{verb} {}", self.address)?;
        match lifetime {
            Some(Lifetime::Seconds(seconds)) => write!(formatter, " valid_lft {seconds}"),
            Some(Lifetime::Permanent) => formatter.write_str(" valid_lft forever"),
            None => Ok(()),
        }
    }
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; for a deletion also when nothing was there.
    Done,
    /// An address to be added is there already and was not added by us.
    Foreign,
    /// The device does not exist.
    NoDevice,
    /// The kernel refused or the journal could not be written.
    Failed(String),
}

/// Why an address is not held though it should be, or is still there though it should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else's address.
    Foreign,
    /// No such device.
    NoDevice,
    /// The kernel refused.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => formatter.write_str("the address is there and was not added by us"),
            Self::NoDevice => formatter.write_str("the device does not exist"),
            Self::Failed(text) => formatter.write_str(text),
        }
    }
}

impl Trouble {
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Done => None,
            Outcome::Foreign => Some(Self::Foreign),
            Outcome::NoDevice => Some(Self::NoDevice),
            Outcome::Failed(text) => Some(Self::Failed(text)),
        }
    }
}
