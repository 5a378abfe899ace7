//! From what is known of real servers to what each service does: weights, states, and whether there is a quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lvs_crds::connection_sync::ConnectionSyncType;
use lvs_crds::node_plan::{
    PlanState, PlannedRealServer, PlannedService, ServiceAddress, ServiceFirewallMark,
};
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::{AdministrativeState, OnQuorumLoss, Quorum};

use super::drain::{
    Departures, Drain, LeavingMemory, LeavingRealServer, NodeView, departures, drain_timeout,
};
use super::expiry::UnixSeconds;
use super::key::{Check, Questions};
use super::machine::Health;
use super::memory::service_key;
use super::passage::Passages;
use super::quorum::is_quorum_met;
use super::weight::{EffectiveWeight, SlowStart, Standing};
use crate::desired::{PlanInput, RouterRole};
use crate::election::Tick;
use crate::ipvs::{DestinationKey, ServiceKey};

/// Name of a service that stays over changes of its plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ServiceName {
    plan: String,
    address: Option<ServiceAddress>,
    firewall_mark: Option<ServiceFirewallMark>,
}

impl ServiceName {
    fn of(plan: &str, service: &PlannedService) -> Self {
        Self {
            plan: plan.to_owned(),
            address: service.address.clone(),
            firewall_mark: service.firewall_mark.clone(),
        }
    }
}

/// How one real server of one service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerServing {
    /// What is to be in the kernel.
    pub weight: EffectiveWeight,
    /// What people are told.
    pub state: RealServerState,
    /// Why, in words; empty where there is nothing to say.
    pub message: String,
    /// When the first of its certificates expires, where people are to be warned of that.
    pub certificate_expiry: Option<UnixSeconds>,
}

/// How one service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceServing {
    /// Its real servers, in the order of the plan.
    pub real_servers: Vec<RealServerServing>,
    /// Real servers that have left the plan and drain, by service of the kernel; a range of ports is several.
    pub leaving: BTreeMap<ServiceKey, Vec<LeavingRealServer>>,
    /// Whether enough are up.
    pub has_quorum: bool,
    /// Whether enough would be up if all were of which nothing is known yet.
    pub may_have_quorum: bool,
    /// Whether the sorry server serves new connections.
    pub is_sorry: bool,
}

/// How every service that has real servers stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    services: BTreeMap<ServiceName, ServiceServing>,
    /// How checks through virtual addresses reach the real servers.
    pub passages: Passages,
}

impl Serving {
    /// How a service of a plan stands. None is known before anything was decided: then it is as planned.
    pub fn of(&self, plan: &str, service: &PlannedService) -> Option<&ServiceServing> {
        self.services.get(&ServiceName::of(plan, service))
    }

    /// The same, to add to it.
    pub(super) fn of_mut(
        &mut self,
        plan: &str,
        service: &PlannedService,
    ) -> Option<&mut ServiceServing> {
        self.services.get_mut(&ServiceName::of(plan, service))
    }
}

/// A real server of a service: its address and port.
pub(super) type Slot = (IpAddr, u16);

/// What is remembered of a real server from one decision to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RealServerMemory {
    /// RealServer.
    pub(super) name: String,
    /// Whether it was up.
    pub(super) is_up: bool,
    /// Since when, where that was seen.
    up_since: Option<Tick>,
    /// How far it is, while it is told to drain.
    pub(super) drain: Option<Drain>,
}

/// What is remembered of a service from one decision to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceMemory {
    /// Whether anything was decided since the start.
    pub(super) was_decided: bool,
    /// Whether it had a quorum.
    had_quorum: bool,
    /// Its real servers.
    pub(super) real_servers: BTreeMap<Slot, RealServerMemory>,
    /// Real servers that have left the plan and drain.
    pub(super) leaving: BTreeMap<(ServiceKey, DestinationKey), LeavingMemory>,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    services: BTreeMap<ServiceName, ServiceMemory>,
}

impl Policy {
    /// How every service stands at `now` on this node, given what is known of each check, and when time alone changes that.
    pub fn decide(
        &mut self,
        plans: &[PlanInput],
        node: &NodeView<'_>,
        health: impl Fn(&Check) -> Health,
        now: Tick,
    ) -> (Serving, Option<Tick>) {
        let known = |of_plan: &OfPlan<'_>, service: &PlannedService, one: &PlannedRealServer| {
            let checks = of_plan.questions.checks(service, one).into_iter();
            together(checks.map(|check| health(&check)))
        };
        self.decide_by(plans, node, known, now)
    }

    /// The same where it is known of each real server of a plan's service, rather than of each check: by somebody who has read
    /// what an agent reports.
    pub fn decide_of_real_servers(
        &mut self,
        plans: &[PlanInput],
        node: &NodeView<'_>,
        health: impl Fn(&str, &PlannedService, &PlannedRealServer) -> Health,
        now: Tick,
    ) -> Serving {
        let known = |of_plan: &OfPlan<'_>, service: &PlannedService, one: &PlannedRealServer| {
            health(of_plan.plan, service, one)
        };
        self.decide_by(plans, node, known, now).0
    }

    fn decide_by(
        &mut self,
        plans: &[PlanInput],
        node: &NodeView<'_>,
        known: impl Fn(&OfPlan<'_>, &PlannedService, &PlannedRealServer) -> Health,
        now: Tick,
    ) -> (Serving, Option<Tick>) {
        let mut serving = Serving::default();
        let mut next_step = None;
        let mut before = std::mem::take(&mut self.services);
        let stateless = stateless_routers(plans);
        for plan in held(plans) {
            let Some(director) = &plan.spec.director else {
                continue;
            };
            let questions = Questions::of(&plan.spec);
            let router = plan.spec.virtual_router_name.as_str();
            // A backup does not know of every connection that it would take over, and directors that rely on equal tables
            // take a real server out at the same time.
            let connections_count =
                node.roles.of(router) == RouterRole::Master && !stateless.contains(router);
            for service in &director.services {
                let name = ServiceName::of(&plan.name, service);
                let memory = before.remove(&name).unwrap_or_default();
                let of_plan = OfPlan {
                    plan: &plan.name,
                    questions: &questions,
                    node,
                    connections_count,
                };
                let decision = Decision::of(&of_plan, service, &known, &memory, now);
                next_step = [next_step, decision.next_step].into_iter().flatten().min();
                self.services.insert(name.clone(), decision.memory);
                serving.services.insert(name, decision.serving);
            }
        }
        (serving, next_step)
    }

    /// Whether a real server of a plan's service had left the plan at the last decision, and was up when it did.
    pub(super) fn has_left_up(
        &self,
        plan: &str,
        service: &PlannedService,
        destination: DestinationKey,
    ) -> bool {
        let memory = self.services.get(&ServiceName::of(plan, service));
        let key = service_key(service);
        let leaving = memory
            .zip(key)
            .and_then(|(memory, key)| memory.leaving.get(&(key, destination)));
        leaving.is_some_and(|leaving| leaving.was_up)
    }
}

pub(super) fn held(plans: &[PlanInput]) -> impl Iterator<Item = &PlanInput> {
    plans
        .iter()
        .filter(|plan| plan.spec.state != PlanState::Withdrawn)
}

/// Routers whose directors send a connection to the same real server without knowing it.
fn stateless_routers(plans: &[PlanInput]) -> BTreeSet<&str> {
    held(plans)
        .filter_map(|plan| {
            let leadership = plan.spec.director.as_ref()?.leadership.as_ref()?;
            let sync = leadership.connection_sync.as_ref()?;
            let is_stateless = sync.type_ == ConnectionSyncType::Stateless;
            is_stateless.then_some(plan.spec.virtual_router_name.as_str())
        })
        .collect()
}

/// What is the same for all services of a plan.
struct OfPlan<'a> {
    plan: &'a str,
    questions: &'a Questions<'a>,
    node: &'a NodeView<'a>,
    /// Whether the kernel's count of connections says when a real server has drained.
    connections_count: bool,
}

/// What was decided of one service.
struct Decision {
    serving: ServiceServing,
    memory: ServiceMemory,
    next_step: Option<Tick>,
}

impl Decision {
    fn of(
        of_plan: &OfPlan<'_>,
        service: &PlannedService,
        health: &impl Fn(&OfPlan<'_>, &PlannedService, &PlannedRealServer) -> Health,
        before: &ServiceMemory,
        now: Tick,
    ) -> Self {
        let real_servers = service.real_servers.iter();
        let known: Vec<Health> = real_servers
            .map(|real_server| health(of_plan, service, real_server))
            .collect();
        let each = || service.real_servers.iter().zip(&known);
        let weigh = |counts: fn(&Health) -> bool| -> u32 {
            each()
                .filter(|(real_server, health)| {
                    counts(health) && real_server.administrative_state.is_enabled()
                })
                .map(|(real_server, _)| u32::from(real_server.weight))
                .sum()
        };
        let live = weigh(|health| *health == Health::Up);
        let possible = weigh(|health| !matches!(health, Health::Down(_)));
        let quorum = service.quorum.clone().unwrap_or_default();
        let has_quorum = is_quorum_met(&quorum, live, before.had_quorum);
        let may_have_quorum = is_quorum_met(&quorum, possible, before.had_quorum);
        let loss = (!has_quorum).then(|| on_loss(&quorum, service));
        let mut memory = ServiceMemory {
            was_decided: true,
            had_quorum: has_quorum,
            ..ServiceMemory::default()
        };
        let mut next_step = None;
        let mut real_servers = Vec::with_capacity(known.len());
        let timeout = drain_timeout(service);
        for (real_server, health) in each() {
            let slot = (real_server.address, real_server.port);
            let is_up = *health == Health::Up;
            let remembered = before.real_servers.get(&slot);
            let up_since = match remembered {
                Some(one) if is_up && one.is_up => one.up_since,
                Some(_) if is_up => Some(now),
                // What was up when it was first looked at has served before.
                _ => None,
            };
            let drain = drain(of_plan, service, real_server, before, now);
            let is_drained = timeout.is_some() && drain == Some(Drain::Over);
            memory.real_servers.insert(
                slot,
                RealServerMemory {
                    name: real_server.name.clone(),
                    is_up,
                    up_since,
                    drain,
                },
            );
            let is_in_kernel = of_plan.node.has(of_plan.plan, service, slot) == Some(true);
            let mut standing = Standing {
                is_in_kernel,
                ..standing(service, real_server, is_up, up_since, loss)
            };
            if is_drained {
                standing.administrative_state = AdministrativeState::Disabled;
            }
            let deadline = drain.and_then(|drain| drain.deadline(timeout));
            next_step = [next_step, standing.next_step(now), deadline]
                .into_iter()
                .flatten()
                .min();
            let mut weight = standing.effective_weight(now);
            if matches!(
                loss,
                Some(
                    OnQuorumLoss::SorryServer
                        | OnQuorumLoss::KeepNone
                        | OnQuorumLoss::WithdrawAddress
                )
            ) {
                // The few that are up get no new connections; those that they have go on.
                weight = weight.min(EffectiveWeight::Weight(0));
            }
            let is_kept = weight != EffectiveWeight::Absent;
            let state = state(standing.administrative_state, real_server, health, is_kept);
            let failure = match health {
                Health::Down(words) if !is_drained => Some(words.clone()),
                _ => None,
            };
            let drains = drain
                .zip(timeout)
                .filter(|_| is_drained || is_kept || failure.is_none());
            let drains = drains.map(|(drain, timeout)| drain.words(timeout));
            let message = [drains, failure].into_iter().flatten().collect::<Vec<_>>();
            let message = message.join("; ");
            real_servers.push(RealServerServing {
                weight,
                state,
                message,
                certificate_expiry: None,
            });
        }
        let Departures {
            leaving,
            memory: leaving_memory,
            next_step: departure,
        } = departures(
            (of_plan.plan, service),
            of_plan.node,
            of_plan.connections_count,
            before,
            &memory.real_servers,
            now,
        );
        memory.leaving = leaving_memory;
        Self {
            serving: ServiceServing {
                real_servers,
                leaving,
                has_quorum,
                may_have_quorum,
                is_sorry: loss == Some(OnQuorumLoss::SorryServer) && service.sorry_server.is_some(),
            },
            memory,
            next_step: [next_step, departure].into_iter().flatten().min(),
        }
    }
}

/// How far a real server is, while it is told to drain.
fn drain(
    of_plan: &OfPlan<'_>,
    service: &PlannedService,
    real_server: &PlannedRealServer,
    before: &ServiceMemory,
    now: Tick,
) -> Option<Drain> {
    if real_server.administrative_state != AdministrativeState::Draining {
        return None;
    }
    let slot = (real_server.address, real_server.port);
    let timeout = drain_timeout(service);
    let remembered = before.real_servers.get(&slot);
    let drain = remembered.and_then(|one| one.drain).unwrap_or_else(|| {
        let node = of_plan.node;
        // An agent before this one has seen it drain.
        let was_over = !before.was_decided
            && timeout.is_some()
            && node.has(of_plan.plan, service, slot) == Some(false);
        if was_over {
            Drain::Over
        } else {
            Drain::Begun(now)
        }
    });
    Some(drain.at(now, timeout))
}

/// What all checks of a real server say together: one that fails is enough, and one that is not known yet is not passed.
fn together(healths: impl Iterator<Item = Health>) -> Health {
    let mut sum = Health::Up;
    for health in healths {
        match health {
            Health::Down(words) => return Health::Down(words),
            Health::Unknown => sum = Health::Unknown,
            Health::Up => {}
        }
    }
    sum
}

fn on_loss(quorum: &Quorum, service: &PlannedService) -> OnQuorumLoss {
    let usual = if service.sorry_server.is_some() {
        OnQuorumLoss::SorryServer
    } else {
        OnQuorumLoss::KeepNone
    };
    quorum.on_loss.unwrap_or(usual)
}

fn standing(
    service: &PlannedService,
    real_server: &PlannedRealServer,
    is_up: bool,
    since: Option<Tick>,
    loss: Option<OnQuorumLoss>,
) -> Standing {
    let duration = Duration::from_secs(service.slow_start_seconds.into());
    Standing {
        weight: real_server.weight,
        is_up: is_up || loss == Some(OnQuorumLoss::KeepAll),
        is_in_kernel: false,
        administrative_state: real_server.administrative_state,
        on_failure: service.on_failure,
        slow_start: since
            .filter(|_| !duration.is_zero())
            .map(|since| SlowStart { since, duration }),
    }
}

const fn state(
    administrative_state: AdministrativeState,
    real_server: &PlannedRealServer,
    health: &Health,
    is_kept: bool,
) -> RealServerState {
    match (administrative_state, health) {
        (AdministrativeState::Disabled, _) => RealServerState::Disabled,
        (AdministrativeState::Draining, _) if is_kept => RealServerState::Draining,
        (_, Health::Down(_)) => RealServerState::Down,
        (AdministrativeState::Draining, _) => RealServerState::Draining,
        (AdministrativeState::Enabled, _) if real_server.weight == 0 => RealServerState::Disabled,
        (AdministrativeState::Enabled, Health::Up) => RealServerState::Up,
        (AdministrativeState::Enabled, Health::Unknown) => RealServerState::Unknown,
    }
}
