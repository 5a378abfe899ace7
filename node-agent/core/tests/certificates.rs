//! What people are told of certificates that expire, beside how real servers stand.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.

mod world;

use std::collections::BTreeMap;

use lvs_core::health::{Check, Health, UnixSeconds};
use lvs_crds::health_check::{ExternalHttpCheck, HealthCheck, HealthCheckType, TlsCheck};
use lvs_crds::node_plan::{CheckReference, PlannedService};
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::AdministrativeState;
use world::story::{ALL, HOSTS, Story, down, web};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn in_hours(hours: i64) -> UnixSeconds {
    UnixSeconds(NOW.0 + hours * 3600)
}

/// A check that warns of certificates so many days before.
fn check(name: &str, days: Option<u16>) -> HealthCheck {
    HealthCheck {
        tls: Some(TlsCheck {
            expiry_warning_days: days,
            ..TlsCheck::default()
        }),
        ..HealthCheck::new(name.to_owned(), HealthCheckType::HTTPS)
    }
}

/// Three real servers that are up, each with both checks.
fn story(checks: Vec<HealthCheck>) -> Story {
    let references = checks.iter().map(|check| CheckReference {
        check_name: check.name.clone(),
        port: None,
    });
    let mut story = Story::of_healthy(PlannedService {
        checks: references.collect(),
        ..web()
    });
    let director = story.world.plans[0].spec.director.as_mut().unwrap();
    director.checks = checks;
    story
}

/// Message and end of each real server, with these certificates.
fn told(
    story: &mut Story,
    certificates: &[(&str, UnixSeconds)],
) -> Vec<(String, Option<UnixSeconds>)> {
    assert_eq!(story.pass().len(), 3, "nobody goes for a certificate");
    let shown: BTreeMap<&str, UnixSeconds> = certificates.iter().copied().collect();
    let plans = story.world.plans.clone();
    let expiry = |check: &Check| shown.get(check.target.ip().to_string().as_str()).copied();
    let serving = &mut story.world.serving;
    serving.warn_of_certificates(&plans, expiry, NOW);
    let real_servers = story.standing().real_servers.iter();
    real_servers
        .map(|one| (one.message.clone(), one.certificate_expiry))
        .collect()
}

fn nothing() -> (String, Option<UnixSeconds>) {
    (String::new(), None)
}

#[test]
fn a_certificate_that_expires_is_told_of_beside_a_healthy_verdict() {
    let mut story = story(vec![check("page", Some(14))]);
    let near = in_hours(9 * 24 + 5);
    let gone = in_hours(-50);
    let certificates = [
        (HOSTS[0], near),
        (HOSTS[1], in_hours(14 * 24 + 1)),
        (HOSTS[2], gone),
    ];
    assert_eq!(
        told(&mut story, &certificates),
        [
            ("certificate expires in 9 days".to_owned(), Some(near)),
            nothing(),
            ("certificate expired 2 days ago".to_owned(), Some(gone)),
        ]
    );
    assert_eq!(story.states(), [RealServerState::Up; 3]);
    assert_eq!(story.pass(), ALL);
    // Exactly as many days as are asked for.
    let last = in_hours(14 * 24);
    let first = told(&mut story, &[(HOSTS[0], last)]).remove(0);
    assert_eq!(
        first,
        ("certificate expires in 14 days".to_owned(), Some(last))
    );
    // Renewed.
    let renewed = told(&mut story, &[(HOSTS[0], in_hours(90 * 24))]);
    assert_eq!(renewed, vec![nothing(); 3]);
}

#[test]
fn nobody_is_told_who_has_not_asked() {
    let mut story = story(vec![check("page", None)]);
    let expired = [(HOSTS[0], in_hours(-1))];
    assert_eq!(told(&mut story, &expired), vec![nothing(); 3]);
}

#[test]
fn each_check_warns_by_its_own_days() {
    let mut story = story(vec![check("page", Some(3)), check("status", Some(30))]);
    let [near, far] = [in_hours(2 * 24), in_hours(20 * 24)];
    let told = told(&mut story, &[(HOSTS[0], near), (HOSTS[1], far)]);
    assert_eq!(told[0].1, Some(near));
    assert_eq!(
        told[1],
        ("certificate expires in 20 days".to_owned(), Some(far))
    );
}

#[test]
fn why_one_gets_no_connections_is_told_alone() {
    let mut story = story(vec![check("page", Some(14))]);
    story.planned().on_failure = lvs_crds::traffic_policy::OnFailure::Quiesce;
    story.planned().real_servers[1].administrative_state = AdministrativeState::Draining;
    story.set(HOSTS[0], down());
    story.set(HOSTS[2], Health::Unknown);
    let end = in_hours(24);
    let idle = HOSTS.map(|host| (host, end));
    let told = told(&mut story, &idle);
    let expected = ["connect refused", "", ""].map(|message| (message.to_owned(), Some(end)));
    assert_eq!(told, expected);
}

#[test]
fn of_a_judge_it_is_said_whose_it_is() {
    let judged = HealthCheck {
        type_: HealthCheckType::ExternalHTTP,
        address: Some("198.51.100.7".to_owned()),
        external_http: Some(ExternalHttpCheck {
            url: "https://198.51.100.7/ask".to_owned(),
            credentials_name: None,
        }),
        ..check("judge", Some(14))
    };
    let mut story = story(vec![judged]);
    story.set("198.51.100.7", Health::Up);
    let end = in_hours(9 * 24);
    let expected = "certificate of judge 198.51.100.7:443 expires in 9 days".to_owned();
    assert_eq!(
        told(&mut story, &[("198.51.100.7", end)]),
        vec![(expected, Some(end)); 3]
    );
}
