//! Which clients would notice: virtual services whose real servers come, go or change weight.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::desired::{DesiredState, Roles, RouterRole};
use lvs_core::health::service_key;
use lvs_core::ipvs::{Destination, DestinationKey, ServiceKey, ServiceState};
use lvs_crds::node_plan::{NodePlanSpec, PlannedService, SourceKind};
use lvs_plan::Inputs;
use lvs_plan::input::ObjectKey;
use serde::Serialize;

use super::table::moved_percent;

/// What a node should hold, and of which routers it is master, before and after.
pub type Wanted = BTreeMap<String, [(DesiredState, Roles); 2]>;

/// A virtual service whose real servers change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientChange {
    /// VirtualService.
    pub virtual_service: String,
    /// The service in the kernel, as ipvsadm writes it; of a range of ports the first.
    pub service: String,
    /// Scheduler.
    pub scheduler: String,
    /// What clients notice, a line each.
    pub effects: Vec<String>,
    /// Of clients by address, the percentage that another real server gets, where the scheduler chooses by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_percent: Option<f64>,
}

/// A service of the kernel on the master of its router.
struct Found<'a> {
    virtual_service: String,
    state: &'a ServiceState,
    planned: &'a PlannedService,
}

/// Virtual services that change, as their masters have them.
pub fn changes(before: &Inputs, after: &Inputs, wanted: &Wanted) -> Vec<ClientChange> {
    let old = found(before, wanted, 0);
    let new = found(after, wanted, 1);
    let mut changes = Vec::new();
    for (key, old) in &old {
        let change = ClientChange {
            virtual_service: old.virtual_service.clone(),
            service: key.to_string(),
            scheduler: old.state.service.scheduler.clone(),
            effects: Vec::new(),
            moved_percent: None,
        };
        let Some(new) = new.get(key) else {
            changes.push(ClientChange {
                effects: vec!["goes: its clients are served no more".to_owned()],
                ..change
            });
            continue;
        };
        let effects = effects(old, new);
        if !effects.is_empty() {
            changes.push(ClientChange {
                effects,
                moved_percent: moved_percent(old.state, new.state),
                ..change
            });
        }
    }
    changes
}

fn found<'a>(
    inputs: &'a Inputs,
    wanted: &'a Wanted,
    index: usize,
) -> BTreeMap<ServiceKey, Found<'a>> {
    let mut all = BTreeMap::new();
    for (name, plan) in &inputs.node_plans {
        let Some(spec) = plan.object.spec() else {
            continue;
        };
        let Some((desired, roles)) = wanted.get(&spec.node_name).and_then(|both| both.get(index))
        else {
            continue;
        };
        if spec.source.kind != SourceKind::VirtualService
            || roles.of(&spec.virtual_router_name) != RouterRole::Master
        {
            continue;
        }
        for planned in spec.director.iter().flat_map(|plan| &plan.services) {
            let Some(key) = service_key(planned) else {
                continue;
            };
            if desired.owner(&key) != Some(name) {
                continue;
            }
            if let Some(state) = desired.services.get(&key) {
                let virtual_service = source(spec);
                let found = Found {
                    virtual_service,
                    state,
                    planned,
                };
                all.insert(key, found);
            }
        }
    }
    all
}

fn source(spec: &NodePlanSpec) -> String {
    ObjectKey::new(spec.source.namespace.clone(), spec.source.name.clone()).to_string()
}

fn effects(old: &Found<'_>, new: &Found<'_>) -> Vec<String> {
    let mut effects = Vec::new();
    if old.state.service != new.state.service {
        let schedulers = [old, new].map(|found| found.state.service.scheduler.as_str());
        let [before, after] = schedulers;
        effects.push(if before == after {
            "is scheduled otherwise: new connections only".to_owned()
        } else {
            format!("scheduler {before} -> {after}: new connections only")
        });
    }
    let of = |found: &Found<'_>| -> BTreeMap<DestinationKey, Destination> {
        found.state.destinations.iter().copied().collect()
    };
    let (before, after) = (of(old), of(new));
    let keys: BTreeSet<&DestinationKey> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let effect = match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => change(before, after),
            (Some(_), None) => Some(departure(new.planned)),
            (None, Some(after)) => Some(format!("comes with weight {}", after.weight)),
            (None, None) => None,
        };
        let Some(effect) = effect else { continue };
        let name = name(new.planned, key).or_else(|| name(old.planned, key));
        let name = name.map_or_else(String::new, |name| format!("{name} "));
        effects.push(format!("{name}{key} {effect}"));
    }
    effects
}

fn name<'a>(planned: &'a PlannedService, key: &DestinationKey) -> Option<&'a str> {
    let mut real_servers = planned.real_servers.iter();
    let found = real_servers.find(|one| (one.address, one.port) == (key.address, key.port));
    found.map(|one| one.name.as_str())
}

fn change(before: &Destination, after: &Destination) -> Option<String> {
    if before == after {
        return None;
    }
    Some(match (before.weight, after.weight) {
        (old, 0) if old > 0 => {
            "gets no new connections any more; those that it has go on".to_owned()
        }
        (0, new) if new > 0 => format!("gets new connections again, with weight {new}"),
        (old, new) if old != new => format!("weight {old} -> {new}: new connections only"),
        _ => "is forwarded to otherwise: new connections only".to_owned(),
    })
}

fn departure(planned: &PlannedService) -> String {
    match planned.drain_timeout_seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => format!(
            "leaves: it gets no new connections, and those that it has go on for at most {seconds} s"
        ),
        None => "leaves at once: its connections end".to_owned(),
    }
}
