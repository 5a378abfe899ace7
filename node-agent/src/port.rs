//! What the sync loop needs of leadership: a seam, so that the loop can be tried without Leases.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::host::AddressKey;
use lvs_crds::node_plan::{LeadershipPlan, PlanState};

/// A router that this node directs.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectedRouter {
    /// Its leadership.
    pub plan: LeadershipPlan,
    /// State of the plan that carries it.
    pub state: PlanState,
    /// Whether the kernel was read and the router's services are in it as far as they can be.
    pub verified: bool,
}

/// Role of this node in a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadershipRole {
    /// Not known yet: since the start nothing was read from the Lease.
    Unknown,
    /// Another node holds the router, or none.
    Backup,
    /// This node holds it.
    Master,
    /// This node has given it up for good.
    Released,
}

/// What leadership says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadershipView {
    /// Roles by router.
    pub roles: BTreeMap<String, LeadershipRole>,
    /// Director addresses in the kernel by router.
    pub held: BTreeMap<String, BTreeSet<AddressKey>>,
    /// What stands in the way of an address, by router.
    pub errors: BTreeMap<String, Vec<String>>,
}

impl LeadershipView {
    /// Whether a router holds an address on this node.
    pub fn holds(&self, router: &str, address: std::net::IpAddr) -> bool {
        self.held
            .get(router)
            .is_some_and(|held| held.iter().any(|key| key.address == address))
    }
}

/// Leadership as the sync loop sees it. Nothing here waits.
pub trait LeadershipPort: Send {
    /// The full truth about the routers of this node: one that is missing loses its addresses.
    fn set_routers(&mut self, routers: BTreeMap<String, DirectedRouter>);
    /// The full truth about the addresses of the routers it names.
    fn set_addresses(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>);
    /// What is so now.
    fn view(&self) -> LeadershipView;
}

/// A node that directs nothing: holds no address and knows no role.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standby;

impl LeadershipPort for Standby {
    fn set_routers(&mut self, _: BTreeMap<String, DirectedRouter>) {}
    fn set_addresses(&mut self, _: BTreeMap<String, BTreeSet<AddressKey>>) {}
    fn view(&self) -> LeadershipView {
        LeadershipView::default()
    }
}

/// A node that directs nothing, and a bell that never rings.
pub fn standby() -> (Standby, tokio::sync::watch::Receiver<u64>) {
    let (sender, receiver) = tokio::sync::watch::channel(0);
    std::mem::forget(sender);
    (Standby, receiver)
}
