//! Whether each plan is programmed: what was refused, what the dump after the operations still shows as different, and
//! what stood in the way, brought home to the plans that care about the things concerned.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;

use crate::desired::{DesiredState, PlanInput, Problem};
use crate::diff::Diff;
use crate::journal::Journal;
use crate::object::{Object, blocked_by};
use crate::op::Op;

/// An operation that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The operation.
    pub op: Op,
    /// Reason, as in the condition.
    pub reason: Reason,
    /// What the kernel said and what to do about it.
    pub message: String,
}

/// How one plan stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel holds all that the plan asks for.
    Programmed,
    /// The plan was withdrawn and nothing of it is left but, perhaps, director addresses: those the fence thread
    /// removes, and its word is awaited before the withdrawal is acknowledged.
    Withdrawn,
    /// Something is missing or too much.
    NotProgrammed {
        /// The first reason.
        reason: Reason,
        /// All that is wrong, one after the other.
        message: String,
    },
}

/// Verdicts, and failures that no plan answers for any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// By name of the plan; every plan is in it.
    pub plans: BTreeMap<String, Verdict>,
    /// Failures and differences about things that no present plan wants or wanted, such as a port that a plan had
    /// before it was edited. They are tried again in every pass.
    pub unattributed: Vec<String>,
}

/// The operation of an earlier failure that forbids `op`, if any: it must be skipped.
pub fn blocked<'a>(op: &Op, failures: &'a [Failure]) -> Option<&'a Failure> {
    failures.iter().find(|failure| blocked_by(op, &failure.op))
}

/// Judge every plan. `remaining` is the diff of a dump taken after the operations; `failures` are those of this pass,
/// skipped operations included.
pub fn verdicts(
    plans: &[PlanInput],
    desired: &DesiredState,
    journal: &Journal,
    failures: &[Failure],
    remaining: &Diff,
) -> Verdicts {
    let mut wrongs: BTreeMap<&str, Vec<(Reason, String)>> = BTreeMap::new();
    let mut unattributed = Vec::new();
    for Problem {
        plan,
        reason,
        message,
    } in desired.problems.iter().chain(&remaining.problems)
    {
        let list = wrongs.entry(plan).or_default();
        if !list.iter().any(|(_, other)| other == message) {
            list.push((*reason, message.clone()));
        }
    }
    let mut explained: BTreeSet<Object> = BTreeSet::new();
    for failure in failures {
        let object = failure.op.object();
        let text = format!("{}: {}", failure.op, failure.message);
        let owners = owners(desired, journal, &object);
        for owner in &owners {
            wrongs
                .entry(owner)
                .or_default()
                .push((failure.reason, text.clone()));
        }
        if owners.is_empty() {
            unattributed.push(text);
        }
        explained.insert(object);
    }
    // What differs without any refusal: someone changes it back as fast as we set it.
    for op in &remaining.ops {
        let object = op.object();
        if explained.contains(&object) {
            continue;
        }
        let text = format!("after applying, the kernel still differs: {op}");
        let owners = owners(desired, journal, &object);
        for owner in &owners {
            wrongs
                .entry(owner)
                .or_default()
                .push((Reason::VerificationFailed, text.clone()));
        }
        if owners.is_empty() {
            unattributed.push(text);
        }
    }
    let plans = plans
        .iter()
        .map(|plan| {
            let verdict = match wrongs.get(plan.name.as_str()).map(Vec::as_slice) {
                Some(list @ [(reason, _), ..]) => Verdict::NotProgrammed {
                    reason: *reason,
                    message: joined(list),
                },
                _ if plan.spec.state == PlanState::Withdrawn => Verdict::Withdrawn,
                _ => Verdict::Programmed,
            };
            (plan.name.clone(), verdict)
        })
        .collect();
    Verdicts {
        plans,
        unattributed,
    }
}

/// Messages in a condition are for people: the first three, and how many more.
const MESSAGES_SHOWN: usize = 3;

fn joined(list: &[(Reason, String)]) -> String {
    let mut text: Vec<&str> = list
        .iter()
        .take(MESSAGES_SHOWN)
        .map(|(_, message)| message.as_str())
        .collect();
    let more = list.len().saturating_sub(MESSAGES_SHOWN);
    let rest = format!("and {more} more");
    if more > 0 {
        text.push(&rest);
    }
    text.join("; ")
}

/// Plans that answer for a thing: those that care about it now, else the one that had it.
pub fn owners<'a>(
    desired: &'a DesiredState,
    journal: &'a Journal,
    object: &Object,
) -> BTreeSet<&'a str> {
    if let Some(claimants) = desired.claims.get(object) {
        return claimants.iter().map(String::as_str).collect();
    }
    match object {
        Object::Service(key) => journal
            .services
            .get(key)
            .map(String::as_str)
            .into_iter()
            .collect(),
        _ => BTreeSet::new(),
    }
}
