//! From verdicts to what each plan's status says. Times and API objects are not here; the status writer adds them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::desired::HeartbeatInterface;
use lvs_core::health::Serving;
use lvs_core::host::AddressKey;
use lvs_core::verdict::Verdict;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    AddressState, AddressStatus, CheckedRealServer, HeartbeatStatus, NodePlanSpec, NodePlanStatus,
    PlanState, Role, SourceKind,
};
use lvs_crds::tracking::Deduction;
use lvs_crds::transition::{Transition, TransitionKind};

use crate::book::{Entry, PlanBook, Presence};
use crate::checked::{real_servers, without_quorum};
use crate::limits::MESSAGE_BYTES;
use crate::port::{LeadershipRole, LeadershipView};
use crate::sync::Blindness;

/// The condition `Programmed` without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Generation it speaks of.
    pub generation: Option<i64>,
}

/// The object to report on.
#[derive(Clone, Debug, PartialEq)]
pub struct LivePlan {
    /// UID.
    pub uid: String,
    /// Status as last seen in the API.
    pub status: NodePlanStatus,
}

/// What is to be reported of one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanReport {
    /// The object, while there is one.
    pub live: Option<LivePlan>,
    /// Generation that this report speaks of.
    pub observed_generation: Option<i64>,
    /// Role of the node.
    pub role: Option<Role>,
    /// Priority with what tracking takes off, in plans with leadership.
    pub effective_priority: Option<u8>,
    /// What makes it lower than the plan's, in plans with leadership.
    pub deductions: Vec<Deduction>,
    /// The router whose leadership the plan carries.
    pub leads: Option<String>,
    /// How the node last came to hold that router, or ceased to.
    pub last_transition: Option<Transition>,
    /// Its holder, where that one renews the Lease but is not heard here.
    pub heartbeat_lost_from: Option<String>,
    /// The condition.
    pub programmed: Programmed,
    /// Director addresses.
    pub addresses: Vec<AddressStatus>,
    /// Hash of the plan's table, where all directors must have the same.
    pub table_hash: Option<String>,
    /// Where heartbeats reach the node, in plans whose heartbeats have an interface of their own.
    pub heartbeat: Option<HeartbeatStatus>,
    /// Real servers of services that have checks or a time to drain, without the times.
    pub real_servers: Vec<CheckedRealServer>,
    /// Services without a quorum.
    pub services_without_quorum: Vec<String>,
    /// Whether something other than the plan is waited for.
    pub waits: bool,
}

/// What a pass found.
#[derive(Clone, Copy, Debug)]
pub enum Judgement<'a> {
    /// By plan.
    Verdicts(&'a BTreeMap<String, Verdict>),
    /// The kernel could not be read.
    Blind(&'a Blindness),
}

/// What else is known of the node.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Addresses of the node that no lifetime ends.
    pub permanent: &'a BTreeSet<AddressKey>,
    /// Priority in each router, with what tracking takes off.
    pub priorities: &'a BTreeMap<String, u8>,
    /// What makes it lower than the plan's, by router.
    pub deductions: &'a BTreeMap<String, BTreeSet<Deduction>>,
    /// Addresses by router that cannot be held here.
    pub unavailable: &'a BTreeMap<String, BTreeSet<IpAddr>>,
    /// Addresses by router that this node is not to have for want of real servers.
    pub withdrawn: &'a BTreeMap<String, BTreeSet<IpAddr>>,
    /// Interfaces of heartbeats by router; `None` before the first reading.
    pub heartbeat_interfaces: Option<&'a BTreeMap<String, HeartbeatInterface>>,
    /// Hashes of tables that all directors must have, by plan.
    pub tables: &'a BTreeMap<String, String>,
    /// How services stand.
    pub serving: &'a Serving,
    /// What others do to what plans ask for, by plan.
    pub interference: &'a BTreeMap<String, String>,
}

/// Reports of every plan.
pub fn reports(
    book: &PlanBook,
    judgement: &Judgement<'_>,
    view: &LeadershipView,
    facts: &Facts<'_>,
    previous: &BTreeMap<String, PlanReport>,
) -> BTreeMap<String, PlanReport> {
    book.entries()
        .iter()
        .map(|(name, entry)| {
            let context = Context {
                book,
                name,
                entry,
                judgement,
                view,
                facts,
                table_hash: facts.tables.get(name),
                previous: previous.get(name),
            };
            (name.clone(), context.report())
        })
        .collect()
}

struct Context<'a> {
    book: &'a PlanBook,
    name: &'a str,
    entry: &'a Entry,
    judgement: &'a Judgement<'a>,
    view: &'a LeadershipView,
    facts: &'a Facts<'a>,
    table_hash: Option<&'a String>,
    previous: Option<&'a PlanReport>,
}

impl Context<'_> {
    fn report(&self) -> PlanReport {
        let spec = self.book.spec(self.name);
        let live = match &self.entry.presence {
            Presence::Live { uid, status, .. } => Some(LivePlan {
                uid: uid.clone(),
                status: NodePlanStatus::clone(status),
            }),
            Presence::Cached | Presence::Orphaned => None,
        };
        let pending = spec.map(|spec| self.pending(spec)).unwrap_or_default();
        let router = spec
            .filter(|spec| leads(spec))
            .map(|spec| &spec.virtual_router_name);
        let mut programmed = self.programmed(spec, pending.as_deref());
        shorten(&mut programmed.message);
        PlanReport {
            observed_generation: self.observed_generation(live.as_ref(), spec, pending.is_some()),
            role: spec.map(|spec| self.role(spec)),
            effective_priority: spec.and_then(|spec| self.effective_priority(spec)),
            deductions: spec.map(|spec| self.deductions(spec)).unwrap_or_default(),
            last_transition: router.and_then(|router| self.last_transition(router, live.as_ref())),
            heartbeat_lost_from: router
                .and_then(|router| self.view.heartbeats_lost.get(router).cloned()),
            leads: router.cloned(),
            addresses: spec
                .map(|spec| self.addresses(spec, live.as_ref()))
                .unwrap_or_default(),
            waits: pending.is_some(),
            table_hash: self.table_hash.cloned(),
            heartbeat: spec.and_then(|spec| self.heartbeat(spec, live.as_ref())),
            real_servers: spec.map_or_else(Vec::new, |spec| {
                real_servers(self.name, spec, self.facts.serving)
            }),
            services_without_quorum: spec.map_or_else(Vec::new, |spec| {
                without_quorum(self.name, spec, self.facts.serving)
            }),
            programmed,
            live,
        }
    }

    /// Generation whose content was dealt with: not yet the newest while the kernel cannot be read.
    fn observed_generation(
        &self,
        live: Option<&LivePlan>,
        spec: Option<&NodePlanSpec>,
        is_pending: bool,
    ) -> Option<i64> {
        let reported = || match self.previous {
            Some(previous) => previous.observed_generation,
            None => live.and_then(|live| live.status.observed_generation),
        };
        // Retention is acknowledged by the generation alone: the uninstaller goes on as soon as it is reported.
        if is_pending && spec.is_some_and(|spec| spec.state == PlanState::Retained) {
            return reported();
        }
        match (self.judgement, &self.entry.good, live) {
            (Judgement::Blind(_), _, _) => reported(),
            (Judgement::Verdicts(_), Some((uid, generation)), Some(live)) if *uid == live.uid => {
                Some(*generation)
            }
            (Judgement::Verdicts(_), Some((_, generation)), None) => Some(*generation),
            // The content in force is that of an earlier object of this name.
            (Judgement::Verdicts(_), Some(_), Some(_)) | (_, None, _) => None,
        }
    }

    fn programmed(&self, spec: Option<&NodePlanSpec>, pending: Option<&str>) -> Programmed {
        let generation = match &self.entry.presence {
            Presence::Live { generation, .. } => Some(*generation),
            Presence::Cached | Presence::Orphaned => {
                self.entry.good.as_ref().map(|(_, generation)| *generation)
            }
        };
        let condition = |status, reason, message: String| Programmed {
            status,
            reason,
            message,
            generation,
        };
        if let Some(trouble) = &self.entry.trouble {
            let kept = match &self.entry.good {
                Some((_, good)) => format!("generation {good} stays in force"),
                None => "nothing is removed from this node until it can be understood".to_owned(),
            };
            return condition(
                "False",
                Reason::PlanUndecodable,
                format!("this version of the agent cannot understand the plan: {trouble}; {kept}"),
            );
        }
        if self.entry.presence == Presence::Orphaned {
            return condition(
                "False",
                Reason::OrphanedPlan,
                "the NodePlan vanished without having been withdrawn; what it asked for is kept"
                    .to_owned(),
            );
        }
        let verdict = match self.judgement {
            Judgement::Blind(blindness) => {
                return condition("Unknown", blindness.reason, blindness.message.clone());
            }
            Judgement::Verdicts(verdicts) => verdicts.get(self.name),
        };
        match (verdict, pending) {
            (Some(Verdict::NotProgrammed { reason, message }), _) => {
                condition("False", *reason, message.clone())
            }
            (Some(Verdict::Withdrawn | Verdict::Programmed), Some(pending)) => {
                condition("False", Reason::Pending, pending.to_owned())
            }
            (Some(Verdict::Withdrawn), None) => condition(
                "False",
                Reason::Withdrawn,
                "nothing of this plan is left on the node".to_owned(),
            ),
            (Some(Verdict::Programmed), _) if let Some((reason, message)) = self.trouble(spec) => {
                condition("False", reason, message)
            }
            (Some(Verdict::Programmed), _) => match spec.map(|spec| spec.state) {
                Some(PlanState::Leaving) => condition(
                    "True",
                    Reason::Leaving,
                    "kept until another director has the addresses".to_owned(),
                ),
                _ => match self.facts.interference.get(self.name) {
                    Some(message) => condition("True", Reason::DriftRepaired, message.clone()),
                    None => condition(
                        "True",
                        Reason::Programmed,
                        "the kernel holds what was asked".to_owned(),
                    ),
                },
            },
            (None, _) => condition("Unknown", Reason::Unknown, "not looked at yet".to_owned()),
        }
    }

    /// What keeps the fence from holding an address of this plan, or who disputes it.
    fn trouble(&self, spec: Option<&NodePlanSpec>) -> Option<(Reason, String)> {
        let spec = spec?;
        self.obstacle(spec).or_else(|| self.conflict(spec))
    }

    /// Told of the plan that has the address, and of the router's.
    fn conflict(&self, spec: &NodePlanSpec) -> Option<(Reason, String)> {
        let leads = leads(spec);
        let conflicts = self.view.conflicts.get(&spec.virtual_router_name)?;
        let mut concerned = conflicts
            .iter()
            .filter(|conflict| leads || planned(spec).any(|address| address == conflict.address));
        let first = concerned.next()?;
        let message = match concerned.count() {
            0 => first.message.clone(),
            more => format!("{}; and {more} more", first.message),
        };
        Some((first.reason, message))
    }

    fn obstacle(&self, spec: &NodePlanSpec) -> Option<(Reason, String)> {
        let addresses: BTreeSet<IpAddr> = planned(spec).collect();
        let troubles = self.view.troubles.get(&spec.virtual_router_name)?;
        let first = troubles
            .iter()
            .find(|trouble| addresses.contains(&trouble.address));
        let journal = self
            .view
            .journal_error
            .as_ref()
            .filter(|_| !addresses.is_empty());
        match (first, journal) {
            (_, Some(error)) => {
                Some((Reason::KernelError, format!("no address is added: {error}")))
            }
            (Some(trouble), None) => Some((trouble.reason, trouble.message.clone())),
            (None, None) => None,
        }
    }

    fn role(&self, spec: &NodePlanSpec) -> Role {
        if spec.director.is_none() {
            return Role::RealServer;
        }
        match self.view.roles.get(&spec.virtual_router_name) {
            Some(LeadershipRole::Master) => Role::Master,
            _ => Role::Backup,
        }
    }

    fn effective_priority(&self, spec: &NodePlanSpec) -> Option<u8> {
        spec.director.as_ref()?.leadership.as_ref()?;
        self.facts
            .priorities
            .get(&spec.virtual_router_name)
            .copied()
    }

    fn heartbeat(&self, spec: &NodePlanSpec, live: Option<&LivePlan>) -> Option<HeartbeatStatus> {
        let leadership = spec.director.as_ref()?.leadership.as_ref()?;
        let Some(interfaces) = self.facts.heartbeat_interfaces else {
            // Not read since the start: what stands there is not known to be wrong.
            return live?.status.heartbeat.clone();
        };
        let interface = interfaces.get(&spec.virtual_router_name)?;
        let is_asked_for = leadership.heartbeat.as_ref()?.devices == interface.devices;
        is_asked_for.then(|| HeartbeatStatus {
            devices: interface.devices.clone(),
            addresses: interface.addresses.clone(),
        })
    }

    fn deductions(&self, spec: &NodePlanSpec) -> Vec<Deduction> {
        let director = spec.director.as_ref();
        let leads = director.is_some_and(|director| director.leadership.is_some());
        let found = self.facts.deductions.get(&spec.virtual_router_name);
        let deductions = found.into_iter().flatten().filter(|_| leads).cloned();
        deductions
            .map(|mut deduction| {
                shorten(&mut deduction.message);
                deduction
            })
            .collect()
    }

    /// What an earlier process reported stays until there is something newer.
    fn last_transition(&self, router: &str, live: Option<&LivePlan>) -> Option<Transition> {
        let reported = || match self.previous {
            Some(previous) => previous.last_transition.clone(),
            None => live.and_then(|live| live.status.last_transition.clone()),
        };
        let mut newest = self
            .view
            .transitions
            .get(router)
            .cloned()
            .or_else(reported)?;
        shorten(&mut newest.message);
        Some(newest)
    }

    /// Addresses that other plans of the same router want.
    fn wanted_elsewhere(&self, router: &str) -> BTreeSet<IpAddr> {
        self.book
            .inputs()
            .iter()
            .filter(|plan| {
                plan.name != self.name
                    && plan.spec.virtual_router_name == router
                    && plan.spec.state != PlanState::Withdrawn
            })
            .flat_map(|plan| planned(&plan.spec))
            .collect()
    }

    /// What the acknowledgement of the plan's state still waits for.
    fn pending(&self, spec: &NodePlanSpec) -> Option<String> {
        match spec.state {
            PlanState::Active | PlanState::Leaving => None,
            PlanState::Withdrawn => self.pending_withdrawal(spec),
            PlanState::Retained => self.pending_retention(spec),
        }
    }

    /// Without an agent nobody refreshes a lifetime: what is held must have none.
    fn pending_retention(&self, spec: &NodePlanSpec) -> Option<String> {
        let held = self.view.held.get(&spec.virtual_router_name)?;
        let planned: BTreeSet<IpAddr> = planned(spec).collect();
        let passing: Vec<String> = held
            .iter()
            .filter(|key| planned.contains(&key.address) && !self.facts.permanent.contains(key))
            .map(|key| key.address.to_string())
            .collect();
        (!passing.is_empty()).then(|| format!("{} would still expire", passing.join(", ")))
    }

    fn pending_withdrawal(&self, spec: &NodePlanSpec) -> Option<String> {
        if !self.book.is_complete() {
            return Some(
                "nothing is removed from this node until every plan of it is known".to_owned(),
            );
        }
        let router = &spec.virtual_router_name;
        let elsewhere = self.wanted_elsewhere(router);
        let held: Vec<String> = planned(spec)
            .filter(|address| !elsewhere.contains(address) && self.view.holds(router, *address))
            .map(|address| address.to_string())
            .collect();
        if !held.is_empty() {
            return Some(format!("still holding {}", held.join(", ")));
        }
        let leads = spec.source.kind == SourceKind::VirtualRouter && spec.director.is_some();
        let released = matches!(
            self.view.roles.get(router),
            None | Some(LeadershipRole::Released)
        );
        (leads && !released).then(|| format!("still taking part in router {router}"))
    }

    fn addresses(&self, spec: &NodePlanSpec, live: Option<&LivePlan>) -> Vec<AddressStatus> {
        let router = &spec.virtual_router_name;
        let given_up = if spec.state == PlanState::Withdrawn {
            self.wanted_elsewhere(router)
        } else {
            BTreeSet::new()
        };
        let holds =
            |address: IpAddr| self.view.holds(router, address) && !given_up.contains(&address);
        let among = |found: &BTreeMap<String, BTreeSet<IpAddr>>, address| {
            let of_router = found.get(router);
            of_router.is_some_and(|addresses| addresses.contains(&address))
        };
        // An address that the plan no longer lists is named until it is gone.
        let reported = match self.previous {
            Some(previous) => previous.addresses.as_slice(),
            None => live
                .map(|live| live.status.addresses.as_slice())
                .unwrap_or_default(),
        };
        let leftover = reported
            .iter()
            .map(|status| status.address)
            .filter(|address| holds(*address) && !self.wanted_elsewhere(router).contains(address));
        planned(spec)
            .chain(leftover)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|address| AddressStatus {
                address,
                state: if holds(address) {
                    AddressState::Held
                } else if among(self.facts.unavailable, address) {
                    AddressState::Unavailable
                } else if among(self.facts.withdrawn, address) {
                    AddressState::Withdrawn
                } else {
                    AddressState::Released
                },
            })
            .collect()
    }
}

/// The last report of a plan before the process ends: what came of its hold on the router. None if there is nothing new.
pub fn last_word(report: &PlanReport, view: &LeadershipView) -> Option<PlanReport> {
    let router = report.leads.as_ref()?;
    let transition = view.transitions.get(router)?;
    if report.last_transition.as_ref() == Some(transition) {
        return None;
    }
    let mut last = report.clone();
    last.last_transition = Some(transition.clone());
    if transition.reason != TransitionKind::BecameMaster {
        last.role = Some(Role::Backup);
    }
    for status in &mut last.addresses {
        if status.state == AddressState::Held && !view.holds(router, status.address) {
            status.state = AddressState::Released;
        }
    }
    Some(last)
}

fn leads(spec: &NodePlanSpec) -> bool {
    spec.director
        .as_ref()
        .is_some_and(|director| director.leadership.is_some())
}

/// Director addresses that a plan asks for.
pub fn planned(spec: &NodePlanSpec) -> impl Iterator<Item = IpAddr> {
    spec.director
        .iter()
        .flat_map(|director| &director.addresses)
        .map(|planned| planned.address)
}

fn shorten(message: &mut String) {
    if message.len() > MESSAGE_BYTES {
        let end = message.floor_char_boundary(MESSAGE_BYTES - '…'.len_utf8());
        message.truncate(end);
        message.push('…');
    }
}
