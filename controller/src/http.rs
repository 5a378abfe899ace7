//! /livez, /readyz and /metrics; `lvs_scrape` says where the last is and for whom. Readiness is computed from facts at every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use kube::Client;
use lvs_scrape::ScrapeArguments;
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
pub async fn serve(
    address: SocketAddr,
    scrape: ScrapeArguments,
    client: Client,
    facts: Facts,
) -> anyhow::Result<()> {
    let health = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(facts.clone());
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .with_state(facts);
    lvs_scrape::serve(address, health, metrics, &scrape, client).await
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
