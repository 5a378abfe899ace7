//! NodePlan: what ONE node does for ONE VirtualService or VirtualRouter. The only wire from
//! controller to agent: spec is the controller's, status the node's agent's.

// Printer columns repeat keys within one attribute, which the lint takes for duplicates.
#![allow(clippy::duplicated_attributes)]

mod director;
mod leadership;
mod real_server;
mod service;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{ObjectName, RouterName};

pub use director::{
    DirectorPlan, MarkMatch, PLANNED_AUTHORITIES_BYTES, PLANNED_AUTHORITIES_MAXIMUM,
    PlannedAddress, PlannedAuthorities, PlannedFirewallMark, PlannedSourceAddressPool,
};
pub use leadership::{
    Candidacy, HeartbeatPeer, HeartbeatPlan, LeadershipPlan, PlannedTrackedInterface,
};
pub use real_server::{RealServerPlan, ReturnPath, TunnelEndpoint};
pub use service::{
    CheckReference, PlannedRealServer, PlannedService, ServiceAddress, ServiceFirewallMark,
};
pub use status::{
    AddressState, AddressStatus, CheckedRealServer, HeartbeatStatus, NodePlanStatus, Role,
};

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
