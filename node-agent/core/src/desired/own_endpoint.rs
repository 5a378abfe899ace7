//! Routers that a node cannot direct since its agent would need their addresses before it could have them: the Lease is in
//! the API server, and every way there leads through the router (leadership.md, rule 14).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;

use super::{Builder, Fault, PlanInput, RouterRole};

/// Why a router must not be programmed, by its name.
pub(super) type OwnEndpoints = BTreeMap<String, String>;

/// The routers through which the agent reaches the API server, when there is no other way.
///
/// `endpoints` are the addresses at which the agent reaches the API server; empty = not known, and then nothing is
/// concluded. Routers that only together have all of them are all in it: none could begin.
pub(super) fn own_endpoints(held: &[&PlanInput], endpoints: &BTreeSet<IpAddr>) -> OwnEndpoints {
    let mut routers: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for plan in held {
        // What is retained stays as it is, there is no agent then.
        if !matches!(plan.spec.state, PlanState::Active | PlanState::Leaving) {
            continue;
        }
        let planned = plan.spec.director.iter();
        let own = planned
            .flat_map(|director| &director.addresses)
            .map(|planned| planned.address)
            .filter(|address| endpoints.contains(address));
        routers
            .entry(&plan.spec.virtual_router_name)
            .or_default()
            .extend(own);
    }
    routers.retain(|_, own| !own.is_empty());
    let reached: BTreeSet<IpAddr> = routers.values().flatten().copied().collect();
    if endpoints.is_empty() || reached != *endpoints {
        return OwnEndpoints::new();
    }
    let list: Vec<String> = endpoints.iter().map(IpAddr::to_string).collect();
    let message = format!(
        "the agent of this node reaches the API server at {} only, which it would have to hold as director: nobody could \
         hold it before; give the agents direct endpoints of API servers (value agent.apiServer.endpoints of the chart)",
        list.join(", ")
    );
    routers
        .into_keys()
        .map(|router| (router.to_owned(), message.clone()))
        .collect()
}

/// Whether a plan's work as director is left undone for that. A holder keeps what it has until another one takes over:
/// what works is not taken away.
pub(super) fn is_left_undone(
    plan: &PlanInput,
    role: RouterRole,
    own_endpoints: &OwnEndpoints,
) -> bool {
    role == RouterRole::Backup
        && plan.spec.state != PlanState::Retained
        && own_endpoints.contains_key(&plan.spec.virtual_router_name)
}

impl Builder<'_> {
    /// Tells the plan at hand if its router is one of those, and that the node is not fit for it.
    pub(super) fn judge_endpoints(&mut self) {
        let router = &self.plan.spec.virtual_router_name;
        let Some(message) = self.own_endpoints.get(router).cloned() else {
            return;
        };
        let reason = Reason::ApiEndpointIsOwnVip;
        let fitness = self.state.fitness.entry(router.clone()).or_default();
        fitness.faults.insert(Fault {
            reason,
            message: message.clone(),
        });
        self.problem(reason, message);
    }
}
