//! IPVS services of one VirtualService: the same on every director.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::node_plan::{
    CheckReference, DirectorPlan, MarkMatch, NodePlanSpec, PlannedAddress, PlannedFirewallMark,
    PlannedRealServer, PlannedService, ServiceAddress, ServiceFirewallMark,
};
use lvs_crds::value::{AddressFamily, ForwardingType};
use lvs_crds::virtual_service::{Grouping, Marking, ServicePort};

use crate::address_range::parse_address;
use crate::real_server_check;
use crate::selector;
use crate::sorry_server;
use crate::source_nat;
use crate::target::{Target, Targets};
use crate::tenancy::AcceptedAddress;

/// What identifies an IPVS service.
type ServiceKey = (Option<ServiceAddress>, Option<ServiceFirewallMark>);

/// Director part of a VirtualService's plans. `stored` are its plans as they are: destinations
/// of RealServers that cannot be read are taken from there. `None` when nothing is to be served.
pub fn build(
    spec: &VirtualServiceSpec,
    addresses: &[AcceptedAddress],
    mark: Option<u32>,
    targets: &Targets,
    sorry_server: Option<sorry_server::Permitted>,
    stored: &[&NodePlanSpec],
) -> Option<DirectorPlan> {
    if addresses.is_empty() {
        return None;
    }
    let kept = kept_destinations(targets, stored);
    let checks = &targets.checks;
    let mut plan = DirectorPlan {
        addresses: addresses
            .iter()
            .map(|a| PlannedAddress {
                address: a.address,
                devices: a.devices.clone(),
            })
            .collect(),
        checks: checks.definitions(),
        ..DirectorPlan::default()
    };
    plan.addresses.sort();
    let service = |key: ServiceKey, port_name, real_servers, checks| {
        let (family, port) = match (&key.0, &key.1) {
            (Some(address), _) => (AddressFamily::of(&address.address), address.port),
            (None, Some(mark)) => (mark.address_family, 0),
            (None, None) => (AddressFamily::IPv4, 0),
        };
        PlannedService {
            address: key.0,
            firewall_mark: key.1,
            port_name,
            scheduler: spec.scheduler.clone(),
            persistence: spec.persistence.clone(),
            packet_scheduling: spec.packet_scheduling,
            real_servers,
            checks,
            on_failure: spec.on_failure,
            quorum: spec.quorum.clone(),
            sorry_server: sorry_server
                .and_then(|permitted| sorry_server::plan(spec, permitted, family, port)),
            drain_timeout_seconds: spec.drain.map(|drain| drain.timeout_seconds),
            slow_start_seconds: spec.slow_start.map_or(0, |slow| slow.duration_seconds),
        }
    };
    match spec.grouping {
        Grouping::PerPort => {
            for accepted in addresses {
                for (index, port) in spec
                    .ports
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| accepted.ports.contains(index))
                {
                    let key = (
                        Some(ServiceAddress {
                            address: accepted.address,
                            protocol: port.protocol,
                            port: port.port,
                            end_port: port.end_port.unwrap_or(port.port),
                        }),
                        None,
                    );
                    let family = AddressFamily::of(&accepted.address);
                    let asked = |name: &str| {
                        let checks = checks.of_real_servers.get(name)?;
                        Some(checks.references(port))
                    };
                    let computed = destinations(&targets.targets, index, family, asked);
                    let real_servers = merge(computed, kept.get(&key));
                    let checks = checks.of_service.references(port);
                    plan.services
                        .push(service(key, port.name.clone(), real_servers, checks));
                }
            }
            plan.services
                .sort_by(|left, right| left.address.cmp(&right.address));
        }
        Grouping::FirewallMark => {
            let mark = mark?;
            let families: BTreeSet<_> = addresses
                .iter()
                .map(|a| AddressFamily::of(&a.address))
                .collect();
            for address_family in families {
                let key = (
                    None,
                    Some(ServiceFirewallMark {
                        mark,
                        address_family,
                    }),
                );
                let asked = |name: &str| {
                    let checks = checks.of_real_servers.get(name)?;
                    Some(checks.references_of_all(accepted_ports(spec, addresses)))
                };
                let computed = destinations(&targets.targets, 0, address_family, asked);
                let real_servers = merge(computed, kept.get(&key));
                let ports = accepted_ports(spec, addresses);
                let checks = checks.of_service.references_of_all(ports);
                plan.services.push(service(key, None, real_servers, checks));
            }
            let marking = spec
                .firewall_mark
                .as_ref()
                .map_or(Marking::Managed, |mark| mark.marking);
            if marking == Marking::Managed {
                plan.firewall_marks.push(PlannedFirewallMark {
                    mark,
                    matches: matches(spec, addresses),
                });
            }
        }
    }
    real_server_check::hold_what_is_named(&mut plan, stored);
    Some(plan)
}

/// Ports that some address has.
fn accepted_ports<'a>(
    spec: &'a VirtualServiceSpec,
    addresses: &'a [AcceptedAddress],
) -> impl Iterator<Item = &'a ServicePort> {
    let ports = spec.ports.iter().enumerate();
    let accepted = ports.filter(|(index, _)| {
        let mut addresses = addresses.iter();
        addresses.any(|address| address.ports.contains(index))
    });
    accepted.map(|(_, port)| port)
}

fn matches(spec: &VirtualServiceSpec, addresses: &[AcceptedAddress]) -> Vec<MarkMatch> {
    let mut matches = BTreeSet::new();
    for accepted in addresses {
        for (_, port) in spec
            .ports
            .iter()
            .enumerate()
            .filter(|(index, _)| accepted.ports.contains(index))
        {
            matches.insert(MarkMatch {
                address: accepted.address,
                protocol: port.protocol,
                port: port.port,
                end_port: port.end_port.unwrap_or(port.port),
            });
        }
    }
    matches.into_iter().collect()
}

/// Destinations of one port. `asked` are the checks of a RealServer that has its own.
fn destinations(
    targets: &[Target],
    index: usize,
    family: AddressFamily,
    asked: impl Fn(&str) -> Option<Vec<CheckReference>>,
) -> Vec<PlannedRealServer> {
    targets
        .iter()
        .filter_map(|target| {
            Some(PlannedRealServer {
                name: target.name.clone(),
                address: target.address_for(family)?,
                port: *target.ports.get(&index)?,
                weight: target.weight,
                forwarding: target.forwarding.clone(),
                upper_threshold: target.upper_threshold,
                lower_threshold: target.lower_threshold,
                administrative_state: target.administrative_state,
                checks: asked(&target.name),
            })
        })
        .collect()
}

/// Destinations in canonical order. A kept one wins over a computed one with the same address and
/// port, as IPVS has only one of them, and over one of the same RealServer with the same address:
/// what cannot be read may say otherwise of it.
fn merge(
    computed: Vec<PlannedRealServer>,
    kept: Option<&BTreeMap<(IpAddr, u16), PlannedRealServer>>,
) -> Vec<PlannedRealServer> {
    let mut merged: BTreeMap<_, _> = kept.cloned().unwrap_or_default();
    let held: BTreeSet<(&str, IpAddr)> = kept
        .into_iter()
        .flat_map(BTreeMap::values)
        .map(|destination| (destination.name.as_str(), destination.address))
        .collect();
    for destination in computed {
        if held.contains(&(destination.name.as_str(), destination.address)) {
            continue;
        }
        merged
            .entry((destination.address, destination.port))
            .or_insert(destination);
    }
    merged.into_values().collect()
}

/// IPVS services of plans as they are stored: each as often as there are directors.
pub(crate) fn stored_services<'a>(
    stored: &[&'a NodePlanSpec],
) -> impl Iterator<Item = &'a PlannedService> {
    let directors = stored.iter().filter_map(|plan| plan.director.as_ref());
    directors.flat_map(|director| &director.services)
}

fn kept_destinations(
    targets: &Targets,
    stored: &[&NodePlanSpec],
) -> BTreeMap<ServiceKey, BTreeMap<(IpAddr, u16), PlannedRealServer>> {
    let mut kept: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    if targets.undecodable.is_empty() && targets.partly_unknown.is_empty() {
        return kept;
    }
    let is_kept = |destination: &&PlannedRealServer| {
        let addresses = targets.partly_unknown.get(&destination.name);
        targets.undecodable.contains(&destination.name)
            || addresses.is_some_and(|addresses| addresses.contains(&destination.address))
    };
    for service in stored_services(stored) {
        let key = (service.address.clone(), service.firewall_mark.clone());
        for destination in service.real_servers.iter().filter(is_kept) {
            let slot = (destination.address, destination.port);
            kept.entry(key.clone())
                .or_default()
                .insert(slot, destination.clone());
        }
    }
    kept
}

/// Refuses what the schema's own rules let through or an older schema let in.
pub fn validate(spec: &VirtualServiceSpec) -> Result<(), String> {
    for text in &spec.addresses {
        if parse_address(text).is_none() {
            return Err(format!(
                "spec.addresses: {text:?} is no IP address in its plain spelling: correct it"
            ));
        }
    }
    if spec.forwarding.type_ == ForwardingType::FullNAT {
        if spec.forwarding.full_nat.is_none() {
            return Err(
                "spec.forwarding.fullNAT is required with type FullNAT: name a pool in its sourceAddressPoolName"
                    .to_owned(),
            );
        }
        source_nat::suits(spec).map_err(|why| {
            format!("spec.forwarding.type FullNAT: this VirtualService has {why}")
        })?;
    }
    if spec.ports.is_empty() {
        return Err("spec.ports is empty: name at least one port".to_owned());
    }
    for port in &spec.ports {
        let field = format!("spec.ports[{}]", crate::status::port_text(port));
        if port
            .end_port
            .is_some_and(|end| end < port.port || port.port == 0)
        {
            return Err(format!(
                "{field}: endPort must not be below port, and port not 0: correct it"
            ));
        }
        let real = port.real_server_port.unwrap_or(port.port);
        if real != port.port && !spec.forwarding.type_.translates() {
            return Err(format!(
                "{field}: realServerPort needs forwarding type NAT or FullNAT: unset it"
            ));
        }
        let length = port.end_port.unwrap_or(port.port).saturating_sub(port.port);
        if real.checked_add(length).is_none() {
            return Err(format!(
                "{field}: realServerPort and the length of the range go beyond 65535: begin lower"
            ));
        }
        if port.port == 0 && spec.grouping == Grouping::PerPort && spec.persistence.is_none() {
            return Err(format!(
                "{field}: port 0, all ports, needs spec.persistence: set it"
            ));
        }
    }
    if selector::matches(&spec.real_server_selector, &BTreeMap::new()).is_none() {
        return Err(
            "spec.realServerSelector has an operator this version does not know: correct it"
                .to_owned(),
        );
    }
    Ok(())
}
