//! Virtual MACs: a VRID is given once.

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
use support::Cluster;
use support::four_nodes::{cluster, expect_bad, of_router, router};

fn with_id(name: &str, directors: &[&str], id: u8, virtual_mac: &str) -> Value {
    let mut result = router(name, directors);
    result["spec"]["virtualRouterID"] = json!(id);
    result["spec"]["virtualMAC"] = json!(virtual_mac);
    result
}

fn planned(cluster: &Cluster, node: &str, router: &str) -> Option<u8> {
    let plan = cluster.plan(node, router).unwrap();
    let leadership = plan.director.unwrap().leadership.unwrap();
    leadership.virtual_router_id
}

#[test]
fn a_virtual_mac_reaches_every_director_when_it_is_asked_for() {
    let mut cluster = cluster();
    cluster.apply(with_id("edge", &["a", "b"], 51, "Enabled"));
    cluster.apply(with_id("plain", &["a", "b"], 52, "Disabled"));
    cluster.settle();
    for node in ["a", "b"] {
        assert_eq!(planned(&cluster, node, "edge"), Some(51));
        assert_eq!(planned(&cluster, node, "plain"), None);
    }
}

#[test]
fn the_older_router_keeps_the_virtual_mac_and_the_younger_goes_on_without() {
    let mut cluster = cluster();
    cluster.apply(with_id("older", &["a"], 51, "Enabled"));
    // Other directors may well be on the same link.
    cluster.apply(with_id("another", &["b"], 51, "Enabled"));
    cluster.apply(with_id("quiet", &["b"], 51, "Disabled"));
    let resolution = cluster.settle();
    assert_eq!(planned(&cluster, "a", "older"), Some(51));
    assert_eq!(planned(&cluster, "b", "another"), None);
    expect_bad(
        &of_router(&resolution, "another", ConditionType::Accepted),
        Reason::VirtualRouterIDInUse,
        &["51", "older"],
    );
    for fine in ["older", "quiet"] {
        let accepted = of_router(&resolution, fine, ConditionType::Accepted);
        assert_eq!(accepted.truth, Truth::True, "{fine}");
    }
    // The cure.
    cluster.apply(with_id("another", &["b"], 52, "Enabled"));
    let resolution = cluster.settle();
    assert_eq!(planned(&cluster, "b", "another"), Some(52));
    let accepted = of_router(&resolution, "another", ConditionType::Accepted);
    assert_eq!(accepted.truth, Truth::True);
}
