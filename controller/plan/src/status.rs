//! What users are told: status of every VirtualService, RealServer and VirtualRouter. Conditions
//! come as verdicts; the writer stamps them with times.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{PlanState, SourceKind};
use lvs_crds::real_server::{RealServerStatus, RealServerUse};
use lvs_crds::virtual_router::VirtualRouterStatus;
use lvs_crds::virtual_service::{ServicePort, VirtualServiceStatus};

use crate::input::{Lease, ObjectKey};
use crate::name::plan_name;
use crate::real_server_check;
use crate::report::{Truth, Verdict, summarise};
use crate::resolution::{Decisions, PlannedNodePlan};

mod endpoint;
pub mod leadership;
mod quorum;
pub mod rationed;
mod real_server;
mod virtual_router;
mod virtual_service;

/// Everything to tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// By VirtualService.
    pub virtual_services: BTreeMap<ObjectKey, ObjectReport<VirtualServiceStatus>>,
    /// By RealServer.
    pub real_servers: BTreeMap<ObjectKey, ObjectReport<RealServerStatus>>,
    /// By VirtualRouter.
    pub virtual_routers: BTreeMap<ObjectKey, ObjectReport<VirtualRouterStatus>>,
}

/// Status of one object; `conditions` of the status are empty and come from the verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectReport<Status> {
    /// UID the report speaks of.
    pub uid: String,
    /// Generation the report speaks of.
    pub generation: i64,
    /// Conditions.
    pub verdicts: Vec<Verdict>,
    /// The rest.
    pub status: Status,
}

/// `80/TCP`, `5000-5010/UDP`, `*/TCP` for all ports.
pub fn port_text(port: &ServicePort) -> String {
    match (port.port, port.end_port) {
        (0, _) => format!("*/{}", port.protocol),
        (first, Some(last)) if last != first => format!("{first}-{last}/{}", port.protocol),
        (only, _) => format!("{only}/{}", port.protocol),
    }
}

/// Nodes that are named where each of them has the same to tell.
const NODES_TOLD: usize = 4;

/// How far a plan got on its node.
#[derive(Clone, Debug, PartialEq)]
enum Progress {
    Programmed,
    /// The node has not said anything of the newest plan.
    Pending(String),
    /// The node cannot tell, and why: what it cannot read it does not claim to know.
    Unknown(Reason, String),
    Failed(Reason, String),
}

pub(crate) fn report(decisions: &Decisions<'_>) -> Report {
    let mut by_source: BTreeMap<&str, Vec<(&String, &PlannedNodePlan)>> = BTreeMap::new();
    for (name, planned) in &decisions.plans {
        by_source
            .entry(&planned.spec.source.uid)
            .or_default()
            .push((name, planned));
    }
    for plans in by_source.values_mut() {
        plans.sort_by(|(_, left), (_, right)| left.spec.node_name.cmp(&right.spec.node_name));
    }
    let reporter = Reporter {
        decisions,
        by_source,
    };
    let mut report = Report::default();
    let mut uses: BTreeMap<ObjectKey, Vec<RealServerUse>> = BTreeMap::new();
    for (key, decision) in &decisions.services {
        let Some(object) = decisions.inputs.virtual_services.get(key) else {
            continue;
        };
        report.virtual_services.insert(
            key.clone(),
            reporter.virtual_service(object, decision, &mut uses),
        );
    }
    let mut problems: BTreeMap<&ObjectKey, Vec<Verdict>> = BTreeMap::new();
    for decision in decisions.services.values() {
        for (key, verdicts) in &decision.targets.problems {
            problems
                .entry(key)
                .or_default()
                .extend(verdicts.iter().cloned());
        }
    }
    let unknown_names = real_server_check::unknown_names(decisions.inputs, &decisions.services);
    for (key, verdicts) in &unknown_names {
        let known = problems.entry(key).or_default();
        known.extend(verdicts.iter().cloned());
    }
    for (key, object) in decisions
        .inputs
        .real_servers
        .iter()
        .filter(|(_, object)| !object.meta.deleting)
    {
        let problems = problems.remove(key).unwrap_or_default();
        let uses = uses.remove(key).unwrap_or_default();
        report
            .real_servers
            .insert(key.clone(), real_server::report(object, problems, uses));
    }
    for (name, object) in decisions
        .inputs
        .virtual_routers
        .iter()
        .filter(|(_, object)| !object.meta.deleting)
    {
        let key = object.meta.key.clone();
        let (verdicts, status) = match (
            decisions.routers.decoded.get(name),
            decisions.routers.frozen.get(name),
        ) {
            (Some(router), _) => reporter.virtual_router(name, router),
            (None, Some(verdict)) => (
                vec![verdict.clone()],
                object.status.clone().unwrap_or_default(),
            ),
            (None, None) => continue,
        };
        let status = VirtualRouterStatus {
            conditions: Vec::new(),
            observed_generation: Some(object.meta.generation),
            ..status
        };
        let (uid, generation) = (object.meta.uid.clone(), object.meta.generation);
        report.virtual_routers.insert(
            key,
            ObjectReport {
                uid,
                generation,
                verdicts,
                status,
            },
        );
    }
    report
}

struct Reporter<'a> {
    decisions: &'a Decisions<'a>,
    by_source: BTreeMap<&'a str, Vec<(&'a String, &'a PlannedNodePlan)>>,
}

impl Reporter<'_> {
    fn standing(&self, uid: &str) -> impl Iterator<Item = (&String, &PlannedNodePlan)> {
        let all = self.by_source.get(uid).into_iter().flatten().copied();
        all.filter(|(_, planned)| planned.spec.state != PlanState::Withdrawn)
    }

    fn progress(&self, name: &str, planned: &PlannedNodePlan) -> Progress {
        let node = &planned.spec.node_name;
        let stored = self.decisions.inputs.node_plans.get(name);
        let pending = || Progress::Pending(format!("node {node} has not reported the newest plan"));
        let Some(stored) = stored.filter(|_| !planned.is_changed) else {
            return pending();
        };
        if stored.is_programmed() {
            return Progress::Programmed;
        }
        let mut conditions = stored
            .object
            .status
            .iter()
            .flat_map(|status| &status.conditions);
        let programmed = conditions
            .find(|condition| condition.type_ == ConditionType::Programmed.as_str())
            // An agent that could not follow the newest plan acknowledges the one before; its condition says why.
            .filter(|condition| {
                stored.is_acknowledged()
                    || condition.observed_generation >= Some(stored.object.meta.generation)
            });
        let Some(condition) = programmed else {
            return pending();
        };
        let reason = Reason::parse(&condition.reason).unwrap_or(Reason::KernelError);
        let why = || format!("node {node}: {}", condition.message);
        match condition.status.as_str() {
            "False" => Progress::Failed(reason, why()),
            "Unknown" if reason != Reason::Unknown => Progress::Unknown(reason, why()),
            _ => Progress::Pending(format!(
                "node {node} does not know yet whether it succeeded"
            )),
        }
    }

    fn lease(&self, router: &str) -> Option<&Lease> {
        self.decisions
            .inputs
            .leases
            .get(&lease_name(router))
            .filter(|lease| lease.is_alive)
    }

    fn master(&self, router: &str) -> Option<&str> {
        self.lease(router)
            .and_then(|lease| lease.holder_node.as_deref())
    }

    /// Programmed over all standing plans of a source.
    fn programmed(&self, uid: &str, waiting: &[Verdict]) -> Verdict {
        let mut problems = waiting.to_vec();
        let mut unknown = Vec::new();
        let mut pending = Vec::new();
        let mut count = 0;
        for (name, planned) in self.standing(uid) {
            count += 1;
            match self.progress(name, planned) {
                Progress::Programmed => {}
                Progress::Pending(why) => {
                    pending.push(Verdict::bad(
                        ConditionType::Programmed,
                        Reason::Pending,
                        why,
                    ));
                }
                Progress::Unknown(reason, why) => {
                    unknown.push(Verdict::unknown(ConditionType::Programmed, reason, why));
                }
                Progress::Failed(reason, why) => {
                    problems.push(Verdict::bad(ConditionType::Programmed, reason, why));
                }
            }
        }
        for name in self.unreadable(uid) {
            problems.push(Verdict::bad(
                ConditionType::Programmed,
                Reason::Undecodable,
                format!("NodePlan {name} was written by another version and cannot be read; it stays as it is"),
            ));
        }
        problems.extend(unknown);
        problems.extend(pending);
        if count == 0 && problems.is_empty() {
            return Verdict::bad(
                ConditionType::Programmed,
                Reason::Pending,
                "no node has a plan for it",
            );
        }
        let repairs = self.repairs(uid);
        let good = if repairs.is_empty() {
            (Reason::Programmed, "every node holds what was asked")
        } else {
            (Reason::DriftRepaired, repairs.as_str())
        };
        summarise(ConditionType::Programmed, problems, good)
    }

    /// What nodes put back since somebody else removes or changes it, one after the other; empty = nothing.
    fn repairs(&self, uid: &str) -> String {
        let told = self.standing(uid).filter_map(|(name, planned)| {
            let stored = self.decisions.inputs.node_plans.get(name)?;
            let mut conditions = stored
                .object
                .status
                .iter()
                .flat_map(|status| &status.conditions);
            let repaired = conditions.find(|condition| {
                condition.type_ == ConditionType::Programmed.as_str()
                    && condition.status == Truth::True.as_str()
                    && condition.reason == Reason::DriftRepaired.as_str()
            })?;
            let node = &planned.spec.node_name;
            Some(format!("node {node}: {}", repaired.message))
        });
        told.take(NODES_TOLD).collect::<Vec<_>>().join("; ")
    }

    /// Whether some director has answered to the newest plan: before, nobody can be master.
    fn is_acknowledged(&self, uid: &str) -> bool {
        let mut directors = self
            .standing(uid)
            .filter(|(_, planned)| planned.spec.director.is_some());
        directors.any(|(name, planned)| {
            matches!(
                self.progress(name, planned),
                Progress::Programmed | Progress::Failed(..)
            )
        })
    }

    /// Unreadable plans that would be this source's, by name.
    fn unreadable(&self, uid: &str) -> Vec<&String> {
        let names = &self.decisions.unreadable_plans;
        let kinds = [SourceKind::VirtualService, SourceKind::VirtualRouter];
        let nodes = self.decisions.inputs.nodes.keys();
        if names.is_empty() {
            return Vec::new();
        }
        let possible: BTreeSet<_> = nodes
            .flat_map(|node| kinds.map(|kind| plan_name(kind, node, uid)))
            .collect();
        names
            .iter()
            .filter(|name| possible.contains(*name))
            .collect()
    }
}

fn no_directors(router: &str) -> String {
    format!(
        "no node is a director of VirtualRouter {router}: correct its spec.directors, or install the agent on a node"
    )
}
