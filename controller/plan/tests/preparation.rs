//! No packets for a node that is not prepared yet, and none taken from one that is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lvs_crds::real_server::RealServerState;
use lvs_plan::input::ObjectKey;
use lvs_plan::resolution::Resolution;
use lvs_plan::resolve;
use serde_json::json;
use support::Cluster;
use support::four_nodes::{self, at, on_node, service};

/// Two nodes and a host that is none behind a service of the directors a and b.
fn cluster() -> Cluster {
    let mut cluster = four_nodes::cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("web-1", "c", json!({"weight": 3})));
    cluster.apply(on_node("web-2", "d", json!({"weight": 5})));
    cluster.apply(at("outside", "10.0.0.7", json!({"weight": 7})));
    cluster
}

/// Weights on the director by real server.
fn weights(cluster: &Cluster) -> BTreeMap<String, u16> {
    let plan = cluster.plan("a", "web").unwrap();
    let services = plan.director.unwrap().services;
    let destinations = services
        .into_iter()
        .flat_map(|service| service.real_servers);
    destinations
        .map(|destination| (destination.name, destination.weight))
        .collect()
}

fn expect_weights(cluster: &Cluster, expected: [(&str, u16); 3]) {
    let expected = expected.map(|(name, weight)| (name.to_owned(), weight));
    assert_eq!(weights(cluster), BTreeMap::from(expected));
}

fn state(resolution: &Resolution, name: &str) -> RealServerState {
    let report = &resolution.report.real_servers[&ObjectKey::new("default", name)];
    report.status.virtual_services[0].ports[0].state
}

/// Seen in the lab: right after `kubectl apply` two of six connections were refused, by a node that had no
/// address yet.
#[test]
fn a_node_that_is_not_prepared_yet_gets_no_packets() {
    let mut cluster = cluster();
    cluster.pass();
    expect_weights(&cluster, [("web-1", 0), ("web-2", 0), ("outside", 7)]);
    cluster.acknowledge("a");
    cluster.acknowledge("b");
    let resolution = cluster.pass();
    expect_weights(&cluster, [("web-1", 0), ("web-2", 0), ("outside", 7)]);
    assert_eq!(
        (state(&resolution, "web-1"), state(&resolution, "outside")),
        (RealServerState::Unknown, RealServerState::Up)
    );
    cluster.acknowledge("c");
    cluster.fail("d", "web", "SysctlReadOnly");
    cluster.pass();
    expect_weights(&cluster, [("web-1", 3), ("web-2", 0), ("outside", 7)]);
    cluster.acknowledge("d");
    cluster.pass();
    expect_weights(&cluster, [("web-1", 3), ("web-2", 5), ("outside", 7)]);
}

#[test]
fn a_prepared_node_keeps_its_weight_whatever_its_agent_says() {
    let mut cluster = cluster();
    cluster.settle();
    let all = [("web-1", 3), ("web-2", 5), ("outside", 7)];
    expect_weights(&cluster, all);
    cluster.fail("c", "web", "SysctlReadOnly");
    cluster.pass();
    expect_weights(&cluster, all);
    // Every plan gets a new generation that no agent has answered to.
    cluster.apply(service("web", json!({"scheduler": {"name": "lc"}})));
    cluster.pass();
    expect_weights(&cluster, all);
}

#[test]
fn a_new_address_waits_for_the_nodes_again() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.apply(service(
        "web",
        json!({"addresses": ["172.25.0.100", "172.25.0.101"]}),
    ));
    cluster.pass();
    let plan = cluster.plan("a", "web").unwrap();
    let by_address: Vec<_> = plan
        .director
        .unwrap()
        .services
        .into_iter()
        .map(|service| {
            let weights: Vec<_> = service.real_servers.iter().map(|d| d.weight).collect();
            (service.address.unwrap().address.to_string(), weights)
        })
        .collect();
    assert_eq!(
        by_address,
        [
            ("172.25.0.100".to_owned(), vec![7, 3, 5]),
            ("172.25.0.101".to_owned(), vec![7, 0, 0])
        ]
    );
    cluster.settle();
    expect_weights(&cluster, [("web-1", 3), ("web-2", 5), ("outside", 7)]);
}

/// `kubectl delete nodeplans --all` must not stop the traffic until every agent has answered.
#[test]
fn plans_that_are_written_anew_keep_the_weights_of_a_service_that_worked() {
    let mut cluster = cluster();
    cluster.settle();
    let key = ObjectKey::new("default", "web");
    let object = Arc::make_mut(cluster.inputs.virtual_services.get_mut(&key).unwrap());
    object.status.as_mut().unwrap().conditions = vec![Condition {
        type_: "Programmed".to_owned(),
        status: "True".to_owned(),
        reason: "Programmed".to_owned(),
        message: String::new(),
        observed_generation: Some(1),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
    }];
    cluster.inputs.node_plans.clear();
    let resolution = resolve(&cluster.inputs);
    let planned = resolution
        .plans
        .values()
        .find(|planned| planned.spec.node_name == "a" && planned.spec.source.name == "web");
    let services = &planned.unwrap().spec.director.as_ref().unwrap().services;
    let weights: Vec<_> = services[0].real_servers.iter().map(|d| d.weight).collect();
    assert_eq!(weights, [7, 3, 5]);
}
