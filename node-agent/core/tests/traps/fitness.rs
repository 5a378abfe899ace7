//! Addresses of a router move as one, or not at all.

use lvs_core::desired::{DesiredState, Fitness};
use lvs_core::endpoint::{EndpointKey, EndpointState, judge};
use lvs_crds::node_plan::{DirectorPlan, PlannedAddress, PlannedTrackedInterface};

use lvs_crds::tracking::{Deduction, TrackedEndpoint};

use super::*;
use crate::world::ROUTER;

/// The router's own plan: an inside gateway on eth1.
pub(super) fn edge(tracked: &[(&str, i32)], set_aside: &[&str]) -> PlanInput {
    let mut result = plan("vr-edge");
    result.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            directors: vec!["node-a".to_owned(), "node-b".to_owned()],
            tracked_interfaces: tracked
                .iter()
                .map(|(device, priority_delta)| PlannedTrackedInterface {
                    interface_name: format!("watched-{device}"),
                    devices: vec!["eth9".to_owned(), (*device).to_owned()],
                    priority_delta: *priority_delta,
                })
                .collect(),
            addresses_set_aside: set_aside.iter().map(|text| ip(text)).collect(),
            ..world::leadership()
        }),
        addresses: vec![PlannedAddress {
            address: ip("10.0.0.250"),
            devices: Vec::new(),
        }],
        ..DirectorPlan::default()
    });
    result
}

fn group() -> World {
    World::new(node(), vec![web(SchedulerName::Rr), edge(&[], &[])])
}

fn fitness(world: &World) -> Fitness {
    let desired = world.desired();
    desired.fitness.get(ROUTER).cloned().unwrap_or_default()
}

fn faults(world: &World) -> Vec<(Reason, String)> {
    let faults = fitness(world).faults.into_iter();
    faults.map(|fault| (fault.reason, fault.message)).collect()
}

fn link(world: &mut World, name: &str, up: bool, carrier: bool) {
    let links = &mut world.model.host.state_mut().links;
    let link = links.get_mut(name).unwrap();
    (link.up, link.carrier) = (up, carrier);
}

#[test]
fn a_node_with_every_link_is_fit() {
    let world = group();
    assert!(fitness(&world).is_fit());
    assert_eq!(problems(&world), []);
}

#[test]
fn a_link_that_is_lost_is_a_fault_of_the_router_and_moves_no_address_off_its_device() {
    for (up, carrier, words) in [
        (true, false, "device eth1 of 10.0.0.250 has no carrier"),
        (false, false, "device eth1 of 10.0.0.250 is down"),
    ] {
        let mut world = group();
        let before = world.desired().director_addresses;
        link(&mut world, "eth1", up, carrier);
        assert_eq!(faults(&world), [(Reason::LinkDown, words.to_owned())]);
        // Told where the router is told of, once; the services have nothing to say of it.
        assert_eq!(problems(&world), [("vr-edge".to_owned(), Reason::LinkDown)]);
        // Where an address belongs does not change with its link: whoever is asked to hold must hold all.
        assert_eq!(world.desired().director_addresses, before);
        assert_eq!(before[ROUTER].len(), 2);
        link(&mut world, "eth1", true, true);
        assert!(fitness(&world).is_fit());
    }
}

#[test]
fn an_address_that_cannot_be_held_is_a_fault_unless_no_director_can_hold_it() {
    let mut lost = web(SchedulerName::Rr);
    let addresses = &mut lost.spec.director.as_mut().unwrap().addresses;
    addresses[0].devices = vec!["ens9".to_owned()];
    let world = World::new(node(), vec![lost.clone(), edge(&[], &[])]);
    assert_eq!(faults(&world)[0].0, Reason::InterfaceNotFound);
    let desired = world.desired();
    assert!(desired.unavailable[ROUTER].contains(&ip("192.0.2.100")));
    // Both plans say so: the service's and the router's.
    let told: BTreeSet<String> = problems(&world).into_iter().map(|(plan, _)| plan).collect();
    assert_eq!(told, ["vr-edge", "vs-web"].map(str::to_owned).into());

    let world = World::new(node(), vec![lost, edge(&[], &["192.0.2.100"])]);
    assert!(fitness(&world).is_fit());
    assert_eq!(
        problems(&world),
        [("vs-web".to_owned(), Reason::InterfaceNotFound)]
    );
}

#[test]
fn a_foreign_address_in_the_way_is_a_fault() {
    let mut world = group();
    world
        .model
        .host
        .add_foreign_address(key("eth1", "10.0.0.250", 32));
    assert_eq!(faults(&world)[0].0, Reason::ForeignObject);
    assert!(world.desired().unavailable[ROUTER].contains(&ip("10.0.0.250")));
}

#[test]
fn a_tracked_link_is_a_fault_or_costs_priority() {
    let tracked = |delta| {
        let plans = vec![web(SchedulerName::Rr), edge(&[("eth2", delta)], &[])];
        World::new(node(), plans)
    };
    // Missing counts as down.
    assert_eq!(
        faults(&tracked(0)),
        [(
            Reason::LinkDown,
            "tracked interface watched-eth2: none of the devices eth9, eth2 is on this node"
                .to_owned()
        )]
    );
    let world = tracked(-30);
    assert!(fitness(&world).is_fit());
    assert_eq!(fitness(&world).priority(100), 70);
    assert_eq!(fitness(&world).priority(20), 1, "never below VRRP's lowest");
    let deductions = fitness(&world).deductions;
    assert_eq!(
        deductions.first().unwrap().message,
        "tracked interface watched-eth2: none of the devices eth9, eth2 is on this node"
    );
    assert_eq!(problems(&world), []);

    for delta in [0, -30] {
        let mut world = tracked(delta);
        world.model.host.add_foreign_link("eth2", false, true);
        assert_eq!(fitness(&world), Fitness::default());
        link(&mut world, "eth2", true, false);
        assert_eq!(fitness(&world).is_fit(), delta != 0);
    }
}

/// With an endpoint of this delta, of which this is known; what is desired then.
fn with_endpoint(delta: i32, state: EndpointState, plan_state: PlanState) -> DesiredState {
    let mut router = edge(&[], &[]);
    router.spec.state = plan_state;
    let leadership = router.spec.director.as_mut().unwrap().leadership.as_mut();
    leadership.unwrap().tracked_endpoints = vec![TrackedEndpoint {
        url: URL.to_owned(),
        priority_delta: delta,
        period_seconds: 1,
        timeout_seconds: 1,
        failure_threshold: 3,
        success_threshold: 1,
    }];
    let world = World::new(node(), vec![web(SchedulerName::Rr), router]);
    let mut desired = world.desired();
    let key = EndpointKey {
        router: ROUTER.to_owned(),
        url: URL.to_owned(),
    };
    judge(&mut desired, &world.plans, &[(key, state)].into());
    desired
}

const URL: &str = "http://127.0.0.1:9/ok";

#[test]
fn an_endpoint_that_fails_is_a_fault_or_costs_priority() {
    let refused = || EndpointState::Failing("connect refused".to_owned());
    let message = "tracked endpoint http://127.0.0.1:9/ok: connect refused";

    let desired = with_endpoint(0, refused(), PlanState::Active);
    let faults: Vec<_> = desired.fitness[ROUTER].faults.iter().collect();
    assert_eq!(faults[0].reason, Reason::EndpointFailed);
    assert_eq!(faults[0].message, message);
    let told: Vec<_> = desired
        .problems
        .iter()
        .map(|told| told.plan.as_str())
        .collect();
    assert_eq!(told, ["vr-edge"], "in the plan of the router, once");

    let desired = with_endpoint(-30, refused(), PlanState::Active);
    let fitness = &desired.fitness[ROUTER];
    assert!(fitness.is_fit());
    assert_eq!((fitness.priority(100), fitness.priority(20)), (70, 1));
    assert_eq!(fitness.deductions.first().unwrap().message, message);
    assert_eq!(desired.problems, []);

    for (delta, state) in [0, -30].into_iter().flat_map(|delta| {
        [
            (delta, EndpointState::Unknown),
            (delta, EndpointState::Good),
        ]
    }) {
        let desired = with_endpoint(delta, state, PlanState::Active);
        assert_eq!(
            desired.fitness.get(ROUTER),
            None,
            "nothing speaks against it"
        );
    }
    let desired = with_endpoint(0, refused(), PlanState::Withdrawn);
    assert_eq!(desired.problems, [], "nothing is directed any more");
}

#[test]
fn what_gives_way_does_so_whatever_else_it_costs() {
    let deduction = |priority_delta| Deduction {
        priority_delta,
        reason: "KernelError".to_owned(),
        message: format!("costs {priority_delta}"),
    };
    let fitness = |deltas: &[i32]| Fitness {
        deductions: deltas.iter().map(|delta| deduction(*delta)).collect(),
        ..Fitness::default()
    };
    assert_eq!(fitness(&[-10, -20]).priority(100), 70);
    assert_eq!(fitness(&[-10, 0]).priority(100), 0);
    assert_eq!(fitness(&[-253]).priority(254), 1);
    assert_eq!(fitness(&[-1]).priority(0), 0);
    assert!(
        fitness(&[0]).is_fit(),
        "where nobody can do better it goes on"
    );
}

#[test]
fn a_tracked_link_that_is_down_does_not_keep_a_plan_from_being_withdrawn() {
    let mut withdrawn = edge(&[("eth2", 0)], &[]);
    withdrawn.spec.state = PlanState::Withdrawn;
    let mut other = web(SchedulerName::Rr);
    other.spec.virtual_router_name = "other".to_owned();
    let world = World::new(node(), vec![withdrawn, other]);
    assert_eq!(problems(&world), []);
}

#[test]
fn the_link_of_one_router_is_no_affair_of_another() {
    let mut other = edge(&[("eth2", 0)], &[]);
    other.name = "vr-other".to_owned();
    other.spec.virtual_router_name = "other".to_owned();
    other.spec.director.as_mut().unwrap().addresses.clear();
    let mut world = group();
    world.plans.push(other);
    assert!(fitness(&world).is_fit());
    assert!(!world.desired().fitness["other"].is_fit());
    link(&mut world, "eth0", true, false);
    assert!(!fitness(&world).is_fit());
}
