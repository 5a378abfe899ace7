//! Statistics of IPVS (ipvsadm --stats) as plain values, and whose are shown under which names.

use std::collections::BTreeMap;

use lvs_crds::node_plan::{PlanState, PlannedService};
use lvs_crds::real_server::RealServerState;
use serde::{Deserialize, Serialize};

use crate::desired::PlanInput;
use crate::health::{ServiceServing, Serving, service_key};
use crate::ipvs::{DestinationKey, ServiceKey};
use crate::journal::Journal;

/// Series that are shown of a service: five counters, its real servers, those that are up, its quorum.
pub const SERVICE_SERIES: usize = 8;
/// Series that are shown of a real server: five counters, three numbers of connections, its weight, whether it is up.
pub const REAL_SERVER_SERIES: usize = 10;
/// Who serves for a service without a quorum. No RealServer can have this name.
pub const SORRY_SERVER: &str = "sorryServer";

/// What has been scheduled since the service, or the destination in it, was added. Packets and bytes are those that the
/// director sees: of DR and TUN there are no outgoing ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Connections.
    pub connections: u64,
    /// Packets from clients.
    pub incoming_packets: u64,
    /// Packets to clients.
    pub outgoing_packets: u64,
    /// Bytes from clients.
    pub incoming_bytes: u64,
    /// Bytes to clients.
    pub outgoing_bytes: u64,
}

/// What the kernel's estimator says of the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// Connections.
    pub connections_per_second: u64,
    /// Packets from clients.
    pub incoming_packets_per_second: u64,
    /// Packets to clients.
    pub outgoing_packets_per_second: u64,
    /// Bytes from clients.
    pub incoming_bytes_per_second: u64,
    /// Bytes to clients.
    pub outgoing_bytes_per_second: u64,
}

/// Statistics of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationStatistics {
    /// Which.
    pub key: DestinationKey,
    /// Since it was added.
    pub counters: Counters,
    /// Weight in the kernel.
    pub weight: u32,
    /// Active connections now.
    pub active_connections: u32,
    /// Inactive connections now.
    pub inactive_connections: u32,
    /// Persistence templates now.
    pub persistent_connections: u32,
}

/// Statistics of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatistics {
    /// Which.
    pub key: ServiceKey,
    /// Since it was added.
    pub counters: Counters,
    /// Those of its destinations, in the kernel's order; empty also where they were not asked for.
    pub destinations: Vec<DestinationStatistics>,
}

/// A real server whose statistics are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerSubject {
    /// RealServer; empty where a restart has forgotten it.
    pub name: String,
    /// Whether its checks say that it serves; `None` while they say nothing, or people say that it shall not.
    pub is_up: Option<bool>,
}

/// A service whose statistics are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSubject {
    /// Namespace of the VirtualService.
    pub namespace: String,
    /// The VirtualService.
    pub name: String,
    /// Real servers that it has by its plan.
    pub planned: usize,
    /// Those of them that are up.
    pub up: usize,
    /// Whether enough are up; `None` before anything was decided.
    pub has_quorum: Option<bool>,
    /// Whether its sorry server serves.
    pub is_sorry: bool,
    /// Real servers that are shown, by where they are in the kernel.
    pub real_servers: BTreeMap<DestinationKey, RealServerSubject>,
}

/// Whose statistics are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Services.
    pub services: BTreeMap<ServiceKey, ServiceSubject>,
    /// Services of ours that are not.
    pub services_left_out: usize,
    /// Real servers of ours that are not.
    pub real_servers_left_out: usize,
}

impl Subjects {
    /// Series that they come to, at most.
    pub fn series(&self) -> usize {
        self.services
            .values()
            .map(|service| {
                // A sorry server takes turns with the real servers, and is one more.
                let destinations = service.real_servers.len() + usize::from(service.is_sorry);
                SERVICE_SERIES + destinations * REAL_SERVER_SERIES
            })
            .sum()
    }
}

/// Services of ours and their real servers, by name of the plan, as many as have no more than `limit` series. Services come
/// first: what a service does as a whole is known of more of them than what each real server does.
pub fn subjects(
    plans: &[PlanInput],
    serving: &Serving,
    journal: &Journal,
    limit: usize,
) -> Subjects {
    let mut ordered: Vec<&PlanInput> = plans.iter().collect();
    ordered.sort_by(|left, right| left.name.cmp(&right.name));
    let mut subjects = Subjects::default();
    let mut left = limit;
    let mut chosen = Vec::new();
    for (key, plan, planned, offset) in ordered.iter().flat_map(|plan| services(plan, journal)) {
        let standing = serving.of(&plan.name, planned);
        let is_sorry = standing.is_some_and(|standing| standing.is_sorry);
        let series = SERVICE_SERIES + usize::from(is_sorry) * REAL_SERVER_SERIES;
        let Some(rest) = left.checked_sub(series) else {
            subjects.services_left_out += 1;
            subjects.real_servers_left_out += planned.real_servers.len();
            continue;
        };
        left = rest;
        let subject = ServiceSubject {
            namespace: plan.spec.source.namespace.clone(),
            name: plan.spec.source.name.clone(),
            planned: planned.real_servers.len(),
            up: standing.map_or(0, up),
            has_quorum: standing.map(|standing| standing.has_quorum),
            is_sorry,
            real_servers: BTreeMap::new(),
        };
        subjects.services.insert(key, subject);
        chosen.push((key, planned, standing, offset));
    }
    for (key, planned, standing, offset) in chosen {
        let Some(service) = subjects.services.get_mut(&key) else {
            continue;
        };
        for (destination, real_server) in real_servers(key, planned, standing, offset) {
            match left.checked_sub(REAL_SERVER_SERIES) {
                Some(rest) => {
                    left = rest;
                    service.real_servers.insert(destination, real_server);
                }
                None => subjects.real_servers_left_out += 1,
            }
        }
    }
    subjects
}

/// The services of the kernel that are this plan's, each with how far it is in a range of ports.
fn services<'a>(
    plan: &'a PlanInput,
    journal: &'a Journal,
) -> impl Iterator<Item = (ServiceKey, &'a PlanInput, &'a PlannedService, u16)> {
    let director = plan.spec.director.as_ref();
    let director = director.filter(|_| plan.spec.state != PlanState::Withdrawn);
    let planned = director.into_iter().flat_map(|director| &director.services);
    planned
        .flat_map(|service| {
            let range = match (service_key(service), &service.address) {
                (Some(first), Some(address)) if address.port != 0 => {
                    Some((first, address.end_port.saturating_sub(address.port)))
                }
                (Some(first), _) => Some((first, 0)),
                (None, _) => None,
            };
            range.into_iter().flat_map(move |(first, last_offset)| {
                (0..=last_offset).map(move |offset| (first.at_offset(offset), service, offset))
            })
        })
        .filter(|(key, ..)| journal.services.get(key) == Some(&plan.name))
        .map(move |(key, service, offset)| (key, plan, service, offset))
}

fn real_servers<'a>(
    key: ServiceKey,
    planned: &'a PlannedService,
    standing: Option<&'a ServiceServing>,
    offset: u16,
) -> impl Iterator<Item = (DestinationKey, RealServerSubject)> {
    let standings = standing.into_iter().flat_map(|one| &one.real_servers);
    let states = standings
        .map(|one| Some(one.state))
        .chain(std::iter::repeat(None));
    let present = planned
        .real_servers
        .iter()
        .zip(states)
        .map(move |(one, state)| {
            let first = DestinationKey {
                address: one.address,
                port: one.port,
            };
            let subject = RealServerSubject {
                name: one.name.clone(),
                is_up: state.and_then(is_up),
            };
            (first.at_offset(offset), subject)
        });
    let leaving = standing.and_then(|standing| standing.leaving.get(&key));
    let leaving = leaving.into_iter().flatten().map(|one| {
        let subject = RealServerSubject {
            name: one.name.clone(),
            is_up: None,
        };
        (one.destination, subject)
    });
    present.chain(leaving)
}

fn up(standing: &ServiceServing) -> usize {
    let states = standing.real_servers.iter().map(|one| one.state);
    states.filter(|state| *state == RealServerState::Up).count()
}

const fn is_up(state: RealServerState) -> Option<bool> {
    match state {
        RealServerState::Up => Some(true),
        RealServerState::Down => Some(false),
        RealServerState::Draining | RealServerState::Disabled | RealServerState::Unknown => None,
    }
}
