//! Whose a service of the kernel is, and who is behind a destination: by the journal and the plans.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_crds::health_check::HealthCheckPath;
use lvs_crds::node_plan::{MarkMatch, NodePlanSpec, PlannedService};
use lvs_crds::value::{AddressFamily, Protocol};

use super::{Purpose, ShownOwner};
use crate::desired::PlanInput;
use crate::health::service_key;
use crate::ipvs::{DestinationKey, ServiceKey};
use crate::journal::Journal;
use crate::statistics::SORRY_SERVER;

/// A service of a plan, and how far it is in a range of ports.
#[derive(Clone, Copy, Debug)]
struct Planned<'a> {
    service: &'a PlannedService,
    offset: u16,
}

#[derive(Clone, Copy, Debug)]
struct Owned<'a> {
    plan_name: &'a str,
    spec: Option<&'a NodePlanSpec>,
    planned: Option<Planned<'a>>,
}

/// Owners of all services that are ours.
#[derive(Clone, Debug, Default)]
pub struct Owners<'a> {
    services: BTreeMap<ServiceKey, Owned<'a>>,
    marked: Vec<(&'a MarkMatch, u32)>,
    /// Addresses of services by mark that the administrator's own rules set.
    marked_by_others: Vec<(IpAddr, u32)>,
}

impl<'a> Owners<'a> {
    /// Those that the journal names. A plan only says what things are called: what it wants and the journal does not have is
    /// somebody else's.
    pub fn new(journal: &'a Journal, plans: &'a [PlanInput]) -> Self {
        let specs: BTreeMap<&str, &NodePlanSpec> = plans
            .iter()
            .map(|plan| (plan.name.as_str(), &plan.spec))
            .collect();
        let mut services: BTreeMap<ServiceKey, Owned<'a>> = journal
            .services
            .iter()
            .map(|(key, plan_name)| {
                let owned = Owned {
                    plan_name,
                    spec: specs.get(plan_name.as_str()).copied(),
                    planned: None,
                };
                (*key, owned)
            })
            .collect();
        let mut marked = Vec::new();
        let mut marked_by_others = Vec::new();
        for plan in plans {
            let Some(director) = &plan.spec.director else {
                continue;
            };
            for mark in &director.firewall_marks {
                marked.extend(mark.matches.iter().map(|matched| (matched, mark.mark)));
            }
            let own_marks: Vec<u32> = director.firewall_marks.iter().map(|one| one.mark).collect();
            let marks = director
                .services
                .iter()
                .filter_map(|service| service.firewall_mark.as_ref());
            for mark in marks.filter(|mark| !own_marks.contains(&mark.mark)) {
                let addresses = director.addresses.iter().map(|planned| planned.address);
                let of_family =
                    addresses.filter(|one| AddressFamily::of(one) == mark.address_family);
                marked_by_others.extend(of_family.map(|address| (address, mark.mark)));
            }
            for service in &director.services {
                let Some(first) = service_key(service) else {
                    continue;
                };
                let last_offset = match &service.address {
                    Some(address) if address.port != 0 => {
                        address.end_port.saturating_sub(address.port)
                    }
                    _ => 0,
                };
                for offset in 0..=last_offset {
                    if let Some(owned) = services.get_mut(&first.at_offset(offset))
                        && owned.plan_name == plan.name
                    {
                        owned.planned = Some(Planned { service, offset });
                    }
                }
            }
        }
        Self {
            services,
            marked,
            marked_by_others,
        }
    }

    /// Whose a service is; `None` = somebody else's.
    pub fn of(&self, key: &ServiceKey) -> Option<ShownOwner> {
        let owned = self.services.get(key)?;
        let source = owned.spec.map(|spec| &spec.source);
        let is_of_checks = matches!(key, ServiceKey::FirewallMark { .. })
            && owned.spec.is_some_and(checks_through_addresses);
        Some(ShownOwner {
            plan_name: owned.plan_name.to_owned(),
            namespace: source.map(|source| source.namespace.clone()),
            name: source.map(|source| source.name.clone()),
            purpose: if owned.planned.is_some() {
                Purpose::Clients
            } else if is_of_checks {
                Purpose::HealthChecks
            } else {
                Purpose::Leaving
            },
        })
    }

    /// All services that are ours.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// Name of the RealServer at a destination, or [`SORRY_SERVER`].
    pub fn real_server(&self, key: &ServiceKey, destination: DestinationKey) -> Option<String> {
        let owned = self.services.get(key)?;
        if let Some(planned) = owned.planned {
            return planned.name_of(destination);
        }
        // A check's way to one real server: of the plan's, that with the address.
        let director = owned.spec?.director.iter();
        let mut known = director
            .flat_map(|director| &director.services)
            .flat_map(|service| &service.real_servers);
        known
            .find(|one| one.address == destination.address)
            .map(|one| one.name.clone())
    }

    /// Name of the RealServer at an address, or [`SORRY_SERVER`], whatever its port; `None` where several are there.
    pub fn real_server_of_address(&self, key: &ServiceKey, address: IpAddr) -> Option<String> {
        let service = self.services.get(key)?.planned?.service;
        let mut names = service
            .real_servers
            .iter()
            .filter(|one| one.address == address)
            .map(|one| one.name.as_str());
        let Some(first) = names.next() else {
            let sorry = service.sorry_server.as_ref()?.address;
            return (sorry == Some(address)).then(|| SORRY_SERVER.to_owned());
        };
        names.all(|other| other == first).then(|| first.to_owned())
    }

    /// The service by a mark that others set to which a connection belongs, as far as its address and its real server say so.
    pub fn service_marked_by_others(
        &self,
        address: IpAddr,
        real_server: IpAddr,
    ) -> Option<ServiceKey> {
        let known = self
            .marked_by_others
            .iter()
            .filter(|(known, _)| *known == address);
        let mut keys = known.map(|(_, mark)| ServiceKey::FirewallMark {
            mark: *mark,
            family: AddressFamily::of(&address),
        });
        keys.find(|key| self.real_server_of_address(key, real_server).is_some())
    }

    /// A service, if it is ours.
    pub fn known(&self, key: ServiceKey) -> Option<ServiceKey> {
        self.services.contains_key(&key).then_some(key)
    }

    /// The service of ours to which packets to a virtual address belong.
    pub fn service_of(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<ServiceKey> {
        let by_address = |port| ServiceKey::Address {
            address,
            protocol,
            port,
        };
        // The kernel looks for the mark first.
        let marked = self.marked.iter().find(|(matched, _)| {
            matched.address == address
                && matched.protocol == protocol
                && (matched.port == 0 || (matched.port..=matched.end_port).contains(&port))
        });
        let by_mark = marked.map(|(_, mark)| ServiceKey::FirewallMark {
            mark: *mark,
            family: AddressFamily::of(&address),
        });
        by_mark
            .into_iter()
            .chain([by_address(port), by_address(0)])
            .find(|key| self.services.contains_key(key))
    }
}

fn checks_through_addresses(spec: &NodePlanSpec) -> bool {
    let mut checks = spec.director.iter().flat_map(|director| &director.checks);
    checks.any(|check| check.path == HealthCheckPath::VirtualAddress)
}

impl Planned<'_> {
    fn name_of(&self, destination: DestinationKey) -> Option<String> {
        let mut real_servers = self.service.real_servers.iter();
        let found = real_servers.find(|one| {
            let first = DestinationKey {
                address: one.address,
                port: one.port,
            };
            let port = match one.port {
                0 => first,
                _ => first.at_offset(self.offset),
            };
            port == destination
        });
        if let Some(found) = found {
            return Some(found.name.clone());
        }
        let sorry = self.service.sorry_server.as_ref()?;
        // One that is the director itself has an address that only the agent knows.
        let is_sorry = sorry
            .address
            .is_none_or(|address| address == destination.address);
        (is_sorry && self.names_no(destination.address)).then(|| SORRY_SERVER.to_owned())
    }

    fn names_no(&self, address: IpAddr) -> bool {
        let mut real_servers = self.service.real_servers.iter();
        real_servers.all(|one| one.address != address)
    }
}
