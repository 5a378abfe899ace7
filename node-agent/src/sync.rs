//! The one pass that everything leads to: read the kernel, decide, write what differs, read again, hand over, report.
//!
//! Steps, in this order:
//! 1. read the node (host, IPVS, sysctls); if any part cannot be read, nothing is written in this pass;
//! 2. `desired`, `diff`: pure;
//! 3. bring the journal to disk, before anything comes to exist;
//! 4. carry out the operations; failures are collected;
//! 5. read again and judge every plan by what is there, not by what was sent;
//! 6. trim the journal; hand routers and verified addresses to leadership;
//! 7. report.
//!
//! A pass with nothing to do writes nothing and reads once.

mod interference;
mod outcome;
mod routers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lvs_core::apply_failure::ApplyFailures;
use lvs_core::desired::{DesiredState, HeartbeatInterface, Problem, desired};
use lvs_core::diff::{Diff, diff};
use lvs_core::election::Tick;
use lvs_core::endpoint;
use lvs_core::health::{
    self, Check, Health, NodeView, Passages, Policy, Serving, remembered, wanted_checks,
};
use lvs_core::host::{AddressKey, ObservedHost, SysctlKey};
use lvs_core::interference::Interference;
use lvs_core::ipvs::{Idle, IpvsTimeouts, Services};
use lvs_core::journal::Journal;
use lvs_core::observed::Observed;
use lvs_core::statistics::subjects;
use lvs_core::sync_daemon::{Continuity, SyncDaemons, SyncRole};
use lvs_core::table::{Disorder, tables};
use lvs_core::verdict::{Verdicts, owners, verdicts};
use lvs_crds::condition::Reason;
use lvs_crds::tracking::Deduction;
use lvs_ipvs::{Dump, IpvsKernel};

use crate::book::{PlanBook, PlanEvent};
use crate::disk::{DiskError, JournalFile, PlanCache};
use crate::endpoints::EndpointExchange;
use crate::execute::{Execution, execute};
use crate::health::passage::Laid;
use crate::health::{HealthExchange, calendar};
use crate::hold::without_removals;
use crate::kernel::HostKernel;
use crate::kernel::link_watch::Links;
use crate::kernel::removal_watch::Removals;
use crate::leadership::clock;
use crate::limits::{IMMEDIATE_PASSES, SERIES};
use crate::links::WatchedLinks;
use crate::metrics::{Metrics, PassLabels};
use crate::plan_traces::PlanTraces;
use crate::port::{LeadershipPort, LeadershipView};
use crate::report::PlanReport;
use crate::statistics::StatisticsExchange;
use routers::roles;
use tokio::sync::watch;

/// Timeouts of a freshly loaded IPVS (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`): what holds on a
/// node whose kernel has no IPVS yet.
const FRESH_TIMEOUTS: IpvsTimeouts = IpvsTimeouts {
    tcp_seconds: 900,
    tcp_fin_seconds: 120,
    udp_seconds: 300,
};

/// Firewall marks for health checks through virtual addresses, unless told otherwise: beside those of the controller, and as
/// clear of kube-proxy (0xc000), Calico (0xffff0000) and Cilium (0xffff0f00) as they are.
pub const CHECK_MARKS: RangeInclusive<u32> = 0x1000..=0x10ff;

/// Why nothing could be done in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blindness {
    /// Word for condition, Event and metric.
    pub reason: Reason,
    /// What could not be read or written.
    pub message: String,
}

impl From<DiskError> for Blindness {
    fn from(error: DiskError) -> Self {
        Self {
            reason: Reason::ObservationFailed,
            message: error.to_string(),
        }
    }
}

/// What a pass came to.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// Every plan.
    pub plans: BTreeMap<String, PlanReport>,
    /// Whether the kernel was read, and read again after writing.
    pub blindness: Option<Blindness>,
    /// Whether the API was listed since the start.
    pub listed: bool,
    /// Failures that no plan answers for.
    pub unattributed: Vec<String>,
    /// Whether another pass should follow soon: something failed that may go by.
    pub retry: bool,
    /// How long until another pass is due for something that only time decides.
    pub due: Option<Duration>,
}

/// The loop's state and its ways to the world.
pub struct Syncer<I, H, L> {
    /// IPVS.
    pub ipvs: I,
    /// The rest of the node's network.
    pub host: H,
    /// Leadership.
    pub leadership: L,
    /// Endpoints that routers track.
    pub endpoints: EndpointExchange,
    /// Health checks of real servers.
    pub real_servers: HealthExchange,
    /// Services and real servers whose statistics are shown.
    pub statistics: StatisticsExchange,
    book: PlanBook,
    cache: PlanCache,
    journal_file: JournalFile,
    metrics: Metrics,
    /// The last desired state that a dump showed in force.
    verified: Option<DesiredState>,
    /// Director addresses handed over so far.
    handed: BTreeMap<String, BTreeSet<AddressKey>>,
    /// Routers whose addresses wait for their services.
    held_back: BTreeSet<String>,
    reports: BTreeMap<String, PlanReport>,
    /// Addresses that no lifetime ends, as last read.
    permanent: BTreeSet<AddressKey>,
    /// Priority of this node in each router, with what tracking takes off.
    priorities: BTreeMap<String, u8>,
    /// What makes it lower than the plan's.
    deductions: BTreeMap<String, BTreeSet<Deduction>>,
    /// What the last pass decided of services, and what the next must remember.
    policy: Policy,
    /// How services stood in the last pass.
    serving: Serving,
    /// Firewall marks for checks through virtual addresses.
    check_marks: RangeInclusive<u32>,
    /// Services that the kernel refuses.
    apply_failures: ApplyFailures,
    /// Devices that count for routers, as last read.
    watched_links: WatchedLinks,
    /// Addresses by router that this node cannot hold.
    unavailable: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Addresses by router that this node is not to have for want of real servers.
    withdrawn: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Interfaces of heartbeats by router, as last read; `None` before the first reading.
    heartbeat_interfaces: Option<BTreeMap<String, HeartbeatInterface>>,
    /// Addresses at which this agent reaches the API server.
    api_endpoints: BTreeSet<IpAddr>,
    /// What the sync daemons did since the start; `None` before the journal was read.
    continuity: Option<Continuity>,
    /// How long until something is due that only time decides.
    due: Option<Duration>,
    /// Hashes of tables that all directors must have, by plan.
    tables: BTreeMap<String, String>,
    /// Operations that failed in the last writing pass, and why.
    failing: BTreeMap<String, String>,
    /// What others removed or changed.
    interference: Interference,
    /// How often addresses were put back, as last told.
    restored: BTreeMap<String, BTreeMap<AddressKey, u64>>,
    /// Who removed what, as far as the kernel says so.
    removals: watch::Receiver<Removals>,
    /// Traces of changes, where there is a collector.
    traces: Option<PlanTraces>,
}

/// Where the loop keeps what survives a restart.
#[derive(Debug)]
pub struct Directories<'a> {
    /// Plans.
    pub state: &'a Path,
    /// The journal.
    pub runtime: &'a Path,
}

struct Reading {
    observed: Observed,
    desired: DesiredState,
}

impl<I: IpvsKernel, H: HostKernel, L: LeadershipPort> Syncer<I, H, L> {
    /// Opens the cache and the journal. A directory that cannot be used is an error; a plan in the cache that cannot be
    /// read is not, it stays unknown.
    pub fn open(
        (ipvs, host, leadership): (I, H, L),
        node_name: &str,
        boot_id: &str,
        directories: &Directories<'_>,
        metrics: Metrics,
    ) -> Result<Self, DiskError> {
        let cache = PlanCache::open(directories.state)?;
        let book = PlanBook::new(node_name, cache.load()?);
        for (name, entry) in book.entries() {
            if let Some(trouble) = &entry.trouble {
                tracing::error!(
                    plan = name,
                    reason = Reason::PlanUndecodable.as_str(),
                    "plan in the cache cannot be read, nothing is removed until it is known: {trouble}"
                );
            }
        }
        tracing::info!(plans = book.inputs().len(), "plans from the cache");
        Ok(Self {
            ipvs,
            host,
            leadership,
            endpoints: EndpointExchange::default(),
            real_servers: HealthExchange::default(),
            statistics: StatisticsExchange::default(),
            policy: Policy::default(),
            serving: Serving::default(),
            check_marks: CHECK_MARKS,
            book,
            cache,
            journal_file: JournalFile::open(directories.runtime, boot_id)?,
            metrics,
            verified: None,
            handed: BTreeMap::new(),
            held_back: BTreeSet::new(),
            reports: BTreeMap::new(),
            permanent: BTreeSet::new(),
            priorities: BTreeMap::new(),
            deductions: BTreeMap::new(),
            apply_failures: ApplyFailures::default(),
            watched_links: WatchedLinks::default(),
            unavailable: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            heartbeat_interfaces: None,
            api_endpoints: BTreeSet::new(),
            continuity: None,
            due: None,
            tables: BTreeMap::new(),
            failing: BTreeMap::new(),
            interference: Interference::default(),
            restored: BTreeMap::new(),
            removals: watch::channel(Removals::default()).1,
            traces: None,
        })
    }

    /// Says at which addresses this agent reaches the API server; without it they are not known.
    #[must_use]
    pub fn with_api_endpoints(mut self, addresses: BTreeSet<IpAddr>) -> Self {
        self.api_endpoints = addresses;
        self
    }

    /// Says which firewall marks are for health checks; without it [`CHECK_MARKS`].
    #[must_use]
    pub fn with_check_marks(mut self, marks: RangeInclusive<u32>) -> Self {
        self.check_marks = marks;
        self
    }

    /// Says where spans of plans go; without it none are made.
    #[must_use]
    pub fn with_traces(mut self, traces: Option<PlanTraces>) -> Self {
        self.traces = traces;
        self
    }

    /// Takes an event of the watch. Returns whether a pass is due.
    pub fn take(&mut self, event: PlanEvent) -> bool {
        if let Some(traces) = &mut self.traces {
            traces.received(&event, &self.book);
        }
        self.book.take(event)
    }

    /// Whether a pass without any plan would have nothing to go by: neither the cache nor the API has spoken.
    pub fn knows_nothing(&self) -> bool {
        !self.book.is_listed() && self.book.entries().is_empty()
    }

    /// Whether a device that counts for a router is not as the last pass saw it.
    pub fn links_differ(&self, links: &Links) -> bool {
        self.watched_links.differ(links)
    }

    /// Brings changed plans to disk, after the kernel has been served. What fails is due again.
    pub fn store_plans(&mut self) {
        for change in self.book.take_cache_changes() {
            if let Err(error) = self.cache.store(&change) {
                tracing::warn!("plan cache: {error}");
                let (crate::book::CacheChange::Write(name, _)
                | crate::book::CacheChange::Remove(name)) = change;
                self.book.cache_again(name);
            }
        }
    }

    /// One pass; again at once, a few times, when the kernel moved under it.
    pub fn pass(&mut self) -> PassReport {
        let started = std::time::Instant::now();
        if let Some(traces) = &mut self.traces {
            traces.begin(SystemTime::now());
        }
        let mut attempt = 1;
        let outcome = loop {
            match self.attempt() {
                Ok((_, true)) if attempt < IMMEDIATE_PASSES => attempt += 1,
                Ok((verdicts, stale)) => break Ok((verdicts, stale)),
                Err(blindness) => {
                    self.release_masters();
                    break Err(blindness);
                }
            }
        };
        self.metrics
            .pass_seconds
            .observe(started.elapsed().as_secs_f64());
        let result = if outcome.is_ok() { "complete" } else { "blind" };
        self.metrics
            .passes
            .get_or_create(&PassLabels { result })
            .inc();
        let interference = self.tell_interference(started.elapsed());
        let report = self.report(outcome, &interference);
        self.count(&report);
        if let Some(traces) = &mut self.traces {
            traces.end(&report.plans, SystemTime::now());
        }
        report
    }

    fn attempt(&mut self) -> Result<(Verdicts, bool), Blindness> {
        self.endpoints.want(endpoint::tracked(self.book.inputs()));
        let journal = self.journal_file.read()?;
        let view = self.leadership.view();
        self.due = None;
        let looked_at = clock::now();
        let Reading {
            mut observed,
            mut desired,
        } = self.read(&view, &journal, true)?;
        self.miss(&view, &observed.host, looked_at);
        self.note_restored(&view, &observed.host);
        let synchronized = journal.sync_daemons_of_ours(&observed.sync_daemons);
        let plan = self.plan(&desired, &observed, &journal);

        let mut next = journal.before(&desired, &observed, &plan);
        if next != journal {
            self.journal_file.write(&next)?;
        }
        // Closed before services go, opened as soon as they are there.
        let incomplete = desired.incomplete_routers.clone();
        self.hold_back(&self.held_back | &incomplete);
        let (remaining, execution) = if plan.ops.is_empty() {
            self.failing.clear();
            (plan, Execution::default())
        } else {
            self.note_repairs(&plan.ops, &desired, &observed.host);
            self.tell(&plan);
            let execution = execute(plan.ops, &mut self.ipvs, &mut self.host);
            for op in &execution.succeeded {
                self.metrics.operation(op, "applied");
            }
            self.hold_back(incomplete.clone());
            self.tell_failures(&execution.failures);
            Reading { observed, desired } = self.read(&view, &next, false)?;
            (self.plan(&desired, &observed, &next), execution)
        };
        self.hold_back(incomplete);
        let mut trimmed = next.after(&desired, &observed, &execution.refused);
        let running = trimmed.sync_daemons_of_ours(&observed.sync_daemons);
        let continuity = self.continuity.get_or_insert_default();
        continuity.note(&synchronized, &running, clock::now());
        trimmed.informed_since_nanoseconds = continuity.informed_since().map(Tick::nanoseconds);
        if trimmed != next {
            self.journal_file.write(&trimmed)?;
            next = trimmed;
        }
        let addresses = observed.host.addresses.iter();
        self.permanent = addresses
            .filter(|(_, attributes)| attributes.valid_seconds.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        self.watched_links = WatchedLinks::seen(self.book.inputs(), &desired, &observed.host);
        if let Some(traces) = &mut self.traces {
            traces.carried_out(&execution, |object| owners(&desired, &next, object));
        }
        let stale = execution.stale;
        let failures = execution.failures;
        let verdicts = verdicts(self.book.inputs(), &desired, &next, &failures, &remaining);
        self.tables = tables(self.book.inputs(), &desired, &observed);
        let subjects = subjects(self.book.inputs(), &self.serving, &next, SERIES);
        self.statistics.show(subjects);
        self.real_servers.lay(self.laid(&observed));
        self.hand_over(&desired, &verdicts, &observed.host, &view, &next);
        self.verified = (remaining.ops.is_empty() && failures.is_empty()).then_some(desired);
        Ok((verdicts, stale))
    }

    /// Reads everything and says what it should be. All or nothing. How services stand is looked at anew where
    /// `is_first`: within a pass it stays, or what was written could not be judged.
    fn read(
        &mut self,
        view: &LeadershipView,
        journal: &Journal,
        is_first: bool,
    ) -> Result<Reading, Blindness> {
        let blind = |message: String, reason: Reason| Blindness { reason, message };
        let host = self
            .host
            .observe()
            .map_err(|error| blind(error.to_string(), observation_reason(error.reason())))?;
        let Dump {
            services,
            disorder,
            idle,
            timeouts,
            sync_daemons,
            ..
        } = match self.ipvs.dump() {
            Ok(dump) => dump,
            // A kernel without IPVS holds no service: that is known, not unknown. Writing will say what is missing.
            Err(error) if error.reason() == Reason::KernelModuleMissing => Dump {
                services: Services::new(),
                disorder: Disorder::new(),
                idle: Idle::new(),
                timeouts: FRESH_TIMEOUTS,
                sync_daemons: SyncDaemons::new(),
                unnameable: Vec::new(),
            },
            Err(error) => return Err(blind(error.to_string(), error.reason())),
        };
        let host = ObservedHost {
            api_endpoints: self.api_endpoints.clone(),
            ..host
        };
        let roles = roles(view, self.book.inputs(), &host, journal);
        if is_first {
            self.look_at_real_servers(&NodeView {
                services: &services,
                idle: &idle,
                journal,
                host: &host,
                roles: &roles,
            });
        }
        let mut desired = desired(self.book.inputs(), &roles, &self.serving, &host, journal);
        self.missing_modules(&mut desired);
        let states = self.endpoints.states();
        endpoint::judge(&mut desired, self.book.inputs(), &states);
        health::judge(&mut desired, self.book.inputs(), &self.serving);
        let running = journal.sync_daemons_of_ours(&sync_daemons);
        let sysctls = self
            .host
            .read_sysctls(&desired.sysctl_keys(journal))
            .map_err(|error| blind(error.to_string(), observation_reason(error.reason())))?;
        // A node that must not balance while it listens stops listening at once.
        let keeps_backup = sysctls
            .get(&SysctlKey::of_ipvs("backup_only"))
            .is_some_and(|value| value.as_deref() == Some("0"));
        let continuity = self.continuity.get_or_insert_with(|| {
            let since = journal.informed_since_nanoseconds;
            Continuity::resume(since.map(Tick::from_nanoseconds))
        });
        let left = continuity.linger(
            &mut desired.sync_daemons,
            &running,
            keeps_backup,
            clock::now(),
        );
        self.wake_in(left);
        let host = ObservedHost { sysctls, ..host };
        Ok(Reading {
            observed: Observed {
                services,
                disorder,
                timeouts,
                sync_daemons,
                host,
            },
            desired,
        })
    }

    /// Says which checks are to be made, and decides how services stand by what is known.
    fn look_at_real_servers(&mut self, node: &NodeView<'_>) {
        let plans = self.book.inputs();
        let wanted = wanted_checks(plans);
        let known = if self.real_servers.is_new(&wanted) {
            remembered(plans, node.services, node.journal, &self.policy)
        } else {
            BTreeSet::new()
        };
        self.real_servers.want(&wanted, |check| {
            if known.contains(check) {
                Health::Up
            } else {
                Health::Unknown
            }
        });
        let now = clock::now();
        let (serving, next_step) = self.real_servers.with(|checks| {
            let health = |check: &Check| checks.health(check);
            let (mut serving, next_step) = self.policy.decide(plans, node, health, now);
            let expiry = |check: &Check| checks.certificate_expiry(check);
            serving.warn_of_certificates(plans, expiry, calendar());
            (serving, next_step)
        });
        self.serving = serving;
        self.serving.passages =
            Passages::lay(plans, node.services, node.journal, &self.check_marks);
        self.wake_in(next_step.map(|step| step.since(now)));
    }

    /// Ways through IPVS as the kernel has them.
    fn laid(&self, observed: &Observed) -> Laid {
        let backup_only = observed
            .host
            .sysctls
            .get(&SysctlKey::of_ipvs("backup_only"));
        let is_deaf = backup_only.is_some_and(|value| value.as_deref() == Some("1"))
            && observed.sync_daemons.contains_key(&SyncRole::Backup);
        if is_deaf {
            Laid::Nothing
        } else {
            Laid::Ways(self.serving.passages.in_force(&observed.services))
        }
    }

    /// A pass is due by then at the latest.
    fn wake_in(&mut self, left: Option<Duration>) {
        self.due = [self.due, left].into_iter().flatten().min();
    }

    fn missing_modules(&self, desired: &mut DesiredState) {
        let missing: Vec<Problem> = desired
            .modules
            .iter()
            .filter(|(module, _)| !self.host.has_module(module))
            .flat_map(|(module, plans)| {
                plans.iter().map(move |plan| Problem {
                    plan: plan.clone(),
                    reason: Reason::KernelModuleMissing,
                    message: format!(
                        "kernel module {module} is not loaded and nothing loads it by itself: \
                         name it in a file of /etc/modules-load.d on this node"
                    ),
                })
            })
            .collect();
        desired.problems.extend(missing);
        desired.problems.sort();
    }

    /// The difference, less what must wait while something asked of this node is unknown.
    fn plan(&self, desired: &DesiredState, observed: &Observed, journal: &Journal) -> Diff {
        let mut plan = diff(desired, observed, journal);
        if !self.book.is_complete() {
            plan.ops = without_removals(plan.ops, desired, &observed.host);
        }
        plan
    }
}

/// A failed read is told by its cause where the cause is one that a person can cure.
const fn observation_reason(reason: Reason) -> Reason {
    match reason {
        Reason::PermissionDenied | Reason::SysctlReadOnly => reason,
        _ => Reason::ObservationFailed,
    }
}
