//! The life of plans: who may become candidate, who is leaving, what waits for an address to be
//! released, what is withdrawn and what may finally be deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{AddressState, Candidacy, NodePlanSpec, PlanState, SourceKind};

use crate::input::{ExistingPlan, Inputs};
use crate::router::Router;

/// Directors of one router and where each stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// Directors that shall be, with priority and whether each may acquire the Lease.
    pub directors: BTreeMap<String, (u8, Candidacy)>,
    /// Deselected, but still holding the Lease: it keeps everything until another one has it.
    pub leaving: BTreeSet<String>,
    /// Whoever has a plan of the router, or shall have one: these may update the Lease.
    pub known: BTreeSet<String>,
}

impl Membership {
    /// Every node with director work.
    pub fn nodes(&self) -> impl Iterator<Item = &String> {
        self.directors.keys().chain(&self.leaving)
    }

    /// State of the plans of a node with director work.
    pub fn state_of(&self, node_name: &str) -> PlanState {
        if self.leaving.contains(node_name) {
            PlanState::Leaving
        } else {
            PlanState::Active
        }
    }
}

/// Decides the membership of a router. A director that is new may be candidate only after every
/// director that was there before has acknowledged a plan that lists it, or its Node is gone:
/// otherwise an old director could hold on promises that the new one never gave.
pub fn membership(inputs: &Inputs, router: &Router<'_>) -> Membership {
    let name = router.meta.key.name.as_str();
    let stored: BTreeMap<&str, (&NodePlanSpec, &ExistingPlan)> = plans_on_nodes(inputs)
        .filter(|(spec, _)| {
            spec.source.kind == SourceKind::VirtualRouter && spec.source.uid == router.meta.uid
        })
        .map(|(spec, plan)| (spec.node_name.as_str(), (spec, plan)))
        .collect();
    let holder = inputs
        .leases
        .get(&lease_name(name))
        .and_then(|lease| lease.holder_node.as_deref());

    let mut membership = Membership::default();
    for (node_name, priority) in &router.directors {
        let was_permitted = stored
            .get(node_name.as_str())
            .is_some_and(|(spec, _)| is_permitted(spec));
        let others_know = stored
            .iter()
            .filter(|(other, (spec, plan))| **other != node_name && must_know(spec, plan))
            .all(|(_, (spec, plan))| lists(spec, node_name) && plan.is_acknowledged());
        let candidacy = if was_permitted || others_know {
            Candidacy::Permitted
        } else {
            Candidacy::Pending
        };
        membership
            .directors
            .insert(node_name.clone(), (*priority, candidacy));
    }
    for (node_name, (spec, _)) in &stored {
        let is_deselected = !router.directors.contains_key(*node_name);
        // A director that is named may come back; who is leaving already waits for whoever comes.
        let somebody_can_follow = !router.directors.is_empty()
            || !router.missing_directors.is_empty()
            || spec.state == PlanState::Leaving;
        if is_deselected
            && somebody_can_follow
            && holder == Some(*node_name)
            && spec.state != PlanState::Withdrawn
        {
            membership.leaving.insert((*node_name).to_owned());
        }
    }
    membership.known = router
        .directors
        .keys()
        .cloned()
        .chain(stored.keys().map(|name| (*name).to_owned()))
        .collect();
    membership
}

fn is_permitted(spec: &NodePlanSpec) -> bool {
    let leadership = spec
        .director
        .as_ref()
        .and_then(|director| director.leadership.as_ref());
    let is_member = matches!(spec.state, PlanState::Active | PlanState::Retained);
    is_member && leadership.is_some_and(|leadership| leadership.candidacy == Candidacy::Permitted)
}

/// Whether this director could act on an old set of directors.
fn must_know(spec: &NodePlanSpec, plan: &ExistingPlan) -> bool {
    match spec.state {
        PlanState::Active | PlanState::Retained => is_permitted(spec),
        PlanState::Leaving => true,
        PlanState::Withdrawn => !is_withdrawn(plan),
    }
}

fn lists(spec: &NodePlanSpec, node_name: &str) -> bool {
    let leadership = spec
        .director
        .as_ref()
        .and_then(|director| director.leadership.as_ref());
    spec.state != PlanState::Withdrawn
        && leadership.is_some_and(|leadership| {
            leadership
                .directors
                .iter()
                .any(|director| director == node_name)
        })
}

/// Plans that can be read and whose Node is there. A Node that is gone takes its plans along.
pub fn plans_on_nodes(inputs: &Inputs) -> impl Iterator<Item = (&NodePlanSpec, &ExistingPlan)> {
    inputs
        .node_plans
        .values()
        .filter_map(|plan| Some((plan.object.spec()?, plan.as_ref())))
        .filter(|(spec, _)| inputs.nodes.contains_key(&spec.node_name))
}

/// Whether the agent has removed everything and said so.
pub fn is_withdrawn(plan: &ExistingPlan) -> bool {
    let Some(spec) = plan.object.spec() else {
        return false;
    };
    let conditions = plan
        .object
        .status
        .iter()
        .flat_map(|status| &status.conditions);
    let mut programmed =
        conditions.filter(|condition| condition.type_ == ConditionType::Programmed.as_str());
    spec.state == PlanState::Withdrawn
        && plan.is_acknowledged()
        && programmed.any(|condition| condition.reason == Reason::Withdrawn.as_str())
}

/// Addresses that plans of some router still hold on a node, or may hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holdings {
    /// Address → routers whose plans may hold it, and the nodes of those plans.
    unreleased: BTreeMap<IpAddr, BTreeMap<String, BTreeSet<String>>>,
    /// (router, address) pairs that live plans already serve.
    served: BTreeSet<(String, IpAddr)>,
}

impl Holdings {
    /// Reads the stored plans.
    pub fn read(inputs: &Inputs) -> Self {
        let mut holdings = Self::default();
        for (spec, plan) in plans_on_nodes(inputs) {
            let router = &spec.virtual_router_name;
            let planned = spec
                .director
                .iter()
                .flat_map(|director| &director.addresses)
                .map(|planned| planned.address);
            let reported = plan
                .object
                .status
                .iter()
                .flat_map(|status| &status.addresses);
            let held = reported
                .clone()
                .filter(|status| status.state == AddressState::Held)
                .map(|status| status.address);
            let mut unreleased: BTreeSet<IpAddr> = held.collect();
            if spec.state == PlanState::Withdrawn {
                if !is_withdrawn(plan) {
                    unreleased.extend(planned);
                }
            } else {
                holdings
                    .served
                    .extend(planned.clone().map(|address| (router.clone(), address)));
                unreleased.extend(planned);
            }
            if !plan.is_acknowledged() {
                // The report speaks of an older plan: what it lists may still be there.
                unreleased.extend(reported.map(|status| status.address));
            }
            for address in unreleased {
                let routers = holdings.unreleased.entry(address).or_default();
                routers
                    .entry(router.clone())
                    .or_default()
                    .insert(spec.node_name.clone());
            }
        }
        holdings
    }

    /// Why a router may not have the address yet: another router and its nodes that have not
    /// released it. A router that serves the address already keeps it.
    pub fn blocked_by(&self, router: &str, address: IpAddr) -> Option<(&str, Vec<&str>)> {
        if self.served.contains(&(router.to_owned(), address)) {
            return None;
        }
        let (other, nodes) = self
            .unreleased
            .get(&address)?
            .iter()
            .find(|(other, _)| *other != router)?;
        Some((other, nodes.iter().map(String::as_str).collect()))
    }
}
