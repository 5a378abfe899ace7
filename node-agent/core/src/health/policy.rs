//! From what is known of real servers to what each service does: weights, states, and whether there is a quorum.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lvs_crds::node_plan::{
    PlanState, PlannedRealServer, PlannedService, ServiceAddress, ServiceFirewallMark,
};
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::{AdministrativeState, OnQuorumLoss, Quorum};

use super::key::{Check, Questions};
use super::machine::Health;
use super::quorum::is_quorum_met;
use super::weight::{EffectiveWeight, SlowStart, Standing};
use crate::desired::PlanInput;
use crate::election::Tick;

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
}

/// How one service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceServing {
    /// Its real servers, in the order of the plan.
    pub real_servers: Vec<RealServerServing>,
    /// Whether enough are up.
    pub has_quorum: bool,
    /// Whether the sorry server serves new connections.
    pub is_sorry: bool,
}

/// How every service that has real servers stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    services: BTreeMap<ServiceName, ServiceServing>,
}

impl Serving {
    /// How a service of a plan stands. None is known before anything was decided: then it is as planned.
    pub fn of(&self, plan: &str, service: &PlannedService) -> Option<&ServiceServing> {
        self.services.get(&ServiceName::of(plan, service))
    }
}

/// What is remembered of a service from one decision to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceMemory {
    /// Whether it had a quorum.
    had_quorum: bool,
    /// Its real servers by address and port: whether each was up, and since when, where that was seen.
    real_servers: BTreeMap<(IpAddr, u16), (bool, Option<Tick>)>,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    services: BTreeMap<ServiceName, ServiceMemory>,
}

impl Policy {
    /// How every service stands at `now`, given what is known of each check, and when time alone changes that.
    pub fn decide(
        &mut self,
        plans: &[PlanInput],
        health: impl Fn(&Check) -> Health,
        now: Tick,
    ) -> (Serving, Option<Tick>) {
        let mut serving = Serving::default();
        let mut next_step = None;
        let mut before = std::mem::take(&mut self.services);
        let held = plans
            .iter()
            .filter(|plan| plan.spec.state != PlanState::Withdrawn);
        for plan in held {
            let Some(director) = &plan.spec.director else {
                continue;
            };
            let questions = Questions::of(director);
            for service in &director.services {
                let name = ServiceName::of(&plan.name, service);
                let memory = before.remove(&name).unwrap_or_default();
                let decision = Decision::of(&questions, service, &health, &memory, now);
                next_step = [next_step, decision.next_step].into_iter().flatten().min();
                self.services.insert(name.clone(), decision.memory);
                serving.services.insert(name, decision.serving);
            }
        }
        (serving, next_step)
    }
}

/// What was decided of one service.
struct Decision {
    serving: ServiceServing,
    memory: ServiceMemory,
    next_step: Option<Tick>,
}

impl Decision {
    fn of(
        questions: &Questions<'_>,
        service: &PlannedService,
        health: &impl Fn(&Check) -> Health,
        before: &ServiceMemory,
        now: Tick,
    ) -> Self {
        let known: Vec<Health> = service
            .real_servers
            .iter()
            .map(|real_server| {
                together(
                    questions
                        .checks(service, real_server)
                        .map(|check| health(&check)),
                )
            })
            .collect();
        let each = || service.real_servers.iter().zip(&known);
        let live: u32 = each()
            .filter(|(real_server, health)| {
                **health == Health::Up && real_server.administrative_state.is_enabled()
            })
            .map(|(real_server, _)| u32::from(real_server.weight))
            .sum();
        let quorum = service.quorum.clone().unwrap_or_default();
        let has_quorum = is_quorum_met(&quorum, live, before.had_quorum);
        let loss = (!has_quorum).then(|| on_loss(&quorum, service));
        let mut memory = ServiceMemory {
            had_quorum: has_quorum,
            real_servers: BTreeMap::new(),
        };
        let mut next_step = None;
        let mut real_servers = Vec::with_capacity(known.len());
        for (real_server, health) in each() {
            let slot = (real_server.address, real_server.port);
            let is_up = *health == Health::Up;
            let since = match before.real_servers.get(&slot) {
                Some((true, since)) if is_up => *since,
                Some((false, _)) if is_up => Some(now),
                // What was up when it was first looked at has served before.
                _ => None,
            };
            memory.real_servers.insert(slot, (is_up, since));
            let standing = standing(service, real_server, is_up, since, loss);
            next_step = [next_step, standing.next_step(now)]
                .into_iter()
                .flatten()
                .min();
            let mut weight = standing.effective_weight(now);
            if matches!(
                loss,
                Some(OnQuorumLoss::SorryServer | OnQuorumLoss::KeepNone)
            ) {
                // The few that are up get no new connections; those that they have go on.
                weight = weight.min(EffectiveWeight::Weight(0));
            }
            real_servers.push(RealServerServing {
                weight,
                state: state(real_server, health),
                message: match health {
                    Health::Down(words) => words.clone(),
                    Health::Up | Health::Unknown => String::new(),
                },
            });
        }
        Self {
            serving: ServiceServing {
                real_servers,
                has_quorum,
                is_sorry: loss == Some(OnQuorumLoss::SorryServer) && service.sorry_server.is_some(),
            },
            memory,
            next_step,
        }
    }
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
        administrative_state: real_server.administrative_state,
        on_failure: service.on_failure,
        slow_start: since
            .filter(|_| !duration.is_zero())
            .map(|since| SlowStart { since, duration }),
    }
}

const fn state(real_server: &PlannedRealServer, health: &Health) -> RealServerState {
    match (real_server.administrative_state, health) {
        (AdministrativeState::Disabled, _) => RealServerState::Disabled,
        (_, Health::Down(_)) => RealServerState::Down,
        (AdministrativeState::Draining, _) => RealServerState::Draining,
        (AdministrativeState::Enabled, _) if real_server.weight == 0 => RealServerState::Disabled,
        (AdministrativeState::Enabled, Health::Up) => RealServerState::Up,
        (AdministrativeState::Enabled, Health::Unknown) => RealServerState::Unknown,
    }
}
