//! Status of a VirtualRouter.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crds::HAND_OVER_ANNOTATION;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{Candidacy, SourceKind};
use lvs_crds::virtual_router::{
    AddressPoolUse, Candidate, CandidateState, Master, VirtualRouterStatus, VirtualRouterSummary,
};

use super::leadership::{heartbeats, unheard};
use super::{Progress, Reporter, no_directors};
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
        let fit = candidates
            .iter()
            .filter(|candidate| match candidate.state {
                CandidateState::Backup => true,
                CandidateState::Master => candidate.reason.is_none(),
                CandidateState::Fault | CandidateState::Pending | CandidateState::Unknown => false,
            })
            .count();
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

    fn candidates(&self, name: &str, router: &Router<'_>) -> Vec<Candidate> {
        let membership = self.decisions.memberships.get(name);
        let master = self.master(name);
        let mut candidates: Vec<Candidate> = membership
            .into_iter()
            .flat_map(|membership| &membership.directors)
            .map(|(node_name, (priority, candidacy))| {
                let plan = plan_name(SourceKind::VirtualRouter, node_name, &router.meta.uid);
                let planned = self.decisions.plans.get(&plan);
                let progress = planned.map(|planned| self.progress(&plan, planned));
                let fault = match &progress {
                    Some(Progress::Failed(reason, why)) if is_fault(*reason) => {
                        Some((*reason, why.clone()))
                    }
                    _ => None,
                };
                let (state, why) = match progress {
                    _ if master == Some(node_name.as_str()) => (CandidateState::Master, fault),
                    _ if fault.is_some() => (CandidateState::Fault, fault),
                    _ if *candidacy == Candidacy::Pending => {
                        let message = "an older director has not acknowledged it yet".to_owned();
                        (CandidateState::Pending, Some((Reason::Pending, message)))
                    }
                    Some(Progress::Programmed) if self.is_cordoned(node_name) => {
                        let message = "the node is cordoned: it gives way to others".to_owned();
                        (CandidateState::Backup, Some((Reason::Cordoned, message)))
                    }
                    Some(Progress::Programmed) => {
                        let holder = self.unheard_holder(name, &plan);
                        let why = holder.map(|holder| unheard(node_name, holder));
                        (CandidateState::Backup, why)
                    }
                    Some(Progress::Failed(reason, why) | Progress::Unknown(reason, why)) => {
                        (CandidateState::Unknown, Some((reason, why)))
                    }
                    Some(Progress::Pending(why)) => {
                        (CandidateState::Unknown, Some((Reason::Pending, why)))
                    }
                    None => (
                        CandidateState::Unknown,
                        Some((Reason::Unknown, "its plan cannot be read".to_owned())),
                    ),
                };
                Candidate {
                    node_name: node_name.clone(),
                    priority: *priority,
                    effective_priority: self.effective_priority(&plan),
                    last_transition: self.last_transition(name, node_name, &plan),
                    state,
                    reason: why.as_ref().map(|(reason, _)| reason.as_str().to_owned()),
                    message: why.map(|(_, message)| message),
                }
            })
            .collect();
        candidates.extend(router.missing_directors.iter().map(|node_name| {
            Candidate {
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
            }
        }));
        candidates.sort_by(|left, right| left.node_name.cmp(&right.node_name));
        candidates
    }

    fn is_cordoned(&self, node_name: &str) -> bool {
        let node = self.decisions.inputs.nodes.get(node_name);
        node.is_some_and(|node| node.is_cordoned)
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

/// Whether it keeps a director from being a candidate: it cannot hold every address, or a link that counts is down.
const fn is_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LinkDown | Reason::InterfaceNotFound | Reason::ForeignObject
    )
}
