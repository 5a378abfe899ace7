//! The played API service.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// One request as the API server would see it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

type Answer = Box<dyn FnMut(&Sent) -> Option<StatusCode> + Send>;

/// The played API service: it answers a write with the object as it would be stored, or with the status that the
/// scene wants instead.
#[derive(Clone, Default)]
pub struct Stage {
    pub sent: Arc<Mutex<Vec<Sent>>>,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Stage {
    pub fn client(&self) -> Client {
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

    pub fn refuse(&self, answer: impl FnMut(&Sent) -> Option<StatusCode> + Send + 'static) {
        *self.answer.lock().unwrap() = Some(Box::new(answer));
    }

    pub fn accept(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// Takes what was sent to paths that contain the word.
    pub fn take(&self, word: &str) -> Vec<Sent> {
        let mut all = self.sent.lock().unwrap();
        let (matching, rest) = all.drain(..).partition(|sent| sent.path.contains(word));
        *all = rest;
        matching
    }
}
