//! What a plan's status says of real servers.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_core::health::{EffectiveWeight, Serving, UnixSeconds};
use lvs_crds::node_plan::{CheckedRealServer, NodePlanSpec, PlanState, PlannedService};
use lvs_crds::real_server::RealServerState;

/// Most real servers that are named: what the API server takes.
const REAL_SERVERS_NAMED: usize = 4096;
/// Most services without a quorum that are named.
const SERVICES_NAMED: usize = 64;

/// Real servers of the plan's services that have checks or a time to drain, each port once, without times. Those that have
/// left the plan and drain are among them.
pub fn real_servers(plan: &str, spec: &NodePlanSpec, serving: &Serving) -> Vec<CheckedRealServer> {
    let mut found: Vec<CheckedRealServer> = Vec::new();
    let told = services(spec)
        .filter(|service| service.has_checks() || service.drain_timeout_seconds.is_some());
    for service in told {
        let Some(standing) = serving.of(plan, service) else {
            continue;
        };
        let each = service.real_servers.iter().zip(&standing.real_servers);
        found.extend(each.map(|(planned, stands)| CheckedRealServer {
            name: planned.name.clone(),
            port_name: service.port_name.clone(),
            address: planned.address,
            port: planned.port,
            state: stands.state,
            effective_weight: match stands.weight {
                EffectiveWeight::Weight(weight) => weight,
                EffectiveWeight::Absent => 0,
            },
            since: None,
            message: stands.message.clone(),
            certificate_expiry_time: stands.certificate_expiry.and_then(time),
        }));
        let leaving = standing.leaving.values().flatten();
        found.extend(leaving.map(|one| CheckedRealServer {
            name: one.name.clone(),
            port_name: service.port_name.clone(),
            address: one.slot.0,
            port: one.slot.1,
            state: RealServerState::Draining,
            effective_weight: 0,
            since: None,
            message: one.message.clone(),
            certificate_expiry_time: None,
        }));
    }
    let name = |one: &CheckedRealServer| {
        (
            one.name.clone(),
            one.port_name.clone(),
            one.address,
            one.port,
        )
    };
    found.sort_by_cached_key(name);
    // A VirtualService with several addresses of a family has several services of one port.
    found.dedup_by(|left, right| name(left) == name(right));
    found.truncate(REAL_SERVERS_NAMED);
    found
}

/// As the API has it; nothing of what is no time there, beyond the year 9999.
fn time(moment: UnixSeconds) -> Option<Time> {
    Timestamp::from_second(moment.0).ok().map(Time)
}

/// Services of the plan that have checks and no quorum.
pub fn without_quorum(plan: &str, spec: &NodePlanSpec, serving: &Serving) -> Vec<String> {
    let lost: BTreeSet<String> = services(spec)
        .filter(|service| service.has_checks())
        .filter(|service| {
            let standing = serving.of(plan, service);
            standing.is_some_and(|standing| !standing.has_quorum)
        })
        .map(name)
        .collect();
    lost.into_iter().take(SERVICES_NAMED).collect()
}

fn services(spec: &NodePlanSpec) -> impl Iterator<Item = &PlannedService> {
    let director = spec
        .director
        .as_ref()
        .filter(|_| spec.state != PlanState::Withdrawn);
    director.into_iter().flat_map(|director| &director.services)
}

/// `192.0.2.10:80/TCP`, or `mark 1 IPv4`.
fn name(service: &PlannedService) -> String {
    match (&service.address, &service.firewall_mark) {
        (Some(address), _) => {
            let socket = std::net::SocketAddr::new(address.address, address.port);
            format!("{socket}/{}", address.protocol)
        }
        (None, Some(mark)) => format!("mark {} {:?}", mark.mark, mark.address_family),
        (None, None) => String::new(),
    }
}
