//! From desired and observed state to operations.
//!
//! Adopt and edit, never flush: what is as wanted is not touched, what can be edited is edited in place, and what is
//! neither wanted nor in the journal is foreign and never named. One list, in an order in which every prefix is safe:
//!
//! 1. devices and GUE ports, 2. sysctls (ARP is quiet before an address appears), 3. addresses, 4. routes, then the
//!    rules that use them, 5. timeouts, sync daemons stopped, services, then destinations added and edited, 6. marks,
//!    which need their service,
//! 7. destinations and services removed, sync daemons started (they find the services of the connections they get, and
//!    none that excludes them), 8. rules, then routes removed, 9. addresses removed, 10. sysctls put back
//!    (ARP may speak again once no address is left to speak of), 11. devices and GUE ports removed.
//!
//! Director addresses are not here: the fence thread alone adds and removes them.

mod host;
mod services;
mod sync_daemons;
mod sysctl;

use std::collections::BTreeMap;

use lvs_crds::condition::Reason;

use crate::desired::{DesiredState, Problem};
use crate::host::SysctlKey;
use crate::ipvs::IpvsTimeouts;
use crate::journal::{Journal, SysctlRecord};
use crate::object::Object;
use crate::observed::Observed;
use crate::op::{IpvsOp, Op};

/// What is to be done, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Operations, in order.
    pub ops: Vec<Op>,
    /// Wanted things that cannot be had, by plan, sorted.
    pub problems: Vec<Problem>,
    /// Originals of the sysctls that `ops` change, for [`Journal::before`].
    pub sysctl_records: BTreeMap<SysctlKey, SysctlRecord>,
}

impl Diff {
    /// Nothing to do and nothing in the way.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.problems.is_empty()
    }
}

/// What to do so that `observed` becomes `desired`, given what is ours.
pub fn diff(desired: &DesiredState, observed: &Observed, journal: &Journal) -> Diff {
    let mut walk = Walk {
        desired,
        observed,
        journal,
        diff: Diff::default(),
    };
    let sysctls = walk.sysctls();
    let host = walk.host(&sysctls);
    let mut services = walk.services();
    let sync_daemons = walk.sync_daemons(&mut services);
    let mut ops = host.links;
    ops.extend(sysctls.set);
    ops.extend(host.source_nat);
    ops.extend(host.add);
    ops.extend(walk.timeouts());
    ops.extend(sync_daemons.stop);
    ops.extend(services.services);
    ops.extend(services.destinations);
    ops.extend(host.marks);
    ops.extend(services.remove);
    ops.extend(sync_daemons.start);
    ops.extend(host.remove);
    ops.extend(sysctls.restore);
    ops.extend(host.remove_links);
    let mut diff = walk.diff;
    diff.ops = ops;
    diff.problems.sort();
    diff.problems.dedup();
    diff
}

struct Walk<'a> {
    desired: &'a DesiredState,
    observed: &'a Observed,
    journal: &'a Journal,
    diff: Diff,
}

impl Walk<'_> {
    /// A problem of every plan that lays claim to `object`.
    fn problem(&mut self, object: &Object, reason: Reason, message: &str) {
        let problems = self.desired.claimants(object).map(|plan| Problem {
            plan: plan.to_owned(),
            reason,
            message: message.to_owned(),
        });
        self.diff.problems.extend(problems);
    }

    fn foreign(&mut self, object: &Object, advice: &str) {
        let message = format!("{object} exists and was not made by this agent: {advice}");
        self.problem(object, Reason::ForeignObject, &message);
    }

    fn timeouts(&self) -> Option<Op> {
        let now = self.observed.timeouts;
        let set = |timeouts: IpvsTimeouts| Some(Op::Ipvs(IpvsOp::SetTimeouts(timeouts)));
        match (self.desired.timeouts, self.journal.timeouts) {
            (Some(wanted), _) if wanted != now => set(wanted),
            // Put back, unless someone else has set them since.
            (None, Some(record)) if now == record.written && now != record.original => {
                set(record.original)
            }
            _ => None,
        }
    }
}
