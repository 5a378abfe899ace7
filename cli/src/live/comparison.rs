//! What a kernel holds otherwise than its plan and its agent say.

use std::collections::BTreeMap;

use lvs_core::desired::serves_what_it_balances;
use lvs_core::health::service_key;
use lvs_core::ipvs::{DestinationKey, ServiceKey};
use lvs_core::shown::{Purpose, ShownService, ShownServices};
use lvs_core::statistics::SORRY_SERVER;
use lvs_crds::node_plan::{CheckedRealServer, NodePlanSpec, PlanState, PlannedService, Role};

/// What a kernel holds otherwise than a plan, and what its agent reports of its role and of real servers, say; in lines, in the plan's order.
/// An empty list: it holds exactly that.
pub fn differences(
    plan_name: &str,
    spec: &NodePlanSpec,
    role: Option<Role>,
    reported: &[CheckedRealServer],
    kernel: &ShownServices,
) -> Vec<String> {
    let mut held: BTreeMap<ServiceKey, &ShownService> = BTreeMap::new();
    for service in &kernel.services {
        if let Some(key) = shown_key(service) {
            held.insert(key, service);
        }
    }
    let mut lines = Vec::new();
    let mut planned_keys = Vec::new();
    let director = spec.director.as_ref();
    let director = director.filter(|_| spec.state != PlanState::Withdrawn);
    for planned in director.into_iter().flat_map(|director| &director.services) {
        if is_resting(spec, role, planned) {
            continue;
        }
        for offset in 0..=last_offset(planned) {
            let Some(key) = service_key(planned).map(|key| key.at_offset(offset)) else {
                continue;
            };
            planned_keys.push(key);
            let Some(service) = held.get(&key) else {
                lines.push(format!("{key} is missing"));
                continue;
            };
            let is_ours = service
                .owner
                .as_ref()
                .is_some_and(|owner| owner.plan_name == plan_name);
            if kernel.ownership_known && !is_ours {
                lines.push(format!("{key} is there, but somebody else's"));
            }
            let scheduler = planned.scheduler.name.as_str();
            if service.scheduler != scheduler {
                lines.push(format!(
                    "{key} has scheduler {}, not {scheduler}",
                    service.scheduler
                ));
            }
            compare(&key, planned, offset, reported, service, &mut lines);
        }
    }
    let left_over = kernel.services.iter().filter(|service| {
        let is_of_plan = service
            .owner
            .as_ref()
            .is_some_and(|one| one.plan_name == plan_name && one.purpose != Purpose::HealthChecks);
        let key = shown_key(service);
        is_of_plan && key.is_some_and(|key| !planned_keys.contains(&key))
    });
    lines.extend(left_over.map(|service| format!("{} is still there", service.text())));
    lines
}

/// Whether a standby leaves a service out, as it is one of its DR or TUN real servers.
pub(super) fn is_resting(
    spec: &NodePlanSpec,
    role: Option<Role>,
    service: &PlannedService,
) -> bool {
    role == Some(Role::Backup) && serves_what_it_balances(spec, std::slice::from_ref(service))
}

/// Real servers of one service: those that the agent gives a weight must be there with it, the others must be gone or rest.
fn compare(
    key: &ServiceKey,
    planned: &PlannedService,
    offset: u16,
    reported: &[CheckedRealServer],
    service: &ShownService,
    lines: &mut Vec<String>,
) {
    let mut expected: BTreeMap<DestinationKey, (&str, u32)> = BTreeMap::new();
    let is_of_port = |one: &&CheckedRealServer| one.port_name == planned.port_name;
    for one in &planned.real_servers {
        let said = reported.iter().filter(is_of_port).find(|said| {
            (said.address, said.port) == (one.address, one.port) && said.name == one.name
        });
        let weight = said.map_or(one.weight, |said| said.effective_weight);
        let first = DestinationKey {
            address: one.address,
            port: one.port,
        };
        let at = if one.port == 0 {
            first
        } else {
            first.at_offset(offset)
        };
        expected.insert(at, (one.name.as_str(), u32::from(weight)));
    }
    for (at, (name, weight)) in &expected {
        let mut destinations = service.destinations.iter();
        match destinations.find(|found| found.key() == *at) {
            None if *weight > 0 => {
                lines.push(format!("{key}: real server {name} ({at}) is missing"));
            }
            Some(found) if found.weight != *weight => lines.push(format!(
                "{key}: real server {name} ({at}) has weight {}, not {weight}",
                found.weight
            )),
            _ => {}
        }
    }
    for found in &service.destinations {
        let is_sorry = found.real_server.as_deref() == Some(SORRY_SERVER);
        // One that has left the plan and drains has weight 0.
        if !expected.contains_key(&found.key()) && !is_sorry && found.weight > 0 {
            lines.push(format!("{key}: {} is in no plan", found.key()));
        }
    }
}

/// How many ports follow the first of a range.
pub fn last_offset(service: &PlannedService) -> u16 {
    match &service.address {
        Some(address) if address.port != 0 => address.end_port.saturating_sub(address.port),
        _ => 0,
    }
}

fn shown_key(service: &ShownService) -> Option<ServiceKey> {
    match (service.address, service.protocol, service.firewall_mark) {
        (Some(address), Some(protocol), _) => Some(ServiceKey::Address {
            address,
            protocol,
            port: service.port.unwrap_or_default(),
        }),
        (_, _, Some(mark)) => Some(ServiceKey::FirewallMark {
            mark,
            family: service.address_family,
        }),
        _ => None,
    }
}
