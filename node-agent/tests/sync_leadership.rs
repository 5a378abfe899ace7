//! The sync loop and what it tells of leadership: the last transition, a holder that is not heard, the last word of a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use lvs_agent::port::LeadershipRole;
use lvs_agent::report::last_word;
use lvs_crds::node_plan::{AddressState, PlanState, Role};
use lvs_crds::transition::{Transition, TransitionKind};

use node_in_memory::{Node, ROUTER, VIP, list, pass, received, router, serving};

fn transition(reason: TransitionKind, epoch: i64) -> Transition {
    Transition {
        reason,
        epoch,
        peer_node_name: Some("node-b".into()),
        message: "it says why".into(),
        time: Time(Timestamp::UNIX_EPOCH),
    }
}

#[test]
fn only_the_plan_with_leadership_tells_of_it_and_a_restart_forgets_nothing() {
    let node = Node::new();
    let mut agent = serving(&node);
    let taken = transition(TransitionKind::BecameMaster, 7);
    let view = &mut agent.leadership.view;
    view.transitions.insert(ROUTER.into(), taken.clone());
    view.heartbeats_lost.insert(ROUTER.into(), "node-b".into());
    let report = pass(&mut agent);
    let told = &report.plans["vr-1"];
    assert_eq!(told.leads.as_deref(), Some(ROUTER));
    assert_eq!(told.last_transition.as_ref(), Some(&taken));
    assert_eq!(told.heartbeat_lost_from.as_deref(), Some("node-b"));
    let other = &report.plans["vs-1"];
    assert_eq!((&other.leads, &other.last_transition), (&None, &None));
    assert_eq!(other.heartbeat_lost_from, None);

    // Another process of this node knows no transition of its own; the API has the last one.
    agent.leadership.view.transitions.clear();
    agent.leadership.view.heartbeats_lost.clear();
    let mut agent = node.restart(agent);
    let mut live = received("vr-1", 1, Ok(router(PlanState::Active)));
    live.status.last_transition = Some(taken.clone());
    list(&mut agent, vec![live]);
    for _ in 0..2 {
        let report = pass(&mut agent);
        let told = &report.plans["vr-1"];
        assert_eq!(told.last_transition.as_ref(), Some(&taken));
        assert_eq!(told.heartbeat_lost_from, None);
    }
    let given = transition(TransitionKind::HandedOver, 8);
    let view = &mut agent.leadership.view;
    view.transitions.insert(ROUTER.into(), given.clone());
    let report = pass(&mut agent);
    assert_eq!(report.plans["vr-1"].last_transition, Some(given));
}

#[test]
fn a_message_that_is_too_long_for_the_api_is_cut() {
    let node = Node::new();
    let mut agent = serving(&node);
    let mut taken = transition(TransitionKind::HandedOver, 7);
    taken.message = "ä".repeat(1_000);
    let view = &mut agent.leadership.view;
    view.transitions.insert(ROUTER.into(), taken);
    let report = pass(&mut agent);
    let told = report.plans["vr-1"].last_transition.clone().unwrap();
    assert!(told.message.len() <= 1024 && told.message.ends_with('…'));
}

#[test]
fn the_last_word_says_what_came_of_it_and_nothing_without_news() {
    let node = Node::new();
    let mut agent = serving(&node);
    // The router's plan names the address, too: it is held with the others.
    let mut plan = router(PlanState::Active);
    let addresses = node_in_memory::director(VIP, &[1], PlanState::Active);
    plan.director.as_mut().unwrap().addresses = addresses.director.unwrap().addresses;
    list(&mut agent, vec![received("vr-1", 1, Ok(plan))]);
    pass(&mut agent);
    agent.leadership.master();
    let taken = transition(TransitionKind::BecameMaster, 7);
    let view = &mut agent.leadership.view;
    view.transitions.insert(ROUTER.into(), taken);
    let report = pass(&mut agent);
    let told = &report.plans["vr-1"];
    assert_eq!(told.role, Some(Role::Master));
    assert_eq!(told.addresses[0].state, AddressState::Held);
    let mut view = agent.leadership.view.clone();
    assert_eq!(last_word(told, &view), None, "all of it is said");

    let given = transition(TransitionKind::HandedOver, 8);
    view.transitions.insert(ROUTER.into(), given.clone());
    view.roles.insert(ROUTER.into(), LeadershipRole::Unknown);
    view.held.clear();
    let last = last_word(told, &view).unwrap();
    assert_eq!(last.role, Some(Role::Backup));
    assert_eq!(last.addresses[0].state, AddressState::Released);
    assert_eq!(last.last_transition, Some(given));
    assert_eq!(last.programmed, told.programmed);
    // A plan without leadership has no last word.
    let mut other = told.clone();
    other.leads = None;
    assert_eq!(last_word(&other, &view), None);
}

/// Of twelve busy connections one ended in a hand-over between two directors that are real servers too: the new one had the
/// address before the services, and its own program answered what belonged to another real server.
#[test]
fn a_director_that_is_a_real_server_gets_its_addresses_after_its_services() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut both = node_in_memory::director(VIP, &[1, 1], PlanState::Active);
    both.real_server = node_in_memory::real_server(PlanState::Active).real_server;
    let plans = vec![
        received("vr-1", 1, Ok(router(PlanState::Active))),
        received("vs-1", 1, Ok(both)),
    ];
    list(&mut agent, plans);
    let held_back = BTreeSet::from([ROUTER.to_owned()]);
    let set_role = |agent: &mut node_in_memory::Loop, role| {
        let roles = &mut agent.leadership.view.roles;
        roles.insert(ROUTER.into(), role);
    };
    set_role(&mut agent, LeadershipRole::Backup);
    pass(&mut agent);
    assert_eq!(agent.leadership.held_back, held_back);
    assert!(
        !agent.leadership.addresses[ROUTER].is_empty(),
        "it is known what is wanted"
    );
    assert!(agent.ipvs.model.services.is_empty());

    set_role(&mut agent, LeadershipRole::Master);
    pass(&mut agent);
    assert_eq!(agent.ipvs.model.services.len(), 1);
    assert_eq!(agent.leadership.held_back, BTreeSet::new());

    set_role(&mut agent, LeadershipRole::Backup);
    pass(&mut agent);
    assert_eq!(agent.leadership.held_back, held_back);

    // A kernel that cannot be read costs the services, and not the address as well.
    let next = agent.host.observations + 1;
    agent.host.unreadable.extend(next..next + 10);
    pass(&mut agent);
    assert_eq!(
        agent.leadership.held_back, held_back,
        "while it is not master"
    );
    set_role(&mut agent, LeadershipRole::Master);
    pass(&mut agent);
    assert_eq!(agent.leadership.held_back, BTreeSet::new());
}
