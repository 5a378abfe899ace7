//! How a question takes the path of a client's packet: through IPVS, by a firewall mark of its own.
//!
//! A service by mark with one destination forwards to one real server what is sent to any virtual address. The kernel looks
//! for the mark before it looks for the address, and in packets of the node itself too (`ip_vs_service_find`,
//! net/netfilter/ipvs/ip_vs_ctl.c; `ip_vs_in_hook` at LOCAL_OUT, ip_vs_core.c), so the services of clients are not concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use lvs_crds::health_check::HealthCheckPath;
use lvs_crds::node_plan::{NodePlanSpec, PlannedRealServer};
use lvs_crds::value::AddressFamily;

use super::key::Questions;
use super::policy::held;
use crate::desired::{PlanInput, destination_forwarding};
use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, Service, ServiceFlags, ServiceKey,
    ServiceState, Services,
};
use crate::journal::Journal;

/// The way from a virtual address of a family to a real server, whatever address and port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passage {
    /// Family of the virtual address.
    pub family: AddressFamily,
    /// Address of the real server.
    pub real_server: IpAddr,
    /// DR, or TUN with all that belongs to it.
    pub forwarding: DestinationForwarding,
}

impl Passage {
    /// To a real server; `None` where packets for the virtual address do not reach it as they are.
    pub(super) fn to(real_server: &PlannedRealServer, family: AddressFamily) -> Option<Self> {
        let forwarding = destination_forwarding(&real_server.forwarding)?;
        let reaches = matches!(
            forwarding,
            DestinationForwarding::DirectRoute | DestinationForwarding::Tunnel(_)
        );
        reaches.then_some(Self {
            family,
            real_server: real_server.address,
            forwarding,
        })
    }

    /// Its service in the kernel.
    pub const fn key(&self, mark: u32) -> ServiceKey {
        ServiceKey::FirewallMark {
            mark,
            family: self.family,
        }
    }

    /// What that service holds. Datagrams are forwarded one by one, so that a question leaves no connection.
    pub fn service(&self) -> ServiceState {
        let prefix_length = match self.family {
            AddressFamily::IPv4 => 32,
            AddressFamily::IPv6 => 128,
        };
        let destination = DestinationKey {
            address: self.real_server,
            port: 0,
        };
        let attributes = Destination {
            forwarding: self.forwarding,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        ServiceState {
            service: Service {
                scheduler: "rr".to_owned(),
                flags: ServiceFlags(ServiceFlags::ONE_PACKET),
                timeout_seconds: 0,
                prefix_length,
                persistence_engine: None,
            },
            destinations: vec![(destination, attributes)],
        }
    }

    /// The passage that a service is.
    fn of(key: &ServiceKey, state: &ServiceState) -> Option<(Self, u32)> {
        let ServiceKey::FirewallMark { mark, family } = *key else {
            return None;
        };
        let [(destination, attributes)] = state.destinations[..] else {
            return None;
        };
        let passage = Self {
            family,
            real_server: destination.address,
            forwarding: attributes.forwarding,
        };
        Some((passage, mark))
    }
}

/// Passages that a plan's checks take.
pub fn passages_of(plan: &NodePlanSpec) -> BTreeSet<Passage> {
    let through = |path: &HealthCheckPath| *path == HealthCheckPath::VirtualAddress;
    let mut checks = plan.director.iter().flat_map(|director| &director.checks);
    if !checks.any(|check| through(&check.path)) {
        return BTreeSet::new();
    }
    let questions = Questions::of(plan);
    let services = plan.director.iter();
    services
        .flat_map(|director| &director.services)
        .flat_map(|service| questions.of_service(service))
        .filter_map(|check| check.passage)
        .collect()
}

/// Passages and their marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passages {
    marks: BTreeMap<Passage, u32>,
    /// Those for which no mark is left.
    without: BTreeSet<Passage>,
}

impl Passages {
    /// A mark of `range` for every passage that plans want. One that is in the kernel and ours keeps its mark, so that no
    /// question takes another's passage; the others get the lowest that nobody has, in the kernel or in a plan.
    pub fn lay(
        plans: &[PlanInput],
        services: &Services,
        journal: &Journal,
        range: &RangeInclusive<u32>,
    ) -> Self {
        let wanted: BTreeSet<Passage> = held(plans)
            .flat_map(|plan| passages_of(&plan.spec))
            .collect();
        if wanted.is_empty() {
            return Self::default();
        }
        let planned: BTreeSet<ServiceKey> = held(plans)
            .filter_map(|plan| plan.spec.director.as_ref())
            .flat_map(|director| &director.services)
            .filter_map(super::memory::service_key)
            .collect();
        let mut marks = BTreeMap::new();
        for (key, state) in services {
            if journal.services.contains_key(key)
                && !planned.contains(key)
                && let Some((passage, mark)) = Passage::of(key, state)
                && range.contains(&mark)
                && wanted.contains(&passage)
            {
                marks.entry(passage).or_insert(mark);
            }
        }
        let mut without = BTreeSet::new();
        for family in [AddressFamily::IPv4, AddressFamily::IPv6] {
            let mut free = range.clone().filter(|mark| {
                let key = ServiceKey::FirewallMark {
                    mark: *mark,
                    family,
                };
                *mark != 0 && !services.contains_key(&key) && !planned.contains(&key)
            });
            for passage in wanted.iter().filter(|passage| passage.family == family) {
                if marks.contains_key(passage) {
                    continue;
                }
                match free.next() {
                    Some(mark) => {
                        marks.insert(*passage, mark);
                    }
                    None => {
                        without.insert(*passage);
                    }
                }
            }
        }
        Self { marks, without }
    }

    /// The mark of a passage.
    pub fn mark(&self, passage: &Passage) -> Option<u32> {
        self.marks.get(passage).copied()
    }

    /// Whether it was looked at and there was no mark for it.
    pub fn is_without_mark(&self, passage: &Passage) -> bool {
        self.without.contains(passage)
    }

    /// Whether a service is one of these.
    pub fn contains(&self, key: &ServiceKey) -> bool {
        let mut passages = self.marks.iter();
        matches!(key, ServiceKey::FirewallMark { .. })
            && passages.any(|(passage, mark)| passage.key(*mark) == *key)
    }

    /// Those that are in the kernel as they should be, with their marks.
    pub fn in_force(&self, services: &Services) -> BTreeMap<Passage, u32> {
        let is_in_force = |passage: &Passage, mark: u32| {
            services.get(&passage.key(mark)) == Some(&passage.service())
        };
        let mut marks = self.marks.clone();
        marks.retain(|passage, mark| is_in_force(passage, *mark));
        marks
    }
}
