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
//! # Shape
//! ```text
//! Leadership::start(LeadershipConfig { client, namespace, node_name, incarnation, runtime_directory }) -> Result<Leadership, LeadershipError>   // async
//! leadership.set_routers(BTreeMap<RouterName, RouterConfig { plan: LeadershipPlan, state: PlanState, verified: bool }>)
//! leadership.set_addresses(BTreeMap<RouterName, BTreeSet<DirectorAddress { address: IpAddr, device: String }>>)
//! leadership.roles()     -> watch::Receiver<BTreeMap<RouterName, RoleState { role: Role::{Unknown,Backup,Master,Released}, epoch, holder, reason, message }>>
//! leadership.addresses() -> watch::Receiver<FenceReport { routers: BTreeMap<RouterName, RouterAddresses { epoch, held, errors }>, refresh_lateness, .. }>
//! leadership.failure().await -> LeadershipError            // select on it in run.rs
//! leadership.shutdown().await                               // SIGTERM: hands over or lends, never cleans; at most ~5 s
//! ```
//! A plan `Withdrawn` is acknowledged when `roles()` says `Released` and `addresses()` holds nothing for the router.
