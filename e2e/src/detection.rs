//! What `make bench-detection` and its program in the guest agree on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Port of the listeners and of every director's service.
pub const PORT: u16 = 8100;

/// A real server of all directors.
#[derive(Clone, Copy, Debug)]
pub struct RealServer {
    /// Network namespace.
    pub host: &'static str,
    /// Address on segment `in`.
    pub address: Ipv4Addr,
}

/// Its listener dies.
pub const VICTIM: RealServer = RealServer {
    host: "web-1",
    address: Ipv4Addr::new(192, 168, 2, 21),
};
/// Its listener lives.
pub const SURVIVOR: RealServer = RealServer {
    host: "web-2",
    address: Ipv4Addr::new(192, 168, 2, 22),
};

/// How a listener dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// It is gone: the kernel refuses.
    Refused,
    /// It takes nothing any more: the kernel drops the first segment.
    Silent,
}

/// One death; a line of the program's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Death {
    /// How.
    pub kind: Kind,
    /// What came of it, by director.
    pub clients: BTreeMap<String, Clients>,
}

/// What one director and its clients saw of a death.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clients {
    /// From the death until the listener was out of the kernel.
    pub removed_seconds: f64,
    /// Clients that failed, of those that began before it was out.
    pub failed_before: usize,
    /// Of those that began after that: how long after, and how.
    pub failed_after: Vec<String>,
}
