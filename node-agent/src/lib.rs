//! The node agent: the shell around `lvs-core`. It watches the plans of its node, reads and writes
//! the kernel, drives leadership, and reports.
//!
//! Decisions are not here: what the kernel should hold (`lvs_core::desired`), what has to change
//! (`lvs_core::diff`) and who is master (`lvs_core::election`) are pure and live in `lvs-core`.

pub mod kernel;
pub mod leadership;
