//! Values shared by several kinds.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::PartName;

/// Transport protocol that IPVS balances.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Protocol {
    /// Transmission Control Protocol (6).
    #[default]
    TCP,
    /// User Datagram Protocol (17).
    UDP,
    /// Stream Control Transmission Protocol (132).
    SCTP,
}

impl Protocol {
    /// IP protocol number as in the IANA registry.
    pub const fn number(self) -> u8 {
        match self {
            Self::TCP => 6,
            Self::UDP => 17,
            Self::SCTP => 132,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::TCP => "TCP",
            Self::UDP => "UDP",
            Self::SCTP => "SCTP",
        })
    }
}

/// IP address family.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum AddressFamily {
    /// IP version 4.
    IPv4,
    /// IP version 6.
    IPv6,
}

impl AddressFamily {
    /// Family of an address.
    pub const fn of(address: &std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(_) => Self::IPv4,
            std::net::IpAddr::V6(_) => Self::IPv6,
        }
    }
}

/// How a director hands packets to a real server (ipvsadm -m, -g, -i).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ForwardingType {
    /// Destination address (and port) rewritten; replies return through the director (ipvsadm -m).
    NAT,
    /// Direct routing: the frame goes unchanged to the real server's MAC address; replies go straight to the client (ipvsadm -g).
    DR,
    /// Tunnel: the packet is wrapped to the real server; replies go straight to the client (ipvsadm -i).
    TUN,
    /// NAT of both addresses: the real server sees an address of the director (ipvsadm -m, and nftables).
    FullNAT,
}

impl ForwardingType {
    /// Whether the director translates, and with the address it can change the port.
    pub const fn translates(self) -> bool {
        matches!(self, Self::NAT | Self::FullNAT)
    }
}

/// Encapsulation of TUN forwarding.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum TunnelType {
    /// IP in IP, 20 bytes of overhead over IPv4 (RFC 2003, RFC 4213, RFC 2473).
    #[default]
    IPIP,
    /// Generic UDP encapsulation (foo-over-udp), 28 bytes over IPv4; needs a port.
    GUE,
    /// Generic routing encapsulation, 24 bytes over IPv4 (RFC 2784).
    GRE,
}

/// Outer checksum of a GUE or GRE tunnel.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum TunnelChecksum {
    /// No outer checksum (ipvsadm --tun-nocsum).
    #[default]
    None,
    /// Outer checksum (ipvsadm --tun-csum).
    Checksum,
    /// Remote checksum offload, GUE only (ipvsadm --tun-remcsum).
    RemoteChecksum,
}

/// Parameters of TUN forwarding.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.type != 'GUE' || has(self.port)",
    "port is required with tunnel type GUE: set the UDP port on which the real servers take GUE packets, usually 6080"
))]
#[x_kube(validation = (
    "self.type == 'GUE' || !has(self.port)",
    "port is only for tunnel type GUE, as IPIP and GRE have no ports: remove port or set type GUE"
))]
#[x_kube(validation = (
    "self.type != 'IPIP' || self.checksum == 'None'",
    "checksum must be None with tunnel type IPIP, which carries none: remove checksum or set type GUE or GRE"
))]
#[x_kube(validation = (
    "self.type == 'GUE' || self.checksum != 'RemoteChecksum'",
    "checksum RemoteChecksum is only for tunnel type GUE: set type GUE, or checksum None or Checksum"
))]
pub struct Tunnel {
    /// IPIP: IP in IP, 20 bytes of overhead over IPv4. GUE: generic UDP encapsulation, 28 bytes, needs port. GRE: generic routing encapsulation, 24 bytes. Default IPIP.
    #[serde(rename = "type", default)]
    pub type_: TunnelType,
    /// UDP port on the real servers that takes GUE packets, 1..65535, usually 6080. Required by type GUE, refused otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Outer checksum. None: no checksum. Checksum: computed over the whole packet; types GUE and GRE. RemoteChecksum: remote checksum offload; type GUE. Default None.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

/// How packets reach the real servers.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.type == 'TUN' || !has(self.tunnel)",
    "tunnel is only for forwarding type TUN: remove tunnel or set type TUN"
))]
#[x_kube(validation = (
    "(self.type == 'FullNAT') == has(self.fullNAT)",
    "fullNAT is required with forwarding type FullNAT and refused otherwise: set type FullNAT with fullNAT.sourceAddressPoolName, or remove fullNAT"
))]
pub struct Forwarding {
    /// NAT (ipvsadm -m): the director rewrites the destination address and port; replies return through the director, which must be the real servers' way to the clients. DR (ipvsadm -g): direct routing, the frame goes unchanged to the real server's MAC address; replies go straight to the client; real servers are on a network of the director and keep the port. TUN (ipvsadm -i): the packet is wrapped and sent to the real server wherever it is; replies go straight to the client; real servers keep the port. FullNAT: as NAT, and the client's address becomes one of the director's, so that real servers need no way back but do not see the client; needs fullNAT. Required.
    #[serde(rename = "type")]
    pub type_: ForwardingType,
    /// Encapsulation, only with type TUN. Default with TUN: IPIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Which addresses real servers see as clients, only with type FullNAT.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "fullNAT")]
    pub full_nat: Option<FullNat>,
}

/// Parameters of FullNAT forwarding.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct FullNat {
    /// Pool of the router with purpose SourceNAT, granted to this namespace, whose addresses real servers see instead of the client's. Each gives about 64000 connections at once to one port of one real server. Required.
    #[schemars(with = "PartName")]
    pub source_address_pool_name: String,
}

/// IPVS scheduler, by ipvsadm's own name.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerName {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections (default).
    #[default]
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted failover: the available real server with the highest weight.
    Fo,
    /// Weighted overflow: the next real server once active connections exceed the weight.
    Ovf,
    /// Maglev hashing.
    Mh,
    /// Weighted random twos choice, where the kernel has it.
    Twos,
}

impl SchedulerName {
    /// The word the kernel and ipvsadm use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
        }
    }
}

/// Flag of a hashing scheduler. The fallback flag is always on for sh and mh and cannot be chosen.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum SchedulerOption {
    /// Include the source port in the hash (sh only).
    #[serde(rename = "sh-port")]
    ShPort,
    /// Include the source port in the hash (mh only).
    #[serde(rename = "mh-port")]
    MhPort,
}

/// Scheduler and its options.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.options) || size(self.options) == 0 || self.name in ['sh', 'mh']",
    "options are only for the schedulers sh (sh-port) and mh (mh-port): remove options or choose one of these"
))]
#[x_kube(validation = (
    "!has(self.options) || self.name != 'sh' || self.options.all(option, option == 'sh-port')",
    "options must be sh-port with scheduler sh: write sh-port instead of mh-port"
))]
#[x_kube(validation = (
    "!has(self.options) || self.name != 'mh' || self.options.all(option, option == 'mh-port')",
    "options must be mh-port with scheduler mh: write mh-port instead of sh-port"
))]
pub struct Scheduler {
    /// Scheduler by ipvsadm's name. rr: round robin. wrr: weighted round robin. lc: least connections. wlc: weighted least connections. lblc, lblcr: locality-based least connections, without and with replication. dh, sh: hash of the destination or source address. sed: shortest expected delay. nq: never queue. fo: weighted failover, the highest weight takes all. ovf: weighted overflow, the next one once connections exceed the weight. mh: Maglev hash of the source address. twos: the better of two chosen at random by weight. Default wlc.
    #[serde(default)]
    pub name: SchedulerName,
    /// Options of the scheduler: sh-port or mh-port also hashes the source port, with sh or mh. The fallback to another real server, when the hash leads to one with weight 0, is always on. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub options: Vec<SchedulerOption>,
}

/// Unit that is scheduled.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum PacketScheduling {
    /// All packets of a connection go to one real server (default).
    #[default]
    PerConnection,
    /// Every packet is scheduled on its own, UDP only (ipvsadm -o).
    OnePacket,
}

/// What tells clients apart instead of their address. SIP: the Call-ID, all ports UDP (ipvsadm --pe sip). Default: the address.
// The doc comment of an optional field's enum is what `kubectl explain` shows of the field.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum PersistenceEngine {
    /// By the Call-ID of SIP over UDP (ipvsadm --pe sip).
    SIP,
}

/// Persistence: a client returns to its real server (ipvsadm -p, -M).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Seconds after its last connection for which a client keeps its real server, 1..2678400 (31 days, as in ipvsadm). Default 300.
    // The kernel counts in ticks: 32 bits at 1000 Hz would overflow after 49 days.
    #[serde(default = "Persistence::default_timeout_seconds")]
    #[schemars(range(min = 1, max = 2_678_400))]
    pub timeout_seconds: u32,
    /// Bits of a client's IPv4 address that count: clients of one network of this prefix length share a real server, 1..32. Default 32, each on its own.
    #[serde(default = "Persistence::default_ipv4_prefix_length")]
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix_length: u8,
    /// Bits of a client's IPv6 address that count: clients of one network of this prefix length share a real server, 1..128. Default 128, each on its own.
    #[serde(default = "Persistence::default_ipv6_prefix_length")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix_length: u8,
    /// What tells clients apart instead of their address. SIP: the Call-ID, all ports UDP (ipvsadm --pe sip). Default: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<PersistenceEngine>,
}

impl Persistence {
    const fn default_timeout_seconds() -> u32 {
        300
    }
    const fn default_ipv4_prefix_length() -> u8 {
        32
    }
    const fn default_ipv6_prefix_length() -> u8 {
        128
    }
}

/// IPVS timeouts of a network namespace (ipvsadm --set). Zero is refused: the kernel reads it as
/// "keep". Greatest value: INT_MAX ticks at 1000 Hz (ip_vs_set_timeout in ip_vs_ctl.c).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Seconds an idle established TCP connection is kept, 1..2147483. Default 900.
    #[serde(default = "Timeouts::default_tcp_seconds")]
    #[schemars(range(min = 1, max = 2_147_483))]
    pub tcp_seconds: u32,
    /// Seconds a TCP connection is kept after a FIN, 1..2147483. Default 120.
    #[serde(default = "Timeouts::default_tcp_fin_seconds")]
    #[schemars(range(min = 1, max = 2_147_483))]
    pub tcp_fin_seconds: u32,
    /// Seconds an idle UDP flow is kept, 1..2147483. Default 300.
    #[serde(default = "Timeouts::default_udp_seconds")]
    #[schemars(range(min = 1, max = 2_147_483))]
    pub udp_seconds: u32,
}

impl Timeouts {
    const fn default_tcp_seconds() -> u32 {
        900
    }
    const fn default_tcp_fin_seconds() -> u32 {
        120
    }
    const fn default_udp_seconds() -> u32 {
        300
    }
}
