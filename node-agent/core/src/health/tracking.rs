//! What a director is worth that finds too few real servers up.

use std::collections::BTreeMap;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{PlanState, PlannedService};
use lvs_crds::real_server::RealServerState;
use lvs_crds::tracking::{Deduction, TrackedRealServers};

use super::policy::{ServiceServing, Serving};
use crate::desired::{DesiredState, PlanInput};

/// Takes off the priority what routers say, for each VirtualService of which fewer real servers are up than they track.
pub fn judge(desired: &mut DesiredState, plans: &[PlanInput], serving: &Serving) {
    let held = || {
        plans
            .iter()
            .filter(|plan| plan.spec.state != PlanState::Withdrawn)
    };
    let tracked: BTreeMap<&str, TrackedRealServers> = held()
        .filter_map(|plan| {
            let leadership = plan.spec.director.as_ref()?.leadership.as_ref()?;
            let router = plan.spec.virtual_router_name.as_str();
            Some((router, leadership.tracked_real_servers?))
        })
        .collect();
    for plan in held() {
        let router = &plan.spec.virtual_router_name;
        let (Some(director), Some(tracked)) = (&plan.spec.director, tracked.get(router.as_str()))
        else {
            continue;
        };
        let worst = director
            .services
            .iter()
            .filter(|service| service.has_checks())
            .filter_map(|service| {
                let standing = serving.of(&plan.name, service)?;
                missing(service, standing, tracked.minimum_ready)
            })
            .min();
        let Some((up, needed)) = worst else {
            continue;
        };
        let source = &plan.spec.source;
        let fitness = desired.fitness.entry(router.clone()).or_default();
        fitness.deductions.insert(Deduction {
            priority_delta: tracked.priority_delta,
            reason: Reason::TooFewRealServers.as_str().to_owned(),
            message: format!(
                "VirtualService {}/{}: {up} of {needed} real servers that are needed are up",
                source.namespace, source.name
            ),
        });
    }
}

/// How many are up and how many are needed, if that is too few.
fn missing(
    service: &PlannedService,
    standing: &ServiceServing,
    minimum_ready: u16,
) -> Option<(usize, usize)> {
    let serving = service
        .real_servers
        .iter()
        .zip(&standing.real_servers)
        .filter(|(planned, _)| planned.weight > 0 && planned.administrative_state.is_enabled());
    let (mut up, mut all) = (0, 0);
    for (_, stands) in serving {
        all += 1;
        // What was not checked yet speaks against nobody.
        up += usize::from(stands.state != RealServerState::Down);
    }
    let needed = usize::from(minimum_ready).min(all);
    (up < needed).then_some((up, needed))
}
