//! Who drains since its node is cordoned, and nodes that stay prepared while connections to them drain.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::PlanState;
use lvs_crds::real_server::{RealServerPortState, RealServerState};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use lvs_plan::resolution::Resolution;
use serde_json::{Value, json};
use support::four_nodes::{self, at, expect_bad, of_real_server, of_service, on_node, service};
use support::{Cluster, node};

/// A service of the directors a and b, of which a is master, on the nodes c and d and a host that is none.
fn cluster(more: Value) -> Cluster {
    let mut cluster = four_nodes::cluster();
    cluster.apply(service("web", more));
    cluster.apply(on_node("on-c", "c", json!({"weight": 3})));
    cluster.apply(on_node("on-d", "d", json!({})));
    cluster.apply(at("outside", "10.0.0.7", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    cluster
}

fn with_drain() -> Cluster {
    cluster(json!({"drain": {"timeoutSeconds": 300}}))
}

fn cordon(cluster: &mut Cluster, is_cordoned: bool) -> Resolution {
    let mut node = node("c", "192.168.50.13");
    node["spec"] = json!({"unschedulable": is_cordoned});
    cluster.apply(node);
    cluster.settle()
}

/// What the directors are told of a real server.
fn planned(cluster: &Cluster, name: &str) -> Option<(AdministrativeState, u16)> {
    let plan = cluster.plan("a", "web").unwrap();
    let services = plan.director.unwrap().services;
    assert_eq!(
        cluster.plan("b", "web").unwrap().director.unwrap().services,
        services
    );
    let mut real_servers = services[0].real_servers.iter();
    let found = real_servers.find(|one| one.name == name)?;
    Some((found.administrative_state, found.weight))
}

fn port(resolution: &Resolution, name: &str) -> RealServerPortState {
    let report = &resolution.report.real_servers[&ObjectKey::new("default", name)];
    report.status.virtual_services[0].ports[0].clone()
}

fn delete(cluster: &mut Cluster, name: &str) {
    let key = ObjectKey::new("default", name);
    cluster.inputs.real_servers.remove(&key).unwrap();
}

#[test]
fn a_real_server_drains_while_its_node_is_cordoned_and_says_so() {
    let mut cluster = with_drain();
    let part = cluster.plan("c", "web").unwrap();
    assert_eq!(
        planned(&cluster, "on-c"),
        Some((AdministrativeState::Enabled, 3))
    );

    let resolution = cordon(&mut cluster, true);
    assert_eq!(
        planned(&cluster, "on-c"),
        Some((AdministrativeState::Draining, 3)),
        "its weight is there when it comes back"
    );
    for other in ["on-d", "outside"] {
        assert_eq!(
            planned(&cluster, other),
            Some((AdministrativeState::Enabled, 1))
        );
    }
    assert_eq!(
        cluster.plan("c", "web").unwrap(),
        part,
        "its node stays prepared"
    );
    let seen = port(&resolution, "on-c");
    assert_eq!(seen.state, RealServerState::Draining);
    assert_eq!(seen.message, "node c is cordoned: draining, at most 300 s");
    let words = ["node c is cordoned", "no new connections"];
    let verdict = of_real_server(&resolution, "on-c", ConditionType::Ready);
    expect_bad(&verdict, Reason::Pending, &words);
    let verdict = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::True, Reason::PartiallyReady)
    );

    let resolution = cordon(&mut cluster, false);
    assert_eq!(
        planned(&cluster, "on-c"),
        Some((AdministrativeState::Enabled, 3))
    );
    assert_eq!(port(&resolution, "on-c").message, "");
}

#[test]
fn without_a_time_to_drain_cordon_changes_nothing() {
    let mut cluster = cluster(json!({}));
    let resolution = cordon(&mut cluster, true);
    assert_eq!(
        planned(&cluster, "on-c"),
        Some((AdministrativeState::Enabled, 3))
    );
    let seen = port(&resolution, "on-c");
    assert_eq!(
        (seen.state, seen.message.as_str()),
        (RealServerState::Up, "")
    );
}

#[test]
fn what_people_say_of_a_real_server_goes_before_its_node() {
    for state in ["Draining", "Disabled"] {
        let mut cluster = with_drain();
        cluster.apply(on_node("on-c", "c", json!({"administrativeState": state})));
        let resolution = cordon(&mut cluster, true);
        let (planned, _) = planned(&cluster, "on-c").unwrap();
        assert_eq!(format!("{planned:?}"), state);
        let message = port(&resolution, "on-c").message;
        assert!(!message.contains("cordoned"), "{message}");
    }
}

#[test]
fn a_node_stays_prepared_until_the_master_has_let_go_of_it() {
    let mut cluster = with_drain();
    let part = cluster.plan("c", "web").unwrap();
    let leaving = json!({"name": "on-c", "address": "192.168.50.13", "port": 80, "state": "Draining",
                         "effectiveWeight": 0, "message": "it has left the VirtualService: draining, at most 300 s"});
    delete(&mut cluster, "on-c");
    cluster.pass();
    assert_eq!(planned(&cluster, "on-c"), None, "the directors know");
    assert_eq!(cluster.plan("c", "web").unwrap(), part);
    cluster.acknowledge("c");
    cluster.acknowledge("b");
    cluster.pass();
    assert_eq!(
        cluster.plan("c", "web").unwrap(),
        part,
        "the master has not answered"
    );
    cluster.leaving.insert("a".into(), vec![leaving]);
    let resolution = cluster.settle();
    assert_eq!(cluster.plan("c", "web").unwrap(), part, "it still drains");
    let verdict = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(
        verdict.message,
        "a balances; 1 real server that has left drains"
    );
    cluster
        .failing
        .insert("on-d".into(), "connect refused".into());
    cluster.acknowledge("a");
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Ready);
    assert_eq!(
        verdict.message,
        "1 of 2 real servers are ready; 1 real server that has left drains"
    );

    cluster.failing.clear();
    cluster.leaving.clear();
    cluster.acknowledge("a");
    cluster.pass();
    let withdrawn = cluster.plan("c", "web").unwrap();
    assert_eq!(withdrawn.state, PlanState::Withdrawn);
    let resolution = cluster.settle();
    assert_eq!(cluster.plan("c", "web"), None);
    let verdict = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(verdict.message, "a balances");
}

#[test]
fn without_a_time_to_drain_a_node_is_left_at_once() {
    let mut cluster = cluster(json!({}));
    delete(&mut cluster, "on-c");
    cluster.pass();
    let withdrawn = cluster.plan("c", "web").unwrap();
    assert_eq!(withdrawn.state, PlanState::Withdrawn);
}

#[test]
fn a_deleted_virtual_service_waits_for_nobody() {
    let mut cluster = with_drain();
    let key = ObjectKey::new("default", "web");
    cluster.inputs.virtual_services.remove(&key).unwrap();
    cluster.pass();
    for node in ["a", "b", "c", "d"] {
        let withdrawn = cluster.plan(node, "web").unwrap();
        assert_eq!(withdrawn.state, PlanState::Withdrawn, "{node}");
    }
}
