//! Which real servers one VirtualService uses, and which it may not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::{HealthCheck, HealthCheckPath};
use lvs_crds::node_plan::NodePlanSpec;
use lvs_crds::real_server::{RealServerSpec, TargetType};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::value::{AddressFamily, Forwarding, ForwardingType};
use lvs_crds::virtual_service::{Grouping, ServicePort};

use crate::address_range::parse_address;
use crate::expansion;
use crate::input::{Body, Inputs, ObjectKey, RealServerObject};
use crate::real_server_check::PlannedChecks;
use crate::report::Verdict;
use crate::router::TargetGrant;
use crate::selector;
use crate::source_nat::{self, Sources};
use crate::tenancy::AcceptedAddress;
use crate::{dns_name_target, service_target};

/// A real server that a VirtualService may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// RealServer.
    pub name: String,
    /// Addresses of the host, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Node, if the target is one.
    pub node_name: Option<String>,
    /// Whether it is one endpoint of a Service or one address of a name: its RealServer may be several real servers.
    pub is_endpoint: bool,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Weight.
    pub weight: u16,
    /// Upper threshold.
    pub upper_threshold: u32,
    /// Lower threshold.
    pub lower_threshold: u32,
    /// Whether it is to serve.
    pub administrative_state: AdministrativeState,
    /// Whether it would serve but for its node, which is cordoned.
    pub is_cordoned: bool,
    /// First port on the host by index into the VirtualService's ports; a port that is missing
    /// is not served. 0 stands for all ports.
    pub ports: BTreeMap<usize, u16>,
}

impl Target {
    /// Address by which packets for a virtual address of this family reach the host: one of the
    /// same family, else with TUN one of the other (`ip_vs_ctl.c` permits mixed families only for
    /// tunnels). An endpoint of a Service, or an address of a name, has a twin where the Service or
    /// the name has both families, and leaves the other family to it.
    pub fn address_for(&self, family: AddressFamily) -> Option<IpAddr> {
        let of = |wanted| {
            self.addresses
                .iter()
                .copied()
                .find(|address| AddressFamily::of(address) == wanted)
        };
        let other = match family {
            AddressFamily::IPv4 => AddressFamily::IPv6,
            AddressFamily::IPv6 => AddressFamily::IPv4,
        };
        of(family).or_else(|| {
            if self.forwarding.type_ == ForwardingType::TUN && !self.is_endpoint {
                of(other)
            } else {
                None
            }
        })
    }
}

/// Real servers of one VirtualService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// Usable ones, oldest first; several of a name where the RealServer stands for several.
    pub targets: Vec<Target>,
    /// Problems of each selected RealServer, for its own status.
    pub problems: BTreeMap<ObjectKey, Vec<Verdict>>,
    /// Selected RealServers that cannot be read: what they had is kept.
    pub undecodable: BTreeSet<String>,
    /// Selected RealServers whose Service has a slice that cannot be read, and the addresses that
    /// they had and may still have: these are kept, and what other slices have besides is added.
    pub partly_unknown: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Every selected RealServer, usable or not.
    pub selected: BTreeSet<ObjectKey>,
    /// What directors ask of them.
    pub checks: PlannedChecks,
}

impl Targets {
    /// Notes the targets that can serve none of the addresses.
    pub fn note_unreachable(&mut self, service: &ObjectKey, addresses: &[AcceptedAddress]) {
        for target in &self.targets {
            let reachable =
                |a: &AcceptedAddress| target.address_for(AddressFamily::of(&a.address)).is_some();
            if addresses.is_empty() || addresses.iter().any(reachable) {
                continue;
            }
            let key = ObjectKey::new(service.namespace.clone(), target.name.clone());
            self.problems.entry(key).or_default().push(Verdict::bad(
                ConditionType::Accepted,
                Reason::AddressFamilyMismatch,
                format!(
                    "VirtualService {} has no address of a family that spec.target has: add one there, or use \
                     forwarding type TUN",
                    service.name
                ),
            ));
        }
        self.targets.retain(|target| {
            let reachable =
                |a: &AcceptedAddress| target.address_for(AddressFamily::of(&a.address)).is_some();
            addresses.is_empty() || addresses.iter().any(reachable)
        });
    }
}

/// What decides about targets besides the RealServer itself.
pub struct Context<'a> {
    /// The cluster.
    pub inputs: &'a Inputs,
    /// The VirtualService.
    pub key: &'a ObjectKey,
    /// Its spec.
    pub spec: &'a VirtualServiceSpec,
    /// What its namespace may aim at through its router.
    pub grant: TargetGrant,
    /// Name of its router, for messages.
    pub router_name: &'a str,
    /// Addresses that it has.
    pub addresses: &'a [AcceptedAddress],
    /// Its plans as stored.
    pub stored: &'a [&'a NodePlanSpec],
    /// Addresses of every node.
    pub node_addresses: &'a BTreeSet<IpAddr>,
    /// Addresses that are ours: no real server.
    pub virtual_addresses: &'a BTreeSet<IpAddr>,
    /// Addresses that real servers with forwarding FullNAT see.
    pub sources: &'a Sources<'a>,
    /// RealServers by namespace, so that not every VirtualService looks at all.
    pub candidates: &'a [&'a RealServerObject],
}

/// Selects and judges. Within one port the older of two RealServers with the same target wins.
pub fn resolve(context: &Context<'_>) -> Targets {
    let mut result = Targets::default();
    let mut by_age: Vec<_> = context
        .candidates
        .iter()
        .filter(|object| is_selected(context, object))
        .collect();
    by_age.sort_by_key(|object| object.meta.age());
    let mut taken: BTreeMap<(usize, IpAddr, u16), &ObjectKey> = BTreeMap::new();
    let others = by_age
        .iter()
        .filter(|object| !expansion::is_expanded(object))
        .count();
    let mut room = expansion::room(context, others);
    for object in by_age {
        let key = &object.meta.key;
        result.selected.insert(key.clone());
        let spec = match &object.body {
            Body::Decoded(spec) => spec,
            Body::Undecodable(_) => {
                result.undecodable.insert(key.name.clone());
                continue;
            }
        };
        let mut problems = Vec::new();
        let judged: Vec<Target> = match spec.target.type_ {
            TargetType::Service => {
                if let Some(addresses) = service_target::kept(context, key, spec) {
                    result.partly_unknown.insert(key.name.clone(), addresses);
                }
                service_target::expand(context, key, spec, room, &mut problems)
            }
            TargetType::DNSName => dns_name_target::expand(context, key, spec, room, &mut problems),
            TargetType::Addresses | TargetType::Node => judge(context, key, spec, &mut problems)
                .into_iter()
                .collect(),
        };
        if expansion::is_expanded(object) {
            room = room.saturating_sub(judged.len());
        }
        for mut target in judged {
            let is_own = spec.forwarding.is_some();
            if let Err(verdict) = source_nat::restrict(context, &mut target)
                && is_own
                && !problems.contains(&verdict)
            {
                problems.push(verdict);
            }
            if target.addresses.is_empty() {
                continue;
            }
            target.ports.retain(|index, port| {
                let older = target.addresses.iter().find_map(|address| taken.get(&(*index, *address, *port)));
                if let Some(older) = older {
                    let verdict = Verdict::bad(
                        ConditionType::Accepted,
                        Reason::DuplicateTarget,
                        format!(
                            "VirtualService {} already has this target by the older RealServer {}: delete one of them",
                            context.key.name, older.name
                        ),
                    );
                    if !problems.contains(&verdict) {
                        problems.push(verdict);
                    }
                }
                older.is_none()
            });
            for (index, port) in &target.ports {
                for address in &target.addresses {
                    taken.insert((*index, *address, *port), key);
                }
            }
            if !target.ports.is_empty() {
                result.targets.push(target);
            }
        }
        result.problems.insert(key.clone(), problems);
    }
    result
}

fn is_selected(context: &Context<'_>, object: &RealServerObject) -> bool {
    !object.meta.deleting
        && selector::matches(&context.spec.real_server_selector, &object.meta.labels) == Some(true)
}

fn judge(
    context: &Context<'_>,
    key: &ObjectKey,
    spec: &RealServerSpec,
    problems: &mut Vec<Verdict>,
) -> Option<Target> {
    let (addresses, node_name) = match spec.target.type_ {
        TargetType::Addresses => (host_addresses(context, spec, problems)?, None),
        TargetType::Node => {
            let node = spec.target.node.as_ref();
            let name = node.map(|node| node.name.clone())?;
            (node_addresses(context, spec, &name, problems)?, Some(name))
        }
        // Their addresses are judged one by one, in `service_target` and `dns_name_target`.
        TargetType::Service | TargetType::DNSName => return None,
    };
    for address in &addresses {
        if let Some(why) = forbidden(context, address) {
            problems.push(not_permitted(format!(
                "spec.target: {address} {why}: aim at the host's own address"
            )));
            return None;
        }
    }
    let forwarding = spec
        .forwarding
        .clone()
        .unwrap_or_else(|| context.spec.forwarding.clone());
    let ports = ports(context, key, spec, &forwarding, problems);
    let thresholds = spec.connection_thresholds.clone().unwrap_or_default();
    let is_cordoned =
        spec.administrative_state.is_enabled() && drains_by_cordon(context, node_name.as_deref());
    let target = Target {
        name: key.name.clone(),
        addresses,
        node_name,
        is_endpoint: false,
        forwarding,
        weight: spec.weight,
        upper_threshold: thresholds.upper,
        lower_threshold: thresholds.lower,
        administrative_state: if is_cordoned {
            AdministrativeState::Draining
        } else {
            spec.administrative_state
        },
        is_cordoned,
        ports,
    };
    Some(target)
}

/// Whether a real server drains since people are about to take its node away; only where there is a time to drain.
fn drains_by_cordon(context: &Context<'_>, node_name: Option<&str>) -> bool {
    let node = node_name.and_then(|name| context.inputs.nodes.get(name));
    context.spec.drain.is_some() && node.is_some_and(|node| node.is_cordoned)
}

fn host_addresses(
    context: &Context<'_>,
    spec: &RealServerSpec,
    problems: &mut Vec<Verdict>,
) -> Option<Vec<IpAddr>> {
    let addresses = parse_all(&spec.target.addresses, "spec.target.addresses", problems)?;
    for address in &addresses {
        if let Some(why) = ungranted(context, address) {
            problems.push(not_permitted(format!("spec.target.addresses: {why}")));
            return None;
        }
    }
    Some(addresses)
}

/// What keeps the namespace from sending clients to an address that it names, in words.
pub fn obstacle(context: &Context<'_>, address: &IpAddr) -> Option<String> {
    let why = forbidden(context, address);
    why.map(|why| format!("{address} {why}: aim at the host's own address"))
        .or_else(|| ungranted(context, address))
}

/// What is missing in the grants of the router, in words.
fn ungranted(context: &Context<'_>, address: &IpAddr) -> Option<String> {
    let grant = &context.grant;
    let is_node = context.node_addresses.contains(address);
    let mut networks = grant.networks.iter();
    let (is_granted, what, field) = if is_node {
        (grant.nodes, "is a cluster node", "realServerNodes: All")
    } else {
        let is_granted = networks.any(|network| network.contains(address));
        (
            is_granted,
            "lies in no permitted network",
            "realServerCIDRs",
        )
    };
    (!is_granted).then(|| {
        format!(
            "{address} {what}; VirtualRouter {} must grant it to namespace {} by spec.grants[].{field}",
            context.router_name, context.key.namespace
        )
    })
}

fn node_addresses(
    context: &Context<'_>,
    spec: &RealServerSpec,
    name: &str,
    problems: &mut Vec<Verdict>,
) -> Option<Vec<IpAddr>> {
    if !context.grant.nodes {
        problems.push(not_permitted(format!(
            "spec.target.node: VirtualRouter {} must grant nodes to namespace {} by spec.grants[].realServerNodes: All",
            context.router_name, context.key.namespace
        )));
        return None;
    }
    let Some(node) = context.inputs.nodes.get(name) else {
        problems.push(Verdict::bad(
            ConditionType::ResolvedRefs,
            Reason::NodeNotFound,
            format!("spec.target.node.name: the cluster has no node {name}"),
        ));
        return None;
    };
    let chosen = spec
        .target
        .node
        .as_ref()
        .map(|node| node.addresses.as_slice())
        .unwrap_or_default();
    if chosen.is_empty() {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in &node.internal_addresses {
            if !addresses
                .iter()
                .any(|known| AddressFamily::of(known) == AddressFamily::of(address))
            {
                addresses.push(*address);
            }
        }
        if addresses.is_empty() {
            problems.push(Verdict::bad(
                ConditionType::ResolvedRefs,
                Reason::NodeNotFound,
                format!("spec.target.node.name: node {name} has no InternalIP: set spec.target.node.addresses"),
            ));
            return None;
        }
        addresses.sort();
        return Some(addresses);
    }
    let addresses = parse_all(chosen, "spec.target.node.addresses", problems)?;
    for address in &addresses {
        let is_permitted = node.addresses.contains(address)
            || context
                .grant
                .networks
                .iter()
                .any(|network| network.contains(address))
                && !context
                    .inputs
                    .nodes
                    .values()
                    .any(|other| other.addresses.contains(address));
        if !is_permitted {
            problems.push(not_permitted(format!(
                "spec.target.node.addresses: {address} is not an address in the status of node {name}; then \
                 VirtualRouter {} must grant its network to namespace {} by spec.grants[].realServerCIDRs",
                context.router_name, context.key.namespace
            )));
            return None;
        }
    }
    Some(addresses)
}

fn parse_all(texts: &[String], field: &str, problems: &mut Vec<Verdict>) -> Option<Vec<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for text in texts {
        let Some(address) = parse_address(text) else {
            problems.push(Verdict::bad(
                ConditionType::Accepted,
                Reason::Invalid,
                format!("{field}: {text:?} is no IP address in its plain spelling"),
            ));
            return None;
        };
        addresses.insert(address);
    }
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}

/// Why nobody may aim there, whatever is granted.
pub(crate) fn forbidden(context: &Context<'_>, address: &IpAddr) -> Option<&'static str> {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_loopback() {
        Some("is a loopback address")
    } else if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_multicast() || is_broadcast {
        Some("is a multicast or broadcast address")
    } else if is_link_local {
        Some("is a link-local address")
    } else if is_mapped {
        Some("is an IPv4-mapped address")
    } else if context.virtual_addresses.contains(address) {
        Some("is a virtual address")
    } else {
        None
    }
}

/// First port on the host for each port of the VirtualService.
pub(crate) fn ports(
    context: &Context<'_>,
    key: &ObjectKey,
    spec: &RealServerSpec,
    forwarding: &Forwarding,
    problems: &mut Vec<Verdict>,
) -> BTreeMap<usize, u16> {
    let service = context.spec;
    let mut refuse = |reason, condition, message: String| {
        problems.push(Verdict::bad(condition, reason, message));
    };
    let through = |check: &&HealthCheck| check.path == HealthCheckPath::VirtualAddress;
    let mut checks = service.health_checks.iter().chain(&spec.health_checks);
    if let Some(check) = checks.find(through).filter(|_| !receives(forwarding)) {
        let (type_, check) = (forwarding.type_, &check.name);
        refuse(
            Reason::Invalid,
            ConditionType::Accepted,
            format!(
                "health check {check} has path VirtualAddress, which needs DR or TUN, and RealServer {} has forwarding type \
                 {type_:?} for VirtualService {}: set another, or remove path",
                key.name, context.key.name
            ),
        );
        return BTreeMap::new();
    }
    if service.grouping == Grouping::FirewallMark {
        if spec.port.is_some() || !spec.ports.is_empty() {
            refuse(
                Reason::PortNotPermitted,
                ConditionType::Accepted,
                format!(
                    "spec.port: VirtualService {} has grouping FirewallMark and keeps every port: unset port and ports",
                    context.key.name
                ),
            );
            return BTreeMap::new();
        }
        return service
            .ports
            .iter()
            .enumerate()
            .map(|(index, _)| (index, 0))
            .collect();
    }
    if spec.port.is_some() && service.ports.len() > 1 {
        refuse(
            Reason::PortNotPermitted,
            ConditionType::Accepted,
            format!(
                "spec.port: VirtualService {} has {} ports: use spec.ports with their names",
                context.key.name,
                service.ports.len()
            ),
        );
        return BTreeMap::new();
    }
    for named in &spec.ports {
        if !service
            .ports
            .iter()
            .any(|port| port.name.as_ref() == Some(&named.name))
        {
            refuse(
                Reason::PortNotFound,
                ConditionType::ResolvedRefs,
                format!(
                    "spec.ports[{}]: VirtualService {} has no port of this name",
                    named.name, context.key.name
                ),
            );
        }
    }
    let mut ports = BTreeMap::new();
    for (index, port) in service.ports.iter().enumerate() {
        let named = spec
            .ports
            .iter()
            .find(|named| port.name.as_ref() == Some(&named.name))
            .map(|named| named.port);
        let asked = spec
            .port
            .or(named)
            .or(port.real_server_port)
            .unwrap_or(port.port);
        match fit(port, asked, forwarding) {
            Ok(()) => {
                ports.insert(index, asked);
            }
            Err(why) => refuse(
                Reason::PortNotPermitted,
                ConditionType::Accepted,
                format!(
                    "port {asked} of RealServer {} for port {} of VirtualService {}: {why}",
                    key.name,
                    crate::status::port_text(port),
                    context.key.name
                ),
            ),
        }
    }
    ports
}

/// Whether packets reach the real server with the virtual address in them.
const fn receives(forwarding: &Forwarding) -> bool {
    matches!(forwarding.type_, ForwardingType::DR | ForwardingType::TUN)
}

fn fit(port: &ServicePort, asked: u16, forwarding: &Forwarding) -> Result<(), &'static str> {
    if asked == port.port {
        return Ok(());
    }
    if !forwarding.type_.translates() {
        return Err(
            "only NAT and FullNAT can change the port: use the same port, or forwarding type NAT",
        );
    }
    if port.port == 0 || asked == 0 {
        return Err("a service of all ports keeps every port: use the same port");
    }
    let length = port.end_port.unwrap_or(port.port).saturating_sub(port.port);
    if asked.checked_add(length).is_none() {
        return Err("the range would go beyond 65535: begin lower");
    }
    Ok(())
}

fn not_permitted(message: String) -> Verdict {
    Verdict::bad(ConditionType::Accepted, Reason::TargetNotPermitted, message)
}
