//! The process: tasks are started together, and the first to end ends them all.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use lvs_ipvs::ClientOptions;
use lvs_traces::{KeyValue, Origin};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::api_endpoints::{self, ApiAccess};
use crate::args::RunArguments;
use crate::drive::{Wiring, drive};
use crate::health::credentials::CredentialFiles;
use crate::http::{self, Health};
use crate::kernel::Host;
use crate::kernel::link_watch::LinkWatch;
use crate::kernel::removal_watch::RemovalWatch;
use crate::leadership::claim_watch::ClaimWatch;
use crate::leadership::fence::FenceError;
use crate::leadership::heartbeat::HeartbeatConfig;
use crate::leadership::journal::JournalError;
use crate::leadership::{Leadership, LeadershipConfig, LeadershipError};
use crate::leading::Leading;
use crate::limits::{KERNEL_ANSWER, LAST_STATUS_WRITE, LOCK, LOCK_RETRY, PLAN_EVENTS};
use crate::metrics::Metrics;
use crate::plan_traces::PlanTraces;
use crate::plan_watch;
use crate::report::last_word;
use crate::status::{Reports, StatusWriter};
use crate::sync::{Directories, Syncer};

/// The agent begins no trace: of those that the controller has begun it continues what that has sampled.
const NOT_BEGUN_HERE: f64 = 0.0;
/// Identity of this boot.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs until SIGTERM or SIGINT, which leave the kernel as it is, or until a part fails.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let boot_id = std::fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    let boot_id = boot_id.trim().to_owned();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = arguments.node_name,
        namespace = arguments.namespace,
        boot_id,
        "starting"
    );
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let ApiAccess {
        client,
        endpoints,
        addresses,
    } = api_endpoints::connect(arguments.api_endpoints.clone()).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let health = Health::new(arguments.resync_interval());
    let mut leadership = start_leadership(LeadershipConfig {
        client: client.clone(),
        endpoints,
        namespace: arguments.namespace.clone(),
        node_name: arguments.node_name.clone(),
        incarnation: incarnation()?,
        runtime_directory: arguments.runtime_directory.clone(),
        heartbeat: arguments
            .heartbeat_key_directory
            .clone()
            .map(|key_directory| HeartbeatConfig {
                port: arguments.heartbeat_port,
                key_directory,
            }),
    })
    .await?;
    let exported = lvs_traces::start(&arguments.traces, origin(&arguments), NOT_BEGUN_HERE);
    if let Some((_, exporting)) = &exported {
        let registry = registry.sub_registry_with_prefix(crate::metrics::PREFIX);
        exporting.counts.register(registry);
    }
    let (tracer, exporting) = exported.unzip();
    let plan_traces = tracer.map(PlanTraces::new);
    let status_traces = plan_traces.as_ref().map(PlanTraces::statuses);
    registry.register_collector(leadership.collector());
    let leadership_failure = leadership.failure();
    let claims = (leadership.addresses(), leadership.claims());
    let leadership = Leading::new(leadership);
    let bell = leadership.bell();

    let host = Host {
        sysctl_directory: arguments.sysctl_directory.clone(),
        timeout: KERNEL_ANSWER,
    };
    let ipvs = lvs_ipvs::Client::new(ClientOptions {
        timeout: KERNEL_ANSWER,
        ..ClientOptions::default()
    });
    let removal_watch = RemovalWatch::open()?;
    let syncer = Syncer::open(
        (ipvs, host, leadership),
        &arguments.node_name,
        &boot_id,
        &Directories {
            state: &arguments.state_directory,
            runtime: &arguments.runtime_directory,
        },
        metrics.clone(),
    )?
    .with_api_endpoints(addresses)
    .with_removals(removal_watch.removals())
    .with_traces(plan_traces)
    .with_check_marks(arguments.health_check_mark_range.clone());
    let endpoints = syncer.endpoints.clone();
    registry.register_collector(endpoints.collector());
    let real_servers = syncer.real_servers.clone();
    real_servers.register(&mut registry);
    registry.register_collector(syncer.statistics.collector());
    let link_watch = LinkWatch::open(KERNEL_ANSWER)?;
    let links = link_watch.links();
    let (events_sender, events) = mpsc::channel(PLAN_EVENTS);
    let (reports, reports_receiver) = watch::channel(Reports::new());
    let (stop, stop_receiver) = watch::channel(false);
    let wiring = Wiring {
        events,
        leadership: bell,
        links: link_watch.links(),
        removals: removal_watch.removals(),
        endpoints: endpoints.bell(),
        real_servers: real_servers.bell(),
        stop: stop_receiver,
        reports,
        health: health.clone(),
        resync_interval: arguments.resync_interval(),
    };
    let (ended_sender, mut ended) = oneshot::channel::<()>();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || {
            // Dropped when the loop returns, and also when it panics.
            let _ended = ended_sender;
            drive(syncer, wiring, &runtime)
        })
        .context("starting the sync thread")?;

    let mut tasks: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();
    let watch = plan_watch::run(
        client.clone(),
        arguments.namespace.clone(),
        arguments.node_name.clone(),
        events_sender,
    );
    tasks.spawn(async { ("plan watch", watch.await) });
    tasks.spawn(async {
        let ended = link_watch.run().await.map_err(anyhow::Error::from);
        ("link watch", ended)
    });
    tasks.spawn(async {
        let ended = removal_watch.run().await.map_err(anyhow::Error::from);
        ("removal watch", ended)
    });
    tasks.spawn(async { ("endpoints", endpoints.ask().await) });
    let secret = arguments.health_check_credentials_secret;
    let directory = arguments.health_check_credentials_directory;
    let credentials = directory.map(|directory| CredentialFiles::new(directory, secret));
    let credentials = credentials.unwrap_or_default();
    tasks.spawn(async { ("health checks", real_servers.ask(credentials).await) });
    match ClaimWatch::open() {
        Ok(watch) => {
            let (addresses, notice) = claims;
            let watch = watch.run(links, addresses, notice);
            tasks.spawn(async { ("claim watch", watch.await.map_err(anyhow::Error::from)) });
        }
        // Without it nothing is announced either, which each address tells by itself.
        Err(error) => tracing::error!("claims of others on our addresses are not heard: {error}"),
    }
    let writer = || {
        StatusWriter::new(
            client.clone(),
            &arguments.namespace,
            &arguments.node_name,
            &boot_id,
            metrics.clone(),
        )
        .with_traces(status_traces.clone())
    };
    let (writer, last_writer) = (writer(), writer());
    let last_reports = reports_receiver.clone();
    tasks.spawn(async { ("status", writer.run(reports_receiver).await) });
    let (address, scrape, client) = (arguments.http_address, arguments.scrape, client.clone());
    let served = http::run(address, scrape, client, health, Arc::new(registry));
    tasks.spawn(async move { ("http", served.await) });

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        failure = leadership_failure => Err(failure.into()),
        _ = &mut ended => Err(anyhow::anyhow!("the sync loop ended")),
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended"),
            Ok((name, Err(error))) => error.context(name),
            Err(error) => anyhow::Error::from(error).context("a task failed"),
        }),
    };
    // The pass at hand is finished, so that no service is left half-written.
    stop.send_replace(true);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    let Ok(leadership) = joined else {
        anyhow::bail!("the sync thread panicked");
    };
    let cause = outcome?;
    tracing::info!("stopping on {cause}; the kernel is left as it is");
    let view = leadership.shutdown().await;
    tasks.abort_all();
    // No pass follows that would tell what came of it.
    let last_words: Reports = last_reports
        .borrow()
        .iter()
        .filter_map(|(name, report)| Some((name.clone(), last_word(report, &view)?)))
        .collect();
    let written = last_writer.write_last(&last_words);
    if tokio::time::timeout(LAST_STATUS_WRITE, written)
        .await
        .is_err()
    {
        tracing::warn!(
            "the last statuses are not written: no answer within {} s",
            LAST_STATUS_WRITE.as_secs()
        );
    }
    // When everything else is done.
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    Ok(())
}

/// Who makes the spans.
fn origin(arguments: &RunArguments) -> Origin {
    let attributes = [
        ("k8s.node.name", &arguments.node_name),
        ("k8s.namespace.name", &arguments.namespace),
    ];
    Origin {
        service: "lvs-agent",
        version: env!("CARGO_PKG_VERSION"),
        attributes: attributes
            .map(|(name, value)| KeyValue::new(name, value.clone()))
            .to_vec(),
    }
}

/// Tells this process from every other of this node: the kernel makes a new identity at each read.
fn incarnation() -> anyhow::Result<String> {
    const IDENTITY: &str = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(IDENTITY).with_context(|| format!("reading {IDENTITY}"))?;
    Ok(text.trim().to_owned())
}

/// Starts leadership, which takes the node's lock. A killed agent keeps it for the moment the kernel needs to end it.
async fn start_leadership(config: LeadershipConfig) -> Result<Leadership, LeadershipError> {
    let deadline = Instant::now() + LOCK;
    loop {
        match Leadership::start(config.clone()) {
            Err(LeadershipError::Fence(FenceError::Journal(JournalError::Locked { path })))
                if Instant::now() < deadline =>
            {
                tracing::debug!("waiting for {}", path.display());
                tokio::time::sleep(LOCK_RETRY).await;
            }
            other => return other,
        }
    }
}
