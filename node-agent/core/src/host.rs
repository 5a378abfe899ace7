//! Everything of a node's network, IPVS aside, that we may create or set, as plain values.
//!
//! Director addresses are not here: only the fence thread adds, refreshes and deletes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use lvs_crds::node_plan::MarkMatch;
use lvs_crds::value::{AddressFamily, Protocol};
use serde::{Deserialize, Serialize};

use crate::ipvs::ServiceKey;

/// Owner tag in `FRA_PROTOCOL`, `RTA`'s `rtm_protocol` and `IFA_PROTO`: 'L'. Not in use in
/// `include/uapi/linux/rtnetlink.h`.
pub const OWNER_PROTOCOL: u8 = 76;
/// Prefix of the names of devices we make.
pub const DEVICE_PREFIX: &str = "lvs-";
/// The dummy device that carries DR addresses of a real server.
pub const DIRECT_ROUTING_DEVICE: &str = "lvs-dr";
/// Name of the nftables table (family inet) that sets marks and source addresses.
pub const NFT_TABLE: &str = "lvs-operator";
/// First priority of our policy rules (`ip rule`): before the main table (32766).
pub const RULE_PRIORITY: u32 = 22_000;
/// First routing table of ours.
pub const ROUTE_TABLE: u32 = 7_600;

/// Kind of a device of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LinkKind {
    /// `dummy`: carries addresses nobody is told of.
    Dummy,
    /// `ipip`: IPv4 in IPv4, with this local address.
    IpIp(IpAddr),
    /// `sit`: IPv6 in IPv4, with this local address.
    Sit(IpAddr),
    /// `ip6tnl` mode any: IPv4 or IPv6 in IPv6, with this local address.
    Ip6Tunnel(IpAddr),
    /// `gre`: any in GRE over IPv4, with this local address.
    Gre(IpAddr),
    /// `ip6gre`: any in GRE over IPv6, with this local address.
    Ip6Gre(IpAddr),
    /// `gre … icsum`: as `Gre`, for packets with a checksum. The kernel drops a packet whose checksum is there but not
    /// expected, or the reverse (`ip_tunnel_rcv`, net/ipv4/ip_tunnel.c), and has one device per local address.
    GreChecksum(IpAddr),
    /// `ip6gre … icsum`: as `Ip6Gre`, for packets with a checksum.
    Ip6GreChecksum(IpAddr),
    /// `macvlan` mode private: a virtual MAC beside the device's own. Up only while it carries an address, as its
    /// packets belong to the master alone.
    Macvlan {
        /// Index of the device below.
        parent: u32,
        /// The virtual MAC.
        hardware_address: [u8; 6],
    },
}

impl LinkKind {
    /// `IFLA_INFO_KIND`, also the kernel module's alias `rtnl-link-<kind>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dummy => "dummy",
            Self::IpIp(_) => "ipip",
            Self::Sit(_) => "sit",
            Self::Ip6Tunnel(_) => "ip6tnl",
            Self::Gre(_) | Self::GreChecksum(_) => "gre",
            Self::Ip6Gre(_) | Self::Ip6GreChecksum(_) => "ip6gre",
            Self::Macvlan { .. } => "macvlan",
        }
    }

    /// Local address of a tunnel.
    pub const fn local(self) -> Option<IpAddr> {
        match self {
            Self::Dummy | Self::Macvlan { .. } => None,
            Self::IpIp(local)
            | Self::Sit(local)
            | Self::Ip6Tunnel(local)
            | Self::Gre(local)
            | Self::Ip6Gre(local)
            | Self::GreChecksum(local)
            | Self::Ip6GreChecksum(local) => Some(local),
        }
    }

    /// Whether the tunnel expects a checksum.
    pub const fn expects_checksum(self) -> bool {
        matches!(self, Self::GreChecksum(_) | Self::Ip6GreChecksum(_))
    }

    /// Whether the kernel takes both for one tunnel: it keeps a single one of each kind and local address.
    pub fn is_same_tunnel(self, other: Self) -> bool {
        match self {
            Self::Macvlan { .. } => self == other,
            _ => self.as_str() == other.as_str() && self.local() == other.local(),
        }
    }

    /// Whether the device is up from its making on. That of a virtual MAC the fence thread sets up and down.
    pub const fn is_always_up(self) -> bool {
        !matches!(self, Self::Macvlan { .. })
    }
}

/// A device as seen on the node, foreign ones included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Kind when it is one that we make; `None` for every other device.
    pub kind: Option<LinkKind>,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`: the layer below carries, such as a cable with something at its other end.
    pub carrier: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Hardware address, empty when it has none.
    pub hardware_address: Vec<u8>,
}

impl Link {
    /// Why packets cannot pass, if they cannot.
    pub const fn obstacle(&self) -> Option<&'static str> {
        match (self.up, self.carrier) {
            (false, _) => Some("is down"),
            (true, false) => Some("has no carrier"),
            (true, true) => None,
        }
    }
}

/// One address on one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressKey {
    /// Device name.
    pub device: String,
    /// Address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_length: u8,
}

/// Attributes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAttributes {
    /// Remaining valid lifetime in seconds; `None` = for ever.
    pub valid_seconds: Option<u32>,
    /// `IFA_PROTO` (Linux 5.18 and later; 0 before, and for addresses without it).
    pub protocol: u8,
    /// `scope global`.
    pub global: bool,
}

/// A sysctl by its path below /proc/sys, such as `net/ipv4/conf/eth0/arp_ignore`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SysctlKey(pub String);

impl SysctlKey {
    /// `net/<family>/conf/<device>/<name>`; `device` may be `all` or `default`.
    pub fn of_device(family: AddressFamily, device: &str, name: &str) -> Self {
        let family = match family {
            AddressFamily::IPv4 => "ipv4",
            AddressFamily::IPv6 => "ipv6",
        };
        Self(format!("net/{family}/conf/{device}/{name}"))
    }

    /// `net/ipv4/vs/<name>`: IPVS, both families.
    pub fn of_ipvs(name: &str) -> Self {
        Self(format!("net/ipv4/vs/{name}"))
    }

    /// Device part of `net/*/conf/<device>/*`; `all` and `default` included. Device names hold no slash
    /// (`dev_valid_name`, net/core/dev.c).
    pub fn device(&self) -> Option<&str> {
        let mut parts = self.0.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("net"), Some("ipv4" | "ipv6"), Some("conf"), device) => device,
            _ => None,
        }
    }

    /// Last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The same setting for `all` devices.
    pub fn for_all_devices(&self) -> Option<Self> {
        let device = self.device()?;
        let family = if self.0.starts_with("net/ipv6/") {
            AddressFamily::IPv6
        } else {
            AddressFamily::IPv4
        };
        (device != "all").then(|| Self::of_device(family, "all", self.name()))
    }

    /// Whether it decides what ARP says of our addresses.
    pub fn is_arp(&self) -> bool {
        matches!(self.name(), "arp_ignore" | "arp_announce")
    }

    /// Whether it decides if router advertisements are accepted.
    pub fn is_accept_ra(&self) -> bool {
        self.name() == "accept_ra"
    }

    /// Whether it is forwarding of IPv6 on the whole node.
    pub fn is_ipv6_forwarding(&self) -> bool {
        self.0 == "net/ipv6/conf/all/forwarding"
    }
}

impl fmt::Display for SysctlKey {
    /// As `sysctl` prints it: dots for slashes, and slashes for dots (`net.ipv4.conf.eth0/100.arp_ignore`).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            fmt::Write::write_char(
                formatter,
                match character {
                    '/' => '.',
                    '.' => '/',
                    other => other,
                },
            )?;
        }
        Ok(())
    }
}

/// A foo-over-udp receive port (`ip fou add port N gue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FouPort {
    /// UDP port.
    pub port: u16,
    /// Family of the outer packet.
    pub family: AddressFamily,
}

/// A policy rule of ours (`ip rule … protocol 76`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Priority.
    pub priority: u32,
    /// `from`: the real server's address.
    pub source: IpAddr,
    /// `ipproto`.
    pub protocol: Protocol,
    /// `sport`, first.
    pub port: u16,
    /// `sport`, last.
    pub end_port: u16,
    /// `lookup`.
    pub table: u32,
}

/// A default route of ours in a table of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefaultRoute {
    /// Table.
    pub table: u32,
    /// `via`.
    pub gateway: IpAddr,
    /// `dev`.
    pub device: String,
}

/// A mark and what gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MarkRule {
    /// Packets.
    pub packets: MarkMatch,
    /// The whole mark.
    pub mark: u32,
}

/// Connections of clients that go on with another source address (FullNAT), by what the clients sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceNatRule {
    /// First packets, by the destination that they had before IPVS changed it.
    pub packets: MarkMatch,
    /// The real server that IPVS chose; `None` = whichever.
    pub real_server: Option<RealServerPorts>,
    /// Source addresses, one by chance for each connection. Sorted, of the family of `packets`, at least one.
    pub source_addresses: Vec<IpAddr>,
}

/// Ports of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RealServerPorts {
    /// Its address.
    pub address: IpAddr,
    /// First port; 0 = all ports.
    pub port: u16,
    /// Last port; equals port for a single one.
    pub end_port: u16,
}

/// What our nftables table does with packets. Both lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRules {
    /// Marks set before IPVS sees the packets.
    pub marks: Vec<MarkRule>,
    /// Source addresses set after IPVS has seen them.
    pub source_nat: Vec<SourceNatRule>,
}

impl PacketRules {
    /// Whether there is nothing to do: then there is no table.
    pub const fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.source_nat.is_empty()
    }

    /// Sorted, without repetitions.
    pub fn normalise(&mut self) {
        self.marks.sort();
        self.marks.dedup();
        self.source_nat.sort();
        self.source_nat.dedup();
    }

    /// Adds those rules of `others` that do not speak of packets of which these do already.
    pub fn add_missing(&mut self, others: &Self) {
        for rule in &others.marks {
            if !self.marks.contains(rule) {
                self.marks.push(rule.clone());
            }
        }
        for rule in &others.source_nat {
            let mut own = self.source_nat.iter();
            let is_there = own.any(|own| {
                own.packets == rule.packets
                    && (own.real_server.is_none() || own.real_server == rule.real_server)
            });
            if !is_there {
                self.source_nat.push(rule.clone());
            }
        }
        self.normalise();
    }

    /// Whether connections of a service get another source address. By mark it does not matter: what marks its packets is
    /// in the same table.
    pub fn translates_for(&self, service: &ServiceKey) -> bool {
        let ServiceKey::Address {
            address,
            protocol,
            port,
        } = service
        else {
            return false;
        };
        self.source_nat.iter().any(|rule| {
            let packets = &rule.packets;
            packets.address == *address
                && packets.protocol == *protocol
                && (packets.port..=packets.end_port).contains(port)
        })
    }
}

/// What was read from the node. Reading is all or nothing: a part that could not be read makes the whole an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedHost {
    /// Every device by name.
    pub links: BTreeMap<String, Link>,
    /// Every address.
    pub addresses: Vec<(AddressKey, AddressAttributes)>,
    /// Sysctls that desired state speaks of; `None` = the file does not exist.
    pub sysctls: BTreeMap<SysctlKey, Option<String>>,
    /// foo-over-udp ports, foreign ones included; empty when the module is not loaded.
    pub fou_ports: BTreeSet<FouPort>,
    /// Rules with our protocol number.
    pub policy_rules: BTreeSet<PolicyRule>,
    /// Default routes with our protocol number.
    pub routes: BTreeSet<DefaultRoute>,
    /// Our nftables table; `None` = there is no such table.
    pub packet_rules: Option<ObservedPacketRules>,
    /// Whether the kernel has IPv6 enabled.
    pub ipv6: bool,
    /// Addresses at which the agent reaches the API server: its own settings, not the kernel's. Empty = not known.
    #[serde(default)]
    pub api_endpoints: BTreeSet<IpAddr>,
}

/// Content of our nftables table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPacketRules {
    /// Rules that are exactly as we write them.
    pub rules: PacketRules,
    /// Whether anything else was found (a changed rule, a missing chain): the table must be written again.
    pub damaged: bool,
}

impl ObservedHost {
    /// The first of some devices that is on this node: an interface may be named differently on every node.
    pub fn first_present<'a>(&self, devices: &'a [String]) -> Option<&'a str> {
        let mut names = devices.iter().map(String::as_str);
        names.find(|device| self.links.contains_key(*device))
    }

    /// Device and prefix whose connected subnet holds `address`: the longest prefix on an up, non-loopback
    /// device that is not ours; on equal length the first name.
    pub fn connected_device(&self, address: IpAddr) -> Option<&str> {
        self.device_with_subnet(address, true)
    }

    /// As [`connected_device`](Self::connected_device), and where no such device is up, one that is down: where the
    /// address belongs does not change with a link.
    pub fn home_device(&self, address: IpAddr) -> Option<&str> {
        self.device_with_subnet(address, true)
            .or_else(|| self.device_with_subnet(address, false))
    }

    fn device_with_subnet(&self, address: IpAddr, up: bool) -> Option<&str> {
        self.addresses
            .iter()
            .filter(|(key, _)| {
                !key.device.starts_with(DEVICE_PREFIX)
                    && self
                        .links
                        .get(&key.device)
                        .is_some_and(|link| link.up == up && !link.loopback)
                    && key.prefix_length < if key.address.is_ipv4() { 32 } else { 128 }
                    && IpNet::new(key.address, key.prefix_length)
                        .is_ok_and(|net| net.contains(&address))
            })
            .max_by(|(left, _), (right, _)| {
                left.prefix_length
                    .cmp(&right.prefix_length)
                    .then(right.device.cmp(&left.device))
            })
            .map(|(key, _)| key.device.as_str())
    }
}

/// Prefix of the names of devices with a virtual MAC.
pub const VIRTUAL_MAC_DEVICE_PREFIX: &str = "lvs-v";

/// Whether a device has the name of one with a virtual MAC of ours.
pub fn is_virtual_mac_device(name: &str) -> bool {
    name.starts_with(VIRTUAL_MAC_DEVICE_PREFIX)
}

/// Whether a device has a name that only we give. (Whether it **is** ours, the journal says.)
pub fn is_our_device(name: &str) -> bool {
    name.starts_with(DEVICE_PREFIX)
}
