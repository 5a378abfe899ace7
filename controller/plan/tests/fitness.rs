//! Directors that cannot hold every address: what they are told to watch, and what is told of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::LeadershipPlan;
use lvs_crds::virtual_router::{Candidate, CandidateState};
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use lvs_plan::resolution::Resolution;
use serde_json::json;
use support::Cluster;
use support::four_nodes::{cluster, expect_bad, of_router, router, service};

fn leadership(cluster: &Cluster, node: &str, router: &str) -> LeadershipPlan {
    let plan = cluster.plan(node, router).unwrap();
    plan.director.unwrap().leadership.unwrap()
}

fn candidate(resolution: &Resolution, router: &str, node: &str) -> Candidate {
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", router)];
    let mut candidates = report.status.candidates.iter();
    candidates
        .find(|candidate| candidate.node_name == node)
        .unwrap()
        .clone()
}

#[test]
fn tracked_interfaces_reach_every_director_with_their_devices() {
    let mut cluster = cluster();
    let mut edge = router("edge", &["a", "b"]);
    edge["spec"]["interfaces"] = json!([{"name": "uplink", "devices": ["eth0", "ens3"]}]);
    edge["spec"]["tracking"] =
        json!({"interfaces": [{"interfaceName": "uplink", "priorityDelta": -20}]});
    cluster.apply(edge);
    cluster.settle();
    for node in ["a", "b"] {
        let tracked = leadership(&cluster, node, "edge").tracked_interfaces;
        assert_eq!(tracked.len(), 1);
        assert_eq!(tracked[0].devices, ["eth0", "ens3"]);
        assert_eq!(tracked[0].priority_delta, -20);
    }
}

#[test]
fn a_tracked_interface_that_is_not_declared_freezes_the_router() {
    let mut cluster = cluster();
    let mut edge = router("edge", &["a"]);
    edge["spec"]["tracking"] = json!({"interfaces": [{"interfaceName": "uplink"}]});
    cluster.apply(edge);
    expect_bad(
        &of_router(&cluster.settle(), "edge", ConditionType::Accepted),
        Reason::Invalid,
        &["uplink", "spec.interfaces"],
    );
}

#[test]
fn a_director_with_a_fault_is_shown_as_such_and_the_router_goes_on() {
    let mut cluster = cluster();
    cluster.apply(router("edge", &["a", "b"]));
    cluster.settle();
    cluster.elect("edge", "a");
    cluster.settle();
    cluster.fail("b", "edge", "LinkDown");
    let resolution = cluster.pass();
    let standby = candidate(&resolution, "edge", "b");
    assert_eq!(standby.state, CandidateState::Fault);
    assert_eq!(standby.reason.as_deref(), Some("LinkDown"));
    let ready = of_router(&resolution, "edge", ConditionType::Ready);
    assert_eq!(
        (ready.truth, ready.reason),
        (Truth::True, Reason::PartiallyReady)
    );

    // A holder with a fault that nobody relieves still holds, and is not counted as ready.
    cluster.fail("a", "edge", "LinkDown");
    let resolution = cluster.pass();
    let holder = candidate(&resolution, "edge", "a");
    assert_eq!(holder.state, CandidateState::Master);
    assert_eq!(holder.reason.as_deref(), Some("LinkDown"));
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "edge")];
    assert_eq!(report.status.summary.candidates, "0/2");
    expect_bad(
        &of_router(&resolution, "edge", ConditionType::Ready),
        Reason::LinkDown,
        &["node a"],
    );
}

#[test]
fn a_failure_that_is_no_fault_leaves_the_candidate_unknown() {
    let mut cluster = cluster();
    cluster.apply(router("edge", &["a", "b"]));
    cluster.settle();
    cluster.fail("b", "edge", "KernelError");
    let standby = candidate(&cluster.pass(), "edge", "b");
    assert_eq!(standby.state, CandidateState::Unknown);
}

#[test]
fn an_address_that_no_director_can_hold_is_set_aside_until_one_can() {
    let mut cluster = cluster();
    let mut edge = router("edge", &["a", "b"]);
    edge["spec"]["addressPools"] = json!([{"name": "lost", "addresses": ["203.0.113.1"]}]);
    edge["spec"]["additionalAddresses"] = json!([{"address": "203.0.113.9"}]);
    edge["spec"]["grants"] = json!([{"namespaces": {"from": "All"}, "addressPoolNames": ["lost"], "realServerNodes": "All"}]);
    cluster.apply(edge);
    let spec = json!({"virtualRouterName": "edge", "addresses": ["203.0.113.1"]});
    cluster.apply(service("web", spec));
    cluster.settle();
    let nothing: [Vec<IpAddr>; 2] = [vec![], vec![]];
    let set_aside = |cluster: &Cluster| {
        ["a", "b"].map(|node| leadership(cluster, node, "edge").addresses_set_aside)
    };
    assert_eq!(set_aside(&cluster), nothing);
    // One of them: it is that node's fault.
    cluster.report_unavailable("a", "web");
    cluster.pass();
    assert_eq!(set_aside(&cluster), nothing);
    // Every one of them: it would stop the whole router.
    cluster.report_unavailable("b", "web");
    cluster.pass();
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    assert_eq!(set_aside(&cluster), [vec![address], vec![address]]);
    // The router's own are its administrator's word: never.
    for node in ["a", "b"] {
        cluster.report_unavailable(node, "edge");
    }
    cluster.pass();
    assert_eq!(set_aside(&cluster), [vec![address], vec![address]]);
    cluster.acknowledge("b");
    cluster.pass();
    assert_eq!(set_aside(&cluster), nothing);
}
