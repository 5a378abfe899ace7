//! API types of group `lvs.dev`, version `v1alpha1`.
//!
//! Data only: no client, no runtime. Fields carry the documentation users read with
//! `kubectl explain`; rules about one object live beside the field as CEL, rules across
//! objects live in `lvs-plan`.

pub mod condition;
pub mod connection_sync;
pub mod health_check;
pub mod manifest;
pub mod mark_range;
pub mod node_plan;
pub mod real_server;
pub mod reference;
pub mod text;
pub mod tracking;
pub mod traffic_policy;
pub mod transition;
pub mod value;
pub mod virtual_router;
pub mod virtual_service;

pub use node_plan::{NodePlan, NodePlanSpec, NodePlanStatus};
pub use real_server::{RealServer, RealServerSpec, RealServerStatus};
pub use virtual_router::{VirtualRouter, VirtualRouterSpec, VirtualRouterStatus};
pub use virtual_service::{VirtualService, VirtualServiceSpec, VirtualServiceStatus};

/// API group of every kind in this crate.
pub const GROUP: &str = "lvs.dev";
/// The one served and stored version.
pub const VERSION: &str = "v1alpha1";

/// Annotation on a VirtualRouter: `true` makes it the default router.
pub const IS_DEFAULT_ROUTER_ANNOTATION: &str = "lvs.dev/is-default-router";
/// Annotation of a VirtualRouter: the director that is to get the addresses, once, as soon as it is ready.
pub const HAND_OVER_ANNOTATION: &str = "lvs.dev/hand-over-to";
/// Annotation on a router's Lease: comma-separated, sorted names of the nodes that may update it.
/// Written by the controller, read by the admission policy.
pub const LEASE_DIRECTORS_ANNOTATION: &str = "lvs.dev/directors";
/// Label on plans and Leases: name of the VirtualRouter.
pub const VIRTUAL_ROUTER_LABEL: &str = "lvs.dev/virtual-router";
/// Field manager of everything the controller writes.
pub const CONTROLLER_FIELD_MANAGER: &str = "lvs-controller";
/// Field manager of everything an agent writes.
pub const AGENT_FIELD_MANAGER: &str = "lvs-agent";

/// Name of the Lease of a router, in the operator's namespace.
pub fn lease_name(virtual_router_name: &str) -> String {
    format!("lvs-router-{virtual_router_name}")
}

/// `holderIdentity` of a Lease: node and incarnation of its agent process.
pub fn holder_identity(node_name: &str, incarnation: &str) -> String {
    format!("{node_name}/{incarnation}")
}
