//! What agents report of leadership, and what is told of it.

use super::*;

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
