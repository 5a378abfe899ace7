//! A RealServer that may be several real servers: what the endpoints of a Service and the addresses of a name have in
//! common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::real_server::{RealServerSpec, TargetType};
use lvs_crds::value::{AddressFamily, Forwarding};
use lvs_crds::virtual_service::Grouping;

use crate::input::{ObjectKey, RealServerObject};
use crate::service;
use crate::target::{self, Context, Target};

/// Most destinations of one plan (`crds/src/node_plan`): of each of its services, and of all together, which the
/// agent reports in one list. Objects stay well below what the API server stores.
const DESTINATIONS_MAXIMUM: usize = 4096;

/// Whether a RealServer stands for as many real servers as somebody else says.
pub(crate) fn is_expanded(object: &RealServerObject) -> bool {
    let type_ = object.spec().map(|spec| spec.target.type_);
    matches!(type_, Some(TargetType::Service | TargetType::DNSName))
}

/// How many addresses fit into the plan of a VirtualService beside `others`, its real servers that are one each.
pub(crate) fn room(context: &Context<'_>, others: usize) -> usize {
    let services: usize = match context.spec.grouping {
        Grouping::PerPort => context.addresses.iter().map(|a| a.ports.len()).sum(),
        Grouping::FirewallMark => families(context).len(),
    };
    (DESTINATIONS_MAXIMUM / services.max(1)).saturating_sub(others)
}

/// Addresses of a RealServer in the stored plans of the VirtualService.
pub(crate) fn planned(context: &Context<'_>, key: &ObjectKey) -> BTreeSet<IpAddr> {
    service::stored_services(context.stored)
        .flat_map(|service| &service.real_servers)
        .filter(|destination| destination.name == key.name)
        .map(|destination| destination.address)
        .collect()
}

/// Families of the VirtualService's addresses; empty while it has none.
pub(crate) fn families(context: &Context<'_>) -> BTreeSet<AddressFamily> {
    let addresses = context.addresses.iter();
    addresses
        .map(|accepted| AddressFamily::of(&accepted.address))
        .collect()
}

/// Addresses that the namespace may aim at, as it may by address, and why not at the first of the others.
pub(crate) fn permitted(
    context: &Context<'_>,
    addresses: impl Iterator<Item = IpAddr>,
) -> (BTreeSet<IpAddr>, Option<String>) {
    let mut first = None;
    let permitted = addresses
        .filter(|address| {
            let obstacle = target::obstacle(context, address);
            let is_permitted = obstacle.is_none();
            first = first.take().or(obstacle);
            is_permitted
        })
        .collect();
    (permitted, first)
}

/// How packets reach the real servers.
pub(crate) fn forwarding(context: &Context<'_>, spec: &RealServerSpec) -> Forwarding {
    let own = spec.forwarding.clone();
    own.unwrap_or_else(|| context.spec.forwarding.clone())
}

/// One address as a real server with weight, limits and administrative state of the RealServer, without ports.
pub(crate) fn target(
    key: &ObjectKey,
    spec: &RealServerSpec,
    address: IpAddr,
    forwarding: &Forwarding,
) -> Target {
    let thresholds = spec.connection_thresholds.clone().unwrap_or_default();
    Target {
        name: key.name.clone(),
        addresses: vec![address],
        node_name: None,
        is_endpoint: true,
        forwarding: forwarding.clone(),
        weight: spec.weight,
        upper_threshold: thresholds.upper,
        lower_threshold: thresholds.lower,
        administrative_state: spec.administrative_state,
        // Whoever empties a node ends its pods, which says it all.
        is_cordoned: false,
        ports: BTreeMap::new(),
    }
}
