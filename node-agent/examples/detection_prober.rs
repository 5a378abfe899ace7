//! `make bench-detection`: how long after a listener's death the agent's health checks say so, natively.
//!
//! `detection_prober DEATHS`: 8 listeners of one kind and 8 of the other die DEATHS times each; prints one JSON object.
//! Each is asked every second, with 1 s for an answer, and is down after two failures.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use lvs_agent::health::HealthExchange;
use lvs_agent::health::credentials::CredentialFiles;
use lvs_core::health::{Check, Health};
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The first target, 127.2.0.0.
const FIRST_TARGET: u32 = 0x7f02_0000;
const PORT: u16 = 18082;
/// Listeners of each kind.
const LISTENERS: u32 = 8;
const PERIOD_SECONDS: u16 = 1;
const TIMEOUT_SECONDS: u16 = 1;
const FAILURE_THRESHOLD: u8 = 2;
/// Above what the settings say, for the program itself.
const ALLOWANCE_SECONDS: f64 = 0.05;
const BACKLOG: i32 = 128;

/// How a listener dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// It is gone: the kernel refuses.
    Refused,
    /// It takes nothing any more: the kernel drops the first segment, and the check's time runs out.
    Silent,
}

impl Death {
    /// When it must be noticed at the latest.
    fn bound_seconds(self) -> f64 {
        let rounds = f64::from(PERIOD_SECONDS) * f64::from(FAILURE_THRESHOLD);
        let waited = match self {
            Self::Refused => 0.0,
            Self::Silent => f64::from(TIMEOUT_SECONDS),
        };
        rounds + waited + ALLOWANCE_SECONDS
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let deaths = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let deaths: u32 = deaths.context("usage: detection_prober DEATHS")?;
    let question = Arc::new(HealthCheck {
        period_seconds: PERIOD_SECONDS,
        timeout_seconds: TIMEOUT_SECONDS,
        failure_threshold: FAILURE_THRESHOLD,
        ..HealthCheck::new(String::new(), HealthCheckType::TCP)
    });
    let check = |index: u32| Check {
        target: SocketAddr::from((Ipv4Addr::from(FIRST_TARGET + index), PORT)),
        question: Arc::clone(&question),
        passage: None,
        subject: None,
        means: Arc::default(),
    };
    let checks: Vec<Check> = (0..2 * LISTENERS).map(check).collect();
    let wanted: BTreeMap<_, _> = checks
        .iter()
        .map(|check| (check.clone(), check.cadence()))
        .collect();
    let exchange = HealthExchange::default();
    exchange.want(&wanted, |_| Health::Unknown);
    let asker = tokio::spawn(exchange.clone().ask(CredentialFiles::default()));
    let victims: Vec<_> = checks
        .into_iter()
        .zip(0_u32..)
        .map(|(check, index)| {
            let death = if index < LISTENERS {
                Death::Refused
            } else {
                Death::Silent
            };
            let victim = die_repeatedly(exchange.clone(), check, death, index, deaths);
            (death, tokio::spawn(victim))
        })
        .collect();
    let (mut refused, mut silent) = (Vec::new(), Vec::new());
    for (death, victim) in victims {
        let seconds = victim.await??;
        match death {
            Death::Refused => refused.extend(seconds),
            Death::Silent => silent.extend(seconds),
        }
    }
    asker.abort();
    println!(
        "{}",
        json!({
            "refused": figures(Death::Refused, refused),
            "silent": figures(Death::Silent, silent),
        })
    );
    Ok(())
}

/// Seconds from each death until it was known.
async fn die_repeatedly(
    exchange: HealthExchange,
    check: Check,
    death: Death,
    index: u32,
    deaths: u32,
) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for number in 0..deaths {
        let listener = Listener::start(check.target)?;
        await_health(&exchange, &check, |health| *health == Health::Up).await;
        // Any moment between two checks: parts of a period that fall everywhere (multiples of the golden ratio).
        let part = (f64::from(index * deaths + number) * 0.618_034).fract();
        tokio::time::sleep(Duration::from_secs(PERIOD_SECONDS.into()).mul_f64(part)).await;
        let died = Instant::now();
        let remains = listener.die(death).await?;
        await_health(&exchange, &check, |health| {
            matches!(health, Health::Down(_))
        })
        .await;
        seconds.push(died.elapsed().as_secs_f64());
        drop(remains);
    }
    Ok(seconds)
}

async fn await_health(exchange: &HealthExchange, check: &Check, is_so: impl Fn(&Health) -> bool) {
    let mut bell = exchange.bell();
    while !is_so(&exchange.with(|checks| checks.health(check))) {
        if bell.changed().await.is_err() {
            return;
        }
    }
}

/// Takes connections and ends them.
struct Listener {
    socket: Socket,
    target: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Listener {
    fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(target))?;
        socket.listen(BACKLOG)?;
        let listener = tokio::net::TcpListener::from_std(socket.try_clone()?.into())?;
        let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        Ok(Self {
            socket,
            target,
            accepting,
        })
    }

    /// What has to be kept for it to stay dead.
    async fn die(self, death: Death) -> anyhow::Result<Option<(Socket, TcpStream)>> {
        self.accepting.abort();
        let _ = self.accepting.await;
        if death == Death::Refused {
            return Ok(None);
        }
        // Room for one connection that nobody takes: it is this one.
        self.socket.listen(0)?;
        let first = TcpStream::connect(self.target).await?;
        Ok(Some((self.socket, first)))
    }
}

fn figures(death: Death, mut seconds: Vec<f64>) -> Value {
    seconds.sort_by(f64::total_cmp);
    let last = seconds.len().saturating_sub(1);
    let at = |percent: usize| seconds.get((last * percent).div_ceil(100));
    let bound = death.bound_seconds();
    json!({
        "deaths": seconds.len(),
        "minimum_seconds": at(0),
        "median_seconds": at(50),
        "p99_seconds": at(99),
        "maximum_seconds": at(100),
        "bound_seconds": bound,
        "over_bound": seconds.iter().filter(|seconds| **seconds > bound).count(),
    })
}
