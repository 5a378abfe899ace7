//! A Lease behind HTTP on loopback as an API server serves it: get, compare-and-swap, list, watch. Only what the
//! lease driver uses; that it uses the real thing rightly is shown in the lab.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Content {
    lease: Option<Value>,
    version: u64,
    broken: bool,
}

/// The server; dropping it ends it.
pub struct LeaseApi {
    content: Arc<Mutex<Content>>,
    changed: watch::Sender<u64>,
    pub client: kube::Client,
}

#[derive(Clone)]
struct Shared {
    content: Arc<Mutex<Content>>,
    changed: watch::Sender<u64>,
}

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/lvs-system/leases";

impl LeaseApi {
    /// Serves one Lease as the controller makes it, on a port of loopback.
    pub async fn start(directors: &str) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let changed = watch::Sender::new(0);
        let shared = Shared {
            content: Arc::clone(&content),
            changed: changed.clone(),
        };
        let router = Router::new()
            .route(PATH, get(list))
            .route(&format!("{PATH}/{{name}}"), get(read).put(replace))
            .with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let url = format!("http://127.0.0.1:{port}").parse().unwrap();
        let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
        let api = Self {
            content,
            changed,
            client,
        };
        api.change(|lease| {
            *lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": "lvs-router-edge",
                    "namespace": "lvs-system",
                    "annotations": {"lvs.dev/directors": directors},
                },
                "spec": {},
            });
        });
        api
    }

    /// Another client's write.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut content = self.content.lock().unwrap();
        let mut lease = content.lease.clone().unwrap_or_default();
        change(&mut lease);
        store(&mut content, lease);
        let version = content.version;
        drop(content);
        self.changed.send_replace(version);
    }

    /// Answers everything with 503 from now on, or as it should again.
    pub fn set_broken(&self, broken: bool) {
        self.content.lock().unwrap().broken = broken;
        self.changed.send_modify(|_| {});
    }

    /// Waits until the Lease is as wanted.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.changed.subscribe();
        loop {
            let lease = self
                .content
                .lock()
                .unwrap()
                .lease
                .clone()
                .unwrap_or_default();
            if wanted(&lease) {
                return lease;
            }
            tokio::time::timeout(std::time::Duration::from_mins(1), changed.changed())
                .await
                .unwrap_or_else(|_| panic!("the Lease stays {lease}"))
                .unwrap();
        }
    }
}

fn store(content: &mut Content, mut lease: Value) -> Value {
    content.version += 1;
    lease["metadata"]["resourceVersion"] = json!(content.version.to_string());
    content.lease = Some(lease.clone());
    lease
}

fn answer(value: &Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, answer(&status)).into_response()
}

fn broken(shared: &Shared) -> Option<Response> {
    // Without Retry-After, or the client would try again by itself.
    shared
        .content
        .lock()
        .unwrap()
        .broken
        .then(|| failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
}

async fn read(State(shared): State<Shared>) -> Response {
    if let Some(response) = broken(&shared) {
        return response;
    }
    match shared.content.lock().unwrap().lease.clone() {
        Some(lease) => answer(&lease),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn replace(State(shared): State<Shared>, body: Bytes) -> Response {
    if let Some(response) = broken(&shared) {
        return response;
    }
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let mut content = shared.content.lock().unwrap();
    let Some(current) = &content.lease else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    if sent["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    let stored = store(&mut content, sent);
    let version = content.version;
    drop(content);
    shared.changed.send_replace(version);
    answer(&stored)
}

async fn list(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Some(response) = broken(&shared) {
        return response;
    }
    let (lease, version) = {
        let content = shared.content.lock().unwrap();
        (content.lease.clone(), content.version)
    };
    if !uri.query().unwrap_or_default().contains("watch=true") {
        let list = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
            "metadata": {"resourceVersion": version.to_string()},
            "items": lease.into_iter().collect::<Vec<_>>(),
        });
        return answer(&list);
    }
    let mut changed = shared.changed.subscribe();
    let known = format!("resourceVersion={version}");
    if !uri
        .query()
        .unwrap_or_default()
        .split('&')
        .any(|part| part == known)
    {
        // Something was written since the version that the client has.
        changed.mark_changed();
    }
    let events = futures::stream::unfold((changed, shared), |(mut changed, shared)| async {
        changed.changed().await.ok()?;
        let event = {
            let content = shared.content.lock().unwrap();
            if content.broken {
                return None;
            }
            json!({"type": "MODIFIED", "object": content.lease})
        };
        Some((format!("{event}\n"), (changed, shared)))
    });
    Body::from_stream(events.map(Ok::<_, Infallible>)).into_response()
}
