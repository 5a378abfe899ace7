//! Health of real servers: when each check is made, what its results come to, and what that does to weights.
//!
//! ```text
//!   Checks (which, when) ──start──► shell probes ──Outcome──► Machine (Up, Down, Unknown)
//!                                                               │
//!   Policy: effective weight = spec × health × administrative state × slow start; quorum over all of a service;
//!           who drains, and for how long
//! ```
//!
//! Nothing is assumed of a real server before it was checked, as with keepalived's `alpha`; over a restart of the agent the
//! last known state is.

mod checks;
mod drain;
mod expiry;
mod key;
mod machine;
mod memory;
mod passage;
mod policy;
mod quorum;
mod tracking;
mod weight;
mod withdrawal;

pub use checks::{Cadence, Change, Checks, Start};
pub use drain::{LeavingRealServer, NodeView};
pub use expiry::{UnixSeconds, begin_words, expiry_words};
pub use key::{Check, Means, wanted_checks};
pub use machine::{Health, Machine, Outcome, Thresholds};
pub use memory::{remembered, service_key};
pub use passage::{Passage, Passages, passages_of};
pub use policy::{Policy, RealServerServing, ServiceServing, Serving};
pub use quorum::is_quorum_met;
pub use tracking::judge;
pub use weight::{EffectiveWeight, SlowStart, Standing};
pub use withdrawal::withdrawn;
