//! How long an API write takes: renewals of a Lease of the probe's own.

use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lvs_e2e::failover::record::{Line, Writer};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::now;

/// A write that has no answer by now has failed.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "default";
const LEASE: &str = "failover-probe";

/// Renews a Lease of its own until it is told to end.
pub async fn write_leases(
    writer: Writer,
    lines: Sender<Line>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(&writer.kubeconfig)
        .with_context(|| format!("reading {}", writer.kubeconfig))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api: Api<Lease> = Api::namespaced(Client::try_from(config)?, NAMESPACE);
    let parameters = PostParams::default();
    let mut lease: Option<Lease> = None;
    let mut rhythm = interval(Duration::from_millis(writer.rhythm_milliseconds));
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = rhythm.tick() => {} _ = stopped.changed() => return Ok(()) }
        let renewal = async {
            let Some(known) = lease.take() else {
                // The first write, or the first after a failure: not a renewal, so not measured.
                let current = if let Some(found) = api.get_opt(LEASE).await? {
                    found
                } else {
                    let object: Lease =
                        serde_json::from_value(json!({"metadata": {"name": LEASE}}))?;
                    api.create(&parameters, &object).await?
                };
                return anyhow::Ok((current, None));
            };
            let mut next = known;
            let spec = next.spec.get_or_insert_default();
            spec.holder_identity = Some(writer.host.clone());
            spec.renew_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                jiff::Timestamp::now(),
            ));
            let (at, begun) = (now(), Instant::now());
            let renewed = api.replace(LEASE, &parameters, &next).await?;
            Ok((renewed, Some((at, begun.elapsed()))))
        };
        let at = now();
        let ended = tokio::select! { ended = timeout(WRITE_LIMIT, renewal) => ended, _ = stopped.changed() => return Ok(()) };
        let failed = match ended {
            Ok(Ok((current, measured))) => {
                lease = Some(current);
                if let Some((at, elapsed)) = measured {
                    let microseconds = i64::try_from(elapsed.as_micros())?;
                    let _ = lines.send(Line::Write {
                        at,
                        microseconds,
                        error: String::new(),
                    });
                }
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", WRITE_LIMIT.as_secs()),
        };
        let _ = lines.send(Line::Write {
            at,
            microseconds: now() - at,
            error: failed,
        });
    }
}
