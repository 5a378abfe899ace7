//! /livez, /readyz and /metrics; `lvs_scrape` says where the last is and for whom. Answers are computed from facts when asked, never set once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::Client;
use lvs_scrape::ScrapeArguments;
use prometheus_client::registry::Registry;

use crate::limits::{READY_INTERVALS, STALLED};

/// What is known of the sync loop.
#[derive(Clone, Debug)]
struct LoopFacts {
    /// When the loop last turned, whatever came of it.
    turned: Instant,
    /// When a pass last was complete: everything read, written and read again.
    complete: Option<Instant>,
    /// Why the last pass was not.
    blind: Option<String>,
    /// Whether there is anything to go by: plans from the API or from the cache.
    informed: bool,
}

/// Health of the agent as facts. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Health {
    facts: Arc<Mutex<LoopFacts>>,
    oldest: Duration,
}

impl Health {
    /// Nothing known yet.
    pub fn new(resync_interval: Duration) -> Self {
        let facts = LoopFacts {
            turned: Instant::now(),
            complete: None,
            blind: None,
            informed: false,
        };
        Self {
            facts: Arc::new(Mutex::new(facts)),
            oldest: resync_interval * READY_INTERVALS,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut LoopFacts) -> T) -> T {
        look(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The loop turned without a pass: it has nothing to go by.
    pub fn waiting(&self) {
        self.with(|facts| facts.turned = Instant::now());
    }

    /// A pass ended; `blind` says why it was not complete.
    pub fn passed(&self, blind: Option<String>) {
        self.with(|facts| {
            let now = Instant::now();
            facts.turned = now;
            facts.informed = true;
            if blind.is_none() {
                facts.complete = Some(now);
            }
            facts.blind = blind;
        });
    }

    fn live(&self, now: Instant) -> Result<(), String> {
        let still = self.with(|facts| now.saturating_duration_since(facts.turned));
        if still > STALLED {
            return Err(format!(
                "the sync loop has not turned for {} s",
                still.as_secs()
            ));
        }
        Ok(())
    }

    fn ready(&self, now: Instant) -> Result<(), String> {
        let facts = self.with(|facts| facts.clone());
        if !facts.informed {
            return Err(
                "neither the API server nor the cache has told the plans of this node".to_owned(),
            );
        }
        if let Some(blind) = facts.blind {
            return Err(blind);
        }
        match facts.complete {
            None => Err("the plans of this node are not verified yet".to_owned()),
            Some(complete) if now.saturating_duration_since(complete) > self.oldest => {
                Err(format!(
                    "the plans of this node were last verified {} s ago",
                    now.saturating_duration_since(complete).as_secs()
                ))
            }
            Some(_) => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Served {
    registry: Arc<Registry>,
    scrape: Arc<tokio::sync::Mutex<()>>,
}

/// Serves until the process ends.
pub async fn run(
    address: SocketAddr,
    scrape: ScrapeArguments,
    client: Client,
    health: Health,
    registry: Arc<Registry>,
) -> anyhow::Result<()> {
    let health = Router::new()
        .route(
            "/livez",
            get(|State(health): State<Health>| async move { answer(health.live(Instant::now())) }),
        )
        .route(
            "/readyz",
            get(|State(health): State<Health>| async move { answer(health.ready(Instant::now())) }),
        )
        .with_state(health);
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Served {
            registry,
            scrape: Arc::default(),
        });
    lvs_scrape::serve(address, health, metrics, &scrape, client).await?;
    anyhow::bail!("the HTTP server ended")
}

fn answer(fact: Result<(), String>) -> Response {
    match fact {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let Served { registry, scrape } = served;
    // However many ask, one thread is busy with it, and none that leadership needs.
    let scrape = scrape.lock_owned().await;
    let encoded = tokio::task::spawn_blocking(move || {
        let _scrape = scrape;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map(|()| text)
    });
    let error = match encoded.await {
        Ok(Ok(text)) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            return ([(header::CONTENT_TYPE, kind)], text).into_response();
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    (StatusCode::INTERNAL_SERVER_ERROR, error).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn readiness_follows_the_facts() {
        let health = Health::new(Duration::from_secs(10));
        assert!(health.ready(Instant::now()).is_err());
        health.passed(None);
        assert_eq!(health.ready(Instant::now()), Ok(()));
        health.passed(Some("cannot read the IPVS services".into()));
        assert_eq!(
            health.ready(Instant::now()),
            Err("cannot read the IPVS services".into())
        );
        health.passed(None);
        assert!(health.ready(later(31)).is_err());
    }

    #[test]
    fn a_loop_that_stands_still_is_not_alive() {
        let health = Health::new(Duration::from_secs(10));
        assert_eq!(health.live(Instant::now()), Ok(()));
        assert!(health.live(later(STALLED.as_secs() + 1)).is_err());
    }
}
