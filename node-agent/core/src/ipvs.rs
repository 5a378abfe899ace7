//! IPVS rules as plain values: what the kernel holds, what we want it to hold.
//!
//! Numbers are those of `include/uapi/linux/ip_vs.h`; how they travel is `lvs-ipvs`' affair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use lvs_crds::value::{AddressFamily, Protocol};
use serde::{Deserialize, Serialize};

/// What packets a service takes. Identity of a service in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceKey {
    /// ipvsadm -t, -u, --sctp-service. Port 0 takes every port.
    Address {
        /// Virtual address.
        address: IpAddr,
        /// Protocol.
        protocol: Protocol,
        /// Port; 0 = all.
        port: u16,
    },
    /// ipvsadm -f (with -6 for IPv6).
    FirewallMark {
        /// The whole mark, not 0.
        mark: u32,
        /// Family: the kernel keeps one service per mark and family.
        family: AddressFamily,
    },
}

impl ServiceKey {
    /// Family of the packets.
    pub const fn family(&self) -> AddressFamily {
        match self {
            Self::Address { address, .. } => AddressFamily::of(address),
            Self::FirewallMark { family, .. } => *family,
        }
    }

    /// The service `offset` ports further on in a range; a mark has none.
    #[must_use]
    pub const fn at_offset(self, offset: u16) -> Self {
        match self {
            Self::Address {
                address,
                protocol,
                port,
            } => Self::Address {
                address,
                protocol,
                port: port.saturating_add(offset),
            },
            Self::FirewallMark { .. } => self,
        }
    }
}

/// As in `ipvsadm -Sn`: `-t 192.0.2.1:80`, `-u [2001:db8::1]:53`, `-f 7`, `-f 7 -6`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                address,
                protocol,
                port,
            } => {
                let option = match protocol {
                    Protocol::TCP => "-t",
                    Protocol::UDP => "-u",
                    Protocol::SCTP => "--sctp-service",
                };
                write!(formatter, "{option} {}", SocketText(*address, *port))
            }
            Self::FirewallMark { mark, family } => {
                write!(formatter, "-f {mark}")?;
                if *family == AddressFamily::IPv6 {
                    formatter.write_str(" -6")?;
                }
                Ok(())
            }
        }
    }
}

/// `192.0.2.1:80` or `[2001:db8::1]:80`.
pub struct SocketText(pub IpAddr, pub u16);

impl fmt::Display for SocketText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(formatter, "{address}:{}", self.1),
            IpAddr::V6(address) => write!(formatter, "[{address}]:{}", self.1),
        }
    }
}

/// `IP_VS_SVC_F_*` without `HASHED`, which the kernel owns.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// Persistent (`IP_VS_SVC_F_PERSISTENT`).
    pub const PERSISTENT: u32 = 0x01;
    /// One-packet scheduling (`IP_VS_SVC_F_ONEPACKET`).
    pub const ONE_PACKET: u32 = 0x04;
    /// Scheduler flag 1: fallback of sh and mh.
    pub const FALLBACK: u32 = 0x08;
    /// Scheduler flag 2: port in the hash of sh and mh.
    pub const PORT: u32 = 0x10;
    /// Scheduler flag 3; no scheduler of ours uses it.
    pub const SCHEDULER_3: u32 = 0x20;
    /// Every flag that userspace owns.
    pub const OWNED: u32 = 0x3d;

    /// Flags of the scheduler, in ipvsadm's words.
    pub fn scheduler_words(self, scheduler: &str) -> Vec<String> {
        [
            (Self::FALLBACK, "fallback", "flag-1"),
            (Self::PORT, "port", "flag-2"),
            (Self::SCHEDULER_3, "", "flag-3"),
        ]
        .iter()
        .filter(|(bit, _, _)| self.0 & bit != 0)
        .map(|(_, word, number)| match scheduler {
            "sh" | "mh" if !word.is_empty() => format!("{scheduler}-{word}"),
            _ => (*number).to_owned(),
        })
        .collect()
    }
}

/// Attributes of a service that can be edited in place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Scheduler's name; text, as the kernel may hold one we do not know.
    pub scheduler: String,
    /// Flags.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds; 0 when not persistent.
    pub timeout_seconds: u32,
    /// Persistence granularity as prefix length: 0..32 for IPv4, 1..128 for IPv6; 32 and 128 when not persistent.
    pub prefix_length: u8,
    /// Persistence engine; "sip" is the only one in Linux.
    pub persistence_engine: Option<String>,
}

/// Identity of a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DestinationKey {
    /// Address of the real server; its family may differ from the service's with TUN.
    pub address: IpAddr,
    /// Port; 0 in services of all ports or by mark.
    pub port: u16,
}

impl DestinationKey {
    /// The destination `offset` ports further on in a range.
    #[must_use]
    pub const fn at_offset(self, offset: u16) -> Self {
        Self {
            address: self.address,
            port: self.port.saturating_add(offset),
        }
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketText(self.address, self.port).fmt(formatter)
    }
}

/// How a destination is reached, with all that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DestinationForwarding {
    /// `IP_VS_CONN_F_MASQ` (0), ipvsadm -m.
    Masquerade,
    /// `IP_VS_CONN_F_LOCALNODE` (1): only seen in dumps of foreign rules.
    LocalNode,
    /// `IP_VS_CONN_F_TUNNEL` (2), ipvsadm -i.
    Tunnel(DestinationTunnel),
    /// `IP_VS_CONN_F_DROUTE` (3), ipvsadm -g.
    DirectRoute,
    /// `IP_VS_CONN_F_BYPASS` (4): only seen in dumps of foreign rules.
    Bypass,
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*` and what each type carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DestinationTunnel {
    /// Type 0.
    IpIp,
    /// Type 1.
    Gue {
        /// UDP destination port, not 0.
        port: u16,
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 0 none, 1 checksum, 2 remote checksum offload.
        flags: u16,
    },
    /// Type 2.
    Gre {
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 0 none, 1 checksum.
        flags: u16,
    },
}

/// Attributes of a destination that can be edited in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// Forwarding.
    pub forwarding: DestinationForwarding,
    /// Weight, 0..2^31-1.
    pub weight: u32,
    /// Upper threshold of connections; 0 = none.
    pub upper_threshold: u32,
    /// Lower threshold of connections; 0 = three quarters of upper.
    pub lower_threshold: u32,
}

/// A service with its destinations, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Attributes.
    pub service: Service,
    /// Destinations sorted by key, each key once. A vector, as ten thousand of them are compared in every pass.
    pub destinations: Vec<(DestinationKey, Destination)>,
}

/// All services, foreign ones included.
pub type Services = BTreeMap<ServiceKey, ServiceState>;

/// Destinations with weight 0 to which, for certain, no connection belongs, active or inactive. What is not in it may have
/// some.
pub type Idle = BTreeSet<(ServiceKey, DestinationKey)>;

/// IPVS timeouts of a network namespace in seconds (ipvsadm --set).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IpvsTimeouts {
    /// Established TCP.
    pub tcp_seconds: u32,
    /// TCP after a FIN.
    pub tcp_fin_seconds: u32,
    /// UDP.
    pub udp_seconds: u32,
}
