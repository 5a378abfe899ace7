//! `quorum.onLoss: WithdrawAddress`: when an address goes, when it stays, and what is known before anybody has answered.
#![allow(clippy::unwrap_used)] // A test says what is wrong by failing.

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_core::desired::PlanInput;
use lvs_core::health::{Health, Policy, withdrawn};
use lvs_crds::node_plan::{
    MarkMatch, PlanState, PlannedFirewallMark, PlannedService, ServiceFirewallMark,
};
use lvs_crds::traffic_policy::{OnQuorumLoss, Quorum};
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;
use world::story::{HOSTS, Story, VIRTUAL, down, plan, web};
use world::{ROUTER, ip};

const OTHER: &str = "192.0.2.101";

/// The service on a port of an address, by one of the three hosts, with what is done without a quorum.
fn by(host: usize, address: &str, port: u16, on_loss: Option<OnQuorumLoss>) -> PlannedService {
    let mut service = web();
    service.real_servers = vec![service.real_servers[host].clone()];
    let at = service.address.as_mut().unwrap();
    (at.address, at.port, at.end_port) = (ip(address), port, port);
    service.quorum = on_loss.map(|on_loss| Quorum {
        on_loss: Some(on_loss),
        ..Quorum::default()
    });
    service
}

const WITHDRAW: Option<OnQuorumLoss> = Some(OnQuorumLoss::WithdrawAddress);

/// A VirtualService of these ports.
fn virtual_service(name: &str, services: Vec<PlannedService>) -> PlanInput {
    let mut result = plan(web());
    name.clone_into(&mut result.name);
    result.spec.director.as_mut().unwrap().services = services;
    result
}

/// What is withdrawn by what is known now, on a node that has, or has not, the addresses.
fn look(story: &mut Story, carries: bool) -> BTreeSet<IpAddr> {
    let known = story.known.clone();
    let idle = story.world.model.ipvs.idle();
    let (serving, _) = story.policy.decide(
        &story.world.plans,
        &story.world.view(&idle),
        |check| {
            let host = check.target.ip().to_string();
            known.get(host.as_str()).cloned().unwrap_or_default()
        },
        story.now,
    );
    let mut found = withdrawn(&story.world.plans, &serving, |_, _| carries);
    found.remove(ROUTER).unwrap_or_default()
}

fn story(plans: Vec<PlanInput>) -> Story {
    let mut story = Story::of_healthy(web());
    story.world.plans = plans;
    story
}

fn none() -> BTreeSet<IpAddr> {
    BTreeSet::new()
}

#[test]
fn an_address_goes_when_no_port_has_a_quorum_and_comes_back_with_the_first() {
    let ports = vec![by(0, VIRTUAL, 80, WITHDRAW), by(1, VIRTUAL, 443, WITHDRAW)];
    let mut story = story(vec![virtual_service("vs-web", ports)]);
    assert_eq!(look(&mut story, true), none());
    story.set(HOSTS[0], down());
    assert_eq!(look(&mut story, true), none(), "the other port works");
    story.set(HOSTS[1], down());
    assert_eq!(look(&mut story, true), [ip(VIRTUAL)].into());
    story.set(HOSTS[1], Health::Up);
    assert_eq!(look(&mut story, false), none());
}

#[test]
fn a_shared_address_stays_while_any_service_on_it_works() {
    let asks = virtual_service("vs-a", vec![by(0, VIRTUAL, 80, WITHDRAW)]);
    let works = virtual_service(
        "vs-b",
        vec![by(1, VIRTUAL, 25, None), by(1, OTHER, 25, None)],
    );
    let mut story = story(vec![asks, works]);
    story.set(HOSTS[0], down());
    assert_eq!(look(&mut story, true), none());
    // Nor does one that asks for nothing lose another address of its own.
    story.set(HOSTS[1], down());
    assert_eq!(look(&mut story, true), [ip(VIRTUAL)].into());
    // One whose plan is withdrawn counts for nothing.
    story.set(HOSTS[1], Health::Up);
    story.world.plans[1].spec.state = PlanState::Withdrawn;
    assert_eq!(look(&mut story, true), [ip(VIRTUAL)].into());
}

/// A restarted agent neither drops what it has nor offers what nobody serves.
#[test]
fn before_anybody_has_answered_an_address_is_as_it_was() {
    let ports = vec![by(0, VIRTUAL, 80, WITHDRAW)];
    for carries in [true, false] {
        let mut story = story(vec![virtual_service("vs-web", ports.clone())]);
        story.known.clear();
        let is_gone = |found: &BTreeSet<IpAddr>| !found.is_empty();
        assert_eq!(is_gone(&look(&mut story, carries)), !carries);
        story.set(HOSTS[0], down());
        assert!(is_gone(&look(&mut story, carries)));
        // Another process over the same kernel.
        story.policy = Policy::default();
        story.known.clear();
        assert_eq!(is_gone(&look(&mut story, carries)), !carries);
        story.set(HOSTS[0], Health::Up);
        assert!(!is_gone(&look(&mut story, carries)));
    }
}

#[test]
fn a_service_with_a_firewall_mark_has_all_its_addresses_of_the_family() {
    let mark = 7;
    let mut service = by(0, VIRTUAL, 80, WITHDRAW);
    service.address = None;
    service.firewall_mark = Some(ServiceFirewallMark {
        mark,
        address_family: AddressFamily::IPv4,
    });
    let mut marked = virtual_service("vs-web", vec![service]);
    let matches = [VIRTUAL, OTHER, "2001:db8::100"].map(|address| MarkMatch {
        address: ip(address),
        protocol: Protocol::TCP,
        port: 80,
        end_port: 80,
    });
    let director = marked.spec.director.as_mut().unwrap();
    director.firewall_marks = vec![PlannedFirewallMark {
        mark,
        matches: matches.to_vec(),
    }];
    let mut story = story(vec![marked]);
    story.set(HOSTS[0], down());
    assert_eq!(look(&mut story, true), [ip(VIRTUAL), ip(OTHER)].into());
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![Just(Health::Unknown), Just(Health::Up), Just(down())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_works_stays_and_nothing_goes_unasked(
        services in proptest::collection::vec((0_usize..3, any::<bool>(), 0_usize..3, any::<bool>()), 1..6),
        known in proptest::array::uniform3(health()),
        carries: bool,
    ) {
        let plans = (0..3_usize).map(|owner| {
            let of_owner = services.iter().zip(80_u16..).filter(|((of, ..), _)| *of == owner);
            let ports = of_owner.map(|((_, is_other, host, asks), port)| {
                by(*host, if *is_other { OTHER } else { VIRTUAL }, port, asks.then_some(OnQuorumLoss::WithdrawAddress))
            });
            virtual_service(&format!("vs-{owner}"), ports.collect())
        });
        let mut story = story(plans.collect());
        for (host, health) in HOSTS.iter().zip(&known) {
            story.set(host, health.clone());
        }
        let found = look(&mut story, carries);
        for (is_other, address) in [(false, VIRTUAL), (true, OTHER)] {
            let here = || services.iter().filter(|(_, other, ..)| *other == is_other);
            let is = |host: usize, health: &Health| known[host] == *health;
            let is_gone = found.contains(&ip(address));
            if here().any(|(_, _, host, _)| is(*host, &Health::Up)) {
                prop_assert!(!is_gone, "{address} works");
            } else if here().all(|(_, _, host, _)| is(*host, &down())) {
                prop_assert_eq!(is_gone, here().any(|(.., asks)| *asks), "{}", address);
            } else if here().any(|(.., asks)| *asks) {
                prop_assert_eq!(is_gone, !carries, "{} is as it was", address);
            } else {
                prop_assert!(!is_gone, "nobody asks for {address}");
            }
        }
    }
}
