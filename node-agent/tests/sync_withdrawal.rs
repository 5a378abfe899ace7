//! The sync loop over a kernel in memory: what is withdrawn goes, and is acknowledged only then. Each test is named for the incident
//! it keeps from coming back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use lvs_agent::book::PlanEvent;
use lvs_agent::port::LeadershipRole;
use lvs_core::host::SysctlKey;
use lvs_core::ipvs::{DestinationKey, IpvsTimeouts};
use lvs_core::op::IpvsOp;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{AddressState, PlanState};
use nix::errno::Errno;

use node_in_memory::{
    Loop, Node, ROUTER, VIP, director, key, list, pass, real_server, reason, received, router,
    service_key, serving,
};

#[test]
fn a_withdrawn_plan_is_acknowledged_only_when_nothing_is_left() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 1], PlanState::Withdrawn)),
    )));
    let report = pass(&mut agent);
    assert!(agent.ipvs.model.services.is_empty());
    assert!(agent.leadership.addresses[ROUTER].is_empty());
    // The fence has not let go yet.
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::Pending)
    );
    assert_eq!(told.addresses[0].state, AddressState::Held);
    agent.leadership.view.held.clear();
    let report = pass(&mut agent);
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::Withdrawn)
    );
    assert_eq!(
        (told.observed_generation, told.programmed.generation),
        (Some(2), Some(2))
    );
    assert_eq!(told.addresses[0].state, AddressState::Released);
    agent.take(PlanEvent::Deleted {
        name: "vs-1".into(),
        uid: "uid-vs-1".into(),
    });
    let report = pass(&mut agent);
    assert!(!report.plans.contains_key("vs-1"));
    assert!(!node.state.path().join("plans/vs-1.json").exists());
}

#[test]
fn a_withdrawn_router_is_acknowledged_only_when_released() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[], PlanState::Withdrawn)),
    )));
    agent.take(PlanEvent::Applied(received(
        "vr-1",
        2,
        Ok(router(PlanState::Withdrawn)),
    )));
    agent.leadership.view.held.clear();
    assert_eq!(reason(&pass(&mut agent), "vr-1"), Reason::Pending);
    agent
        .leadership
        .view
        .roles
        .insert(ROUTER.into(), LeadershipRole::Released);
    assert_eq!(reason(&pass(&mut agent), "vr-1"), Reason::Withdrawn);
}

#[test]
fn retention_is_acknowledged_only_when_the_addresses_no_longer_expire() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.host.model.add_director_address(key("eth0", VIP, 32));
    let lifetime = |agent: &mut Loop, valid_seconds| {
        let addresses = &mut agent.host.model.state_mut().addresses;
        for (_, attributes) in addresses
            .iter_mut()
            .filter(|(found, _)| *found == key("eth0", VIP, 32))
        {
            attributes.valid_seconds = valid_seconds;
        }
    };
    lifetime(&mut agent, Some(2));
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 1], PlanState::Retained)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Pending);
    assert_eq!(report.plans["vs-1"].observed_generation, Some(1));
    assert!(report.retry);
    lifetime(&mut agent, None);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert_eq!(report.plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn what_cannot_be_removed_is_not_acknowledged() {
    let node = Node::new();
    let mut agent = node.fresh();
    list(
        &mut agent,
        vec![received("vs-1", 1, Ok(real_server(PlanState::Active)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Programmed);
    agent
        .host
        .refusals
        .insert("link delete lvs-dr".into(), Errno::EBUSY);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(real_server(PlanState::Withdrawn)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::KernelError, "{report:?}");
    agent.host.refusals.clear();
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Withdrawn);
}

#[test]
fn a_real_server_is_prepared_and_restored() {
    let node = Node::new();
    let mut agent = node.fresh();
    let before = agent.host.model.clone();
    list(
        &mut agent,
        vec![received("vs-1", 1, Ok(real_server(PlanState::Active)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Programmed);
    let ignored = SysctlKey("net/ipv4/conf/eth0/arp_ignore".into());
    assert_eq!(agent.host.model.sysctls[&ignored], "1");
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("lvs-dr", VIP, 32))
    );
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![received("vs-1", 2, Ok(real_server(PlanState::Withdrawn)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Withdrawn);
    assert_eq!(agent.host.model.state().addresses, before.state().addresses);
    assert_eq!(
        agent.host.model.state().links.keys().collect::<Vec<_>>(),
        before.state().links.keys().collect::<Vec<_>>()
    );
    assert_eq!(agent.host.model.sysctls[&ignored], "0");
}

#[test]
fn a_change_of_mind_about_timeouts_is_put_back() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut plan = router(PlanState::Active);
    plan.director
        .as_mut()
        .unwrap()
        .leadership
        .as_mut()
        .unwrap()
        .timeouts = Some(lvs_crds::value::Timeouts {
        tcp_seconds: 60,
        tcp_fin_seconds: 10,
        udp_seconds: 30,
    });
    list(&mut agent, vec![received("vr-1", 1, Ok(plan))]);
    pass(&mut agent);
    let set = IpvsTimeouts {
        tcp_seconds: 60,
        tcp_fin_seconds: 10,
        udp_seconds: 30,
    };
    assert_eq!(agent.ipvs.model.timeouts, set);
    agent.take(PlanEvent::Applied(received(
        "vr-1",
        2,
        Ok(router(PlanState::Active)),
    )));
    pass(&mut agent);
    assert_eq!(agent.ipvs.model.timeouts.tcp_seconds, 900);
}

#[test]
fn a_removed_real_server_leaves_the_kernel() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2], PlanState::Active)),
    )));
    pass(&mut agent);
    let gone = DestinationKey {
        address: "192.0.2.11".parse().unwrap(),
        port: 80,
    };
    assert_eq!(
        agent.ipvs.carried_out,
        [IpvsOp::DeleteDestination(service_key(VIP, 80), gone)]
    );
}
