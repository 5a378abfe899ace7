//! Conditions of a director's Node: what they take off its priority, and what is told of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::virtual_router::{Candidate, CandidateState};
use lvs_plan::input::{Node, ObjectKey};
use lvs_plan::resolution::Resolution;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::four_nodes::{cluster, router};
use support::{Cluster, is_quiet, node};

/// Node a with these conditions, by type and status.
fn node_a(conditions: &[(&str, &str)]) -> Value {
    let mut node = node("a", "192.168.50.11");
    node["status"]["conditions"] = conditions
        .iter()
        .map(|(type_, status)| json!({"type": type_, "status": status}))
        .collect();
    node
}

/// The default router of a and b with priority 100 that tracks these.
fn tracking(conditions: Value) -> Cluster {
    let mut cluster = cluster();
    let mut router = router("default", &["a", "b"]);
    router["spec"]["tracking"]["nodeConditions"] = conditions;
    cluster.apply(router);
    cluster
}

fn priority(cluster: &Cluster, node: &str) -> u8 {
    let plan = cluster.plan(node, "default").unwrap();
    plan.director.unwrap().leadership.unwrap().priority
}

fn candidate(resolution: &Resolution, node: &str) -> Candidate {
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "default")];
    let mut candidates = report.status.candidates.iter();
    let found = candidates.find(|candidate| candidate.node_name == node);
    found.unwrap().clone()
}

#[test]
fn a_condition_takes_off_what_it_costs_and_says_so() {
    let mut cluster = tracking(json!([{"type": "Ready", "status": "False", "priorityDelta": -50}]));
    cluster.apply(node_a(&[("Ready", "True")]));
    cluster.settle();
    assert_eq!(
        (priority(&cluster, "a"), priority(&cluster, "b")),
        (100, 100)
    );

    cluster.apply(node_a(&[("Ready", "False")]));
    let resolution = cluster.settle();
    assert_eq!(
        (priority(&cluster, "a"), priority(&cluster, "b")),
        (50, 100)
    );
    let found = candidate(&resolution, "a");
    assert_eq!(found.state, CandidateState::Backup);
    assert_eq!(found.priority, 100, "what spec says");
    assert_eq!(found.reason.as_deref(), Some("NodeCondition"));
    assert_eq!(
        found.message.as_deref(),
        Some("condition Ready of the node is False (priority -50)")
    );
    assert_eq!(candidate(&resolution, "b").reason, None);

    // The holder is told of in the same words, and is as ready as before.
    cluster.elect("default", "a");
    let resolution = cluster.pass();
    let found = candidate(&resolution, "a");
    assert_eq!(found.state, CandidateState::Master);
    assert_eq!(found.reason.as_deref(), Some("NodeCondition"));
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "default")];
    assert_eq!(report.status.summary.candidates, "2/2");

    cluster.apply(node_a(&[("Ready", "True")]));
    let resolution = cluster.settle();
    assert_eq!(priority(&cluster, "a"), 100);
    assert_eq!(candidate(&resolution, "a").reason, None);
}

#[test]
fn without_a_delta_the_director_gives_way() {
    let mut cluster = tracking(json!([
        {"type": "Ready", "status": "False"},
        {"type": "MemoryPressure", "status": "True", "priorityDelta": -10},
    ]));
    cluster.apply(node_a(&[("Ready", "False"), ("MemoryPressure", "True")]));
    let resolution = cluster.settle();
    assert_eq!(priority(&cluster, "a"), 0);
    assert_eq!(
        candidate(&resolution, "a").message.as_deref(),
        Some(
            "condition Ready of the node is False; condition MemoryPressure of the node is True (priority -10)"
        )
    );
}

#[test]
fn a_condition_that_is_missing_is_unknown_and_neither_true_nor_false() {
    for (status, wanted) in [("True", 100), ("False", 100), ("Unknown", 70)] {
        let mut cluster =
            tracking(json!([{"type": "Uplink", "status": status, "priorityDelta": -30}]));
        cluster.apply(node_a(&[("Ready", "True")]));
        let resolution = cluster.settle();
        assert_eq!(priority(&cluster, "a"), wanted, "{status}");
        let message = candidate(&resolution, "a").message;
        assert_eq!(
            message.as_deref(),
            (wanted == 70)
                .then_some("condition Uplink of the node is Unknown: it has none (priority -30)")
        );
    }
}

#[test]
fn a_heartbeat_of_the_kubelet_changes_nothing_that_is_kept() {
    let at = |time: &str, status: &str| {
        let condition = json!({"type": "Ready", "status": status, "lastHeartbeatTime": time, "lastTransitionTime": time,
                               "reason": time, "message": time});
        let node = json!({"metadata": {"name": "a", "resourceVersion": time}, "status": {"conditions": [condition]}});
        Node::from_api(&serde_json::from_value(node).unwrap(), true)
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z");
    assert_eq!(at(early, "True"), at(late, "True"));
    assert_ne!(at(early, "True"), at(late, "False"));
}

#[test]
fn a_condition_that_nobody_tracks_writes_no_plan() {
    let mut cluster = tracking(json!([{"type": "Ready", "status": "False"}]));
    cluster.apply(node_a(&[("Ready", "True"), ("DiskPressure", "False")]));
    cluster.settle();
    cluster.apply(node_a(&[("Ready", "True"), ("DiskPressure", "True")]));
    assert!(is_quiet(&cluster.pass()));
    cluster.apply(node_a(&[("Ready", "Unknown"), ("DiskPressure", "True")]));
    assert!(is_quiet(&cluster.pass()));
    cluster.apply(node_a(&[("Ready", "False")]));
    let resolution = cluster.pass();
    let mut changed = resolution.plans.values().filter(|plan| plan.is_changed);
    assert_eq!(changed.next().unwrap().spec.node_name, "a");
    assert_eq!(changed.count(), 0, "nobody else is concerned");
}

#[test]
fn what_the_agent_says_against_its_node_is_shown() {
    let mut cluster = cluster();
    cluster.settle();
    let cost = |delta: i64, message: &str| json!({"priorityDelta": delta, "reason": "EndpointFailed", "message": message});
    cluster.report_deductions(
        "a",
        &json!([cost(-20, "one fails"), cost(-30, "two fails")]),
        50,
    );
    let found = candidate(&cluster.pass(), "a");
    assert_eq!(found.state, CandidateState::Backup);
    assert_eq!((found.priority, found.effective_priority), (100, Some(50)));
    assert_eq!(found.reason.as_deref(), Some("EndpointFailed"));
    assert_eq!(
        found.message.as_deref(),
        Some("two fails (priority -30); one fails (priority -20)")
    );

    // What makes it give way is a fault: it is not counted among those who are ready.
    let refused =
        json!({"priorityDelta": 0, "reason": "KernelError", "message": "a service is refused"});
    cluster.report_deductions("a", &json!([cost(-20, "one fails"), refused]), 0);
    let resolution = cluster.pass();
    let found = candidate(&resolution, "a");
    assert_eq!(found.state, CandidateState::Fault);
    assert_eq!(found.reason.as_deref(), Some("KernelError"));
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "default")];
    assert_eq!(report.status.summary.candidates, "1/2");
}

proptest! {
    #[test]
    fn a_priority_stays_what_vrrp_can_say(
        configured in 1..=254_u8,
        deltas in proptest::collection::vec(-253..=0_i32, 0..4),
        statuses in proptest::collection::vec(0..3_usize, 4),
    ) {
        let words = ["True", "False", "Unknown"];
        let types = ["A", "B", "C", "D"];
        let tracked: Vec<Value> = deltas
            .iter()
            .zip(types)
            .map(|(delta, type_)| json!({"type": type_, "status": "False", "priorityDelta": delta}))
            .collect();
        let mut cluster = cluster();
        let mut router = router("default", &["b"]);
        router["spec"]["directors"] = json!([{"nodeName": "a", "priority": configured}, {"nodeName": "b"}]);
        router["spec"]["tracking"] = json!({"nodeConditions": tracked});
        cluster.apply(router);
        let conditions: Vec<(&str, &str)> = types.into_iter().zip(statuses.iter().map(|status| words[*status])).collect();
        cluster.apply(node_a(&conditions));
        cluster.pass();
        let counted: Vec<i32> = deltas
            .iter()
            .zip(&statuses)
            .filter(|(_, status)| **status == 1)
            .map(|(delta, _)| *delta)
            .collect();
        let found = i32::from(priority(&cluster, "a"));
        if counted.contains(&0) {
            prop_assert_eq!(found, 0);
        } else {
            let sum = i32::from(configured) + counted.iter().sum::<i32>();
            prop_assert_eq!(found, sum.max(1));
        }
        prop_assert_eq!(priority(&cluster, "b"), 100, "the conditions of another node");
    }
}
