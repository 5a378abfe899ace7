//! Traces of changes: which spans there are, what plans carry, and that nothing is written for their sake.

use std::sync::Mutex;
use std::time::SystemTime;

use lvs_controller::change_traces::{Arrivals, ChangeTraces};
use lvs_controller::world::Change;
use lvs_crds::node_plan::NodePlanStatus;
use lvs_plan::input::ExistingPlan;
use lvs_traces::context::{ANNOTATION, from_text};
use lvs_traces::{Resource, SpanCounts, SpanData, Tracer};
use tokio::sync::mpsc;

use super::stage::Sent;
use super::*;

/// As [`Scene::new`], after its first pass, with a collector.
async fn traced() -> (Scene, mpsc::Receiver<SpanData>) {
    let mut scene = Scene::new();
    let resource = Resource::builder_empty().build();
    let (tracer, spans) = Tracer::open("test", resource, 1.0, SpanCounts::default());
    scene.reconciler.traces = Some(Mutex::new(ChangeTraces::new(tracer)));
    scene.world.lock().arrivals = Some(Arrivals::new());
    scene.pass().await;
    scene.watch_leases();
    for sent in scene.stage.take("/nodeplans/") {
        assert!(annotation(&sent).is_none(), "what was there is no change");
    }
    scene.stage.take("");
    (scene, spans)
}

fn annotation(sent: &Sent) -> Option<&str> {
    sent.body["metadata"]["annotations"][ANNOTATION].as_str()
}

fn ended(spans: &mut mpsc::Receiver<SpanData>) -> Vec<SpanData> {
    std::iter::from_fn(|| spans.try_recv().ok()).collect()
}

fn edit(scene: &Scene, generation: i64, scheduler: &str) {
    let mut object = virtual_service(scheduler);
    object["metadata"]["generation"] = json!(generation);
    let version = format!("v{generation}");
    let mut world = scene.world.lock();
    let object = decode(&object).unwrap();
    put(&mut world.virtual_services, "shop", "web", &version, object);
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_ref()).collect()
}

fn attribute(span: &SpanData, name: &str) -> String {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == name);
    found
        .map(|found| found.value.to_string())
        .unwrap_or_default()
}

/// Every stored plan as the watch would bring it after this.
fn change_plans(scene: &Scene, version: &str, change: impl Fn(&mut ExistingPlan)) {
    let mut world = scene.world.lock();
    let stored: Vec<_> = world
        .node_plans
        .objects()
        .map(|(key, stored)| (key.clone(), stored.object.as_ref().clone()))
        .collect();
    for (key, mut plan) in stored {
        change(&mut plan);
        put(
            &mut world.node_plans,
            &key.namespace,
            &key.name,
            version,
            plan,
        );
    }
}

/// Agents report that they hold what is stored.
fn acknowledge(scene: &Scene) {
    change_plans(scene, "acknowledged", |plan| {
        let status = json!({
            "observedGeneration": plan.object.meta.generation,
            "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        plan.object.status = Some(serde_json::from_value::<NodePlanStatus>(status).unwrap());
    });
}

#[tokio::test]
async fn an_edit_is_one_trace_from_when_it_was_seen_until_every_kernel_has_it() {
    let (mut scene, mut spans) = traced().await;
    let seen = SystemTime::now() - Duration::from_secs(1);
    let key = ObjectKey::new("shop", "web");
    scene
        .world
        .lock()
        .arrived(lvs_controller::world::Kind::VirtualService, &key, seen);
    edit(&scene, 2, "mh");
    scene.pass().await;

    let written = ended(&mut spans);
    let [plan, first, second, root] = written.as_slice() else {
        panic!("{:?}", names(&written))
    };
    assert_eq!(
        names(&written),
        [
            "plan",
            "write NodePlan",
            "write NodePlan",
            "change VirtualService"
        ]
    );
    let trace = root.span_context.trace_id();
    for child in [plan, first, second] {
        assert_eq!(child.span_context.trace_id(), trace);
        assert_eq!(child.parent_span_id, root.span_context.span_id());
    }
    assert_eq!(root.start_time, seen);
    assert_eq!(attribute(root, "lvs.object.name"), "web");
    assert_eq!(attribute(root, "k8s.namespace.name"), "shop");
    assert_eq!(attribute(root, "lvs.object.generation"), "2");
    assert_eq!(attribute(root, "lvs.node_plans"), "2");
    // What agents continue is the write of their own plan.
    let sent = scene.stage.take("/nodeplans/");
    let mut carried: Vec<_> = sent
        .iter()
        .map(|sent| from_text(annotation(sent).unwrap()).unwrap().span_id())
        .collect();
    let mut writes = [first, second]
        .map(|span| span.span_context.span_id())
        .to_vec();
    carried.sort_by_key(|id| id.to_bytes());
    writes.sort_by_key(|id| id.to_bytes());
    assert_eq!(carried, writes);

    // They have answered to what was stored before.
    acknowledge(&scene);
    change_plans(&scene, "newer", |plan| plan.object.meta.generation += 1);
    scene.pass().await;
    assert!(ended(&mut spans).is_empty(), "no agent has answered");
    acknowledge(&scene);
    scene.pass().await;
    let [converge] = ended(&mut spans).try_into().unwrap();
    assert_eq!(converge.name, "converge");
    assert_eq!(converge.parent_span_id, root.span_context.span_id());
    assert!(converge.start_time >= first.end_time);
    scene.pass().await;
    assert!(ended(&mut spans).is_empty());
    assert!(scene.stage.take("/nodeplans/").is_empty());
}

#[tokio::test]
async fn a_conflict_is_told_and_the_trace_goes_on_until_all_is_written() {
    let (mut scene, mut spans) = traced().await;
    edit(&scene, 2, "mh");
    scene.stage.refuse(|sent| {
        let is_plan = sent.path.contains("/nodeplans/");
        is_plan.then_some(StatusCode::CONFLICT)
    });
    scene.pass().await;
    let refused = ended(&mut spans);
    assert_eq!(
        names(&refused),
        ["plan", "write NodePlan", "write NodePlan"]
    );
    for write in &refused[1..] {
        assert_eq!(write.status, lvs_traces::Status::error("Conflict"));
    }
    scene.stage.accept();
    scene.backoff = Backoff::default();
    scene.pass().await;
    let written = ended(&mut spans);
    assert_eq!(
        names(&written),
        [
            "plan",
            "write NodePlan",
            "write NodePlan",
            "change VirtualService"
        ]
    );
    let trace = refused[0].span_context.trace_id();
    assert!(
        written
            .iter()
            .all(|span| span.span_context.trace_id() == trace)
    );
}

#[tokio::test]
async fn what_an_annotation_says_is_no_reason_to_write_and_the_next_write_takes_it_away() {
    let (mut scene, mut spans) = traced().await;
    acknowledge(&scene);
    scene.pass().await;
    ended(&mut spans);
    for text in [
        "nonsense",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        change_plans(&scene, text, |plan| {
            let annotations = &mut plan.object.meta.annotations;
            annotations.insert(ANNOTATION.to_owned(), text.to_owned());
        });
        scene.pass().await;
        assert!(scene.stage.take("").is_empty(), "{text}");
        assert!(ended(&mut spans).is_empty());
    }

    // A write that nobody follows has no context, and takes away that of an earlier one by not applying it.
    scene.reconciler.traces = None;
    edit(&scene, 2, "mh");
    scene.pass().await;
    let sent = scene.stage.take("/nodeplans/");
    assert_eq!(sent.len(), 2);
    assert!(
        sent.iter()
            .all(|sent| sent.body["metadata"]["annotations"].is_null())
    );
}

#[tokio::test]
async fn a_status_a_restart_and_another_leader_are_no_changes_and_a_deletion_is_one() {
    let (mut scene, mut spans) = traced().await;
    acknowledge(&scene);
    // The same generation, newer: a status was written.
    edit(&scene, 1, "wrr");
    scene.pass().await;
    assert!(ended(&mut spans).is_empty());

    let forget = |scene: &Scene| {
        let traces = scene.reconciler.traces.as_ref().unwrap();
        traces.lock().unwrap().forget();
    };
    forget(&scene);
    edit(&scene, 2, "mh");
    scene.pass().await;
    assert!(
        ended(&mut spans).is_empty(),
        "it changed under another leader"
    );
    assert!(
        scene
            .stage
            .take("/nodeplans/")
            .iter()
            .all(|sent| annotation(sent).is_none())
    );

    acknowledge(&scene);
    let key = ObjectKey::new("shop", "web");
    scene
        .world
        .lock()
        .virtual_services
        .take(Change::Deleted(key));
    scene.pass().await;
    let withdrawn = ended(&mut spans);
    let root = withdrawn.last().unwrap();
    assert_eq!(root.name, "change VirtualService");
    assert_eq!(attribute(root, "lvs.change"), "Deleted");
    let sent = scene.stage.take("/nodeplans/");
    assert!(!sent.is_empty() && sent.iter().all(|sent| annotation(sent).is_some()));
}

#[tokio::test]
async fn a_real_server_is_the_cause_of_writes_of_the_plans_that_name_it() {
    let (mut scene, mut spans) = traced().await;
    let mut router = virtual_router();
    router["spec"]["grants"][0]["realServerCIDRs"] = json!(["10.0.0.0/8"]);
    router["metadata"]["generation"] = json!(2);
    {
        let mut world = scene.world.lock();
        let router = decode(&router).unwrap();
        put(&mut world.virtual_routers, "", "default", "2", router);
    }
    scene.pass().await;
    ended(&mut spans);
    scene.stage.take("");
    let real_server = json!({"metadata": {"namespace": "shop", "name": "web-1", "uid": "rs", "generation": 1},
                             "spec": {"target": {"type": "Addresses", "addresses": ["10.0.0.1"]}}});
    {
        let mut world = scene.world.lock();
        let real_server = decode(&real_server).unwrap();
        put(&mut world.real_servers, "shop", "web-1", "1", real_server);
    }
    scene.pass().await;
    let written = ended(&mut spans);
    assert_eq!(
        names(&written),
        [
            "plan",
            "write NodePlan",
            "write NodePlan",
            "change RealServer"
        ]
    );
    // And when it goes, those that named it.
    let key = ObjectKey::new("shop", "web-1");
    scene.world.lock().real_servers.take(Change::Deleted(key));
    scene.pass().await;
    let written = ended(&mut spans);
    assert_eq!(
        names(&written),
        [
            "plan",
            "write NodePlan",
            "write NodePlan",
            "change RealServer"
        ]
    );
    assert_eq!(attribute(&written[3], "lvs.change"), "Deleted");
}

#[tokio::test]
async fn who_does_not_answer_is_named_after_five_minutes() {
    let resource = Resource::builder_empty().build();
    let (tracer, mut spans) = Tracer::open("test", resource, 1.0, SpanCounts::default());
    let mut scene = Scene::new();
    scene.pass().await;
    let Some(Outcome::Resolved(resolution)) = scene.outcomes.borrow().clone() else {
        panic!("no resolution")
    };
    let inputs = |scene: &Scene| {
        let mut world = scene.world.lock();
        let settings = &scene.reconciler.settings;
        let snapshot = lvs_controller::snapshot::take(&mut world, settings, Instant::now());
        snapshot.unwrap().inputs
    };
    let mut followed = ChangeTraces::new(tracer);
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let none = Arrivals::new();
    let mut empty = inputs(&scene);
    empty.virtual_services.clear();
    // The writes of the scene's first pass, as though the VirtualService had come just now.
    followed.planned(&empty, &resolution, &none, (at(0), at(0)));
    let all = inputs(&scene);
    followed.planned(&all, &resolution, &none, (at(1), at(2)));
    let plans = resolution.plans.keys().cloned().collect();
    followed.written(&plans, at(3));
    ended(&mut spans);
    let unchanged = {
        let mut unchanged = lvs_plan::Resolution::clone(&resolution);
        unchanged.plans.clear();
        unchanged
    };
    followed.planned(&all, &unchanged, &none, (at(200), at(200)));
    assert!(ended(&mut spans).is_empty());
    followed.planned(&all, &unchanged, &none, (at(303), at(303)));
    let [converge] = ended(&mut spans).try_into().unwrap();
    assert_eq!(converge.status, lvs_traces::Status::error("NotProgrammed"));
    let missing = attribute(&converge, "lvs.node_plans.missing");
    assert_eq!(missing.matches("vs-").count(), 2, "{missing}");
    followed.planned(&all, &unchanged, &none, (at(304), at(304)));
    assert!(ended(&mut spans).is_empty());
}
