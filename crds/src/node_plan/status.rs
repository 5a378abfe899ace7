//! What the agent reports of a plan.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::real_server::RealServerState;
use crate::tracking::Deduction;
use crate::transition::Transition;

/// What the agent reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlanStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Boot of the node, from /proc/sys/kernel/random/boot_id.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "bootID")]
    #[schemars(length(max = 64))]
    pub boot_id: Option<String>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
    /// Role of the node for this plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// VRRP priority of the node with what tracking takes off; only of plans with leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_priority: Option<u8>,
    /// What makes that priority lower than the plan's; only of plans with leadership.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deductions: Vec<Deduction>,
    /// How the node last came to hold the router's addresses, or ceased to; only of plans with leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Transition>,
    /// Director that holds the addresses and renews its Lease, but whose heartbeats do not arrive at this node; only of plans with leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub heartbeat_lost_from: Option<String>,
    /// Programmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Addresses of the director plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    pub addresses: Vec<AddressStatus>,
    /// Of a director whose router has connectionSync type Stateless: hash of the plan's services as they are in the kernel, schedulers, real servers and their order included. Equal on all directors that would send a connection to the same real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub table_hash: Option<String>,
    /// Where the node can be reached by heartbeats; of plans whose heartbeats have an interface of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatStatus>,
    /// Of a director: real servers of services that have checks or a time to drain, as this node sees them, sorted. Those that have left the plan are in it while they drain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub real_servers: Vec<CheckedRealServer>,
    /// Of a director: services that have no quorum, as 192.0.2.10:80/TCP, at most 64 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub services_without_quorum: Vec<String>,
}

/// A real server as one director sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedRealServer {
    /// RealServer; empty of one that has left the plan, where the agent has been restarted since.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Port name of the VirtualService, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port_name: Option<String>,
    /// Address that serves.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// Port on the host.
    pub port: u16,
    /// Up, Down, Draining, Disabled or Unknown.
    pub state: RealServerState,
    /// Weight in the kernel; 0 also where it is not in the kernel.
    pub effective_weight: u16,
    /// Since when it has this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why, in words, where there is something to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// End of the certificate that it shows, once it is as near as expiryWarningDays of the check; of several checks the first end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expiry_time: Option<Time>,
}

/// Where a director can be reached by heartbeats over an interface of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatStatus {
    /// Device names of the plan that this answers.
    #[schemars(length(max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// The first global address of each family on the first of these devices that exists, IPv4 before IPv6, without addresses that move with a router; empty = there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub addresses: Vec<IpAddr>,
}

/// What the node is for this plan: Master holds the addresses, Backup does not, RealServer only serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Director that holds the addresses.
    Master,
    /// Director that does not.
    Backup,
    /// Real server only.
    RealServer,
}

/// State of one address on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// Whether the node holds it.
    pub state: AddressState,
}

/// Whether a node holds an address.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum AddressState {
    /// In the kernel, refreshed.
    Held,
    /// Not on this node.
    Released,
    /// Not on this node, though it may have the router's addresses: too few real servers are up, and quorum.onLoss of a VirtualService is WithdrawAddress.
    Withdrawn,
    /// Cannot be held here: the node has no device for it, or somebody else's address stands in the way.
    Unavailable,
}
