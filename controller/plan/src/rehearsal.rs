//! What a cluster comes to when nobody changes anything more: passes of the controller, and agents that carry out and
//! acknowledge every plan, until nothing changes. A pass alone says only the next step: an address changes routers after it
//! was released, and a node gets its weight after it has prepared itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{
    AddressState, AddressStatus, Candidacy, NodePlanSpec, NodePlanStatus, PlanState, SourceKind,
};

use crate::check::{Finding, check};
use crate::input::{Body, ExistingPlan, Inputs, Meta, Object, ObjectKey};
use crate::report::Truth;
use crate::resolution::{Resolution, resolve};

/// Most passes: each step of a plan's life takes one, and none has as many.
const PASSES_MAXIMUM: usize = 32;

/// Where it comes to rest.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The cluster then: plans that every agent has carried out, each Lease with its holder.
    pub inputs: Inputs,
    /// The last pass.
    pub resolution: Resolution,
    /// Contradictions that the critic finds in a pass: then the controller would write nothing, and this is where it stops.
    pub findings: Vec<Finding>,
    /// Whether it has come to rest.
    pub is_settled: bool,
}

/// Goes on from `inputs` until nothing changes. Every agent is taken to answer, whatever it does now.
pub fn rehearse(mut inputs: Inputs) -> Rehearsal {
    let mut passes = 0;
    loop {
        elect(&mut inputs);
        acknowledge(&mut inputs);
        let resolution = resolve(&inputs);
        let findings = check(&resolution);
        let is_settled = is_quiet(&resolution);
        passes += 1;
        if is_settled || !findings.is_empty() || passes == PASSES_MAXIMUM {
            return Rehearsal {
                inputs,
                resolution,
                findings,
                is_settled,
            };
        }
        write(&mut inputs, &resolution);
    }
}

fn is_quiet(resolution: &Resolution) -> bool {
    resolution.plans.values().all(|planned| !planned.is_changed)
        && resolution.deletions.is_empty()
        && resolution.leases.values().all(|lease| !lease.is_changed)
        && resolution.lease_deletions.is_empty()
}

/// Stores what a pass says.
fn write(inputs: &mut Inputs, resolution: &Resolution) {
    for (name, planned) in resolution.plans.iter().filter(|(_, one)| one.is_changed) {
        let stored = inputs.node_plans.get(name);
        let meta = stored.map_or_else(
            || Meta {
                key: ObjectKey::new(inputs.operator_namespace.clone(), name.clone()),
                uid: format!("uid of {name}"),
                ..Meta::default()
            },
            |stored| stored.object.meta.clone(),
        );
        let plan = ExistingPlan {
            object: Object {
                meta: Meta {
                    generation: meta.generation + 1,
                    ..meta
                },
                body: Body::Decoded(planned.spec.clone()),
                status: stored.and_then(|stored| stored.object.status.clone()),
            },
            resource_version: String::new(),
            owner_uid: Some(planned.owner_uid.clone()),
        };
        inputs.node_plans.insert(name.clone(), Arc::new(plan));
    }
    for name in resolution.deletions.keys() {
        inputs.node_plans.remove(name);
    }
    for (name, planned) in &resolution.leases {
        let lease = inputs.leases.entry(name.clone()).or_default();
        lease.name.clone_from(name);
        lease.virtual_router_name = Some(planned.virtual_router_name.clone());
        lease.directors = Some(planned.directors.join(","));
    }
    for name in &resolution.lease_deletions {
        inputs.leases.remove(name);
    }
    // An allocated address is remembered here too.
    for (key, report) in &resolution.report.virtual_services {
        if let Some(object) = inputs.virtual_services.get_mut(key) {
            let object = Arc::make_mut(object);
            let before = object.status.take().unwrap_or_default();
            let mut status = report.status.clone();
            status.conditions = before.conditions;
            object.status = Some(status);
        }
    }
}

/// Whoever holds a Lease keeps it while he is a director; else it goes to the director with the highest priority.
fn elect(inputs: &mut Inputs) {
    let mut candidates: BTreeMap<&str, Vec<(u8, &str)>> = BTreeMap::new();
    let specs = inputs
        .node_plans
        .values()
        .filter_map(|plan| plan.object.spec());
    for spec in specs.filter(|spec| spec.source.kind == SourceKind::VirtualRouter) {
        let director = spec.director.as_ref();
        let Some(leadership) = director.and_then(|director| director.leadership.as_ref()) else {
            continue;
        };
        let may_hold = matches!(spec.state, PlanState::Active | PlanState::Retained)
            && leadership.candidacy == Candidacy::Permitted
            && inputs.nodes.contains_key(&spec.node_name);
        if may_hold {
            let of_router = candidates.entry(&spec.virtual_router_name).or_default();
            of_router.push((leadership.priority, &spec.node_name));
        }
    }
    let mut elected: Vec<(String, String)> = Vec::new();
    for (router, of_router) in candidates {
        let name = lease_name(router);
        let Some(lease) = inputs.leases.get(&name) else {
            continue;
        };
        let holder = lease.holder_node.as_deref();
        let stays = of_router.iter().any(|(_, node)| Some(*node) == holder);
        // Equal priorities: the first by name.
        let best = of_router
            .iter()
            .max_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(left.1)));
        if let Some((_, node)) = best.filter(|_| !stays) {
            elected.push((name, (*node).to_owned()));
        }
    }
    for (name, node) in elected {
        if let Some(lease) = inputs.leases.get_mut(&name) {
            lease.holder_node = Some(node);
            lease.is_alive = true;
        }
    }
}

/// Every agent has carried out every plan, and says so.
fn acknowledge(inputs: &mut Inputs) {
    let leases = &inputs.leases;
    let holds = |spec: &NodePlanSpec| {
        let lease = leases.get(&lease_name(&spec.virtual_router_name));
        lease.is_some_and(|lease| lease.holder_node.as_deref() == Some(&spec.node_name))
    };
    for plan in inputs.node_plans.values_mut() {
        let Some(spec) = plan.object.spec() else {
            continue;
        };
        let status = carried_out(plan, spec, holds(spec));
        if plan.object.status.as_ref() != Some(&status) {
            Arc::make_mut(plan).object.status = Some(status);
        }
    }
}

/// What an agent says that has carried out a plan; of its real servers what it says now.
fn carried_out(plan: &ExistingPlan, spec: &NodePlanSpec, is_holder: bool) -> NodePlanStatus {
    let is_withdrawn = spec.state == PlanState::Withdrawn;
    let (truth, reason) = if is_withdrawn {
        (Truth::False, Reason::Withdrawn)
    } else {
        (Truth::True, Reason::Programmed)
    };
    let state = if is_holder {
        AddressState::Held
    } else {
        AddressState::Released
    };
    let planned = spec
        .director
        .iter()
        .filter(|_| !is_withdrawn)
        .flat_map(|director| &director.addresses);
    let generation = plan.object.meta.generation;
    NodePlanStatus {
        observed_generation: Some(generation),
        conditions: vec![Condition {
            type_: ConditionType::Programmed.as_str().to_owned(),
            status: truth.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            message: String::new(),
            observed_generation: Some(generation),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        }],
        addresses: planned
            .map(|planned| AddressStatus {
                address: planned.address,
                state,
            })
            .collect(),
        ..plan.object.status.clone().unwrap_or_default()
    }
}
