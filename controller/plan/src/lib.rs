//! Planning: what every node has to do for every VirtualService and VirtualRouter.
//!
//! Pure: the cluster goes in as a plain value ([`Inputs`]), plans and reports come out as a
//! plain value ([`Resolution`]). Nothing here knows a clock, a client, an environment or a log;
//! the only times that appear are copied from objects. [`resolve`] cannot fail: what is wrong
//! with one object becomes a [`report::Verdict`] on that object and the rest goes on.
//!
//! Laws, each guarded by a property test in `tests/laws.rs`:
//! - the order of the inputs does not matter;
//! - fed its own plans back, `resolve` changes nothing;
//! - a node that disappears moves only that node's share;
//! - an object that cannot be decoded never removes anything;
//! - [`check`](check::check), an independent critic, finds nothing.

pub mod address_range;
pub mod ca_bundle;
mod certificate_authorities;
pub mod check;
mod connection_sync;
pub mod dns_name;
mod dns_name_target;
mod drain;
pub mod endpoint;
mod expansion;
mod external_check;
pub mod fitness;
mod health_check;
mod heartbeat;
pub mod hold;
pub mod input;
pub mod lifecycle;
pub mod mark;
pub mod name;
pub mod node;
mod preparation;
pub mod reading;
mod real_server_check;
pub mod rehearsal;
pub mod report;
pub mod resolution;
pub mod router;
mod router_plan;
pub mod selector;
pub mod service;
mod service_plan;
mod service_target;
pub mod settings;
mod sorry_server;
mod source_nat;
pub mod status;
pub mod target;
pub mod tenancy;
mod virtual_mac;

pub use check::{Checked, Finding, check};
pub use input::Inputs;
pub use resolution::{PlannedNodePlan, Resolution, resolve};
