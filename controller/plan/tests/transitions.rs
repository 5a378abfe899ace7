//! What happens in steps: directors come and go, addresses and services change routers, teardown.

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
use lvs_crds::virtual_router::CandidateState;
use lvs_plan::input::{Body, ObjectKey};
use serde_json::json;
use support::four_nodes::{candidacy, cluster, expect_bad, of_router, router, service};
use support::{Cluster, is_quiet, node};

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
