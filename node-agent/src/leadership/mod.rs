//! Leadership: who holds the addresses of each router, and the addresses themselves.
//!
//! ```text
//!   plans ──set_routers──► lease driver (one task per router) ──Hold/Drop──► fence thread ──► kernel
//!   sync loop ──set_addresses──────────────────────────────────────────────►      │
//!   roles()  ◄── Master | Backup | … , epoch, holder, reason                      │
//!   addresses() ◄── held addresses, errors, lateness ◄────────────────────────────┘
//! ```
//!
//! The lease driver only carries out what `lvs_core::election::Machine` decides; the fence thread only
//! carries out what `lvs_core::fence::Fence` decides. The two share no lock, and the fence thread never
//! waits for the API, for a dump or for a log line.
//!
//! # Order on a takeover
//! 1. `roles()` shows `Master` for the router. No address is in the kernel yet.
//! 2. The sync loop programs and verifies the router's services.
//! 3. The sync loop hands the addresses whose services are verified to `set_addresses`.
//! 4. The fence thread journals, adds, announces and refreshes them as long as the Lease allows.
//!
//! Handing over addresses while the node is not master does nothing; they are added at the takeover.
//! A standby that keeps its services programmed therefore hands its addresses over at once, and the
//! takeover adds them without waiting for the sync loop.
//!
//! # What the agent must keep to
//! - `set_routers` is the full truth about the routers of this node, from cached or live plans. A plan
//!   that cannot be decoded freezes: keep passing its last good configuration. A router that is missing
//!   loses its addresses at once. Not having called `set_routers` yet changes nothing in the kernel.
//! - `set_addresses` is the full truth about the routers it names. A router it does not name keeps what
//!   it had; before a router is named the first time after a restart, adopted addresses are refreshed
//!   as they are. So an unknown is never taken for an empty set.
//! - `Leadership::failure` resolves when a task or the thread ends; that must end the process.
//!
//! A plan `Withdrawn` is acknowledged when `roles()` says `Released` and `addresses()` has nothing `present`
//! for the router.

pub mod address;
pub mod announce;
mod api_liveness;
pub mod claim_watch;
pub mod clock;
mod driver;
pub mod exchanges;
pub mod fence;
pub mod heartbeat;
pub mod journal;
pub mod lease;
mod metrics;
mod observations;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use lvs_core::chronicle::{Chronicle, Departure};
use lvs_core::desired::{Fitness, HeartbeatInterface};
use lvs_core::election::{
    ApiLoss, Config, HeartbeatParts, Identity, Intent, Machine, OnShutdown, Resumption, Role,
    Takeover, Tick, Timing, TimingError, in_order,
};
use lvs_core::fence::claim::Claim;
use lvs_core::fence::{DirectorAddress, JournalEntry};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{Candidacy, LeadershipPlan, PlanState};
use lvs_crds::transition::Transition;
use lvs_crds::virtual_router::{self as plan, Announcement, OnApiServerLoss};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api_endpoints::ApiEndpoints;
use driver::{Control, Driver};
use exchanges::{HeartbeatPlan, PeerPath, Source};
use fence::{Command, FenceError, FenceReport, FenceThread, RouterSettings};
use heartbeat::{HeartbeatConfig, Keys, ReceiverCounts};
use metrics::LeadershipMetrics;
use observations::Observations;

/// Name of a VirtualRouter.
pub type RouterName = String;

/// Where the kernel tells the boot apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A shutdown ends after this long whatever is left to do: an offer, a lease lent, a flush.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);
/// How often the heartbeat keys are looked at.
const KEY_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds between announcements of addresses with a virtual MAC where none are asked for.
const VIRTUAL_MAC_REFRESH_SECONDS: u32 = 60;

/// What leadership needs to run.
#[derive(Clone)]
pub struct LeadershipConfig {
    /// Client of the API.
    pub client: Client,
    /// The endpoints that the client chooses from, where it does.
    pub endpoints: Option<Arc<ApiEndpoints>>,
    /// Namespace of the Leases.
    pub namespace: String,
    /// This node.
    pub node_name: String,
    /// Differs at every start of the agent, such as pod uid and time. Without `/`.
    pub incarnation: String,
    /// Host directory that a reboot empties, for the journal and the lock.
    pub runtime_directory: PathBuf,
    /// Heartbeats between directors; none = only the Lease tells.
    pub heartbeat: Option<HeartbeatConfig>,
}

/// What one router wants of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// From the router's plan.
    pub plan: LeadershipPlan,
    /// State of that plan.
    pub state: PlanState,
    /// Whether the last sync verified what this router's services need on this node. A node that is not
    /// verified lets others go first, and takes no offer.
    pub verified: bool,
    /// What speaks against this node. One that is not fit acquires nothing, and offers what it holds.
    pub fitness: Fitness,
    /// The interface of its heartbeats on this node, where they have one of their own.
    pub heartbeat_interface: Option<HeartbeatInterface>,
}

/// Role of this node for one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleState {
    /// Role.
    pub role: Role,
    /// Epoch: one's own as master, else that of the Lease.
    pub epoch: Option<u64>,
    /// Node that holds the Lease.
    pub holder: Option<String>,
    /// Until when addresses may be refreshed, as master. A change of this alone wakes nobody.
    pub until: Option<Tick>,
    /// Why it is so.
    pub reason: Reason,
    /// The reason in words.
    pub message: String,
    /// How this process last came to hold the router, or ceased to.
    pub last_transition: Option<Transition>,
    /// Node that holds the Lease and renews it, but whose heartbeats do not arrive.
    pub heartbeat_lost_from: Option<String>,
}

/// Leadership cannot start, or has ended though it must not.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    /// The boot cannot be told apart from others.
    #[error("reading {BOOT_ID}: {0}")]
    BootId(#[source] std::io::Error),
    /// The fence thread cannot start.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The fence thread has ended.
    #[error("the fence thread has ended: director addresses are no longer refreshed")]
    FenceEnded,
    /// The task of a router has ended.
    #[error("the election of router {router} has ended: {why}")]
    DriverEnded {
        /// Router.
        router: RouterName,
        /// Why.
        why: String,
    },
}

struct RouterTask {
    control: mpsc::UnboundedSender<Control>,
    task: JoinHandle<()>,
    /// Last configuration whose times are legal.
    config: Config,
    departure: Option<Departure>,
}

/// Leadership of all routers of this node.
pub struct Leadership {
    config: LeadershipConfig,
    fence: FenceThread,
    commands: SyncSender<Command>,
    journal: BTreeMap<RouterName, JournalEntry>,
    routers: BTreeMap<RouterName, RouterTask>,
    roles: Arc<watch::Sender<BTreeMap<RouterName, RoleState>>>,
    addresses: watch::Receiver<FenceReport>,
    failure_sender: mpsc::UnboundedSender<LeadershipError>,
    failure: Option<mpsc::UnboundedReceiver<LeadershipError>>,
    /// Whether any router has other directors: then it is worth knowing whether the API server answers.
    has_peers: watch::Sender<bool>,
    api_reached: watch::Receiver<bool>,
    observations: Observations,
    received: Option<Arc<ReceiverCounts>>,
}

impl Leadership {
    /// Takes the node's lock and journal and starts the fence thread. Nothing changes in the kernel before
    /// [`Leadership::set_routers`]. Must be called inside the runtime.
    pub fn start(config: LeadershipConfig) -> Result<Self, LeadershipError> {
        let boot_id = std::fs::read_to_string(BOOT_ID).map_err(LeadershipError::BootId)?;
        let me = Identity {
            node: config.node_name.clone(),
            incarnation: config.incarnation.clone(),
        };
        let (fence, output) = FenceThread::start(
            &config.runtime_directory,
            boot_id.trim(),
            me,
            config.heartbeat.as_ref(),
        )?;
        if let Some(damage) = &output.journal_damage {
            tracing::error!(%damage, "the leadership journal cannot be read; addresses it named run out by themselves");
        }
        let (failure_sender, failure) = mpsc::unbounded_channel();
        let sender = failure_sender.clone();
        let ended = output.ended;
        tokio::spawn(async move {
            let _ = ended.await;
            let _ = sender.send(LeadershipError::FenceEnded);
        });
        let mut notes = output.notes;
        tokio::spawn(async move {
            while let Some(note) = notes.recv().await {
                tracing::info!(action = %note, "fence");
            }
        });
        let (has_peers, wanted) = watch::channel(false);
        let (reached, api_reached) = watch::channel(true);
        let client = config.client.clone();
        let endpoints = config.endpoints.clone();
        tokio::spawn(api_liveness::run(client, endpoints, wanted, reached));
        if let Some(heartbeat) = &config.heartbeat {
            tokio::spawn(follow_keys(heartbeat.clone(), fence.commands()));
        }
        Ok(Self {
            has_peers,
            api_reached,
            observations: Observations::new(),
            received: output.received,
            commands: fence.commands(),
            config,
            fence,
            journal: output.journal,
            routers: BTreeMap::new(),
            roles: Arc::new(watch::Sender::new(BTreeMap::new())),
            addresses: output.report,
            failure_sender,
            failure: Some(failure),
        })
    }

    /// The routers of this node, all of them (see the rules of this module).
    pub fn set_routers(&mut self, routers: BTreeMap<RouterName, RouterConfig>) {
        let names: BTreeSet<RouterName> = routers.keys().cloned().collect();
        let mut configs = BTreeMap::new();
        for (name, router) in routers {
            match election_config(&router, self.config.heartbeat.is_some()) {
                Ok(config) => {
                    configs.insert(name, (config, router));
                }
                Err(error) => {
                    tracing::error!(router = %name, %error, "the times of the router are refused");
                    // What it had goes on.
                    if let Some(task) = self.routers.get(&name) {
                        configs.insert(name, (task.config.clone(), router));
                    } else {
                        self.publish_refusal(name, &error.to_string());
                    }
                }
            }
        }
        self.routers.retain(|name, task| {
            let stays = configs.contains_key(name);
            if !stays {
                task.task.abort();
            }
            stays
        });
        self.roles.send_if_modified(|roles| {
            let before = roles.len();
            roles.retain(|name, _| names.contains(name));
            roles.len() != before
        });
        // Before any election may say Hold.
        let fences = configs.iter().map(|(name, (config, router))| {
            let settings = RouterSettings {
                timing: config.timing,
                announcement: announcement(&router.plan),
                heartbeats: self.heartbeats(config, router),
            };
            (name.clone(), settings)
        });
        let fences: BTreeMap<_, _> = fences.collect();
        let has_peers = fences.values().any(|settings| {
            settings
                .heartbeats
                .as_ref()
                .is_some_and(|plan| !plan.peers.is_empty())
        });
        self.has_peers
            .send_if_modified(|before| std::mem::replace(before, has_peers) != has_peers);
        self.command(Command::Configure(fences));
        for (name, (config, router)) in configs {
            let departure = departure(&router);
            if let Some(task) = self.routers.get_mut(&name) {
                if (&task.config, &task.departure) != (&config, &departure) {
                    task.config = config.clone();
                    task.departure.clone_from(&departure);
                    // A task that has ended has told so by `failure`.
                    let _ = task.control.send(Control::Configure(config, departure));
                }
            } else {
                let task = self.start_router(&name, config, router);
                self.routers.insert(name, task);
            }
        }
    }

    /// The heartbeats of a router; none when its plan or this agent has none.
    fn heartbeats(&self, config: &Config, router: &RouterConfig) -> Option<HeartbeatPlan> {
        let timing = config.timing.heartbeat()?;
        self.config.heartbeat.as_ref()?;
        let peers = router.plan.heartbeat.iter().flat_map(|plan| &plan.peers);
        let others = peers
            .filter(|peer| peer.node_name != self.config.node_name)
            .map(|peer| (peer.node_name.clone(), path(router, peer.address)));
        Some(HeartbeatPlan {
            timing,
            peers: others.collect(),
        })
    }

    fn publish_refusal(&self, name: RouterName, message: &str) {
        self.roles.send_modify(|roles| {
            let state = RoleState {
                role: Role::Unknown,
                epoch: None,
                holder: None,
                until: None,
                reason: Reason::Invalid,
                message: message.to_owned(),
                last_transition: None,
                heartbeat_lost_from: None,
            };
            roles.insert(name, state);
        });
    }

    fn start_router(&mut self, name: &str, config: Config, router: RouterConfig) -> RouterTask {
        let identity = Identity {
            node: self.config.node_name.clone(),
            incarnation: self.config.incarnation.clone(),
        };
        let resumption = self.journal.remove(name).map(|entry| Resumption {
            epoch: entry.epoch,
            held: entry.held,
        });
        let now = clock::now();
        let mut chronicle = Chronicle::new(identity.clone(), config.clone(), resumption, now);
        let departure = departure(&router);
        chronicle.depart(departure.clone());
        let machine = Machine::new(identity, config.clone(), resumption, now);
        let (control, receiver) = mpsc::unbounded_channel();
        let leases: Api<Lease> =
            Api::namespaced(self.config.client.clone(), &self.config.namespace);
        let driver = Driver::new(
            name.to_owned(),
            (leases, router.plan.lease_name),
            (machine, chronicle),
            (self.commands.clone(), self.addresses.clone()),
            Arc::clone(&self.roles),
            self.observations.clone(),
        );
        self.command(Command::Attach(name.to_owned(), control.clone()));
        let failure = self.failure_sender.clone();
        let router_name = name.to_owned();
        let run = tokio::spawn(driver.run(receiver, self.api_reached.clone()));
        let abort = run.abort_handle();
        let task = tokio::spawn(async move {
            // Aborting the outer task must end the inner one.
            let _guard = AbortOnDrop(abort);
            let why = match run.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(error) if error.is_cancelled() => return,
                Err(error) => error.to_string(),
            };
            let _ = failure.send(LeadershipError::DriverEnded {
                router: router_name,
                why,
            });
        });
        RouterTask {
            control,
            task,
            config,
            departure,
        }
    }

    /// The addresses of the routers named whose services are programmed and verified (see the rules of
    /// this module).
    pub fn set_addresses(&self, addresses: BTreeMap<RouterName, BTreeSet<DirectorAddress>>) {
        self.command(Command::Want(addresses));
    }

    /// Role of this node by router.
    pub fn roles(&self) -> watch::Receiver<BTreeMap<RouterName, RoleState>> {
        self.roles.subscribe()
    }

    /// Director addresses in the kernel. Wakes when addresses or troubles change, not at refreshes.
    pub fn addresses(&self) -> watch::Receiver<FenceReport> {
        self.addresses.clone()
    }

    /// What takes the claims of others on addresses that are held. It never waits: a claim that finds no room is lost, as
    /// the next one says the same.
    pub fn claims(&self) -> impl Fn(Claim) + Send + use<> {
        let commands = self.commands.clone();
        move |claim| {
            let _ = commands.try_send(Command::Claimed(claim));
        }
    }

    /// What is to be registered with Prometheus.
    pub fn collector(&self) -> Box<dyn prometheus_client::collector::Collector> {
        Box::new(LeadershipMetrics {
            report: self.addresses.clone(),
            roles: self.roles.subscribe(),
            api_reached: self.api_reached.clone(),
            observations: self.observations.clone(),
            received: self.received.clone(),
        })
    }

    /// Resolves when a part of leadership has ended; the process must end then. To be taken once.
    pub fn failure(&mut self) -> impl Future<Output = LeadershipError> + Send + 'static {
        let receiver = self.failure.take();
        async move {
            match receiver {
                Some(mut receiver) => match receiver.recv().await {
                    Some(error) => error,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        }
    }

    fn command(&self, command: Command) {
        // A full queue or a dead thread: the first cannot last, the second ends the process by `failure`.
        if self.commands.try_send(command).is_err() {
            let _ = self.failure_sender.send(LeadershipError::FenceEnded);
        }
    }

    /// Ends leadership without cleaning: what is held is handed over to a verified successor, or lent for
    /// half a minute, in which the next agent adopts it; with the API out it stays for its lifetime.
    pub async fn shutdown(mut self) {
        let tasks = std::mem::take(&mut self.routers);
        let ended = tasks.into_values().map(|task| {
            let _ = task.control.send(Control::Shutdown);
            task.task
        });
        let ended: Vec<_> = ended.collect();
        if tokio::time::timeout(SHUTDOWN_LIMIT, futures::future::join_all(ended))
            .await
            .is_err()
        {
            tracing::warn!("leadership did not end in time; addresses run out by themselves");
        }
        let (done, flushed) = tokio::sync::oneshot::channel();
        self.command(Command::Flush(done));
        let _ = tokio::time::timeout(Duration::from_secs(1), flushed).await;
        self.fence.end();
    }
}

/// Reads the keys again from time to time: a Secret that changes appears in its mount within a minute or so.
async fn follow_keys(config: HeartbeatConfig, commands: SyncSender<Command>) {
    let mut known = Keys::read(&config.key_directory).ok();
    loop {
        tokio::time::sleep(KEY_INTERVAL).await;
        match Keys::read(&config.key_directory) {
            Ok(keys) if known.as_ref() == Some(&keys) => {}
            Ok(keys) => {
                tracing::info!(?keys, "the heartbeat keys have changed");
                known = Some(keys.clone());
                if commands.try_send(Command::Keys(keys)).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the heartbeat keys cannot be read; those in force stay");
            }
        }
    }
}

/// How heartbeats get to a peer.
fn path(router: &RouterConfig, to: IpAddr) -> PeerPath {
    let plan = router.plan.heartbeat.as_ref();
    let from = if plan.is_none_or(|plan| plan.devices.is_empty()) {
        Source::Routed
    } else {
        let interface = router.heartbeat_interface.as_ref();
        match interface.and_then(|interface| interface.source_for(to)) {
            Some((index, address)) => Source::Interface { index, address },
            None => Source::Nowhere,
        }
    };
    PeerPath { to, from }
}

/// What the election is told of a router, by an agent with or without heartbeats.
fn election_config(router: &RouterConfig, has_heartbeats: bool) -> Result<Config, TimingError> {
    let plan = router.plan.heartbeat.as_ref().filter(|_| has_heartbeats);
    let heartbeat = plan.map(|plan| HeartbeatParts {
        interval: Duration::from_millis(plan.interval_milliseconds.into()),
        missed: plan.missed.into(),
        challenge_window: Duration::from_millis(plan.challenge_window_milliseconds.into()),
    });
    let peers = router.plan.heartbeat.iter().flat_map(|plan| &plan.peers);
    let addresses = peers.map(|peer| (peer.node_name.clone(), peer.address));
    Ok(Config {
        timing: Timing::for_detection(router.plan.lease_duration_seconds, heartbeat)?,
        preemption_delay: router
            .plan
            .preemption_delay_seconds
            .map(|seconds| Duration::from_secs(seconds.into())),
        hand_over_to: router.plan.hand_over_to.clone(),
        priority: router.fitness.priority(router.plan.priority),
        permitted: router.plan.candidacy == Candidacy::Permitted,
        directors: in_order(router.plan.directors.clone(), &addresses.collect()),
        intent: match router.state {
            // Its addresses move as one: a director that cannot hold all of them leaves them to another.
            PlanState::Active if !router.fitness.is_fit() => Intent::Leave,
            PlanState::Active => Intent::Hold,
            PlanState::Leaving => Intent::Leave,
            PlanState::Withdrawn => Intent::Withdraw,
            PlanState::Retained => Intent::Retain,
        },
        verified: router.verified,
        on_shutdown: OnShutdown::HandOver,
        on_api_loss: match router.plan.on_api_server_loss {
            OnApiServerLoss::Hold => ApiLoss::Hold,
            OnApiServerLoss::HoldAlways => ApiLoss::HoldAlways,
            OnApiServerLoss::Release => ApiLoss::Release,
        },
        takeover: match router.plan.takeover {
            plan::Takeover::Fast => Takeover::Fast,
            plan::Takeover::Strict => Takeover::Strict,
        },
    })
}

/// Why the node is to leave the router to others, where [`election_config`] makes it an intent.
fn departure(router: &RouterConfig) -> Option<Departure> {
    match router.state {
        PlanState::Leaving => Some(Departure::NotSelected),
        PlanState::Active => {
            let fault = router.fitness.faults.first();
            fault.map(|fault| Departure::Fault(fault.message.clone()))
        }
        PlanState::Withdrawn | PlanState::Retained => None,
    }
}

/// How the addresses are announced. Switches forget a MAC that sends nothing, usually after 300 s, and a virtual MAC
/// sends nothing by itself: it is announced now and then in any case.
fn announcement(plan: &LeadershipPlan) -> Announcement {
    let announcement = plan.announcement.clone();
    let refresh_seconds = match (announcement.refresh_seconds, plan.virtual_router_id) {
        (0, Some(_)) => VIRTUAL_MAC_REFRESH_SECONDS,
        (asked_for, _) => asked_for,
    };
    Announcement {
        refresh_seconds,
        ..announcement
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_core::desired::Fault;
    use lvs_crds::node_plan::{HeartbeatPeer, HeartbeatPlan as HeartbeatPlanOfApi};
    use lvs_crds::tracking::Deduction;

    use super::*;

    fn router(state: PlanState, fitness: Fitness) -> RouterConfig {
        RouterConfig {
            plan: LeadershipPlan {
                lease_name: "lvs-router-edge".to_owned(),
                priority: 100,
                candidacy: Candidacy::Permitted,
                directors: vec!["lb-a".to_owned(), "lb-b".to_owned()],
                lease_duration_seconds: 10,
                connection_sync: None,
                preemption_delay_seconds: None,
                hand_over_to: None,
                heartbeat: None,
                on_api_server_loss: OnApiServerLoss::Hold,
                takeover: lvs_crds::virtual_router::Takeover::Fast,
                announcement: Announcement::default(),
                timeouts: None,
                virtual_router_id: None,
                tracked_interfaces: Vec::new(),
                tracked_endpoints: Vec::new(),
                addresses_set_aside: Vec::new(),
            },
            state,
            verified: true,
            fitness,
            heartbeat_interface: None,
        }
    }

    #[test]
    fn a_director_with_a_fault_takes_nothing_and_offers_what_it_holds() {
        let fault = Fitness {
            faults: [Fault {
                reason: Reason::LinkDown,
                message: "device out has no carrier".to_owned(),
            }]
            .into(),
            deductions: [Deduction {
                priority_delta: -30,
                reason: "EndpointFailed".to_owned(),
                message: "timed out after 1 s".to_owned(),
            }]
            .into(),
        };
        for (state, fitness, intent) in [
            (PlanState::Active, Fitness::default(), Intent::Hold),
            (PlanState::Active, fault.clone(), Intent::Leave),
            // What the plan's state says goes before.
            (PlanState::Withdrawn, fault.clone(), Intent::Withdraw),
            (PlanState::Retained, fault.clone(), Intent::Retain),
        ] {
            let config = election_config(&router(state, fitness), true).unwrap();
            assert_eq!(config.intent, intent, "{state:?}");
        }
        let config = election_config(&router(PlanState::Active, fault), true).unwrap();
        assert_eq!(config.priority, 70);
    }

    #[test]
    fn heartbeats_with_an_interface_leave_from_it_or_not_at_all() {
        let mut router = router(PlanState::Active, Fitness::default());
        let to = "10.1.0.2".parse().unwrap();
        let mut plan = HeartbeatPlanOfApi {
            interval_milliseconds: 150,
            missed: 3,
            challenge_window_milliseconds: 200,
            devices: Vec::new(),
            peers: Vec::new(),
        };
        router.plan.heartbeat = Some(plan.clone());
        assert_eq!(path(&router, to).from, Source::Routed);
        plan.devices = vec!["in".to_owned()];
        router.plan.heartbeat = Some(plan);
        assert_eq!(path(&router, to).from, Source::Nowhere);
        router.heartbeat_interface = Some(HeartbeatInterface {
            devices: vec!["in".to_owned()],
            index: Some(7),
            addresses: vec!["10.1.0.1".parse().unwrap()],
        });
        let address = "10.1.0.1".parse().unwrap();
        assert_eq!(
            path(&router, to).from,
            Source::Interface { index: 7, address }
        );
        let of_other_family = "2001:db8::2".parse().unwrap();
        assert_eq!(path(&router, of_other_family).from, Source::Nowhere);
    }

    #[test]
    fn equals_are_ordered_by_the_addresses_of_the_plan() {
        let mut router = router(PlanState::Active, Fitness::default());
        let peer = |node_name: &str, address: &str| HeartbeatPeer {
            node_name: node_name.to_owned(),
            address: address.parse().unwrap(),
        };
        router.plan.heartbeat = Some(HeartbeatPlanOfApi {
            interval_milliseconds: 150,
            missed: 3,
            challenge_window_milliseconds: 200,
            devices: Vec::new(),
            peers: vec![peer("lb-a", "192.0.2.12"), peer("lb-b", "192.0.2.9")],
        });
        for has_heartbeats in [true, false] {
            let config = election_config(&router, has_heartbeats).unwrap();
            assert_eq!(config.directors, ["lb-b", "lb-a"], "the last goes first");
        }
    }

    #[test]
    fn a_virtual_mac_is_announced_now_and_then_in_any_case() {
        let mut plan = router(PlanState::Active, Fitness::default()).plan;
        assert_eq!(announcement(&plan).refresh_seconds, 0);
        plan.virtual_router_id = Some(51);
        assert_eq!(announcement(&plan).refresh_seconds, 60);
        plan.announcement.refresh_seconds = 5;
        assert_eq!(announcement(&plan).refresh_seconds, 5);
    }
}
