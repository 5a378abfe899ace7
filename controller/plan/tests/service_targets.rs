//! RealServers that stand for a Service: who of its endpoints serves, on which port, and what is told of the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

#[path = "service_targets/bounds.rs"]
mod bounds;
#[path = "service_targets/ports.rs"]
mod ports;
#[path = "service_targets/unreadable.rs"]
mod unreadable;

use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{PlannedRealServer, PlannedService};
use lvs_crds::real_server::{RealServerState, RealServerStatus};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_plan::Resolution;
use lvs_plan::input::{Body, ObjectKey};
use lvs_plan::report::Truth;
use lvs_plan::resolve;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::four_nodes::{at, cluster, expect_bad, of_real_server, of_service, service};
use support::{Cluster, is_quiet};

/// RealServer `web` that stands for Service `web`; `more` are further fields of its spec.
fn stands_for_service(name: &str, more: Value) -> Value {
    let mut spec = json!({"target": {"type": "Service", "service": {"name": name}}});
    if let Value::Object(more) = more {
        spec.as_object_mut().unwrap().extend(more);
    }
    json!({"kind": "RealServer", "metadata": {"name": name}, "spec": spec})
}

/// A slice of a Service with one TCP port `http` 8080.
fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    slice_of(
        "IPv4",
        name,
        service,
        endpoints,
        json!([{"name": "http", "port": 8080}]),
    )
}

fn slice_of(family: &str, name: &str, service: &str, endpoints: Value, ports: Value) -> Value {
    let mut slice = json!({"kind": "EndpointSlice",
                           "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
                           "addressType": family});
    slice["endpoints"] = endpoints;
    slice["ports"] = ports;
    slice
}

/// Endpoints without conditions: ready.
fn ready(addresses: &[&str]) -> Value {
    addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect()
}

fn terminating(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": false, "serving": true, "terminating": true}})
}

/// A cluster with VirtualService and Service `web`, and these slices.
fn web(spec: Value, real_server: Value, slices: impl IntoIterator<Item = Value>) -> Cluster {
    let mut cluster = cluster();
    cluster.apply(service("web", spec));
    cluster.apply(stands_for_service("web", real_server));
    for slice in slices {
        cluster.apply(slice);
    }
    cluster
}

fn services(cluster: &Cluster) -> Vec<PlannedService> {
    let plans = ["a", "b"].map(|node| cluster.plan(node, "web").unwrap().director);
    assert_eq!(plans[0], plans[1], "directors have the same");
    plans[0].clone().unwrap().services
}

fn real_servers(cluster: &Cluster) -> Vec<PlannedRealServer> {
    services(cluster).remove(0).real_servers
}

/// Destinations of the first service as `address:port`, with `!` where they drain.
fn destinations(cluster: &Cluster) -> Vec<String> {
    let text = |one: &PlannedRealServer| {
        let socket = std::net::SocketAddr::new(one.address, one.port);
        match one.administrative_state {
            AdministrativeState::Enabled => socket.to_string(),
            AdministrativeState::Draining => format!("!{socket}"),
            AdministrativeState::Disabled => format!("-{socket}"),
        }
    };
    real_servers(cluster).iter().map(text).collect()
}

fn status_of<'a>(resolution: &'a Resolution, name: &str) -> &'a RealServerStatus {
    &resolution.report.real_servers[&ObjectKey::new("default", name)].status
}

/// READY of VirtualService `web`.
fn count(resolution: &Resolution) -> String {
    let report = &resolution.report.virtual_services[&ObjectKey::new("default", "web")];
    report.status.summary.real_servers.clone()
}

#[test]
fn each_endpoint_serves_as_its_conditions_say() {
    let rows = [
        (json!(null), "10.0.0.1:80"),
        (json!({}), "10.0.0.1:80"),
        (json!({"ready": true}), "10.0.0.1:80"),
        (
            json!({"ready": true, "serving": true, "terminating": false}),
            "10.0.0.1:80",
        ),
        // publishNotReadyAddresses: the Service says that it is to be used all the same.
        (
            json!({"ready": true, "serving": true, "terminating": true}),
            "10.0.0.1:80",
        ),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            "!10.0.0.1:80",
        ),
        (json!({"ready": false, "serving": true}), "!10.0.0.1:80"),
        (
            json!({"ready": false, "serving": false, "terminating": true}),
            "",
        ),
        (json!({"ready": false, "serving": false}), ""),
        (json!({"ready": false, "terminating": true}), ""),
        (json!({"ready": false}), ""),
    ];
    for (conditions, expected) in rows {
        let endpoints = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}, {"addresses": ["10.0.0.2"]}]);
        let mut cluster = web(
            json!({}),
            json!({"weight": 3}),
            [slice("web-1", "web", endpoints)],
        );
        cluster.pass();
        let mut wanted = vec![expected.to_owned(), "10.0.0.2:80".to_owned()];
        wanted.retain(|text| !text.is_empty());
        assert_eq!(destinations(&cluster), wanted, "{conditions}");
        assert!(
            real_servers(&cluster)
                .iter()
                .all(|one| one.weight == 3 && one.name == "web")
        );
    }
}

#[test]
fn the_state_of_the_real_server_holds_for_every_endpoint() {
    let endpoints = || json!([{"addresses": ["10.0.0.1"]}, terminating("10.0.0.2")]);
    for (state, expected) in [
        ("Draining", ["!10.0.0.1:80", "!10.0.0.2:80"]),
        ("Disabled", ["-10.0.0.1:80", "-10.0.0.2:80"]),
    ] {
        let spec = json!({"administrativeState": state, "connectionThresholds": {"upper": 100}});
        let mut cluster = web(json!({}), spec, [slice("web-1", "web", endpoints())]);
        cluster.pass();
        assert_eq!(destinations(&cluster), expected);
        assert!(
            real_servers(&cluster)
                .iter()
                .all(|one| one.upper_threshold == 100)
        );
    }
}

#[test]
fn a_terminating_endpoint_drains_and_goes_without_being_counted() {
    let mut cluster = web(
        json!({}),
        json!({}),
        [slice(
            "web-1",
            "web",
            ready(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        )],
    );
    cluster.settle();
    cluster.elect("default", "a");
    let resolution = cluster.settle();
    assert_eq!(count(&resolution), "3/3");
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Ready).reason,
        Reason::Ready
    );
    assert_eq!(
        of_real_server(&resolution, "web", ConditionType::Ready).reason,
        Reason::Ready
    );
    let status = status_of(&resolution, "web");
    assert_eq!(
        (
            status.summary.target.as_str(),
            status.summary.state.as_str()
        ),
        ("service/web", "Up")
    );
    let ports = &status.virtual_services[0].ports;
    let addresses: Vec<_> = ports.iter().map(|port| port.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);

    cluster.apply(slice(
        "web-1",
        "web",
        json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, terminating("10.0.0.3")]),
    ));
    let resolution = cluster.settle();
    assert_eq!(
        destinations(&cluster),
        ["10.0.0.1:80", "10.0.0.2:80", "!10.0.0.3:80"]
    );
    assert_eq!(count(&resolution), "2/2", "what leaves is not missed");
    let status = status_of(&resolution, "web");
    assert_eq!(status.summary.state, "Up");
    assert_eq!(
        status.virtual_services[0].ports[2].state,
        RealServerState::Draining
    );
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Ready).reason,
        Reason::Ready
    );

    // The last thing that a program does before it ends is to stop listening.
    cluster
        .failing
        .insert("web".into(), "connect refused".into());
    cluster.acknowledge_all();
    let resolution = cluster.pass();
    let seen: Vec<_> = status_of(&resolution, "web").virtual_services[0]
        .ports
        .iter()
        .map(|port| port.state)
        .collect();
    assert_eq!(
        seen,
        [
            RealServerState::Down,
            RealServerState::Down,
            RealServerState::Draining
        ]
    );
    assert_eq!(count(&resolution), "0/2");
    cluster.failing.clear();

    cluster.apply(slice("web-1", "web", ready(&["10.0.0.1", "10.0.0.2"])));
    let resolution = cluster.settle();
    assert_eq!(destinations(&cluster), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(count(&resolution), "2/2");
}

#[test]
fn each_family_serves_the_addresses_of_its_family() {
    let six = json!([{"name": "http", "port": 8080}]);
    let slices = || {
        [
            slice("web-4", "web", ready(&["10.0.0.1"])),
            slice_of(
                "IPv6",
                "web-6",
                "web",
                ready(&["2001:db8:1::1"]),
                six.clone(),
            ),
            slice_of(
                "FQDN",
                "web-name",
                "web",
                ready(&["web.example"]),
                six.clone(),
            ),
        ]
    };
    let grant = |cluster: &mut Cluster| {
        let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
        if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
            spec.grants[0]
                .real_server_cidrs
                .push("2001:db8:1::/64".to_owned());
        }
    };
    for forwarding in ["DR", "TUN"] {
        let spec = json!({"addresses": ["172.25.0.100", "2001:db8::100"], "forwarding": {"type": forwarding}});
        let mut cluster = web(spec, json!({}), slices());
        grant(&mut cluster);
        let resolution = cluster.pass();
        let seen: Vec<Vec<String>> = services(&cluster)
            .iter()
            .map(|service| {
                service
                    .real_servers
                    .iter()
                    .map(|one| one.address.to_string())
                    .collect()
            })
            .collect();
        assert_eq!(seen, [["10.0.0.1"], ["2001:db8:1::1"]], "{forwarding}");
        assert_eq!(
            of_real_server(&resolution, "web", ConditionType::Accepted).truth,
            Truth::True
        );
    }
    // The other family is not missed where nobody asks for it, not even by grants.
    let mut cluster = web(json!({}), json!({}), slices());
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster), ["10.0.0.1:80"]);
    assert_eq!(
        of_real_server(&resolution, "web", ConditionType::Accepted).truth,
        Truth::True
    );
    let mut cluster = web(
        json!({"addresses": ["2001:db8::100"]}),
        json!({}),
        [slice("web-4", "web", ready(&["10.0.0.1"]))],
    );
    let resolution = cluster.pass();
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::AddressFamilyMismatch,
        &["VirtualService web", "Service web"],
    );
}

#[test]
fn what_may_not_be_used_is_left_out_and_the_others_serve() {
    let endpoints = ready(&[
        "10.0.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.25.0.100",
        "192.0.2.1",
        "192.168.50.13",
        "224.0.0.1",
    ]);
    let mut cluster = web(json!({}), json!({}), [slice("web-1", "web", endpoints)]);
    let resolution = cluster.pass();
    assert_eq!(
        destinations(&cluster),
        ["10.0.0.1:80", "192.168.50.13:80"],
        "nodes are granted here"
    );
    let verdict = of_real_server(&resolution, "web", ConditionType::Accepted);
    expect_bad(
        &verdict,
        Reason::TargetNotPermitted,
        &["5 of 7 endpoints", "127.0.0.1 is a loopback address"],
    );
    assert!(
        !verdict.message.contains("192.0.2.1"),
        "one is named: {}",
        verdict.message
    );
    assert_eq!(count(&resolution), "0/2");

    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
        spec.grants[0].real_server_nodes = lvs_crds::virtual_router::RealServerNodes::None;
    }
    cluster.pass();
    assert_eq!(destinations(&cluster), ["10.0.0.1:80"]);

    cluster.apply(slice("web-1", "web", ready(&["192.0.2.1"])));
    let resolution = cluster.pass();
    assert!(real_servers(&cluster).is_empty());
    expect_bad(
        &of_service(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &[
            "RealServer web",
            "1 of 1 endpoints",
            "192.0.2.1",
            "realServerCIDRs",
        ],
    );
}

#[test]
fn an_older_real_server_keeps_its_address() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(at("old", "10.0.0.2", json!({"weight": 7})));
    cluster.apply(stands_for_service("web", json!({})));
    cluster.apply(slice(
        "web-1",
        "web",
        ready(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ));
    let resolution = cluster.pass();
    let seen: Vec<_> = real_servers(&cluster)
        .into_iter()
        .map(|one| (one.name, one.weight))
        .collect();
    assert_eq!(
        seen,
        [
            ("web".to_owned(), 1),
            ("old".to_owned(), 7),
            ("web".to_owned(), 1)
        ]
    );
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::DuplicateTarget,
        &["RealServer old"],
    );
    assert_eq!(count(&resolution), "0/3");
}

#[test]
fn a_service_without_endpoints_says_so() {
    let none = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]);
    let rows = [
        (vec![], "has no EndpointSlice of a Service web"),
        (
            vec![slice("shop-1", "shop", ready(&["10.0.0.1"]))],
            "has no EndpointSlice of a Service web",
        ),
        (
            vec![slice("web-1", "web", json!(null))],
            "Service web has no endpoint that is ready",
        ),
        (
            vec![slice("web-1", "web", none)],
            "Service web has no endpoint that is ready",
        ),
        (
            vec![slice_of(
                "FQDN",
                "web-1",
                "web",
                ready(&["web.example"]),
                json!(null),
            )],
            "Service web has no endpoint that is ready",
        ),
    ];
    for (slices, words) in rows {
        let mut cluster = web(json!({}), json!({}), slices);
        cluster.settle();
        cluster.elect("default", "a");
        let resolution = cluster.settle();
        assert!(real_servers(&cluster).is_empty());
        expect_bad(
            &of_real_server(&resolution, "web", ConditionType::ResolvedRefs),
            Reason::NoRealServers,
            &[words],
        );
        expect_bad(
            &of_service(&resolution, "web", ConditionType::ResolvedRefs),
            Reason::NoRealServers,
            &["RealServer web", words],
        );
        expect_bad(
            &of_service(&resolution, "web", ConditionType::Ready),
            Reason::NoRealServers,
            &[words],
        );
        assert_eq!(count(&resolution), "0/0");
    }
    // Those that are about to end keep their connections, and are told of.
    let mut cluster = web(
        json!({}),
        json!({}),
        [slice("web-1", "web", json!([terminating("10.0.0.1")]))],
    );
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster), ["!10.0.0.1:80"]);
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::NoRealServers,
        &["no endpoint that is ready"],
    );
}

#[test]
fn endpoints_that_fail_are_counted_one_by_one() {
    let mut cluster = web(
        json!({}),
        json!({}),
        [slice("web-1", "web", ready(&["10.0.0.1", "10.0.0.2"]))],
    );
    cluster.settle();
    cluster.elect("default", "a");
    cluster
        .failing
        .insert("10.0.0.2".into(), "connect refused".into());
    let resolution = cluster.settle();
    assert_eq!(count(&resolution), "1/2");
    let verdict = of_real_server(&resolution, "web", ConditionType::Ready);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::True, Reason::PartiallyReady)
    );
    assert!(
        verdict
            .message
            .contains("1 of 2 endpoints are ready for VirtualService web"),
        "{verdict:?}"
    );
    assert!(status_of(&resolution, "web").virtual_services[0].ready);
    assert_eq!(
        status_of(&resolution, "web").summary.state,
        "Down",
        "the worst"
    );

    cluster
        .failing
        .insert("10.0.0.1".into(), "connect refused".into());
    let resolution = cluster.settle();
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Ready),
        Reason::ChecksFailed,
        &["connect refused"],
    );
    assert!(!status_of(&resolution, "web").virtual_services[0].ready);
}

/// One endpoint of a random Service: last byte of its address, and its conditions.
fn endpoint() -> impl Strategy<Value = Value> {
    let condition = || proptest::option::of(any::<bool>());
    (1..12_u8, condition(), condition()).prop_map(|(last, ready, serving)| {
        json!({"addresses": [format!("10.0.0.{last}")], "conditions": {"ready": ready, "serving": serving}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The order of endpoints and ports in a slice means nothing; fed back, the plans are at rest; and directors that
    /// compare their tables find the same order in them.
    #[test]
    fn permuted_slices_give_the_same_plan(slices in proptest::collection::vec(proptest::collection::vec(endpoint(), 0..8), 1..4)) {
        let ports = [json!({"name": "http", "port": 8080}), json!({"name": "admin", "port": 9090})];
        let cluster_of = |is_reversed: bool| {
            let spec = json!({"ports": [{"name": "http", "port": 80}], "forwarding": {"type": "NAT"}});
            let slices = slices.iter().enumerate().map(|(index, endpoints)| {
                let (mut endpoints, mut ports) = (endpoints.clone(), ports.to_vec());
                if is_reversed {
                    endpoints.reverse();
                    ports.reverse();
                }
                slice_of("IPv4", &format!("web-{index}"), "web", json!(endpoints), json!(ports))
            });
            web(spec, json!({}), slices)
        };
        let mut cluster = cluster_of(false);
        prop_assert_eq!(resolve(&cluster.inputs), resolve(&cluster_of(true).inputs));
        cluster.settle();
        prop_assert!(is_quiet(&cluster.pass()));
        let slots: Vec<_> = real_servers(&cluster).iter().map(|one| (one.address, one.port)).collect();
        prop_assert!(slots.is_sorted(), "{:?}", slots);
    }
}
