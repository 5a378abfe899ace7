//! The node agent: the shell around `lvs-core`. It watches the plans of its node, reads and writes
//! the kernel, drives leadership, and reports.
//!
//! Decisions are not here: what the kernel should hold (`lvs_core::desired`), what has to change
//! (`lvs_core::diff`) and who is master (`lvs_core::election`) are pure and live in `lvs-core`.
//!
//! ```text
//!  plan_watch ──events──► sync loop (own thread) ──reports──► status
//!                           │    ▲       │
//!                      kernel  IPVS   leadership
//! ```

pub mod api_endpoints;
pub mod args;
pub mod book;
pub mod checked;
pub mod disk;
pub mod drive;
pub mod endpoints;
pub mod execute;
pub mod fitness;
pub mod health;
pub mod hold;
pub mod http;
pub mod kernel;
pub mod leadership;
pub mod leading;
pub mod limits;
pub mod links;
pub mod metrics;
pub mod plan_traces;
pub mod plan_watch;
pub mod port;
pub mod report;
pub mod run;
pub mod show;
pub mod show_facts;
pub mod statistics;
pub mod status;
pub mod sync;
pub mod telemetry;
pub mod zero;
