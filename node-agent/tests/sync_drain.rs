//! The sync loop over a kernel in memory: a real server that leaves its plan drains, is told of, and goes with its last
//! connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::time::Duration;

use lvs_core::ipvs::DestinationKey;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{NodePlanSpec, PlanState};
use lvs_crds::real_server::RealServerState;

use node_in_memory::{
    Loop, Node, VIP, director, list, pass, reason, received, router, service_key,
};

const DAY: Duration = Duration::from_hours(24);

/// A director's plan over this many real servers that gives them a day to drain.
fn draining_plan(weights: &[u16]) -> NodePlanSpec {
    let mut plan = director(VIP, weights, PlanState::Active);
    let services = &mut plan.director.as_mut().unwrap().services;
    services[0].drain_timeout_seconds = Some(86_400);
    plan
}

fn weights(agent: &Loop) -> Vec<u32> {
    let state = &agent.ipvs.model.services[&service_key(VIP, 80)];
    let destinations = state.destinations.iter();
    destinations.map(|(_, found)| found.weight).collect()
}

fn plan(agent: &mut Loop, generation: i64, weights: &[u16]) {
    let plans = vec![
        received("vr-1", 1, Ok(router(PlanState::Active))),
        received("vs-1", generation, Ok(draining_plan(weights))),
    ];
    list(agent, plans);
}

#[test]
fn who_leaves_drains_over_a_restart_is_told_of_and_goes_with_its_last_connection() {
    let node = Node::new();
    let mut agent = node.fresh();
    plan(&mut agent, 1, &[2, 1]);
    pass(&mut agent);
    agent.leadership.master();
    assert_eq!(weights(&agent), [2, 1]);
    let second = DestinationKey {
        address: "192.0.2.11".parse().unwrap(),
        port: 80,
    };
    let connected = (service_key(VIP, 80), second);
    agent.ipvs.model.connected.insert(connected);

    plan(&mut agent, 2, &[2]);
    let report = pass(&mut agent);
    assert_eq!(weights(&agent), [2, 0]);
    assert_eq!(
        reason(&report, "vs-1"),
        Reason::Programmed,
        "it is as wanted"
    );
    assert!(report.due.is_some_and(|due| due <= DAY && due > DAY / 2));
    let seen: Vec<_> = report.plans["vs-1"]
        .real_servers
        .iter()
        .map(|one| (one.name.as_str(), one.state, one.message.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("web-0", RealServerState::Up, ""),
            (
                "web-1",
                RealServerState::Draining,
                "it has left the VirtualService: draining, at most 86400 s"
            )
        ]
    );
    let told = report.plans["vs-1"].real_servers.clone();
    let again = pass(&mut agent);
    assert_eq!(
        again.plans["vs-1"].real_servers, told,
        "time alone is no news"
    );

    let mut agent = node.restart(agent);
    pass(&mut agent);
    assert_eq!(weights(&agent), [2, 0]);
    assert!(
        agent.ipvs.carried_out.is_empty(),
        "a restart writes nothing"
    );
    plan(&mut agent, 2, &[2]);
    agent.ipvs.model.connected.clear();
    let report = pass(&mut agent);
    assert_eq!(weights(&agent), [2]);
    assert_eq!(report.plans["vs-1"].real_servers.len(), 1);
}
