//! /livez, /readyz and /metrics. Readiness is computed from facts at every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::reconcile::Pulse;
use crate::world::SharedWorld;

/// Without a pass for this long, the loop hangs: it wakes every half minute by itself.
const PULSE_MAXIMUM: Duration = Duration::from_mins(3);

/// What the answers are made from.
#[derive(Clone)]
pub struct Facts {
    /// Stores.
    pub world: SharedWorld,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Life of the planning loop.
    pub pulse: Pulse,
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, facts: Facts) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(facts);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    axum::serve(listener, router).await.context("serving HTTP")
}

async fn livez(State(facts): State<Facts>) -> impl IntoResponse {
    let age = Instant::now().saturating_duration_since(facts.pulse.last());
    if age > PULSE_MAXIMUM {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the planning loop has not turned for {} s\n", age.as_secs()),
        );
    }
    (StatusCode::OK, "ok\n".to_owned())
}

async fn readyz(State(facts): State<Facts>) -> impl IntoResponse {
    let missing = facts.world.lock().missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not listed completely yet: {missing:?}\n"),
        )
    }
}

async fn metrics(State(facts): State<Facts>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], facts.metrics.text())
}
