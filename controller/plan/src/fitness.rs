//! What directors watch of themselves, and which addresses count for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::node_plan::{AddressState, PlannedTrackedInterface, SourceKind};

use crate::input::Inputs;
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
        let mut planned = router.additional_addresses.iter();
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
