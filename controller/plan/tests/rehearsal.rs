//! What a cluster comes to: the laws of rehearsals.

#![allow(
    clippy::disallowed_methods,
    reason = "a test may read files and its environment"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::path::Path;

use lvs_crds::node_plan::{NodePlanSpec, PlanState};
use lvs_plan::rehearsal::{Rehearsal, rehearse};
use serde_json::json;
use support::Cluster;

fn golden(case: &str) -> Cluster {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    Cluster::from_yaml(&std::fs::read_to_string(folder.join(case).join("input.yaml")).unwrap())
}

fn specs(rehearsal: &Rehearsal) -> Vec<&NodePlanSpec> {
    let plans = rehearsal.inputs.node_plans.values();
    plans.filter_map(|plan| plan.object.spec()).collect()
}

fn rehearsed(cluster: &Cluster) -> Rehearsal {
    let rehearsal = rehearse(cluster.inputs.clone());
    assert!(rehearsal.findings.is_empty(), "{:#?}", rehearsal.findings);
    assert!(rehearsal.is_settled);
    rehearsal
}

#[test]
fn what_has_come_to_rest_stays_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().file_name().into_string().unwrap();
        let first = rehearsed(&golden(&case));
        let again = rehearse(first.inputs.clone());
        assert_eq!(again.inputs.node_plans, first.inputs.node_plans, "{case}");
        assert_eq!(again.inputs.leases, first.inputs.leases, "{case}");
        assert_eq!(again.resolution.report, first.resolution.report, "{case}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn it_is_where_passes_and_answers_lead() {
    let mut cluster = golden("s3-direct-routing");
    let rehearsal = rehearsed(&cluster);
    cluster.settle();
    let stored = cluster.stored();
    let mut reached: Vec<_> = specs(&rehearsal);
    let mut stored: Vec<_> = stored.values().collect();
    let key = |spec: &&NodePlanSpec| (spec.source.uid.clone(), spec.node_name.clone());
    reached.sort_by_key(key);
    stored.sort_by_key(key);
    assert_eq!(reached, stored);
}

#[test]
fn the_director_with_the_highest_priority_gets_the_lease_and_keeps_it() {
    let mut cluster = golden("s3-direct-routing");
    let holder = |rehearsal: &Rehearsal| {
        let lease = &rehearsal.inputs.leases[&lvs_crds::lease_name("default")];
        lease.holder_node.clone()
    };
    let first = rehearsed(&cluster);
    assert_eq!(holder(&first).as_deref(), Some("lb-a"));

    // Somebody better comes: who holds it is not disturbed.
    cluster.inputs = first.inputs;
    cluster.apply(json!({"kind": "VirtualRouter",
        "metadata": {"name": "default", "annotations": {"lvs.dev/is-default-router": "true"}},
        "spec": {"directors": [{"nodeName": "lb-a", "priority": 50}, {"nodeName": "lb-b", "priority": 80}],
                 "addressPools": [{"name": "public", "addresses": ["172.25.0.0/24"]}],
                 "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"], "realServerNodes": "All"}]}}));
    let second = rehearsed(&cluster);
    assert_eq!(holder(&second).as_deref(), Some("lb-a"));

    // He is no director any more: the other has it, and nothing of the router is left with him.
    cluster.inputs = second.inputs;
    cluster.apply(json!({"kind": "VirtualRouter",
        "metadata": {"name": "default", "annotations": {"lvs.dev/is-default-router": "true"}},
        "spec": {"directors": [{"nodeName": "lb-b", "priority": 80}],
                 "addressPools": [{"name": "public", "addresses": ["172.25.0.0/24"]}],
                 "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"], "realServerNodes": "All"}]}}));
    let third = rehearsed(&cluster);
    assert_eq!(holder(&third).as_deref(), Some("lb-b"));
    let left = specs(&third).into_iter().filter(|spec| {
        spec.node_name == "lb-a" && spec.director.is_some() && spec.state != PlanState::Withdrawn
    });
    assert_eq!(left.count(), 0);
}
