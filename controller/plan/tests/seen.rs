//! What people see of leadership: who hears the holder, what happened to whom, each once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::sync::Arc;

use lvs_crds::VirtualRouterStatus;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::NodePlanStatus;
use lvs_crds::transition::Transition;
use lvs_crds::virtual_router::{Candidate, CandidateState};
use lvs_plan::input::ObjectKey;
use lvs_plan::report::Truth;
use lvs_plan::resolution::Resolution;
use lvs_plan::status::leadership::{News, news};
use proptest::prelude::*;
use serde_json::json;
use support::Cluster;
use support::four_nodes::{cluster, expect_bad, of_router, router};

fn transition(reason: &str, epoch: i64, peer: Option<&str>) -> Transition {
    let mut value = json!({"reason": reason, "epoch": epoch, "message": "it says why",
                           "time": "2026-01-01T00:00:00Z"});
    if let Some(peer) = peer {
        value["peerNodeName"] = json!(peer);
    }
    serde_json::from_value(value).unwrap()
}

/// The agent of a node changes what it reports of its plan of the default router.
fn report(cluster: &mut Cluster, node: &str, change: impl FnOnce(&mut NodePlanStatus)) {
    let plans = cluster.inputs.node_plans.values_mut();
    let plan = plans
        .into_iter()
        .find(|plan| {
            let spec = plan.object.spec().unwrap();
            spec.node_name == node && spec.source.name == "default"
        })
        .unwrap();
    let status = &mut Arc::make_mut(plan).object.status;
    change(status.get_or_insert_default());
}

/// The status of the default router, stored as the controller would store it.
fn stored(cluster: &mut Cluster, resolution: &Resolution) -> VirtualRouterStatus {
    let status = resolution.report.virtual_routers[&ObjectKey::new("", "default")]
        .status
        .clone();
    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    Arc::make_mut(router).status = Some(status.clone());
    status
}

fn candidate<'a>(status: &'a VirtualRouterStatus, node: &str) -> &'a Candidate {
    let mut candidates = status.candidates.iter();
    candidates
        .find(|candidate| candidate.node_name == node)
        .unwrap()
}

fn words(news: &[News]) -> Vec<(Reason, &str)> {
    news.iter()
        .map(|news| (news.reason, news.note.as_str()))
        .collect()
}

#[test]
fn a_transition_is_told_once_and_each_with_its_facts() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.elect("default", "a");
    let resolution = cluster.settle();
    let before = stored(&mut cluster, &resolution);
    assert_eq!(candidate(&before, "a").last_transition, None);

    // The agent of the first holder reports.
    report(&mut cluster, "a", |status| {
        status.last_transition = Some(transition("BecameMaster", 1, None));
    });
    let resolution = cluster.pass();
    let first = stored(&mut cluster, &resolution);
    assert_eq!(
        words(&news(&before, &first)),
        [(
            Reason::BecameMaster,
            "a became master in epoch 1: it says why"
        )]
    );
    let resolution = cluster.pass();
    let again = stored(&mut cluster, &resolution);
    assert!(news(&first, &again).is_empty());

    // A handover is reported by both, in whatever order; here at once.
    cluster.elect("default", "b");
    report(&mut cluster, "b", |status| {
        status.last_transition = Some(transition("BecameMaster", 2, Some("a")));
    });
    report(&mut cluster, "a", |status| {
        status.last_transition = Some(transition("HandedOver", 2, Some("b")));
    });
    let resolution = cluster.pass();
    let second = stored(&mut cluster, &resolution);
    let told = news(&again, &second);
    assert_eq!(
        words(&told),
        [
            (
                Reason::HandedOver,
                "a handed over to b in epoch 2: it says why"
            ),
            (
                Reason::BecameMaster,
                "b took over from a in epoch 2: it says why"
            ),
        ]
    );
    assert_eq!(
        told.iter()
            .map(|news| news.node_name.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(told.iter().all(|news| !news.is_warning));
    assert_eq!(second.master.as_ref().unwrap().node_name, "b");

    // One that stood still reports late that it gave up; somebody should look after it.
    report(&mut cluster, "b", |status| {
        status.last_transition = Some(transition("Fenced", 2, Some("a")));
    });
    let resolution = cluster.pass();
    let third = stored(&mut cluster, &resolution);
    let told = news(&second, &third);
    assert_eq!(
        words(&told),
        [(
            Reason::Fenced,
            "b gave up the addresses of epoch 2: it says why"
        )]
    );
    assert!(told[0].is_warning);
}

#[test]
fn what_is_known_of_a_director_outlives_its_plan() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.elect("default", "a");
    cluster.settle();
    let taken = transition("BecameMaster", 1, None);
    report(&mut cluster, "a", |status| {
        status.last_transition = Some(taken.clone());
    });
    let resolution = cluster.pass();
    let before = stored(&mut cluster, &resolution);
    report(&mut cluster, "a", |status| status.last_transition = None);
    let resolution = cluster.pass();
    let after = stored(&mut cluster, &resolution);
    assert_eq!(candidate(&after, "a").last_transition, Some(taken.clone()));
    // And the agent's repetition is no news.
    report(&mut cluster, "a", |status| {
        status.last_transition = Some(taken);
    });
    let resolution = cluster.pass();
    assert!(news(&before, &after).is_empty());
    let last = stored(&mut cluster, &resolution);
    assert!(news(&after, &last).is_empty());
}

#[test]
fn a_director_that_does_not_hear_the_holder_is_named_while_that_is_so() {
    let mut cluster = cluster();
    let resolution = cluster.settle();
    let nobody = of_router(&resolution, "default", ConditionType::HeartbeatsHeard);
    assert_eq!(
        (nobody.truth, nobody.reason),
        (Truth::Unknown, Reason::Pending)
    );
    cluster.elect("default", "a");
    let resolution = cluster.settle();
    let heard = of_router(&resolution, "default", ConditionType::HeartbeatsHeard);
    assert_eq!(
        (heard.truth, heard.reason),
        (Truth::True, Reason::HeartbeatsHeard)
    );
    let ready = of_router(&resolution, "default", ConditionType::Ready);
    assert_eq!((ready.truth, ready.reason), (Truth::True, Reason::Ready));

    report(&mut cluster, "b", |status| {
        status.heartbeat_lost_from = Some("a".to_owned());
    });
    let resolution = cluster.pass();
    let lost = of_router(&resolution, "default", ConditionType::HeartbeatsHeard);
    expect_bad(&lost, Reason::HeartbeatLost, &["b does not hear a"]);
    // It is served, but not as well as it should be.
    let ready = of_router(&resolution, "default", ConditionType::Ready);
    assert_eq!(
        (ready.truth, ready.reason),
        (Truth::True, Reason::HeartbeatLost)
    );
    let status = stored(&mut cluster, &resolution);
    let deaf = candidate(&status, "b");
    assert_eq!(deaf.state, CandidateState::Backup);
    assert_eq!(deaf.reason.as_deref(), Some("HeartbeatLost"));
    assert!(
        deaf.message
            .as_ref()
            .unwrap()
            .starts_with("b does not hear a")
    );
    assert_eq!(candidate(&status, "a").reason, None);
    assert_eq!(status.summary.candidates, "2/2");

    // What it said of another holder is out of date.
    cluster.elect("default", "b");
    let resolution = cluster.pass();
    let heard = of_router(&resolution, "default", ConditionType::HeartbeatsHeard);
    assert_eq!(heard.truth, Truth::True);
    cluster.elect("default", "a");
    report(&mut cluster, "b", |status| {
        status.heartbeat_lost_from = None;
    });
    let resolution = cluster.pass();
    let heard = of_router(&resolution, "default", ConditionType::HeartbeatsHeard);
    assert_eq!(heard.truth, Truth::True);
}

#[test]
fn a_sole_director_has_nobody_to_hear() {
    let mut cluster = cluster();
    cluster.apply(router("default", &["a"]));
    let resolution = cluster.settle();
    let report = &resolution.report.virtual_routers[&ObjectKey::new("", "default")];
    assert!(
        report
            .verdicts
            .iter()
            .all(|verdict| verdict.condition != ConditionType::HeartbeatsHeard)
    );
}

fn status(transitions: &[Option<Transition>]) -> VirtualRouterStatus {
    let candidates = transitions.iter().enumerate().map(|(index, transition)| {
        let name = format!("lb-{index}");
        let mut candidate: Candidate =
            serde_json::from_value(json!({"nodeName": name, "priority": 100, "state": "Backup"}))
                .unwrap();
        candidate.last_transition.clone_from(transition);
        candidate
    });
    VirtualRouterStatus {
        candidates: candidates.collect(),
        ..VirtualRouterStatus::default()
    }
}

#[test]
fn a_director_that_comes_back_with_a_plan_of_long_ago_is_no_news() {
    let newest = transition("BecameMaster", 9, None);
    let before = status(&[Some(newest.clone()), None]);
    let old = transition("HandedOver", 3, Some("lb-0"));
    assert!(news(&before, &status(&[Some(newest.clone()), Some(old)])).is_empty());
    let new = transition("BecameMaster", 10, Some("lb-0"));
    assert_eq!(news(&before, &status(&[Some(newest), Some(new)])).len(), 1);
}

proptest! {
    /// Whatever is reported in whatever steps, every transition that a stored status shows was told exactly once, and what
    /// is stored tells nothing anew.
    #[test]
    fn each_transition_is_told_exactly_once(
        steps in proptest::collection::vec((0_usize..3, 0_usize..3), 1..40),
    ) {
        let mut stored = status(&[None, None, None]);
        let mut told = Vec::new();
        let mut reported = 0;
        for (epoch, (node, kind)) in (1..).zip(steps) {
            let mut transitions: Vec<_> = stored
                .candidates
                .iter()
                .map(|candidate| candidate.last_transition.clone())
                .collect();
            let kind = ["BecameMaster", "HandedOver", "Fenced"][kind];
            transitions[node] = Some(transition(kind, epoch, None));
            reported += 1;
            let next = status(&transitions);
            told.extend(news(&stored, &next));
            prop_assert!(news(&next, &next).is_empty());
            stored = next;
        }
        prop_assert_eq!(told.len(), reported);
        let notes: std::collections::BTreeSet<_> = told.into_iter().map(|news| news.note).collect();
        prop_assert_eq!(notes.len(), reported);
    }
}
