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
use lvs_crds::node_plan::{Candidacy, PlanState};
use lvs_crds::real_server::RealServerState;
use lvs_crds::virtual_router::CandidateState;
use lvs_plan::input::{Body, ObjectKey};
use lvs_plan::report::{Truth, Verdict};
use lvs_plan::resolution::Resolution;
use lvs_plan::resolve;
use serde_json::{Value, json};
use support::{Cluster, is_quiet, node};

/// Four nodes and a default router that all direct and that grants everything.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (index, name) in ["a", "b", "c", "d"].iter().enumerate() {
        cluster.apply(node(name, &format!("192.168.50.{}", 11 + index)));
    }
    cluster.apply(router("default", &["a", "b"]));
    cluster
}

fn router(name: &str, directors: &[&str]) -> Value {
    let directors: Vec<Value> = directors
        .iter()
        .map(|name| json!({"nodeName": name}))
        .collect();
    json!({"kind": "VirtualRouter",
           "metadata": {"name": name, "annotations": {"lvs.dev/is-default-router": if name == "default" { "true" } else { "false" }}},
           "spec": {"directors": directors,
                    "addressPools": [{"name": "public", "addresses": ["172.25.0.0/24", "2001:db8::/64"]}],
                    "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"],
                                "realServerCIDRs": ["10.0.0.0/8"], "realServerNodes": "All"}]}})
}

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"addresses": ["172.25.0.100"], "ports": [{"port": 80}], "forwarding": {"type": "DR"},
                          "realServerSelector": {}});
    merge(&mut spec, more);
    json!({"kind": "VirtualService", "metadata": {"name": name}, "spec": spec})
}

fn on_node(name: &str, node: &str, more: Value) -> Value {
    let mut spec = json!({"target": {"type": "Node", "node": {"name": node}}});
    merge(&mut spec, more);
    json!({"kind": "RealServer", "metadata": {"name": name}, "spec": spec})
}

fn at(name: &str, address: &str, more: Value) -> Value {
    let mut spec = json!({"target": {"type": "Addresses", "addresses": [address]}});
    merge(&mut spec, more);
    json!({"kind": "RealServer", "metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        into.as_object_mut().unwrap().extend(more);
    }
}

fn find(verdicts: &[Verdict], condition: ConditionType) -> Verdict {
    verdicts
        .iter()
        .find(|verdict| verdict.condition == condition)
        .unwrap()
        .clone()
}

fn of_service(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.virtual_services[&ObjectKey::new("default", name)].verdicts,
        condition,
    )
}

fn of_real_server(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.real_servers[&ObjectKey::new("default", name)].verdicts,
        condition,
    )
}

fn of_router(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.virtual_routers[&ObjectKey::new("", name)].verdicts,
        condition,
    )
}

fn candidacy(cluster: &Cluster, node: &str) -> Candidacy {
    let plan = cluster.plan(node, "default").unwrap();
    plan.director.unwrap().leadership.unwrap().candidacy
}

fn expect_bad(verdict: &Verdict, reason: Reason, words: &[&str]) {
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::False, reason),
        "{}",
        verdict.message
    );
    for word in words {
        assert!(
            verdict.message.contains(word),
            "{word:?} is not in {:?}",
            verdict.message
        );
    }
}

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
fn the_exclude_label_counts_only_without_directors_and_while_another_node_lacks_it() {
    let mut cluster = cluster();
    cluster.apply(router("default", &[]));
    let labelled = |name: &str, address: &str| {
        let mut node = node(name, address);
        node["metadata"]["labels"] =
            json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
        node
    };
    cluster.apply(labelled("a", "192.168.50.11"));
    let resolution = cluster.pass();
    assert_eq!(
        resolution.leases["lvs-router-default"].directors,
        ["b", "c", "d"]
    );
    for (name, address) in [
        ("b", "192.168.50.12"),
        ("c", "192.168.50.13"),
        ("d", "192.168.50.14"),
    ] {
        cluster.apply(labelled(name, address));
    }
    assert!(cluster.plan("a", "default").is_none());
    cluster.pass();
    assert!(
        cluster.plan("a", "default").is_some(),
        "all are labelled: all direct"
    );
    cluster.apply(router("default", &["a"]));
    let resolution = cluster.pass();
    assert_eq!(
        resolution
            .plans
            .values()
            .filter(|planned| planned.spec.state == PlanState::Active)
            .count(),
        1
    );
}

#[test]
fn the_first_matching_entry_gives_the_priority() {
    let mut cluster = cluster();
    let mut changed = router("default", &[]);
    changed["spec"]["directors"] = json!([{"nodeName": "b", "priority": 200}, {"nodeSelector": {}, "priority": 50},
                                          {"nodeName": "zz"}]);
    cluster.apply(changed);
    let resolution = cluster.pass();
    let priority = |node: &str| {
        cluster
            .plan(node, "default")
            .unwrap()
            .director
            .unwrap()
            .leadership
            .unwrap()
            .priority
    };
    assert_eq!((priority("a"), priority("b")), (50, 200));
    let candidates = &resolution.report.virtual_routers[&ObjectKey::new("", "default")]
        .status
        .candidates;
    let missing = candidates
        .iter()
        .find(|candidate| candidate.node_name == "zz")
        .unwrap();
    assert_eq!(missing.reason.as_deref(), Some("NodeNotFound"));
}

#[test]
fn a_new_director_waits_until_every_older_one_has_acknowledged_it() {
    let mut cluster = cluster();
    cluster.pass();
    assert_eq!(
        (candidacy(&cluster, "a"), candidacy(&cluster, "b")),
        (Candidacy::Permitted, Candidacy::Permitted)
    );
    cluster.acknowledge_all();
    cluster.apply(router("default", &["a", "b", "c"]));
    let resolution = cluster.pass();
    assert_eq!(candidacy(&cluster, "c"), Candidacy::Pending);
    let status = &resolution.report.virtual_routers[&ObjectKey::new("", "default")].status;
    assert_eq!(status.candidates[2].state, CandidateState::Pending);
    cluster.acknowledge("a");
    cluster.acknowledge("c");
    cluster.pass();
    assert_eq!(
        candidacy(&cluster, "c"),
        Candidacy::Pending,
        "b has not answered"
    );
    cluster.acknowledge("b");
    cluster.pass();
    assert_eq!(candidacy(&cluster, "c"), Candidacy::Permitted);
}

#[test]
fn a_node_that_is_gone_is_not_waited_for() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.apply(router("default", &["a", "b", "c"]));
    cluster.pass();
    cluster.acknowledge("a");
    cluster.remove_node("b");
    cluster.pass();
    cluster.acknowledge("a");
    cluster.pass();
    assert_eq!(candidacy(&cluster, "c"), Candidacy::Permitted);
}

#[test]
fn a_deselected_holder_leaves_until_another_has_the_lease() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.apply(router("default", &["b"]));
    cluster.settle();
    assert_eq!(
        cluster.plan("a", "default").unwrap().state,
        PlanState::Leaving
    );
    let web = cluster.plan("a", "web").unwrap();
    assert_eq!(web.state, PlanState::Leaving);
    assert!(web.director.is_some(), "it goes on serving");
    cluster.elect("default", "b");
    cluster.pass();
    assert_eq!(
        cluster.plan("a", "default").unwrap().state,
        PlanState::Withdrawn
    );
    assert_eq!(
        cluster.plan("a", "web").unwrap().state,
        PlanState::Withdrawn
    );
    let resolution = cluster.settle();
    assert!(cluster.plan("a", "default").is_none() && cluster.plan("a", "web").is_none());
    assert_eq!(resolution.leases["lvs-router-default"].directors, ["b"]);
}

#[test]
fn an_address_moves_only_after_every_director_has_released_it() {
    let mut cluster = cluster();
    cluster.apply(router("edge", &["c"]));
    let with_gateway = |name: &str, directors: &[&str]| {
        let mut router = router(name, directors);
        router["spec"]["additionalAddresses"] = json!([{"address": "192.168.60.1"}]);
        router
    };
    cluster.apply(with_gateway("default", &["a", "b"]));
    cluster.elect("default", "a");
    cluster.settle();
    cluster.apply(router("default", &["a", "b"]));
    cluster.apply(with_gateway("edge", &["c"]));
    let addresses = |cluster: &Cluster| {
        cluster
            .plan("c", "edge")
            .unwrap()
            .director
            .unwrap()
            .addresses
            .len()
    };
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "edge", ConditionType::Programmed);
    expect_bad(&verdict, Reason::Pending, &["192.168.60.1", "default"]);
    cluster.acknowledge("a");
    cluster.pass();
    assert_eq!(addresses(&cluster), 0, "b has not answered");
    cluster.acknowledge("b");
    cluster.pass();
    assert_eq!(addresses(&cluster), 1);
}

#[test]
fn a_virtual_service_changes_routers_only_through_withdrawal() {
    let mut cluster = cluster();
    cluster.apply(router("edge", &["a", "c"]));
    cluster.apply(service("web", json!({"virtualRouterName": "default"})));
    cluster.settle();
    cluster.apply(service("web", json!({"virtualRouterName": "edge"})));
    cluster.pass();
    let plan = cluster.plan("a", "web").unwrap();
    assert_eq!(
        (plan.state, plan.virtual_router_name.as_str()),
        (PlanState::Withdrawn, "default")
    );
    assert!(cluster.plan("c", "web").is_none());
    cluster.acknowledge("a");
    cluster.pass();
    assert!(cluster.plan("c", "web").is_none(), "b has not answered");
    cluster.settle();
    for node in ["a", "c"] {
        let plan = cluster.plan(node, "web").unwrap();
        assert_eq!(
            (plan.state, plan.virtual_router_name.as_str()),
            (PlanState::Active, "edge")
        );
    }
    assert!(cluster.plan("b", "web").is_none());
}

#[test]
fn teardown_is_a_state() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.inputs.virtual_services.clear();
    cluster.pass();
    assert_eq!(
        cluster.plan("a", "web").unwrap().state,
        PlanState::Withdrawn
    );
    cluster.acknowledge("b");
    cluster.pass();
    assert_eq!(
        cluster.plan("a", "web").unwrap().state,
        PlanState::Withdrawn,
        "a has not answered"
    );
    assert!(cluster.plan("b", "web").is_none());
    cluster.acknowledge("a");
    cluster.pass();
    assert!(cluster.plan("a", "web").is_none());
}

#[test]
fn a_router_that_is_gone_takes_its_lease_along_last() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.inputs.virtual_routers.clear();
    cluster.pass();
    assert!(cluster.inputs.leases.contains_key("lvs-router-default"));
    let resolution = cluster.settle();
    assert!(is_quiet(&resolution));
    assert!(cluster.inputs.node_plans.is_empty() && cluster.inputs.leases.is_empty());
}

#[test]
fn a_plan_of_the_uninstaller_is_taken_up_again() {
    let mut cluster = cluster();
    cluster.settle();
    for plan in cluster.inputs.node_plans.values_mut() {
        if let Body::Decoded(spec) = &mut Arc::make_mut(plan).object.body {
            spec.state = PlanState::Retained;
        }
    }
    cluster.pass();
    assert_eq!(
        cluster.plan("a", "default").unwrap().state,
        PlanState::Active
    );
    assert_eq!(candidacy(&cluster, "a"), Candidacy::Permitted);
}

#[test]
fn a_mass_removal_is_held_until_confirmed() {
    let mut cluster = cluster();
    for number in 0..10 {
        cluster.apply(service(
            &format!("web-{number}"),
            json!({"ports": [{"port": 80 + number}]}),
        ));
    }
    cluster.settle();
    cluster
        .inputs
        .virtual_services
        .retain(|key, _| key.name.as_str() > "web-5");
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "default", ConditionType::Programmed);
    expect_bad(
        &verdict,
        Reason::MassRemovalHeld,
        &[
            "6 of 10 VirtualServices",
            "kubectl annotate namespace lvs-system",
        ],
    );
    assert_eq!(cluster.plan("a", "web-0").unwrap().state, PlanState::Active);

    cluster.apply(service("web-9", json!({"ports": [{"port": 8080}]})));
    cluster.pass();
    let changed = cluster
        .plan("a", "web-9")
        .unwrap()
        .director
        .unwrap()
        .services;
    assert_eq!(
        changed[0].address.as_ref().unwrap().port,
        8080,
        "the others go on"
    );
    cluster.apply(service("thief", json!({"ports": [{"port": 80}]})));
    let resolution = cluster.pass();
    expect_bad(
        &of_service(&resolution, "thief", ConditionType::Accepted),
        Reason::AddressInUse,
        &["web-0"],
    );

    let token = verdict.message.rsplit('=').next().unwrap().to_owned();
    cluster.inputs.confirmed_removals.insert(token);
    cluster.settle();
    assert!(cluster.plan("a", "web-0").is_none());
    assert_eq!(cluster.plan("a", "thief").unwrap().state, PlanState::Active);
}

#[test]
fn losing_most_real_servers_is_held() {
    let mut cluster = cluster();
    cluster.apply(service(
        "web",
        json!({"realServerSelector": {"matchLabels": {"app": "web"}}}),
    ));
    for number in 0..8 {
        let mut real_server = at(
            &format!("rs-{number}"),
            &format!("10.0.0.{}", number + 1),
            json!({}),
        );
        real_server["metadata"]["labels"] = json!({"app": "web"});
        cluster.apply(real_server);
    }
    cluster.settle();
    cluster.apply(service(
        "web",
        json!({"realServerSelector": {"matchLabels": {"app": "wbe"}}}),
    ));
    let resolution = cluster.pass();
    let verdict = of_service(&resolution, "web", ConditionType::Accepted);
    expect_bad(&verdict, Reason::MassRemovalHeld, &["8 of 8 real servers"]);
    let services = cluster.plan("a", "web").unwrap().director.unwrap().services;
    assert_eq!(services[0].real_servers.len(), 8);
}

#[test]
fn deleting_a_few_services_is_not_held() {
    let mut cluster = cluster();
    for number in 0..3 {
        cluster.apply(service(
            &format!("web-{number}"),
            json!({"ports": [{"port": 80 + number}]}),
        ));
    }
    for name in ["c", "d"] {
        cluster.apply(on_node(name, name, json!({})));
    }
    cluster.settle();
    cluster.inputs.virtual_services.clear();
    cluster.settle();
    assert!(cluster.plan("a", "web-0").is_none());
}

#[test]
fn a_failing_agent_is_named_and_the_others_go_on() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({"weight": 0})));
    cluster.settle();
    cluster.elect("default", "a");
    let ready = of_service(&cluster.pass(), "web", ConditionType::Ready);
    assert_eq!(
        (ready.truth, ready.reason),
        (Truth::True, Reason::PartiallyReady)
    );
    cluster.fail("b", "web", "KernelModuleMissing");
    let resolution = cluster.pass();
    let programmed = of_service(&resolution, "web", ConditionType::Programmed);
    expect_bad(
        &programmed,
        Reason::KernelModuleMissing,
        &["node b", "it says why"],
    );
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Ready).truth,
        Truth::True,
        "the master is well"
    );
    let real_servers = &resolution.report.real_servers;
    let state = |name: &str| {
        real_servers[&ObjectKey::new("default", name)]
            .status
            .virtual_services[0]
            .ports[0]
            .state
    };
    assert_eq!(
        (state("c"), state("d")),
        (RealServerState::Up, RealServerState::Disabled)
    );
    cluster.fail("c", "web", "SysctlReadOnly");
    cluster.fail("a", "web", "IPv6Unavailable");
    let ready = of_service(&cluster.pass(), "web", ConditionType::Ready);
    expect_bad(&ready, Reason::IPv6Unavailable, &["node a"]);
}

#[test]
fn an_undecodable_virtual_service_freezes_and_says_so() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    let object = cluster.inputs.virtual_services.values_mut().next().unwrap();
    Arc::make_mut(object).body =
        Body::Undecodable("spec.scheduler.name: unknown variant `quantum`".to_owned());
    let resolution = resolve(&cluster.inputs);
    expect_bad(
        &of_service(&resolution, "web", ConditionType::Accepted),
        Reason::Undecodable,
        &["quantum"],
    );
    assert!(resolution.plans.values().all(|planned| !planned.is_changed));
    let status = &resolution.report.virtual_services[&ObjectKey::new("default", "web")].status;
    assert_eq!(
        status.summary.addresses, "172.25.0.100",
        "what was known stays shown"
    );
}

#[test]
fn a_node_that_registers_again_keeps_its_plan() {
    let mut cluster = cluster();
    cluster.settle();
    let mut again = node("a", "192.168.50.11");
    again["metadata"]["uid"] = json!("registered-again");
    cluster.apply(again);
    let resolution = resolve(&cluster.inputs);
    let (_, planned) = resolution
        .plans
        .iter()
        .find(|(_, planned)| planned.spec.node_name == "a")
        .unwrap();
    assert!(planned.is_changed && planned.base.is_some());
    assert_eq!(planned.owner_uid, "registered-again");
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

/// The agent acknowledges only what it dealt with; why it could not is its condition's, and must reach the service.
#[test]
fn a_node_that_cannot_follow_its_plan_says_why_on_the_service() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.stall("b", "web", "Unknown", "PermissionDenied");
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::Unknown, Reason::PermissionDenied)
    );
    assert!(
        verdict.message.contains("node b: it says why"),
        "{verdict:?}"
    );
    cluster.stall("b", "web", "False", "PlanUndecodable");
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    expect_bad(&verdict, Reason::PlanUndecodable, &["node b: it says why"]);
    // A condition about an older plan says nothing of this one.
    cluster.apply(service("web", json!({"ports": [{"port": 8080}]})));
    cluster.pass();
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    expect_bad(
        &verdict,
        Reason::Pending,
        &["has not reported the newest plan"],
    );
}

#[test]
fn a_namespace_that_was_not_seen_yet_freezes() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.inputs.namespaces.clear();
    let resolution = resolve(&cluster.inputs);
    assert!(resolution.plans.values().all(|planned| !planned.is_changed));
    let verdict = of_service(&resolution, "web", ConditionType::Accepted);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::Unknown, Reason::Pending)
    );
}

#[test]
fn a_change_writes_only_the_plans_of_the_nodes_concerned() {
    let mut cluster = cluster();
    for number in 0..100 {
        let label = json!({"ports": [{"port": 1000 + number}], "realServerSelector": {"matchLabels": {"app": format!("a{number}")}}});
        cluster.apply(service(&format!("web-{number}"), label));
        for host in 0..100 {
            let mut real_server = at(
                &format!("rs-{number}-{host}"),
                &format!("10.{number}.0.{host}"),
                json!({}),
            );
            real_server["metadata"]["labels"] = json!({"app": format!("a{number}")});
            cluster.apply(real_server);
        }
    }
    cluster.settle();
    let mut changed = at("rs-7-7", "10.7.0.7", json!({"weight": 5}));
    changed["metadata"]["labels"] = json!({"app": "a7"});
    cluster.apply(changed);
    let resolution = resolve(&cluster.inputs);
    let written = resolution
        .plans
        .values()
        .filter(|planned| planned.is_changed);
    let written: Vec<_> = written
        .map(|p| (p.spec.node_name.as_str(), p.spec.source.name.as_str()))
        .collect();
    assert_eq!(written, [("a", "web-7"), ("b", "web-7")]);
}
