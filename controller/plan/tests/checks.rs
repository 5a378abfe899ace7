//! Which checks directors are told to make, and what is told of what they find.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{AddressState, DirectorPlan};
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::{AdministrativeState, PlannedSorryServer};
use lvs_crds::value::ForwardingType;
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::four_nodes::{cluster, expect_bad, of_real_server, of_service, on_node, service};

fn planned(spec: Value) -> DirectorPlan {
    let mut cluster = cluster();
    cluster.apply(service("web", spec));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.settle();
    cluster.plan("a", "web").unwrap().director.unwrap()
}

/// Each service's checks as `name` or `name:port`.
fn references(plan: &DirectorPlan) -> Vec<Vec<String>> {
    let services = plan.services.iter();
    services
        .map(|service| {
            let checks = service.checks.iter();
            checks
                .map(|check| match check.port {
                    Some(port) => format!("{}:{port}", check.check_name),
                    None => check.check_name.clone(),
                })
                .collect()
        })
        .collect()
}

fn definitions(plan: &DirectorPlan) -> Vec<&str> {
    plan.checks
        .iter()
        .map(|check| check.name.as_str())
        .collect()
}

fn ports() -> Value {
    json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}])
}

#[test]
fn tcp_ports_have_a_check_unless_somebody_says_otherwise() {
    let plan = planned(json!({"ports": ports()}));
    assert_eq!(definitions(&plan), ["tcp"]);
    assert_eq!(references(&plan), [vec!["tcp"], vec![]], "TCP before UDP");
    let none =
        planned(json!({"ports": ports(), "healthChecks": [{"name": "off", "type": "None"}]}));
    assert!(none.checks.is_empty());
    assert!(references(&none).iter().all(Vec::is_empty));
    let all_ports = planned(json!({"ports": [{"port": 0}], "persistence": {}}));
    assert!(
        all_ports.checks.is_empty(),
        "of all ports there is none to ask"
    );
}

#[test]
fn a_check_counts_for_every_port_or_for_the_one_it_names() {
    let plan = planned(json!({"ports": ports(), "healthChecks": [
        {"name": "page", "type": "HTTP", "portName": "http"},
        {"name": "alive", "type": "TCP", "port": 8080},
    ]}));
    assert_eq!(definitions(&plan), ["alive", "page"]);
    assert_eq!(
        references(&plan),
        [vec!["alive:8080", "page"], vec!["alive:8080"]]
    );
    assert!(
        plan.checks
            .iter()
            .all(|check| check.port_name.is_none() && check.port.is_none())
    );
}

#[test]
fn with_a_mark_the_checks_of_all_ports_count_together() {
    let spec = |checks: Value| {
        json!({"grouping": "FirewallMark", "healthChecks": checks,
               "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]})
    };
    let default = planned(spec(json!([])));
    assert_eq!(references(&default), [vec!["tcp:80", "tcp:443"]]);
    let named = planned(spec(json!([
        {"name": "page", "type": "HTTP", "portName": "http"},
        {"name": "alive", "type": "TCP", "port": 8080},
    ])));
    assert_eq!(references(&named), [vec!["alive:8080", "page:80"]]);
}

#[test]
fn a_certificate_that_expires_is_shown_and_takes_nobody_out() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    let end = "2027-01-20T08:00:00Z";
    cluster.expiring.insert("c".into(), end.into());
    cluster.acknowledge_all();
    let resolution = cluster.pass();
    let port = |name: &str| {
        let report = &resolution.report.real_servers[&ObjectKey::new("default", name)];
        assert_eq!(report.status.summary.state, "Up");
        report.status.virtual_services[0].ports[0].clone()
    };
    let expiring = port("c");
    assert_eq!(expiring.message, "certificate expires in 9 days");
    let time = expiring.certificate_expiry_time.unwrap();
    assert_eq!(time.0.to_string(), end);
    assert_eq!(
        (expiring.state, expiring.effective_weight),
        (RealServerState::Up, 1)
    );
    assert_eq!(port("d").certificate_expiry_time, None);
    for name in ["c", "d"] {
        let verdict = of_real_server(&resolution, name, ConditionType::Ready);
        assert_eq!(
            (verdict.truth, verdict.reason),
            (Truth::True, Reason::Ready)
        );
    }
    let verdict = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::True, Reason::Ready)
    );
}

#[test]
fn a_real_server_that_fails_is_told_of_and_leaves_the_count() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    let ready = |resolution: &lvs_plan::Resolution| {
        let key = ObjectKey::new("default", "web");
        let report = &resolution.report.virtual_services[&key];
        report.status.summary.real_servers.clone()
    };
    assert_eq!(ready(&cluster.pass()), "2/2");

    cluster.failing.insert("c".into(), "connect refused".into());
    cluster.acknowledge_all();
    let resolution = cluster.pass();
    assert_eq!(ready(&resolution), "1/2");
    let verdict = of_service(&resolution, "web", ConditionType::Ready);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::True, Reason::PartiallyReady)
    );
    expect_bad(
        &of_real_server(&resolution, "c", ConditionType::Ready),
        Reason::ChecksFailed,
        &["connect refused", ":80"],
    );
    let key = ObjectKey::new("default", "c");
    let port = &resolution.report.real_servers[&key].status.virtual_services[0].ports[0];
    assert_eq!(
        (port.state, port.effective_weight),
        (RealServerState::Down, 0)
    );
    assert_eq!(
        resolution.report.real_servers[&key].status.summary.state,
        "Down"
    );

    cluster
        .failing
        .insert("d".into(), "no answer within 3 s".into());
    cluster.acknowledge_all();
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Ready);
    expect_bad(
        &verdict,
        Reason::NoRealServers,
        &["none of 2 real servers is up"],
    );
}

#[test]
fn an_address_that_is_withdrawn_is_told_of_its_service() {
    let mut cluster = cluster();
    let quorum = json!({"minimumWeight": 2, "onLoss": "WithdrawAddress"});
    cluster.apply(service("web", json!({"quorum": quorum})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    cluster.failing.insert("c".into(), "connect refused".into());
    cluster.acknowledge_all();
    for plan in cluster.inputs.node_plans.values_mut() {
        let status = &mut Arc::make_mut(plan).object.status;
        for address in status.iter_mut().flat_map(|status| &mut status.addresses) {
            address.state = AddressState::Withdrawn;
        }
    }
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::Ready),
        Reason::AddressWithdrawn,
        &["on no director", "1 of 2 are ready"],
    );
}

#[test]
fn what_was_not_checked_yet_is_unknown() {
    let mut cluster = cluster();
    cluster.apply(service(
        "web",
        json!({"healthChecks": [{"name": "off", "type": "None"}]}),
    ));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    cluster.apply(service("web", json!({})));
    let resolution = cluster.pass();
    let key = ObjectKey::new("default", "c");
    let status = &resolution.report.real_servers[&key].status;
    assert_eq!(status.summary.state, "Unknown");
}

#[test]
fn a_sorry_server_is_the_director_itself_or_a_host_that_may_be_used() {
    let of = |spec: Value| planned(spec).services[0].sorry_server.clone();
    let expected = |address: Option<&str>, port, type_| PlannedSorryServer {
        address: address.map(|address| address.parse().unwrap()),
        port,
        forwarding: lvs_crds::value::Forwarding {
            type_,
            tunnel: None,
            full_nat: None,
        },
    };
    assert_eq!(
        of(json!({"sorryServer": {"type": "Director"}})),
        Some(expected(None, 80, ForwardingType::DR))
    );
    assert_eq!(
        of(json!({"sorryServer": {"type": "Director", "port": 8081}})),
        Some(expected(None, 8081, ForwardingType::NAT))
    );
    assert_eq!(of(json!({})), None);

    let mut cluster = cluster();
    let host = json!({"type": "Address", "address": {"address": "203.0.113.9"}});
    cluster.apply(service("web", json!({"sorryServer": host})));
    cluster.apply(on_node("c", "c", json!({})));
    let resolution = cluster.settle();
    expect_bad(
        &of_service(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &["spec.sorryServer", "203.0.113.9", "realServerCIDRs"],
    );
    let plan = cluster.plan("a", "web").unwrap();
    assert_eq!(
        plan.director.unwrap().services[0].sorry_server,
        None,
        "the rest goes on"
    );
}

#[test]
fn the_administrative_state_goes_into_the_plan() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node(
        "c",
        "c",
        json!({"administrativeState": "Draining"}),
    ));
    cluster.settle();
    let plan = cluster.plan("a", "web").unwrap();
    let service = &plan.director.unwrap().services[0];
    assert_eq!(
        service.real_servers[0].administrative_state,
        AdministrativeState::Draining
    );
}
