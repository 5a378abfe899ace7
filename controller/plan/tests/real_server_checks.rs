//! Checks that a RealServer has instead of its VirtualService's, and who may be asked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::HealthCheckType;
use lvs_crds::node_plan::DirectorPlan;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::Cluster;
use support::four_nodes::{at, cluster, expect_bad, of_real_server, of_service, service};

const HOSTS: [(&str, &str); 3] = [
    ("one", "10.0.0.1"),
    ("two", "10.0.0.2"),
    ("three", "10.0.0.3"),
];

/// A VirtualService and three RealServers, of which `one` has these checks.
fn with(spec: Value, checks: &Value) -> Cluster {
    let mut cluster = cluster();
    cluster.apply(service("web", spec));
    for (name, address) in HOSTS {
        let more = match name {
            "one" => json!({"healthChecks": checks}),
            _ => json!({}),
        };
        cluster.apply(at(name, address, more));
    }
    cluster.settle();
    cluster
}

fn director(cluster: &Cluster, name: &str) -> DirectorPlan {
    cluster.plan("a", name).unwrap().director.unwrap()
}

/// What a real server is asked by each service, as `type`, or `type:port`.
fn asked(plan: &DirectorPlan, real_server: &str) -> Vec<Vec<String>> {
    let services = plan.services.iter();
    services
        .map(|service| {
            let mut real_servers = service.real_servers.iter();
            let one = real_servers.find(|one| one.name == real_server).unwrap();
            let references = service.checks_of(one).iter();
            references
                .map(|reference| {
                    let mut checks = plan.checks.iter();
                    let check = checks.find(|check| check.name == reference.check_name);
                    let type_ = check.unwrap().type_;
                    match reference.port {
                        Some(port) => format!("{type_:?}:{port}"),
                        None => format!("{type_:?}"),
                    }
                })
                .collect()
        })
        .collect()
}

fn page() -> Value {
    json!([{"name": "page", "type": "HTTP"}, {"name": "alive", "type": "TCP"}])
}

#[test]
fn a_check_of_the_same_name_stands_in_the_place_of_the_virtual_services() {
    let own = json!([{"name": "page", "type": "HTTPS", "port": 8443, "periodSeconds": 9}]);
    let mut cluster = with(json!({"healthChecks": page()}), &own);
    let plan = director(&cluster, "web");
    assert_eq!(asked(&plan, "one"), [["TCP", "HTTPS:8443"]]);
    assert_eq!(asked(&plan, "two"), [["TCP", "HTTP"]]);
    let replaced = plan.checks.iter();
    let replaced = replaced.filter(|check| check.type_ == HealthCheckType::HTTPS);
    let replaced: Vec<_> = replaced.map(|check| check.period_seconds).collect();
    assert_eq!(replaced, [9], "the whole entry");
    assert_eq!(plan.services[0].real_servers[1].checks, None, "as before");
    let verdict = of_real_server(&cluster.pass(), "one", ConditionType::ResolvedRefs);
    assert_eq!(verdict.truth, Truth::True, "{}", verdict.message);
}

#[test]
fn a_check_of_type_none_switches_off_and_one_of_another_type_on() {
    let off = json!([{"name": "page", "type": "None"}]);
    let cluster = with(json!({"healthChecks": page()}), &off);
    assert_eq!(asked(&director(&cluster, "web"), "one"), [["TCP"]]);
    let only = json!([{"name": "page", "type": "HTTP"}]);
    let cluster = with(json!({"healthChecks": only}), &off);
    let plan = director(&cluster, "web");
    assert!(asked(&plan, "one")[0].is_empty());
    assert_eq!(asked(&plan, "two"), [["HTTP"]]);
    let cluster = with(json!({"healthChecks": off}), &only);
    let plan = director(&cluster, "web");
    assert_eq!(asked(&plan, "one"), [["HTTP"]]);
    assert!(asked(&plan, "two")[0].is_empty());
}

#[test]
fn without_checks_of_the_virtual_service_the_name_is_tcp_and_only_tcp_ports_have_it() {
    let ports =
        json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    let own = json!([{"name": "tcp", "type": "HTTP"}]);
    let cluster = with(json!({"ports": ports}), &own);
    let plan = director(&cluster, "web");
    assert_eq!(asked(&plan, "one"), [vec!["HTTP"], vec![]]);
    assert_eq!(asked(&plan, "two"), [vec!["TCP"], vec![]]);
}

#[test]
fn with_a_mark_each_names_the_port_it_asks() {
    let spec = json!({"grouping": "FirewallMark", "healthChecks": page(),
                      "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]});
    let own = json!([{"name": "page", "type": "HTTPS", "portName": "https"},
                     {"name": "alive", "type": "Ping"}]);
    let cluster = with(spec, &own);
    let plan = director(&cluster, "web");
    let mut one = asked(&plan, "one");
    one[0].sort();
    assert_eq!(one, [["HTTPS:443", "Ping"]]);
    assert_eq!(
        asked(&plan, "two"),
        [["TCP:80", "TCP:443", "HTTP:80", "HTTP:443"]]
    );
}

#[test]
fn equal_checks_of_many_real_servers_are_one_in_the_plan() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({"healthChecks": page()})));
    for number in 1..=100 {
        let own = json!([{"name": "page", "type": "HTTPS", "port": 8000 + number}]);
        let address = format!("10.0.0.{number}");
        cluster.apply(at(
            &format!("rs-{number}"),
            &address,
            json!({"healthChecks": own}),
        ));
    }
    cluster.settle();
    assert_eq!(director(&cluster, "web").checks.len(), 3);
}

#[test]
fn a_name_that_no_virtual_service_has_is_told_and_nothing_else_lost() {
    let own = json!([{"name": "page", "type": "HTTPS"}, {"name": "pgae", "type": "TCP"}]);
    let mut cluster = with(json!({"healthChecks": page()}), &own);
    expect_bad(
        &of_real_server(&cluster.pass(), "one", ConditionType::ResolvedRefs),
        Reason::HealthCheckNotFound,
        &["healthChecks[pgae]", "correct the name"],
    );
    assert_eq!(
        asked(&director(&cluster, "web"), "one"),
        [["TCP", "HTTPS"]],
        "the other goes on"
    );
    let other =
        json!({"addresses": ["172.25.0.101"], "healthChecks": [{"name": "pgae", "type": "HTTP"}]});
    cluster.apply(service("other", other));
    cluster.settle();
    let verdict = of_real_server(&cluster.pass(), "one", ConditionType::ResolvedRefs);
    assert_eq!(verdict.truth, Truth::True, "{}", verdict.message);
    assert_eq!(asked(&director(&cluster, "other"), "one"), [["TCP"]]);
    assert_eq!(asked(&director(&cluster, "other"), "two"), [["HTTP"]]);
}

#[test]
fn a_name_is_not_said_to_be_unknown_while_a_virtual_service_is() {
    let own = json!([{"name": "pgae", "type": "TCP"}]);
    let mut cluster = with(json!({"healthChecks": page()}), &own);
    let unplanned = json!({"addresses": ["172.25.0.101"], "virtualRouterName": "missing",
                           "healthChecks": [{"name": "pgae", "type": "HTTP"}]});
    cluster.apply(service("other", unplanned));
    cluster.settle();
    let verdict = of_real_server(&cluster.pass(), "one", ConditionType::ResolvedRefs);
    assert_eq!(verdict.truth, Truth::True, "{}", verdict.message);
}

#[test]
fn what_does_not_fit_is_told_and_the_virtual_services_own_check_counts() {
    let named = json!([{"name": "page", "type": "HTTPS", "portName": "https"}]);
    let mut cluster = with(json!({"healthChecks": page()}), &named);
    expect_bad(
        &of_real_server(&cluster.pass(), "one", ConditionType::ResolvedRefs),
        Reason::PortNotFound,
        &["healthChecks[page].portName", "web", "https"],
    );
    assert_eq!(asked(&director(&cluster, "web"), "one"), [["TCP", "HTTP"]]);
    let all_ports = json!({"ports": [{"port": 0}], "persistence": {},
                           "healthChecks": [{"name": "page", "type": "HTTP", "port": 80}]});
    let mut cluster = with(all_ports, &json!([{"name": "page", "type": "HTTPS"}]));
    expect_bad(
        &of_real_server(&cluster.pass(), "one", ConditionType::Accepted),
        Reason::PortNotPermitted,
        &["healthChecks[page].port", "set port"],
    );
    assert_eq!(asked(&director(&cluster, "web"), "one"), [["HTTP:80"]]);
}

#[test]
fn a_plan_holds_no_more_checks_than_it_may() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({"healthChecks": page()})));
    for number in 1..=250 {
        let own = json!([{"name": "page", "type": "HTTP", "http": {"path": format!("/{number}")}}]);
        let address = format!("10.0.1.{number}");
        cluster.apply(at(
            &format!("rs-{number:03}"),
            &address,
            json!({"healthChecks": own}),
        ));
    }
    cluster.settle();
    let plan = director(&cluster, "web");
    assert_eq!(plan.checks.len(), 2 + 128);
    let resolution = cluster.pass();
    let verdict = of_real_server(&resolution, "rs-128", ConditionType::Accepted);
    assert_eq!(verdict.truth, Truth::True, "the older ones have theirs");
    expect_bad(
        &of_real_server(&resolution, "rs-129", ConditionType::Accepted),
        Reason::TooManyHealthChecks,
        &["web", "its own count"],
    );
    assert_eq!(asked(&plan, "rs-129"), [["TCP", "HTTP"]]);

    // Long ones are fewer.
    let mut cluster = support::four_nodes::cluster();
    cluster.apply(service("web", json!({"healthChecks": page()})));
    for number in 0..100 {
        let headers: Vec<Value> = (0..16)
            .map(|header| json!({"name": format!("X-{header}"), "value": "v".repeat(1000)}))
            .collect();
        let http = json!({"path": format!("/{number}"), "headers": headers});
        let own = json!([{"name": "page", "type": "HTTP", "http": http}]);
        let address = format!("10.0.1.{number}");
        cluster.apply(at(
            &format!("rs-{number:03}"),
            &address,
            json!({"healthChecks": own}),
        ));
    }
    cluster.settle();
    let length = serde_json::to_string(&director(&cluster, "web"))
        .unwrap()
        .len();
    assert!((200_000..300_000).contains(&length), "{length} bytes");
}

#[test]
fn a_real_server_that_cannot_be_read_keeps_its_check() {
    let own = json!([{"name": "page", "type": "HTTPS", "port": 8443}]);
    let mut cluster = with(json!({"healthChecks": page()}), &own);
    let before = director(&cluster, "web");
    cluster.apply(at("one", "10.0.0.1", json!({"weight": "heavy"})));
    cluster.settle();
    assert_eq!(director(&cluster, "web"), before);
    // Also while another one comes and goes that has one.
    let other = json!([{"name": "page", "type": "HTTP", "port": 8080}]);
    cluster.apply(at("two", "10.0.0.2", json!({"healthChecks": other})));
    cluster.settle();
    let plan = director(&cluster, "web");
    assert_eq!(asked(&plan, "one"), [["TCP", "HTTPS:8443"]]);
    assert_eq!(asked(&plan, "two"), [["TCP", "HTTP:8080"]]);
}

#[test]
fn who_is_asked_instead_must_be_granted() {
    let elsewhere = |address: &str| json!({"healthChecks": [{"name": "page", "type": "HTTP", "address": address}]});
    let cluster = with(elsewhere("10.9.9.9"), &json!([]));
    let plan = director(&cluster, "web");
    assert_eq!(plan.checks[0].address.as_deref(), Some("10.9.9.9"));
    for (address, why) in [
        ("203.0.113.9", "realServerCIDRs"),
        ("172.25.0.100", "is a virtual address"),
        ("169.254.169.254", "is a link-local address"),
        ("127.0.0.1", "is a loopback address"),
    ] {
        let mut cluster = with(elsewhere(address), &json!([]));
        expect_bad(
            &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
            Reason::TargetNotPermitted,
            &["spec.healthChecks[page].address", address, why],
        );
        let plan = director(&cluster, "web");
        assert!(plan.checks.is_empty(), "it is not asked");
        assert_eq!(plan.services[0].real_servers.len(), 3, "the rest goes on");
    }
    let own = json!([{"name": "page", "type": "TCP", "address": "203.0.113.9"}]);
    let mut cluster = with(json!({"healthChecks": page()}), &own);
    expect_bad(
        &of_real_server(&cluster.pass(), "one", ConditionType::Accepted),
        Reason::TargetNotPermitted,
        &["spec.healthChecks[page].address", "203.0.113.9"],
    );
    assert_eq!(asked(&director(&cluster, "web"), "one"), [["TCP", "HTTP"]]);
}

#[test]
fn nobody_asks_from_an_address_that_moves() {
    let from = |address: &str| json!({"healthChecks": [{"name": "page", "type": "HTTP", "sourceAddress": address}]});
    let cluster = with(from("192.168.50.11"), &json!([]));
    let plan = director(&cluster, "web");
    assert_eq!(
        plan.checks[0].source_address.as_deref(),
        Some("192.168.50.11")
    );
    let mut cluster = with(from("172.25.0.100"), &json!([]));
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &["spec.healthChecks[page].sourceAddress", "virtual address"],
    );
}
