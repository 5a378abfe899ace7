//! A collector of OpenTelemetry: takes traces by OTLP (http/protobuf), or does what collectors do when they are not well.

use std::fs::File;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use nix::sched::{CloneFlags, setns};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::runtime::Runtime;

use crate::lab::Lab;

/// The address of this machine as the guest sees it; controllers get it on their own loopback.
const HOST: &str = "10.0.2.2";

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Takes it.
    Well,
    /// Reads it and never answers.
    Hangs,
    /// Answers 503.
    Refuses,
}

/// A span, and who made it.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// `service.name`.
    pub service: String,
    /// `k8s.node.name` of the process.
    pub node: String,
    /// The span.
    pub span: Span,
}

impl Received {
    /// An attribute as text; empty if there is none.
    pub(super) fn attribute(&self, name: &str) -> String {
        attribute(&self.span.attributes, name)
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    found.map_or_else(String::new, |found| text(found.value.as_ref()))
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => {
            let words: Vec<String> = list.values.iter().map(|one| text(Some(one))).collect();
            words.join(",")
        }
        _ => String::new(),
    }
}

#[derive(Debug)]
struct Seen {
    health: Health,
    requests: usize,
    wrong: Vec<String>,
    spans: Vec<Received>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector. Ends when it is dropped.
pub(super) struct Collector {
    seen: Shared,
    runtime: Runtime,
    port: u16,
}

impl Collector {
    /// Starts it where agents reach it.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let seen = Seen {
            health: Health::Well,
            requests: 0,
            wrong: Vec::new(),
            spans: Vec::new(),
        };
        let collector = Self {
            seen: Shared(Arc::new(Mutex::new(seen))),
            runtime: Runtime::new()?,
            port: listener.local_addr()?.port(),
        };
        collector.serve(listener)?;
        lab.carry_in(collector.port)?;
        Ok(collector)
    }

    /// Where it is for agents and, once it is [`beside`](Self::beside) them, for controllers.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }

    /// Listens in the network of this process, too.
    pub(super) fn beside(&self, pid: &str) -> Result<()> {
        let address = format!("{HOST}/32");
        let words = [
            "-t", pid, "-n", "ip", "address", "replace", &address, "dev", "lo",
        ];
        let output = Command::new("nsenter").args(words).output()?;
        ensure!(
            output.status.success(),
            "nsenter {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).with_context(|| format!("opening {path}"))?;
        let port = self.port;
        // A socket stays where it was made; so only the thread goes there that makes it.
        let made = std::thread::spawn(move || -> Result<TcpListener> {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(TcpListener::bind((HOST, port))?)
        });
        let listener = made.join().ok().context("a thread panicked")?;
        self.serve(listener.with_context(|| format!("listening in {path}"))?)
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        listener.set_nonblocking(true)?;
        let _runtime = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(self.seen.clone());
        self.runtime
            .spawn(async move { axum::serve(listener, router).await });
        Ok(())
    }

    /// From now on it does this with requests.
    pub(super) fn set_health(&self, health: Health) {
        self.seen.lock().health = health;
    }

    /// Requests so far, whatever became of them.
    pub(super) fn requests(&self) -> usize {
        self.seen.lock().requests
    }

    /// Every span that it took. An error tells of a request that is none of OTLP.
    pub(super) fn spans(&self) -> Result<Vec<Received>> {
        let seen = self.seen.lock();
        ensure!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        Ok(seen.spans.clone())
    }
}

async fn take(State(seen): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let health = {
        let mut seen = seen.lock();
        seen.requests += 1;
        if headers
            .get("content-type")
            .is_none_or(|kind| kind != "application/x-protobuf")
        {
            seen.wrong.push(format!("{headers:?}"));
        }
        seen.health
    };
    match health {
        Health::Well => {}
        Health::Hangs => std::future::pending().await,
        Health::Refuses => return StatusCode::SERVICE_UNAVAILABLE,
    }
    let request = ExportTraceServiceRequest::decode(body);
    let mut seen = seen.lock();
    match request {
        Ok(request) => seen.spans.extend(received(request)),
        Err(error) => seen.wrong.push(error.to_string()),
    }
    StatusCode::OK
}

fn received(request: ExportTraceServiceRequest) -> impl Iterator<Item = Received> {
    request.resource_spans.into_iter().flat_map(|of_process| {
        let resource = of_process.resource.unwrap_or_default().attributes;
        let spans = of_process.scope_spans.into_iter();
        let spans = spans.flat_map(|of_scope| of_scope.spans);
        spans.map(move |span| Received {
            service: attribute(&resource, "service.name"),
            node: attribute(&resource, "k8s.node.name"),
            span,
        })
    })
}
