//! What directors are told of leadership: whom they hear, who gives way, to whom the addresses are handed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::LeadershipPlan;
use lvs_plan::input::ObjectKey;
use lvs_plan::resolution::Resolution;
use serde_json::{Value, json};
use support::four_nodes::{cluster, of_router, router};
use support::{Cluster, node};

fn leadership(cluster: &Cluster, node: &str) -> LeadershipPlan {
    let plan = cluster.plan(node, "default").unwrap();
    plan.director.unwrap().leadership.unwrap()
}

fn with_spec(directors: &[&str], field: &str, value: Value) -> Value {
    let mut router = router("default", directors);
    router["spec"][field] = value;
    router
}

/// The Lease of the default router as its holder would have written it.
fn held_by(node: &str) -> Value {
    json!({"kind": "Lease", "metadata": {"name": "lvs-router-default"},
           "spec": {"holderIdentity": format!("{node}/1"), "leaseTransitions": 1, "leaseDurationSeconds": 10}})
}

/// The router as stored, with the status that the pass before reported.
fn stored(mut router: Value, resolution: &Resolution) -> Value {
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "default")];
    router["status"] = serde_json::to_value(&report.status).unwrap();
    router
}

#[test]
fn directors_hear_each_other_at_their_first_internal_address() {
    let mut cluster = cluster();
    cluster.pass();
    let plan = leadership(&cluster, "a").heartbeat.unwrap();
    let peers: Vec<_> = plan
        .peers
        .iter()
        .map(|peer| (peer.node_name.as_str(), peer.address.to_string()))
        .collect();
    assert_eq!(
        peers,
        [
            ("a", "192.168.50.11".to_owned()),
            ("b", "192.168.50.12".to_owned())
        ]
    );
    assert_eq!(
        (
            plan.interval_milliseconds,
            plan.missed,
            plan.challenge_window_milliseconds
        ),
        (150, 3, 200)
    );
    cluster.apply(with_spec(
        &["a", "b"],
        "detection",
        json!({"profile": "Fast"}),
    ));
    cluster.pass();
    let plan = leadership(&cluster, "b").heartbeat.unwrap();
    assert_eq!(
        (
            plan.interval_milliseconds,
            plan.challenge_window_milliseconds
        ),
        (50, 100)
    );
    let custom =
        json!({"profile": "Custom", "heartbeatIntervalMilliseconds": 80, "missedHeartbeats": 5});
    cluster.apply(with_spec(&["a", "b"], "detection", custom));
    cluster.pass();
    let plan = leadership(&cluster, "b").heartbeat.unwrap();
    assert_eq!((plan.interval_milliseconds, plan.missed), (80, 5));
    // One alone has nobody to hear.
    cluster.apply(router("default", &["a"]));
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").heartbeat, None);
}

#[test]
fn a_cordoned_director_gives_way() {
    let mut cluster = cluster();
    let mut cordoned = node("a", "192.168.50.11");
    cordoned["spec"] = json!({"unschedulable": true});
    cluster.apply(cordoned);
    let mut tainted = node("b", "192.168.50.12");
    tainted["spec"] = json!({"taints": [{"key": "example.com/any", "effect": "NoExecute"}]});
    cluster.apply(tainted);
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").priority, 0);
    assert_eq!(
        leadership(&cluster, "b").priority,
        100,
        "any other taint is none of ours"
    );
    cluster.acknowledge_all();
    let resolution = cluster.pass();
    let status = &resolution.report.virtual_routers[&ObjectKey::new("", "default")].status;
    assert_eq!(status.candidates[0].reason.as_deref(), Some("Cordoned"));
    assert_eq!(status.candidates[0].priority, 100, "what spec says");
    cluster.apply(node("a", "192.168.50.11"));
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").priority, 100);
}

#[test]
fn preemption_is_off_unless_it_is_enabled() {
    let mut cluster = cluster();
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").preemption_delay_seconds, None);
    let enabled = json!({"mode": "Enabled", "delaySeconds": 7});
    cluster.apply(with_spec(&["a", "b"], "preemption", enabled));
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").preemption_delay_seconds, Some(7));
}

#[test]
fn a_hand_over_is_asked_for_until_it_has_happened_and_not_again() {
    let mut cluster = cluster();
    let wanting = |name: &str| {
        let mut router = router("default", &["a", "b"]);
        router["metadata"]["annotations"]["lvs.dev/hand-over-to"] = json!(name);
        router
    };
    cluster.apply(held_by("a"));
    cluster.apply(wanting("b"));
    let resolution = cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to.as_deref(), Some("b"));
    assert_eq!(leadership(&cluster, "b").hand_over_to.as_deref(), Some("b"));
    // The holder is still a: nothing was carried out.
    cluster.apply(stored(wanting("b"), &resolution));
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to.as_deref(), Some("b"));
    cluster.apply(held_by("b"));
    let resolution = cluster.pass();
    cluster.apply(stored(wanting("b"), &resolution));
    let resolution = cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to, None);
    // Later b fails, and a takes over: the annotation was of its time.
    cluster.apply(held_by("a"));
    cluster.apply(stored(wanting("b"), &resolution));
    let resolution = cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to, None);
    // Another wish is a new one, and so is the old one after it was taken back.
    cluster.apply(stored(router("default", &["a", "b"]), &resolution));
    let resolution = cluster.pass();
    cluster.apply(stored(wanting("b"), &resolution));
    cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to.as_deref(), Some("b"));
}

#[test]
fn a_hand_over_to_nobody_says_who_could() {
    let mut cluster = cluster();
    let mut wanting = router("default", &["a", "b"]);
    wanting["metadata"]["annotations"]["lvs.dev/hand-over-to"] = json!("c");
    cluster.apply(wanting);
    let resolution = cluster.pass();
    assert_eq!(leadership(&cluster, "a").hand_over_to, None);
    let verdict = of_router(&resolution, "default", ConditionType::Accepted);
    assert_eq!(verdict.reason, Reason::NodeNotFound);
    assert!(
        verdict.message.contains("its directors are a, b"),
        "{}",
        verdict.message
    );
}
