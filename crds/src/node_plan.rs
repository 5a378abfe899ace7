//! NodePlan: what ONE node does for ONE VirtualService or VirtualRouter. The only wire from
//! controller to agent: spec is the controller's, status the node's agent's.

// Printer columns repeat keys within one attribute, which the lint takes for duplicates.
#![allow(clippy::duplicated_attributes)]

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection_sync::PlannedConnectionSync;
use crate::health_check::HealthCheck;
use crate::real_server::RealServerState;
use crate::text::{ObjectName, RouterName};
use crate::tracking::{Deduction, TrackedEndpoint, TrackedRealServers};
use crate::traffic_policy::{AdministrativeState, OnFailure, PlannedSorryServer, Quorum};
use crate::transition::Transition;
use crate::value::{
    AddressFamily, Forwarding, PacketScheduling, Persistence, Protocol, Scheduler, Timeouts, Tunnel,
};
use crate::virtual_router::{Announcement, OnApiServerLoss, Takeover};

/// What one node does for one VirtualService or VirtualRouter. Written by the controller alone.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "NodePlan",
    plural = "nodeplans",
    shortname = "lvsnp",
    namespaced,
    status = "NodePlanStatus",
    selectable = ".spec.nodeName",
    derive = "PartialEq",
    doc = "A NodePlan is what one node does for one VirtualService or VirtualRouter. The controller writes spec, the node's agent status; nobody else should.",
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".spec.nodeName",
        description = "Node that carries it out"
    ),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".spec.source.name",
        description = "Object it was made from"
    ),
    printcolumn(
        name = "Kind",
        type_ = "string",
        json_path = ".spec.source.kind",
        description = "Kind of that object",
        priority = 1
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".spec.state",
        description = "What is to be done with it"
    ),
    printcolumn(
        name = "Role",
        type_ = "string",
        json_path = ".status.role",
        description = "What the node is for it"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].reason",
        description = "Reason of the condition Programmed"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.director) || !has(self.director.leadership) || self.source.kind == 'VirtualRouter'",
    "director.leadership is only for plans made from a VirtualRouter"
))]
pub struct NodePlanSpec {
    /// Node whose agent carries this out. Immutable.
    #[schemars(with = "ObjectName")]
    #[x_kube(validation = ("self == oldSelf", "nodeName is immutable: another node gets a plan of its own"))]
    pub node_name: String,
    /// Whether the plan is to be held, handed over, or removed.
    pub state: PlanState,
    /// Object this plan was made from.
    #[x_kube(validation = (
        "self.kind == oldSelf.kind && self.name == oldSelf.name && self.uid == oldSelf.uid",
        "source is immutable but for its generation: another object gets a plan of its own"
    ))]
    pub source: PlanSource,
    /// VirtualRouter whose leadership decides where the addresses are.
    #[schemars(with = "RouterName")]
    pub virtual_router_name: String,
    /// What the node does as director.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director: Option<DirectorPlan>,
    /// What the node does as real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<RealServerPlan>,
}

/// Life of a plan. Teardown is a state, not an absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlanState {
    /// Program and keep.
    Active,
    /// Keep, but give up the addresses as soon as another director has them.
    Leaving,
    /// Remove everything that only this plan wants, then acknowledge in status.
    Withdrawn,
    /// Uninstalling with KeepTraffic: keep everything for the time without an agent; the holder's
    /// addresses become permanent.
    Retained,
}

/// Object a plan was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSource {
    /// VirtualService or VirtualRouter.
    pub kind: SourceKind,
    /// Namespace; empty for a VirtualRouter.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Generation the plan was made from.
    pub generation: i64,
}

/// Kind of a plan's source.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum SourceKind {
    /// A VirtualService.
    VirtualService,
    /// A VirtualRouter.
    VirtualRouter,
}

/// Work as director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorPlan {
    /// Leadership of the router; exactly in plans whose source is a VirtualRouter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leadership: Option<LeadershipPlan>,
    /// Addresses the node holds while it is master of the router.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub addresses: Vec<PlannedAddress>,
    /// Packets to mark before IPVS sees them (nftables).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub firewall_marks: Vec<PlannedFirewallMark>,
    /// IPVS services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub services: Vec<PlannedService>,
    /// Addresses for real servers with forwarding FullNAT, by pool, sorted by name. The router's plan holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub source_address_pools: Vec<PlannedSourceAddressPool>,
    /// Checks to which services and real servers refer by name, sorted; which port each asks is said there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub checks: Vec<HealthCheck>,
    /// Certificate authorities that checks name as tls.caConfigMapName, sorted by name. One that a check names and that is not here is not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub certificate_authorities: Vec<PlannedAuthorities>,
}

/// Most ConfigMaps of one plan.
pub const PLANNED_AUTHORITIES_MAXIMUM: usize = 8;
/// Longest text of [`PlannedAuthorities`], in bytes.
pub const PLANNED_AUTHORITIES_BYTES: usize = 65_536;

/// Certificate authorities of one ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAuthorities {
    /// Name of the ConfigMap, in the namespace of the source.
    #[schemars(length(max = 253))]
    pub config_map_name: String,
    /// Certificates in PEM.
    #[schemars(length(min = 1, max = 65_536))]
    pub certificates: String,
}

/// Leadership of one router on this node. Lease: same namespace as the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeadershipPlan {
    /// Name of the Lease that the controller made.
    #[schemars(length(max = 253))]
    pub lease_name: String,
    /// VRRP priority of this node, 1..254; 0: it gives way to any other director that is ready.
    pub priority: u8,
    /// Seconds for which a director with a higher priority must be ready before the holder gives way to it; unset = it never
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_delay_seconds: Option<u32>,
    /// Director to which the holder is to hand over once that one is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hand_over_to: Option<String>,
    /// Whether this node may acquire the Lease.
    pub candidacy: Candidacy,
    /// Nodes of all directors, this one included, sorted.
    #[schemars(length(max = 5000), inner(length(max = 253)))]
    pub directors: Vec<String>,
    /// Lease duration, seconds.
    pub lease_duration_seconds: u32,
    /// Heartbeats between the directors; unset = none, and a holder that dies is noticed when its Lease has run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatPlan>,
    /// What the holder does without the API server.
    #[serde(default, rename = "onAPIServerLoss")]
    pub on_api_server_loss: OnApiServerLoss,
    /// When a director that has taken over adds the addresses.
    #[serde(default, skip_serializing_if = "Takeover::is_fast")]
    pub takeover: Takeover,
    /// How addresses are announced.
    pub announcement: Announcement,
    /// IPVS timeouts of the node; unset = left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// How connections survive a takeover; unset = they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_sync: Option<PlannedConnectionSync>,
    /// VRID whose virtual MAC the addresses have; unset = that of their device.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "virtualRouterID"
    )]
    #[schemars(range(min = 1, max = 255))]
    pub virtual_router_id: Option<u8>,
    /// Interfaces whose link counts for candidacy beside those of the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tracked_interfaces: Vec<PlannedTrackedInterface>,
    /// HTTP endpoints that the node asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tracked_endpoints: Vec<TrackedEndpoint>,
    /// How many real servers of each VirtualService must be up; unset = it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked_real_servers: Option<TrackedRealServers>,
    /// Addresses of VirtualServices that every director reports as Unavailable: they are no fault of one
    /// director. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub addresses_set_aside: Vec<IpAddr>,
}

/// An interface whose link is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedTrackedInterface {
    /// Name of the logical interface.
    #[schemars(length(max = 63))]
    pub interface_name: String,
    /// Device names, the first that exists.
    #[schemars(length(min = 1, max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// Added to the priority while the link is down; 0 = fault.
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
}

/// Heartbeats of one router (leadership.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatPlan {
    /// i: milliseconds between heartbeats.
    pub interval_milliseconds: u16,
    /// k: missed heartbeats after which a director is silent.
    pub missed: u8,
    /// c: milliseconds a challenged holder has to answer.
    pub challenge_window_milliseconds: u16,
    /// Device names of the interface over which heartbeats go, the first that exists on the node; empty = by whatever way the routes say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// Where directors are reached, this one included, sorted by node; those without an address are left out.
    #[schemars(length(max = 5000))]
    pub peers: Vec<HeartbeatPeer>,
}

/// One director's address for heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatPeer {
    /// Node.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Its address.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
}

/// Whether a director may acquire the Lease (leadership.md rule 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Candidacy {
    /// It may.
    Permitted,
    /// Not before every older director has acknowledged the new set of directors.
    Pending,
}

/// An address that moves with the router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAddress {
    /// The address; programmed as /32 or /128.
    pub address: IpAddr,
    /// Device names, the first that exists; empty = the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
}

/// Addresses that real servers see as clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSourceAddressPool {
    /// Name of the pool in the VirtualRouter.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Addresses, sorted.
    #[schemars(length(max = 64))]
    pub addresses: Vec<IpAddr>,
}

/// A mark and the packets that get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedFirewallMark {
    /// The whole mark.
    pub mark: u32,
    /// Packets that get it.
    #[schemars(length(max = 2048))]
    pub matches: Vec<MarkMatch>,
}

/// Packets by destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MarkMatch {
    /// Destination address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port; 0 = all ports.
    pub port: u16,
    /// Last port; equals port for a single one.
    pub end_port: u16,
}

/// One IPVS service, or one per port of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.address) != has(self.firewallMark)",
    "exactly one of address and firewallMark is required"
))]
pub struct PlannedService {
    /// What packets the service takes: exactly one of address and firewallMark is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ServiceAddress>,
    /// What packets the service takes, by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<ServiceFirewallMark>,
    /// Port name of the VirtualService; unset for a sole port or a firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port_name: Option<String>,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Unit that is scheduled.
    pub packet_scheduling: PacketScheduling,
    /// Destinations in canonical order (address, port).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub real_servers: Vec<PlannedRealServer>,
    /// What is asked of every real server that does not say otherwise; it is up while all of it succeeds. Empty = nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub checks: Vec<CheckReference>,
    /// What becomes of a real server that is down.
    #[serde(default, skip_serializing_if = "OnFailure::is_remove")]
    pub on_failure: OnFailure,
    /// How much must be up; unset = one real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// Who serves without a quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<PlannedSorryServer>,
    /// Seconds after which a real server that drains is taken out, and for which one that leaves the plan drains; unset = the first without end, the second at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub drain_timeout_seconds: Option<u32>,
    /// Seconds in which a real server that came up gets more and more of its weight; 0 = all of it at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_start_seconds: u32,
}

impl PlannedService {
    /// What is asked of one of its real servers.
    pub fn checks_of<'a>(&'a self, real_server: &'a PlannedRealServer) -> &'a [CheckReference] {
        real_server.checks.as_deref().unwrap_or(&self.checks)
    }

    /// Whether anything is asked of any of its real servers, those to come included.
    pub fn has_checks(&self) -> bool {
        let mut real_servers = self.real_servers.iter();
        !self.checks.is_empty() || real_servers.any(|one| !self.checks_of(one).is_empty())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A check of the plan, and the port that it asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckReference {
    /// Name of the check in the plan.
    #[schemars(length(max = 63))]
    pub check_name: String,
    /// Port on the real server; unset = the port that serves, of a range the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A service by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAddress {
    /// Virtual address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port; 0 = all ports.
    pub port: u16,
    /// Last port; equals port for a single one. A range becomes one IPVS service per port.
    pub end_port: u16,
}

/// A service by firewall mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFirewallMark {
    /// The whole mark.
    pub mark: u32,
    /// Family: IPVS keeps one service per mark and family.
    pub address_family: AddressFamily,
}

/// One IPVS destination, or one per port of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRealServer {
    /// RealServer it comes from.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Address of the host.
    pub address: IpAddr,
    /// Port on the host for the first port of the service; a range keeps its offsets. 0 for all-ports and marks.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Upper threshold of connections, 0 = none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower threshold of connections, 0 = three quarters of upper.
    #[serde(default)]
    pub lower_threshold: u32,
    /// Whether it is to serve.
    #[serde(default, skip_serializing_if = "AdministrativeState::is_enabled")]
    pub administrative_state: AdministrativeState,
    /// What is asked of it; empty = nothing, unset = what its service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub checks: Option<Vec<CheckReference>>,
}

/// Work as real server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPlan {
    /// Virtual addresses the node answers as, without telling neighbours (DR).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub direct_routing_addresses: Vec<IpAddr>,
    /// Tunnels that end here (TUN).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tunnels: Vec<TunnelEndpoint>,
    /// Replies that go back through the director (NAT).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub return_paths: Vec<ReturnPath>,
}

/// End of a tunnel on a real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelEndpoint {
    /// Address of this node to which directors send tunnel packets.
    pub local_address: IpAddr,
    /// Encapsulation.
    pub tunnel: Tunnel,
    /// Virtual addresses inside the tunnel.
    #[schemars(length(max = 1024))]
    pub virtual_addresses: Vec<IpAddr>,
}

/// A policy route for replies of a NAT real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnPath {
    /// Address of this node that serves.
    pub source_address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port that serves.
    pub port: u16,
    /// Last port that serves.
    pub end_port: u16,
    /// Addresses of the director side, in order of preference; the first on a connected subnet is used.
    #[schemars(length(max = 64))]
    pub gateways: Vec<IpAddr>,
}

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
