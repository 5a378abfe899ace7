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
//! takeover adds them without waiting for the sync loop. One that must not have them before it is master, as it is a
//! real server of them too, names the router to `hold_back` until they are there: the address would bring it packets
//! that only they tell from its own. Its predecessor goes on meanwhile, in a handover (rule 7).
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
mod router_config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use lvs_core::chronicle::{Chronicle, Departure};
use lvs_core::election::{Config, Identity, Machine, Resumption, Role, Tick};
use lvs_core::fence::claim::Claim;
use lvs_core::fence::{DirectorAddress, JournalEntry};
use lvs_crds::condition::Reason;
use lvs_crds::transition::Transition;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api_endpoints::ApiEndpoints;
use driver::{Control, Driver};
use exchanges::HeartbeatPlan;
use fence::{Command, FenceError, FenceReport, FenceThread, RouterSettings};
use heartbeat::{HeartbeatConfig, Keys, ReceiverCounts};
use metrics::LeadershipMetrics;
#[cfg(test)]
pub(crate) use metrics::collector_of_nothing;
use observations::Observations;
use router_config::{announcement, departure, election_config, path};

pub use router_config::RouterConfig;

/// Name of a VirtualRouter.
pub type RouterName = String;

/// Where the kernel tells the boot apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A shutdown ends after this long whatever is left to do: an offer, a lease lent, a flush.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);
/// How often the heartbeat keys are looked at.
const KEY_INTERVAL: Duration = Duration::from_secs(5);

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

    /// A look at the kernel that began at `looked_at` did not find these addresses: those that were removed by somebody else are
    /// put back and counted.
    pub fn missing(
        &self,
        addresses: BTreeMap<RouterName, BTreeSet<DirectorAddress>>,
        looked_at: Tick,
    ) {
        self.command(Command::Missing(addresses, looked_at));
    }

    /// The routers whose addresses are not to be added yet, since their services are not in the kernel before this node is
    /// master (see the rules of this module).
    pub fn hold_back(&self, routers: BTreeSet<RouterName>) {
        self.command(Command::HoldBack(routers));
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

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
