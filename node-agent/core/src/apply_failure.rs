//! Services of a router that the kernel of this node refuses: a director that cannot serve all of them gives way to one
//! that can (leadership.md, rule 7).
//!
//! It keeps its addresses until such a director is there. Where every director fails alike, as with a module that none of
//! them has, nothing moves.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;
use lvs_crds::tracking::Deduction;

use crate::desired::PlanInput;
use crate::election::Tick;
use crate::verdict::Verdict;

/// A failure that is shorter is tried again first: the loop does so after half a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// Since when services of routers have failed.
#[derive(Clone, Debug, Default)]
pub struct ApplyFailures {
    since: BTreeMap<String, Tick>,
}

/// What failures come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What speaks against this node, by router.
    pub deductions: BTreeMap<String, Deduction>,
    /// How long until the next of the other failures counts.
    pub due: Option<Duration>,
}

impl ApplyFailures {
    /// Notes how the plans stand now.
    pub fn note(
        &mut self,
        plans: &[PlanInput],
        verdicts: &BTreeMap<String, Verdict>,
        now: Tick,
    ) -> Judgement {
        let failing = failing(plans, verdicts);
        self.since.retain(|router, _| failing.contains_key(router));
        let mut judgement = Judgement::default();
        for (router, deduction) in failing {
            let since = *self.since.entry(router.clone()).or_insert(now);
            let left = PATIENCE.saturating_sub(now.since(since));
            if left.is_zero() {
                judgement.deductions.insert(router, deduction);
            } else {
                judgement.due = Some(judgement.due.map_or(left, |due| due.min(left)));
            }
        }
        judgement
    }
}

/// The first failure of each router that has one.
fn failing(
    plans: &[PlanInput],
    verdicts: &BTreeMap<String, Verdict>,
) -> BTreeMap<String, Deduction> {
    let set_aside = |plan: &PlanInput| {
        let leaderships = plans
            .iter()
            .filter(|other| other.spec.virtual_router_name == plan.spec.virtual_router_name)
            .filter_map(|other| other.spec.director.as_ref()?.leadership.as_ref());
        let addresses = plan.spec.director.iter().flat_map(|it| &it.addresses);
        let addresses: Vec<_> = addresses.map(|planned| planned.address).collect();
        leaderships
            .flat_map(|leadership| &leadership.addresses_set_aside)
            .any(|address| addresses.contains(address))
    };
    let mut failing = BTreeMap::new();
    for plan in plans {
        let is_directed = plan.spec.director.is_some() && plan.spec.state != PlanState::Withdrawn;
        let Some(Verdict::NotProgrammed { reason, message }) = verdicts.get(&plan.name) else {
            continue;
        };
        if !is_directed || !is_refusal(*reason) || set_aside(plan) {
            continue;
        }
        let source = &plan.spec.source;
        let name = if source.namespace.is_empty() {
            source.name.clone()
        } else {
            format!("{}/{}", source.namespace, source.name)
        };
        let router = plan.spec.virtual_router_name.clone();
        failing.entry(router).or_insert_with(|| Deduction {
            priority_delta: 0,
            reason: reason.as_str().to_owned(),
            message: format!("{name} cannot be served here: {message}"),
        });
    }
    failing
}

/// Whether the kernel of this node is to blame. Links and endpoints are judged by themselves, and what cannot be decided
/// from the plans is alike on every director.
const fn is_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::KernelError
            | Reason::KernelModuleMissing
            | Reason::PermissionDenied
            | Reason::SysctlReadOnly
            | Reason::VerificationFailed
            | Reason::IPv6Unavailable
            | Reason::ForeignObject
    )
}
