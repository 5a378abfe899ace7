//! The controller's shell: everything that talks to the API server. Decisions are in `lvs-plan`.
//!
//! One pass is `reconcile`: snapshot, resolve, check, write. `status` is the only writer of status and
//! Events. `run` starts the tasks; the first that ends, for whatever reason, ends the process.

pub mod apply;
pub mod args;
pub mod change_traces;
pub mod dns;
pub mod event;
pub mod http;
pub mod leadership;
pub mod metrics;
pub mod reconcile;
pub mod resolver;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod telemetry;
pub mod uninstall;
pub mod watch;
pub mod world;
