//! The sync loop over a kernel in memory: mistakes, unknowns and foreign things cost nobody anything. Each test is named for the incident
//! it keeps from coming back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::collections::BTreeSet;

use lvs_agent::book::PlanEvent;
use lvs_core::ipvs::Service;
use lvs_core::op::IpvsOp;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;
use lvs_ipvs::fake::Fault;
use lvs_ipvs::{DumpError, TransportError};
use nix::errno::Errno;

use node_in_memory::{
    Node, ROUTER, VIP, director, foreign_service, key, list, pass, reason, received, router,
    service_key, serving,
};

#[test]
fn an_undecodable_plan_freezes_what_it_had() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Err("unknown variant `quantum`"),
    )));
    let report = pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::PlanUndecodable)
    );
    assert!(told.programmed.message.contains("quantum"), "{told:?}");
    assert_eq!(
        (told.observed_generation, told.programmed.generation),
        (Some(1), Some(2))
    );
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
    // Drift is still repaired.
    agent.ipvs.model.services.clear();
    pass(&mut agent);
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        2
    );
}

#[test]
fn a_vanished_plan_is_kept_as_orphaned() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Deleted {
        name: "vs-1".into(),
        uid: "uid-vs-1".into(),
    });
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::OrphanedPlan);
    assert!(agent.ipvs.carried_out.is_empty());
    // Also over a restart, and when every plan is gone from the list.
    let mut agent = node.restart(agent);
    list(&mut agent, vec![]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::OrphanedPlan);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
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
fn a_kernel_that_cannot_be_read_is_not_written_to() {
    let node = Node::new();
    let mut agent = serving(&node);
    let handed = agent.leadership.addresses.clone();
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[9, 9], PlanState::Active)),
    )));
    agent.host.unreadable.insert(agent.host.observations + 1);
    let report = pass(&mut agent);
    assert!(report.retry && report.blindness.is_some());
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("Unknown", Reason::ObservationFailed)
    );
    assert_eq!(
        told.observed_generation,
        Some(1),
        "the new generation is not dealt with"
    );
    let broken = DumpError::Transport {
        what: "the IPVS services".into(),
        source: TransportError::Overflow,
    };
    agent.ipvs.dump_failures.push_back(broken);
    let report = pass(&mut agent);
    assert!(report.blindness.is_some());
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(agent.leadership.addresses, handed);
    assert_eq!(pass(&mut agent).plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn what_is_not_ours_survives_everything() {
    let node = Node::new();
    let mut agent = serving(&node);
    let foreign = service_key("198.51.100.1", 443);
    agent.ipvs.model.services.insert(foreign, foreign_service());
    pass(&mut agent);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[], PlanState::Withdrawn)),
    )));
    pass(&mut agent);
    assert_eq!(
        agent.ipvs.model.services.keys().collect::<Vec<_>>(),
        [&foreign]
    );
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("eth0", "192.0.2.2", 24))
    );
}

#[test]
fn a_foreign_service_in_the_way_is_left_alone_and_told() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent
        .ipvs
        .model
        .services
        .insert(service_key(VIP, 80), foreign_service());
    list(
        &mut agent,
        vec![received(
            "vs-1",
            1,
            Ok(director(VIP, &[1], PlanState::Active)),
        )],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::ForeignObject);
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)],
        foreign_service()
    );
    assert!(
        agent.leadership.addresses[ROUTER].is_empty(),
        "no address without its service"
    );
}

#[test]
fn a_service_of_others_that_appears_between_look_and_write_gets_no_destination() {
    let node = Node::new();
    let mut agent = node.fresh();
    list(
        &mut agent,
        vec![received(
            "vs-1",
            1,
            Ok(director(VIP, &[1], PlanState::Active)),
        )],
    );
    let add = IpvsOp::AddService(
        service_key(VIP, 80),
        Service {
            scheduler: "wrr".into(),
            ..foreign_service().service
        },
    );
    agent.ipvs.faults.push((add, Fault::Refused(Errno::EEXIST)));
    agent.ipvs.faults.push((
        IpvsOp::AddService(
            service_key(VIP, 80),
            Service {
                scheduler: "wrr".into(),
                ..foreign_service().service
            },
        ),
        Fault::Refused(Errno::EEXIST),
    ));
    agent.ipvs.faults.push((
        IpvsOp::AddService(
            service_key(VIP, 80),
            Service {
                scheduler: "wrr".into(),
                ..foreign_service().service
            },
        ),
        Fault::Refused(Errno::EEXIST),
    ));
    let report = pass(&mut agent);
    assert!(
        agent.ipvs.carried_out.is_empty(),
        "{:?}",
        agent.ipvs.carried_out
    );
    assert_ne!(reason(&report, "vs-1"), Reason::Programmed);
}

#[test]
fn a_lost_journal_takes_nothing_away() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::remove_file(node.runtime.path().join("journal.json")).unwrap();
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 2, Ok(director(VIP, &[7], PlanState::Withdrawn))),
        ],
    );
    pass(&mut agent);
    assert!(
        agent
            .ipvs
            .model
            .services
            .contains_key(&service_key(VIP, 80))
    );
}

#[test]
fn a_damaged_journal_stops_every_write() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::write(node.runtime.path().join("journal.json"), "{\"vers").unwrap();
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![received(
            "vs-1",
            2,
            Ok(director(VIP, &[7], PlanState::Withdrawn)),
        )],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::ObservationFailed);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert!(
        report.plans["vs-1"]
            .programmed
            .message
            .contains("journal.json")
    );
}

#[test]
fn a_damaged_cache_removes_nothing_and_new_plans_go_on() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::write(node.state.path().join("plans/vs-1.json"), "{\"ver").unwrap();
    let mut agent = node.restart(agent);
    let other = "192.0.2.251";
    agent.take(PlanEvent::Applied(received(
        "vs-2",
        1,
        Ok(director(other, &[1], PlanState::Active)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::PlanUndecodable);
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
    assert_eq!(
        agent.ipvs.model.services.keys().collect::<BTreeSet<_>>(),
        BTreeSet::from([&service_key(VIP, 80), &service_key(other, 80)])
    );
    // The address of the unknown plan stays with the fence.
    assert!(agent.leadership.addresses[ROUTER].contains(&key("eth0", VIP, 32)));
}

#[test]
fn before_the_first_list_nothing_is_removed() {
    let node = Node::new();
    let agent = serving(&node);
    // The cache lost a file while the agent was down.
    std::fs::remove_file(node.state.path().join("plans/vs-1.json")).unwrap();
    let mut agent = node.restart(agent);
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert!(agent.leadership.addresses[ROUTER].contains(&key("eth0", VIP, 32)));
}

#[test]
fn an_agent_that_knows_nothing_says_so() {
    let node = Node::new();
    let mut agent = node.fresh();
    assert!(agent.knows_nothing());
    list(&mut agent, vec![]);
    assert!(!agent.knows_nothing());
}
