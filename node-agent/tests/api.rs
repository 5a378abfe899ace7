//! The watch and the status writer against an API server that answers by script over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::{Client, Config};
use lvs_agent::book::PlanEvent;
use lvs_agent::metrics::Metrics;
use lvs_agent::plan_watch;
use lvs_agent::report::{LivePlan, PlanReport, Programmed};
use lvs_agent::status::{Reports, StatusWriter};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{NodePlanStatus, Role};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// Longest wait for anything to happen. Only a broken test takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server was asked: method, path with query, body.
type Asked = (Method, String, Value);

#[derive(Clone)]
struct Script {
    asked: mpsc::UnboundedSender<Asked>,
    /// Answers to lists, watches and writes, each kind in its order; the last one of a kind stays.
    lists: Arc<Mutex<VecDeque<(StatusCode, String)>>>,
    watches: Arc<Mutex<VecDeque<(StatusCode, String)>>>,
    writes: Arc<Mutex<VecDeque<(StatusCode, String)>>>,
}

fn next(answers: &Mutex<VecDeque<(StatusCode, String)>>) -> Option<(StatusCode, String)> {
    let mut answers = answers.lock().unwrap();
    if answers.len() > 1 {
        answers.pop_front()
    } else {
        answers.front().cloned()
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let uri = parts.uri.to_string();
    let asked = (
        parts.method.clone(),
        uri.clone(),
        serde_json::from_slice(&bytes).unwrap_or_default(),
    );
    script.asked.send(asked).unwrap();
    let answers = match parts.method {
        Method::GET if uri.contains("watch=") => &script.watches,
        Method::GET => &script.lists,
        _ => &script.writes,
    };
    let Some((status, text)) = next(answers) else {
        // A watch on which nothing happens.
        return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
            .into_response();
    };
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

struct Server {
    client: Client,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Server {
    async fn start(
        lists: Vec<(StatusCode, Value)>,
        watches: Vec<(StatusCode, String)>,
        writes: Vec<(StatusCode, Value)>,
    ) -> Self {
        let text = |answers: Vec<(StatusCode, Value)>| {
            Arc::new(Mutex::new(
                answers
                    .into_iter()
                    .map(|(status, value)| (status, value.to_string()))
                    .collect(),
            ))
        };
        let (sender, asked) = mpsc::unbounded_channel();
        let script = Script {
            asked: sender,
            lists: text(lists),
            watches: Arc::new(Mutex::new(watches.into())),
            writes: text(writes),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(script);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = Config::new(format!("http://{address}").parse().unwrap());
        Self {
            client: Client::try_from(config).unwrap(),
            asked,
        }
    }

    async fn next(&mut self) -> Asked {
        tokio::time::timeout(PATIENCE, self.asked.recv())
            .await
            .expect("a request")
            .unwrap()
    }
}

fn plan(name: &str, state: &str) -> Value {
    json!({
        "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlan",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": "5"},
        "spec": {
            "nodeName": "node-a", "state": state, "virtualRouterName": "edge",
            "source": {"kind": "VirtualRouter", "name": "edge", "uid": "r", "generation": 1}
        }
    })
}

fn list(items: &[Value]) -> Value {
    json!({
        "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlanList",
        "metadata": {"resourceVersion": "9"}, "items": items
    })
}

fn failure(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "InternalError", "code": code})
}

async fn event(events: &mut mpsc::Receiver<PlanEvent>) -> PlanEvent {
    tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("an event")
        .unwrap()
}

#[tokio::test]
async fn the_watch_lists_own_plans_passes_on_bad_ones_and_survives_errors() {
    let deleted =
        json!({"type": "DELETED", "object": plan("vs-good", "Active")}).to_string() + "\n";
    let mut server = Server::start(
        vec![
            (StatusCode::INTERNAL_SERVER_ERROR, failure(500)),
            (
                StatusCode::OK,
                list(&[plan("vs-good", "Active"), plan("vs-bad", "Hibernating")]),
            ),
        ],
        vec![
            (StatusCode::OK, deleted),
            (StatusCode::INTERNAL_SERVER_ERROR, failure(500).to_string()),
        ],
        vec![],
    )
    .await;
    let (sender, mut events) = mpsc::channel(16);
    let client = server.client.clone();
    tokio::spawn(plan_watch::run(
        client,
        "lvs-system".into(),
        "node-a".into(),
        sender,
    ));
    let (_, path, _) = server.next().await;
    assert!(
        path.starts_with("/apis/lvs.dev/v1alpha1/namespaces/lvs-system/nodeplans?"),
        "{path}"
    );
    assert!(
        path.contains("fieldSelector=spec.nodeName%3Dnode-a"),
        "{path}"
    );
    // The first list failed; the second is passed on whole.
    let mut seen = Vec::new();
    loop {
        match event(&mut events).await {
            PlanEvent::ListBegins => seen.clear(),
            PlanEvent::Listed(plan) => seen.push((plan.name, plan.spec.is_ok())),
            PlanEvent::ListEnds => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        seen,
        [("vs-good".to_owned(), true), ("vs-bad".to_owned(), false)]
    );
    let deleted = PlanEvent::Deleted {
        name: "vs-good".into(),
        uid: "uid-vs-good".into(),
    };
    assert_eq!(event(&mut events).await, deleted);
}

fn report(message: &str) -> Reports {
    let report = PlanReport {
        live: Some(LivePlan {
            uid: "uid-vs-1".into(),
            status: NodePlanStatus::default(),
        }),
        observed_generation: Some(1),
        role: Some(Role::Backup),
        effective_priority: None,
        deductions: Vec::new(),
        leads: None,
        last_transition: None,
        heartbeat_lost_from: None,
        programmed: Programmed {
            status: "True",
            reason: Reason::Programmed,
            message: message.into(),
            generation: Some(1),
        },
        addresses: vec![],
        table_hash: None,
        heartbeat: None,
        real_servers: Vec::new(),
        services_without_quorum: Vec::new(),
        waits: false,
    };
    Reports::from([("vs-1".to_owned(), report)])
}

#[tokio::test]
async fn a_status_is_written_when_it_says_something_new_and_only_then() {
    let mut server = Server::start(
        vec![],
        vec![],
        vec![(StatusCode::OK, plan("vs-1", "Active"))],
    )
    .await;
    let metrics = Metrics::new(&mut Registry::default());
    let writer = StatusWriter::new(
        server.client.clone(),
        "lvs-system",
        "node-a",
        "boot-1",
        metrics,
    );
    let (reports, receiver) = watch::channel(report("first"));
    tokio::spawn(writer.run(receiver));
    let (method, path, body) = server.next().await;
    assert_eq!(method, Method::PATCH);
    assert!(
        path.starts_with("/apis/lvs.dev/v1alpha1/namespaces/lvs-system/nodeplans/vs-1/status?"),
        "{path}"
    );
    assert!(path.contains("fieldManager=lvs-agent"), "{path}");
    assert!(body.get("spec").is_none());
    assert_eq!(body["status"]["observedGeneration"], 1);
    assert_eq!(body["status"]["bootID"], "boot-1");
    assert_eq!(body["status"]["conditions"][0]["type"], "Programmed");
    let since = body["status"]["conditions"][0]["lastTransitionTime"].clone();
    // The same again says nothing; what comes next is therefore the next write.
    reports.send_replace(report("first"));
    reports.send_replace(report("second"));
    let (_, _, body) = server.next().await;
    assert_eq!(body["status"]["conditions"][0]["message"], "second");
    assert_eq!(
        body["status"]["conditions"][0]["lastTransitionTime"], since,
        "True stayed True"
    );
}

#[tokio::test]
async fn a_failed_write_is_tried_again() {
    let writes = vec![
        (StatusCode::INTERNAL_SERVER_ERROR, failure(500)),
        (StatusCode::OK, plan("vs-1", "Active")),
    ];
    let mut server = Server::start(vec![], vec![], writes).await;
    let metrics = Metrics::new(&mut Registry::default());
    let statuses = StatusWriter::new(
        server.client.clone(),
        "lvs-system",
        "node-a",
        "boot-1",
        metrics,
    );
    let (_reports, receiver) = watch::channel(report("only"));
    tokio::spawn(statuses.run(receiver));
    for _ in 0..2 {
        let (method, _, body) = server.next().await;
        assert_eq!(method, Method::PATCH);
        assert_eq!(body["status"]["conditions"][0]["message"], "only");
    }
}

#[tokio::test]
async fn bad_news_is_an_event_once() {
    let mut server = Server::start(
        vec![],
        vec![],
        vec![(StatusCode::OK, plan("vs-1", "Active"))],
    )
    .await;
    let metrics = Metrics::new(&mut Registry::default());
    let writer = StatusWriter::new(
        server.client.clone(),
        "lvs-system",
        "node-a",
        "boot-1",
        metrics,
    );
    let bad = |message: &str| {
        let mut reports = report(message);
        let report = reports.get_mut("vs-1").unwrap();
        report.programmed.status = "False";
        report.programmed.reason = Reason::KernelModuleMissing;
        reports
    };
    let (reports, receiver) = watch::channel(bad("module ip_vs_mh is missing"));
    tokio::spawn(writer.run(receiver));
    assert_eq!(server.next().await.0, Method::PATCH);
    let (method, path, body) = server.next().await;
    assert_eq!(method, Method::POST);
    assert!(path.contains("/namespaces/lvs-system/events"), "{path}");
    assert_eq!(
        (&body["reason"], &body["type"]),
        (&json!("KernelModuleMissing"), &json!("Warning"))
    );
    assert_eq!(body["regarding"]["uid"], "uid-vs-1");
    // Another message of the same reason is a status, not an Event.
    reports.send_replace(bad("module ip_vs_mh is still missing"));
    assert_eq!(server.next().await.0, Method::PATCH);
    reports.send_replace(report("well again"));
    assert_eq!(server.next().await.0, Method::PATCH);
    assert_eq!(server.next().await.2["reason"], "Programmed");
}
