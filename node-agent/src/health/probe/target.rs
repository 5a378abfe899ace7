//! Whom a question goes to, and from where.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use lvs_core::health::Passage;
use lvs_core::ipvs::DestinationForwarding;
use lvs_crds::health_check::HealthCheck;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::{NOT_ASKED, quoted, words};

/// Any port, of somebody to whom nothing is sent.
const DISCARD_PORT: u16 = 9;
/// Hops of a question that IPVS forwards with DR: it takes one itself, and the real server is the next. One that does not
/// have the address and forwards packets would send the question back to the holder, and any real server could answer.
const HOPS_TO_A_NEIGHBOUR: i32 = 2;

/// Where a question is sent, and the way it takes from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Address and port.
    pub address: SocketAddr,
    /// The firewall mark by which IPVS forwards it, and where to; `None` = it goes there by itself.
    pub passage: Option<(u32, Passage)>,
    /// Real server about which a judge is asked, who is at the address.
    pub subject: Option<SocketAddr>,
}

impl From<SocketAddr> for Way {
    /// Straight there.
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            passage: None,
            subject: None,
        }
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// Address of this node to ask from, of the same family; `None` = as the routes say.
    pub source: Option<IpAddr>,
    /// As of its way.
    pub passage: Option<(u32, Passage)>,
}

impl Target {
    /// The one at the end of `way`, asked as `check` says. An error is what of the check cannot be done, in words.
    pub fn of(way: Way, check: &HealthCheck) -> Result<Self, String> {
        let Way {
            address, passage, ..
        } = way;
        let source = check.source_address.as_ref().map(|text| {
            let source: Result<IpAddr, _> = text.parse();
            source.map_err(|_| format!("{NOT_ASKED}{} is no address", quoted(text)))
        });
        let source = source.transpose()?;
        let source = source.filter(|source| source.is_ipv4() == address.is_ipv4());
        let source = match passage {
            Some((_, passage)) if source.is_none() => Some(source_through(address, passage)?),
            _ => source,
        };
        Ok(Self {
            address,
            source,
            passage,
        })
    }

    /// Makes what a socket sends take the way.
    pub fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        let Some((mark, passage)) = self.passage else {
            return Ok(());
        };
        setsockopt(socket, sockopt::Mark, &mark)?;
        if passage.forwarding == DestinationForwarding::DirectRoute {
            match self.address {
                SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4Ttl, &HOPS_TO_A_NEIGHBOUR)?,
                SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6Ttl, &HOPS_TO_A_NEIGHBOUR)?,
            }
        }
        Ok(())
    }

    /// The address to bind a socket to, with a port that the kernel chooses.
    pub fn own_end(&self) -> SocketAddr {
        let any = || unspecified(self.address.ip());
        SocketAddr::new(self.source.unwrap_or_else(any), 0)
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

/// The address of this node that a real server can answer to. Where the node holds the virtual address, the kernel itself would
/// choose that. An error is why there is none, in words. Nothing is sent.
fn source_through(address: SocketAddr, passage: Passage) -> Result<IpAddr, String> {
    let Passage { real_server, .. } = passage;
    if real_server.is_ipv4() != address.is_ipv4() {
        let virtual_address = address.ip();
        return Err(format!(
            "{NOT_ASKED}{virtual_address} and real server {real_server} are of different address families: set path \
             RealServer, or sourceAddress"
        ));
    }
    let own = || {
        let socket = UdpSocket::bind((unspecified(real_server), 0))?;
        socket.connect((real_server, DISCARD_PORT))?;
        socket.local_addr()
    };
    let own = own().map_err(|error: io::Error| format!("{NOT_ASKED}{}", words(&error)))?;
    Ok(own.ip())
}

/// Any address, of the family of `address`.
const fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
