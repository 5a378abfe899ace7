//! Whose statistics are shown: services of ours alone, by the names of their plans, within a bound.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;

use lvs_core::desired::Roles;
use lvs_core::health::Serving;
use lvs_core::ipvs::{Service, ServiceFlags, ServiceState};
use lvs_core::journal::Journal;
use lvs_core::statistics::{
    REAL_SERVER_SERIES, RealServerSubject, SERVICE_SERIES, Subjects, subjects,
};
use lvs_crds::node_plan::{PlanState, PlannedService};
use lvs_crds::traffic_policy::PlannedSorryServer;
use lvs_crds::value::ForwardingType;
use proptest::prelude::*;
use world::World;
use world::generate::{any_node, plans, role};
use world::story::{HOSTS, Story, down, service_key, web};

const PLENTY: usize = 20_000;

fn shown(story: &Story, limit: usize) -> Subjects {
    let World {
        plans,
        serving,
        journal,
        ..
    } = &story.world;
    subjects(plans, serving, journal, limit)
}

/// Names and health of the real servers that are shown of the service on port 80.
fn real_servers(subjects: &Subjects) -> Vec<(&str, Option<bool>)> {
    let service = &subjects.services[&service_key(80)];
    let each = service.real_servers.values();
    each.map(|one: &RealServerSubject| (one.name.as_str(), one.is_up))
        .collect()
}

#[test]
fn a_real_server_that_is_out_since_it_is_down_is_shown_as_down() {
    let mut story = Story::of_healthy(web());
    story.set(HOSTS[0], down());
    assert_eq!(story.pass().len(), 2);
    let subjects = shown(&story, PLENTY);
    let service = &subjects.services[&service_key(80)];
    assert_eq!((service.planned, service.up), (3, 2));
    assert_eq!(service.has_quorum, Some(true));
    assert_eq!(
        real_servers(&subjects),
        [
            ("rs-10.0.0.21", Some(false)),
            ("rs-10.0.0.22", Some(true)),
            ("rs-10.0.0.23", Some(true))
        ]
    );
}

#[test]
fn one_that_is_not_known_or_told_to_drain_is_neither_up_nor_down() {
    let mut story = Story::of(web());
    story.set(HOSTS[0], lvs_core::health::Health::Up);
    story.planned().real_servers[0].administrative_state =
        lvs_crds::traffic_policy::AdministrativeState::Draining;
    story.pass();
    let subjects = shown(&story, PLENTY);
    assert!(real_servers(&subjects).iter().all(|(_, up)| up.is_none()));
}

#[test]
fn one_that_leaves_its_plan_is_shown_while_it_drains() {
    let mut story = Story::of_healthy(PlannedService {
        drain_timeout_seconds: Some(30),
        ..web()
    });
    story.pass();
    story.planned().real_servers.remove(0);
    story.pass();
    let subjects = shown(&story, PLENTY);
    assert_eq!(real_servers(&subjects)[0], ("rs-10.0.0.21", None));
}

#[test]
fn each_port_of_a_range_is_a_service() {
    let mut story = Story::of_healthy(web());
    story.planned().address.as_mut().unwrap().end_port = 82;
    story.pass();
    let subjects = shown(&story, PLENTY);
    let ports: Vec<u16> = (80..=82)
        .filter(|port| subjects.services.contains_key(&service_key(*port)))
        .collect();
    assert_eq!(ports, [80, 81, 82]);
    let last = &subjects.services[&service_key(82)];
    assert!(last.real_servers.keys().all(|key| key.port == 8082));
}

#[test]
fn what_the_journal_does_not_have_is_somebody_elses() {
    let mut story = Story::of_healthy(web());
    let foreign = ServiceState {
        service: Service {
            scheduler: "rr".into(),
            flags: ServiceFlags(0),
            timeout_seconds: 0,
            prefix_length: 32,
            persistence_engine: None,
        },
        destinations: vec![],
    };
    let services = &mut story.world.model.ipvs.services;
    services.insert(service_key(80), foreign);
    let subjects = subjects(
        &story.world.plans,
        &Serving::default(),
        &Journal::new("boot"),
        PLENTY,
    );
    assert_eq!(subjects, Subjects::default());
}

#[test]
fn beyond_the_bound_services_come_first_and_the_rest_is_counted() {
    let sorry_server = PlannedSorryServer {
        address: None,
        port: 80,
        forwarding: world::forwarding(ForwardingType::DR),
    };
    let mut story = Story::of_healthy(PlannedService {
        sorry_server: Some(sorry_server),
        ..web()
    });
    story.planned().address.as_mut().unwrap().end_port = 82;
    story.pass();
    let count = |limit| {
        let subjects = shown(&story, limit);
        let real_servers = subjects.services.values();
        let real_servers: usize = real_servers.map(|one| one.real_servers.len()).sum();
        let left_out = (subjects.services_left_out, subjects.real_servers_left_out);
        (subjects.services.len(), real_servers, left_out)
    };
    let services = 3 * SERVICE_SERIES;
    assert_eq!(count(0), (0, 0, (3, 9)));
    assert_eq!(count(services - 1), (2, 0, (1, 9)));
    assert_eq!(count(services), (3, 0, (0, 9)));
    assert_eq!(count(services + 4 * REAL_SERVER_SERIES), (3, 4, (0, 5)));
    assert_eq!(count(PLENTY), (3, 9, (0, 0)));
}

proptest! {
    #[test]
    fn no_limit_is_exceeded_and_nothing_is_shown_that_is_not_ours(
        plans in plans(), node in any_node(), role in role(), limit in 0_usize..2_000,
    ) {
        let mut world = World::new(node, plans);
        world.set_role(role);
        world.pass();
        let subjects = subjects(&world.plans, &world.serving, &world.journal, limit);
        prop_assert!(subjects.series() <= limit);
        let owners: BTreeMap<_, _> = world.journal.services.iter().collect();
        for (key, subject) in &subjects.services {
            let plan = world.plans.iter().find(|plan| plan.name == *owners[key]).unwrap();
            prop_assert_eq!(&subject.name, &plan.spec.source.name);
            prop_assert!(plan.spec.state != PlanState::Withdrawn);
        }
    }
}

#[test]
fn a_withdrawn_plan_shows_nothing() {
    let mut story = Story::of_healthy(web());
    story.pass();
    assert!(!shown(&story, PLENTY).services.is_empty());
    story.world.roles = Roles::default();
    story.world.withdraw_all();
    assert_eq!(shown(&story, PLENTY), Subjects::default());
}
