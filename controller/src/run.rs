//! The process: every task, and the rule that the first to end ends all.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use lvs_core::election::Identity;
use lvs_traces::{KeyValue, Origin};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::apply::Writer;
use crate::args::RunArguments;
use crate::change_traces::{Arrivals, ChangeTraces};
use crate::dns::Dns;
use crate::http::{self, Facts};
use crate::leadership::Candidate;
use crate::metrics::Metrics;
use crate::reconcile::{Pulse, Reconciler};
use crate::resolver::NameResolver;
use crate::snapshot::Settings;
use crate::status::StatusWriter;
use crate::watch::Watches;
use crate::world::SharedWorld;

const LEADERSHIP: &str = "leadership";
/// Longest time for releasing the Lease at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT, or until a task ends.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let client = Client::try_default()
        .await
        .context("finding the API server")?;
    let world = SharedWorld::default();
    let metrics = Arc::new(Metrics::default());
    let pulse = Pulse::default();
    let (outcomes, outcomes_receiver) = watch::channel(None);
    let (names, names_receiver) = watch::channel(BTreeSet::new());
    let (is_leader, is_leader_receiver) = watch::channel(false);
    let (shutdown, shutdown_receiver) = watch::channel(false);
    let identity = Identity {
        node: arguments.pod_name.clone(),
        incarnation: incarnation(),
    };
    let candidate = Candidate::new(
        client.clone(),
        &arguments.namespace,
        arguments.lease_name.clone(),
        identity,
        is_leader,
        shutdown_receiver,
    )?;

    let origin = origin(&arguments);
    let exported = lvs_traces::start(&arguments.traces, origin, arguments.otlp_sampling_ratio);
    if let Some((_, exporting)) = &exported {
        metrics.register_spans(&exporting.counts);
        world.lock().arrivals = Some(Arrivals::new());
    }
    let (tracer, exporting) = exported.unzip();

    let watches = Watches {
        client: client.clone(),
        world: world.clone(),
        metrics: metrics.clone(),
        namespace: arguments.namespace.clone(),
        agent_pod_selector: arguments.agent_pod_selector.clone(),
    };
    let reconciler = Reconciler {
        world: world.clone(),
        settings: Settings {
            namespace: arguments.namespace.clone(),
            firewall_mark_range: arguments.firewall_mark_range.clone(),
        },
        writer: Writer::new(
            client.clone(),
            arguments.namespace.clone(),
            world.clone(),
            metrics.clone(),
        ),
        metrics: metrics.clone(),
        pulse: pulse.clone(),
        outcomes,
        names,
        is_leader: is_leader_receiver.clone(),
        traces: tracer.map(ChangeTraces::new).map(Mutex::new),
    };
    let resolver = NameResolver {
        world: world.clone(),
        names: names_receiver,
        dns: Dns::of_system(),
    };
    let status = StatusWriter::new(
        client.clone(),
        world.clone(),
        metrics.clone(),
        arguments.pod_name.clone(),
    );
    let facts = Facts {
        world,
        metrics,
        pulse,
    };

    let mut tasks: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();
    macro_rules! watch {
        ($($method:ident),+) => {$(
            let watch = watches.clone();
            tasks.spawn(async move { watch.$method().await; (stringify!($method), Ok(())) });
        )+};
    }
    watch!(
        virtual_services,
        real_servers,
        endpoint_slices,
        ca_bundles,
        virtual_routers,
        node_plans,
        nodes,
        namespaces,
        leases,
        agent_pods
    );
    watch!(api_endpoints, service_cidrs);
    tasks.spawn(async { ("planning", reconciler.run().await) });
    tasks.spawn(async { ("names", resolver.run().await) });
    tasks.spawn(async {
        (
            "status",
            status.run(outcomes_receiver, is_leader_receiver).await,
        )
    });
    let (address, scrape) = (arguments.http_address, arguments.scrape);
    tasks.spawn(async move { ("http", http::serve(address, scrape, client, facts).await) });
    tasks.spawn(async { (LEADERSHIP, candidate.run().await) });
    tracing::info!(
        "lvs-controller {} in namespace {}",
        env!("CARGO_PKG_VERSION"),
        arguments.namespace
    );

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = tasks.join_next() => return Err(ending(ended)),
    }
    tracing::info!("asked to end; nodes go on with their plans");
    shutdown.send_replace(true);
    // Releasing the Lease spares the other replica the wait for its expiry.
    let Ok(ended) = tokio::time::timeout(RELEASE_TIMEOUT, tasks.join_next()).await else {
        let seconds = RELEASE_TIMEOUT.as_secs();
        tracing::warn!("the Lease could not be released in {seconds} s");
        return Ok(());
    };
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    match ended {
        Some(Ok((LEADERSHIP, result))) => result,
        other => Err(ending(other)),
    }
}

/// Who makes the spans.
fn origin(arguments: &RunArguments) -> Origin {
    let attributes = [
        ("k8s.pod.name", &arguments.pod_name),
        ("k8s.namespace.name", &arguments.namespace),
    ];
    Origin {
        service: "lvs-controller",
        version: env!("CARGO_PKG_VERSION"),
        attributes: attributes
            .map(|(name, value)| KeyValue::new(name, value.clone()))
            .to_vec(),
    }
}

fn ending(ended: Option<Result<(&'static str, anyhow::Result<()>), JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok((task, Ok(())))) => anyhow!("task {task} ended"),
        Some(Ok((task, Err(error)))) => error.context(format!("task {task}")),
        Some(Err(error)) => anyhow::Error::new(error).context("a task panicked"),
        None => anyhow!("no task"),
    }
}

/// Differs at every start: nanoseconds of the wall clock, which nobody compares with anything.
fn incarnation() -> String {
    format!("{:x}", Timestamp::now().as_nanosecond())
}
