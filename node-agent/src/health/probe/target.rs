//! Whom a question goes to, and from where.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lvs_crds::health_check::HealthCheck;
use nix::errno::Errno;

use super::{NOT_ASKED, quoted, words};

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// Address of this node to ask from, of the same family; `None` = as the routes say.
    pub source: Option<IpAddr>,
}

impl Target {
    /// The one at `address`, asked as `check` says. An error is what of the check cannot be done, in words.
    pub fn of(address: SocketAddr, check: &HealthCheck) -> Result<Self, String> {
        let source = check.source_address.as_ref().map(|text| {
            let source: Result<IpAddr, _> = text.parse();
            source.map_err(|_| format!("{NOT_ASKED}{} is no address", quoted(text)))
        });
        let source = source.transpose()?;
        Ok(Self {
            address,
            source: source.filter(|source| source.is_ipv4() == address.is_ipv4()),
        })
    }

    /// The address to bind a socket to, with a port that the kernel chooses.
    pub fn own_end(&self) -> SocketAddr {
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(self.source.unwrap_or(any), 0)
    }

    /// Why no socket could be opened or bound, in words.
    pub fn unopened(&self, error: &io::Error) -> String {
        let is_absent = error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32);
        match self.source.filter(|_| is_absent) {
            Some(source) => format!("{NOT_ASKED}this node does not have sourceAddress {source}"),
            None => format!("{NOT_ASKED}{}", words(error)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}
