//! `QuorumMet` of VirtualServices.

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
use lvs_plan::report::{Truth, Verdict};
use serde_json::json;
use support::Cluster;
use support::four_nodes::{cluster, expect_bad, of_service, on_node, service};

fn with_quorum() -> Cluster {
    let mut cluster = cluster();
    let quorum = json!({"minimumWeight": 2, "hysteresis": 1});
    cluster.apply(service("web", json!({"quorum": quorum})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({})));
    cluster.settle();
    cluster
}

/// The agent of a node says which services have none.
fn report(cluster: &mut Cluster, node: &str, services: &[&str]) {
    for plan in cluster.inputs.node_plans.values_mut() {
        let plan = Arc::make_mut(plan);
        let is_of_node = plan
            .object
            .spec()
            .is_some_and(|spec| spec.node_name == node);
        for status in plan.object.status.iter_mut().filter(|_| is_of_node) {
            status.services_without_quorum = services.iter().map(ToString::to_string).collect();
        }
    }
}

fn quorum(cluster: &mut Cluster) -> Verdict {
    of_service(&cluster.pass(), "web", ConditionType::QuorumMet)
}

#[test]
fn it_is_what_the_master_says() {
    let mut cluster = with_quorum();
    let nobody = quorum(&mut cluster);
    assert_eq!(
        (nobody.truth, nobody.reason),
        (Truth::Unknown, Reason::Pending)
    );
    cluster.elect("default", "a");
    cluster.settle();
    let met = quorum(&mut cluster);
    assert_eq!((met.truth, met.reason), (Truth::True, Reason::QuorumMet));
    assert!(met.message.contains("2 or more"), "{}", met.message);
    report(&mut cluster, "b", &["172.25.0.100:80/TCP"]);
    assert_eq!(
        quorum(&mut cluster).truth,
        Truth::True,
        "b does not hold the addresses"
    );
    report(&mut cluster, "a", &["172.25.0.100:80/TCP"]);
    expect_bad(
        &quorum(&mut cluster),
        Reason::QuorumLost,
        &["172.25.0.100:80/TCP", "met again at 3"],
    );
}

/// What was told is in the status, as the controller writes it.
fn store(cluster: &mut Cluster, verdict: &Verdict) {
    let key = ObjectKey::new("default", "web");
    let object = cluster.inputs.virtual_services.get_mut(&key).unwrap();
    let status = Arc::make_mut(object).status.as_mut().unwrap();
    let condition = json!({"type": verdict.condition.as_str(), "status": verdict.truth.as_str(), "reason": verdict.reason.as_str(),
        "message": verdict.message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    status.conditions = vec![serde_json::from_value(condition).unwrap()];
}

#[test]
fn while_nobody_says_anything_it_stays_what_it_was() {
    let mut cluster = with_quorum();
    cluster.elect("default", "a");
    cluster.settle();
    report(&mut cluster, "a", &["172.25.0.100:80/TCP"]);
    let lost = quorum(&mut cluster);
    assert_eq!(lost.truth, Truth::False);
    // A plan that no agent has answered yet.
    cluster.apply(on_node("d", "d", json!({"weight": 7})));
    store(&mut cluster, &lost);
    assert_eq!(quorum(&mut cluster), lost);
    // Another director speaks for itself.
    cluster.settle();
    cluster.elect("default", "b");
    store(&mut cluster, &lost);
    assert_eq!(quorum(&mut cluster).reason, Reason::QuorumMet);
}

#[test]
fn who_asks_for_none_is_told_of_none() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    let resolution = cluster.pass();
    let reports = resolution.report.virtual_services.values();
    let mut verdicts = reports.flat_map(|report| &report.verdicts);
    assert!(verdicts.all(|verdict| verdict.condition != ConditionType::QuorumMet));
}
