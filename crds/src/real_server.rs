//! RealServer: one host or node that serves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::Forwarding;

/// One host or cluster node that serves; selected by VirtualServices of its namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    plural = "realservers",
    shortname = "lvsrs",
    category = "lvs",
    namespaced,
    status = "RealServerStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSpec {
    /// The host. Immutable.
    pub target: Target,
    /// Share of new connections relative to the others, 0..65535; 0 takes no new connections. Default 1.
    #[serde(default = "RealServerSpec::default_weight")]
    pub weight: u16,
    /// Port on this host, NAT only, for a VirtualService with one port. Excludes ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Ports on this host by the VirtualService's port names, NAT only. Excludes port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<RealServerPort>,
    /// Overrides the VirtualService's forwarding for this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Limits of connections (ipvsadm -x, -y). Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_thresholds: Option<ConnectionThresholds>,
}

impl RealServerSpec {
    const fn default_weight() -> u16 {
        1
    }
}

/// The host behind a RealServer: a union of `type` and the member of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Addresses or Node.
    #[serde(rename = "type")]
    pub type_: TargetType,
    /// Addresses of the host, at most one per family; with type Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// A cluster node; with type Node. Its agent prepares and restores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeTarget>,
}

/// Kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetType {
    /// Explicit addresses of a host outside the cluster.
    Addresses,
    /// A node of the cluster, by name.
    Node,
}

/// A cluster node as target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget {
    /// Name of the Node.
    pub name: String,
    /// Addresses of the node to use, at most one per family. Default: its InternalIPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// Port of one named service port on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPort {
    /// Port name of the VirtualService.
    pub name: String,
    /// Port on this host, 1..65535.
    pub port: u16,
}

/// Limits of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionThresholds {
    /// No new connections at or above this many, active and inactive, 0..2147483647; 0 = no limit.
    #[serde(default)]
    pub upper: u32,
    /// New connections again below this many; 0 = three quarters of upper.
    #[serde(default)]
    pub lower: u32,
}

/// Observed state of a RealServer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// VirtualServices that use this RealServer, at most 32 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_services: Vec<RealServerUse>,
    /// Short texts for the table.
    #[serde(default)]
    pub summary: RealServerSummary,
}

/// Use of a RealServer by one VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerUse {
    /// The VirtualService.
    pub name: String,
    /// Whether every port is programmed and up.
    pub ready: bool,
    /// Each port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<RealServerPortState>,
}

/// State of one port of one RealServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPortState {
    /// Port name of the VirtualService, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address that serves.
    pub address: String,
    /// Port on the host.
    pub port: u16,
    /// Up, Disabled (weight 0) or Unknown.
    pub state: RealServerState,
    /// Weight in the kernel of the directors.
    pub effective_weight: u16,
}

/// State of a real server's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RealServerState {
    /// In the kernel of the directors with a weight above 0.
    Up,
    /// In the kernel with weight 0.
    Disabled,
    /// Not, or not yet, reported as programmed.
    Unknown,
}

/// Short texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSummary {
    /// Address or node name.
    #[serde(default)]
    pub target: String,
    /// Worst state over all uses.
    #[serde(default)]
    pub state: String,
    /// Names of VirtualServices that use it, separated by commas.
    #[serde(default)]
    pub used_by: String,
}
