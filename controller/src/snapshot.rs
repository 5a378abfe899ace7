//! From what was seen to the plain value that planning takes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use lvs_plan::Inputs;
use lvs_plan::input::{Lease, Node, ObjectKey};
use lvs_plan::reading;
use tokio::time::Instant;

use crate::world::{AGENT_ABSENCE, World};

/// What does not come from the API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator.
    pub namespace: String,
    /// Marks that may be allocated.
    pub firewall_mark_range: RangeInclusive<u32>,
}

/// The inputs of a pass, and when they change by the mere passing of time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Inputs.
    pub inputs: Inputs,
    /// Next moment at which a Lease expires or an agent counts as gone.
    pub valid_until: Option<Instant>,
}

/// Takes a snapshot; `None` while some kind has not been listed completely.
pub fn take(world: &mut World, settings: &Settings, now: Instant) -> Option<Snapshot> {
    if !world.missing().is_empty() {
        return None;
    }
    let mut valid_until: Option<Instant> = None;
    let mut until = |moment: Instant| {
        if moment > now {
            valid_until = Some(valid_until.map_or(moment, |known| known.min(moment)));
        }
        moment > now
    };
    remember_agents(world, now);

    let mut inputs = Inputs {
        firewall_mark_range: settings.firewall_mark_range.clone(),
        operator_namespace: settings.namespace.clone(),
        ..Inputs::default()
    };
    inputs.virtual_services = world
        .virtual_services
        .objects()
        .map(|(k, o)| (k.clone(), o.object.clone()))
        .collect();
    inputs.real_servers = world
        .real_servers
        .objects()
        .map(|(k, o)| (k.clone(), o.object.clone()))
        .collect();
    let target_services = world.target_services();
    inputs.endpoint_slices = world
        .endpoint_slices
        .objects()
        .filter(|(k, o)| {
            target_services.contains(&(k.namespace.as_str(), o.object.service_name.as_str()))
        })
        .map(|(k, o)| (k.clone(), o.object.clone()))
        .collect();
    inputs.dns_names.clone_from(&world.dns_names);
    inputs.ca_bundles = world
        .ca_bundles
        .objects()
        .map(|(k, o)| (k.clone(), o.object.clone()))
        .collect();
    inputs.virtual_routers = world
        .virtual_routers
        .objects()
        .map(|(k, o)| (k.name.clone(), o.object.clone()))
        .collect();
    inputs.node_plans = world
        .node_plans
        .objects()
        .map(|(k, o)| (k.name.clone(), o.object.clone()))
        .collect();
    for (key, node) in world.nodes.objects() {
        let has_agent = world
            .agent_seen
            .get(&key.name)
            .is_some_and(|seen| until(*seen + AGENT_ABSENCE));
        inputs.nodes.insert(
            key.name.clone(),
            Node {
                has_agent,
                ..Node::clone(&node.object)
            },
        );
    }
    inputs.namespaces = world
        .namespaces
        .objects()
        .map(|(k, o)| (k.name.clone(), o.object.labels.clone()))
        .collect();
    let observed_leases = world.observed_leases.iter();
    for (name, observed) in
        observed_leases.filter(|(_, observed)| reading::is_of_router(&observed.lease))
    {
        let is_alive = observed.expires_at().is_some_and(&mut until);
        inputs
            .leases
            .insert(name.clone(), Lease::from_api(&observed.lease, is_alive));
    }
    inputs.service_cidrs = world
        .service_cidrs
        .objects()
        .flat_map(|(_, o)| o.object.iter().copied())
        .collect();
    inputs.service_cidrs.sort();
    inputs.api_endpoints = world
        .api_endpoints
        .objects()
        .flat_map(|(_, o)| o.object.iter().copied())
        .collect();
    let operator = world
        .namespaces
        .get(&ObjectKey::new("", settings.namespace.clone()));
    inputs.confirmed_removals = operator
        .map(|namespace| reading::confirmed_removals(&namespace.object.annotations))
        .unwrap_or_default();
    Some(Snapshot {
        inputs,
        valid_until,
    })
}

/// A node has an agent while its pod is there, and for a while after: a rollout replaces pods one by
/// one and must not deselect directors. A controller that has just started believes the plans.
fn remember_agents(world: &mut World, now: Instant) {
    let is_first = world.agent_seen.is_empty();
    let mut present: BTreeSet<String> = world
        .agent_pods
        .objects()
        .map(|(_, node)| node.object.as_ref().clone())
        .collect();
    if is_first {
        let plans = world.node_plans.objects();
        let planned = reading::planned_agents(plans.map(|(_, plan)| plan.object.as_ref()));
        present.extend(planned.map(str::to_owned));
    }
    for node in present {
        world.agent_seen.insert(node, now);
    }
    let known: BTreeSet<String> = world
        .nodes
        .objects()
        .map(|(key, _)| key.name.clone())
        .collect();
    world.agent_seen.retain(|node, _| known.contains(node));
}
