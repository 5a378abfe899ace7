//! Four nodes, a default router, and short words for objects and what was said of them.

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::Candidacy;
use lvs_plan::input::ObjectKey;
use lvs_plan::report::{Truth, Verdict};
use lvs_plan::resolution::Resolution;
use serde_json::{Value, json};

use super::{Cluster, node};

/// Four nodes and a default router that all direct and that grants everything.
pub fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (index, name) in ["a", "b", "c", "d"].iter().enumerate() {
        cluster.apply(node(name, &format!("192.168.50.{}", 11 + index)));
    }
    cluster.apply(router("default", &["a", "b"]));
    cluster
}

/// A router that grants everything, the default one when it is named so.
pub fn router(name: &str, directors: &[&str]) -> Value {
    let directors: Vec<Value> = directors
        .iter()
        .map(|name| json!({"nodeName": name}))
        .collect();
    json!({"kind": "VirtualRouter",
           "metadata": {"name": name, "annotations": {"lvs.dev/is-default-router": if name == "default" { "true" } else { "false" }}},
           "spec": {"directors": directors,
                    "addressPools": [{"name": "public", "addresses": ["172.25.0.0/24", "2001:db8::/64"]}],
                    "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"],
                                "realServerCIDRs": ["10.0.0.0/8"], "realServerNodes": "All"}]}})
}

/// A direct-routing VirtualService on 172.25.0.100:80 that selects everything; `more` replaces fields of its spec.
pub fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"addresses": ["172.25.0.100"], "ports": [{"port": 80}], "forwarding": {"type": "DR"},
                          "realServerSelector": {}});
    merge(&mut spec, more);
    json!({"kind": "VirtualService", "metadata": {"name": name}, "spec": spec})
}

/// A RealServer on a node.
pub fn on_node(name: &str, node: &str, more: Value) -> Value {
    let mut spec = json!({"target": {"type": "Node", "node": {"name": node}}});
    merge(&mut spec, more);
    json!({"kind": "RealServer", "metadata": {"name": name}, "spec": spec})
}

/// A RealServer at an address.
pub fn at(name: &str, address: &str, more: Value) -> Value {
    let mut spec = json!({"target": {"type": "Addresses", "addresses": [address]}});
    merge(&mut spec, more);
    json!({"kind": "RealServer", "metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        into.as_object_mut().unwrap().extend(more);
    }
}

fn find(verdicts: &[Verdict], condition: ConditionType) -> Verdict {
    verdicts
        .iter()
        .find(|verdict| verdict.condition == condition)
        .unwrap()
        .clone()
}

/// A condition of a VirtualService.
pub fn of_service(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.virtual_services[&ObjectKey::new("default", name)].verdicts,
        condition,
    )
}

/// A condition of a RealServer.
pub fn of_real_server(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.real_servers[&ObjectKey::new("default", name)].verdicts,
        condition,
    )
}

/// A condition of a VirtualRouter.
pub fn of_router(resolution: &Resolution, name: &str, condition: ConditionType) -> Verdict {
    find(
        &resolution.report.virtual_routers[&ObjectKey::new("", name)].verdicts,
        condition,
    )
}

/// Whether a node may become master of the default router.
pub fn candidacy(cluster: &Cluster, node: &str) -> Candidacy {
    let plan = cluster.plan(node, "default").unwrap();
    plan.director.unwrap().leadership.unwrap().candidacy
}

/// `False`, with this reason and a message with these words.
pub fn expect_bad(verdict: &Verdict, reason: Reason, words: &[&str]) {
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::False, reason),
        "{}",
        verdict.message
    );
    for word in words {
        assert!(
            verdict.message.contains(word),
            "{word:?} is not in {:?}",
            verdict.message
        );
    }
}
