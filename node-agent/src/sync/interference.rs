//! What others removed or changed: counted, told, and looked for more often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvs_core::desired::DesiredState;
use lvs_core::drift::repairs;
use lvs_core::election::Tick;
use lvs_core::host::{AddressKey, ObservedHost};
use lvs_core::interference::Evidence;
use lvs_core::object::Object;
use lvs_core::op::Op;
use lvs_crds::condition::Reason;
use lvs_ipvs::IpvsKernel;
use tokio::sync::watch;

use super::Syncer;
use crate::kernel::HostKernel;
use crate::kernel::removal_watch::Removals;
use crate::leadership::clock;
use crate::port::{LeadershipPort, LeadershipView};
use crate::report::planned;

impl<I: IpvsKernel, H: HostKernel, L: LeadershipPort> Syncer<I, H, L> {
    /// Says where to read who removed what; without it nobody knows.
    #[must_use]
    pub fn with_removals(mut self, removals: watch::Receiver<Removals>) -> Self {
        self.removals = removals;
        self
    }

    /// Operations that repair what somebody else did.
    pub(super) fn note_repairs(&mut self, ops: &[Op], desired: &DesiredState, host: &ObservedHost) {
        let repairs: Vec<&Op> = repairs(ops, self.verified.as_ref(), desired).collect();
        if repairs.is_empty() {
            return;
        }
        let removals = self.removals.borrow().clone();
        let evidence = Evidence {
            host,
            removers: &removals.removers,
        };
        for op in &repairs {
            let object = op.object();
            self.metrics.repaired(&object, 1);
            let owners = desired.claims.get(&object).into_iter().flatten();
            let owners = owners.map(String::as_str);
            self.interference
                .note(&object, owners, evidence, clock::now());
        }
        tracing::warn!(
            operations = repairs.len(),
            reason = Reason::DriftRepaired.as_str(),
            "the kernel was changed behind our back, repairing"
        );
    }

    /// Addresses that this node held and that are not there: the fence knows whether they are to be. From a device that is down
    /// the kernel itself takes those of IPv6.
    pub(super) fn miss(&mut self, view: &LeadershipView, host: &ObservedHost, looked_at: Tick) {
        let present: BTreeSet<&AddressKey> = host.addresses.iter().map(|(key, _)| key).collect();
        let gone = |held: &BTreeSet<AddressKey>| -> BTreeSet<AddressKey> {
            let is_up = |device: &str| host.links.get(device).is_some_and(|link| link.up);
            let gone = held
                .iter()
                .filter(|key| !present.contains(key) && is_up(&key.device));
            gone.cloned().collect()
        };
        let missing: BTreeMap<String, BTreeSet<AddressKey>> = view
            .held
            .iter()
            .map(|(router, held)| (router.clone(), gone(held)))
            .filter(|(_, gone)| !gone.is_empty())
            .collect();
        if !missing.is_empty() {
            self.leadership.missing(missing, looked_at);
        }
    }

    /// Addresses that the fence has put back.
    pub(super) fn note_restored(&mut self, view: &LeadershipView, host: &ObservedHost) {
        if self.restored == view.restored {
            return;
        }
        let removals = self.removals.borrow().clone();
        let evidence = Evidence {
            host,
            removers: &removals.removers,
        };
        for (router, restored) in &view.restored {
            for (key, count) in restored {
                let before = self.restored.get(router).and_then(|known| known.get(key));
                // One that was not wanted for a while begins anew.
                let more = match before {
                    Some(before) if before <= count => count - before,
                    _ => *count,
                };
                if more == 0 {
                    continue;
                }
                let object = Object::Address(key.clone());
                self.metrics.repaired(&object, more);
                let owners = self.book.inputs().iter().filter(|plan| {
                    plan.spec.virtual_router_name == *router
                        && planned(&plan.spec).any(|address| address == key.address)
                });
                let owners = owners.map(|plan| plan.name.as_str());
                self.interference
                    .note(&object, owners, evidence, clock::now());
                tracing::warn!(
                    reason = Reason::DriftRepaired.as_str(),
                    "{object} was removed behind our back, it was put back"
                );
            }
        }
        self.restored.clone_from(&view.restored);
    }

    /// What is told of plans, and when to look again, after a pass that took so long.
    pub(super) fn tell_interference(&mut self, pass: Duration) -> BTreeMap<String, String> {
        let now = clock::now();
        let entries = self.book.entries();
        self.interference
            .retain(now, |plan| entries.contains_key(plan));
        self.wake_in(self.interference.next_look(now, pass));
        self.interference.told(now)
    }
}
