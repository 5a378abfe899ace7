//! One test per rule across objects and per reason that only several objects together can give.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::four_nodes::{
    at, cluster, expect_bad, of_real_server, of_router, of_service, on_node, router, service,
};

#[test]
fn no_default_router() {
    let mut cluster = cluster();
    cluster.inputs.virtual_routers.clear();
    cluster.apply(router("edge", &["a"]));
    cluster.apply(service("web", json!({})));
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Accepted);
    expect_bad(
        &verdict,
        Reason::NoDefaultRouter,
        &["spec.virtualRouterName", "edge"],
    );
}

#[test]
fn the_older_default_router_wins_and_a_new_default_moves_nobody() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    let mut second = router("second", &["c"]);
    second["metadata"]["annotations"]["lvs.dev/is-default-router"] = json!("true");
    cluster.apply(second);
    let resolution = cluster.settle();
    expect_bad(
        &of_router(&resolution, "second", ConditionType::Accepted),
        Reason::DuplicateDefaultRouter,
        &["default"],
    );
    let first = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    Arc::make_mut(first).meta.annotations.clear();
    cluster.settle();
    assert_eq!(
        cluster.plan("a", "web").unwrap().virtual_router_name,
        "default"
    );
}

#[test]
fn the_older_virtual_service_keeps_the_port_and_the_younger_its_other_ports() {
    let mut cluster = cluster();
    cluster.apply(service("old", json!({})));
    let ports =
        json!({"ports": [{"name": "a", "port": 70, "endPort": 90}, {"name": "b", "port": 443}]});
    cluster.apply(service("new", ports));
    let resolution = cluster.pass();
    assert_eq!(
        of_service(&resolution, "old", ConditionType::Accepted).truth,
        Truth::True
    );
    expect_bad(
        &of_service(&resolution, "new", ConditionType::Accepted),
        Reason::AddressInUse,
        &["70-90/TCP", "old"],
    );
    let services = cluster.plan("a", "new").unwrap().director.unwrap().services;
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].address.as_ref().unwrap().port, 443);
}

#[test]
fn an_all_ports_service_and_a_single_port_share_an_address() {
    let mut cluster = cluster();
    cluster.apply(service("old", json!({})));
    cluster.apply(service(
        "all",
        json!({"ports": [{"port": 0}], "persistence": {}}),
    ));
    let resolution = cluster.pass();
    assert_eq!(
        of_service(&resolution, "all", ConditionType::Accepted).truth,
        Truth::True
    );
    // A mark is looked at before ports: marked, it would take the other's packets.
    let marked = json!({"ports": [{"port": 0}], "persistence": {}, "grouping": "FirewallMark"});
    cluster.apply(service("all", marked));
    expect_bad(
        &of_service(&cluster.pass(), "all", ConditionType::Accepted),
        Reason::AddressInUse,
        &["old"],
    );
}

#[test]
fn firewall_mark_in_use_exhausted_and_out_of_range() {
    let mut cluster = cluster();
    cluster.inputs.firewall_mark_range = 0x2000..=0x2000;
    let marked = |value: Value, address: &str| {
        let mut spec = json!({"addresses": [address], "grouping": "FirewallMark"});
        if !value.is_null() {
            spec["firewallMark"] = value;
        }
        spec
    };
    cluster.apply(service("first", marked(Value::Null, "172.25.0.1")));
    cluster.apply(service("none-left", marked(Value::Null, "172.25.0.2")));
    cluster.apply(service(
        "outside",
        marked(json!({"value": 7}), "172.25.0.3"),
    ));
    cluster.apply(service(
        "external",
        marked(json!({"marking": "External", "value": 7}), "172.25.0.4"),
    ));
    cluster.apply(service(
        "same",
        marked(json!({"marking": "External", "value": 7}), "172.25.0.5"),
    ));
    let resolution = cluster.pass();
    let report = &resolution.report.virtual_services;
    assert_eq!(
        report[&ObjectKey::new("default", "first")]
            .status
            .firewall_mark,
        Some(0x2000)
    );
    let accepted = |name| of_service(&resolution, name, ConditionType::Accepted);
    expect_bad(
        &accepted("none-left"),
        Reason::FirewallMarkExhausted,
        &["0x2000"],
    );
    expect_bad(&accepted("outside"), Reason::Invalid, &["0x7", "External"]);
    assert_eq!(accepted("external").truth, Truth::True);
    expect_bad(
        &accepted("same"),
        Reason::FirewallMarkInUse,
        &["external", "0x7"],
    );
    assert!(
        cluster
            .plan("a", "external")
            .unwrap()
            .director
            .unwrap()
            .firewall_marks
            .is_empty()
    );
    assert_eq!(
        cluster.plan("a", "same"),
        None,
        "without a mark there is no service"
    );
}

#[test]
fn node_not_found() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("gone", "nowhere", json!({})));
    let resolution = cluster.pass();
    expect_bad(
        &of_real_server(&resolution, "gone", ConditionType::ResolvedRefs),
        Reason::NodeNotFound,
        &["nowhere"],
    );
    expect_bad(
        &of_service(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::NodeNotFound,
        &["gone"],
    );
}

#[test]
fn ports_of_a_real_server_must_fit() {
    let mut cluster = cluster();
    let two = json!({"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}], "forwarding": {"type": "NAT"}});
    cluster.apply(service("web", two));
    cluster.apply(at("one-port", "10.0.0.1", json!({"port": 8080})));
    cluster.apply(at(
        "unknown",
        "10.0.0.2",
        json!({"ports": [{"name": "ftp", "port": 21}]}),
    ));
    cluster.apply(at(
        "direct",
        "10.0.0.3",
        json!({"forwarding": {"type": "DR"}, "ports": [{"name": "http", "port": 8080}]}),
    ));
    cluster.apply(at(
        "fits",
        "10.0.0.4",
        json!({"ports": [{"name": "http", "port": 8080}]}),
    ));
    let resolution = cluster.pass();
    let accepted = |name| of_real_server(&resolution, name, ConditionType::Accepted);
    expect_bad(
        &accepted("one-port"),
        Reason::PortNotPermitted,
        &["2 ports", "spec.ports"],
    );
    expect_bad(
        &accepted("direct"),
        Reason::PortNotPermitted,
        &["8080", "NAT"],
    );
    let resolved = of_real_server(&resolution, "unknown", ConditionType::ResolvedRefs);
    expect_bad(&resolved, Reason::PortNotFound, &["ftp", "web"]);
    let services = cluster.plan("a", "web").unwrap().director.unwrap().services;
    let ports_of = |name: &str| -> Vec<u16> {
        services
            .iter()
            .flat_map(|s| &s.real_servers)
            .filter(|d| d.name == name)
            .map(|d| d.port)
            .collect()
    };
    assert_eq!(ports_of("fits"), [8080, 443]);
    assert_eq!(ports_of("direct"), [443], "the other port is served");
    assert!(ports_of("one-port").is_empty());
}

#[test]
fn a_return_path_needs_a_gateway() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({"forwarding": {"type": "NAT"}})));
    cluster.apply(on_node("c", "c", json!({})));
    let resolution = cluster.pass();
    let verdict = of_service(&resolution, "web", ConditionType::ResolvedRefs);
    expect_bad(
        &verdict,
        Reason::ReturnPathUnresolved,
        &["192.168.50.13", "spec.additionalAddresses"],
    );
    let mut with_gateway = router("default", &["a", "b"]);
    with_gateway["spec"]["additionalAddresses"] = json!([{"address": "192.168.50.250"}]);
    cluster.apply(with_gateway);
    let resolution = cluster.pass();
    assert_eq!(
        of_service(&resolution, "web", ConditionType::ResolvedRefs).truth,
        Truth::True
    );
    let paths = cluster
        .plan("c", "web")
        .unwrap()
        .real_server
        .unwrap()
        .return_paths;
    assert_eq!(
        paths[0].gateways,
        ["192.168.50.250".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn node_setting_conflict_names_the_field_and_the_router() {
    let mut cluster = cluster();
    let with = |name: &str, directors: &[&str], seconds: u32| {
        let mut router = router(name, directors);
        router["spec"]["timeouts"] = json!({"tcpSeconds": seconds});
        router
    };
    cluster.apply(with("default", &["a", "b"], 100));
    cluster.apply(with("edge", &["b", "c"], 200));
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "edge", ConditionType::Accepted);
    expect_bad(
        &verdict,
        Reason::NodeSettingConflict,
        &["spec.timeouts", "node b", "default"],
    );
    let timeouts = |node: &str| {
        let plan = cluster.plan(node, "edge").unwrap();
        plan.director
            .unwrap()
            .leadership
            .unwrap()
            .timeouts
            .map(|timeouts| timeouts.tcp_seconds)
    };
    assert_eq!((timeouts("b"), timeouts("c")), (None, Some(200)));
}

#[test]
fn a_node_target_may_name_only_addresses_of_that_node_or_of_a_granted_network() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    let aim = |name: &str, address: &str| {
        let target =
            json!({"target": {"type": "Node", "node": {"name": "c", "addresses": [address]}}});
        on_node(name, "c", target)
    };
    cluster.apply(aim("own", "192.168.50.13"));
    cluster.apply(aim("granted", "10.3.0.1"));
    cluster.apply(aim("foreign", "198.51.100.1"));
    cluster.apply(aim("other-node", "192.168.50.14"));
    let resolution = cluster.pass();
    let accepted = |name| of_real_server(&resolution, name, ConditionType::Accepted);
    assert_eq!(
        (accepted("own").truth, accepted("granted").truth),
        (Truth::True, Truth::True)
    );
    expect_bad(
        &accepted("foreign"),
        Reason::TargetNotPermitted,
        &["198.51.100.1", "node c"],
    );
    expect_bad(
        &accepted("other-node"),
        Reason::TargetNotPermitted,
        &["192.168.50.14"],
    );
}

/// What works is not called broken, and whoever takes it away again and again is named.
#[test]
fn what_a_node_puts_back_again_and_again_is_told() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    for plan in cluster.inputs.node_plans.values_mut() {
        let object = &mut Arc::make_mut(plan).object;
        let is_of_a = object
            .spec()
            .is_some_and(|spec| spec.node_name == "a" && spec.source.name == "web");
        let conditions = object
            .status
            .iter_mut()
            .flat_map(|status| &mut status.conditions);
        for condition in conditions.filter(|_| is_of_a) {
            condition.reason = Reason::DriftRepaired.as_str().to_owned();
            condition.message = "put back what kube-proxy deletes".to_owned();
        }
    }
    let resolution = cluster.pass();
    let programmed = of_service(&resolution, "web", ConditionType::Programmed);
    assert_eq!(
        (programmed.truth, programmed.reason),
        (Truth::True, Reason::DriftRepaired)
    );
    assert_eq!(
        programmed.message,
        "node a: put back what kube-proxy deletes"
    );
    let ready = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(ready.truth, Truth::True);
}
