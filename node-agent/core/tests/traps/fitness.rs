//! Addresses of a router move as one, or not at all.

use lvs_core::desired::Fitness;
use lvs_crds::node_plan::{DirectorPlan, PlannedAddress, PlannedTrackedInterface};

use lvs_crds::virtual_router::OnApiServerLoss;

use super::*;
use crate::world::ROUTER;

/// The router's own plan: an inside gateway on eth1.
pub(super) fn edge(tracked: &[(&str, i32)], set_aside: &[&str]) -> PlanInput {
    let mut result = plan("vr-edge");
    result.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            lease_name: "lvs-router-edge".to_owned(),
            priority: 100,
            candidacy: Candidacy::Permitted,
            directors: vec!["node-a".to_owned(), "node-b".to_owned()],
            lease_duration_seconds: 10,
            connection_sync: None,
            preemption_delay_seconds: None,
            hand_over_to: None,
            heartbeat: None,
            on_api_server_loss: OnApiServerLoss::Hold,
            takeover: lvs_crds::virtual_router::Takeover::Fast,
            announcement: serde_json::from_str("{}").unwrap(),
            timeouts: None,
            virtual_router_id: None,
            tracked_interfaces: tracked
                .iter()
                .map(|(device, priority_delta)| PlannedTrackedInterface {
                    interface_name: format!("watched-{device}"),
                    devices: vec!["eth9".to_owned(), (*device).to_owned()],
                    priority_delta: *priority_delta,
                })
                .collect(),
            addresses_set_aside: set_aside.iter().map(|text| ip(text)).collect(),
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
    assert_eq!(problems(&world), []);

    for delta in [0, -30] {
        let mut world = tracked(delta);
        world.model.host.add_foreign_link("eth2", false, true);
        assert_eq!(fitness(&world), Fitness::default());
        link(&mut world, "eth2", true, false);
        assert_eq!(fitness(&world).is_fit(), delta != 0);
    }
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
