//! Which replica works: the election machine of the routers, on a Lease of the controller's own.
//!
//! Two replicas that plan at once would be wasteful, not harmful: every write of a plan is bound to the
//! version that it was planned from. So nothing is fenced here; a replica that loses the Lease stops
//! planning and goes on watching.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use lvs_core::election::{
    Config, Effect, Event, Identity, LeaseRecord, LeaseWrite, Machine, Source, Tick, Timing,
    WritePurpose,
};
use lvs_crds::CONTROLLER_FIELD_MANAGER;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::watch::WatchBackoff;

/// Seconds without renewal after which another replica takes over.
const LEASE_SECONDS: u32 = 15;
/// Versions of the Lease kept, of which the election may base a write on one.
const VERSIONS: usize = 8;
/// Seconds of one watch request.
const WATCH_SECONDS: u32 = 30;

/// A candidate of the controller's election.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    machine: Machine,
    began: Instant,
    timeout: Duration,
    versions: VecDeque<Lease>,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    is_leader: watch::Sender<bool>,
    shutdown: watch::Receiver<bool>,
}

/// What the API answered, and the Lease it showed.
struct Answer {
    event: Event,
    lease: Option<Lease>,
}

impl Candidate {
    /// `pod_name` is the identity; `incarnation` differs at every start of the process.
    pub fn new(
        client: Client,
        namespace: &str,
        name: String,
        identity: Identity,
        is_leader: watch::Sender<bool>,
        shutdown: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let timing = Timing::for_lease_seconds(LEASE_SECONDS).context("times of the election")?;
        let began = Instant::now();
        let machine = Machine::new(identity, Config::stateless(timing), None, Tick::default());
        Ok(Self {
            leases: Api::namespaced(client, namespace),
            name,
            timeout: machine.timing().write_timeout(),
            machine,
            began,
            versions: VecDeque::new(),
            requests: FuturesUnordered::new(),
            is_leader,
            shutdown,
        })
    }

    /// Takes part until a shutdown is asked for and the Lease is released.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(WATCH_SECONDS);
        let mut watch = watcher(self.leases.clone(), config)
            .backoff(WatchBackoff::default())
            .boxed();
        let mut is_listed = false;
        let mut is_ending = false;
        let mut event = Event::Deadline;
        loop {
            if self.advance(event) {
                return Ok(());
            }
            let now = self.now();
            let deadline = self
                .machine
                .next_deadline()
                .map(|deadline| deadline.since(now));
            // Every branch is cancel safe: nothing is taken from a queue without becoming the event.
            event = tokio::select! {
                Some(answer) = self.requests.next(), if !self.requests.is_empty() => {
                    self.keep(answer.lease);
                    answer.event
                }
                item = watch.next() => match item {
                    None => bail!("the watch of Lease {} has ended", self.name),
                    Some(Ok(item)) => self.watched(item, &mut is_listed),
                    Some(Err(error)) => {
                        tracing::debug!("watching Lease {}: {error}", self.name);
                        Event::WatchLost
                    }
                },
                changed = self.shutdown.changed(), if !is_ending => {
                    is_ending = changed.is_err() || *self.shutdown.borrow();
                    if is_ending { Event::ShutdownRequested } else { Event::Deadline }
                }
                () = sleep(deadline) => Event::Deadline,
            };
        }
    }

    fn now(&self) -> Tick {
        Tick::default() + self.began.elapsed()
    }

    fn watched(&mut self, item: watcher::Event<Lease>, is_listed: &mut bool) -> Event {
        match item {
            watcher::Event::Apply(lease) | watcher::Event::InitApply(lease) => {
                *is_listed = true;
                let seen = record(&lease);
                self.keep(Some(lease));
                Event::Seen(seen, Source::Watch)
            }
            watcher::Event::Init => {
                *is_listed = false;
                Event::Deadline
            }
            watcher::Event::InitDone if *is_listed => Event::Deadline,
            watcher::Event::InitDone | watcher::Event::Delete(_) => {
                self.requests.push(self.create());
                Event::Absent(Source::Watch)
            }
        }
    }

    fn keep(&mut self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.versions.push_back(lease);
            if self.versions.len() > VERSIONS {
                self.versions.pop_front();
            }
        }
    }

    /// Feeds one event and carries out its effects; says whether the election has stopped.
    fn advance(&mut self, event: Event) -> bool {
        let mut has_stopped = false;
        for effect in self.machine.handle(event, self.now()) {
            match effect {
                Effect::Read => self.requests.push(self.read()),
                Effect::Write(write) => self.requests.push(self.write(&write)),
                Effect::Hold(_) => self.lead(true),
                // Who succeeds it plans already.
                Effect::Yield => self.lead(false),
                Effect::Drop(reason) => {
                    tracing::info!("this replica stops planning: {reason:?}");
                    self.lead(false);
                }
                // Replicas know each other by the Lease alone.
                Effect::Say(_) => {}
                Effect::Stop => has_stopped = true,
            }
        }
        has_stopped
    }

    fn lead(&self, is_leader: bool) {
        let changed = self
            .is_leader
            .send_if_modified(|value| std::mem::replace(value, is_leader) != is_leader);
        if changed && is_leader {
            tracing::info!("this replica plans");
        }
    }

    fn read(&self) -> BoxFuture<'static, Answer> {
        let (leases, name, timeout) = (self.leases.clone(), self.name.clone(), self.timeout);
        async move {
            match tokio::time::timeout(timeout, leases.get_opt(&name)).await {
                Ok(Ok(Some(lease))) => Answer {
                    event: Event::Seen(record(&lease), Source::Read),
                    lease: Some(lease),
                },
                Ok(Ok(None)) => Answer {
                    event: Event::Absent(Source::Read),
                    lease: None,
                },
                Ok(Err(_)) | Err(_) => Answer {
                    event: Event::ReadFailed,
                    lease: None,
                },
            }
        }
        .boxed()
    }

    /// Nobody else makes this Lease: the first replica does. If another was faster, the watch shows it.
    fn create(&self) -> BoxFuture<'static, Answer> {
        let (leases, name, timeout) = (self.leases.clone(), self.name.clone(), self.timeout);
        async move {
            let body = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec::default()),
            };
            match tokio::time::timeout(timeout, leases.create(&parameters(), &body)).await {
                Ok(Ok(lease)) => Answer {
                    event: Event::Seen(record(&lease), Source::Read),
                    lease: Some(lease),
                },
                Ok(Err(error)) => {
                    tracing::debug!("creating Lease {name}: {error}");
                    Answer {
                        event: Event::ReadFailed,
                        lease: None,
                    }
                }
                Err(_) => Answer {
                    event: Event::ReadFailed,
                    lease: None,
                },
            }
        }
        .boxed()
    }

    fn write(&self, write: &LeaseWrite) -> BoxFuture<'static, Answer> {
        let is_base = |lease: &&Lease| {
            lease.metadata.resource_version.as_deref() == Some(write.resource_version.as_str())
        };
        let Some(seen) = self.versions.iter().rev().find(is_base) else {
            // So many versions later this one is not current any more.
            return std::future::ready(Answer {
                event: Event::Conflict,
                lease: None,
            })
            .boxed();
        };
        let Some(body) = written(seen, write, Timestamp::now()) else {
            return std::future::ready(Answer {
                event: Event::WriteRefused,
                lease: None,
            })
            .boxed();
        };
        let (leases, name, timeout, text) = (
            self.leases.clone(),
            self.name.clone(),
            self.timeout,
            write.to_string(),
        );
        async move {
            match tokio::time::timeout(timeout, leases.replace(&name, &parameters(), &body)).await {
                Ok(Ok(lease)) => Answer {
                    event: Event::Acknowledged(record(&lease)),
                    lease: Some(lease),
                },
                Ok(Err(error)) => {
                    tracing::debug!("Lease {name}: {text}: {error}");
                    Answer {
                        event: refusal(&error),
                        lease: None,
                    }
                }
                Err(_) => Answer {
                    event: Event::WriteFailed,
                    lease: None,
                },
            }
        }
        .boxed()
    }
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// What an error of a write proves. Only an answer that says so proves that nothing was written.
fn refusal(error: &kube::Error) -> Event {
    let kube::Error::Api(status) = error else {
        return Event::WriteFailed;
    };
    match status.code {
        409 => Event::Conflict,
        404 => Event::LeaseGone,
        400 | 403 | 413 | 415 | 422 => Event::WriteRefused,
        _ => Event::WriteFailed,
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    LeaseRecord {
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: Identity::parse(spec.holder_identity.as_deref().unwrap_or_default()),
        epoch: spec
            .lease_transitions
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or_default(),
        lease_duration: seconds.map_or(Duration::ZERO, Duration::from_secs),
        renewed: spec
            .renew_time
            .map(|time| time.0.to_string())
            .unwrap_or_default(),
        // A replica hands nothing over: it releases.
        offered: false,
        challenger: None,
    }
}

/// The Lease to send; the times in it are for people. `None`: a number does not fit the API's 32 bits.
fn written(seen: &Lease, write: &LeaseWrite, wall_clock: Timestamp) -> Option<Lease> {
    let mut lease = seen.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = write.holder.as_ref().map(ToString::to_string);
    spec.lease_transitions = Some(i32::try_from(write.epoch).ok()?);
    spec.lease_duration_seconds = Some(i32::try_from(write.lease_duration.as_secs()).ok()?);
    spec.renew_time = Some(MicroTime(wall_clock));
    if write.purpose == WritePurpose::Acquire {
        spec.acquire_time = Some(MicroTime(wall_clock));
    }
    Some(lease)
}
