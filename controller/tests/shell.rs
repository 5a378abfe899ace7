//! The shell against an API service that is played: what is sent, what is not, and what follows from an answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

#[path = "shell/dns_names.rs"]
mod dns_names;
#[path = "shell/endpoint_slices.rs"]
mod endpoint_slices;
#[path = "shell/leadership.rs"]
mod leadership;
#[path = "shell/real_servers.rs"]
mod real_servers;
#[path = "shell/scene.rs"]
mod scene;
#[path = "shell/stage.rs"]
mod stage;
#[path = "shell/traces.rs"]
mod traces;

use std::time::Duration;

use http::{Method, StatusCode};
use lvs_controller::apply::Backoff;
use lvs_controller::leadership::Candidate;
use lvs_controller::metrics::Outcome as WriteOutcome;
use lvs_controller::reconcile::Outcome;
use lvs_controller::status::StatusWriter;
use lvs_core::election::Identity;
use lvs_plan::input::{ObjectKey, decode, decode_plan};
use scene::{Scene, put, virtual_router, virtual_service};
use serde_json::{Value, json};
use stage::Stage;
use tokio::sync::watch;
use tokio::time::Instant;

#[tokio::test]
async fn nothing_is_written_before_every_kind_was_listed() {
    let mut scene = Scene::without_stores();
    scene.pass().await;
    assert!(scene.stage.take("").is_empty());
    assert!(scene.outcomes.borrow().is_none());
}

#[tokio::test]
async fn leases_come_before_plans_and_what_is_unchanged_is_never_written_again() {
    let mut scene = Scene::new();
    scene.pass().await;
    let all = scene.stage.sent.lock().unwrap().clone();
    let plans: Vec<_> = all
        .iter()
        .filter(|sent| sent.path.contains("/nodeplans/"))
        .collect();
    assert_eq!(
        plans.len(),
        4,
        "two directors, a router and a VirtualService"
    );
    assert!(
        all[0].path.ends_with("/leases/lvs-router-default"),
        "{}",
        all[0].path
    );
    for plan in plans {
        assert_eq!(plan.method, Method::PATCH);
        assert_eq!(
            plan.body["metadata"]["resourceVersion"],
            Value::Null,
            "it is created"
        );
        assert_eq!(plan.body["metadata"]["ownerReferences"][0]["kind"], "Node");
    }
    scene.watch_leases();
    scene.stage.take("");
    scene.pass().await;
    assert!(
        scene.stage.take("").is_empty(),
        "the second pass finds nothing to do"
    );
}

#[tokio::test]
async fn a_conflict_is_planned_again_from_the_new_version() {
    let mut scene = Scene::new();
    scene.pass().await;
    scene.watch_leases();
    scene.stage.take("");

    // The VirtualService changes; an agent's status has moved the version of every plan.
    put(
        &mut scene.world.lock().virtual_services,
        "shop",
        "web",
        "2",
        decode(&virtual_service("mh")).unwrap(),
    );
    scene.stage.refuse(|sent| {
        sent.path
            .contains("/nodeplans/")
            .then_some(StatusCode::CONFLICT)
    });
    scene.pass().await;
    let refused = scene.stage.take("/nodeplans/");
    assert_eq!(refused.len(), 2);
    assert_eq!(scene.metrics.writes("NodePlan", WriteOutcome::Conflict), 2);
    assert!(scene.backoff.next().is_some(), "they are tried again");

    // The delay is short enough to pass by itself: as though the conflicts came a minute from now.
    for sent in &refused {
        let name = sent.body["metadata"]["name"].as_str().unwrap();
        let later = Instant::now() + Duration::from_mins(1);
        scene.backoff.note(name, WriteOutcome::Conflict, later);
    }
    scene.pass().await;
    assert!(
        scene.stage.take("/nodeplans/").is_empty(),
        "not before its delay has passed"
    );

    for sent in &refused {
        let name = sent.body["metadata"]["name"].as_str().unwrap();
        let mut world = scene.world.lock();
        let known = world
            .node_plans
            .get(&ObjectKey::new("lvs-system", name))
            .unwrap()
            .clone();
        let mut moved = known.object.as_ref().clone();
        moved.resource_version = "5000".to_owned();
        put(&mut world.node_plans, "lvs-system", name, "5000", moved);
    }
    scene.stage.accept();
    scene.backoff = Backoff::default();
    scene.pass().await;
    let written = scene.stage.take("/nodeplans/");
    assert_eq!(written.len(), 2);
    for sent in written {
        assert_eq!(sent.body["metadata"]["resourceVersion"], "5000");
        assert_eq!(
            sent.body["spec"]["director"]["services"][0]["scheduler"]["name"],
            "mh"
        );
    }
}

#[tokio::test]
async fn a_write_that_fails_does_not_hold_up_the_others() {
    let mut scene = Scene::new();
    let mut first = None;
    scene.stage.refuse(move |sent| {
        let is_plan = sent.path.contains("/nodeplans/");
        let name = first.get_or_insert_with(|| sent.path.clone());
        if !is_plan {
            first = None;
            return None;
        }
        (*name == sent.path).then_some(StatusCode::INTERNAL_SERVER_ERROR)
    });
    scene.pass().await;
    assert_eq!(scene.metrics.writes("NodePlan", WriteOutcome::Failed), 1);
    assert_eq!(scene.metrics.writes("NodePlan", WriteOutcome::Written), 3);
    assert!(scene.backoff.next().is_some(), "it is tried again");
}

#[tokio::test]
async fn an_undecodable_virtual_service_freezes_its_plans_and_says_so() {
    let mut scene = Scene::new();
    scene.pass().await;
    scene.report().await;
    scene.watch_leases();
    scene.stage.take("");
    put(
        &mut scene.world.lock().virtual_services,
        "shop",
        "web",
        "9",
        decode(&virtual_service("quantum")).unwrap(),
    );
    scene.pass().await;
    assert!(scene.stage.take("/nodeplans/").is_empty());
    scene.report().await;
    let written = scene.stage.take("/virtualservices/web/status");
    assert_eq!(written.len(), 1);
    let accepted = &written[0].body["status"]["conditions"][0];
    assert_eq!(
        (&accepted["reason"], &accepted["status"]),
        (&json!("Undecodable"), &json!("False"))
    );
    assert!(accepted["message"].as_str().unwrap().contains("quantum"));
    assert!(
        scene
            .metrics
            .text()
            .contains("undecodable_objects{kind=\"VirtualService\"} 1")
    );
}

#[tokio::test]
async fn status_and_events_only_on_change() {
    let mut scene = Scene::new();
    put(
        &mut scene.world.lock().virtual_services,
        "shop",
        "thief",
        "1",
        decode(&json!({"metadata": {"namespace": "shop", "name": "thief", "uid": "thief", "generation": 1,
                                    "creationTimestamp": "2026-01-01T00:00:01Z"},
                       "spec": {"addresses": ["172.25.0.1"], "ports": [{"port": 80}], "forwarding": {"type": "DR"},
                                "realServerSelector": {}}}))
        .unwrap(),
    );
    scene.pass().await;
    assert!(scene.report().await);
    let paths: Vec<String> = scene
        .stage
        .take("/status")
        .into_iter()
        .map(|sent| sent.path)
        .collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(
        paths[0].contains("/virtualrouters/"),
        "routers first: {paths:?}"
    );
    let events = scene.stage.take("/events");
    let reasons: Vec<_> = events
        .iter()
        .map(|sent| sent.body["reason"].as_str().unwrap_or_default())
        .collect();
    assert!(reasons.contains(&"AddressInUse"), "{reasons:?}");
    assert!(!reasons.contains(&"Pending"), "{reasons:?}");

    assert!(scene.report().await);
    assert!(
        scene.stage.take("/status").is_empty(),
        "the same report again is not written"
    );
    assert!(scene.stage.take("/events").is_empty());
}

#[tokio::test]
async fn a_status_that_could_not_be_written_is_written_later() {
    let mut scene = Scene::new();
    scene.pass().await;
    scene.stage.refuse(|sent| {
        sent.path
            .contains("/status")
            .then_some(StatusCode::INTERNAL_SERVER_ERROR)
    });
    assert!(!scene.report().await);
    assert!(
        scene.stage.take("/events").is_empty(),
        "what is not stored is not told"
    );
    scene.stage.accept();
    assert!(scene.report().await);
    assert!(scene.stage.take("/status").len() >= 2);
}

#[tokio::test]
async fn a_withdrawn_plan_is_deleted_only_as_the_version_that_was_answered() {
    let mut scene = Scene::new();
    scene.pass().await;
    scene.watch_leases();
    scene.stage.take("");
    let answered = json!({"metadata": {"namespace": "lvs-system", "name": "vs-gone", "uid": "plan", "generation": 2,
                                       "resourceVersion": "77", "ownerReferences": [
                                           {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-a"}]},
        "spec": {"nodeName": "a", "state": "Withdrawn", "virtualRouterName": "default",
                 "source": {"kind": "VirtualService", "namespace": "shop", "name": "gone", "uid": "gone", "generation": 1}},
        "status": {"observedGeneration": 2, "conditions": [
            {"type": "Programmed", "status": "False", "reason": "Withdrawn", "message": "",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    put(
        &mut scene.world.lock().node_plans,
        "lvs-system",
        "vs-gone",
        "77",
        decode_plan(&answered).unwrap(),
    );
    scene.pass().await;
    let sent = scene.stage.take("/nodeplans/");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].method, Method::DELETE);
    assert_eq!(
        sent[0].body["preconditions"],
        json!({"resourceVersion": "77", "uid": "plan"})
    );
}

#[tokio::test]
async fn a_replica_creates_the_lease_plans_while_it_holds_it_and_releases_it_at_the_end() {
    let stage = Stage::default();
    let (is_leader, mut leads) = watch::channel(false);
    let (shutdown, shutdown_receiver) = watch::channel(false);
    let candidate = Candidate::new(
        stage.client(),
        "lvs-system",
        "lvs-controller".to_owned(),
        Identity {
            node: "pod-1".to_owned(),
            incarnation: "x".to_owned(),
        },
        is_leader,
        shutdown_receiver,
    )
    .unwrap();
    let task = tokio::spawn(candidate.run());
    leads.wait_for(|leads| *leads).await.unwrap();
    let sent = stage.take("/leases");
    assert_eq!(sent[0].method, Method::POST);
    assert_eq!(sent[1].method, Method::PUT);
    assert_eq!(sent[1].body["spec"]["holderIdentity"], "pod-1/x");
    assert_eq!(sent[1].body["spec"]["leaseTransitions"], 1);

    shutdown.send_replace(true);
    task.await.unwrap().unwrap();
    assert!(!*leads.borrow());
    let released = stage.take("/leases").pop().unwrap();
    assert!(
        released.body["spec"]["holderIdentity"].is_null(),
        "{}",
        released.body
    );
}
