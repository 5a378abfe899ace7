//! What leadership is told of the routers, and what the pass takes from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::desired::{DesiredState, PlanInput, Roles, RouterRole};
use lvs_core::health::withdrawn;
use lvs_core::host::{AddressKey, ObservedHost};
use lvs_core::journal::Journal;
use lvs_core::object::Object;
use lvs_core::sync_daemon::Warmth;
use lvs_core::verdict::{Verdict, Verdicts};
use lvs_crds::node_plan::PlanState;
use lvs_ipvs::IpvsKernel;

use super::Syncer;
use crate::fitness::fitness;
use crate::kernel::HostKernel;
use crate::leadership::clock;
use crate::port::{DirectedRouter, LeadershipPort, LeadershipRole, LeadershipView};

impl<I: IpvsKernel, H: HostKernel, L: LeadershipPort> Syncer<I, H, L> {
    /// Tells leadership which routers there are and which addresses are backed by services in the kernel.
    pub(super) fn hand_over(
        &mut self,
        desired: &DesiredState,
        verdicts: &Verdicts,
        host: &ObservedHost,
        view: &LeadershipView,
        journal: &Journal,
    ) {
        let complete = self.book.is_complete();
        let mut addresses = BTreeMap::new();
        let withdrawn = self.look_at_withdrawals(host, view, journal);
        let directed = self
            .book
            .inputs()
            .iter()
            .filter(|plan| plan.spec.director.is_some())
            .map(|plan| plan.spec.virtual_router_name.clone());
        let routers: BTreeSet<String> = directed
            .chain(self.handed.keys().cloned())
            .chain(view.held.keys().cloned())
            .collect();
        for router in &routers {
            let wanted = desired
                .director_addresses
                .get(router)
                .cloned()
                .unwrap_or_default();
            let held = view.held.get(router).cloned().unwrap_or_default();
            let handed = self.handed.get(router).cloned().unwrap_or_default();
            let mut next: BTreeSet<AddressKey> = wanted
                .into_iter()
                .filter(|key| {
                    let withdrawn = withdrawn.get(router);
                    withdrawn.is_none_or(|withdrawn| !withdrawn.contains(&key.address))
                })
                // A service that fails later does not take away the address of those that work, nor does a move of
                // the address to another device.
                .filter(|key| {
                    let known = |keys: &BTreeSet<AddressKey>| {
                        keys.iter().any(|known| known.address == key.address)
                    };
                    known(&held)
                        || known(&handed)
                        || is_own(router, key, self.book.inputs(), host)
                        || is_backed(key, desired, verdicts)
                })
                .collect();
            if !complete {
                next.extend(held);
            }
            addresses.insert(router.clone(), next);
        }
        self.unavailable.clone_from(&desired.unavailable);
        self.withdrawn = withdrawn;
        self.heartbeat_interfaces = Some(desired.heartbeat_interfaces.clone());
        let directed = self.directed_routers(desired, verdicts, view);
        self.priorities = directed
            .iter()
            .map(|(name, router)| {
                let priority = router.fitness.priority(router.plan.priority);
                (name.clone(), priority)
            })
            .collect();
        self.deductions = directed
            .iter()
            .map(|(name, router)| (name.clone(), router.fitness.deductions.clone()))
            .collect();
        // While a plan is unknown, a router of ours could be missing here; it must not lose its addresses for that.
        // On a node where nothing was ever handed to the fence there is nothing to lose.
        if complete || journal.director_addresses.is_empty() || self.names_every_router(&directed) {
            self.leadership.set_routers(directed);
        }
        self.handed.clone_from(&addresses);
        self.handed.retain(|_, keys| !keys.is_empty());
        self.leadership.set_addresses(addresses);
    }

    /// Routers of which no address is to be added for now.
    pub(super) fn hold_back(&mut self, routers: BTreeSet<String>) {
        if self.held_back != routers {
            self.held_back.clone_from(&routers);
            self.leadership.hold_back(routers);
        }
    }

    /// What a kernel that cannot be read lacks cannot be known: addresses that this node is to hold do not wait for it.
    pub(super) fn release_masters(&mut self) {
        let view = self.leadership.view();
        let mut routers = self.held_back.clone();
        routers.retain(|router| view.roles.get(router) != Some(&LeadershipRole::Master));
        self.hold_back(routers);
    }

    /// Addresses that this node is not to have for want of real servers, told when that changes. After a restart the kernel
    /// says which of them it had.
    fn look_at_withdrawals(
        &self,
        host: &ObservedHost,
        view: &LeadershipView,
        journal: &Journal,
    ) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let present = present(host, journal);
        let handed = |router: &str, address: IpAddr| {
            let keys = self.handed.get(router);
            keys.is_some_and(|keys| keys.iter().any(|key| key.address == address))
        };
        let withdrawn = withdrawn(self.book.inputs(), &self.serving, |router, address| {
            present.contains(&address) || view.holds(router, address) || handed(router, address)
        });
        if withdrawn != self.withdrawn {
            for (router, addresses) in &withdrawn {
                let addresses = addresses.iter().map(ToString::to_string);
                let addresses = addresses.collect::<Vec<_>>().join(", ");
                tracing::warn!(router, addresses, "withdrawn: too few real servers are up");
            }
            for router in self.withdrawn.keys() {
                if !withdrawn.contains_key(router) {
                    tracing::info!(router, "no address is withdrawn any more");
                }
            }
        }
        withdrawn
    }

    /// Whether no plan is damaged and each router that some plan works for has its own plan.
    fn names_every_router(&self, directed: &BTreeMap<String, DirectedRouter>) -> bool {
        self.book
            .entries()
            .values()
            .all(|entry| entry.good.is_some())
            && self
                .book
                .inputs()
                .iter()
                .filter(|plan| plan.spec.director.is_some())
                .all(|plan| directed.contains_key(&plan.spec.virtual_router_name))
    }

    fn directed_routers(
        &mut self,
        desired: &DesiredState,
        verdicts: &Verdicts,
        view: &LeadershipView,
    ) -> BTreeMap<String, DirectedRouter> {
        let now = clock::now();
        let failures = self
            .apply_failures
            .note(self.book.inputs(), &verdicts.plans, now);
        self.wake_in(failures.due);
        let mut cold: Vec<Duration> = Vec::new();
        let directed = self
            .book
            .inputs()
            .iter()
            .filter_map(|plan| {
                let leadership = plan.spec.director.as_ref()?.leadership.as_ref()?;
                let name = &plan.spec.virtual_router_name;
                // All of them: a node on which something fails lets others go first.
                let verified = self
                    .book
                    .inputs()
                    .iter()
                    .filter(|other| other.spec.virtual_router_name == *name)
                    .filter_map(|other| verdicts.plans.get(&other.name))
                    .all(|verdict| !matches!(verdict, Verdict::NotProgrammed { .. }));
                let state = plan.spec.state;
                let mut warmth = Warmth::Warm;
                if desired.synchronized_routers.contains(name)
                    && view.roles.get(name) != Some(&LeadershipRole::Master)
                    && let Some(continuity) = &self.continuity
                {
                    let is_alone = leadership.directors == [plan.spec.node_name.clone()];
                    warmth = continuity.is_warm(is_alone, now);
                }
                if let Warmth::Cold(left) = warmth {
                    cold.push(left);
                }
                Some((
                    name.clone(),
                    DirectedRouter {
                        plan: leadership.clone(),
                        state,
                        fitness: fitness(desired, failures.deductions.get(name), view, name),
                        heartbeat_interface: desired.heartbeat_interfaces.get(name).cloned(),
                        verified: verified && warmth == Warmth::Warm,
                    },
                ))
            })
            .collect();
        let count = i64::try_from(cold.len()).unwrap_or(i64::MAX);
        self.metrics.cold_routers.set(count);
        self.wake_in(cold.into_iter().min());
        directed
    }
}

/// Roles by router. Where leadership does not know yet, after a restart, the kernel does: a director address that an
/// agent of this boot put there means that this node was master, and until the Lease says otherwise nothing that
/// depends on it is turned over.
pub(super) fn roles(
    view: &LeadershipView,
    plans: &[PlanInput],
    host: &ObservedHost,
    journal: &Journal,
) -> Roles {
    let present = present(host, journal);
    let mut roles = Roles::default();
    for plan in plans {
        let router = &plan.spec.virtual_router_name;
        let role = match view.roles.get(router) {
            Some(LeadershipRole::Master) => RouterRole::Master,
            Some(LeadershipRole::Backup | LeadershipRole::Released) => RouterRole::Backup,
            None | Some(LeadershipRole::Unknown) => {
                let mut planned = plan
                    .spec
                    .director
                    .iter()
                    .flat_map(|director| &director.addresses);
                let was_master = roles.of(router) == RouterRole::Master
                    || planned.any(|planned| present.contains(&planned.address));
                if was_master {
                    RouterRole::Master
                } else {
                    RouterRole::Backup
                }
            }
        };
        roles.0.insert(router.clone(), role);
    }
    roles
}

/// Director addresses in the kernel that an agent of this boot put there.
fn present(host: &ObservedHost, journal: &Journal) -> BTreeSet<IpAddr> {
    host.addresses
        .iter()
        .filter(|(key, _)| journal.director_addresses.contains(key))
        .map(|(key, _)| key.address)
        .collect()
}

/// Whether this is one of a router's own addresses (`additionalAddresses`), on a device that is there. No service stands
/// behind it, so what else the router asks of the node, such as sync daemons, is no reason to hold it back: its holder
/// would have the addresses of services without it.
fn is_own(router: &str, key: &AddressKey, plans: &[PlanInput], host: &ObservedHost) -> bool {
    host.links.contains_key(&key.device)
        && plans
            .iter()
            .filter(|plan| plan.spec.virtual_router_name == router)
            .filter(|plan| plan.spec.state != PlanState::Withdrawn)
            .filter_map(|plan| plan.spec.director.as_ref())
            .filter(|director| director.leadership.is_some())
            .flat_map(|director| &director.addresses)
            .any(|planned| planned.address == key.address)
}

/// Whether some plan that wants this director address is in the kernel.
fn is_backed(key: &AddressKey, desired: &DesiredState, verdicts: &Verdicts) -> bool {
    desired
        .claimants(&Object::Address(key.clone()))
        .any(|plan| verdicts.plans.get(plan) == Some(&Verdict::Programmed))
}
