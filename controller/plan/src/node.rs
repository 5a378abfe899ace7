//! What nodes do as real servers of one VirtualService.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, RealServerPlan, ReturnPath, TunnelEndpoint};
use lvs_crds::value::{AddressFamily, ForwardingType};
use lvs_crds::virtual_service::{Grouping, ServicePort};

use crate::input::Inputs;
use crate::report::Verdict;
use crate::target::{Target, Targets};
use crate::tenancy::AcceptedAddress;

/// The way back to the directors of one router.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectorSide {
    /// Addresses that move with the router by themselves.
    pub additional_addresses: Vec<IpAddr>,
    /// The directors.
    pub directors: BTreeSet<String>,
}

impl DirectorSide {
    /// Gateways of a NAT real server, in order of preference: addresses that move with the
    /// router; else, of a sole director, its own.
    fn gateways(&self, inputs: &Inputs, family: AddressFamily) -> Vec<IpAddr> {
        let of_family = |address: &&IpAddr| AddressFamily::of(address) == family;
        let moving: Vec<_> = self
            .additional_addresses
            .iter()
            .filter(of_family)
            .copied()
            .collect();
        if !moving.is_empty() {
            return moving;
        }
        let sole = self.directors.first().filter(|_| self.directors.len() == 1);
        let node = sole.and_then(|name| inputs.nodes.get(name));
        node.map(|node| {
            node.internal_addresses
                .iter()
                .filter(of_family)
                .copied()
                .collect()
        })
        .unwrap_or_default()
    }

    fn is_sole_director(&self, node_name: &str) -> bool {
        self.directors.len() == 1 && self.directors.contains(node_name)
    }
}

#[derive(Default)]
struct Part {
    direct_routing_addresses: BTreeSet<IpAddr>,
    tunnels: BTreeMap<(IpAddr, lvs_crds::value::Tunnel), BTreeSet<IpAddr>>,
    return_paths: BTreeSet<ReturnPath>,
}

/// What decides about the real-server parts of one VirtualService.
pub struct Work<'a> {
    /// The cluster.
    pub inputs: &'a Inputs,
    /// The VirtualService.
    pub spec: &'a VirtualServiceSpec,
    /// Its addresses.
    pub addresses: &'a [AcceptedAddress],
    /// Its real servers.
    pub targets: &'a Targets,
    /// The way back to its directors.
    pub side: &'a DirectorSide,
    /// Its plans as stored.
    pub stored: &'a [&'a NodePlanSpec],
    /// Whether connections to nodes that are no real servers any more may still drain.
    pub is_draining: bool,
}

/// Real-server parts by node. While a selected RealServer cannot be read, and while one that has left drains, parts only
/// grow: which of the stored ones are its cannot be told.
pub fn real_servers(
    work: &Work<'_>,
    problems: &mut Vec<Verdict>,
) -> BTreeMap<String, RealServerPlan> {
    let Work {
        inputs,
        spec,
        addresses,
        targets,
        side,
        stored,
        is_draining,
    } = work;
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    if *is_draining || !targets.undecodable.is_empty() {
        keep_stored(addresses, stored, &mut parts);
    }
    for target in &targets.targets {
        let Some(node_name) = &target.node_name else {
            continue;
        };
        for accepted in *addresses {
            let family = AddressFamily::of(&accepted.address);
            let Some(local_address) = target.address_for(family) else {
                continue;
            };
            let served: Vec<_> = served_ports(spec, accepted, target);
            if served.is_empty() {
                continue;
            }
            let part = parts.entry(node_name.clone()).or_default();
            match target.forwarding.type_ {
                ForwardingType::DR => {
                    part.direct_routing_addresses.insert(accepted.address);
                }
                ForwardingType::TUN => {
                    let tunnel = target.forwarding.tunnel.clone().unwrap_or_default();
                    part.tunnels
                        .entry((local_address, tunnel))
                        .or_default()
                        .insert(accepted.address);
                }
                // What comes from an address of the director's own is answered to it.
                ForwardingType::FullNAT => {}
                ForwardingType::NAT if side.is_sole_director(node_name) => {}
                ForwardingType::NAT => {
                    let gateways = side.gateways(inputs, AddressFamily::of(&local_address));
                    if gateways.is_empty() {
                        problems.push(unresolved(node_name, local_address));
                        continue;
                    }
                    for (port, first, last) in served {
                        part.return_paths.insert(ReturnPath {
                            source_address: local_address,
                            protocol: port.protocol,
                            port: first,
                            end_port: last,
                            gateways: gateways.clone(),
                        });
                    }
                }
            }
        }
    }
    parts
        .into_iter()
        .map(|(node_name, part)| (node_name, part.finish()))
        .filter(|(_, plan)| !is_empty(plan))
        .collect()
}

/// Whether a node has nothing to do.
pub fn is_empty(plan: &RealServerPlan) -> bool {
    plan.direct_routing_addresses.is_empty()
        && plan.tunnels.is_empty()
        && plan.return_paths.is_empty()
}

impl Part {
    fn finish(self) -> RealServerPlan {
        RealServerPlan {
            direct_routing_addresses: self.direct_routing_addresses.into_iter().collect(),
            tunnels: self
                .tunnels
                .into_iter()
                .map(
                    |((local_address, tunnel), virtual_addresses)| TunnelEndpoint {
                        local_address,
                        tunnel,
                        virtual_addresses: virtual_addresses.into_iter().collect(),
                    },
                )
                .collect(),
            return_paths: self.return_paths.into_iter().collect(),
        }
    }
}

/// Ports of the service on this address that the host serves, and where on the host.
fn served_ports<'a>(
    spec: &'a VirtualServiceSpec,
    accepted: &AcceptedAddress,
    target: &Target,
) -> Vec<(&'a ServicePort, u16, u16)> {
    let indexed = spec
        .ports
        .iter()
        .enumerate()
        .filter(|(index, _)| accepted.ports.contains(index));
    indexed
        .filter_map(|(index, port)| {
            let on_host = *target.ports.get(&index)?;
            let first = if spec.grouping == Grouping::FirewallMark {
                port.port
            } else {
                on_host
            };
            let length = port.end_port.unwrap_or(port.port).saturating_sub(port.port);
            Some((port, first, first.saturating_add(length)))
        })
        .collect()
}

fn keep_stored(
    addresses: &[AcceptedAddress],
    stored: &[&NodePlanSpec],
    parts: &mut BTreeMap<String, Part>,
) {
    let still: BTreeSet<_> = addresses.iter().map(|accepted| accepted.address).collect();
    for plan in stored
        .iter()
        .filter(|plan| plan.state != PlanState::Withdrawn)
    {
        let Some(real_server) = &plan.real_server else {
            continue;
        };
        let part = parts.entry(plan.node_name.clone()).or_default();
        part.direct_routing_addresses.extend(
            real_server
                .direct_routing_addresses
                .iter()
                .filter(|a| still.contains(a)),
        );
        for tunnel in &real_server.tunnels {
            let kept = tunnel
                .virtual_addresses
                .iter()
                .filter(|address| still.contains(address));
            let kept: BTreeSet<_> = kept.copied().collect();
            if !kept.is_empty() {
                part.tunnels
                    .entry((tunnel.local_address, tunnel.tunnel.clone()))
                    .or_default()
                    .extend(kept);
            }
        }
        part.return_paths
            .extend(real_server.return_paths.iter().cloned());
    }
}

fn unresolved(node_name: &str, address: IpAddr) -> Verdict {
    Verdict::bad(
        ConditionType::ResolvedRefs,
        Reason::ReturnPathUnresolved,
        format!(
            "replies of NAT real server {address} on node {node_name} have no way back: give the VirtualRouter an \
             {:?} address in spec.additionalAddresses on the real servers' subnet, or a single director",
            AddressFamily::of(&address)
        ),
    )
}
