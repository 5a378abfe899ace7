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
#[path = "shell/real_servers.rs"]
mod real_servers;
#[path = "shell/traces.rs"]
mod traces;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use lvs_controller::apply::{Backoff, Writer};
use lvs_controller::leadership::Candidate;
use lvs_controller::metrics::{Metrics, Outcome as WriteOutcome};
use lvs_controller::reconcile::{Outcome, Pulse, Reconciler};
use lvs_controller::snapshot::Settings;
use lvs_controller::status::StatusWriter;
use lvs_controller::world::{Change, Labelled, SharedWorld, Store, Versioned};
use lvs_core::election::Identity;
use lvs_plan::input::{Node, ObjectKey, decode, decode_plan};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// One request as the API server would see it.
#[derive(Clone, Debug)]
struct Sent {
    method: Method,
    path: String,
    body: Value,
}

type Answer = Box<dyn FnMut(&Sent) -> Option<StatusCode> + Send>;

/// The played API service: it answers a write with the object as it would be stored, or with the status that the
/// scene wants instead.
#[derive(Clone, Default)]
struct Stage {
    sent: Arc<Mutex<Vec<Sent>>>,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Stage {
    fn client(&self) -> Client {
        let stage = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let stage = stage.clone();
            async move { Ok::<_, Infallible>(stage.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() == Method::GET {
            if query.contains("watch=true") {
                return std::future::pending().await;
            }
            let list = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1",
                              "metadata": {"resourceVersion": "1"}, "items": []});
            return Response::new(Body::from(list.to_string().into_bytes()));
        }
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let sent = Sent {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            body,
        };
        let mut all = self.sent.lock().unwrap();
        all.push(sent.clone());
        let refusal = self
            .answer
            .lock()
            .unwrap()
            .as_mut()
            .and_then(|answer| answer(&sent));
        let (status, answer) = if let Some(code) = refusal {
            let reason = if code == StatusCode::CONFLICT {
                "Conflict"
            } else {
                "InternalError"
            };
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                    "message": "as the scene wants", "reason": reason, "code": code.as_u16()});
            (code, status)
        } else {
            let mut stored = sent.body.clone();
            stored["metadata"]["resourceVersion"] = json!(format!("{}", 1000 + all.len()));
            stored["metadata"]["generation"] = json!(1);
            if stored["metadata"]["uid"].is_null() {
                stored["metadata"]["uid"] = json!(format!("uid-{}", all.len()));
            }
            (StatusCode::OK, stored)
        };
        Response::builder()
            .status(status)
            .body(Body::from(answer.to_string().into_bytes()))
            .unwrap()
    }

    fn refuse(&self, answer: impl FnMut(&Sent) -> Option<StatusCode> + Send + 'static) {
        *self.answer.lock().unwrap() = Some(Box::new(answer));
    }

    fn accept(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// Takes what was sent to paths that contain the word.
    fn take(&self, word: &str) -> Vec<Sent> {
        let mut all = self.sent.lock().unwrap();
        let (matching, rest) = all.drain(..).partition(|sent| sent.path.contains(word));
        *all = rest;
        matching
    }
}

fn put<T: PartialEq>(store: &mut Store<T>, namespace: &str, name: &str, version: &str, object: T) {
    let versioned = Versioned {
        resource_version: version.to_owned(),
        object: Arc::new(object),
    };
    store.take(Change::Applied(ObjectKey::new(namespace, name), versioned));
}

fn virtual_service(scheduler: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": "web", "uid": "vs", "generation": 1,
                        "creationTimestamp": "2026-01-01T00:00:00Z"},
           "spec": {"addresses": ["172.25.0.1"], "ports": [{"port": 80}], "forwarding": {"type": "DR"},
                    "scheduler": {"name": scheduler}, "realServerSelector": {}}})
}

fn virtual_router() -> Value {
    json!({"metadata": {"name": "default", "uid": "vr", "generation": 1,
                        "annotations": {"lvs.dev/is-default-router": "true"}},
           "spec": {"addressPools": [{"name": "public", "addresses": ["172.25.0.0/24"]}],
                    "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"]}]}})
}

/// A controller in a small cluster: nodes a and b, both directors, one VirtualService.
struct Scene {
    stage: Stage,
    world: SharedWorld,
    metrics: Arc<Metrics>,
    reconciler: Reconciler,
    status: StatusWriter,
    outcomes: watch::Receiver<Option<Outcome>>,
    backoff: Backoff,
}

impl Scene {
    fn new() -> Self {
        let scene = Self::without_stores();
        {
            let mut world = scene.world.lock();
            world.virtual_services.take(Change::Complete);
            world.real_servers.take(Change::Complete);
            world.endpoint_slices.take(Change::Complete);
            world.ca_bundles.take(Change::Complete);
            world.virtual_routers.take(Change::Complete);
            world.node_plans.take(Change::Complete);
            world.nodes.take(Change::Complete);
            world.namespaces.take(Change::Complete);
            world.leases.take(Change::Complete);
            world.agent_pods.take(Change::Complete);
            world.api_endpoints.take(Change::Complete);
            world.service_cidrs.take(Change::Complete);
            for (name, address) in [("a", "192.168.50.11"), ("b", "192.168.50.12")] {
                let node = Node {
                    name: name.to_owned(),
                    uid: format!("node-{name}"),
                    internal_addresses: vec![address.parse().unwrap()],
                    ..Node::default()
                };
                put(&mut world.nodes, "", name, "1", node);
                put(
                    &mut world.agent_pods,
                    "lvs-system",
                    &format!("agent-{name}"),
                    "1",
                    name.to_owned(),
                );
            }
            put(&mut world.namespaces, "", "shop", "1", Labelled::default());
            let router = virtual_router();
            put(
                &mut world.virtual_routers,
                "",
                "default",
                "1",
                decode(&router).unwrap(),
            );
            put(
                &mut world.virtual_services,
                "shop",
                "web",
                "1",
                decode(&virtual_service("wrr")).unwrap(),
            );
        }
        scene
    }

    fn without_stores() -> Self {
        let stage = Stage::default();
        let world = SharedWorld::default();
        let metrics = Arc::new(Metrics::default());
        let (outcomes, receiver) = watch::channel(None);
        let (names, _) = watch::channel(BTreeSet::new());
        let (_, is_leader) = watch::channel(true);
        let client = stage.client();
        let writer = Writer::new(
            client.clone(),
            "lvs-system".to_owned(),
            world.clone(),
            metrics.clone(),
        );
        let reconciler = Reconciler {
            world: world.clone(),
            settings: Settings {
                namespace: "lvs-system".to_owned(),
                firewall_mark_range: 0x2000..=0x20ff,
            },
            writer,
            metrics: metrics.clone(),
            pulse: Pulse::default(),
            outcomes,
            names,
            is_leader,
            traces: None,
        };
        let status = StatusWriter::new(client, world.clone(), metrics.clone(), "pod".to_owned());
        Self {
            stage,
            world,
            metrics,
            reconciler,
            status,
            outcomes: receiver,
            backoff: Backoff::default(),
        }
    }

    async fn pass(&mut self) {
        self.reconciler.pass(&mut self.backoff).await;
    }

    /// Writes the statuses of the newest pass.
    async fn report(&self) -> bool {
        let Some(Outcome::Resolved(resolution)) = self.outcomes.borrow().clone() else {
            panic!("no resolution")
        };
        self.status
            .write(
                &resolution.report,
                &Time(Timestamp::from_second(1_800_000_000).unwrap()),
            )
            .await
    }

    /// The watch brings the Leases that were written.
    fn watch_leases(&self) {
        for sent in self.stage.take("/leases/") {
            let lease: k8s_openapi::api::coordination::v1::Lease =
                serde_json::from_value(sent.body).unwrap();
            let name = lease.metadata.name.clone().unwrap();
            let mut world = self.world.lock();
            world.observe_lease(&lease, tokio::time::Instant::now());
            put(&mut world.leases, "lvs-system", &name, "1", lease);
        }
    }
}

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

/// The Lease of the router as its holder wrote it.
fn hold(scene: &Scene, holder: &str, epoch: i32) {
    let lease: k8s_openapi::api::coordination::v1::Lease = serde_json::from_value(json!({
        "metadata": {"name": "lvs-router-default", "namespace": "lvs-system",
                     "labels": {"lvs.dev/virtual-router": "default"},
                     "annotations": {"lvs.dev/directors": "a,b"}},
        "spec": {"holderIdentity": format!("{holder}/1"), "leaseTransitions": epoch, "leaseDurationSeconds": 10,
                 "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z"}}))
    .unwrap();
    let mut world = scene.world.lock();
    world.observe_lease(&lease, tokio::time::Instant::now());
    let version = epoch.to_string();
    put(
        &mut world.leases,
        "lvs-system",
        "lvs-router-default",
        &version,
        lease,
    );
}

/// The agents report every plan as programmed, and of the router's plans what is given for their node.
fn agents_report(scene: &Scene, reports: &[(&str, Value)]) {
    let mut world = scene.world.lock();
    let plans: Vec<_> = world
        .node_plans
        .objects()
        .map(|(key, plan)| (key.clone(), plan.object.as_ref().clone()))
        .collect();
    for (key, mut plan) in plans {
        let spec = plan.object.spec().unwrap().clone();
        let mut status = json!({"observedGeneration": 1, "conditions": [
            {"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
             "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let report = reports.iter().find(|(node, _)| *node == spec.node_name);
        if let (Some((_, report)), "default") = (report, spec.source.name.as_str()) {
            for (name, value) in report.as_object().unwrap() {
                status[name] = value.clone();
            }
        }
        plan.object.status = Some(serde_json::from_value(status).unwrap());
        let version = plan.resource_version.clone();
        put(
            &mut world.node_plans,
            &key.namespace,
            &key.name,
            &version,
            plan,
        );
    }
}

/// Writes the statuses of the newest pass; the watch brings the router with its status, which is returned.
async fn report_and_watch(scene: &mut Scene) -> Value {
    scene.pass().await;
    assert!(scene.report().await);
    let written = scene.stage.take("/virtualrouters/default/status").pop();
    let Some(written) = written else {
        return Value::Null;
    };
    let mut router = virtual_router();
    router["status"] = written.body["status"].clone();
    let mut world = scene.world.lock();
    let version = &world
        .virtual_routers
        .get(&ObjectKey::new("", "default"))
        .unwrap()
        .resource_version;
    let version = format!("{version}+");
    put(
        &mut world.virtual_routers,
        "",
        "default",
        &version,
        decode(&router).unwrap(),
    );
    written.body["status"].clone()
}

/// Reason, type and note of what was told of the router, without its first readiness.
fn told(scene: &Scene) -> Vec<(String, String, String)> {
    let events = scene.stage.take("/events");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .filter(|sent| sent.body["regarding"]["kind"] == "VirtualRouter")
        .map(|sent| {
            let body = &sent.body;
            (
                word(&body["reason"]),
                word(&body["type"]),
                word(&body["note"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn what_agents_report_of_leadership_is_told_of_the_router_once() {
    let mut scene = Scene::new();
    scene.pass().await;
    scene.watch_leases();
    let transition = |reason: &str, epoch: i64, peer: &str, message: &str| {
        json!({"lastTransition": {"reason": reason, "epoch": epoch, "peerNodeName": peer, "message": message,
                                  "time": "2026-01-01T00:00:00Z"}})
    };
    hold(&scene, "a", 6);
    let before = transition("BecameMaster", 6, "b", "they were offered");
    agents_report(&scene, &[("a", before.clone())]);
    report_and_watch(&mut scene).await;
    scene.stage.take("");

    hold(&scene, "b", 7);
    let taken = transition("BecameMaster", 7, "a", "no heartbeat for 0.45 s");
    agents_report(&scene, &[("a", before), ("b", taken.clone())]);
    let status = report_and_watch(&mut scene).await;
    let master = &status["master"];
    assert_eq!(
        (&master["nodeName"], &master["epoch"]),
        (&json!("b"), &json!(7))
    );
    let events = scene.stage.sent.lock().unwrap().clone();
    let event = events
        .iter()
        .find(|sent| sent.body["reason"] == "BecameMaster")
        .unwrap();
    assert_eq!(
        event.path,
        "/apis/events.k8s.io/v1/namespaces/default/events"
    );
    assert_eq!(event.body["regarding"]["name"], "default");
    assert_eq!(event.body["related"]["kind"], "Node");
    assert_eq!(event.body["related"]["name"], "b");
    let became = (
        "BecameMaster".to_owned(),
        "Normal".to_owned(),
        "b took over from a in epoch 7: no heartbeat for 0.45 s".to_owned(),
    );
    assert!(told(&scene).contains(&became));

    // The old holder comes to itself, and says so. What b said is not told again.
    let fenced = transition("Fenced", 6, "b", "b holds epoch 7");
    agents_report(&scene, &[("a", fenced.clone()), ("b", taken.clone())]);
    report_and_watch(&mut scene).await;
    assert_eq!(
        told(&scene),
        [(
            "Fenced".to_owned(),
            "Warning".to_owned(),
            "a gave up the addresses of epoch 6: b holds epoch 7".to_owned()
        )]
    );

    // Heartbeats are lost, and heard again.
    let mut deaf = fenced.clone();
    deaf["heartbeatLostFrom"] = json!("b");
    agents_report(&scene, &[("a", deaf), ("b", taken.clone())]);
    report_and_watch(&mut scene).await;
    let events = told(&scene);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (events[0].0.as_str(), events[0].1.as_str()),
        ("HeartbeatLost", "Warning")
    );
    assert!(events[0].2.starts_with("a does not hear b"), "{events:?}");
    assert!(
        scene
            .metrics
            .text()
            .contains("not_ready{kind=\"VirtualRouter\",reason=\"HeartbeatLost\"} 1")
    );
    agents_report(&scene, &[("a", fenced), ("b", taken)]);
    report_and_watch(&mut scene).await;
    let events = told(&scene);
    let reasons: Vec<_> = events.iter().map(|event| event.0.as_str()).collect();
    assert_eq!(reasons, ["HeartbeatsHeard", "Ready"], "{events:?}");

    // Another replica goes on from the stored status: what it finds there has been told.
    scene.stage.take("");
    let status = StatusWriter::new(
        scene.stage.client(),
        scene.world.clone(),
        scene.metrics.clone(),
        "other-pod".to_owned(),
    );
    scene.status = status;
    scene.pass().await;
    assert!(scene.report().await);
    assert!(scene.stage.take("").is_empty());
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
