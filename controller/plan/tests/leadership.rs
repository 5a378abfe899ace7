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
use lvs_crds::virtual_router::CandidateState;
use lvs_plan::input::ObjectKey;
use lvs_plan::resolution::Resolution;
use serde_json::{Value, json};
use support::four_nodes::{cluster, of_router, router};
use support::{Cluster, is_quiet, node};

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

/// A router of these directors whose heartbeats go over the interface `inside`.
fn inside(directors: &[&str], devices: &[&str]) -> Value {
    let mut router = with_spec(directors, "detection", json!({"interfaceName": "inside"}));
    router["spec"]["interfaces"] =
        json!([{"name": "outside", "devices": ["eth0"]}, {"name": "inside", "devices": devices}]);
    router
}

/// Node and address of each peer, which every director of the router must be told alike.
fn peers(cluster: &Cluster, directors: &[&str]) -> Vec<(String, String)> {
    let told = directors.iter().map(|director| {
        let plan = leadership(cluster, director).heartbeat.unwrap();
        let peers = plan.peers.iter();
        peers
            .map(|peer| (peer.node_name.clone(), peer.address.to_string()))
            .collect()
    });
    let told: Vec<Vec<(String, String)>> = told.collect();
    assert!(told.iter().all(|peers| *peers == told[0]), "{told:#?}");
    told.into_iter().next().unwrap()
}

fn peer_at(node: &str, address: &str) -> (String, String) {
    (node.to_owned(), address.to_owned())
}

#[test]
fn directors_hear_each_other_over_the_named_interface_once_their_addresses_are_reported() {
    let mut cluster = cluster();
    cluster.apply(inside(&["a", "b"], &["eth1", "ens4"]));
    cluster.pass();
    let plan = leadership(&cluster, "a").heartbeat.unwrap();
    assert_eq!(plan.devices, ["eth1", "ens4"]);
    assert_eq!(peers(&cluster, &["a", "b"]), [], "not at their InternalIPs");
    cluster.acknowledge_all();
    cluster.report_heartbeat("a", "default", &["eth1", "ens4"], &["10.1.0.1", "fd00::1"]);
    cluster.pass();
    assert_eq!(peers(&cluster, &["a", "b"]), [peer_at("a", "10.1.0.1")]);
    cluster.report_heartbeat("b", "default", &["eth1", "ens4"], &["10.1.0.2"]);
    cluster.pass();
    let both = [peer_at("a", "10.1.0.1"), peer_at("b", "10.1.0.2")];
    assert_eq!(peers(&cluster, &["a", "b"]), both);
    // What is planned does not hang on its own acknowledgement, or it would come and go for ever.
    assert!(is_quiet(&cluster.pass()));
    // An address on other devices is none on these.
    cluster.apply(inside(&["a", "b"], &["eth2"]));
    cluster.pass();
    assert_eq!(peers(&cluster, &["a", "b"]), []);
    // The interface is named no more.
    cluster.apply(router("default", &["a", "b"]));
    cluster.pass();
    let by_node = [peer_at("a", "192.168.50.11"), peer_at("b", "192.168.50.12")];
    assert_eq!(peers(&cluster, &["a", "b"]), by_node);
}

#[test]
fn heartbeats_have_one_family_that_most_directors_have() {
    let mut cluster = cluster();
    let directors = ["a", "b", "c"];
    cluster.apply(inside(&directors, &["eth1"]));
    cluster.pass();
    let mut report = |node: &str, addresses: &[&str]| {
        cluster.report_heartbeat(node, "default", &["eth1"], addresses);
        cluster.pass();
        peers(&cluster, &directors)
    };
    assert_eq!(report("a", &["fd00::1"]), [peer_at("a", "fd00::1")]);
    assert_eq!(
        report("b", &["10.1.0.2", "fd00::2"]),
        [peer_at("a", "fd00::1"), peer_at("b", "fd00::2")]
    );
    assert_eq!(
        report("c", &["10.1.0.3"]),
        [peer_at("b", "10.1.0.2"), peer_at("c", "10.1.0.3")],
        "as many have the one as the other"
    );
    assert_eq!(
        report("a", &["10.1.0.1", "fd00::1"]),
        [
            peer_at("a", "10.1.0.1"),
            peer_at("b", "10.1.0.2"),
            peer_at("c", "10.1.0.3")
        ]
    );
}

#[test]
fn a_director_without_an_address_for_heartbeats_says_so_and_stays_a_candidate() {
    let mut cluster = cluster();
    cluster.apply(held_by("a"));
    cluster.apply(inside(&["a", "b"], &["eth1"]));
    cluster.pass();
    cluster.acknowledge_all();
    let seen = |resolution: &Resolution, index: usize| {
        let status = &resolution.report.virtual_routers[&ObjectKey::new("", "default")].status;
        assert_eq!(status.summary.candidates, "2/2");
        let candidate = &status.candidates[index];
        let message = candidate.message.clone().unwrap_or_default();
        (candidate.reason.clone().unwrap_or_default(), message)
    };
    let resolution = cluster.pass();
    for index in [0, 1] {
        let (reason, message) = seen(&resolution, index);
        assert_eq!(reason, "HeartbeatAddressUnknown");
        assert!(message.contains("has not reported yet") && message.contains("inside (eth1)"));
    }
    cluster.report_heartbeat("a", "default", &["eth1"], &["10.1.0.1"]);
    cluster.report_heartbeat("b", "default", &["eth1"], &[]);
    cluster.pass();
    cluster.acknowledge_all();
    cluster.report_heartbeat("a", "default", &["eth1"], &["10.1.0.1"]);
    cluster.report_heartbeat("b", "default", &["eth1"], &[]);
    let resolution = cluster.pass();
    assert_eq!(seen(&resolution, 0).0, "");
    assert!(
        seen(&resolution, 1)
            .1
            .contains("no global address on interface inside")
    );
    cluster.report_heartbeat("b", "default", &["eth1"], &["fd00::2"]);
    let resolution = cluster.pass();
    assert!(
        seen(&resolution, 1)
            .1
            .contains("of the family that the other directors have")
    );
}

#[test]
fn a_director_whose_agent_would_need_its_own_address_is_no_candidate() {
    let mut cluster = cluster();
    cluster.pass();
    cluster.acknowledge_all();
    cluster.fail("b", "default", "ApiEndpointIsOwnVip");
    let resolution = cluster.pass();
    let status = &resolution.report.virtual_routers[&ObjectKey::new("", "default")].status;
    assert_eq!(status.candidates[1].state, CandidateState::Fault);
    assert_eq!(
        status.candidates[1].reason.as_deref(),
        Some("ApiEndpointIsOwnVip")
    );
    assert_eq!(status.summary.candidates, "1/2");
    let verdict = of_router(&resolution, "default", ConditionType::Programmed);
    assert_eq!(verdict.reason, Reason::ApiEndpointIsOwnVip);
}
