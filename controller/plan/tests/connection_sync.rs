//! How connections survive a takeover: one set-up of the daemons on a node, and services that stand against Stateless.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::four_nodes::{cluster, expect_bad, of_router, of_service, router, service};

#[test]
fn directors_of_two_routers_have_one_set_up_of_sync_daemons() {
    let mut cluster = cluster();
    let with = |name: &str, directors: &[&str], sync: Value| {
        let mut router = router(name, directors);
        router["spec"]["interfaces"] = json!([{"name": "sync", "devices": ["eth2", "ens5"]}]);
        router["spec"]["connectionSync"] = sync;
        router
    };
    let daemon = |sync_id: u8| json!({"type": "Daemon", "daemon": {"interfaceName": "sync", "syncID": sync_id}});
    cluster.apply(with("default", &["a", "b"], daemon(1)));
    cluster.apply(with("edge", &["b", "c"], daemon(2)));
    // What is the same, and what needs no daemon, disagrees with nobody.
    cluster.apply(with("same", &["a", "b"], daemon(1)));
    cluster.apply(with("stateless", &["a", "b"], json!({"type": "Stateless"})));
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "edge", ConditionType::Accepted);
    expect_bad(
        &verdict,
        Reason::NodeSettingConflict,
        &["spec.connectionSync.daemon", "node b", "default"],
    );
    for name in ["default", "same", "stateless"] {
        let verdict = of_router(&resolution, name, ConditionType::Accepted);
        assert_eq!(verdict.truth, Truth::True, "{name}: {verdict:?}");
    }
    let planned = |node: &str, router: &str| {
        let plan = cluster.plan(node, router).unwrap();
        plan.director.unwrap().leadership.unwrap().connection_sync
    };
    assert_eq!(planned("b", "edge"), None);
    let daemon = planned("c", "edge").unwrap().daemon.unwrap();
    assert_eq!(
        (
            daemon.devices,
            daemon.sync_id,
            daemon.group.to_string(),
            daemon.port,
            daemon.ttl
        ),
        (
            vec!["eth2".to_owned(), "ens5".to_owned()],
            2,
            "224.0.0.81".to_owned(),
            8848,
            1
        )
    );
    assert_eq!(planned("a", "default"), planned("a", "same"));
    assert_eq!(planned("a", "stateless").unwrap().daemon, None);
}

#[test]
fn a_router_whose_sync_daemons_have_no_interface_stays_as_it_is() {
    let mut cluster = cluster();
    let mut router = router("edge", &["a"]);
    router["spec"]["connectionSync"] =
        json!({"type": "Daemon", "daemon": {"interfaceName": "sync", "syncID": 1}});
    cluster.apply(router);
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "edge", ConditionType::Accepted);
    expect_bad(
        &verdict,
        Reason::Invalid,
        &["spec.connectionSync.daemon.interfaceName", "sync"],
    );
}

#[test]
fn a_service_that_a_stateless_takeover_breaks_is_told_and_served() {
    let mut cluster = cluster();
    let mut edge = router("edge", &["a", "b"]);
    edge["spec"]["connectionSync"] = json!({"type": "Stateless"});
    cluster.apply(edge);
    let scheduler = |name: &str| json!({"scheduler": {"name": name}, "virtualRouterName": "edge"});
    for (name, spec, breaks) in [
        ("mh", scheduler("mh"), None),
        ("sh", scheduler("sh"), None),
        ("wlc", scheduler("wlc"), Some("use mh")),
        (
            "persistent",
            json!({"scheduler": {"name": "mh"}, "virtualRouterName": "edge", "persistence": {"ipv4PrefixLength": 24}}),
            Some("remove persistence"),
        ),
        (
            "by-port",
            json!({"scheduler": {"name": "mh", "options": ["mh-port"]}, "virtualRouterName": "edge", "persistence": {}}),
            Some("remove persistence"),
        ),
        (
            "whole",
            json!({"scheduler": {"name": "mh"}, "virtualRouterName": "edge", "persistence": {}}),
            None,
        ),
    ] {
        cluster.apply(service(name, spec));
        let resolution = cluster.settle();
        let verdict = of_service(&resolution, name, ConditionType::Programmed);
        match breaks {
            None => assert_ne!(
                verdict.reason,
                Reason::SchedulerNotStateless,
                "{name}: {verdict:?}"
            ),
            Some(cure) => expect_bad(&verdict, Reason::SchedulerNotStateless, &["edge", cure]),
        }
    }
}

#[test]
fn directors_whose_tables_differ_are_named() {
    let mut cluster = cluster();
    let mut edge = router("edge", &["a", "b"]);
    edge["spec"]["connectionSync"] = json!({"type": "Stateless"});
    cluster.apply(edge);
    cluster.apply(service(
        "web",
        json!({"scheduler": {"name": "mh"}, "virtualRouterName": "edge"}),
    ));
    cluster.settle();
    cluster.report_tables(&[("a", "0x1"), ("b", "0x1")]);
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Programmed);
    assert_eq!(verdict.truth, Truth::True, "{verdict:?}");
    cluster.report_tables(&[("a", "0x1"), ("b", "0x2")]);
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Programmed);
    expect_bad(&verdict, Reason::TableMismatch, &["a (0x1)", "b (0x2)"]);
    // Without the demand nobody compares.
    cluster.apply(router("edge", &["a", "b"]));
    cluster.settle();
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Programmed);
    assert_eq!(verdict.truth, Truth::True, "{verdict:?}");
}
