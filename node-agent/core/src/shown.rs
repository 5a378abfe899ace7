//! What `lvs-agent show` writes in JSON and `kubectl lvs` reads: the IPVS of one node, with the names that its plans give to things.
//!
//! The two programs may be of different versions: a field that is new has a default, a field that is not known is passed over.

pub mod connection;
pub mod owner;

use std::net::IpAddr;

use lvs_crds::value::{AddressFamily, Protocol};
use serde::{Deserialize, Serialize};

use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey, SocketText,
};
use crate::statistics::{Counters, DestinationStatistics, Rates};
use crate::sync_daemon::{SyncDaemon, SyncRole};
use owner::Owners;

/// A service as the kernel told it, with all that it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceReading {
    /// Which.
    pub key: ServiceKey,
    /// Its attributes.
    pub service: Service,
    /// Since it was added, or set to zero.
    pub counters: Counters,
    /// Now.
    pub rates: Rates,
    /// Its destinations, in the kernel's order.
    pub destinations: Vec<DestinationReading>,
}

/// A destination as the kernel told it, with all that it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationReading {
    /// Its attributes.
    pub state: Destination,
    /// Which, and what it has counted.
    pub statistics: DestinationStatistics,
    /// Now.
    pub rates: Rates,
}

/// `lvs-agent show services`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownServices {
    /// Version of the agent.
    pub agent_version: String,
    /// Version of IPVS and size of its connection table; unset where the kernel has not loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipvs: Option<ShownIpvs>,
    /// Whether the journal could be read. If not, it is not known what is ours.
    pub ownership_known: bool,
    /// What could not be read, in words; what is left is true nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Services, sorted by what packets they take.
    #[serde(default)]
    pub services: Vec<ShownService>,
    /// Foreign services of a protocol other than TCP, UDP and SCTP, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unnameable: Vec<String>,
}

/// IPVS of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownIpvs {
    /// As ipvsadm shows it, such as 1.2.1.
    pub version: String,
    /// Buckets of the connection table.
    pub connection_table_size: u32,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownService {
    /// Virtual address; unset of a service by firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Protocol; unset of a service by firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Port, 0 for all; unset of a service by firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Firewall mark; unset of a service by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<u32>,
    /// Family of the packets.
    pub address_family: AddressFamily,
    /// The kernel's name of the scheduler.
    pub scheduler: String,
    /// Flags of the scheduler, in ipvsadm's words: `mh-fallback`, `mh-port`, `flag-3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<String>,
    /// Every packet is scheduled on its own (ipvsadm: ops).
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_packet: bool,
    /// Persistence; unset = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<ShownPersistence>,
    /// Whose it is; unset = foreign, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ShownOwner>,
    /// Since it was added, or set to zero.
    pub counters: Counters,
    /// Now.
    pub rates: Rates,
    /// Its destinations, in the kernel's order.
    #[serde(default)]
    pub destinations: Vec<ShownDestination>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl ShownService {
    /// As ipvsadm lists it: `TCP 192.0.2.1:80`, `FWM 7`, `FWM 7 IPv6`.
    pub fn text(&self) -> String {
        match (self.address, self.protocol, self.firewall_mark) {
            (Some(address), Some(protocol), _) => {
                format!(
                    "{protocol} {}",
                    SocketText(address, self.port.unwrap_or_default())
                )
            }
            (_, _, mark) => {
                let family = match self.address_family {
                    AddressFamily::IPv4 => "",
                    AddressFamily::IPv6 => " IPv6",
                };
                format!("FWM {}{family}", mark.unwrap_or_default())
            }
        }
    }
}

/// Persistence of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownPersistence {
    /// Seconds.
    pub timeout_seconds: u32,
    /// Bits of a client's address that count; 255 = a mask that is no prefix.
    pub prefix_length: u8,
    /// What tells clients apart instead of their address, such as sip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// Whose a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownOwner {
    /// The NodePlan.
    pub plan_name: String,
    /// Namespace of its VirtualService; unset while the plan is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its VirtualService; unset while the plan is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is there for.
    pub purpose: Purpose,
}

impl ShownOwner {
    /// Namespace and name as people write them, or the plan's name while nothing else is known.
    pub fn text(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => format!("plan {}", self.plan_name),
        }
    }

    /// Whether it is of this VirtualService; one without a namespace is of any.
    pub fn is_of(&self, namespace: Option<&str>, name: &str) -> bool {
        self.name.as_deref() == Some(name)
            && namespace.is_none_or(|wanted| self.namespace.as_deref() == Some(wanted))
    }
}

/// What a service of ours is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// For clients, as the plan says.
    Clients,
    /// The way of health checks through the virtual address.
    HealthChecks,
    /// The plan no longer has it: it is about to go.
    Leaving,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownDestination {
    /// Address of the real server.
    pub address: IpAddr,
    /// Its port; 0 in services of all ports or by mark.
    pub port: u16,
    /// How packets reach it.
    pub forwarding: ShownForwarding,
    /// Encapsulation, with forwarding TUN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<ShownTunnel>,
    /// Weight.
    pub weight: u32,
    /// Upper threshold of connections; 0 = none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower threshold of connections; 0 = three quarters of upper.
    #[serde(default)]
    pub lower_threshold: u32,
    /// The RealServer that it comes from, or `sorryServer`; unset where no plan says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<String>,
    /// Active connections now.
    pub active_connections: u32,
    /// Inactive connections now.
    pub inactive_connections: u32,
    /// Persistence templates now.
    pub persistent_connections: u32,
    /// Since it was added, or set to zero.
    pub counters: Counters,
    /// Now.
    pub rates: Rates,
}

impl ShownDestination {
    /// Where it is in its service.
    pub const fn key(&self) -> DestinationKey {
        DestinationKey {
            address: self.address,
            port: self.port,
        }
    }
}

/// How a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownForwarding {
    /// ipvsadm: Masq.
    NAT,
    /// ipvsadm: Route.
    DR,
    /// ipvsadm: Tunnel.
    TUN,
    /// The director itself (ipvsadm: Local).
    Local,
    /// Past every real server (ipvsadm: Bypass).
    Bypass,
}

impl ShownForwarding {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NAT => "NAT",
            Self::DR => "DR",
            Self::TUN => "TUN",
            Self::Local => "Local",
            Self::Bypass => "Bypass",
        }
    }
}

/// Encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownTunnel {
    /// IPIP, GUE or GRE.
    #[serde(rename = "type")]
    pub type_: lvs_crds::value::TunnelType,
    /// UDP port of GUE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 0 none, 1 checksum, 2 remote checksum offload.
    #[serde(default)]
    pub flags: u16,
}

/// `lvs-agent show settings`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownSettings {
    /// Version of the agent.
    pub agent_version: String,
    /// Release of the kernel, as uname -r.
    pub kernel_release: String,
    /// Version of IPVS and size of its connection table; unset where the kernel has not loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipvs: Option<ShownIpvs>,
    /// Whether the journal could be read. If not, it is not known what is ours.
    pub ownership_known: bool,
    /// What could not be read, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Timeouts of connections; unset where the kernel has not loaded IPVS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ShownTimeouts>,
    /// Sync daemons.
    #[serde(default)]
    pub sync_daemons: Vec<ShownSyncDaemon>,
}

/// Timeouts of connections (ipvsadm --list --timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownTimeouts {
    /// Established TCP.
    pub tcp_seconds: u32,
    /// TCP after a FIN.
    pub tcp_fin_seconds: u32,
    /// UDP.
    pub udp_seconds: u32,
    /// Whether they are as a VirtualRouter asks.
    pub is_ours: bool,
}

impl ShownTimeouts {
    /// Those that were read; `is_ours` where a router asks for them.
    pub const fn new(timeouts: IpvsTimeouts, is_ours: bool) -> Self {
        Self {
            tcp_seconds: timeouts.tcp_seconds,
            tcp_fin_seconds: timeouts.tcp_fin_seconds,
            udp_seconds: timeouts.udp_seconds,
            is_ours,
        }
    }
}

/// A sync daemon (ipvsadm --list --daemon).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownSyncDaemon {
    /// master sends, backup receives.
    pub role: String,
    /// Device that sends or receives.
    pub device: String,
    /// Number that a backup accepts, 0..255; 0 = every one.
    pub sync_id: u8,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Time to live.
    pub ttl: u8,
    /// Greatest length of a message in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_length: Option<u16>,
    /// Whether the agent started it.
    pub is_ours: bool,
}

impl ShownSyncDaemon {
    /// One that was read; `is_ours` where the agent started it.
    pub fn new(role: SyncRole, daemon: &SyncDaemon, is_ours: bool) -> Self {
        Self {
            role: role.as_str().to_owned(),
            device: daemon.device.clone(),
            sync_id: daemon.sync_id,
            group: daemon.group,
            port: daemon.port,
            ttl: daemon.ttl,
            maximum_length: daemon.maximum_length,
            is_ours,
        }
    }
}

/// `lvs-agent zero`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownZero {
    /// Services whose counters are zero now, as ipvsadm lists them.
    pub zeroed: Vec<String>,
    /// Whether all services of the kernel were meant, foreign ones included.
    #[serde(default)]
    pub all: bool,
    /// What was refused, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Services as people are shown them, sorted by what packets they take.
pub fn services(
    mut readings: Vec<ServiceReading>,
    owners: Option<&Owners<'_>>,
) -> Vec<ShownService> {
    readings.sort_by_key(|reading| reading.key);
    let shown = readings.into_iter().map(|reading| {
        let owner = owners.and_then(|owners| owners.of(&reading.key));
        let destinations = reading.destinations.into_iter().map(|destination| {
            let key = destination.statistics.key;
            let name = owners.and_then(|owners| owners.real_server(&reading.key, key));
            shown_destination(&destination, name)
        });
        let destinations = destinations.collect();
        let Service {
            scheduler,
            flags: ServiceFlags(bits),
            timeout_seconds,
            prefix_length,
            persistence_engine,
        } = reading.service;
        let (address, protocol, port, firewall_mark) = match reading.key {
            ServiceKey::Address {
                address,
                protocol,
                port,
            } => (Some(address), Some(protocol), Some(port), None),
            ServiceKey::FirewallMark { mark, .. } => (None, None, None, Some(mark)),
        };
        let is_persistent = bits & ServiceFlags::PERSISTENT != 0;
        ShownService {
            address,
            protocol,
            port,
            firewall_mark,
            address_family: reading.key.family(),
            scheduler_flags: ServiceFlags(bits).scheduler_words(&scheduler),
            one_packet: bits & ServiceFlags::ONE_PACKET != 0,
            persistence: is_persistent.then_some(ShownPersistence {
                timeout_seconds,
                prefix_length,
                engine: persistence_engine,
            }),
            scheduler,
            owner,
            counters: reading.counters,
            rates: reading.rates,
            destinations,
        }
    });
    shown.collect()
}

fn shown_destination(
    reading: &DestinationReading,
    real_server: Option<String>,
) -> ShownDestination {
    use lvs_crds::value::TunnelType;
    let (forwarding, tunnel) = match reading.state.forwarding {
        DestinationForwarding::Masquerade => (ShownForwarding::NAT, None),
        DestinationForwarding::LocalNode => (ShownForwarding::Local, None),
        DestinationForwarding::DirectRoute => (ShownForwarding::DR, None),
        DestinationForwarding::Bypass => (ShownForwarding::Bypass, None),
        DestinationForwarding::Tunnel(tunnel) => {
            let (type_, port, flags) = match tunnel {
                DestinationTunnel::IpIp => (TunnelType::IPIP, None, 0),
                DestinationTunnel::Gue { port, flags } => (TunnelType::GUE, Some(port), flags),
                DestinationTunnel::Gre { flags } => (TunnelType::GRE, None, flags),
            };
            (
                ShownForwarding::TUN,
                Some(ShownTunnel { type_, port, flags }),
            )
        }
    };
    let DestinationStatistics {
        key,
        counters,
        weight,
        active_connections,
        inactive_connections,
        persistent_connections,
    } = reading.statistics;
    ShownDestination {
        address: key.address,
        port: key.port,
        forwarding,
        tunnel,
        weight,
        upper_threshold: reading.state.upper_threshold,
        lower_threshold: reading.state.lower_threshold,
        real_server,
        active_connections,
        inactive_connections,
        persistent_connections,
        counters,
        rates: reading.rates,
    }
}
