//! What directors watch of themselves, and which addresses count for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualRouterSpec;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{AddressState, PlannedTrackedInterface, SourceKind};
use lvs_crds::tracking::Deduction;

use crate::input::{Inputs, Node};
use crate::lifecycle::{Membership, plans_on_nodes};
use crate::router::Router;

/// Interfaces whose link the directors of a router watch, with their devices. Names that spec.interfaces lacks were
/// refused when the router was read.
pub(crate) fn tracked_interfaces(router: &Router<'_>) -> Vec<PlannedTrackedInterface> {
    let tracked = router.spec.tracking.interfaces.iter();
    tracked
        .filter_map(|tracked| {
            let mut interfaces = router.spec.interfaces.iter();
            let interface =
                interfaces.find(|interface| interface.name == tracked.interface_name)?;
            Some(PlannedTrackedInterface {
                interface_name: tracked.interface_name.clone(),
                devices: interface.devices.clone(),
                priority_delta: tracked.priority_delta,
            })
        })
        .collect()
}

/// Lowest and highest priority of a director that does not give way (RFC 9568 §5.2.4).
const PRIORITIES: (i32, i32) = (1, 254);

/// What the conditions of a director's Node cost it, in the order of the router's list. A Node that is not there has no
/// condition that could be judged.
pub(crate) fn node_deductions(spec: &VirtualRouterSpec, node: Option<&Node>) -> Vec<Deduction> {
    let Some(node) = node else {
        return Vec::new();
    };
    let tracked = spec.tracking.node_conditions.iter();
    tracked
        .filter(|tracked| node.condition(&tracked.type_) == tracked.status)
        .map(|tracked| {
            let status = tracked.status.as_str();
            let missing = if node.conditions.contains_key(&tracked.type_) {
                ""
            } else {
                ": it has none"
            };
            Deduction {
                priority_delta: tracked.priority_delta,
                reason: Reason::NodeCondition.as_str().to_owned(),
                message: format!(
                    "condition {} of the node is {status}{missing}",
                    tracked.type_
                ),
            }
        })
        .collect()
}

/// The priority of a director's plan: 0, by which it gives way to any other that is ready, while its node is about to go or
/// has a condition that is a fault.
pub(crate) fn priority(spec: &VirtualRouterSpec, node: Option<&Node>, configured: u8) -> u8 {
    let deductions = node_deductions(spec, node);
    let gives_way = node.is_some_and(|node| node.is_cordoned)
        || deductions
            .iter()
            .any(|deduction| deduction.priority_delta == 0);
    if gives_way {
        return 0;
    }
    let deltas = deductions.iter().map(|deduction| deduction.priority_delta);
    let sum = deltas.fold(i32::from(configured), i32::saturating_add);
    u8::try_from(sum.clamp(PRIORITIES.0, PRIORITIES.1)).unwrap_or(configured)
}

/// Addresses of VirtualServices that every director reports as unavailable. The addresses of a router move as one, and a
/// director that lacks one of them is at fault; an address that none can hold would stop the whole router, and with it
/// everybody else's VirtualServices. The router's own addresses are never set aside: they are its administrator's.
pub(crate) fn addresses_set_aside(
    inputs: &Inputs,
    router: &Router<'_>,
    membership: &Membership,
) -> Vec<IpAddr> {
    let mut unavailable: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for (spec, plan) in plans_on_nodes(inputs) {
        if spec.source.kind != SourceKind::VirtualService
            || spec.virtual_router_name != router.meta.key.name
            || !membership.directors.contains_key(&spec.node_name)
        {
            continue;
        }
        let reported = plan
            .object
            .status
            .iter()
            .flat_map(|status| &status.addresses);
        for status in reported.filter(|status| status.state == AddressState::Unavailable) {
            let nodes = unavailable.entry(status.address).or_default();
            nodes.insert(&spec.node_name);
        }
    }
    let additional = |address: &IpAddr| {
        let additional = router.additional_addresses.iter();
        let mut planned = additional.chain(&router.source_addresses);
        planned.any(|planned| planned.address == *address)
    };
    unavailable
        .into_iter()
        .filter(|(address, nodes)| {
            nodes.len() == membership.directors.len() && !additional(address)
        })
        .map(|(address, _)| address)
        .collect()
}
