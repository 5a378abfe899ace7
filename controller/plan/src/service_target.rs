//! The endpoints of a Service as real servers of one VirtualService.
//!
//! Every address is a real server of its own, with weight, limits and administrative state of the RealServer. What a
//! slice that cannot be read holds is unknown: as long as there is one, what the RealServer had stays as it was
//! (`service.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::real_server::RealServerSpec;
use lvs_crds::value::{AddressFamily, Forwarding};
use lvs_crds::virtual_service::{Grouping, ServicePort};

use crate::endpoint::{EndpointSlice, EndpointState, Endpoints};
use crate::expansion;
use crate::input::{Body, Inputs, ObjectKey};
use crate::report::Verdict;
use crate::target::{self, Context, Target};

/// Most endpoints of one RealServer that serve one VirtualService.
const ENDPOINTS_MAXIMUM: usize = 256;

/// Addresses that a RealServer had and may still have, if a part of its endpoints is unknown, as a slice cannot be read.
pub(crate) fn kept(
    context: &Context<'_>,
    key: &ObjectKey,
    spec: &RealServerSpec,
) -> Option<BTreeSet<IpAddr>> {
    let service = spec.target.service.as_ref()?;
    let mut slices = slices(context.inputs, &key.namespace, &service.name);
    let is_unknown = slices.any(|(_, slice)| matches!(slice.body, Body::Undecodable(_)));
    is_unknown.then(|| {
        let mut addresses = expansion::planned(context, key);
        // Who may write slices must not keep by an unreadable one what a grant no longer gives.
        addresses.retain(|address| target::obstacle(context, address).is_none());
        addresses
    })
}

/// Slices of a Service, with their names, by name.
fn slices<'a, 'b>(
    inputs: &'a Inputs,
    namespace: &'b str,
    service_name: &'b str,
) -> impl Iterator<Item = (&'a str, &'a EndpointSlice)> + use<'a, 'b> {
    inputs
        .endpoint_slices
        .range(ObjectKey::new(namespace, "")..)
        .take_while(move |(key, _)| key.namespace == namespace)
        .filter(move |(_, slice)| slice.service_name == service_name)
        .map(|(key, slice)| (key.name.as_str(), slice.as_ref()))
}

/// One address of a Service.
struct Endpoint<'a> {
    state: EndpointState,
    /// Slices that have it in this state, by name: what the first does not say, the next may.
    slices: Vec<&'a Endpoints>,
}

/// The endpoints of one RealServer for one VirtualService, while they are judged.
struct Expansion<'a, 'b> {
    context: &'a Context<'b>,
    key: &'a ObjectKey,
    spec: &'a RealServerSpec,
    service_name: &'a str,
    endpoints: BTreeMap<IpAddr, Endpoint<'b>>,
    problems: &'a mut Vec<Verdict>,
}

/// Real servers behind a RealServer with target type Service, at most `room`, by address.
pub(crate) fn expand(
    context: &Context<'_>,
    key: &ObjectKey,
    spec: &RealServerSpec,
    room: usize,
    problems: &mut Vec<Verdict>,
) -> Vec<Target> {
    let Some(service) = &spec.target.service else {
        return Vec::new();
    };
    let mut expansion = Expansion {
        context,
        key,
        spec,
        service_name: &service.name,
        endpoints: BTreeMap::new(),
        problems,
    };
    if !expansion.gather() {
        return Vec::new();
    }
    expansion.keep_families();
    expansion.keep_permitted();
    let forwarding = expansion::forwarding(context, spec);
    let ports = target::ports(context, key, spec, &forwarding, expansion.problems);
    let ports = expansion.ports(&ports, &forwarding);
    expansion
        .endpoints
        .retain(|address, _| ports.contains_key(address));
    expansion.cut(room);
    expansion.targets(ports, &forwarding)
}

impl Expansion<'_, '_> {
    fn refuse(&mut self, condition: ConditionType, reason: Reason, message: String) {
        self.problems.push(Verdict::bad(condition, reason, message));
    }

    /// Collects every endpoint; `false` where there is none.
    fn gather(&mut self) -> bool {
        let namespace = &self.key.namespace;
        let mut slices_seen = 0;
        let mut unreadable = Vec::new();
        for (name, slice) in slices(self.context.inputs, namespace, self.service_name) {
            slices_seen += 1;
            let endpoints = match &slice.body {
                Body::Decoded(endpoints) => endpoints,
                Body::Undecodable(error) => {
                    unreadable.push((name, error));
                    continue;
                }
            };
            for (address, state) in &endpoints.addresses {
                let known = self.endpoints.entry(*address).or_insert_with(|| Endpoint {
                    state: *state,
                    slices: Vec::new(),
                });
                if *state < known.state {
                    known.state = *state;
                    known.slices.clear();
                }
                if *state == known.state {
                    known.slices.push(endpoints);
                }
            }
        }
        let service = self.service_name;
        if let Some((name, error)) = unreadable.first() {
            let more = match unreadable.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "spec.target.service: EndpointSlice {name}{more} of Service {service} cannot be read ({error}); \
                 what the RealServer had keeps working"
            );
            self.refuse(ConditionType::ResolvedRefs, Reason::Undecodable, message);
        } else if slices_seen == 0 {
            let message = format!(
                "spec.target.service.name: namespace {namespace} has no EndpointSlice of a Service {service}: create \
                 the Service, or another RealServer with the right name"
            );
            self.refuse(ConditionType::ResolvedRefs, Reason::NoRealServers, message);
        } else if !self.has_ready() {
            let message =
                format!("spec.target.service: Service {service} has no endpoint that is ready");
            self.refuse(ConditionType::ResolvedRefs, Reason::NoRealServers, message);
        }
        !self.endpoints.is_empty()
    }

    fn has_ready(&self) -> bool {
        let mut endpoints = self.endpoints.values();
        endpoints.any(|endpoint| endpoint.state == EndpointState::Ready)
    }

    /// An endpoint serves virtual addresses of its own family; a Service of both families has endpoints of both.
    fn keep_families(&mut self) {
        let families = expansion::families(self.context);
        if families.is_empty() {
            return;
        }
        self.endpoints
            .retain(|address, _| families.contains(&AddressFamily::of(address)));
        if self.endpoints.is_empty() {
            let message = format!(
                "VirtualService {} has no address of a family that the endpoints of Service {} have: add one there",
                self.context.key.name, self.service_name
            );
            self.refuse(
                ConditionType::Accepted,
                Reason::AddressFamilyMismatch,
                message,
            );
        }
    }

    /// Leaves out what the namespace may not aim at, as it may not by address either.
    fn keep_permitted(&mut self) {
        let count = self.endpoints.len();
        let addresses = self.endpoints.keys().copied();
        let (permitted, why) = expansion::permitted(self.context, addresses);
        self.endpoints
            .retain(|address, _| permitted.contains(address));
        if let Some(why) = why {
            let left_out = count - permitted.len();
            let message =
                format!("spec.target.service: {left_out} of {count} endpoints are left out: {why}");
            self.refuse(ConditionType::Accepted, Reason::TargetNotPermitted, message);
        }
    }

    /// First port of each endpoint by index into the VirtualService's ports. `asked` is what it is where the Service
    /// does not say; an endpoint without any port is left out.
    fn ports(
        &mut self,
        asked: &BTreeMap<usize, u16>,
        forwarding: &Forwarding,
    ) -> BTreeMap<IpAddr, BTreeMap<usize, u16>> {
        let spec = self.context.spec;
        let of_service: Vec<(usize, &ServicePort)> = spec
            .ports
            .iter()
            .enumerate()
            .filter(|(index, port)| {
                asked.contains_key(index) && self.asks_the_service(port, forwarding)
            })
            .collect();
        let mut missing: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (address, endpoint) in &self.endpoints {
            let mut ports = asked.clone();
            for (index, port) in &of_service {
                let mut slices = endpoint.slices.iter();
                if let Some(number) = slices.find_map(|slice| port_of(&spec.ports, port, slice)) {
                    ports.insert(*index, number);
                } else {
                    ports.remove(index);
                    missing.entry(*index).or_default().push(*address);
                }
            }
            if !ports.is_empty() {
                found.insert(*address, ports);
            }
        }
        let count = self.endpoints.len();
        for (index, port) in of_service {
            let Some((first, addresses)) = missing
                .get(&index)
                .and_then(|all| Some((all.first()?, all.len())))
            else {
                continue;
            };
            let text = crate::status::port_text(port);
            let cure = match &port.name {
                Some(name) => format!("name a port of the Service {name}, or set spec.ports here"),
                None => "set spec.port here".to_owned(),
            };
            let message = format!(
                "spec.target.service: Service {} does not say which port of {addresses} of its {count} endpoints, such as \
                 {first}, is {text} of VirtualService {}: {cure}",
                self.service_name, self.context.key.name
            );
            self.refuse(ConditionType::ResolvedRefs, Reason::PortNotFound, message);
        }
        found
    }

    /// Whether the Service says which port of its endpoints it is: where nobody else does and NAT can change it. A range
    /// and all ports stay what they are.
    fn asks_the_service(&self, port: &ServicePort, forwarding: &Forwarding) -> bool {
        let mut named = self.spec.ports.iter();
        let is_said = self.spec.port.is_some()
            || port.real_server_port.is_some()
            || named.any(|named| port.name.as_ref() == Some(&named.name));
        let is_single = port.port != 0 && port.end_port.is_none_or(|end| end == port.port);
        !is_said
            && is_single
            && forwarding.type_.translates()
            && self.context.spec.grouping == Grouping::PerPort
    }

    /// Leaves out what is too much. Who serves comes first, then who is planned already, so that those who have clients
    /// do not give way to new ones.
    fn cut(&mut self, room: usize) {
        let (count, limit) = (self.endpoints.len(), room.min(ENDPOINTS_MAXIMUM));
        if count <= limit {
            return;
        }
        let planned = expansion::planned(self.context, self.key);
        let mut ranked: Vec<_> = self
            .endpoints
            .iter()
            .map(|(address, endpoint)| (endpoint.state, !planned.contains(address), *address))
            .collect();
        ranked.sort_unstable();
        for (_, _, address) in ranked.iter().skip(limit) {
            self.endpoints.remove(address);
        }
        let why = if limit == ENDPOINTS_MAXIMUM {
            format!(
                "a RealServer takes {ENDPOINTS_MAXIMUM}: spread them over several Services, each with a RealServer"
            )
        } else {
            format!(
                "the plan of VirtualService {} has no room for more: give it fewer ports, addresses or RealServers",
                self.context.key.name
            )
        };
        let message = format!(
            "spec.target.service: {} of {count} endpoints of Service {} are left out, as {why}",
            count - limit,
            self.service_name
        );
        self.refuse(ConditionType::Accepted, Reason::TooManyEndpoints, message);
    }

    fn targets(
        self,
        mut ports: BTreeMap<IpAddr, BTreeMap<usize, u16>>,
        forwarding: &Forwarding,
    ) -> Vec<Target> {
        let wanted = self.spec.administrative_state;
        let target = |(address, endpoint): (IpAddr, Endpoint<'_>)| Target {
            administrative_state: endpoint.state.administrative_state(wanted),
            ports: ports.remove(&address).unwrap_or_default(),
            ..expansion::target(self.key, self.spec, address, forwarding)
        };
        self.endpoints.into_iter().map(target).collect()
    }
}

/// Port of a slice for a port of the VirtualService: the one of that name, else the only one of that protocol, if the
/// VirtualService has no other of it either. Two would reach one program.
fn port_of(all: &[ServicePort], port: &ServicePort, slice: &Endpoints) -> Option<u16> {
    let of_protocol = || {
        slice
            .ports
            .iter()
            .filter(|other| other.protocol == port.protocol)
    };
    let named = port
        .name
        .as_ref()
        .and_then(|name| of_protocol().find(|other| other.name == *name));
    let sole = || {
        let is_sole = all
            .iter()
            .filter(|other| other.protocol == port.protocol)
            .count()
            == 1;
        let mut ports = of_protocol();
        let first = ports.next().filter(|_| is_sole)?;
        ports.next().is_none().then_some(first)
    };
    let found = named.or_else(sole)?;
    // All ports: the endpoint takes what it is given.
    Some(found.port.unwrap_or(port.port))
}
