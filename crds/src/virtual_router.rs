//! VirtualRouter: a VRRP instance; directors, addresses that move together, pools and grants.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterSpec {
    /// Nodes that may hold the addresses; the first entry that matches a node decides. Unset: every agent node with priority 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directors: Vec<Director>,
    /// Logical interfaces, as device names differ between nodes. Unset: the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<LogicalInterface>,
    /// Addresses that move with the rest though no VirtualService uses them, such as the real servers' gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_addresses: Vec<AdditionalAddress>,
    /// Addresses that VirtualServices may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_pools: Vec<AddressPool>,
    /// Which namespaces may use which pools and targets. Nothing granted: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Times of the leadership protocol.
    #[serde(default)]
    pub detection: Detection,
    /// Gratuitous ARP and unsolicited neighbour advertisements after an address was taken over.
    #[serde(default)]
    pub announcement: Announcement,
    /// IPVS timeouts of the directors; a node has one set, the older router wins. Unset: left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// One node, or nodes by label, that may hold the addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Director {
    /// A node by name. Excludes nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Nodes by label. Excludes nodeName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// VRRP priority, 1..254; the highest candidate takes over. Default 100.
    #[serde(default = "Director::default_priority")]
    pub priority: u8,
}

impl Director {
    const fn default_priority() -> u8 {
        100
    }
}

/// A logical interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicalInterface {
    /// Name used by pools and additional addresses.
    pub name: String,
    /// Device names; the first that exists on a node is used.
    pub devices: Vec<String>,
}

/// An address that moves with the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalAddress {
    /// The address.
    pub address: String,
    /// Logical interface. Unset: by connected subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
}

/// A set of addresses for VirtualServices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    /// Name, unique in the router.
    pub name: String,
    /// Single addresses, CIDRs and ranges first-last.
    pub addresses: Vec<String>,
    /// Logical interface of these addresses. Unset: by connected subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    /// Automatic: also for VirtualServices without addresses. Explicit: only when asked for. Default Automatic.
    #[serde(default)]
    pub assignment: Assignment,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Namespaces that get the permission.
    pub namespaces: NamespaceSelection,
    /// Pools they may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_pool_names: Vec<String>,
    /// Networks in which their real servers may lie, nodes aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "realServerCIDRs")]
    pub real_server_cidrs: Vec<String>,
    /// Whether their real servers may be cluster nodes, whose sysctls then change. Default None.
    #[serde(default)]
    pub real_server_nodes: RealServerNodes,
}

/// Which namespaces: a union of `from` and the member it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelection {
    /// All or Selector.
    pub from: NamespacesFrom,
    /// Namespaces by label; with from Selector.
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

/// Times of the leadership protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Detection {
    /// Seconds without renewal after which another director takes over, 10..300. Default 10.
    #[serde(default = "Detection::default_lease_duration_seconds")]
    #[schemars(range(min = 10, max = 300))]
    pub lease_duration_seconds: u32,
}

impl Detection {
    const fn default_lease_duration_seconds() -> u32 {
        10
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self { lease_duration_seconds: Self::default_lease_duration_seconds() }
    }
}

/// How an address is announced after takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Announcements in a burst, 1..20. Default 5.
    #[serde(default = "Announcement::default_burst_count")]
    #[schemars(range(min = 1, max = 20))]
    pub burst_count: u8,
    /// Milliseconds between announcements of a burst, 10..1000. Default 100.
    #[serde(default = "Announcement::default_interval_milliseconds")]
    #[schemars(range(min = 10, max = 1000))]
    pub interval_milliseconds: u32,
    /// Seconds between repeated announcements while holding, 0..3600; 0 = none. Default 0.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Programmed, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Node that holds the addresses, from the Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
    /// Every director.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Use of each pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    pub node_name: String,
    /// Priority from spec.
    pub priority: u8,
    /// Master, Backup, Pending (not yet permitted) or Unknown.
    pub state: CandidateState,
    /// Reason word, when not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// State of a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CandidateState {
    /// Holds the addresses.
    Master,
    /// Ready to take over.
    Backup,
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
    pub candidates: String,
}
