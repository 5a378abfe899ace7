//! VirtualRouter: a VRRP instance; directors, addresses that move together, pools and grants.

// Printer columns repeat keys within one attribute, which the lint takes for duplicates.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection_sync::ConnectionSync;
use crate::text::{DeviceName, Network, ObjectName, PartName, PoolEntry, UnicastAddress};
use crate::tracking::Tracking;
use crate::transition::Transition;
use crate::value::Timeouts;

/// A VRRP instance (RFC 9568): the directors among which a set of addresses moves as one.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "VirtualRouter",
    plural = "virtualrouters",
    shortname = "lvsvr",
    category = "lvs",
    status = "VirtualRouterStatus",
    derive = "PartialEq",
    doc = "A VirtualRouter is a set of nodes, the directors, among which addresses move as one: a VRRP instance (RFC 9568). It also says which namespaces may use which addresses and real servers.",
    validation = (
        "size(self.metadata.name) <= 48",
        "metadata.name must have at most 48 characters, as names of other objects are made from it: choose a shorter name"
    ),
    printcolumn(name = "Master", type_ = "string", json_path = ".status.master.nodeName", description = "Node that holds the addresses"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.master.since", description = "Time since it took them over"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.master.epoch", description = "Count of takeovers"),
    printcolumn(name = "Candidates", type_ = "string", json_path = ".status.summary.candidates", description = "Directors ready to hold, of all"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Condition Ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.additionalAddresses) || self.additionalAddresses.all(entry, !has(entry.interfaceName) || (has(self.interfaces) && self.interfaces.exists(known, known.name == entry.interfaceName)))",
    "additionalAddresses[].interfaceName must be a name in interfaces: add the interface or correct the name"
))]
#[x_kube(validation = (
    "!has(self.addressPools) || self.addressPools.all(entry, !has(entry.interfaceName) || (has(self.interfaces) && self.interfaces.exists(known, known.name == entry.interfaceName)))",
    "addressPools[].interfaceName must be a name in interfaces: add the interface or correct the name"
))]
#[x_kube(validation = (
    "!has(self.tracking) || !has(self.tracking.interfaces) || self.tracking.interfaces.all(entry, has(self.interfaces) && self.interfaces.exists(known, known.name == entry.interfaceName))",
    "tracking.interfaces[].interfaceName must be a name in interfaces: add the interface or correct the name"
))]
#[x_kube(validation = (
    "!has(self.virtualMAC) || self.virtualMAC != 'Enabled' || has(self.virtualRouterID)",
    "virtualMAC Enabled requires virtualRouterID, from which the address is made: set a number that no other router on the link has"
))]
#[x_kube(validation = (
    "!has(self.grants) || self.grants.all(grant, !has(grant.addressPoolNames) || grant.addressPoolNames.all(name, has(self.addressPools) && self.addressPools.exists(pool, pool.name == name)))",
    "grants[].addressPoolNames must be names in addressPools: add the pool or correct the name"
))]
#[x_kube(validation = (
    "!has(self.connectionSync) || !has(self.connectionSync.daemon) || (has(self.interfaces) && self.interfaces.exists(known, known.name == self.connectionSync.daemon.interfaceName))",
    "connectionSync.daemon.interfaceName must be a name in interfaces: add the interface or correct the name"
))]
#[x_kube(validation = (
    "!has(self.detection) || !has(self.detection.interfaceName) || (has(self.interfaces) && self.interfaces.exists(known, known.name == self.detection.interfaceName))",
    "detection.interfaceName must be a name in interfaces: add the interface or correct the name"
))]
pub struct VirtualRouterSpec {
    /// Nodes that may hold the addresses, at most 64 entries; the first entry that matches a node decides its priority. Default: every node that runs an agent, with priority 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub directors: Vec<Director>,
    /// Logical interfaces, at most 32, as device names differ between nodes. Default: the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub interfaces: Vec<LogicalInterface>,
    /// Addresses that move with the rest though no VirtualService uses them, such as the gateway of NAT real servers; at most 64. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    #[x_kube(validation = (
        "!self.all(entry, isIP(entry.address)) || self.all(entry, self.exists_one(other, ip(other.address) == ip(entry.address)))",
        "additionalAddresses holds one address twice in different spellings: remove one of them"
    ))]
    pub additional_addresses: Vec<AdditionalAddress>,
    /// Addresses that VirtualServices may use, at most 32 pools. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub address_pools: Vec<AddressPool>,
    /// Which namespaces may use which pools and real servers, at most 64 entries; they add up. Default: nobody may use anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub grants: Vec<Grant>,
    /// Whether a director with a higher priority takes the addresses from one that holds them. Default: mode Disabled.
    #[serde(default)]
    pub preemption: Preemption,
    /// How the loss of the holder is noticed. Default: profile Default, leaseDurationSeconds 10.
    #[serde(default)]
    pub detection: Detection,
    /// What the holder does while it cannot reach the API server. Hold: it goes on as long as every other director has lost the API server too and promises to wait; one that is alone with its loss hands over, one that is not promised so by all within two seconds releases. HoldAlways: it goes on until it hears otherwise, as VRRP does; in a partition two directors may hold. Release: it hands over, or gives the addresses up after two seconds. A router with one director always goes on. Default Hold.
    #[serde(default, rename = "onAPIServerLoss")]
    pub on_api_server_loss: OnApiServerLoss,
    /// When a director that has taken over adds the addresses. Fast: at once; until the old holder notices, and for at most 3.25 s after it died, two nodes may answer for them. Strict: once the old holder says that it carries none, or 3.25 s later; never two, but 4 s without any after a crash. Default Fast.
    #[serde(default)]
    pub takeover: Takeover,
    /// What a director watches beside the devices of its addresses. A device that carries an address of the router and is missing, down or without carrier is a fault by itself. Default nothing.
    #[serde(default, skip_serializing_if = "Tracking::is_empty")]
    pub tracking: Tracking,
    /// How addresses are announced after a takeover: gratuitous ARP and unsolicited neighbour advertisements. Default: 5 times, 100 ms apart, no refresh.
    #[serde(default)]
    pub announcement: Announcement,
    /// VRID of the router, 1..255: unique among routers with a virtual MAC, and among VRRP routers of others on the same links. Required by virtualMAC Enabled. Default none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "virtualRouterID"
    )]
    #[schemars(range(min = 1, max = 255))]
    pub virtual_router_id: Option<u8>,
    /// Enabled: neighbours know the addresses by the virtual MAC 00-00-5E-00-01-{VRID} (IPv6: 00-00-5E-00-02-{VRID}), which moves with them, so that nothing has to learn a new one after a takeover. Each director gets a macvlan device per link and family; the network must permit a second MAC at its port. Disabled: the device's own. Default Disabled.
    #[serde(default, rename = "virtualMAC")]
    pub virtual_mac: VirtualMac,
    /// IPVS timeouts of the directors (ipvsadm --set). A node has one set: where routers disagree the older wins. Default: left as the node has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Whether established connections survive a takeover, and by what. Default: type None, they do not.
    #[serde(default)]
    pub connection_sync: ConnectionSync,
}

/// When a director that has taken over adds the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Takeover {
    /// At once.
    #[default]
    Fast,
    /// Once the old holder's are gone for sure.
    Strict,
}

impl Takeover {
    /// Whether it is the default, which plans do not mention.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) const fn is_fast(&self) -> bool {
        matches!(self, Self::Fast)
    }
}

/// By which hardware address neighbours know a router's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum VirtualMac {
    /// The virtual MAC of RFC 9568 §7.3.
    Enabled,
    /// That of the device.
    #[default]
    Disabled,
}

/// One node, or nodes by label, that may hold the addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.nodeName) != has(self.nodeSelector)",
    "exactly one of nodeName and nodeSelector is required: name one node, or select nodes by label"
))]
pub struct Director {
    /// A node by name. Excludes nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub node_name: Option<String>,
    /// Nodes by label; {} selects all. Excludes nodeName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// VRRP priority, 1..254; of the directors that can, the one with the highest takes over. Default 100.
    #[serde(default = "Director::default_priority")]
    #[schemars(range(min = 1, max = 254))]
    pub priority: u8,
}

impl Director {
    const fn default_priority() -> u8 {
        100
    }
}

/// A logical interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicalInterface {
    /// Name by which addressPools, additionalAddresses and others refer to the interface: a DNS label. Required.
    #[schemars(with = "PartName")]
    pub name: String,
    /// Device names, 1 to 16; the first that exists on a node is used. Required.
    #[schemars(with = "Vec<DeviceName>", length(min = 1, max = 16))]
    pub devices: Vec<String>,
}

/// An address that moves with the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalAddress {
    /// The address, IPv4 or IPv6. Required.
    #[schemars(with = "UnicastAddress")]
    pub address: String,
    /// Name of a logical interface in interfaces. Default: the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub interface_name: Option<String>,
}

/// A set of addresses for VirtualServices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.purpose == 'VirtualAddress' || self.assignment == 'Automatic'",
    "assignment Explicit is only for purpose VirtualAddress, as nothing is allocated from the others: remove assignment or purpose"
))]
pub struct AddressPool {
    /// Name by which grants and VirtualServices refer to the pool: a DNS label, unique in the router. Required.
    #[schemars(with = "PartName")]
    pub name: String,
    /// Addresses of the pool, 1 to 64 entries: one address (192.0.2.10), a network (192.0.2.0/28; of an IPv4 network the first and last address are used only on request) or a range (192.0.2.10-192.0.2.19). Required.
    #[schemars(with = "Vec<PoolEntry>", length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,
    /// Name of a logical interface in interfaces that carries these addresses. Default: the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub interface_name: Option<String>,
    /// VirtualAddress: addresses that VirtualServices balance. SourceNAT: addresses that real servers see instead of the client's, for forwarding type FullNAT; the master holds every one of them, so that replies reach it, and a router has at most 64. Default VirtualAddress.
    #[serde(default)]
    pub purpose: PoolPurpose,
    /// Automatic: addresses are allocated to VirtualServices that name none. Explicit: only VirtualServices that name an address or this pool get one. Default Automatic.
    #[serde(default)]
    pub assignment: Assignment,
}

/// What the addresses of a pool are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PoolPurpose {
    /// Clients connect to them.
    #[default]
    VirtualAddress,
    /// Directors connect from them.
    SourceNAT,
}

/// Whether a pool serves allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Assignment {
    /// Addresses are allocated from it.
    #[default]
    Automatic,
    /// Addresses must be asked for.
    Explicit,
}

/// Permission of namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Namespaces that get the permission. Required.
    pub namespaces: NamespaceSelection,
    /// Names of pools in addressPools that their VirtualServices may use, at most 32. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PartName>", length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub address_pool_names: Vec<String>,
    /// Networks in which targets of their RealServers may lie, nodes of the cluster aside; at most 64. Default none.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        rename = "realServerCIDRs"
    )]
    #[schemars(with = "Vec<Network>", length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub real_server_cidrs: Vec<String>,
    /// Networks in which judges of their health checks of type ExternalHTTP may be, at most 16: directors send requests there, from the network of the nodes. Never a node or an API server. Default none.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        rename = "externalCheckCIDRs"
    )]
    #[schemars(with = "Vec<Network>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub external_check_cidrs: Vec<String>,
    /// Whether their RealServers may name nodes of the cluster, whose addresses and sysctls are then changed as forwarding needs. None: no node. All: every node. Default None.
    #[serde(default)]
    pub real_server_nodes: RealServerNodes,
}

/// Which namespaces: a union of `from` and the member it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(self.from == 'Selector') == has(self.selector)",
    "selector is required with from Selector and refused with from All: set from Selector with a selector, or remove selector"
))]
pub struct NamespaceSelection {
    /// All: every namespace. Selector: namespaces by label. Required.
    pub from: NamespacesFrom,
    /// Namespaces by label, such as kubernetes.io/metadata.name; {} selects all. With from Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Kind of namespace selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// Every namespace.
    All,
    /// Namespaces by label.
    Selector,
}

/// Whether nodes may be real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RealServerNodes {
    /// No node may be named.
    #[default]
    None,
    /// Every node may be named.
    All,
}

/// Preemption (RFC 9568 §6.1, Preempt_Mode). A director that comes back moves nothing unless it is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.delaySeconds) || self.delaySeconds == 0 || (has(self.mode) && self.mode == 'Enabled')",
    "delaySeconds is only for mode Enabled: set mode Enabled, or remove delaySeconds"
))]
pub struct Preemption {
    /// Disabled: who holds the addresses keeps them. Enabled: a ready director with a higher priority gets them, by a handover without an outage. Default Disabled.
    #[serde(default)]
    pub mode: PreemptionMode,
    /// Seconds for which a director with a higher priority must have been ready, 0..3600. With mode Enabled. Default 0.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub delay_seconds: u32,
}

/// Whether preemption takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PreemptionMode {
    /// It does not.
    #[default]
    Disabled,
    /// It does.
    Enabled,
}

/// How the loss of the holder is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.profile) && self.profile == 'Custom') == (has(self.heartbeatIntervalMilliseconds) && has(self.missedHeartbeats))",
    "heartbeatIntervalMilliseconds and missedHeartbeats are required with profile Custom and refused with others: set profile Custom with both, or remove both"
))]
#[x_kube(validation = (
    "has(self.heartbeatIntervalMilliseconds) == has(self.missedHeartbeats)",
    "heartbeatIntervalMilliseconds and missedHeartbeats belong together: set both, or neither"
))]
#[x_kube(validation = (
    "!has(self.heartbeatIntervalMilliseconds) || !has(self.missedHeartbeats) || self.heartbeatIntervalMilliseconds * self.missedHeartbeats <= 900",
    "heartbeatIntervalMilliseconds times missedHeartbeats must not exceed 900, or addresses of an agent that died are gone before another director has them: reduce one of them"
))]
pub struct Detection {
    /// How soon a director that is silent is challenged. Default: a heartbeat every 150 ms, 3 missed ones, 200 ms to answer. Fast: every 50 ms, 3 missed ones, 100 ms to answer; for directors whose network and API server answer within 20 ms. Custom: heartbeatIntervalMilliseconds and missedHeartbeats, 200 ms to answer. Default Default.
    #[serde(default)]
    pub profile: DetectionProfile,
    /// Milliseconds between the heartbeats of a director to each other, 20..450. With profile Custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 450))]
    pub heartbeat_interval_milliseconds: Option<u16>,
    /// Heartbeats that must be missing before the holder is challenged, 2..20. With profile Custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 20))]
    pub missed_heartbeats: Option<u8>,
    /// Seconds for which a director holds the addresses without renewing its Lease; after that another takes over, 10..300. Default 10.
    #[serde(default = "Detection::default_lease_duration_seconds")]
    #[schemars(range(min = 10, max = 300))]
    pub lease_duration_seconds: u32,
    /// Name of a logical interface in interfaces over which the directors exchange heartbeats, between their first global addresses there; a director without one takes part without heartbeats. Default: between the first InternalIP of each node, by whatever way the routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub interface_name: Option<String>,
}

impl Detection {
    const fn default_lease_duration_seconds() -> u32 {
        10
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            profile: DetectionProfile::default(),
            heartbeat_interval_milliseconds: None,
            missed_heartbeats: None,
            lease_duration_seconds: Self::default_lease_duration_seconds(),
            interface_name: None,
        }
    }
}

/// A set of times for heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DetectionProfile {
    /// A heartbeat every 150 ms.
    #[default]
    Default,
    /// A heartbeat every 50 ms.
    Fast,
    /// Times of one's own.
    Custom,
}

/// What a holder does that has lost the API server, when other directors could hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnApiServerLoss {
    /// It goes on as long as every other director has lost the API server too and promises to wait.
    #[default]
    Hold,
    /// It goes on until it hears otherwise, as VRRP does: in a partition two may hold.
    HoldAlways,
    /// It hands over, or gives the addresses up.
    Release,
}

/// How an address is announced after takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.burstCount * self.intervalMilliseconds <= 5000",
    "burstCount times intervalMilliseconds must not exceed 5000, as a takeover is announced within 5 s: reduce one of them"
))]
#[x_kube(validation = (
    "self.refreshSeconds == 0 || self.burstCount * self.intervalMilliseconds <= self.refreshSeconds * 1000",
    "refreshSeconds must be 0 (none) or longer than burstCount times intervalMilliseconds: raise refreshSeconds or reduce the others"
))]
pub struct Announcement {
    /// Announcements of each address after a takeover, 1..20; together with intervalMilliseconds at most 5 s. Default 5.
    #[serde(default = "Announcement::default_burst_count")]
    #[schemars(range(min = 1, max = 20))]
    pub burst_count: u8,
    /// Milliseconds between the announcements of one address after a takeover, 10..1000. Default 100.
    #[serde(default = "Announcement::default_interval_milliseconds")]
    #[schemars(range(min = 10, max = 1000))]
    pub interval_milliseconds: u32,
    /// Seconds between further announcements for as long as the address is held, 0..3600; 0 = none. Default 0.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub refresh_seconds: u32,
}

impl Announcement {
    const fn default_burst_count() -> u8 {
        5
    }
    const fn default_interval_milliseconds() -> u32 {
        100
    }
}

impl Default for Announcement {
    fn default() -> Self {
        Self {
            burst_count: Self::default_burst_count(),
            interval_milliseconds: Self::default_interval_milliseconds(),
            refresh_seconds: 0,
        }
    }
}

/// Observed state of a VirtualRouter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Programmed, HeartbeatsHeard (of a router with several directors), Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Node that holds the addresses, from the Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
    /// Every director.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeName".into()]))]
    pub candidates: Vec<Candidate>,
    /// Director to which the router was handed over as annotation lvs.dev/hand-over-to asked; the annotation asks anew when it changes, or is removed and set again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub handed_over_to: Option<String>,
    /// Use of each pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub address_pools: Vec<AddressPoolUse>,
    /// Short texts for the table.
    #[serde(default)]
    pub summary: VirtualRouterSummary,
}

/// The holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Node.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Since when, by the Lease's acquire time.
    pub since: Time,
    /// Epoch: the Lease's leaseTransitions at acquisition.
    pub epoch: i64,
}

/// One director as the controller sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Node.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Priority from spec.
    pub priority: u8,
    /// Priority with what tracking takes off, as its agent reports it; 0: it gives way to any other that is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_priority: Option<u8>,
    /// Master, Backup, Fault, Pending (not yet permitted) or Unknown.
    pub state: CandidateState,
    /// Reason word, when not fit or worth less than its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// How it last came to hold the addresses, or ceased to, as its agent reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Transition>,
}

/// State of a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CandidateState {
    /// Holds the addresses.
    Master,
    /// Ready to take over.
    Backup,
    /// Cannot hold every address, what it tracks has failed, or its kernel refuses a service: it does not take over.
    Fault,
    /// Not yet permitted to take over: older directors have not acknowledged it.
    Pending,
    /// Its agent has not reported.
    Unknown,
}

/// Use of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolUse {
    /// Pool name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Addresses in the pool; counts above 9223372036854775807 are shown as that.
    pub total: i64,
    /// Addresses in use.
    pub allocated: i64,
}

/// Short texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterSummary {
    /// ready/all directors.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub candidates: String,
}
