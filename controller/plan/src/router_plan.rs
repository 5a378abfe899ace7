//! Plans of routers: leadership and the addresses that move with it.

use std::collections::BTreeMap;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{
    DirectorPlan, LeadershipPlan, NodePlanSpec, PlanSource, PlannedAddress, SourceKind,
};
use lvs_crds::virtual_router::PreemptionMode;

use crate::fitness;
use crate::heartbeat::HeartbeatPaths;
use crate::lifecycle::Holdings;
use crate::name::plan_name;
use crate::report::Verdict;
use crate::resolution::Decisions;
use crate::router::Router;
use crate::settings;
use crate::tenancy::Tenancy;

/// Adds a plan for every director of every router.
pub(crate) fn add(
    decisions: &mut Decisions<'_>,
    settings: &settings::Settings,
    holdings: &Holdings,
    wanted: &mut BTreeMap<String, NodePlanSpec>,
) {
    let nodes = &decisions.inputs.nodes;
    for (name, router) in &decisions.routers.decoded {
        let Some(membership) = decisions.memberships.get(name) else {
            continue;
        };
        let problems = decisions.router_problems.entry(name.clone()).or_default();
        let tenancy = &decisions.tenancy;
        let mut addresses = additional_addresses(router, tenancy, holdings, problems);
        addresses.extend(source_addresses(router, tenancy, holdings, problems));
        addresses.sort();
        let tracked_interfaces = fitness::tracked_interfaces(router);
        let addresses_set_aside =
            fitness::addresses_set_aside(decisions.inputs, router, membership);
        let paths = HeartbeatPaths::of(decisions.inputs, router, membership.nodes());
        let set: Vec<String> = membership.directors.keys().cloned().collect();
        for node_name in membership.nodes() {
            let is_leaving = membership.leaving.contains(node_name);
            let (priority, candidacy) = membership
                .directors
                .get(node_name)
                .copied()
                .unwrap_or((1, lvs_crds::node_plan::Candidacy::Pending));
            let preemption = &router.spec.preemption;
            let mut directors = set.clone();
            if is_leaving {
                directors.push(node_name.clone());
                directors.sort();
            }
            let leadership = LeadershipPlan {
                lease_name: lease_name(name),
                priority: fitness::priority(router.spec, nodes.get(node_name), priority),
                preemption_delay_seconds: (preemption.mode == PreemptionMode::Enabled)
                    .then_some(preemption.delay_seconds),
                hand_over_to: router.hand_over_to.clone(),
                candidacy,
                heartbeat: paths.plan(&router.spec.detection, &directors),
                directors,
                lease_duration_seconds: router.spec.detection.lease_duration_seconds,
                on_api_server_loss: router.spec.on_api_server_loss,
                takeover: router.spec.takeover,
                announcement: router.spec.announcement.clone(),
                timeouts: settings
                    .timeouts
                    .get(&(name.clone(), node_name.clone()))
                    .cloned(),
                virtual_router_id: router.virtual_router_id,
                tracked_interfaces: tracked_interfaces.clone(),
                tracked_endpoints: router.spec.tracking.endpoints.clone(),
                tracked_real_servers: router.spec.tracking.real_servers,
                addresses_set_aside: addresses_set_aside.clone(),
                connection_sync: settings
                    .connection_sync
                    .get(&(name.clone(), node_name.clone()))
                    .cloned(),
            };
            let spec = NodePlanSpec {
                node_name: node_name.clone(),
                state: membership.state_of(node_name),
                source: PlanSource {
                    kind: SourceKind::VirtualRouter,
                    namespace: String::new(),
                    name: name.clone(),
                    uid: router.meta.uid.clone(),
                    generation: router.meta.generation,
                },
                virtual_router_name: name.clone(),
                director: Some(DirectorPlan {
                    leadership: Some(leadership),
                    addresses: addresses.clone(),
                    ..DirectorPlan::default()
                }),
                real_server: None,
            };
            wanted.insert(
                plan_name(SourceKind::VirtualRouter, node_name, &router.meta.uid),
                spec,
            );
        }
    }
}

/// The router's additional addresses, without those that it may not have or not yet.
pub(crate) fn additional_addresses(
    router: &Router<'_>,
    tenancy: &Tenancy,
    holdings: &Holdings,
    problems: &mut Vec<Verdict>,
) -> Vec<PlannedAddress> {
    let wanted = &router.additional_addresses;
    held(wanted, router, tenancy, holdings, problems)
}

/// The router's addresses with purpose SourceNAT, without those that it may not have or not yet.
pub(crate) fn source_addresses(
    router: &Router<'_>,
    tenancy: &Tenancy,
    holdings: &Holdings,
    problems: &mut Vec<Verdict>,
) -> Vec<PlannedAddress> {
    let wanted = &router.source_addresses;
    held(wanted, router, tenancy, holdings, problems)
}

fn held(
    wanted: &[PlannedAddress],
    router: &Router<'_>,
    tenancy: &Tenancy,
    holdings: &Holdings,
    problems: &mut Vec<Verdict>,
) -> Vec<PlannedAddress> {
    let name = &router.meta.key.name;
    let refused = tenancy.refused_additional.get(name);
    let mut addresses = Vec::new();
    for planned in wanted {
        if let Some(verdict) = refused.and_then(|refused| refused.get(&planned.address)) {
            problems.push(verdict.clone());
        } else if let Some((other, nodes)) = holdings.blocked_by(name, planned.address) {
            problems.push(waits_for_release(
                &planned.address.to_string(),
                other,
                &nodes,
            ));
        } else {
            addresses.push(planned.clone());
        }
    }
    addresses
}

/// An address that another router has not released yet.
pub(crate) fn waits_for_release(address: &str, other: &str, nodes: &[&str]) -> Verdict {
    Verdict::bad(
        ConditionType::Programmed,
        Reason::Pending,
        format!(
            "address {address} waits until VirtualRouter {other} has released it on {}",
            nodes.join(", ")
        ),
    )
}
