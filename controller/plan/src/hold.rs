//! Mass removal waits for a word: what would take away more than half of a large set at once is
//! more often a slip (a selector, a label, a deleted namespace) than a wish.
//!
//! Sets are counted per router and over all plans: its VirtualServices, its directors, and the real
//! servers of VirtualServices that are still there.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::node_plan::{NodePlanSpec, PlanState, SourceKind};

use crate::input::{CONFIRM_REMOVAL_ANNOTATION, Inputs};
use crate::lifecycle::plans_on_nodes;
use crate::name::removal_token;
use crate::resolution::PlannedNodePlan;

/// Sets smaller than this are never held.
pub const LARGE_SET_MINIMUM: usize = 8;

/// What is held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// VirtualServices, by uid, whose plans stay as they are.
    pub service_uids: BTreeMap<String, String>,
    /// Plans that stay as they are, by name.
    pub plan_names: BTreeMap<String, String>,
    /// By router: why, and how to confirm.
    pub routers: BTreeMap<String, String>,
}

impl Held {
    /// Takes over what `more` holds; says whether that was anything new.
    pub fn extend(&mut self, more: Self) -> bool {
        let before = self.service_uids.len() + self.plan_names.len();
        for (uid, message) in more.service_uids {
            self.service_uids.entry(uid).or_insert(message);
        }
        for (name, message) in more.plan_names {
            self.plan_names.entry(name).or_insert(message);
        }
        for (router, message) in more.routers {
            self.routers.entry(router).or_insert(message);
        }
        self.service_uids.len() + self.plan_names.len() > before
    }
}

#[derive(Default)]
struct Removal<'a> {
    services: Change<&'a str>,
    directors: Change<&'a str>,
    real_servers: Change<(&'a str, &'a str)>,
    removed_plans: BTreeMap<&'a str, &'a NodePlanSpec>,
}

/// One set before and after.
struct Change<T> {
    before: BTreeSet<T>,
    after: BTreeSet<T>,
}

impl<T> Default for Change<T> {
    fn default() -> Self {
        Self {
            before: BTreeSet::new(),
            after: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Copy> Change<T> {
    fn removed(&self) -> BTreeSet<T> {
        self.before.difference(&self.after).copied().collect()
    }

    fn is_too_much(&self) -> bool {
        self.before.len() >= LARGE_SET_MINIMUM && self.removed().len() * 2 > self.before.len()
    }

    fn text(&self, of: &str) -> Option<String> {
        let removed = self.removed().len();
        (removed > 0).then(|| format!("{removed} of {} {of}", self.before.len()))
    }
}

/// Finds what the planned change would take away and must wait.
pub fn find(inputs: &Inputs, planned: &BTreeMap<String, PlannedNodePlan>) -> Held {
    let live: BTreeSet<&str> = inputs
        .virtual_services
        .values()
        .filter(|object| !object.meta.deleting)
        .map(|object| object.meta.uid.as_str())
        .collect();
    let mut removals: BTreeMap<&str, Removal<'_>> = BTreeMap::new();
    for (spec, plan) in
        plans_on_nodes(inputs).filter(|(spec, _)| spec.state != PlanState::Withdrawn)
    {
        let removal = removals.entry(&spec.virtual_router_name).or_default();
        let name = plan.object.meta.key.name.as_str();
        let (uid, node) = (spec.source.uid.as_str(), spec.node_name.as_str());
        let goes = planned
            .get(name)
            .is_none_or(|planned| planned.spec.state == PlanState::Withdrawn);
        if goes {
            removal.removed_plans.insert(name, spec);
        }
        match spec.source.kind {
            SourceKind::VirtualRouter => {
                removal.directors.before.insert(node);
                removal.directors.after.extend((!goes).then_some(node));
            }
            SourceKind::VirtualService => {
                removal.services.before.insert(uid);
                removal.services.after.extend((!goes).then_some(uid));
                if live.contains(uid) {
                    removal.real_servers.before.extend(destinations(spec));
                }
            }
        }
    }
    let remaining: BTreeSet<_> = planned
        .values()
        .filter(|planned| planned.spec.state != PlanState::Withdrawn)
        .flat_map(|planned| destinations(&planned.spec))
        .collect();
    let mut held = Held::default();
    for (router, removal) in &mut removals {
        removal.real_servers.after.clone_from(&remaining);
        if let Some(message) = removal.must_wait(inputs) {
            for (name, spec) in &removal.removed_plans {
                if live.contains(spec.source.uid.as_str()) {
                    held.service_uids
                        .insert(spec.source.uid.clone(), message.clone());
                } else {
                    held.plan_names.insert((*name).to_owned(), message.clone());
                }
            }
            for (uid, _) in removal.real_servers.removed() {
                held.service_uids.insert(uid.to_owned(), message.clone());
            }
            held.routers.insert((*router).to_owned(), message);
        }
    }
    held
}

fn destinations(spec: &NodePlanSpec) -> impl Iterator<Item = (&str, &str)> {
    let services = spec.director.iter().flat_map(|director| &director.services);
    services
        .flat_map(|service| &service.real_servers)
        .map(|d| (spec.source.uid.as_str(), d.name.as_str()))
}

impl Removal<'_> {
    fn must_wait(&self, inputs: &Inputs) -> Option<String> {
        let is_too_much = self.services.is_too_much()
            || self.directors.is_too_much()
            || self.real_servers.is_too_much();
        if !is_too_much {
            return None;
        }
        let real_servers = self.real_servers.removed();
        let removed_real_servers = real_servers.iter().flat_map(|(uid, name)| [*uid, *name]);
        let token = removal_token(
            self.removed_plans
                .keys()
                .copied()
                .chain(removed_real_servers),
        );
        if inputs.confirmed_removals.contains(&token) {
            return None;
        }
        let texts = [
            self.services.text("VirtualServices"),
            self.directors.text("directors"),
            self.real_servers.text("real servers"),
        ];
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        Some(format!(
            "removing {} at once waits; if that is meant: \
             kubectl annotate namespace {} --overwrite {CONFIRM_REMOVAL_ANNOTATION}={token}",
            texts.join(", "),
            inputs.operator_namespace
        ))
    }
}
