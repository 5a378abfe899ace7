//! What the sync loop needs of leadership: a seam, so that the loop can be tried without Leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::desired::{Fitness, HeartbeatInterface};
use lvs_core::election::Tick;
use lvs_core::host::AddressKey;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{LeadershipPlan, PlanState};
use lvs_crds::transition::Transition;

/// A router that this node directs.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectedRouter {
    /// Its leadership.
    pub plan: LeadershipPlan,
    /// State of the plan that carries it.
    pub state: PlanState,
    /// Whether the kernel was read and the router's services are in it as far as they can be.
    pub verified: bool,
    /// What speaks against this node as director.
    pub fitness: Fitness,
    /// The interface of its heartbeats on this node, where they have one of their own.
    pub heartbeat_interface: Option<HeartbeatInterface>,
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
    /// What stands in the way of addresses, by router.
    pub troubles: BTreeMap<String, Vec<AddressTrouble>>,
    /// Addresses in the kernel that somebody else claims too, by router.
    pub conflicts: BTreeMap<String, Vec<AddressTrouble>>,
    /// How often somebody else removed an address and it was put back, since the start, by router.
    pub restored: BTreeMap<String, BTreeMap<AddressKey, u64>>,
    /// How this process last came to hold a router, or ceased to, by router.
    pub transitions: BTreeMap<String, Transition>,
    /// Holders that renew their Lease, but whose heartbeats do not arrive here, by router.
    pub heartbeats_lost: BTreeMap<String, String>,
    /// Why no address is added at all.
    pub journal_error: Option<String>,
    /// Additions, refreshes and deletions of director addresses since the start. Not a change worth a pass.
    pub address_writes: u64,
}

/// What stands in the way of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressTrouble {
    /// The address.
    pub address: IpAddr,
    /// Word for the condition.
    pub reason: Reason,
    /// What it is, with values.
    pub message: String,
}

impl LeadershipView {
    /// Whether the two differ in something that the sync loop acts on or reports.
    pub fn differs(&self, other: &Self) -> bool {
        (
            &self.roles,
            &self.held,
            &self.troubles,
            &self.conflicts,
            &self.restored,
            &self.transitions,
            &self.heartbeats_lost,
            &self.journal_error,
        ) != (
            &other.roles,
            &other.held,
            &other.troubles,
            &other.conflicts,
            &other.restored,
            &other.transitions,
            &other.heartbeats_lost,
            &other.journal_error,
        )
    }

    /// Whether a router holds an address on this node.
    pub fn holds(&self, router: &str, address: IpAddr) -> bool {
        self.held
            .get(router)
            .is_some_and(|held| held.iter().any(|key| key.address == address))
    }
}

/// Leadership as the sync loop sees it. Nothing here waits.
pub trait LeadershipPort: Send {
    /// The full truth about the routers of this node: one that is missing loses its addresses.
    fn set_routers(&mut self, routers: BTreeMap<String, DirectedRouter>);
    /// The routers of which no address is to be added for now, all of them.
    fn hold_back(&mut self, routers: BTreeSet<String>);
    /// The full truth about the addresses of the routers it names.
    fn set_addresses(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>);
    /// Addresses that are held by [`LeadershipPort::view`] and that a look at the kernel, begun at `looked_at`, did not find.
    fn missing(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>, looked_at: Tick);
    /// What is so now.
    fn view(&self) -> LeadershipView;
}
