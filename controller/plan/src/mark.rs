//! Firewall marks: one VirtualService per mark, the oldest claimant wins.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{NodePlanSpec, PlanState};
use lvs_crds::virtual_service::{Grouping, Marking};

use crate::input::ObjectKey;
use crate::report::Verdict;
use crate::tenancy::Claimant;

/// Mark of each VirtualService with grouping FirewallMark, or why it has none.
pub type Marks = BTreeMap<ObjectKey, Result<u32, Verdict>>;

/// Decides every mark. Marks of `frozen` plans are taken first; a mark that plans or status
/// remember is repeated; fresh ones are the lowest free of the range.
pub fn decide(
    range: &RangeInclusive<u32>,
    claimants: &[Claimant<'_>],
    frozen: &[&NodePlanSpec],
) -> Marks {
    let mut owners: BTreeMap<u32, ObjectKey> = BTreeMap::new();
    for plan in frozen
        .iter()
        .filter(|plan| plan.state != PlanState::Withdrawn)
    {
        for mark in marks_of(plan) {
            let source = ObjectKey::new(plan.source.namespace.clone(), plan.source.name.clone());
            owners.entry(mark).or_insert(source);
        }
    }
    let mut by_age: Vec<_> = claimants
        .iter()
        .filter(|claimant| is_marked(claimant))
        .collect();
    by_age.sort_by_key(|claimant| claimant.service.meta.age());
    let mut marks = Marks::new();
    let mut without = Vec::new();
    for claimant in by_age {
        let key = &claimant.service.meta.key;
        let asked = claimant
            .service
            .spec()
            .and_then(|spec| spec.firewall_mark.as_ref());
        let marking = asked.map_or(Marking::Managed, |asked| asked.marking);
        match (asked.and_then(|asked| asked.value), marking) {
            (None, Marking::External) => {
                marks.insert(
                    key.clone(),
                    Err(invalid(
                        "spec.firewallMark.value is required with marking External",
                    )),
                );
            }
            (Some(0), _) => {
                marks.insert(
                    key.clone(),
                    Err(invalid(
                        "spec.firewallMark.value: 0 is no mark; use 1 or more",
                    )),
                );
            }
            (Some(value), Marking::Managed) if !range.contains(&value) => {
                let message = format!(
                    "spec.firewallMark.value: {value:#x} lies outside the managed range {:#x}-{:#x}, which keeps clear of \
                     other users of marks: choose one inside, leave it unset, or set marking External and mark yourself",
                    range.start(),
                    range.end()
                );
                marks.insert(key.clone(), Err(invalid(message)));
            }
            (Some(value), _) => {
                let verdict = match owners.get(&value) {
                    Some(owner) => Err(in_use(value, owner, key)),
                    None => Ok(value),
                };
                if verdict.is_ok() {
                    owners.insert(value, key.clone());
                }
                marks.insert(key.clone(), verdict);
            }
            (None, Marking::Managed) => {
                match remembered(claimant).filter(|mark| range.contains(mark)) {
                    Some(value) if !owners.contains_key(&value) => {
                        owners.insert(value, key.clone());
                        marks.insert(key.clone(), Ok(value));
                    }
                    _ => without.push(key),
                }
            }
        }
    }
    let mut fresh = range.clone();
    for key in without {
        let free = fresh.find(|mark| *mark != 0 && !owners.contains_key(mark));
        let verdict = free.ok_or_else(|| {
            Verdict::bad(
                ConditionType::Accepted,
                Reason::FirewallMarkExhausted,
                format!(
                    "no firewall mark is left in {:#x}-{:#x}: widen the controller's --firewall-mark-range",
                    range.start(),
                    range.end()
                ),
            )
        });
        marks.insert(key.clone(), verdict);
    }
    marks
}

fn is_marked(claimant: &Claimant<'_>) -> bool {
    claimant
        .service
        .spec()
        .is_some_and(|spec| spec.grouping == Grouping::FirewallMark)
}

fn remembered(claimant: &Claimant<'_>) -> Option<u32> {
    let planned: BTreeSet<_> = claimant
        .plans
        .iter()
        .flat_map(|plan| marks_of(plan))
        .collect();
    let reported = claimant
        .service
        .status
        .as_ref()
        .and_then(|status| status.firewall_mark);
    planned.first().copied().or(reported)
}

fn marks_of(plan: &NodePlanSpec) -> BTreeSet<u32> {
    let services = plan.director.iter().flat_map(|director| &director.services);
    services
        .filter_map(|service| service.firewall_mark.as_ref().map(|mark| mark.mark))
        .collect()
}

fn invalid(message: impl Into<String>) -> Verdict {
    Verdict::bad(ConditionType::Accepted, Reason::Invalid, message)
}

fn in_use(value: u32, owner: &ObjectKey, key: &ObjectKey) -> Verdict {
    let owner = if owner.namespace == key.namespace {
        format!("the older VirtualService {owner}")
    } else {
        "an older VirtualService of another namespace".to_owned()
    };
    Verdict::bad(
        ConditionType::Accepted,
        Reason::FirewallMarkInUse,
        format!(
            "spec.firewallMark.value: {owner} uses {value:#x}: choose another, or leave it unset with marking Managed"
        ),
    )
}
