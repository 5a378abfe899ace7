//! The kernel as a value: what every operation does to it and with which error it refuses. Laws run against it here, and
//! the fakes of `lvs-ipvs` and the agent are made of it; a differential test against a real kernel keeps it honest.

mod host;
mod ipvs;

use std::collections::BTreeSet;
use std::fmt;

pub use host::HostModel;
pub use ipvs::IpvsModel;

use crate::desired::DesiredState;
use crate::host::SysctlKey;
use crate::journal::Journal;
use crate::observed::Observed;
use crate::op::Op;

/// Errors by which the kernel refuses, `include/uapi/asm-generic/errno*.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::upper_case_acronyms)] // The kernel's own words.
pub enum Errno {
    /// No such file, scheduler, destination or rule.
    ENOENT = 2,
    /// No such service or route.
    ESRCH = 3,
    /// Exists already.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Not valid.
    EINVAL = 22,
    /// Out of range.
    ERANGE = 34,
    /// Family not supported.
    EAFNOSUPPORT = 97,
    /// Port in use.
    EADDRINUSE = 98,
    /// No such address.
    EADDRNOTAVAIL = 99,
    /// Gateway not reachable over the device.
    ENETUNREACH = 101,
}

impl Errno {
    /// The number.
    pub const fn code(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A whole node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// IPVS.
    pub ipvs: IpvsModel,
    /// Everything else.
    pub host: HostModel,
}

impl Model {
    /// Carry out one operation, or refuse it and change nothing.
    pub fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Ipvs(op) => self.ipvs.apply(op),
            Op::Host(op) => self.host.apply(op),
        }
    }

    /// Read everything, and of the sysctls those asked for.
    pub fn observe(&self, keys: &BTreeSet<SysctlKey>) -> Observed {
        Observed {
            services: self.ipvs.services.clone(),
            disorder: self.ipvs.disorder(),
            timeouts: self.ipvs.timeouts,
            sync_daemons: self.ipvs.sync_daemons.clone(),
            host: self.host.observe(keys),
        }
    }

    /// Read everything that `diff` needs for this desired state.
    pub fn observe_for(&self, desired: &DesiredState, journal: &Journal) -> Observed {
        self.observe(&desired.sysctl_keys(journal))
    }
}
