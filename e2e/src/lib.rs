//! The lab: one guest whose network namespaces are nodes and hosts, a real control plane
//! beside it, and the product as its chart renders it. Stories and benches stand on this.

// A lab talks to the person who runs it.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// YAML gets quotes sooner or later; the hashes stay.
#![allow(clippy::needless_raw_string_hashes)]
// Counters of a metric are whole numbers.
#![allow(clippy::float_cmp)]

pub mod await_condition;
pub mod cluster;
pub mod detection;
pub mod failover;
pub mod guest;
pub mod kubelet;
pub mod lab;
pub mod metrics_document;
pub mod namespace;
pub mod pod;
pub mod stories;
pub mod traffic;
pub mod volume;
