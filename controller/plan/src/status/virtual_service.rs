//! Status of a VirtualService.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{AddressState, CheckedRealServer, PlannedRealServer, PlannedService};
use lvs_crds::real_server::{RealServerPortState, RealServerState, RealServerUse};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::virtual_service::{RealServerCount, VirtualServiceStatus, VirtualServiceSummary};

use super::{ObjectReport, Progress, Reporter, endpoint, no_directors, port_text};
use crate::connection_sync;
use crate::input::{ObjectKey, RealServerObject, VirtualServiceObject};
use crate::report::{self, Truth, Verdict};
use crate::resolution::{Disposition, PlannedNodePlan, ServiceDecision};

/// What `Ready` of a VirtualService sums up.
struct Facts<'a> {
    accepted: &'a Verdict,
    resolved: &'a Verdict,
    programmed: &'a Verdict,
    selected: u32,
    ready: u32,
    /// Real servers that have left and drain on the master.
    leaving: usize,
    /// What clients get while no real server is ready, as the end of a sentence.
    instead: &'static str,
}

/// What a director reports, by RealServer and port name, then by address and port.
type Checked<'a> = BTreeMap<((&'a str, Option<&'a str>), (IpAddr, u16)), &'a CheckedRealServer>;

/// State of a destination: what the director sees where it checks, else what was programmed. `cordoned` is its node, where
/// it drains for that.
fn port_state(
    service: &PlannedService,
    destination: &PlannedRealServer,
    is_known: bool,
    cordoned: Option<&str>,
    checked: &Checked<'_>,
) -> RealServerPortState {
    let name = (destination.name.as_str(), service.port_name.as_deref());
    let slot = (destination.address, destination.port);
    let seen = checked.get(&(name, slot));
    let (state, effective_weight) = match (destination.administrative_state, seen) {
        _ if !is_known => (RealServerState::Unknown, destination.weight),
        (_, Some(seen)) => (seen.state, seen.effective_weight),
        (_, None) if !service.checks_of(destination).is_empty() => (RealServerState::Unknown, 0),
        (AdministrativeState::Disabled, None) => (RealServerState::Disabled, 0),
        (AdministrativeState::Draining, None) => (RealServerState::Draining, 0),
        (AdministrativeState::Enabled, None) if destination.weight == 0 => {
            (RealServerState::Disabled, 0)
        }
        (AdministrativeState::Enabled, None) => (RealServerState::Up, destination.weight),
    };
    let seen = seen.filter(|_| is_known);
    let cordoned = cordoned.map(|node| format!("node {node} is cordoned"));
    let message = seen.map(|seen| seen.message.clone());
    let said = [cordoned, message].into_iter().flatten();
    let said: Vec<String> = said.filter(|text| !text.is_empty()).collect();
    RealServerPortState {
        name: service.port_name.clone(),
        address: destination.address.to_string(),
        port: destination.port,
        state,
        effective_weight,
        since: seen.and_then(|seen| seen.since.clone()),
        message: said.join(": "),
        certificate_expiry_time: seen.and_then(|seen| seen.certificate_expiry_time.clone()),
    }
}

impl Reporter<'_> {
    pub(super) fn virtual_service(
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
        let port_states = self.port_states(object, decision, master.as_deref());
        let is_planned = matches!(decision.disposition, Disposition::Planned(_));
        let (mut selected, mut ready) = (0, 0);
        for (name, ports) in port_states {
            let hosts = endpoint::hosts(self.real_server(object, &name), &ports);
            selected += hosts.selected;
            ready += hosts.ready;
            let by_this = RealServerUse {
                name: object.meta.key.name.clone(),
                ready: hosts.ready > 0,
                ports,
            };
            let key = ObjectKey::new(object.meta.key.namespace.clone(), name);
            uses.entry(key).or_default().push(by_this);
        }
        Self::refer(decision, is_planned, &mut problems);

        let accepted = report::accepted(&problems);
        let resolved = report::resolved(&problems);
        let mut waiting = decision.waiting.clone();
        waiting.extend(self.table_mismatch(uid, router.as_deref()));
        let programmed = self.programmed(uid, &waiting);
        let facts = Facts {
            accepted: &accepted,
            resolved: &resolved,
            programmed: &programmed,
            selected,
            ready,
            leaving: master
                .as_deref()
                .map_or(0, |master| self.leaving(uid, master)),
            instead: if object
                .spec()
                .is_some_and(|spec| spec.sorry_server.is_some())
            {
                "; the sorry server serves"
            } else {
                ""
            },
        };
        let ready_verdict = self.service_ready(uid, router.as_deref(), master.as_deref(), &facts);
        let quorum = self.quorum(object, master.as_deref());

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
            verdicts: [accepted, resolved, programmed]
                .into_iter()
                .chain(quorum)
                .chain([ready_verdict])
                .collect(),
            status,
        }
    }

    /// Whether the directors' tables differ, as far as they are programmed and a takeover relies on their being equal.
    fn table_mismatch(&self, uid: &str, router: Option<&str>) -> Option<Verdict> {
        let router = self.decisions.routers.decoded.get(router?)?;
        if !connection_sync::needs_stateless(router) {
            return None;
        }
        let hashes = self
            .standing(uid)
            .filter(|(name, planned)| self.progress(name, planned) == Progress::Programmed)
            .filter_map(|(name, planned)| {
                let stored = self.decisions.inputs.node_plans.get(name)?;
                let status = stored.object.status.as_ref()?;
                Some((
                    planned.spec.node_name.as_str(),
                    status.table_hash.as_deref()?,
                ))
            })
            .collect();
        connection_sync::table_mismatch(&hashes)
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
        object: &VirtualServiceObject,
        decision: &ServiceDecision,
        master: Option<&str>,
    ) -> BTreeMap<String, Vec<RealServerPortState>> {
        let uid = &object.meta.uid;
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
        let shown = on_master.or(directors.first());
        let Some(director) = shown.and_then(|(_, planned)| planned.spec.director.as_ref()) else {
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
        let cordoned: BTreeMap<&str, &str> = decision
            .targets
            .targets
            .iter()
            .filter(|target| target.is_cordoned)
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
        let checked = shown
            .map(|(name, _)| self.checked(name))
            .unwrap_or_default();
        let mut states: BTreeMap<String, Vec<RealServerPortState>> = BTreeMap::new();
        for service in &director.services {
            for destination in &service.real_servers {
                let is_known = programmed && prepared(&destination.name);
                let cordoned = cordoned.get(destination.name.as_str()).copied();
                let mut port = port_state(service, destination, is_known, cordoned, &checked);
                let drains = destination.administrative_state == AdministrativeState::Draining;
                if drains
                    && port.state != RealServerState::Disabled
                    && endpoint::leaves_by_itself(self.real_server(object, &destination.name))
                {
                    // Its checks may well fail by now: nobody is to be alarmed by what ends as it should.
                    port.state = RealServerState::Draining;
                }
                let ports = states.entry(destination.name.clone()).or_default();
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        states
    }

    /// A RealServer that a VirtualService uses.
    fn real_server(&self, object: &VirtualServiceObject, name: &str) -> Option<&RealServerObject> {
        let key = ObjectKey::new(object.meta.key.namespace.clone(), name);
        let real_servers = &self.decisions.inputs.real_servers;
        real_servers.get(&key).map(AsRef::as_ref)
    }

    /// How many real servers have left the plan of a director, and drain.
    fn leaving(&self, uid: &str, director: &str) -> usize {
        let mut plans = self.standing(uid);
        let Some((name, planned)) = plans.find(|(_, planned)| planned.spec.node_name == director)
        else {
            return 0;
        };
        let services = planned
            .spec
            .director
            .iter()
            .flat_map(|director| &director.services);
        let staying: BTreeSet<(IpAddr, u16)> = services
            .flat_map(|service| &service.real_servers)
            .map(|one| (one.address, one.port))
            .collect();
        let seen: BTreeSet<(IpAddr, u16)> = self
            .checked(name)
            .values()
            .filter(|one| one.state == RealServerState::Draining)
            .map(|one| (one.address, one.port))
            .collect();
        seen.difference(&staying).count()
    }

    /// The addresses that a director has withdrawn for want of real servers, in words.
    fn withdrawn(&self, uid: &str, director: &str) -> Option<String> {
        let mut plans = self.standing(uid);
        let (name, _) = plans.find(|(_, planned)| planned.spec.node_name == director)?;
        let stored = self.decisions.inputs.node_plans.get(name)?;
        let reported = &stored.object.status.as_ref()?.addresses;
        let withdrawn = reported
            .iter()
            .filter(|status| status.state == AddressState::Withdrawn)
            .map(|status| status.address.to_string())
            .collect::<Vec<_>>();
        (!withdrawn.is_empty()).then(|| withdrawn.join(", "))
    }

    /// What a director reports of real servers.
    fn checked(&self, plan: &str) -> Checked<'_> {
        let stored = self.decisions.inputs.node_plans.get(plan);
        let status = stored.and_then(|stored| stored.object.status.as_ref());
        let reported = status.into_iter().flat_map(|status| &status.real_servers);
        reported
            .map(|one| {
                let name = (one.name.as_str(), one.port_name.as_deref());
                ((name, (one.address, one.port)), one)
            })
            .collect()
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
            let of_router = router.map(|router| format!(" of VirtualRouter {router}"));
            let of_router = of_router.unwrap_or_default();
            let message = format!("no director{of_router} holds the addresses");
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
            Some(Progress::Failed(reason, why) | Progress::Unknown(reason, why)) => {
                return not(reason, why);
            }
            Some(Progress::Pending(why)) => return not(Reason::Pending, why),
            None => return not(facts.programmed.reason, facts.programmed.message.clone()),
        }
        if facts.selected == 0 {
            return not(Reason::NoRealServers, facts.resolved.message.clone());
        }
        if let Some(addresses) = self.withdrawn(uid, master) {
            let message = format!(
                "{addresses} is on no director while too few real servers are up: {} of {} are ready (quorum.onLoss)",
                facts.ready, facts.selected
            );
            return not(Reason::AddressWithdrawn, message);
        }
        if facts.ready == 0 {
            let message = format!(
                "none of {} real servers is up, prepared and has a weight above 0{}",
                facts.selected, facts.instead
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
        let leaving = match facts.leaving {
            0 => String::new(),
            1 => "; 1 real server that has left drains".to_owned(),
            more => format!("; {more} real servers that have left drain"),
        };
        match part {
            Some(message) => Verdict::good(
                ConditionType::Ready,
                Reason::PartiallyReady,
                format!("{message}{leaving}"),
            ),
            None => Verdict::good(
                ConditionType::Ready,
                Reason::Ready,
                format!("{master} balances{leaving}"),
            ),
        }
    }
}
