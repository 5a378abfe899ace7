//! The sync loop and what speaks against its node as director: links, what the kernel refuses to the fence, and claims of
//! others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::time::{Duration, Instant};

use lvs_agent::book::PlanEvent;
use lvs_agent::port::{AddressTrouble, LeadershipRole};
use lvs_agent::sync::PassReport;
use lvs_core::desired::Fitness;
use lvs_core::endpoint::{EndpointKey, EndpointState};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{AddressState, HeartbeatPlan, HeartbeatStatus, PlanState};
use lvs_crds::tracking::TrackedEndpoint;
use lvs_crds::value::SchedulerName;

use node_in_memory::{
    Loop, Node, ROUTER, VIP, director, key, list, pass, reason, received, router, serving,
};

fn fitness(agent: &Loop) -> Fitness {
    agent.leadership.routers.as_ref().unwrap()[ROUTER]
        .fitness
        .clone()
}

fn carrier(agent: &mut Loop, carrier: bool) {
    let links = &mut agent.host.model.state_mut().links;
    links.get_mut("eth0").unwrap().carrier = carrier;
}

fn trouble(reason: Reason) -> AddressTrouble {
    AddressTrouble {
        address: VIP.parse().unwrap(),
        reason,
        message: "it says why".into(),
    }
}

#[test]
fn a_lost_link_makes_the_node_unfit_and_takes_no_address_away() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.leadership.master();
    let report = pass(&mut agent);
    assert_eq!(fitness(&agent), Fitness::default());
    assert_eq!(report.plans["vr-1"].effective_priority, Some(100));
    let handed = agent.leadership.addresses.clone();

    carrier(&mut agent, false);
    let report = pass(&mut agent);
    assert!(!fitness(&agent).is_fit());
    assert_eq!(reason(&report, "vr-1"), Reason::LinkDown);
    // The kernel holds what the service asked for; who serves it is the router's affair.
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert_eq!(agent.leadership.addresses, handed);

    carrier(&mut agent, true);
    let report = pass(&mut agent);
    assert!(fitness(&agent).is_fit());
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
}

#[test]
fn only_a_change_of_a_link_that_counts_is_a_reason_for_a_pass() {
    let node = Node::new();
    let mut agent = serving(&node);
    pass(&mut agent);
    let mut links = agent.host.model.state().links.clone();
    assert!(!agent.links_differ(&links));
    // A pod came.
    let mut other = links["eth0"].clone();
    other.index = 77;
    links.insert("veth77".to_owned(), other);
    assert!(!agent.links_differ(&links));
    links.get_mut("eth0").unwrap().carrier = false;
    assert!(agent.links_differ(&links));
    links.remove("eth0");
    assert!(agent.links_differ(&links));
}

#[test]
fn what_the_kernel_refuses_to_the_fence_counts_while_it_is_master() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.leadership.master();
    let troubles = vec![trouble(Reason::ForeignObject)];
    agent.leadership.view.troubles = [(ROUTER.to_owned(), troubles)].into();
    pass(&mut agent);
    assert!(!fitness(&agent).is_fit());
    // A backup tries nothing: what was refused then is no reason now.
    let roles = &mut agent.leadership.view.roles;
    roles.insert(ROUTER.into(), LeadershipRole::Backup);
    pass(&mut agent);
    assert!(fitness(&agent).is_fit());
}

#[test]
fn a_claim_of_another_host_is_told_of_service_and_router_and_is_no_fault() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.leadership.master();
    let conflicts = vec![trouble(Reason::ConflictDetected)];
    agent.leadership.view.conflicts = [(ROUTER.to_owned(), conflicts)].into();
    let report = pass(&mut agent);
    for plan in ["vs-1", "vr-1"] {
        assert_eq!(reason(&report, plan), Reason::ConflictDetected, "{plan}");
    }
    assert!(
        fitness(&agent).is_fit(),
        "another director would meet the same host"
    );
    agent.leadership.view.conflicts.clear();
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
}

/// The service changes to a scheduler that the kernel of this node does not have.
fn refuse_the_service(agent: &mut Loop) {
    let mut changed = director(VIP, &[2, 1], PlanState::Active);
    let services = &mut changed.director.as_mut().unwrap().services;
    services[0].scheduler.name = SchedulerName::Mh;
    agent.ipvs.model.schedulers.remove("mh");
    agent.take(PlanEvent::Applied(received("vs-1", 2, Ok(changed))));
}

#[test]
fn a_director_whose_kernel_refuses_a_service_is_no_candidate_and_gives_way_if_it_lasts() {
    let node = Node::new();
    let mut agent = serving(&node);
    pass(&mut agent);
    let directed = |agent: &Loop| agent.leadership.routers.as_ref().unwrap()[ROUTER].clone();
    assert!(directed(&agent).verified);

    refuse_the_service(&mut agent);
    let mut report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::KernelModuleMissing);
    assert!(
        !directed(&agent).verified,
        "it takes no offer and challenges nobody"
    );
    assert_eq!(
        report.plans["vr-1"].effective_priority,
        Some(100),
        "it may go by"
    );
    let begun = Instant::now();
    while report.plans["vr-1"].effective_priority != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{report:?}");
        let due = report.due.expect("a pass is due when it counts");
        std::thread::sleep(due);
        report = pass(&mut agent);
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // It goes on with what it has where nobody can do better, and says why it is worth less.
    assert!(fitness(&agent).is_fit());
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
    let deductions = &report.plans["vr-1"].deductions;
    assert_eq!(deductions[0].priority_delta, 0);
    assert_eq!(deductions[0].reason, "KernelModuleMissing");
    assert!(
        deductions[0]
            .message
            .starts_with("default/web cannot be served here: "),
        "{deductions:?}"
    );
    assert_eq!(report.plans["vs-1"].deductions, [], "it leads nothing");

    agent.ipvs.model.schedulers.insert("mh".into());
    let report = pass(&mut agent);
    assert!(directed(&agent).verified);
    assert_eq!(report.plans["vr-1"].effective_priority, Some(100));
    assert_eq!(report.plans["vr-1"].deductions, []);
}

#[test]
fn tracked_endpoints_are_asked_while_the_router_is_directed_and_count_when_they_fail() {
    let node = Node::new();
    let mut agent = serving(&node);
    let tracked = |url: &str, priority_delta: i32| TrackedEndpoint {
        url: url.to_owned(),
        priority_delta,
        period_seconds: 1,
        timeout_seconds: 1,
        failure_threshold: 3,
        success_threshold: 1,
    };
    let key = |url: &str| EndpointKey {
        router: ROUTER.to_owned(),
        url: url.to_owned(),
    };
    let (fault, cost) = ("http://127.0.0.1:9/fault", "http://127.0.0.1:9/cost");
    let plan = |state| {
        let mut plan = router(state);
        let director = plan.director.as_mut().unwrap();
        director.leadership.as_mut().unwrap().tracked_endpoints =
            vec![tracked(fault, 0), tracked(cost, -20)];
        plan
    };
    agent.take(PlanEvent::Applied(received(
        "vr-1",
        2,
        Ok(plan(PlanState::Active)),
    )));
    let report = pass(&mut agent);
    assert!(agent.endpoints.wanted().contains_key(&key(fault)));
    assert!(fitness(&agent).is_fit(), "nothing is known of it");
    assert_eq!(report.plans["vr-1"].effective_priority, Some(100));

    let failing = || EndpointState::Failing("connect refused".to_owned());
    let states = |state| [(key(fault), state), (key(cost), failing())].into();
    agent.endpoints.tell(states(EndpointState::Good));
    let report = pass(&mut agent);
    assert!(fitness(&agent).is_fit());
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
    assert_eq!(report.plans["vr-1"].effective_priority, Some(80));
    assert_eq!(report.plans["vr-1"].deductions[0].reason, "EndpointFailed");

    agent.endpoints.tell(states(failing()));
    let report = pass(&mut agent);
    assert!(!fitness(&agent).is_fit());
    assert_eq!(reason(&report, "vr-1"), Reason::EndpointFailed);
    assert_eq!(
        report.plans["vr-1"].programmed.message,
        "tracked endpoint http://127.0.0.1:9/fault: connect refused"
    );
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);

    agent.take(PlanEvent::Applied(received(
        "vr-1",
        3,
        Ok(plan(PlanState::Withdrawn)),
    )));
    pass(&mut agent);
    assert!(agent.endpoints.wanted().is_empty());
}

#[test]
fn an_address_that_cannot_be_held_is_reported_as_such() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent.host.model.add_foreign_address(key("eth0", VIP, 32));
    let plans = vec![
        received("vr-1", 1, Ok(router(PlanState::Active))),
        received("vs-1", 1, Ok(director(VIP, &[1], PlanState::Active))),
    ];
    list(&mut agent, plans);
    let report = pass(&mut agent);
    assert_eq!(
        report.plans["vs-1"].addresses[0].state,
        AddressState::Unavailable
    );
    assert_eq!(reason(&report, "vr-1"), Reason::ForeignObject);
    assert!(!fitness(&agent).is_fit());
}

#[test]
fn a_router_that_is_the_only_way_to_the_api_server_is_not_programmed_and_says_so() {
    let node = Node::new();
    let own = [VIP.parse().unwrap()];
    let mut agent = node.fresh().with_api_endpoints(own.into());
    let plans = vec![
        received("vr-1", 1, Ok(router(PlanState::Active))),
        received("vs-1", 1, Ok(director(VIP, &[1], PlanState::Active))),
    ];
    list(&mut agent, plans.clone());
    let report = pass(&mut agent);
    for plan in ["vs-1", "vr-1"] {
        assert_eq!(reason(&report, plan), Reason::ApiEndpointIsOwnVip, "{plan}");
        let message = &report.plans[plan].programmed.message;
        assert!(message.contains(VIP) && message.contains("agent.apiServer.endpoints"));
    }
    assert!(!fitness(&agent).is_fit());
    assert_eq!(agent.ipvs.carried_out, []);
    assert!(agent.leadership.addresses[ROUTER].is_empty());

    // One other endpoint is enough.
    let direct = "192.0.2.3".parse().unwrap();
    let node = Node::new();
    let mut agent = node.fresh().with_api_endpoints([own[0], direct].into());
    list(&mut agent, plans);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert!(fitness(&agent).is_fit());
}

#[test]
fn the_address_for_heartbeats_is_reported_and_given_to_leadership() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut plan = router(PlanState::Active);
    let leadership = plan.director.as_mut().unwrap().leadership.as_mut().unwrap();
    leadership.heartbeat = Some(HeartbeatPlan {
        interval_milliseconds: 150,
        missed: 3,
        challenge_window_milliseconds: 200,
        devices: vec!["eth7".to_owned(), "eth0".to_owned()],
        peers: Vec::new(),
    });
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(plan)),
            received("vs-1", 1, Ok(director(VIP, &[1], PlanState::Active))),
        ],
    );
    let reported = |report: &PassReport, plan: &str| {
        let heartbeat = report.plans[plan].heartbeat.clone()?;
        Some((heartbeat.devices, heartbeat.addresses))
    };
    let devices = vec!["eth7".to_owned(), "eth0".to_owned()];
    let first = vec!["192.0.2.2".parse().unwrap()];
    let report = pass(&mut agent);
    assert_eq!(
        reported(&report, "vr-1"),
        Some((devices.clone(), first.clone()))
    );
    assert_eq!(reported(&report, "vs-1"), None);
    let routers = agent.leadership.routers.as_ref().unwrap();
    let given = routers[ROUTER].heartbeat_interface.clone().unwrap();
    assert_eq!(
        given.source_for(first[0]),
        given.index.map(|index| (index, first[0]))
    );
    // A device that comes is a reason for a pass.
    let mut links = agent.host.model.state().links.clone();
    assert!(!agent.links_differ(&links));
    links.insert("eth7".to_owned(), links["eth0"].clone());
    assert!(agent.links_differ(&links));
    // What cannot be read is not reported as gone.
    let next = agent.host.observations + 1;
    agent.host.unreadable.extend(next..next + 10);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vr-1"), Reason::ObservationFailed);
    assert_eq!(reported(&report, "vr-1"), Some((devices, first)));
}

#[test]
fn a_reported_address_stays_until_the_kernel_was_read() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent.host.unreadable.extend(1..10);
    let mut plan = router(PlanState::Active);
    let leadership = plan.director.as_mut().unwrap().leadership.as_mut().unwrap();
    leadership.heartbeat = Some(HeartbeatPlan {
        interval_milliseconds: 150,
        missed: 3,
        challenge_window_milliseconds: 200,
        devices: vec!["eth0".to_owned()],
        peers: Vec::new(),
    });
    let stands = HeartbeatStatus {
        devices: vec!["eth0".to_owned()],
        addresses: vec!["192.0.2.2".parse().unwrap()],
    };
    let mut stored = received("vr-1", 1, Ok(plan));
    stored.status.heartbeat = Some(stands.clone());
    list(&mut agent, vec![stored]);
    let report = pass(&mut agent);
    assert_eq!(report.plans["vr-1"].heartbeat, Some(stands));
}
