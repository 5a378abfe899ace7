//! What the kernel remembers of health over a restart of the agent.

use std::collections::BTreeSet;

use lvs_crds::node_plan::{PlannedRealServer, PlannedService};
use lvs_crds::traffic_policy::AdministrativeState;

use super::key::{Check, Questions};
use super::policy::Policy;
use crate::desired::PlanInput;
use crate::ipvs::{DestinationKey, ServiceKey, Services};
use crate::journal::Journal;

/// Checks of real servers that are in the kernel with a weight: they were up when the agent last looked, or were put
/// there before anybody asked for checks. Until results speak against it they stay, so that neither a restart nor a new
/// check takes away what works. Those that drain have weight 0, and connections to be kept.
pub fn remembered(
    plans: &[PlanInput],
    services: &Services,
    journal: &Journal,
    policy: &Policy,
) -> BTreeSet<Check> {
    let mut known = BTreeSet::new();
    for plan in plans {
        let Some(director) = &plan.spec.director else {
            continue;
        };
        let questions = Questions::of(&plan.spec);
        for service in &director.services {
            let Some(state) = service_key(service)
                .filter(|key| journal.services.get(key) == Some(&plan.name))
                .and_then(|key| services.get(&key))
            else {
                continue;
            };
            let was_up = |real_server: &&PlannedRealServer| {
                let wanted = DestinationKey {
                    address: real_server.address,
                    port: real_server.port,
                };
                let found = state
                    .destinations
                    .binary_search_by(|(key, _)| key.cmp(&wanted));
                let found = found.ok().and_then(|index| state.destinations.get(index));
                let drains = || {
                    real_server.administrative_state == AdministrativeState::Draining
                        || policy.has_left_up(&plan.name, service, wanted)
                };
                found.is_some_and(|(_, destination)| destination.weight > 0 || drains())
            };
            let serving = service.real_servers.iter().filter(was_up);
            known.extend(serving.flat_map(|real_server| questions.checks(service, real_server)));
        }
    }
    known
}

/// The service in the kernel of what is planned, of a range the first; `None` where a plan names neither address nor mark, or both.
pub fn service_key(service: &PlannedService) -> Option<ServiceKey> {
    match (&service.address, &service.firewall_mark) {
        (Some(address), None) => Some(ServiceKey::Address {
            address: address.address,
            protocol: address.protocol,
            port: address.port,
        }),
        (None, Some(mark)) => Some(ServiceKey::FirewallMark {
            mark: mark.mark,
            family: mark.address_family,
        }),
        (Some(_), Some(_)) | (None, None) => None,
    }
}
