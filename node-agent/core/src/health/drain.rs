//! Who drains: it gets no new connections, those that it has go on, and after a time it is taken out.
//!
//! Two do: one that its plan tells to, and one that leaves the plan while the service stays. Time counts from when this
//! process saw it begin. Over a restart the kernel is the memory: what is in it and ours, but in no plan, begins anew, and
//! what is told to drain and no longer in it has drained.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lvs_crds::node_plan::PlannedService;
use lvs_crds::traffic_policy::OnFailure;
use lvs_crds::value::ForwardingType;

use super::memory::service_key;
use super::policy::{RealServerMemory, ServiceMemory, Slot};
use crate::desired::Roles;
use crate::election::Tick;
use crate::host::ObservedHost;
use crate::ipvs::{Destination, DestinationKey, Idle, ServiceKey, Services};
use crate::journal::Journal;

/// The node as the pass has read it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// Services in the kernel, foreign ones included.
    pub services: &'a Services,
    /// Destinations with weight 0 that have no connection.
    pub idle: &'a Idle,
    /// What is ours.
    pub journal: &'a Journal,
    /// Addresses of the node.
    pub host: &'a ObservedHost,
    /// Who is master: its kernel alone knows of every connection.
    pub roles: &'a Roles,
}

impl<'a> NodeView<'a> {
    /// Destinations of a plan's service; `None` where the kernel has no such service of this plan.
    fn destinations(
        &self,
        plan: &str,
        key: &ServiceKey,
    ) -> Option<&'a [(DestinationKey, Destination)]> {
        let owner = self.journal.services.get(key)?;
        let state = self.services.get(key).filter(|_| owner == plan)?;
        Some(&state.destinations)
    }

    /// Whether the kernel has a real server that is planned for a service of the plan; `None` where it has no such service.
    pub(super) fn has(&self, plan: &str, service: &PlannedService, slot: Slot) -> Option<bool> {
        let (address, port) = slot;
        let wanted = DestinationKey { address, port };
        let destinations = self.destinations(plan, &service_key(service)?)?;
        let found = destinations.binary_search_by(|(key, _)| key.cmp(&wanted));
        Some(found.is_ok())
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let mut addresses = self.host.addresses.iter();
        addresses.any(|(key, _)| key.address == address)
    }
}

/// How far a real server is that its plan tells to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Its connections go on; it began then.
    Begun(Tick),
    /// Its time is over, and it is out.
    Over,
}

impl Drain {
    /// How far it is at `now`. Who is out stays out; without a time to drain nobody comes to be.
    pub(super) fn at(self, now: Tick, timeout: Option<Duration>) -> Self {
        match (self, timeout) {
            (Self::Begun(since), Some(timeout)) if now.since(since) >= timeout => Self::Over,
            _ => self,
        }
    }

    /// When its time is over.
    pub(super) fn deadline(self, timeout: Option<Duration>) -> Option<Tick> {
        match self {
            Self::Begun(since) => timeout.map(|timeout| since + timeout),
            Self::Over => None,
        }
    }

    /// What people are told, in words that do not change with every second.
    pub(super) fn words(self, timeout: Duration) -> String {
        let seconds = timeout.as_secs();
        match self {
            Self::Begun(_) => format!("draining, at most {seconds} s"),
            Self::Over => format!("drained for {seconds} s"),
        }
    }
}

/// The time that real servers of a service have to drain.
pub(super) fn drain_timeout(service: &PlannedService) -> Option<Duration> {
    let seconds = service.drain_timeout_seconds?;
    Some(Duration::from_secs(seconds.into()))
}

/// A real server that has left the plan and whose connections go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingRealServer {
    /// RealServer that it came from; empty where a restart has forgotten it.
    pub name: String,
    /// Its address, and its port for the first port of the service.
    pub slot: (IpAddr, u16),
    /// Where it is in the kernel.
    pub destination: DestinationKey,
    /// As it is there, with weight 0.
    pub attributes: Destination,
    /// What people are told.
    pub message: String,
}

/// What is remembered of a real server that has left the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeavingMemory {
    since: Tick,
    name: String,
    /// Whether it was up when it left.
    pub(super) was_up: bool,
}

/// Real servers of one service that have left the plan.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Those that drain, by service of the kernel; a range of ports is several.
    pub(super) leaving: BTreeMap<ServiceKey, Vec<LeavingRealServer>>,
    /// What is to be remembered of them.
    pub(super) memory: BTreeMap<(ServiceKey, DestinationKey), LeavingMemory>,
    /// When the time of one of them is over.
    pub(super) next_step: Option<Tick>,
}

/// The real servers of a service that are in the kernel and not in the plan, and still drain. `planned` are those in the
/// plan. Where `connections_count`, the kernel's count says when the last connection is gone.
pub(super) fn departures(
    (plan, service): (&str, &PlannedService),
    node: &NodeView<'_>,
    connections_count: bool,
    before: &ServiceMemory,
    planned: &BTreeMap<Slot, RealServerMemory>,
    now: Tick,
) -> Departures {
    let mut departures = Departures::default();
    let Some(timeout) = drain_timeout(service) else {
        return departures;
    };
    for (offset, key) in kernel_services(service) {
        for (destination, attributes) in node.destinations(plan, &key).unwrap_or_default() {
            let Some(port) = destination.port.checked_sub(offset) else {
                continue;
            };
            let slot = (destination.address, port);
            if planned.contains_key(&slot) || is_sorry_server(service, slot, node) {
                continue;
            }
            let found = (key, *destination);
            let known = before.leaving.get(&found).cloned();
            let Some(known) = known.or_else(|| begin(service, before, slot, attributes, now))
            else {
                continue;
            };
            let deadline = known.since + timeout;
            let is_idle = connections_count && node.idle.contains(&found);
            if now >= deadline || is_idle {
                continue;
            }
            departures.next_step = departures.next_step.into_iter().chain([deadline]).min();
            let of_service = departures.leaving.entry(key).or_default();
            of_service.push(LeavingRealServer {
                name: known.name.clone(),
                slot,
                destination: *destination,
                attributes: Destination {
                    weight: 0,
                    ..*attributes
                },
                message: format!(
                    "it has left the VirtualService: {}",
                    Drain::Begun(known.since).words(timeout)
                ),
            });
            departures.memory.insert(found, known);
        }
    }
    departures
}

/// What is remembered of one that is not in the plan any more; `None` of one that never was, which somebody else has put
/// there, and of one that has drained already.
fn begin(
    service: &PlannedService,
    before: &ServiceMemory,
    slot: Slot,
    attributes: &Destination,
    now: Tick,
) -> Option<LeavingMemory> {
    let Some(planned) = before.real_servers.get(&slot) else {
        return (!before.was_decided).then(|| LeavingMemory {
            since: now,
            name: String::new(),
            // With Remove, who is down is not in the kernel.
            was_up: attributes.weight > 0 || service.on_failure == OnFailure::Remove,
        });
    };
    let since = match planned.drain {
        None => now,
        Some(Drain::Begun(since)) => since,
        Some(Drain::Over) => return None,
    };
    Some(LeavingMemory {
        since,
        name: planned.name.clone(),
        was_up: planned.is_up,
    })
}

/// The services of the kernel that one of the plan is, each with its offset in the range of ports.
fn kernel_services(service: &PlannedService) -> impl Iterator<Item = (u16, ServiceKey)> {
    let range = service.address.as_ref().filter(|range| range.port != 0);
    let last_offset = range.map_or(0, |range| range.end_port.saturating_sub(range.port));
    service_key(service).into_iter().flat_map(move |first| {
        (0..=last_offset).map(move |offset| (offset, first.at_offset(offset)))
    })
}

/// Whether a destination may be the service's sorry server, which goes at once when it is no longer needed: its clients
/// are to come to the real servers.
fn is_sorry_server(service: &PlannedService, slot: Slot, node: &NodeView<'_>) -> bool {
    let (address, port) = slot;
    service.sorry_server.as_ref().is_some_and(|sorry_server| {
        let is_there = match sorry_server.address {
            Some(host) => host == address,
            None if sorry_server.forwarding.type_ == ForwardingType::NAT => {
                node.has_address(address)
            }
            None => address.is_loopback(),
        };
        is_there && sorry_server.port == port
    })
}
