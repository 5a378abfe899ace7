//! Status of a VirtualRouter.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crds::HAND_OVER_ANNOTATION;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{Candidacy, SourceKind};
use lvs_crds::tracking::Deduction;
use lvs_crds::virtual_router::{
    AddressPoolUse, Candidate, CandidateState, Master, PoolPurpose, VirtualRouterStatus,
    VirtualRouterSummary,
};

use super::leadership::{heartbeats, unheard};
use super::{Progress, Reporter, no_directors};
use crate::fitness;
use crate::heartbeat;
use crate::name::plan_name;
use crate::report::{self, Truth, Verdict};
use crate::resolution::Disposition;
use crate::router::Router;

impl Reporter<'_> {
    pub(super) fn virtual_router(
        &self,
        name: &str,
        router: &Router<'_>,
    ) -> (Vec<Verdict>, VirtualRouterStatus) {
        let decisions = self.decisions;
        let mut problems = router.problems.clone();
        problems.extend(
            decisions
                .router_problems
                .get(name)
                .into_iter()
                .flatten()
                .cloned(),
        );
        let mut waiting: Vec<_> = problems
            .iter()
            .filter(|problem| problem.condition == ConditionType::Programmed)
            .cloned()
            .collect();
        if let Some(message) = decisions.held.routers.get(name) {
            waiting.insert(
                0,
                Verdict::bad(ConditionType::Programmed, Reason::MassRemovalHeld, message),
            );
        }
        let candidates = self.candidates(name, router);
        let fit = candidates.iter().filter(|(_, is_fit)| *is_fit).count();
        let candidates: Vec<Candidate> = candidates.into_iter().map(|(one, _)| one).collect();
        let heartbeats = heartbeats(&candidates);
        let accepted = report::accepted(&problems);
        let programmed = self.programmed(&router.meta.uid, &waiting);
        let master = self.lease(name).and_then(|lease| {
            Some(Master {
                node_name: lease.holder_node.clone()?,
                since: lease
                    .acquired
                    .clone()
                    .unwrap_or(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
                epoch: lease.epoch,
            })
        });
        let master_is_programmed = master.as_ref().is_some_and(|master| {
            let mut plans = self
                .standing(&router.meta.uid)
                .filter(|(_, p)| p.spec.node_name == master.node_name);
            plans.any(|(name, planned)| self.progress(name, planned) == Progress::Programmed)
        });
        let ready = if router.directors.is_empty() {
            Verdict::bad(
                ConditionType::Ready,
                Reason::NoDirectors,
                no_directors(name),
            )
        } else if master.is_none() && !self.is_acknowledged(&router.meta.uid) {
            Verdict::bad(
                ConditionType::Ready,
                Reason::Pending,
                programmed.message.clone(),
            )
        } else if master.is_none() {
            Verdict::bad(
                ConditionType::Ready,
                Reason::NoMaster,
                "no director holds the Lease",
            )
        } else if !master_is_programmed {
            Verdict::bad(
                ConditionType::Ready,
                programmed.reason,
                programmed.message.clone(),
            )
        } else if fit < candidates.len()
            || accepted.truth != Truth::True
            || programmed.truth != Truth::True
        {
            let worst = [&accepted, &programmed]
                .into_iter()
                .find(|verdict| verdict.truth != Truth::True);
            let message = worst.map_or_else(
                || format!("{fit} of {} directors are ready", candidates.len()),
                |verdict| verdict.message.clone(),
            );
            Verdict::good(ConditionType::Ready, Reason::PartiallyReady, message)
        } else if let Some(lost) = &heartbeats
            && lost.truth == Truth::False
        {
            Verdict::good(ConditionType::Ready, lost.reason, lost.message.clone())
        } else {
            Verdict::good(
                ConditionType::Ready,
                Reason::Ready,
                "every director is ready",
            )
        };
        let wanted = router.meta.annotations.get(HAND_OVER_ANNOTATION);
        let has_it = master.as_ref().map(|master| &master.node_name) == wanted;
        let handed_over_to = wanted
            .filter(|_| has_it || router.hand_over_to.is_none())
            .filter(|node_name| router.directors.contains_key(*node_name))
            .cloned();
        let status = VirtualRouterStatus {
            handed_over_to,
            master,
            address_pools: self.pool_uses(name, router),
            summary: VirtualRouterSummary {
                candidates: format!("{fit}/{}", candidates.len()),
            },
            candidates,
            ..VirtualRouterStatus::default()
        };
        let verdicts = [Some(accepted), Some(programmed), heartbeats, Some(ready)];
        (verdicts.into_iter().flatten().collect(), status)
    }

    /// Every director, and whether it is ready to hold, by name of its node.
    fn candidates(&self, name: &str, router: &Router<'_>) -> Vec<(Candidate, bool)> {
        let membership = self.decisions.memberships.get(name);
        let directors = membership
            .into_iter()
            .flat_map(|membership| &membership.directors);
        let mut candidates: Vec<(Candidate, bool)> = directors
            .map(|(node_name, (priority, candidacy))| {
                let plan = plan_name(SourceKind::VirtualRouter, node_name, &router.meta.uid);
                let is_master = self.master(name) == Some(node_name.as_str());
                let (state, why, is_fit) =
                    self.standing_of((name, router), (node_name, &plan), *candidacy, is_master);
                let candidate = Candidate {
                    node_name: node_name.clone(),
                    priority: *priority,
                    effective_priority: self.effective_priority(&plan),
                    last_transition: self.last_transition(name, node_name, &plan),
                    state,
                    reason: why.as_ref().map(|(reason, _)| reason.as_str().to_owned()),
                    message: why.map(|(_, message)| message),
                };
                (candidate, is_fit)
            })
            .collect();
        candidates.extend(router.missing_directors.iter().map(|node_name| {
            let candidate = Candidate {
                node_name: node_name.clone(),
                priority: router
                    .spec
                    .directors
                    .iter()
                    .find(|director| director.node_name.as_ref() == Some(node_name))
                    .map_or(0, |director| director.priority),
                effective_priority: None,
                last_transition: None,
                state: CandidateState::Unknown,
                reason: Some(Reason::NodeNotFound.as_str().to_owned()),
                message: Some("the cluster has no node of this name".to_owned()),
            };
            (candidate, false)
        }));
        candidates.sort_by(|(left, _), (right, _)| left.node_name.cmp(&right.node_name));
        candidates
    }

    /// State of a director, why it is not better, and whether it is ready to hold.
    fn standing_of(
        &self,
        (name, router): (&str, &Router<'_>),
        (node_name, plan): (&str, &str),
        candidacy: Candidacy,
        is_master: bool,
    ) -> (CandidateState, Option<(Reason, String)>, bool) {
        let planned = self.decisions.plans.get(plan);
        let progress = planned.map(|planned| self.progress(plan, planned));
        let reported = self.reported_deductions(plan);
        let fault = match &progress {
            Some(Progress::Failed(reason, why)) if is_fault(*reason) => {
                Some((*reason, why.clone()))
            }
            Some(Progress::Programmed) => {
                let faults = reported
                    .iter()
                    .filter(|deduction| deduction.priority_delta == 0);
                told(faults)
            }
            _ => None,
        };
        let node = self.decisions.inputs.nodes.get(node_name);
        let is_cordoned = node.is_some_and(|node| node.is_cordoned);
        let cordoned = is_cordoned.then(|| {
            let message = "the node is cordoned: it gives way to others".to_owned();
            (Reason::Cordoned, message)
        });
        let by_node = fitness::node_deductions(router.spec, node);
        let without_heartbeats = || {
            let leadership = planned?.spec.director.as_ref()?.leadership.as_ref()?;
            heartbeat::obstacle(self.decisions.inputs, router, node_name, leadership)
        };
        let lessened = cordoned
            .or_else(|| told(by_node.iter().chain(reported)))
            .or_else(without_heartbeats);
        let has_fault = fault.is_some();
        match progress {
            _ if is_master => (CandidateState::Master, fault.or(lessened), !has_fault),
            _ if has_fault => (CandidateState::Fault, fault, false),
            _ if candidacy == Candidacy::Pending => {
                let message = "an older director has not acknowledged it yet".to_owned();
                let why = Some((Reason::Pending, message));
                (CandidateState::Pending, why, false)
            }
            Some(Progress::Programmed) => {
                let holder = self.unheard_holder(name, plan);
                let why = holder.map(|holder| unheard(node_name, holder));
                (CandidateState::Backup, why.or(lessened), true)
            }
            Some(Progress::Failed(reason, why) | Progress::Unknown(reason, why)) => {
                (CandidateState::Unknown, Some((reason, why)), false)
            }
            Some(Progress::Pending(why)) => {
                let why = Some((Reason::Pending, why));
                (CandidateState::Unknown, why, false)
            }
            None => {
                let message = "its plan cannot be read".to_owned();
                let why = Some((Reason::Unknown, message));
                (CandidateState::Unknown, why, false)
            }
        }
    }

    /// What the agent says against its node, in the order of the status.
    fn reported_deductions(&self, plan: &str) -> &[Deduction] {
        let stored = self.decisions.inputs.node_plans.get(plan);
        let status = stored.and_then(|stored| stored.object.status.as_ref());
        status.map_or(&[], |status| status.deductions.as_slice())
    }

    fn effective_priority(&self, plan: &str) -> Option<u8> {
        let stored = self.decisions.inputs.node_plans.get(plan)?;
        stored.object.status.as_ref()?.effective_priority
    }

    fn pool_uses(&self, name: &str, router: &Router<'_>) -> Vec<AddressPoolUse> {
        let mut used: BTreeMap<&str, BTreeSet<std::net::IpAddr>> = BTreeMap::new();
        for (key, tenure) in &self.decisions.tenancy.services {
            let disposition = self
                .decisions
                .services
                .get(key)
                .map(|decision| &decision.disposition);
            if disposition
                .is_some_and(|d| matches!(d, Disposition::Planned(router) if router == name))
            {
                for accepted in &tenure.addresses {
                    used.entry(&accepted.pool_name)
                        .or_default()
                        .insert(accepted.address);
                }
            }
        }
        for pool in &router.pools {
            if pool.purpose == PoolPurpose::SourceNAT {
                let addresses = router
                    .source_addresses
                    .iter()
                    .map(|planned| planned.address);
                let of_pool = addresses.filter(|address| pool.contains(address));
                used.entry(&pool.name).or_default().extend(of_pool);
            }
        }
        let count = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
        router
            .pools
            .iter()
            .map(|pool| AddressPoolUse {
                name: pool.name.clone(),
                total: count(
                    pool.ranges
                        .iter()
                        .fold(0, |sum, range| range.count().saturating_add(sum)),
                ),
                allocated: used
                    .get(pool.name.as_str())
                    .map_or(0, |used| count(used.len() as u128)),
            })
            .collect()
    }
}

/// Several deductions in words, faults first, under the reason of the first.
fn told<'a>(deductions: impl Iterator<Item = &'a Deduction>) -> Option<(Reason, String)> {
    let mut sorted: Vec<&Deduction> = deductions.collect();
    sorted.sort_by_key(|deduction| (deduction.priority_delta != 0, deduction.priority_delta));
    let first = sorted.first()?;
    let reason = Reason::parse(&first.reason).unwrap_or(Reason::Unknown);
    let words = sorted.iter().map(|deduction| {
        let Deduction {
            priority_delta,
            message,
            ..
        } = deduction;
        if *priority_delta == 0 {
            message.clone()
        } else {
            format!("{message} (priority {priority_delta})")
        }
    });
    Some((reason, words.collect::<Vec<_>>().join("; ")))
}

/// Whether it keeps a director from being a candidate: it cannot hold every address, a link or an endpoint that counts has
/// failed, or its agent would need the addresses before it could have them.
const fn is_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LinkDown
            | Reason::InterfaceNotFound
            | Reason::ForeignObject
            | Reason::ApiEndpointIsOwnVip
            | Reason::EndpointFailed
    )
}
