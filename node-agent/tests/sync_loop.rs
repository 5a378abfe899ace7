//! The sync loop over a kernel in memory: plans reach it, what is in force costs nothing, restarts and drift. Each test is named for the incident
//! it keeps from coming back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::collections::BTreeSet;
use std::time::Duration;

use lvs_agent::book::PlanEvent;
use lvs_agent::port::{LeadershipRole, LeadershipView};
use lvs_core::ipvs::Service;
use lvs_core::op::IpvsOp;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;
use lvs_crds::value::SchedulerName;
use lvs_ipvs::fake::Fault;
use lvs_ipvs::{DumpError, TransportError};
use nix::errno::Errno;

use node_in_memory::{
    Node, ROUTER, VIP, director, foreign_service, key, list, pass, real_server, reason, received,
    router, service_key, serving,
};

#[test]
fn a_plan_reaches_the_kernel_and_its_address_is_handed_over() {
    let node = Node::new();
    let agent = serving(&node);
    let state = &agent.ipvs.model.services[&service_key(VIP, 80)];
    assert_eq!(state.service.scheduler, "wrr");
    assert_eq!(
        state
            .destinations
            .iter()
            .map(|(_, found)| found.weight)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(
        agent
            .leadership
            .routers
            .as_ref()
            .unwrap()
            .contains_key(ROUTER)
    );
}

#[test]
fn no_change_means_no_write_and_one_reading() {
    let node = Node::new();
    let mut agent = serving(&node);
    let (dumps, observations) = (agent.ipvs.dumps, agent.host.observations);
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(
        (
            agent.ipvs.dumps - dumps,
            agent.host.observations - observations
        ),
        (1, 1)
    );
}

#[test]
fn killed_with_9_and_restarted_from_the_cache_writes_nothing() {
    let node = Node::new();
    let mut agent = node.restart(serving(&node));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    // The address that the kernel still holds is handed over again, and the router is told.
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(
        agent
            .leadership
            .routers
            .as_ref()
            .unwrap()
            .contains_key(ROUTER)
    );
    // Also when the API is back.
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 1, Ok(director(VIP, &[2, 1], PlanState::Active))),
        ],
    );
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
}

#[test]
fn killed_between_journal_and_kernel_the_service_is_still_ours() {
    let node = Node::new();
    let mut agent = node.fresh();
    let plan = director(VIP, &[1], PlanState::Active);
    list(&mut agent, vec![received("vs-1", 1, Ok(plan.clone()))]);
    // The answer to the first write is lost and the kernel is not read again: nobody told us that the service exists.
    let first = IpvsOp::AddService(
        service_key(VIP, 80),
        Service {
            scheduler: "wrr".into(),
            ..foreign_service().service
        },
    );
    let lost = TransportError::Receive { errno: Errno::EIO };
    agent.ipvs.faults.push((first, Fault::AnswerLost(lost)));
    agent.host.unreadable.insert(2);
    assert!(pass(&mut agent).blindness.is_some());
    assert!(
        agent
            .ipvs
            .model
            .services
            .contains_key(&service_key(VIP, 80))
    );
    let mut agent = node.restart(agent);
    list(&mut agent, vec![received("vs-1", 1, Ok(plan))]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed, "{report:?}");
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        1
    );
}

#[test]
fn a_restarted_master_that_is_a_real_server_too_turns_nothing_over() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut both = director(VIP, &[1], PlanState::Active);
    both.real_server = real_server(PlanState::Active).real_server;
    let plans = || {
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 1, Ok(both.clone())),
        ]
    };
    list(&mut agent, plans());
    pass(&mut agent);
    agent.leadership.master();
    agent.host.model.add_director_address(key("eth0", VIP, 32));
    pass(&mut agent);
    let mut agent = node.restart(agent);
    // Leadership has not read the Lease yet.
    agent.leadership.view = LeadershipView::default();
    pass(&mut agent);
    assert!(
        agent.host.carried_out.is_empty(),
        "{:?}",
        agent.host.carried_out
    );
    assert!(agent.ipvs.carried_out.is_empty());
    agent
        .leadership
        .view
        .roles
        .insert(ROUTER.into(), LeadershipRole::Backup);
    agent.host.model.remove_address(&key("eth0", VIP, 32));
    pass(&mut agent);
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("lvs-dr", VIP, 32))
    );
}

#[test]
fn one_changed_weight_is_one_edit() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 5], PlanState::Active)),
    )));
    let report = pass(&mut agent);
    assert!(
        matches!(agent.ipvs.carried_out.as_slice(), [IpvsOp::EditDestination(_, _, found)] if found.weight == 5),
        "{:?}",
        agent.ipvs.carried_out
    );
    assert!(agent.host.carried_out.is_empty());
    assert_eq!(report.plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn drift_is_repaired_and_only_drift() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.ipvs.model.services.clear();
    let report = pass(&mut agent);
    // It is there, and people are told who may take it away again.
    assert_eq!(report.plans["vs-1"].programmed.status, "True");
    assert_eq!(reason(&report, "vs-1"), Reason::DriftRepaired);
    assert!(
        report.plans["vs-1"].programmed.message.contains(VIP),
        "{report:?}"
    );
    // Soon again: who did it once does it every half minute.
    assert_eq!(report.due, Some(Duration::from_secs(1)));
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        2
    );
    assert_eq!(agent.ipvs.carried_out.len(), 3);
}

#[test]
fn an_address_that_somebody_removed_is_reported_to_the_fence_and_told_of_its_plan() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.leadership.master();
    let held = agent.leadership.view.held.clone();
    for key in held.values().flatten() {
        agent.host.model.add_director_address(key.clone());
    }
    pass(&mut agent);
    assert!(agent.leadership.missing.is_empty());
    for key in held.values().flatten() {
        agent.host.model.remove_address(key);
    }
    let report = pass(&mut agent);
    assert_eq!(agent.leadership.missing, held);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    // The fence has put it back.
    agent.leadership.view.restored = held
        .iter()
        .map(|(router, keys)| {
            let counts = keys.iter().map(|key| (key.clone(), 1));
            (router.clone(), counts.collect())
        })
        .collect();
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::DriftRepaired);
    let message = &report.plans["vs-1"].programmed.message;
    assert!(message.contains(VIP), "{message}");
}

#[test]
fn one_refused_service_does_not_stop_the_others() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent.ipvs.model.schedulers.remove("mh");
    let mut broken = director("192.0.2.251", &[1], PlanState::Active);
    broken.director.as_mut().unwrap().services[0].scheduler.name = SchedulerName::Mh;
    list(
        &mut agent,
        vec![
            received("vs-1", 1, Ok(broken)),
            received("vs-2", 1, Ok(director(VIP, &[1], PlanState::Active))),
        ],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::KernelModuleMissing);
    assert!(
        report.plans["vs-1"].programmed.message.contains("ip_vs_mh"),
        "{report:?}"
    );
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(report.retry);
}

#[test]
fn a_service_that_fails_later_does_not_take_its_address_along() {
    let node = Node::new();
    let mut agent = serving(&node);
    let mut changed = director(VIP, &[2, 1], PlanState::Active);
    changed.director.as_mut().unwrap().services[0]
        .scheduler
        .name = SchedulerName::Mh;
    agent.ipvs.model.schedulers.remove("mh");
    agent.take(PlanEvent::Applied(received("vs-1", 2, Ok(changed))));
    assert_eq!(
        reason(&pass(&mut agent), "vs-1"),
        Reason::KernelModuleMissing
    );
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
}

#[test]
fn a_kernel_without_ipvs_is_told_on_its_plans_and_real_servers_go_on() {
    let node = Node::new();
    let mut agent = node.fresh();
    let missing = || DumpError::Transport {
        what: "x".into(),
        source: TransportError::FamilyMissing,
    };
    agent.ipvs.dump_failures.extend([missing(), missing()]);
    let mut plan = real_server(PlanState::Active);
    plan.source.name = "other".into();
    list(&mut agent, vec![received("vs-2", 1, Ok(plan))]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
}
