//! What users are told: status of every VirtualService, RealServer and VirtualRouter. Conditions
//! come as verdicts; the writer stamps them with times.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{Candidacy, PlanState, SourceKind};
use lvs_crds::real_server::{
    RealServerPortState, RealServerState, RealServerStatus, RealServerSummary, RealServerUse,
    TargetType,
};
use lvs_crds::virtual_router::{
    AddressPoolUse, Candidate, CandidateState, Master, VirtualRouterStatus, VirtualRouterSummary,
};
use lvs_crds::virtual_service::{
    RealServerCount, ServicePort, VirtualServiceStatus, VirtualServiceSummary,
};

use crate::input::{Body, Lease, ObjectKey, RealServerObject, VirtualServiceObject};
use crate::name::plan_name;
use crate::report::{Truth, Verdict, summarise};
use crate::resolution::{Decisions, Disposition, PlannedNodePlan, ServiceDecision};
use crate::router::{Router, undecodable};

/// Longest list of VirtualServices in the status of a RealServer.
const USES_MAXIMUM: usize = 32;

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

/// How far a plan got on its node.
#[derive(Clone, Debug, PartialEq)]
enum Progress {
    Programmed,
    Pending(String),
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
            .insert(key.clone(), real_server(object, problems, uses));
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
        let Some(stored) = stored.filter(|stored| !planned.is_changed && stored.is_acknowledged())
        else {
            return Progress::Pending(format!("node {node} has not reported the newest plan"));
        };
        let conditions = stored
            .object
            .status
            .iter()
            .flat_map(|status| &status.conditions);
        let mut programmed =
            conditions.filter(|condition| condition.type_ == ConditionType::Programmed.as_str());
        match programmed.next() {
            Some(condition) if condition.status == "True" => Progress::Programmed,
            Some(condition) if condition.status == "False" => {
                let reason = Reason::parse(&condition.reason).unwrap_or(Reason::KernelError);
                Progress::Failed(reason, format!("node {node}: {}", condition.message))
            }
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
        problems.extend(pending);
        if count == 0 && problems.is_empty() {
            return Verdict::bad(
                ConditionType::Programmed,
                Reason::Pending,
                "no node has a plan for it",
            );
        }
        let good = (Reason::Programmed, "every node holds what was asked");
        summarise(ConditionType::Programmed, problems, good)
    }

    /// Whether some director has answered to the newest plan: before, nobody can be master.
    fn is_acknowledged(&self, uid: &str) -> bool {
        let mut directors = self
            .standing(uid)
            .filter(|(_, planned)| planned.spec.director.is_some());
        directors
            .any(|(name, planned)| !matches!(self.progress(name, planned), Progress::Pending(_)))
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

    fn virtual_service(
        &self,
        object: &VirtualServiceObject,
        decision: &ServiceDecision,
        uses: &mut BTreeMap<ObjectKey, Vec<RealServerUse>>,
    ) -> ObjectReport<VirtualServiceStatus> {
        let uid = &object.meta.uid;
        let previous = object.status.clone().unwrap_or_default();
        let mut problems = decision.problems.clone();
        let (router, mut status) = match &decision.disposition {
            Disposition::Planned(router) => {
                let tenure = self
                    .decisions
                    .tenancy
                    .services
                    .get(&object.meta.key)
                    .cloned()
                    .unwrap_or_default();
                let status = VirtualServiceStatus {
                    virtual_router_name: Some(router.clone()),
                    addresses: tenure.assigned(),
                    firewall_mark: decision.mark,
                    ..VirtualServiceStatus::default()
                };
                (Some(router.clone()), status)
            }
            Disposition::Frozen(verdict) => {
                problems.push(verdict.clone());
                (previous.virtual_router_name.clone(), previous)
            }
            Disposition::Refused(verdict) => {
                problems.push(verdict.clone());
                (None, VirtualServiceStatus::default())
            }
        };
        let master = router
            .as_deref()
            .and_then(|router| self.master(router))
            .map(str::to_owned);
        let port_states = self.port_states(uid, decision, master.as_deref());
        let is_planned = matches!(decision.disposition, Disposition::Planned(_));
        let mut ready = 0;
        for (name, ports) in &port_states {
            let is_ready = ports.iter().all(|port| port.state == RealServerState::Up);
            ready += u32::from(is_ready);
            let key = ObjectKey::new(object.meta.key.namespace.clone(), name.clone());
            let by_this = RealServerUse {
                name: object.meta.key.name.clone(),
                ready: is_ready,
                ports: ports.clone(),
            };
            uses.entry(key).or_default().push(by_this);
        }
        let selected = u32::try_from(port_states.len()).unwrap_or(u32::MAX);
        Self::refer(decision, is_planned, &mut problems);

        let accepted = summarise(
            ConditionType::Accepted,
            problems.clone(),
            (Reason::Accepted, "nothing stands against it"),
        );
        let resolved = summarise(
            ConditionType::ResolvedRefs,
            problems,
            (Reason::Resolved, "every reference was found"),
        );
        let programmed = self.programmed(uid, &decision.waiting);
        let facts = Facts {
            accepted: &accepted,
            resolved: &resolved,
            programmed: &programmed,
            selected,
            ready,
        };
        let ready_verdict = self.service_ready(uid, router.as_deref(), master.as_deref(), &facts);

        status.conditions = Vec::new();
        status.observed_generation = Some(object.meta.generation);
        status.master = master;
        status.real_servers = RealServerCount { selected, ready };
        let addresses: Vec<_> = status
            .addresses
            .iter()
            .map(|assigned| assigned.address.as_str())
            .collect();
        let ports = object.spec().map(|spec| {
            spec.ports
                .iter()
                .map(port_text)
                .collect::<Vec<_>>()
                .join(",")
        });
        status.summary = VirtualServiceSummary {
            addresses: addresses.join(","),
            ports: ports.unwrap_or(status.summary.ports),
            real_servers: format!("{ready}/{selected}"),
        };
        ObjectReport {
            uid: uid.clone(),
            generation: object.meta.generation,
            verdicts: vec![accepted, resolved, programmed, ready_verdict],
            status,
        }
    }

    /// Problems of references: no real server, or some that may not be used.
    fn refer(decision: &ServiceDecision, is_planned: bool, problems: &mut Vec<Verdict>) {
        if !is_planned {
            return;
        }
        if decision.targets.selected.is_empty() {
            problems.push(Verdict::bad(
                ConditionType::ResolvedRefs,
                Reason::NoRealServers,
                "spec.realServerSelector matches no RealServer of this namespace: create one, or correct the labels",
            ));
        }
        for (key, verdicts) in &decision.targets.problems {
            for verdict in verdicts {
                let message = format!("RealServer {}: {}", key.name, verdict.message);
                problems.push(Verdict::bad(
                    ConditionType::ResolvedRefs,
                    verdict.reason,
                    message,
                ));
            }
        }
        for name in &decision.targets.undecodable {
            let message = format!(
                "RealServer {name} cannot be read by this version; what it had keeps working"
            );
            problems.push(Verdict::bad(
                ConditionType::ResolvedRefs,
                Reason::Undecodable,
                message,
            ));
        }
    }

    /// State of every port of every real server, as programmed on the master, or without one on
    /// any director.
    fn port_states(
        &self,
        uid: &str,
        decision: &ServiceDecision,
        master: Option<&str>,
    ) -> BTreeMap<String, Vec<RealServerPortState>> {
        let directors: Vec<_> = self
            .standing(uid)
            .filter(|(_, planned)| planned.spec.director.is_some())
            .collect();
        let on_master = directors
            .iter()
            .find(|(_, planned)| Some(planned.spec.node_name.as_str()) == master);
        let is_programmed = |(name, planned): &(&String, &PlannedNodePlan)| {
            self.progress(name, planned) == Progress::Programmed
        };
        let programmed =
            on_master.map_or_else(|| directors.iter().any(is_programmed), is_programmed);
        let Some(director) = on_master
            .or(directors.first())
            .and_then(|(_, planned)| planned.spec.director.as_ref())
        else {
            return decision
                .targets
                .targets
                .iter()
                .map(|target| (target.name.clone(), Vec::new()))
                .collect();
        };
        let node_of: BTreeMap<&str, &str> = decision
            .targets
            .targets
            .iter()
            .filter_map(|target| Some((target.name.as_str(), target.node_name.as_deref()?)))
            .collect();
        let prepared = |name: &str| {
            let Some(node) = node_of.get(name) else {
                return true;
            };
            let mut plans = self.standing(uid).filter(|(_, planned)| {
                planned.spec.node_name == **node && planned.spec.real_server.is_some()
            });
            plans.all(|plan| is_programmed(&plan))
        };
        let mut states: BTreeMap<String, Vec<RealServerPortState>> = BTreeMap::new();
        for service in &director.services {
            for destination in &service.real_servers {
                let state = if !programmed || !prepared(&destination.name) {
                    RealServerState::Unknown
                } else if destination.weight == 0 {
                    RealServerState::Disabled
                } else {
                    RealServerState::Up
                };
                let port = RealServerPortState {
                    name: service.port_name.clone(),
                    address: destination.address.to_string(),
                    port: destination.port,
                    state,
                    effective_weight: destination.weight,
                };
                let ports = states.entry(destination.name.clone()).or_default();
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        states
    }

    fn service_ready(
        &self,
        uid: &str,
        router: Option<&str>,
        master: Option<&str>,
        facts: &Facts<'_>,
    ) -> Verdict {
        let not = |reason, message: String| Verdict::bad(ConditionType::Ready, reason, message);
        let membership = router.and_then(|router| self.decisions.memberships.get(router));
        if facts.accepted.truth != Truth::True {
            return not(facts.accepted.reason, facts.accepted.message.clone());
        }
        if membership.is_some_and(|membership| membership.directors.is_empty()) {
            return not(
                Reason::NoDirectors,
                no_directors(router.unwrap_or_default()),
            );
        }
        let Some(master) = master else {
            if !self.is_acknowledged(uid) {
                return not(Reason::Pending, facts.programmed.message.clone());
            }
            let message = format!(
                "no director of VirtualRouter {} holds the addresses",
                router.unwrap_or_default()
            );
            return not(Reason::NoMaster, message);
        };
        let mut on_master = self.standing(uid).filter(|(_, planned)| {
            planned.spec.node_name == master && planned.spec.director.is_some()
        });
        match on_master
            .next()
            .map(|(name, planned)| self.progress(name, planned))
        {
            Some(Progress::Programmed) => {}
            Some(Progress::Failed(reason, why)) => return not(reason, why),
            Some(Progress::Pending(why)) => return not(Reason::Pending, why),
            None => return not(facts.programmed.reason, facts.programmed.message.clone()),
        }
        if facts.selected == 0 {
            return not(Reason::NoRealServers, facts.resolved.message.clone());
        }
        if facts.ready == 0 {
            let message = format!(
                "none of {} real servers is prepared and has a weight above 0",
                facts.selected
            );
            return not(Reason::NoRealServers, message);
        }
        let part = if facts.ready < facts.selected {
            Some(format!(
                "{} of {} real servers are ready",
                facts.ready, facts.selected
            ))
        } else if facts.resolved.truth != Truth::True {
            Some(facts.resolved.message.clone())
        } else if facts.programmed.truth != Truth::True {
            Some(facts.programmed.message.clone())
        } else {
            None
        };
        match part {
            Some(message) => Verdict::good(ConditionType::Ready, Reason::PartiallyReady, message),
            None => Verdict::good(
                ConditionType::Ready,
                Reason::Ready,
                format!("{master} balances"),
            ),
        }
    }

    fn virtual_router(
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
            .filter(|candidate| {
                matches!(
                    candidate.state,
                    CandidateState::Master | CandidateState::Backup
                )
            })
            .count();
        let accepted = summarise(
            ConditionType::Accepted,
            problems,
            (Reason::Accepted, "nothing stands against it"),
        );
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
        } else {
            Verdict::good(
                ConditionType::Ready,
                Reason::Ready,
                "every director is ready",
            )
        };
        let status = VirtualRouterStatus {
            master,
            address_pools: self.pool_uses(name, router),
            summary: VirtualRouterSummary {
                candidates: format!("{fit}/{}", candidates.len()),
            },
            candidates,
            ..VirtualRouterStatus::default()
        };
        (vec![accepted, programmed, ready], status)
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
                let (state, why) = match progress {
                    _ if master == Some(node_name.as_str()) => (CandidateState::Master, None),
                    _ if *candidacy == Candidacy::Pending => {
                        let message = "an older director has not acknowledged it yet".to_owned();
                        (CandidateState::Pending, Some((Reason::Pending, message)))
                    }
                    Some(Progress::Programmed) => (CandidateState::Backup, None),
                    Some(Progress::Failed(reason, why)) => {
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
                state: CandidateState::Unknown,
                reason: Some(Reason::NodeNotFound.as_str().to_owned()),
                message: Some("the cluster has no node of this name".to_owned()),
            }
        }));
        candidates.sort_by(|left, right| left.node_name.cmp(&right.node_name));
        candidates
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

/// What `Ready` of a VirtualService sums up.
struct Facts<'a> {
    accepted: &'a Verdict,
    resolved: &'a Verdict,
    programmed: &'a Verdict,
    selected: u32,
    ready: u32,
}

fn no_directors(router: &str) -> String {
    format!(
        "no node is a director of VirtualRouter {router}: correct its spec.directors, or install the agent on a node"
    )
}

fn real_server(
    object: &RealServerObject,
    mut problems: Vec<Verdict>,
    mut uses: Vec<RealServerUse>,
) -> ObjectReport<RealServerStatus> {
    if let Body::Undecodable(error) = &object.body {
        problems.push(undecodable(error));
    }
    uses.sort_by(|left, right| left.name.cmp(&right.name));
    let accepted = summarise(
        ConditionType::Accepted,
        problems.clone(),
        (Reason::Accepted, "nothing stands against it"),
    );
    let resolved = summarise(
        ConditionType::ResolvedRefs,
        problems,
        (Reason::Resolved, "every reference was found"),
    );
    let ready_count = uses.iter().filter(|used| used.ready).count();
    let ports = || uses.iter().flat_map(|used| &used.ports);
    let worst = if accepted.truth != Truth::True || resolved.truth != Truth::True {
        "Refused"
    } else if uses.is_empty() {
        "Unused"
    } else if uses.iter().any(|used| used.ports.is_empty())
        || ports().any(|p| p.state == RealServerState::Unknown)
    {
        "Unknown"
    } else if ports().any(|port| port.state == RealServerState::Disabled) {
        "Disabled"
    } else {
        "Up"
    };
    let stands_against = [&accepted, &resolved]
        .into_iter()
        .find(|verdict| verdict.truth != Truth::True);
    let not = |reason, message: &str| Verdict::bad(ConditionType::Ready, reason, message);
    let ready = match stands_against {
        Some(verdict) if ready_count == 0 => not(verdict.reason, &verdict.message),
        Some(verdict) => Verdict::good(
            ConditionType::Ready,
            Reason::PartiallyReady,
            verdict.message.clone(),
        ),
        None if uses.is_empty() => not(
            Reason::Pending,
            "no VirtualService of this namespace selects it",
        ),
        None if worst == "Disabled" && ready_count == 0 => {
            not(Reason::Pending, "spec.weight is 0: no new connections")
        }
        None if ready_count == 0 => not(Reason::Pending, "no node has reported it as programmed"),
        None if ready_count < uses.len() => Verdict::good(
            ConditionType::Ready,
            Reason::PartiallyReady,
            format!("ready for {ready_count} of {} VirtualServices", uses.len()),
        ),
        None => Verdict::good(ConditionType::Ready, Reason::Ready, "it serves"),
    };
    let target = object.spec().map(|spec| match spec.target.type_ {
        TargetType::Addresses => spec.target.addresses.join(","),
        TargetType::Node => spec
            .target
            .node
            .as_ref()
            .map(|node| node.name.clone())
            .unwrap_or_default(),
    });
    let previous = object
        .status
        .as_ref()
        .map(|status| status.summary.target.clone());
    let names: Vec<_> = uses.iter().map(|used| used.name.as_str()).collect();
    let summary = RealServerSummary {
        target: target.or(previous).unwrap_or_default(),
        state: worst.to_owned(),
        used_by: names.join(","),
    };
    uses.truncate(USES_MAXIMUM);
    ObjectReport {
        uid: object.meta.uid.clone(),
        generation: object.meta.generation,
        verdicts: vec![accepted, resolved, ready],
        status: RealServerStatus {
            observed_generation: Some(object.meta.generation),
            conditions: Vec::new(),
            virtual_services: uses,
            summary,
        },
    }
}
