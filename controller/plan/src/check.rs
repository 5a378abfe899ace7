//! An independent critic of finished plans: it shares no code with what made them. A finding is a
//! fault of the planner, never of a user; nothing with a finding may be written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::node_plan::{DirectorPlan, NodePlanSpec, PlanState, PlannedService, SourceKind};
use lvs_crds::value::{AddressFamily, ForwardingType, Protocol};

use crate::resolution::Resolution;

/// A contradiction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Finding {
    /// Two plans of one node would be the same IPVS service.
    #[error("node {node}: plans {first} and {second} both are {service}")]
    SameService {
        /// Node.
        node: String,
        /// The service.
        service: String,
        /// A plan.
        first: String,
        /// Another, or the same twice.
        second: String,
    },
    /// One address serves two namespaces.
    #[error("address {address} is used by namespaces {first} and {second}")]
    SharedAddress {
        /// Address.
        address: IpAddr,
        /// A namespace.
        first: String,
        /// Another.
        second: String,
    },
    /// One address moves with two routers.
    #[error("address {address} moves with routers {first} and {second}")]
    TwoRouters {
        /// Address.
        address: IpAddr,
        /// A router.
        first: String,
        /// Another.
        second: String,
    },
    /// A plan whose source is gone is not being withdrawn.
    #[error("plan {plan} is {state} but its source {source_name} is gone")]
    SourceGone {
        /// Plan.
        plan: String,
        /// Its state.
        state: String,
        /// Name of the source.
        source_name: String,
    },
    /// A real server is a virtual address.
    #[error("plan {plan}: real server {address} is a virtual address")]
    RealServerIsVirtual {
        /// Plan.
        plan: String,
        /// Address.
        address: IpAddr,
    },
    /// Two destinations of one service are the same to IPVS, or out of order.
    #[error(
        "plan {plan}: destinations of {service} repeat or are out of order at {address} port {port}"
    )]
    DestinationOrder {
        /// Plan.
        plan: String,
        /// The service.
        service: String,
        /// Address.
        address: IpAddr,
        /// Port.
        port: u16,
    },
    /// IPVS mixes families only through a tunnel.
    #[error(
        "plan {plan}: real server {address} of {service} is of the other family without a tunnel"
    )]
    MixedFamilies {
        /// Plan.
        plan: String,
        /// The service.
        service: String,
        /// Address.
        address: IpAddr,
    },
    /// A check that the plan names and does not hold.
    #[error("plan {plan}: {service} names check {check}, which the plan does not hold")]
    CheckMissing {
        /// Plan.
        plan: String,
        /// The service.
        service: String,
        /// Name of the check.
        check: String,
    },
    /// A real server would see the client although it is to see a source address.
    #[error("plan {plan}: {service} has no source address for {address}")]
    NoSourceAddress {
        /// Plan.
        plan: String,
        /// The service.
        service: String,
        /// The real server or sorry server.
        address: IpAddr,
    },
    /// Replies to a source address would reach nobody.
    #[error("plan {plan}: node {node} does not hold source address {address}")]
    SourceAddressNotHeld {
        /// Plan.
        plan: String,
        /// Node.
        node: String,
        /// Address.
        address: IpAddr,
    },
    /// A service by address whose address the plan does not hold.
    #[error("plan {plan}: {service} has no address")]
    ServiceWithoutAddress {
        /// Plan.
        plan: String,
        /// The service.
        service: String,
    },
    /// A service that is by both or by neither of address and mark.
    #[error("plan {plan}: a service must be by address or by mark")]
    Unidentified {
        /// Plan.
        plan: String,
    },
    /// Leadership belongs exactly into plans of routers.
    #[error("plan {plan}: leadership in the wrong place")]
    Leadership {
        /// Plan.
        plan: String,
    },
    /// A director's router has no Lease.
    #[error("plan {plan}: Lease {lease} would not exist or not permit node {node}")]
    NoLease {
        /// Plan.
        plan: String,
        /// Lease.
        lease: String,
        /// Node.
        node: String,
    },
    /// A node directs a service of a router it does not direct.
    #[error("plan {plan}: node {node} directs no router {router}")]
    NotADirector {
        /// Plan.
        plan: String,
        /// Node.
        node: String,
        /// Router.
        router: String,
    },
    /// A plan that exists and must be deleted is planned as well, or deleted without being withdrawn.
    #[error("plan {plan} would be deleted and kept")]
    DeletedAndKept {
        /// Plan.
        plan: String,
    },
}

/// A value that [`check`] found nothing against. Only this can be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked<T>(T);

impl Checked<Resolution> {
    /// Checks a resolution.
    pub fn new(resolution: Resolution) -> Result<Self, Vec<Finding>> {
        let findings = check(&resolution);
        if findings.is_empty() {
            Ok(Self(resolution))
        } else {
            Err(findings)
        }
    }
}

impl<T> std::ops::Deref for Checked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Everything that contradicts itself, sorted.
pub fn check(resolution: &Resolution) -> Vec<Finding> {
    let mut critic = Critic::default();
    let standing = resolution
        .plans
        .iter()
        .filter(|(_, planned)| planned.spec.state != PlanState::Withdrawn);
    let standing: Vec<(&str, &NodePlanSpec)> = standing
        .map(|(name, planned)| (name.as_str(), &planned.spec))
        .collect();
    for (name, spec) in &standing {
        critic.address_owners(spec);
        critic.source(resolution, name, spec);
        critic.leadership(resolution, name, spec);
        if let Some(director) = &spec.director {
            critic.services(name, spec, director);
        }
    }
    for (name, spec) in &standing {
        critic.real_servers(name, spec);
        critic.source_addresses(&standing, resolution, name, spec);
        critic.directs(&standing, resolution, name, spec);
    }
    for name in resolution
        .deletions
        .keys()
        .filter(|name| resolution.plans.contains_key(*name))
    {
        critic
            .findings
            .insert(Finding::DeletedAndKept { plan: name.clone() });
    }
    critic.findings.into_iter().collect()
}

#[derive(Default)]
struct Critic {
    findings: BTreeSet<Finding>,
    namespaces: BTreeMap<IpAddr, String>,
    routers: BTreeMap<IpAddr, String>,
    services: BTreeMap<(String, ServiceIdentity), String>,
}

/// One IPVS service of the kernel, or one packet class of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServiceIdentity {
    Port(IpAddr, Protocol, u16),
    Mark(u32, AddressFamily),
    MarkedPort(IpAddr, Protocol, u16),
}

impl std::fmt::Display for ServiceIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(address, protocol, port) => {
                write!(formatter, "{address} {protocol} port {port}")
            }
            Self::Mark(mark, family) => write!(formatter, "mark {mark:#x} {family:?}"),
            Self::MarkedPort(address, protocol, port) => {
                write!(formatter, "marks of {address} {protocol} port {port}")
            }
        }
    }
}

impl Critic {
    fn address_owners(&mut self, spec: &NodePlanSpec) {
        for planned in spec
            .director
            .iter()
            .flat_map(|director| &director.addresses)
        {
            let router = self
                .routers
                .entry(planned.address)
                .or_insert_with(|| spec.virtual_router_name.clone());
            if *router != spec.virtual_router_name {
                let (first, second) = (router.clone(), spec.virtual_router_name.clone());
                self.findings.insert(Finding::TwoRouters {
                    address: planned.address,
                    first,
                    second,
                });
            }
            // A router's own addresses belong to the namespace "", which no VirtualService has.
            let namespace = self
                .namespaces
                .entry(planned.address)
                .or_insert_with(|| spec.source.namespace.clone());
            if *namespace != spec.source.namespace {
                let (first, second) = (namespace.clone(), spec.source.namespace.clone());
                self.findings.insert(Finding::SharedAddress {
                    address: planned.address,
                    first,
                    second,
                });
            }
        }
    }

    fn source(&mut self, resolution: &Resolution, name: &str, spec: &NodePlanSpec) {
        if !resolution.sources.contains(&spec.source.uid) && !resolution.held_plans.contains(name) {
            self.findings.insert(Finding::SourceGone {
                plan: name.to_owned(),
                state: format!("{:?}", spec.state),
                source_name: spec.source.name.clone(),
            });
        }
    }

    fn leadership(&mut self, resolution: &Resolution, name: &str, spec: &NodePlanSpec) {
        let leadership = spec
            .director
            .as_ref()
            .and_then(|director| director.leadership.as_ref());
        if leadership.is_some() != (spec.source.kind == SourceKind::VirtualRouter) {
            self.findings.insert(Finding::Leadership {
                plan: name.to_owned(),
            });
        }
        let Some(leadership) = leadership else { return };
        // Of a router that cannot be read, nothing is written, its Lease neither.
        let is_written = resolution
            .plans
            .get(name)
            .is_some_and(|planned| planned.is_changed);
        let permits = resolution
            .leases
            .get(&leadership.lease_name)
            .is_some_and(|l| l.directors.contains(&spec.node_name));
        if is_written && !permits {
            self.findings.insert(Finding::NoLease {
                plan: name.to_owned(),
                lease: leadership.lease_name.clone(),
                node: spec.node_name.clone(),
            });
        }
    }

    fn services(&mut self, name: &str, spec: &NodePlanSpec, director: &DirectorPlan) {
        for service in &director.services {
            let (identities, family) = match (&service.address, &service.firewall_mark) {
                (Some(served), None) => {
                    let ports = served.port..=served.end_port.max(served.port);
                    let each = ports
                        .map(|port| ServiceIdentity::Port(served.address, served.protocol, port));
                    (each.collect::<Vec<_>>(), AddressFamily::of(&served.address))
                }
                (None, Some(mark)) => (
                    vec![ServiceIdentity::Mark(mark.mark, mark.address_family)],
                    mark.address_family,
                ),
                _ => {
                    self.findings.insert(Finding::Unidentified {
                        plan: name.to_owned(),
                    });
                    continue;
                }
            };
            let text = identities
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            for identity in identities {
                self.claim(name, spec, identity);
            }
            if let Some(served) = &service.address
                && !director
                    .addresses
                    .iter()
                    .any(|planned| planned.address == served.address)
            {
                self.findings.insert(Finding::ServiceWithoutAddress {
                    plan: name.to_owned(),
                    service: text.clone(),
                });
            }
            let of_real_servers = service.real_servers.iter();
            let of_real_servers = of_real_servers.flat_map(|one| one.checks.iter().flatten());
            for reference in service.checks.iter().chain(of_real_servers) {
                let mut held = director.checks.iter();
                if !held.any(|check| check.name == reference.check_name) {
                    self.findings.insert(Finding::CheckMissing {
                        plan: name.to_owned(),
                        service: text.clone(),
                        check: reference.check_name.clone(),
                    });
                }
            }
            self.source_of_each(name, director, service, &text);
            let mut previous = None;
            for destination in &service.real_servers {
                let slot = Some((destination.address, destination.port));
                if previous >= slot {
                    self.findings.insert(Finding::DestinationOrder {
                        plan: name.to_owned(),
                        service: text.clone(),
                        address: destination.address,
                        port: destination.port,
                    });
                }
                previous = slot;
                let is_mixed = AddressFamily::of(&destination.address) != family;
                if is_mixed && destination.forwarding.type_ != ForwardingType::TUN {
                    self.findings.insert(Finding::MixedFamilies {
                        plan: name.to_owned(),
                        service: text.clone(),
                        address: destination.address,
                    });
                }
            }
        }
        for matched in director
            .firewall_marks
            .iter()
            .flat_map(|mark| &mark.matches)
        {
            for port in matched.port..=matched.end_port.max(matched.port) {
                self.claim(
                    name,
                    spec,
                    ServiceIdentity::MarkedPort(matched.address, matched.protocol, port),
                );
            }
        }
    }

    /// Everybody who is to see a source address has one of its family.
    fn source_of_each(
        &mut self,
        name: &str,
        director: &DirectorPlan,
        service: &PlannedService,
        text: &str,
    ) {
        let real_servers = service.real_servers.iter();
        let real_servers = real_servers.map(|one| (Some(one.address), &one.forwarding));
        let sorry_server = service.sorry_server.iter();
        let sorry_server = sorry_server.map(|one| (one.address, &one.forwarding));
        for (address, forwarding) in real_servers.chain(sorry_server) {
            let Some(address) = address.filter(|_| forwarding.type_ == ForwardingType::FullNAT)
            else {
                continue;
            };
            let full_nat = forwarding.full_nat.as_ref();
            let pool_name = full_nat.map(|full_nat| full_nat.source_address_pool_name.as_str());
            let pools = director.source_address_pools.iter();
            let mut sources = pools
                .filter(|pool| Some(pool.name.as_str()) == pool_name)
                .flat_map(|pool| &pool.addresses);
            if !sources.any(|source| AddressFamily::of(source) == AddressFamily::of(&address)) {
                self.findings.insert(Finding::NoSourceAddress {
                    plan: name.to_owned(),
                    service: text.to_owned(),
                    address,
                });
            }
        }
    }

    fn claim(&mut self, name: &str, spec: &NodePlanSpec, identity: ServiceIdentity) {
        let text = identity.to_string();
        let same = self
            .services
            .insert((spec.node_name.clone(), identity), name.to_owned());
        // A marked packet never reaches the service by port of the same address.
        let shadow = match identity {
            ServiceIdentity::Port(address, protocol, port) => {
                Some(ServiceIdentity::MarkedPort(address, protocol, port))
            }
            ServiceIdentity::MarkedPort(address, protocol, port) => {
                Some(ServiceIdentity::Port(address, protocol, port))
            }
            ServiceIdentity::Mark(..) => None,
        };
        let shadowed = shadow.and_then(|shadow| {
            self.services
                .get(&(spec.node_name.clone(), shadow))
                .cloned()
        });
        if let Some(first) = same.or(shadowed) {
            self.findings.insert(Finding::SameService {
                node: spec.node_name.clone(),
                service: text,
                first,
                second: name.to_owned(),
            });
        }
    }

    fn real_servers(&mut self, name: &str, spec: &NodePlanSpec) {
        let services = spec.director.iter().flat_map(|director| &director.services);
        for destination in services.flat_map(|service| &service.real_servers) {
            if self.namespaces.contains_key(&destination.address) {
                let address = destination.address;
                self.findings.insert(Finding::RealServerIsVirtual {
                    plan: name.to_owned(),
                    address,
                });
            }
        }
    }

    /// Source addresses come with the router's plan on the same node, unless that is kept because it cannot be decided
    /// now.
    fn source_addresses(
        &mut self,
        standing: &[(&str, &NodePlanSpec)],
        resolution: &Resolution,
        name: &str,
        spec: &NodePlanSpec,
    ) {
        let planned = resolution.plans.get(name);
        if planned.is_none_or(|planned| !planned.is_changed) {
            return;
        }
        let mut routers = standing.iter().filter(|(other, plan)| {
            plan.source.kind == SourceKind::VirtualRouter
                && plan.node_name == spec.node_name
                && plan.virtual_router_name == spec.virtual_router_name
                && !resolution.held_plans.contains(*other)
        });
        let Some(held) = routers.find_map(|(_, plan)| plan.director.as_ref()) else {
            return;
        };
        let pools = spec.director.iter();
        let pools = pools.flat_map(|director| &director.source_address_pools);
        for address in pools.flat_map(|pool| &pool.addresses) {
            let mut held = held.addresses.iter();
            if !held.any(|planned| planned.address == *address) {
                self.findings.insert(Finding::SourceAddressNotHeld {
                    plan: name.to_owned(),
                    node: spec.node_name.clone(),
                    address: *address,
                });
            }
        }
    }

    /// A VirtualService's director part needs the router's plan on the same node, unless either
    /// is kept because it cannot be decided now.
    fn directs(
        &mut self,
        standing: &[(&str, &NodePlanSpec)],
        resolution: &Resolution,
        name: &str,
        spec: &NodePlanSpec,
    ) {
        let is_written = resolution
            .plans
            .get(name)
            .is_some_and(|planned| planned.is_changed);
        if !is_written || spec.director.is_none() || spec.source.kind == SourceKind::VirtualRouter {
            return;
        }
        let permits = resolution
            .leases
            .get(&lvs_crds::lease_name(&spec.virtual_router_name));
        let is_director = permits.is_some_and(|lease| lease.directors.contains(&spec.node_name))
            || standing.iter().any(|(_, other)| {
                other.source.kind == SourceKind::VirtualRouter
                    && other.node_name == spec.node_name
                    && other.virtual_router_name == spec.virtual_router_name
            });
        if !is_director {
            self.findings.insert(Finding::NotADirector {
                plan: name.to_owned(),
                node: spec.node_name.clone(),
                router: spec.virtual_router_name.clone(),
            });
        }
    }
}
