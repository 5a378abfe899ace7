//! Health checks through virtual addresses: their marks, their services, and what they leave alone.
#![allow(clippy::unwrap_used)]
#![allow(clippy::format_collect)]

mod world;

use std::ops::RangeInclusive;

use lvs_core::desired::{PlanInput, RouterRole};
use lvs_core::health::{Passages, passages_of, wanted_checks};
use lvs_core::host::SysctlKey;
use lvs_core::ipvs::ServiceKey;
use lvs_core::table::tables;
use lvs_crds::condition::Reason;
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync};
use lvs_crds::health_check::{HealthCheck, HealthCheckPath, HealthCheckType};
use lvs_crds::node_plan::{
    CheckReference, DirectorPlan, LeadershipPlan, PlannedService, ServiceFirewallMark, SourceKind,
};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::value::{AddressFamily, ForwardingType, SchedulerName};
use world::{World, director_plan, lines, node, plan, real_server, service};

const MARKS: RangeInclusive<u32> = 0x1000..=0x1003;

/// A DR service on port 80 over hosts that end in these numbers, each checked through the virtual address.
fn checked(address: &str, last_numbers: &[u8]) -> PlannedService {
    let real_servers = last_numbers.iter().map(|last| {
        let host = if address.contains(':') {
            format!("2001:db8::{last}")
        } else {
            format!("10.0.0.{last}")
        };
        real_server(&format!("rs-{last}"), &host, 80, 1, ForwardingType::DR)
    });
    let mut checked = service(address, 80, SchedulerName::Mh, real_servers.collect());
    checked.checks = vec![CheckReference {
        check_name: "page".to_owned(),
        port: None,
    }];
    checked
}

fn plan_of(name: &str, services: Vec<PlannedService>) -> PlanInput {
    let mut plan = director_plan(name, services);
    plan.spec.director.as_mut().unwrap().checks = vec![HealthCheck {
        path: HealthCheckPath::VirtualAddress,
        ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTP)
    }];
    plan
}

/// A pass that lays passages first, as an agent does.
fn pass(world: &mut World) -> String {
    let services = &world.model.ipvs.services;
    world.serving.passages = Passages::lay(&world.plans, services, &world.journal, &MARKS);
    let pass = world.pass();
    assert_eq!(pass.refused, vec![], "the kernel takes all of it");
    lines(&pass.diff.ops)
}

/// Destinations of services by mark, as ipvsadm shows them.
fn marked(world: &World) -> Vec<String> {
    let services = world.model.ipvs.services.iter();
    let marked = services.filter(|(key, _)| matches!(key, ServiceKey::FirewallMark { .. }));
    marked
        .flat_map(|(key, state)| {
            let destinations = state.destinations.iter();
            destinations.map(move |(destination, _)| format!("{key} -r {destination}"))
        })
        .collect()
}

fn set(world: &mut World, name: &str, value: &str) {
    let key = SysctlKey(format!("net/ipv4/conf/{name}"));
    world.model.host.sysctls.insert(key, value.to_owned());
}

fn sysctl<'a>(world: &'a World, name: &str) -> &'a str {
    let key = SysctlKey(format!("net/ipv4/conf/{name}"));
    &world.model.host.sysctls[&key]
}

#[test]
fn every_real_server_has_a_mark_of_its_own_and_keeps_it() {
    let first = plan_of("vs-a", vec![checked("192.0.2.100", &[22, 23])]);
    let mut world = World::new(node(), vec![first]);
    pass(&mut world);
    let laid = ["-f 4096 -r 10.0.0.22:0", "-f 4097 -r 10.0.0.23:0"];
    assert_eq!(marked(&world), laid);
    assert_eq!(pass(&mut world), "", "a restart writes nothing");

    // One before the others in order takes the mark that is free; a plan with the same real server shares its passage.
    world.plans = vec![
        plan_of("vs-a", vec![checked("192.0.2.100", &[21, 22, 23])]),
        plan_of("vs-b", vec![checked("192.0.2.101", &[22])]),
    ];
    pass(&mut world);
    let laid = [laid[0], laid[1], "-f 4098 -r 10.0.0.21:0"];
    assert_eq!(marked(&world), laid);

    world.plans.remove(0);
    pass(&mut world);
    assert_eq!(marked(&world), [laid[0]], "the other plan still needs it");
    world.withdraw_all();
    pass(&mut world);
    assert_eq!(marked(&world), Vec::<String>::new());
    assert!(world.journal.is_empty(), "{:?}", world.journal);
}

#[test]
fn families_are_told_apart_and_one_that_is_switched_off_is_not_asked() {
    let services = vec![
        checked("192.0.2.100", &[21]),
        checked("2001:db8::100", &[21]),
    ];
    let mut world = World::new(node(), vec![plan_of("vs-a", services)]);
    pass(&mut world);
    let laid = ["-f 4096 -r 10.0.0.21:0", "-f 4096 -6 -r [2001:db8::21]:0"];
    assert_eq!(marked(&world), laid);
    let director = world.plans[0].spec.director.as_mut().unwrap();
    director.services[0].real_servers[0].administrative_state = AdministrativeState::Disabled;
    pass(&mut world);
    assert_eq!(marked(&world), laid[1..]);
}

#[test]
fn marks_that_others_use_are_left_to_them() {
    let mut by_mark = checked("192.0.2.101", &[24]);
    by_mark.address = None;
    by_mark.checks.clear();
    by_mark.firewall_mark = Some(ServiceFirewallMark {
        mark: 0x1001,
        address_family: AddressFamily::IPv4,
    });
    by_mark.real_servers[0].port = 0;
    let mut world = World::new(
        node(),
        vec![plan_of("vs-b", vec![checked("192.0.2.100", &[21])])],
    );
    let foreign = ServiceKey::FirewallMark {
        mark: 0x1000,
        family: AddressFamily::IPv4,
    };
    let passage = *passages_of(&world.plans[0].spec).first().unwrap();
    let state = passage.service();
    world.model.ipvs.services.insert(foreign, state.clone());
    world.plans.push(director_plan("vs-a", vec![by_mark]));
    pass(&mut world);
    assert_eq!(world.model.ipvs.services[&foreign], state);
    let laid = [
        "-f 4096 -r 10.0.0.21:0",
        "-f 4097 -r 10.0.0.24:0",
        "-f 4098 -r 10.0.0.21:0",
    ];
    assert_eq!(marked(&world), laid);
}

#[test]
fn where_no_mark_is_left_it_is_said_and_the_others_are_laid() {
    let plan = plan_of("vs-a", vec![checked("192.0.2.100", &[21, 22, 23, 24, 25])]);
    let mut world = World::new(node(), vec![plan]);
    pass(&mut world);
    assert_eq!(marked(&world).len(), 4);
    let problems = world.desired().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].reason, Reason::FirewallMarkExhausted);
    assert!(problems[0].message.contains("for 1 real servers"));
}

#[test]
fn the_answers_source_is_accepted_and_a_strict_check_loosened_as_long_as_there_are_such_checks() {
    for role in [RouterRole::Master, RouterRole::Backup] {
        let plan = plan_of("vs-a", vec![checked("192.0.2.100", &[21])]);
        let mut world = World::new(node(), vec![plan]);
        world.set_role(role);
        set(&mut world, "eth0/rp_filter", "1");
        pass(&mut world);
        for device in ["eth0", "eth1"] {
            assert_eq!(sysctl(&world, &format!("{device}/accept_local")), "1");
        }
        assert_eq!(sysctl(&world, "eth0/rp_filter"), "2");
        assert_eq!(sysctl(&world, "eth1/rp_filter"), "0", "off stays off");
        assert_eq!(pass(&mut world), "");
        let director = world.plans[0].spec.director.as_mut().unwrap();
        director.checks[0].path = HealthCheckPath::RealServer;
        pass(&mut world);
        assert_eq!(sysctl(&world, "eth0/accept_local"), "0");
        assert_eq!(sysctl(&world, "eth0/rp_filter"), "1");
        assert_eq!(marked(&world), Vec::<String>::new());
    }
}

#[test]
fn checks_over_ipv6_need_nothing_of_the_node() {
    let plan = plan_of("vs-a", vec![checked("2001:db8::100", &[21])]);
    let mut world = World::new(node(), vec![plan]);
    let ops = pass(&mut world);
    assert!(!ops.contains("accept_local"), "{ops}");
}

#[test]
fn the_question_goes_to_the_virtual_address_and_with_a_mark_to_each_of_the_family() {
    let mut by_mark = checked("192.0.2.100", &[21]);
    by_mark.address = None;
    by_mark.checks[0].port = Some(443);
    by_mark.firewall_mark = Some(ServiceFirewallMark {
        mark: 0x2000,
        address_family: AddressFamily::IPv4,
    });
    by_mark.real_servers[0].port = 0;
    let mut plan = plan_of("vs-a", vec![by_mark]);
    let addresses = ["192.0.2.100", "192.0.2.101", "2001:db8::100"];
    plan.spec.director.as_mut().unwrap().addresses = addresses
        .map(|address| lvs_crds::node_plan::PlannedAddress {
            address: world::ip(address),
            devices: Vec::new(),
        })
        .to_vec();
    let wanted = wanted_checks(&[plan]);
    let told: Vec<String> = wanted.keys().map(ToString::to_string).collect();
    let expected = ["192.0.2.100:443", "192.0.2.101:443"];
    assert_eq!(told, expected.map(|to| format!("10.0.0.21 through {to}")));
}

/// Which marks a node has for its checks depends on its history; where it sends clients must not.
#[test]
fn equal_wishes_give_equal_tables_whatever_the_marks() {
    let mut router = plan("vr-edge");
    router.spec.source.kind = SourceKind::VirtualRouter;
    router.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            connection_sync: Some(PlannedConnectionSync {
                type_: ConnectionSyncType::Stateless,
                daemon: None,
            }),
            ..world::leadership()
        }),
        ..DirectorPlan::default()
    });
    let now = vec![
        plan_of("vs-a", vec![checked("192.0.2.100", &[21, 22])]),
        router,
    ];
    let hash = |histories: &[&[u8]]| {
        let mut world = World::new(node(), now.clone());
        for hosts in histories {
            world.plans[0] = plan_of("vs-a", vec![checked("192.0.2.100", hosts)]);
            pass(&mut world);
        }
        let desired = world.desired();
        let observed = world.model.observe_for(&desired, &world.journal);
        (marked(&world), tables(&world.plans, &desired, &observed))
    };
    let (fresh, other) = (hash(&[&[21, 22]]), hash(&[&[22], &[21, 22]]));
    assert_ne!(fresh.0, other.0, "the histories differ");
    assert_eq!(fresh.1, other.1);
    assert_eq!(fresh.1.len(), 1);
}

#[test]
fn a_crash_at_any_place_leaves_nothing_behind() {
    let plans = vec![plan_of("vs-a", vec![checked("192.0.2.100", &[21, 22])])];
    let mut whole = World::new(node(), plans.clone());
    whole.serving.passages =
        Passages::lay(&plans, &whole.model.ipvs.services, &whole.journal, &MARKS);
    let length = whole.diff().ops.len();
    for done in 0..=length {
        let mut world = World::new(node(), plans.clone());
        let services = &world.model.ipvs.services;
        world.serving.passages = Passages::lay(&plans, services, &world.journal, &MARKS);
        world.crash_after(done);
        pass(&mut world);
        pass(&mut world);
        assert_eq!(marked(&world).len(), 2, "after {done} operations");
        world.withdraw_all();
        pass(&mut world);
        assert!(
            world.model.ipvs.services.is_empty(),
            "after {done} operations"
        );
    }
}
