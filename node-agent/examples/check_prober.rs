//! `make bench-checks`: the agent's health checks by themselves, of targets in 127/8, and what they cost.
//!
//! `check_prober TCP_PORT TCP_COUNT HTTP_PORT HTTP_COUNT PERIOD_SECONDS SECONDS` prints one JSON object: processor time of
//! the last half of the run, and memory.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use lvs_agent::health::HealthExchange;
use lvs_agent::health::credentials::CredentialFiles;
use lvs_core::health::{Check, Health};
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;

/// The first target, 127.1.0.0.
const FIRST_TARGET: u32 = 0x7f01_0000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .map(|text| {
            text.parse()
                .with_context(|| format!("{text:?} is no number"))
        })
        .collect::<anyhow::Result<_>>()?;
    let [
        tcp_port,
        tcp_count,
        http_port,
        http_count,
        period_seconds,
        seconds,
    ] = numbers[..]
    else {
        bail!("usage: check_prober TCP_PORT TCP_COUNT HTTP_PORT HTTP_COUNT PERIOD_SECONDS SECONDS");
    };
    let question = |type_| -> anyhow::Result<_> {
        Ok(Arc::new(HealthCheck {
            period_seconds: u16::try_from(period_seconds)?,
            ..HealthCheck::new(String::new(), type_)
        }))
    };
    let (tcp, http) = (
        question(HealthCheckType::TCP)?,
        question(HealthCheckType::HTTP)?,
    );
    let mut wanted = BTreeMap::new();
    for index in 0..tcp_count + http_count {
        let (port, question) = if index < tcp_count {
            (tcp_port, &tcp)
        } else {
            (http_port, &http)
        };
        let address = IpAddr::V4(Ipv4Addr::from(FIRST_TARGET + index));
        let check = Check {
            target: SocketAddr::new(address, u16::try_from(port)?),
            passage: None,
            subject: None,
            question: Arc::clone(question),
            means: Arc::default(),
        };
        let cadence = check.cadence();
        wanted.insert(check, cadence);
    }
    let exchange = HealthExchange::default();
    exchange.want(&wanted, |_| Health::Unknown);
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    let half = Duration::from_secs(seconds.into()) / 2;
    tokio::time::sleep(half).await;
    let before = processor_seconds()?;
    tokio::time::sleep(half).await;
    let share = (processor_seconds()? - before) / half.as_secs_f64();
    let up = exchange.with(|checks| {
        checks
            .all()
            .filter(|(_, health)| **health == Health::Up)
            .count()
    });
    asker.abort();
    println!(
        "{}",
        json!({
            "processor_share": share,
            "resident_megabytes": resident_megabytes()?,
            "up": up,
        })
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "minutes in microseconds")]
fn processor_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(microseconds as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "gigabytes at most")]
fn resident_megabytes() -> anyhow::Result<f64> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.max_rss() as f64 / 1024.0)
}
