//! What a director does with what it knows of real servers: weights, quorum, sorry server, slow start, restarts.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.

mod world;

use lvs_core::health::{EffectiveWeight, Health, Policy, judge, remembered, wanted_checks};
use lvs_crds::health_check::{HealthCheck, HealthCheckType, TlsCheck};
use lvs_crds::node_plan::{
    CheckReference, DirectorPlan, LeadershipPlan, PlannedAuthorities, PlannedService,
};
use lvs_crds::real_server::RealServerState;
use lvs_crds::tracking::TrackedRealServers;
use lvs_crds::traffic_policy::{
    AdministrativeState, OnFailure, OnQuorumLoss, PlannedSorryServer, Quorum,
};
use lvs_crds::value::ForwardingType;
use proptest::prelude::*;
use world::story::{ALL, HOSTS, Story, down, plan, web};
use world::{forwarding, ip};

fn sorry() -> PlannedSorryServer {
    PlannedSorryServer {
        address: None,
        port: 80,
        forwarding: forwarding(ForwardingType::DR),
    }
}

#[test]
fn nobody_gets_clients_before_it_has_answered() {
    let mut story = Story::of(web());
    assert_eq!(story.pass(), Vec::<String>::new());
    assert_eq!(story.states(), [RealServerState::Unknown; 3]);
    story.set(HOSTS[1], Health::Up);
    assert_eq!(story.pass(), ["10.0.0.22:8080 2"]);
    story.set(HOSTS[0], Health::Up);
    story.set(HOSTS[2], Health::Up);
    assert_eq!(story.pass(), ALL);
}

#[test]
fn one_that_is_down_is_removed_or_quiesced_and_needs_of_the_node_stay() {
    for (on_failure, left) in [
        (OnFailure::Remove, &ALL[1..]),
        (
            OnFailure::Quiesce,
            &["10.0.0.21:8080 0", ALL[1], ALL[2]][..],
        ),
    ] {
        let mut story = Story::of(PlannedService {
            on_failure,
            ..web()
        });
        for host in HOSTS {
            story.set(host, Health::Up);
        }
        story.pass();
        let sysctls = story.world.model.host.sysctls.clone();
        story.set(HOSTS[0], down());
        assert_eq!(story.pass(), left);
        assert_eq!(story.states()[0], RealServerState::Down);
        for host in HOSTS {
            story.set(host, down());
        }
        story.pass();
        assert_eq!(
            story.world.model.host.sysctls, sysctls,
            "forwarding stays on"
        );
    }
}

#[test]
fn without_a_quorum_the_director_itself_is_sorry() {
    let mut story = Story::of(PlannedService {
        sorry_server: Some(sorry()),
        quorum: Some(Quorum {
            minimum_weight: 3,
            hysteresis: 1,
            on_loss: None,
        }),
        ..web()
    });
    story.set(HOSTS[0], Health::Up);
    let sorry = "127.0.0.1:80 1";
    assert_eq!(
        story.pass(),
        ["10.0.0.21:8080 0", sorry],
        "3 is less than 3 and 1"
    );
    story.set(HOSTS[2], Health::Up);
    assert_eq!(story.pass(), [ALL[0], ALL[2]], "4 is enough");
    story.set(HOSTS[1], Health::Up);
    story.set(HOSTS[0], down());
    assert_eq!(story.pass(), ALL[1..], "3 still is");
    story.set(HOSTS[2], down());
    assert_eq!(story.pass(), ALL[1..2], "2 still is: 3 less 1");
    story.set(HOSTS[1], down());
    assert_eq!(story.pass(), [sorry]);
}

#[test]
fn a_sorry_server_on_another_port_is_reached_at_the_directors_own_address() {
    let mut story = Story::of(PlannedService {
        sorry_server: Some(PlannedSorryServer {
            port: 8081,
            forwarding: forwarding(ForwardingType::NAT),
            ..sorry()
        }),
        ..web()
    });
    assert_eq!(story.pass(), ["192.0.2.10:8081 1"]);
}

#[test]
fn what_is_kept_without_a_quorum_is_as_asked() {
    let lost = |on_loss| {
        let mut story = Story::of(PlannedService {
            quorum: Some(Quorum {
                minimum_weight: 6,
                hysteresis: 0,
                on_loss: Some(on_loss),
            }),
            ..web()
        });
        story.set(HOSTS[0], Health::Up);
        story.set(HOSTS[1], down());
        story.pass()
    };
    assert_eq!(lost(OnQuorumLoss::KeepAll), ALL);
    assert_eq!(lost(OnQuorumLoss::KeepNone), ["10.0.0.21:8080 0"]);
}

#[test]
fn what_people_say_of_a_real_server_goes_before_its_health() {
    let mut story = Story::of(web());
    for host in HOSTS {
        story.set(host, Health::Up);
    }
    let director = story.world.plans[0].spec.director.as_mut().unwrap();
    director.services[0].real_servers[0].administrative_state = AdministrativeState::Draining;
    director.services[0].real_servers[1].administrative_state = AdministrativeState::Disabled;
    assert_eq!(story.pass(), ["10.0.0.21:8080 0", ALL[2]]);
    assert_eq!(
        story.states(),
        [
            RealServerState::Draining,
            RealServerState::Disabled,
            RealServerState::Up
        ]
    );
    assert_eq!(
        wanted_checks(&story.world.plans).len(),
        2,
        "nobody asks one that is switched off"
    );
}

#[test]
fn one_that_came_back_gets_its_weight_step_by_step_and_one_that_stayed_keeps_it() {
    let mut story = Story::of(PlannedService {
        slow_start_seconds: 30,
        ..web()
    });
    for host in HOSTS {
        story.set(host, Health::Up);
    }
    assert_eq!(
        story.pass(),
        ALL,
        "what was up when first looked at has served before"
    );
    story.set(HOSTS[0], down());
    story.pass();
    story.set(HOSTS[0], Health::Up);
    assert_eq!(story.pass()[0], "10.0.0.21:8080 1");
    story.wait(21);
    assert_eq!(story.pass()[0], "10.0.0.21:8080 2");
    story.wait(9);
    assert_eq!(story.pass(), ALL);
}

#[test]
fn a_restart_and_a_new_check_take_nothing_away() {
    let mut story = Story::of(web());
    story.set(HOSTS[0], Health::Up);
    story.set(HOSTS[2], Health::Up);
    let before = story.pass();
    // Another process, and another check.
    let director = story.world.plans[0].spec.director.as_mut().unwrap();
    director.checks[0].period_seconds = 1;
    let policy = &mut Policy::default();
    let world = &story.world;
    let known = remembered(
        &world.plans,
        &world.model.ipvs.services,
        &world.journal,
        policy,
    );
    let (serving, _) = policy.decide(
        &world.plans,
        &world.view(&world.model.ipvs.idle()),
        |check| {
            if known.contains(check) {
                Health::Up
            } else {
                Health::Unknown
            }
        },
        story.now,
    );
    let before_services = world.model.ipvs.services.clone();
    story.world.serving = serving;
    let pass = story.world.pass();
    assert_eq!(pass.diff.ops, vec![]);
    assert_eq!(story.world.model.ipvs.services, before_services);
    assert_eq!(before, [ALL[0], ALL[2]]);
}

#[test]
fn every_check_is_made_once_however_many_services_want_it() {
    let mut other = web();
    other.address.as_mut().unwrap().address = ip("192.0.2.101");
    let mut first = plan(web());
    let director = first.spec.director.as_mut().unwrap();
    director.services.push(other);
    let mut second = plan(web());
    second.name = "vs-other".to_owned();
    second.spec.director.as_mut().unwrap().checks[0].name = "port".to_owned();
    let services = &mut second.spec.director.as_mut().unwrap().services;
    services[0].checks[0].check_name = "port".to_owned();
    assert_eq!(wanted_checks(&[first, second]).len(), 3);
}

#[test]
fn a_check_trusts_the_authorities_that_its_plan_has_under_the_name() {
    let of = |name: &str, certificates: &str| {
        let mut plan = plan(web());
        plan.name = name.to_owned();
        let director = plan.spec.director.as_mut().unwrap();
        director.checks[0].tls = Some(TlsCheck {
            ca_config_map_name: Some("ca".to_owned()),
            ..TlsCheck::default()
        });
        for (config_map_name, certificates) in [("ca", certificates), ("other", "none of it")] {
            director.certificate_authorities.push(PlannedAuthorities {
                config_map_name: config_map_name.to_owned(),
                certificates: certificates.to_owned(),
            });
        }
        plan
    };
    let wanted = wanted_checks(&[of("vs-1", "one"), of("vs-2", "two"), of("vs-3", "one")]);
    let known: Vec<_> = wanted
        .keys()
        .map(|check| check.means.authorities.as_deref())
        .collect();
    assert_eq!(
        known.iter().filter(|known| **known == Some("one")).count(),
        3
    );
    assert_eq!(
        known.iter().filter(|known| **known == Some("two")).count(),
        3
    );
    let mut without = of("vs-1", "one");
    without
        .spec
        .director
        .as_mut()
        .unwrap()
        .certificate_authorities
        .clear();
    let wanted = wanted_checks(&[without]);
    assert!(wanted.keys().all(|check| check.means.authorities.is_none()));
}

#[test]
fn each_namespace_logs_in_with_its_own_credentials() {
    let of = |name: &str, namespace: &str| {
        let mut plan = plan(web());
        plan.name = name.to_owned();
        plan.spec.source.namespace = namespace.to_owned();
        let checks = &mut plan.spec.director.as_mut().unwrap().checks;
        checks[0].credentials_name = Some("page".to_owned());
        plan
    };
    let wanted = wanted_checks(&[of("vs-1", "shop"), of("vs-2", "bank"), of("vs-3", "shop")]);
    assert_eq!(wanted.len(), 6);
    for namespace in ["shop", "bank"] {
        let own = wanted.keys().filter(|c| c.means.namespace == namespace);
        assert_eq!(own.count(), 3, "{namespace}");
    }
}

#[test]
fn a_director_that_finds_too_few_is_worth_less_and_what_is_unknown_counts_as_up() {
    let mut story = Story::of(web());
    let mut router = world::plan("vr-edge");
    router.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            tracked_real_servers: Some(TrackedRealServers {
                minimum_ready: 2,
                priority_delta: -20,
            }),
            ..world::leadership()
        }),
        ..DirectorPlan::default()
    });
    story.world.plans.push(router);
    let priority = |story: &mut Story| {
        story.pass();
        let mut desired = story.world.desired();
        judge(&mut desired, &story.world.plans, &story.world.serving);
        let fitness = desired.fitness.remove(world::ROUTER).unwrap_or_default();
        assert!(fitness.is_fit(), "it may still take over: {fitness:?}");
        fitness.priority(100)
    };
    story.set(HOSTS[0], down());
    assert_eq!(priority(&mut story), 100);
    story.set(HOSTS[1], down());
    assert_eq!(priority(&mut story), 80);
    story.set(HOSTS[1], Health::Up);
    assert_eq!(priority(&mut story), 100);
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![Just(Health::Up), Just(Health::Unknown), Just(down())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nobody who is up loses its clients to a quorum that is met, and no service is left with weights of 0 alone while
    /// somebody is up, unless that was asked for.
    #[test]
    fn who_is_up_serves(
        history in proptest::collection::vec([health(), health(), health()], 1..12),
        quiesce: bool,
        has_sorry_server: bool,
    ) {
        let mut story = Story::of(PlannedService {
            on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
            sorry_server: has_sorry_server.then(sorry),
            ..web()
        });
        for moment in history {
            for (host, health) in HOSTS.iter().zip(moment) {
                story.set(host, health);
            }
            let destinations = story.pass();
            let serving: Vec<&str> = HOSTS
                .iter()
                .zip(ALL)
                .filter(|(host, _)| story.known[**host] == Health::Up)
                .map(|(_, line)| line)
                .collect();
            let weighted: Vec<&str> = destinations
                .iter()
                .map(String::as_str)
                .filter(|line| !line.ends_with(" 0"))
                .collect();
            if serving.is_empty() && has_sorry_server {
                prop_assert_eq!(weighted, vec!["127.0.0.1:80 1"]);
            } else {
                prop_assert_eq!(weighted, serving);
            }
            prop_assert!(!quiesce || destinations.len() >= 3, "weight 0 is a destination");
        }
    }

    /// With weights, administrative states, a quorum and what follows from its loss as anybody may set them.
    #[test]
    fn no_service_has_only_zeros_while_somebody_is_up_unless_asked_and_health_is_monotone(
        healths in proptest::array::uniform3(health()),
        weights in proptest::array::uniform3(0_u16..4),
        states in proptest::array::uniform3(0_usize..3),
        quiesce: bool,
        minimum_weight in 1_u32..8,
        on_loss in proptest::option::of(prop_oneof![
            Just(OnQuorumLoss::KeepAll), Just(OnQuorumLoss::KeepNone), Just(OnQuorumLoss::WithdrawAddress),
        ]),
        recovers in 0_usize..3,
    ) {
        let mut service = PlannedService {
            on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
            quorum: Some(Quorum { minimum_weight, hysteresis: 0, on_loss }),
            ..web()
        };
        for (index, real_server) in service.real_servers.iter_mut().enumerate() {
            real_server.weight = weights[index];
            real_server.administrative_state = [
                AdministrativeState::Enabled,
                AdministrativeState::Draining,
                AdministrativeState::Disabled,
            ][states[index]];
        }
        let decide = |healths: &[Health; 3]| {
            let mut story = Story::of(service.clone());
            for (host, health) in HOSTS.iter().zip(healths) {
                story.set(host, health.clone());
            }
            story.pass();
            let stands = story.standing();
            let weights: Vec<EffectiveWeight> = stands.real_servers.iter().map(|one| one.weight).collect();
            (stands.has_quorum, weights)
        };
        let (has_quorum, before) = decide(&healths);
        let serves = |index: usize| states[index] == 0 && healths[index] == Health::Up && weights[index] > 0;
        let has_weight = before.iter().any(|weight| *weight > EffectiveWeight::Weight(0));
        if (0..3).any(serves) && (has_quorum || on_loss == Some(OnQuorumLoss::KeepAll)) {
            prop_assert!(has_weight, "{before:?}");
        }
        if !has_quorum && on_loss != Some(OnQuorumLoss::KeepAll) {
            prop_assert!(!has_weight, "that is what was asked for: {before:?}");
        }
        // One that comes up never has less than it had; nor do the others, unless all had been kept for want of it.
        let mut better = healths.clone();
        better[recovers] = Health::Up;
        let (_, after) = decide(&better);
        for index in 0..3 {
            if index == recovers || on_loss != Some(OnQuorumLoss::KeepAll) {
                prop_assert!(after[index] >= before[index], "{index}: {before:?} {after:?}");
            }
        }
    }
}

fn reference(name: &str, port: Option<u16>) -> CheckReference {
    CheckReference {
        check_name: name.to_owned(),
        port,
    }
}

/// The service with a TCP check, of which the first real server has another check, at another port and address, and the
/// second none.
fn with_checks_of_their_own() -> Story {
    let mut web = web();
    web.real_servers[0].checks = Some(vec![reference("override-1", Some(9090))]);
    web.real_servers[1].checks = Some(Vec::new());
    let mut story = Story::of(web);
    let director = story.world.plans[0].spec.director.as_mut().unwrap();
    director.checks.push(HealthCheck {
        address: Some("10.0.0.99".to_owned()),
        ..HealthCheck::new("override-1".to_owned(), HealthCheckType::HTTP)
    });
    story
}

#[test]
fn a_real_server_is_asked_what_it_says_itself() {
    let story = with_checks_of_their_own();
    let asked: Vec<String> = wanted_checks(&story.world.plans)
        .into_keys()
        .map(|check| format!("{} {:?}", check.target, check.question.type_))
        .collect();
    assert_eq!(asked, ["10.0.0.23:8080 TCP", "10.0.0.99:9090 HTTP"]);
}

#[test]
fn one_whose_checks_are_switched_off_is_up_and_one_asked_elsewhere_stands_by_that() {
    let mut story = with_checks_of_their_own();
    assert_eq!(story.pass(), [ALL[1]]);
    story.set("10.0.0.99", Health::Up);
    assert_eq!(story.pass(), [ALL[0], ALL[1]]);
    story.set("10.0.0.99", down());
    story.set(HOSTS[0], Health::Up);
    assert_eq!(story.pass(), [ALL[1]], "its own port is not what is asked");
}

#[test]
fn checks_of_real_servers_alone_are_checks_of_the_service() {
    let mut story = with_checks_of_their_own();
    story.planned().checks.clear();
    assert!(story.planned().has_checks());
    story.planned().real_servers[0].checks = None;
    assert!(!story.planned().has_checks());
}

#[test]
fn one_question_about_many_real_servers_at_one_address_is_asked_once() {
    let mut story = Story::of(web());
    let director = story.world.plans[0].spec.director.as_mut().unwrap();
    director.checks[0].address = Some("10.0.0.99".to_owned());
    assert_eq!(wanted_checks(&story.world.plans).len(), 1);
}
