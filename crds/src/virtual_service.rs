//! VirtualService: what is balanced, how, and to which real servers.

// Printer columns repeat keys within one attribute, which the lint takes for duplicates.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health_check::HealthCheck;
use crate::text::{PartName, RouterName, UnicastAddress};
use crate::traffic_policy::{Drain, OnFailure, Quorum, SlowStart, SorryServer};
use crate::value::{AddressFamily, Forwarding, PacketScheduling, Persistence, Protocol, Scheduler};

/// What is balanced, how, and to which real servers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    plural = "virtualservices",
    shortname = "lvsvs",
    category = "lvs",
    namespaced,
    status = "VirtualServiceStatus",
    derive = "PartialEq",
    doc = "A VirtualService is a set of addresses and ports that the directors of a VirtualRouter balance over RealServers, in the Linux kernel (IPVS).",
    printcolumn(
        name = "VIP",
        type_ = "string",
        json_path = ".status.summary.addresses",
        description = "Addresses in use"
    ),
    printcolumn(
        name = "Ports",
        type_ = "string",
        json_path = ".status.summary.ports",
        description = "Ports balanced"
    ),
    printcolumn(
        name = "Method",
        type_ = "string",
        json_path = ".spec.forwarding.type",
        description = "How packets reach the real servers"
    ),
    printcolumn(
        name = "Sched",
        type_ = "string",
        json_path = ".spec.scheduler.name",
        description = "Scheduler"
    ),
    printcolumn(
        name = "Master",
        type_ = "string",
        json_path = ".status.master",
        description = "Node that holds the addresses"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.summary.realServers",
        description = "Real servers that serve, of those selected"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the condition Ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.virtualRouterName) == has(oldSelf.virtualRouterName) && (!has(self.virtualRouterName) || self.virtualRouterName == oldSelf.virtualRouterName)",
    "virtualRouterName is immutable, also when unset: delete the VirtualService and create it anew to move it to another router"
))]
#[x_kube(validation = (
    "!has(self.addressFamilies) || size(self.addressFamilies) == 0 || !has(self.addresses) || size(self.addresses) == 0",
    "addressFamilies is only for allocated addresses: remove addressFamilies or addresses"
))]
#[x_kube(validation = (
    "!has(self.addressPoolName) || !has(self.addresses) || size(self.addresses) == 0",
    "addressPoolName is only for allocated addresses: remove addressPoolName or addresses"
))]
#[x_kube(validation = (
    "self.forwarding.type in ['NAT', 'FullNAT'] || self.ports.all(entry, !has(entry.realServerPort))",
    "ports[].realServerPort needs forwarding type NAT or FullNAT, as DR and TUN do not change packets: remove realServerPort, or set forwarding type NAT or FullNAT"
))]
#[x_kube(validation = (
    "self.forwarding.type != 'FullNAT' || self.packetScheduling == 'PerConnection'",
    "forwarding type FullNAT needs packetScheduling PerConnection, as replies find their client by the connection: remove packetScheduling, or set forwarding type NAT"
))]
#[x_kube(validation = (
    "self.forwarding.type != 'FullNAT' || !has(self.firewallMark) || self.firewallMark.marking == 'Managed'",
    "forwarding type FullNAT needs firewallMark.marking Managed, as directors must know which packets are marked: set marking Managed, or forwarding type NAT"
))]
#[x_kube(validation = (
    "self.grouping == 'FirewallMark' || has(self.persistence) || self.ports.all(entry, entry.port != 0)",
    "ports[].port 0 (all ports) needs persistence, so that a client's connections to different ports reach one real server: set persistence, or name the port"
))]
#[x_kube(validation = (
    "self.grouping == 'FirewallMark' || self.ports.map(entry, has(entry.endPort) && entry.endPort > entry.port ? entry.endPort - entry.port + 1 : 1).sum() <= 1024",
    "ports holds more than 1024 ports with grouping PerPort, which makes an IPVS service of each: narrow the ranges, or set grouping FirewallMark"
))]
#[x_kube(validation = (
    "self.grouping == 'FirewallMark' || !has(self.firewallMark)",
    "firewallMark is only for grouping FirewallMark: remove firewallMark or set grouping FirewallMark"
))]
#[x_kube(validation = (
    "self.grouping == 'PerPort' || self.ports.all(entry, !has(entry.realServerPort))",
    "ports[].realServerPort is not possible with grouping FirewallMark, where IPVS keeps every port: remove realServerPort or set grouping PerPort"
))]
#[x_kube(validation = (
    "self.packetScheduling == 'PerConnection' || self.ports.all(entry, entry.protocol == 'UDP')",
    "packetScheduling OnePacket needs protocol UDP for all ports: set ports[].protocol UDP or packetScheduling PerConnection"
))]
#[x_kube(validation = (
    "!has(self.persistence) || !has(self.persistence.engine) || self.persistence.engine != 'SIP' || self.ports.all(entry, entry.protocol == 'UDP')",
    "persistence.engine SIP needs protocol UDP for all ports: set ports[].protocol UDP or remove engine"
))]
#[x_kube(validation = (
    "!has(self.healthChecks) || self.healthChecks.all(check, !has(check.portName) || self.ports.exists(entry, has(entry.name) && entry.name == check.portName))",
    "healthChecks[].portName names no port of this VirtualService: correct it to a name in ports, or use port"
))]
#[x_kube(validation = (
    "!has(self.healthChecks) || self.healthChecks.all(check, check.type in ['None', 'Ping'] || has(check.port) || self.ports.all(entry, entry.port != 0 || (has(check.portName) && entry.name != check.portName)))",
    "healthChecks[].port is required where ports[].port is 0 (all ports), which names none to ask: set healthChecks[].port"
))]
#[x_kube(validation = (
    "self.forwarding.type in ['DR', 'TUN'] || !has(self.healthChecks) || self.healthChecks.all(check, !has(check.path) || check.path == 'RealServer')",
    "healthChecks[].path VirtualAddress needs forwarding type DR or TUN, with which real servers have the virtual address: remove path, or set one of these types"
))]
#[x_kube(validation = (
    "!has(self.quorum) || !has(self.quorum.onLoss) || self.quorum.onLoss != 'SorryServer' || has(self.sorryServer)",
    "quorum.onLoss SorryServer needs sorryServer: set it, or another onLoss"
))]
#[x_kube(validation = (
    "!has(self.sorryServer) || !has(self.sorryServer.port) || (self.grouping == 'PerPort' && size(self.ports) == 1)",
    "sorryServer.port is only for a VirtualService with one port and grouping PerPort: remove it, and the sorry server serves each port itself"
))]
#[x_kube(validation = (
    "!has(self.sorryServer) || !has(self.sorryServer.address) || !has(self.sorryServer.address.port) || ((has(self.sorryServer.address.forwarding) ? self.sorryServer.address.forwarding.type : self.forwarding.type) in ['NAT', 'FullNAT'] && self.grouping == 'PerPort' && size(self.ports) == 1)",
    "sorryServer.address.port needs forwarding type NAT or FullNAT and a VirtualService with one port and grouping PerPort: remove it, or set sorryServer.address.forwarding type NAT or FullNAT"
))]
#[x_kube(validation = (
    "!has(self.sorryServer) || !has(self.quorum) || !has(self.quorum.onLoss) || self.quorum.onLoss == 'SorryServer'",
    "sorryServer is never used with this quorum.onLoss: remove one of them"
))]
pub struct VirtualServiceSpec {
    /// VirtualRouter whose directors hold the addresses, at most 48 characters. Default: the VirtualRouter annotated lvs.dev/is-default-router=true. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RouterName>")]
    pub virtual_router_name: Option<String>,
    /// Virtual addresses, IPv4 and IPv6, at most 16; they must lie in pools that the router grants to this namespace. Default: one per entry of addressFamilies is allocated and shown in status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<UnicastAddress>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "!self.all(address, isIP(address)) || self.all(address, self.exists_one(other, ip(other) == ip(address)))",
        "addresses holds one address twice in different spellings: remove one of them"
    ))]
    pub addresses: Vec<String>,
    /// Families to allocate an address of, IPv4, IPv6 or both, when addresses is unset. Default [IPv4].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub address_families: Vec<AddressFamily>,
    /// Pool of the router to allocate from when addresses is unset. Default: the first pool with assignment Automatic that is granted to this namespace and has a free address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub address_pool_name: Option<String>,
    /// Ports of the service, 1 to 64 entries, each protocol and port once. With several entries each needs a name. Required.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["protocol".into(), "port".into()]))]
    #[x_kube(validation = (
        "size(self) <= 1 || self.all(entry, has(entry.name))",
        "ports[].name is required when there are several ports: name each of them"
    ))]
    #[x_kube(validation = (
        "self.all(entry, !has(entry.name) || self.exists_one(other, has(other.name) && other.name == entry.name))",
        "ports[].name must be unique: give each port its own name"
    ))]
    #[x_kube(validation = (
        "self.all(entry, self.all(other, entry.protocol != other.protocol || entry.port >= other.port || !has(entry.endPort) || entry.endPort < other.port))",
        "ports overlap: of one protocol, each port may be in one range only; shorten a range by its endPort or remove an entry"
    ))]
    pub ports: Vec<ServicePort>,
    /// PerPort: each address and port is an IPVS service of its own (ipvsadm -t, -u, --sctp-service). FirewallMark: all ports together are one per family (ipvsadm -f), so that a client with persistence keeps its real server across ports. Default PerPort.
    #[serde(default)]
    pub grouping: Grouping,
    /// The firewall mark, only with grouping FirewallMark. Default: allocated, and set on packets by the directors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<FirewallMark>,
    /// How packets reach the real servers. Required; a RealServer may override it for itself.
    pub forwarding: Forwarding,
    /// How a real server is chosen for a new connection. Default wlc, weighted least connections.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Keeps a client on its real server for some time (ipvsadm -p). Default: each connection is scheduled on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Unit that is scheduled. PerConnection: all packets of a connection go to one real server. OnePacket: every packet is scheduled on its own, all ports UDP (ipvsadm -o). Default PerConnection.
    #[serde(default)]
    pub packet_scheduling: PacketScheduling,
    /// RealServers of this namespace that serve, by label; {} selects all of the namespace. Required.
    pub real_server_selector: LabelSelector,
    /// What directors ask of every real server, at most 8; one that fails any of them is down. Default: a TCP check of each TCP port. Type None switches checks off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "size(self) < 2 || self.all(check, check.type != 'None')",
        "a health check of type None must be the only one, as it switches checks off: remove it or the others"
    ))]
    pub health_checks: Vec<HealthCheck>,
    /// What becomes of a real server that is down. Remove: it is taken out of the kernel and its connections end, unless it drains. Quiesce: it stays with weight 0, gets no new connections and keeps those it has. Default Remove.
    #[serde(default, skip_serializing_if = "OnFailure::is_remove")]
    pub on_failure: OnFailure,
    /// How much must be up, and what happens below that. Default: one real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// Who serves new connections without a quorum. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<SorryServer>,
    /// How long a real server that is to go keeps its connections, without new ones: with administrativeState Draining, deleted or no longer selected, or with target type Node and its node cordoned. Default: Draining lasts until it is ended, one that is deleted or no longer selected is taken out of the kernel at once, and cordon changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How a real server that came up gets its weight. Default: all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
}

/// One port, or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.endPort) || self.port != 0",
    "endPort is not possible with port 0, which already means all ports: remove endPort or set port to the first of the range"
))]
#[x_kube(validation = (
    "!has(self.endPort) || self.endPort >= self.port",
    "endPort must not be less than port: swap them or correct one"
))]
#[x_kube(validation = (
    "!has(self.realServerPort) || self.port != 0",
    "realServerPort is not possible with port 0, where every port stays the same: remove realServerPort or name the port"
))]
#[x_kube(validation = (
    "!has(self.realServerPort) || !has(self.endPort) || self.realServerPort + self.endPort - self.port <= 65535",
    "realServerPort is too high: the range keeps its offsets and would end above 65535; lower realServerPort or endPort"
))]
pub struct ServicePort {
    /// Name by which RealServers refer to the port: a DNS label, unique in the VirtualService. Required when there are several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP. Default TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port number, 1..65535, or 0 for all ports of the protocol; 0 with grouping PerPort needs persistence. Required.
    pub port: u16,
    /// Last port of a range that begins at port, 1..65535; with grouping PerPort at most 1024 ports altogether. Default: a single port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub end_port: Option<u16>,
    /// Port on the real servers, 1..65535, only with forwarding type NAT or FullNAT and grouping PerPort; of a range the first port, the others keep their offsets. Default: the same as port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub real_server_port: Option<u16>,
}

/// How ports form IPVS services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Grouping {
    /// Each address and port is one IPVS service.
    #[default]
    PerPort,
    /// All ports of a family are one IPVS service, matched by firewall mark.
    FirewallMark,
}

/// A firewall mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.marking != 'External' || has(self.value)",
    "value is required with marking External: set the mark that your own rules put on the packets"
))]
pub struct FirewallMark {
    /// Who marks the packets. Managed: the directors, with nftables rules for the addresses and ports. External: rules of the administrator. Default Managed.
    #[serde(default)]
    pub marking: Marking,
    /// The whole 32-bit mark, 1..4294967295; IPVS compares every bit. Required with marking External. Default with Managed: allocated from the operator's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub value: Option<u32>,
}

/// Who sets the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Marking {
    /// The agent, with nftables rules for the addresses and ports.
    #[default]
    Managed,
    /// Rules of the administrator.
    External,
}

/// Observed state of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, QuorumMet (with spec.quorum), Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Router in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub virtual_router_name: Option<String>,
    /// Addresses in use and the pool each comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    pub addresses: Vec<AssignedAddress>,
    /// Firewall mark in use, with grouping FirewallMark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<u32>,
    /// Node that holds the addresses; `kubectl get lvsvr` is authoritative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub master: Option<String>,
    /// Count of real servers.
    #[serde(default)]
    pub real_servers: RealServerCount,
    /// Short texts for the table.
    #[serde(default)]
    pub summary: VirtualServiceSummary,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedAddress {
    /// The address.
    #[schemars(length(max = 45))]
    pub address: String,
    /// Pool of the router it lies in.
    #[schemars(length(max = 63))]
    pub address_pool_name: String,
}

/// Count of real servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerCount {
    /// Matched by the selector and accepted.
    pub selected: u32,
    /// Programmed and able to serve.
    pub ready: u32,
}

/// Short texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceSummary {
    /// Addresses, separated by commas.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub addresses: String,
    /// Ports as 80/TCP, separated by commas.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub ports: String,
    /// ready/selected.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub real_servers: String,
}
