//! Which way heartbeats and the agent's own requests go.

use lvs_core::desired::HeartbeatInterface;
use lvs_core::host::AddressAttributes;
use lvs_crds::node_plan::{DirectorPlan, HeartbeatPlan, PlannedAddress};

use super::fitness::edge;
use super::*;
use crate::world::ROUTER;

/// The router's plan, with heartbeats over the first of these devices.
fn beating(devices: &[&str]) -> PlanInput {
    let mut plan = edge(&[], &[]);
    let director = plan.spec.director.as_mut().unwrap();
    director.leadership.as_mut().unwrap().heartbeat = Some(HeartbeatPlan {
        interval_milliseconds: 150,
        missed: 3,
        challenge_window_milliseconds: 200,
        devices: devices.iter().map(|name| (*name).to_owned()).collect(),
        peers: Vec::new(),
    });
    plan
}

fn interface(world: &World) -> Option<HeartbeatInterface> {
    world.desired().heartbeat_interfaces.remove(ROUTER)
}

fn addresses(world: &World) -> Vec<String> {
    let interface = interface(world).unwrap();
    interface
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn add(world: &mut World, address: &str, prefix_length: u8, attributes: AddressAttributes) {
    let found = &mut world.model.host.state_mut().addresses;
    found.push((key("eth7", address, prefix_length), attributes));
}

const STAYS: AddressAttributes = AddressAttributes {
    valid_seconds: None,
    protocol: 0,
    global: true,
};

#[test]
fn heartbeats_leave_from_the_first_address_that_stays() {
    let mut world = World::new(node(), vec![beating(&["eth8", "eth7"])]);
    assert_eq!(
        interface(&world),
        Some(HeartbeatInterface {
            devices: vec!["eth8".to_owned(), "eth7".to_owned()],
            index: None,
            addresses: Vec::new()
        })
    );
    world.model.host.add_foreign_link("eth7", false, true);
    let index = world.model.host.state().links["eth7"].index;
    assert_eq!(interface(&world).unwrap().index, Some(index));
    assert_eq!(addresses(&world), [""; 0]);
    let link = AddressAttributes {
        global: false,
        ..STAYS
    };
    add(&mut world, "fe80::7", 64, link);
    let passes = AddressAttributes {
        valid_seconds: Some(600),
        ..STAYS
    };
    add(&mut world, "2001:db8:7::beef", 64, passes);
    // Of the router's: by plan, by the journal, by its owner tag.
    add(&mut world, "10.0.0.250", 32, STAYS);
    add(&mut world, "10.7.0.251", 32, STAYS);
    let ours = key("eth7", "10.7.0.251", 32);
    world.journal.director_addresses.insert(ours);
    let tagged = AddressAttributes {
        protocol: lvs_core::host::OWNER_PROTOCOL,
        ..STAYS
    };
    add(&mut world, "10.7.0.252", 32, tagged);
    assert_eq!(
        addresses(&world),
        ["2001:db8:7::beef"],
        "for want of another"
    );
    add(&mut world, "2001:db8:7::7", 64, STAYS);
    add(&mut world, "10.7.0.9", 24, STAYS);
    add(&mut world, "10.7.0.1", 24, STAYS);
    assert_eq!(addresses(&world), ["10.7.0.9", "2001:db8:7::7"]);
    let interface = interface(&world).unwrap();
    let source = |peer: &str| interface.source_for(ip(peer));
    assert_eq!(source("10.7.0.3"), Some((index, ip("10.7.0.9"))));
    assert_eq!(source("2001:db8::3"), Some((index, ip("2001:db8:7::7"))));
}

#[test]
fn a_router_without_an_interface_for_heartbeats_reports_none() {
    assert_eq!(interface(&World::new(node(), vec![beating(&[])])), None);
    assert_eq!(interface(&World::new(node(), vec![edge(&[], &[])])), None);
    let mut withdrawn = beating(&["eth0"]);
    withdrawn.spec.state = PlanState::Withdrawn;
    assert_eq!(interface(&World::new(node(), vec![withdrawn])), None);
}

/// What the agent is told at which addresses it reaches the API server.
fn reached_at(world: &mut World, endpoints: &[&str]) {
    let endpoints = endpoints.iter().map(|text| ip(text)).collect();
    world.model.host.state_mut().api_endpoints = endpoints;
}

fn is_refused(world: &World, router: &str) -> bool {
    let desired = world.desired();
    let fitness = desired.fitness.get(router);
    fitness.is_some_and(|fitness| {
        let mut faults = fitness.faults.iter();
        faults.any(|fault| fault.reason == Reason::ApiEndpointIsOwnVip)
    })
}

#[test]
fn a_router_that_is_the_only_way_to_the_api_server_is_not_programmed() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr), edge(&[], &[])]);
    let whole = world.desired();
    assert!(!whole.services.is_empty());
    for (endpoints, refused) in [
        (vec![], false),
        (vec!["10.0.0.5"], false),
        // Another way is enough.
        (vec!["10.0.0.250", "10.0.0.5"], false),
        (vec!["10.0.0.250"], true),
        (vec!["10.0.0.250", "192.0.2.100"], true),
    ] {
        reached_at(&mut world, &endpoints);
        assert_eq!(is_refused(&world, ROUTER), refused, "{endpoints:?}");
        let desired = world.desired();
        let undone = desired.services.is_empty() && desired.director_addresses.is_empty();
        assert_eq!(undone, refused, "{endpoints:?}");
        assert_eq!(desired.services == whole.services, !refused);
    }
    // Both plans say so, with the cure.
    let told = world.desired().problems;
    let plans: BTreeSet<&str> = told.iter().map(|problem| problem.plan.as_str()).collect();
    assert_eq!(plans, ["vr-edge", "vs-web"].into());
    for problem in &told {
        assert_eq!(problem.reason, Reason::ApiEndpointIsOwnVip);
        assert!(problem.message.contains("agent.apiServer.endpoints"));
        assert!(problem.message.contains("10.0.0.250, 192.0.2.100"));
    }
}

#[test]
fn what_was_programmed_is_removed_where_another_director_holds_and_kept_where_none_does() {
    let plans = vec![web(SchedulerName::Rr), edge(&[], &[])];
    let mut world = World::new(node(), plans);
    world.set_role(RouterRole::Master);
    world.pass();
    reached_at(&mut world, &["192.0.2.100"]);
    assert!(is_refused(&world, ROUTER), "it hands over when it can");
    assert_eq!(lines(&world.diff().ops), "", "what works is not taken away");
    world.set_role(RouterRole::Backup);
    let removed = lines(&world.diff().ops);
    assert!(removed.contains("192.0.2.100"), "{removed}");
    // Whoever fails to remove it is told of.
    let service = Object::Service(tcp("192.0.2.100", 80));
    let desired = world.desired();
    assert_eq!(desired.claimants(&service).collect::<Vec<_>>(), ["vs-web"]);
    // Uninstalling with KeepTraffic, everything stays.
    for plan in &mut world.plans {
        plan.spec.state = PlanState::Retained;
    }
    assert!(!is_refused(&world, ROUTER));
    assert_eq!(lines(&world.diff().ops), "");
}

#[test]
fn routers_that_only_together_are_every_way_are_all_refused() {
    let mut other = edge(&[], &[]);
    other.name = "vr-other".to_owned();
    other.spec.virtual_router_name = "other".to_owned();
    let mut third = other.clone();
    third.name = "vr-third".to_owned();
    third.spec.virtual_router_name = "third".to_owned();
    for (plan, address) in [(&mut other, "10.0.0.251"), (&mut third, "10.0.0.252")] {
        plan.spec.director = Some(DirectorPlan {
            addresses: vec![PlannedAddress {
                address: ip(address),
                devices: Vec::new(),
            }],
            ..plan.spec.director.clone().unwrap()
        });
    }
    let mut world = World::new(node(), vec![edge(&[], &[]), other, third]);
    reached_at(&mut world, &["10.0.0.250", "10.0.0.251"]);
    assert!(is_refused(&world, ROUTER) && is_refused(&world, "other"));
    assert!(!is_refused(&world, "third"), "nothing needs its address");
    // A plan that goes is no way, and takes none either.
    world.plans[0].spec.state = PlanState::Withdrawn;
    assert!(!is_refused(&world, "other"));
}
