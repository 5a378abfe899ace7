//! The lease driver of one router: carries out what the election decides, and nothing else.
//!
//! It waits for the first of: an answer of the API, an event of the watch, a word of the agent, the
//! election's own next moment. Each becomes one event; its effects are carried out before the next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use lvs_core::chronicle::{Chronicle, Departure, Happened};
use lvs_core::election::{Config, Effect, Event, LeaseWrite, Machine, Role, Source, Tick};
use lvs_core::heartbeat::Heard;
use lvs_crds::transition::Transition;
use tokio::sync::{mpsc, watch};

use super::fence::{Command, FenceReport};
use super::observations::Observations;
use super::{RoleState, RouterName, clock, lease};

/// Versions of the Lease kept, of which the election may base a write on one.
const VERSIONS: usize = 8;
/// Seconds after which the server ends a watch: a connection that died silently is noticed by then. The
/// election's own reads notice it much earlier.
const WATCH_SECONDS: u32 = 30;
/// Wait before a watch that broke is tried again. Always the same: without it a challenge is not seen, and after an outage
/// of the API server every director must have it before another trouble comes.
const WATCH_RETRY: Duration = Duration::from_millis(500);

struct WatchRetry;

impl Iterator for WatchRetry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(WATCH_RETRY)
    }
}

impl Backoff for WatchRetry {
    fn reset(&mut self) {}
}

/// What a driver is told.
#[derive(Debug)]
pub enum Control {
    /// Something about this candidate changed; why it is to leave the router to others, when it is.
    Configure(Config, Option<Departure>),
    /// Another director's heartbeat.
    Heard(Heard),
    /// The fence thread stood still until then.
    Doubted(Tick),
    /// The process is to end.
    Shutdown,
}

/// A driver ended though it must not.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The fence thread takes no commands.
    #[error("the fence thread takes no commands")]
    FenceGone,
    /// The watch ended, which it never does.
    #[error("the watch of the Lease has ended")]
    WatchEnded,
}

/// What the API answered, and the Lease it showed.
struct Answer {
    event: Event,
    lease: Option<Lease>,
}

/// One router's election at work.
pub(super) struct Driver {
    router: RouterName,
    leases: Api<Lease>,
    lease_name: String,
    machine: Machine,
    chronicle: Chronicle,
    fence: SyncSender<Command>,
    addresses: watch::Receiver<FenceReport>,
    roles: Arc<watch::Sender<BTreeMap<RouterName, RoleState>>>,
    versions: VecDeque<Lease>,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    timeout: Duration,
    last_role: Option<Role>,
    last_transition: Option<Transition>,
    observations: Observations,
}

impl Driver {
    pub(super) fn new(
        router: RouterName,
        (leases, lease_name): (Api<Lease>, String),
        (machine, chronicle): (Machine, Chronicle),
        (fence, addresses): (SyncSender<Command>, watch::Receiver<FenceReport>),
        roles: Arc<watch::Sender<BTreeMap<RouterName, RoleState>>>,
        observations: Observations,
    ) -> Self {
        Self {
            timeout: machine.timing().write_timeout(),
            router,
            leases,
            lease_name,
            machine,
            chronicle,
            fence,
            addresses,
            roles,
            versions: VecDeque::new(),
            requests: FuturesUnordered::new(),
            last_role: None,
            last_transition: None,
            observations,
        }
    }

    /// Runs until the election stops, which it does after a shutdown only.
    pub(super) async fn run(
        mut self,
        mut control: mpsc::UnboundedReceiver<Control>,
        mut api_reached: watch::Receiver<bool>,
    ) -> Result<(), DriverError> {
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={}", self.lease_name))
            .timeout(WATCH_SECONDS);
        let mut watch = watcher(self.leases.clone(), config)
            .backoff(WatchRetry)
            .boxed();
        let mut listed = false;
        let mut event = Event::Deadline;
        loop {
            if self.advance(event)? {
                return Ok(());
            }
            let now = clock::now();
            let deadline = self
                .machine
                .next_deadline()
                .into_iter()
                .chain(self.chronicle.next_look())
                .min()
                .map(|deadline| deadline.since(now));
            // Every branch is cancel safe: nothing is taken from a queue without becoming the event.
            event = tokio::select! {
                Some(answer) = self.requests.next(), if !self.requests.is_empty() => {
                    self.keep(answer.lease);
                    answer.event
                }
                item = watch.next() => match item {
                    None => return Err(DriverError::WatchEnded),
                    // What says nothing to the election is a reason to look at the time, no more.
                    Some(Ok(item)) => self.watched(item, &mut listed).unwrap_or(Event::Deadline),
                    Some(Err(error)) => {
                        tracing::debug!(router = %self.router, %error, "the watch of the Lease broke");
                        Event::WatchLost
                    }
                },
                Some(word) = control.recv() => match word {
                    Control::Configure(config, departure) => {
                        self.timeout = config.timing.write_timeout();
                        self.chronicle.depart(departure);
                        Event::Configured(config)
                    }
                    Control::Heard(heard) => Event::Heard(heard),
                    Control::Doubted(since) => Event::Doubted(since),
                    Control::Shutdown => Event::ShutdownRequested,
                },
                Ok(()) = api_reached.changed() => {
                    if *api_reached.borrow_and_update() {
                        Event::ApiBack
                    } else {
                        Event::ApiLost
                    }
                }
                Ok(()) = self.addresses.changed(), if self.chronicle.awaits_announcement() => {
                    self.note_progress();
                    Event::Deadline
                }
                () = sleep(deadline) => Event::Deadline,
            };
        }
    }

    fn note_progress(&mut self) {
        let report = self.addresses.borrow_and_update();
        let progress = report
            .routers
            .get(&self.router)
            .map(|addresses| addresses.progress);
        drop(report);
        let Some(phases) = progress.and_then(|progress| self.chronicle.announced(&progress)) else {
            return;
        };
        tracing::info!(
            router = %self.router,
            cause = phases.cause,
            whole = ?phases.whole(),
            phases = ?phases.durations,
            "takeover announced"
        );
        self.observations.took_over(&phases);
    }

    fn watched(&mut self, item: watcher::Event<Lease>, listed: &mut bool) -> Option<Event> {
        match item {
            watcher::Event::Apply(lease) | watcher::Event::InitApply(lease) => {
                *listed = true;
                let record = lease::record(&lease);
                self.keep(Some(lease));
                Some(Event::Seen(record, Source::Watch))
            }
            watcher::Event::Delete(_) => Some(Event::Absent(Source::Watch)),
            watcher::Event::Init => {
                *listed = false;
                None
            }
            watcher::Event::InitDone => (!*listed).then_some(Event::Absent(Source::Watch)),
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

    /// Feeds one event and carries out its effects. Returns whether the election has stopped.
    fn advance(&mut self, event: Event) -> Result<bool, DriverError> {
        let mut stopped = false;
        let now = clock::now();
        self.chronicle.told(&event, now);
        let effects = self.machine.handle(event, now);
        let happened = self.chronicle.said(&effects, now);
        for effect in effects {
            match effect {
                Effect::Read => self.requests.push(self.read()),
                Effect::Write(write) => {
                    tracing::debug!(router = %self.router, %write, "lease");
                    self.requests.push(self.write(&write));
                }
                Effect::Hold(hold) => self.command(Command::Hold(self.router.clone(), hold))?,
                Effect::Yield => self.command(Command::Yield(self.router.clone()))?,
                Effect::Drop(reason) => {
                    tracing::info!(router = %self.router, ?reason, "addresses are given up");
                    self.command(Command::GiveUp(self.router.clone()))?;
                }
                Effect::Say(standing) => {
                    self.command(Command::Say(self.router.clone(), standing))?;
                }
                Effect::Stop => stopped = true,
            }
        }
        for happened in happened {
            self.note(happened);
        }
        self.publish();
        Ok(stopped)
    }

    fn note(&mut self, happened: Happened) {
        let now = Timestamp::now();
        let transition = Transition {
            reason: happened.kind,
            epoch: i64::try_from(happened.epoch).unwrap_or(i64::MAX),
            peer_node_name: happened.peer,
            message: happened.why,
            // The API keeps seconds.
            time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        };
        tracing::info!(
            router = %self.router,
            reason = %transition.reason.reason(),
            epoch = transition.epoch,
            peer = transition.peer_node_name,
            why = transition.message,
            "leadership"
        );
        self.observations.happened(&self.router, transition.reason);
        self.last_transition = Some(transition);
    }

    fn command(&self, command: Command) -> Result<(), DriverError> {
        self.fence
            .try_send(command)
            .map_err(|_| DriverError::FenceGone)
    }

    fn read(&self) -> BoxFuture<'static, Answer> {
        let leases = self.leases.clone();
        let name = self.lease_name.clone();
        let timeout = self.timeout;
        async move {
            match tokio::time::timeout(timeout, leases.get_opt(&name)).await {
                Ok(Ok(Some(lease))) => Answer {
                    event: Event::Seen(lease::record(&lease), Source::Read),
                    lease: Some(lease),
                },
                Ok(Ok(None)) => Answer {
                    event: Event::Absent(Source::Read),
                    lease: None,
                },
                Ok(Err(error)) => {
                    tracing::debug!(lease = %name, %error, "reading the Lease failed");
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
        let seen = self.versions.iter().rev().find(|lease| {
            lease.metadata.resource_version.as_deref() == Some(write.resource_version.as_str())
        });
        let Some(seen) = seen else {
            // So many versions later this one is not current any more.
            return only(Event::Conflict);
        };
        let Some(body) = lease::written(seen, write, Timestamp::now()) else {
            return only(Event::WriteRefused);
        };
        let leases = self.leases.clone();
        let name = self.lease_name.clone();
        let timeout = self.timeout;
        let text = write.to_string();
        let observations = self.observations.clone();
        async move {
            let begun = clock::now();
            let parameters = PostParams {
                field_manager: Some(lvs_crds::AGENT_FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let sent = leases.replace(&name, &parameters, &body);
            let outcome = tokio::time::timeout(timeout, sent).await;
            observations.wrote(clock::now().since(begun));
            match outcome {
                Ok(Ok(lease)) => Answer {
                    event: Event::Acknowledged(lease::record(&lease)),
                    lease: Some(lease),
                },
                Ok(Err(error)) => {
                    let event = refusal(&error);
                    tracing::debug!(lease = %name, write = %text, %error, ?event, "writing the Lease failed");
                    Answer { event, lease: None }
                }
                Err(_) => {
                    tracing::debug!(lease = %name, write = %text, "writing the Lease: no answer in time");
                    Answer { event: Event::WriteFailed, lease: None }
                }
            }
        }
        .boxed()
    }

    fn publish(&mut self) {
        let status = self.machine.status();
        self.chronicle.look(&status, clock::now());
        if self.last_role != Some(status.role) {
            self.last_role = Some(status.role);
            tracing::info!(
                router = %self.router,
                role = ?status.role,
                epoch = ?status.epoch,
                reason = %status.reason,
                message = %status.message,
                "role"
            );
        }
        let state = RoleState {
            role: status.role,
            epoch: status.epoch,
            holder: status.holder.map(|holder| holder.node),
            until: status.until,
            reason: status.reason,
            message: status.message,
            last_transition: self.last_transition.clone(),
            heartbeat_lost_from: self.chronicle.heartbeat_lost_from().map(str::to_owned),
        };
        self.roles.send_if_modified(|roles| {
            let before = roles.get(&self.router);
            let same = before.is_some_and(|before| {
                RoleState {
                    until: state.until,
                    ..before.clone()
                } == state
            });
            roles.insert(self.router.clone(), state);
            !same
        });
    }
}

fn only(event: Event) -> BoxFuture<'static, Answer> {
    std::future::ready(Answer { event, lease: None }).boxed()
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// What an error of a write proves. Only an answer that says so proves that nothing was written.
fn refusal(error: &kube::Error) -> Event {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Event::Conflict,
            404 => Event::LeaseGone,
            400 | 403 | 413 | 415 | 422 => Event::WriteRefused,
            // 401 (a token being rotated), 429 and every 5xx come and go.
            _ => Event::WriteFailed,
        },
        _ => Event::WriteFailed,
    }
}
