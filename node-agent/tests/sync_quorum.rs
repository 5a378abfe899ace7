//! The sync loop and addresses that a director is not to have for want of real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use lvs_core::desired::Fitness;
use lvs_crds::condition::Reason;
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use lvs_crds::node_plan::{AddressState, CheckReference, NodePlanSpec, PlanState};
use lvs_crds::traffic_policy::{OnQuorumLoss, Quorum};

use node_in_memory::{
    Loop, Node, ROUTER, VIP, director, key, list, pass, reason, received, router,
};

/// A service of as many real servers as there are weights.
fn withdrawing(weights: &[u16]) -> NodePlanSpec {
    let mut plan = director(VIP, weights, PlanState::Active);
    plan.director.as_mut().unwrap().services[0].quorum = Some(Quorum {
        on_loss: Some(OnQuorumLoss::WithdrawAddress),
        ..Quorum::default()
    });
    plan
}

/// The same with a check of which nothing is known.
fn checked(weights: &[u16]) -> NodePlanSpec {
    let mut plan = withdrawing(weights);
    let director = plan.director.as_mut().unwrap();
    director.checks = vec![HealthCheck::new("tcp".into(), HealthCheckType::TCP)];
    director.services[0].checks = vec![CheckReference {
        check_name: "tcp".into(),
        port: None,
    }];
    plan
}

fn plans(agent: &mut Loop, generation: i64, plan: NodePlanSpec) {
    let router = received("vr-1", 1, Ok(router(PlanState::Active)));
    list(agent, vec![router, received("vs-1", generation, Ok(plan))]);
}

fn handed(agent: &Loop) -> Vec<String> {
    let keys = agent.leadership.addresses.get(ROUTER);
    let keys = keys.into_iter().flatten();
    keys.map(|key| key.address.to_string()).collect()
}

#[test]
fn without_real_servers_the_address_is_not_handed_over_and_leadership_stays() {
    let node = Node::new();
    let mut agent = node.fresh();
    plans(&mut agent, 1, withdrawing(&[2, 1]));
    pass(&mut agent);
    assert_eq!(handed(&agent), [VIP]);
    agent.leadership.master();
    let routers = agent.leadership.routers.clone();

    plans(&mut agent, 2, withdrawing(&[]));
    let report = pass(&mut agent);
    assert_eq!(handed(&agent), Vec::<String>::new());
    // As the fence does it.
    agent.leadership.master();
    let told = pass(&mut agent);
    assert_eq!(
        told.plans["vs-1"].addresses[0].state,
        AddressState::Withdrawn
    );
    assert_eq!(
        reason(&report, "vs-1"),
        Reason::Programmed,
        "it is no fault"
    );
    assert_eq!(agent.leadership.routers, routers);
    let routers = agent.leadership.routers.as_ref().unwrap();
    assert_eq!(routers[ROUTER].fitness, Fitness::default());

    plans(&mut agent, 3, withdrawing(&[1]));
    pass(&mut agent);
    assert_eq!(handed(&agent), [VIP]);
}

#[test]
fn a_restarted_agent_keeps_the_address_that_it_has_until_results_speak() {
    for had in [true, false] {
        let node = Node::new();
        let mut agent = node.fresh();
        plans(&mut agent, 1, withdrawing(&[2, 1]));
        pass(&mut agent);
        // No weight in the kernel tells that anybody was up.
        agent.ipvs.model.services.clear();
        if had {
            agent.host.model.add_director_address(key("eth0", VIP, 32));
        }
        let mut agent = node.restart(agent);
        plans(&mut agent, 2, checked(&[2, 1]));
        pass(&mut agent);
        assert_eq!(!handed(&agent).is_empty(), had);
        pass(&mut agent);
        assert_eq!(!handed(&agent).is_empty(), had);
    }
}
