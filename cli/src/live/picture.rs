//! `kubectl lvs get`: the whole picture, from objects of the API alone.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lvs_crds::node_plan::PlanState;
use lvs_crds::real_server::{RealServerPortState, RealServerState, RealServerUse};
use lvs_crds::virtual_router::{Candidate, CandidateState};
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use serde::Serialize;

use super::arguments::Wanted;
use super::cluster::Cluster;
use super::table::{Cell, Paint, Table, Tone};

/// The picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// Routers and who holds their addresses.
    pub routers: Vec<RouterRow>,
    /// What is balanced.
    pub virtual_services: Vec<ServiceRow>,
    /// Who serves, a row for each use.
    pub real_servers: Vec<RealServerRow>,
    /// Nodes with an agent or a plan.
    pub nodes: Vec<NodeRow>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Truth, reason and message of a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// True, False or Unknown.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl State {
    /// That of a condition; Unknown and Pending where nobody has reported it.
    pub fn of(conditions: &[Condition], type_: &str) -> Self {
        let found = conditions.iter().find(|condition| condition.type_ == type_);
        found.map_or_else(
            || Self {
                status: "Unknown".to_owned(),
                reason: "Pending".to_owned(),
                message: "not reported yet".to_owned(),
            },
            |condition| Self {
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            },
        )
    }

    /// Whether it is True.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    fn cell(&self) -> Cell {
        let tone = match (self.status.as_str(), self.reason.as_str()) {
            ("True", "PartiallyReady" | "HeartbeatLost") | ("Unknown", _) => Tone::Warning,
            ("True", _) => Tone::Good,
            _ => Tone::Bad,
        };
        Cell::new(tone, self.reason.as_str())
    }

    /// The message, unless all is well.
    fn complaint(&self) -> &str {
        match (self.is_true(), self.reason.as_str()) {
            (true, "Ready" | "Programmed" | "Accepted" | "Resolved") => "",
            _ => &self.message,
        }
    }
}

/// A VirtualRouter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterRow {
    /// Its name.
    pub name: String,
    /// Node that holds the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Epoch of its Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Every director, as the status has it.
    pub candidates: Vec<Candidate>,
    /// Condition Ready.
    pub ready: State,
}

/// A VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Addresses in use.
    pub addresses: Vec<String>,
    /// Ports as 80/TCP.
    pub ports: String,
    /// NAT, DR, TUN or FullNAT.
    pub forwarding: String,
    /// Scheduler.
    pub scheduler: String,
    /// Router in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// Node that holds the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Real servers that serve.
    pub ready_real_servers: u32,
    /// Real servers that are selected.
    pub selected_real_servers: u32,
    /// Condition Ready.
    pub ready: State,
}

/// A RealServer in one VirtualService; one that nobody uses has a row too.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Who is behind it.
    pub target: String,
    /// The VirtualService; unset where none uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<String>,
    /// Worst state of its ports, or what is said of it where it is not used.
    pub state: String,
    /// Weights in the kernel of the director that holds the addresses, each once, sorted.
    pub effective_weights: Vec<u16>,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Each port, as the status has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<RealServerPortState>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Pod of its agent; unset where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Phase of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Versions of the agent, as plans report them.
    pub agent_versions: Vec<String>,
    /// Routers whose addresses it holds.
    pub master_of: Vec<String>,
    /// Plans that are in its kernel as they are now.
    pub programmed_plans: usize,
    /// Plans that are to be there.
    pub plans: usize,
    /// Why others are not, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Picture {
    /// Joins objects; `wanted` and `nodes` restrict it.
    pub fn new(cluster: &Cluster, wanted: &Wanted, nodes: &[String]) -> Self {
        let is_wanted = |namespace: &Option<String>, name: &str| {
            wanted.includes(namespace.as_deref(), Some(name))
        };
        let services: Vec<&VirtualService> = cluster
            .services
            .iter()
            .filter(|service| {
                is_wanted(
                    &service.metadata.namespace,
                    service.metadata.name.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        let real_servers = cluster.real_servers.iter().flat_map(uses).filter(|row| {
            let namespace = Some(row.namespace.as_str());
            match &wanted.name {
                None => wanted.includes(namespace, None),
                Some(_) => wanted.includes(namespace, row.virtual_service.as_deref()),
            }
        });
        let routers_in_use: BTreeSet<&str> = services
            .iter()
            .filter_map(|service| service.status.as_ref()?.virtual_router_name.as_deref())
            .collect();
        let routers = cluster.routers.iter().map(router).filter(|router| {
            wanted.name.is_none() || routers_in_use.contains(router.name.as_str())
        });
        let nodes_shown = node_rows(cluster)
            .into_iter()
            .filter(|row| nodes.is_empty() || nodes.contains(&row.name));
        Self {
            routers: routers.collect(),
            virtual_services: services.into_iter().map(service).collect(),
            real_servers: real_servers.collect(),
            nodes: nodes_shown.collect(),
            missing: cluster.missing.clone(),
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let mut parts = Vec::new();
        let mut part = |table: &Table| {
            if !table.is_empty() {
                parts.push(table.text(paint));
            }
        };
        part(&self.router_table());
        part(&self.service_table());
        part(&self.real_server_table());
        part(&self.node_table());
        if parts.is_empty() {
            return "nothing found\n".to_owned();
        }
        parts.join("\n")
    }

    fn router_table(&self) -> Table {
        let mut table = Table::new([
            "VIRTUALROUTER",
            "MASTER",
            "SINCE",
            "EPOCH",
            "CANDIDATES",
            "STATUS",
            "MESSAGE",
        ]);
        for router in &self.routers {
            let candidates: Vec<String> = router.candidates.iter().map(candidate).collect();
            table.row([
                router.name.as_str().into(),
                match &router.master {
                    Some(node) => node.as_str().into(),
                    None => Cell::new(Tone::Bad, "<none>"),
                },
                router.since.as_deref().unwrap_or_default().into(),
                router
                    .epoch
                    .map_or_else(String::new, |epoch| epoch.to_string())
                    .into(),
                candidates.join(", ").into(),
                router.ready.cell(),
                router.ready.complaint().into(),
            ]);
        }
        table
    }

    fn service_table(&self) -> Table {
        let mut table = Table::new([
            "NAMESPACE",
            "VIRTUALSERVICE",
            "VIP",
            "PORTS",
            "METHOD",
            "SCHED",
            "MASTER",
            "READY",
            "STATUS",
            "MESSAGE",
        ]);
        for service in &self.virtual_services {
            let ready = service.ready_real_servers;
            let selected = service.selected_real_servers;
            let tone = match (ready, selected) {
                (0, _) => Tone::Bad,
                _ if ready < selected => Tone::Warning,
                _ => Tone::Good,
            };
            table.row([
                service.namespace.as_str().into(),
                service.name.as_str().into(),
                service.addresses.join(",").into(),
                service.ports.as_str().into(),
                service.forwarding.as_str().into(),
                service.scheduler.as_str().into(),
                service.master.as_deref().unwrap_or("<none>").into(),
                Cell::new(tone, format!("{ready}/{selected}")),
                service.ready.cell(),
                service.ready.complaint().into(),
            ]);
        }
        table
    }

    fn real_server_table(&self) -> Table {
        let mut table = Table::new([
            "NAMESPACE",
            "REALSERVER",
            "TARGET",
            "VIRTUALSERVICE",
            "STATE",
            "WEIGHT",
            "MESSAGE",
        ]);
        for row in &self.real_servers {
            let weights = row.effective_weights.iter().map(ToString::to_string);
            table.row([
                row.namespace.as_str().into(),
                row.name.as_str().into(),
                row.target.as_str().into(),
                row.virtual_service.as_deref().unwrap_or("<none>").into(),
                Cell::new(tone_of(&row.state), row.state.as_str()),
                weights.collect::<Vec<_>>().join(",").into(),
                row.message.as_str().into(),
            ]);
        }
        table
    }

    fn node_table(&self) -> Table {
        let mut table = Table::new(["NODE", "AGENT", "VERSION", "MASTER-OF", "PLANS", "MESSAGE"]);
        for node in &self.nodes {
            let agent = match node.phase.as_deref() {
                None => Cell::new(Tone::Warning, "<none>"),
                Some("Running") => Cell::new(Tone::Good, "Running"),
                Some(phase) => Cell::new(Tone::Bad, phase),
            };
            let is_whole = node.programmed_plans == node.plans;
            table.row([
                node.name.as_str().into(),
                agent,
                node.agent_versions.join(",").into(),
                node.master_of.join(",").into(),
                Cell::new(
                    Tone::of(is_whole),
                    format!("{}/{}", node.programmed_plans, node.plans),
                ),
                node.problems.join("; ").into(),
            ]);
        }
        table
    }
}

fn candidate(candidate: &Candidate) -> String {
    let name = &candidate.node_name;
    let state = match candidate.state {
        CandidateState::Master => return format!("{name}*"),
        CandidateState::Backup => "",
        CandidateState::Fault => "Fault",
        CandidateState::Pending => "Pending",
        CandidateState::Unknown => "Unknown",
    };
    let words = [state, candidate.reason.as_deref().unwrap_or_default()];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        name.clone()
    } else {
        format!("{name} ({})", words.join(" "))
    }
}

/// How good a state of a real server is.
pub fn tone_of(state: &str) -> Tone {
    match state {
        "Up" => Tone::Good,
        "Down" | "Refused" => Tone::Bad,
        "Draining" | "Unknown" => Tone::Warning,
        _ => Tone::Faint,
    }
}

fn router(router: &VirtualRouter) -> RouterRow {
    let status = router.status.clone().unwrap_or_default();
    RouterRow {
        name: router.metadata.name.clone().unwrap_or_default(),
        master: status
            .master
            .as_ref()
            .map(|master| master.node_name.clone()),
        since: status
            .master
            .as_ref()
            .map(|master| master.since.0.to_string()),
        epoch: status.master.as_ref().map(|master| master.epoch),
        candidates: status.candidates,
        ready: State::of(&status.conditions, "Ready"),
    }
}

fn service(service: &VirtualService) -> ServiceRow {
    let status = service.status.clone().unwrap_or_default();
    let addresses = status.addresses.iter().map(|one| one.address.clone());
    ServiceRow {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
        addresses: addresses.collect(),
        ports: status.summary.ports.clone(),
        forwarding: format!("{:?}", service.spec.forwarding.type_),
        scheduler: service.spec.scheduler.name.as_str().to_owned(),
        router: status.virtual_router_name.clone(),
        master: status.master.clone(),
        ready_real_servers: status.real_servers.ready,
        selected_real_servers: status.real_servers.selected,
        ready: State::of(&status.conditions, "Ready"),
    }
}

fn uses(real_server: &RealServer) -> Vec<RealServerRow> {
    let status = real_server.status.clone().unwrap_or_default();
    let row = |virtual_service, state, effective_weights, message, ports| RealServerRow {
        namespace: real_server.metadata.namespace.clone().unwrap_or_default(),
        name: real_server.metadata.name.clone().unwrap_or_default(),
        target: status.summary.target.clone(),
        virtual_service,
        state,
        effective_weights,
        message,
        ports,
    };
    if status.virtual_services.is_empty() {
        let ready = State::of(&status.conditions, "Ready");
        let state = match status.summary.state.as_str() {
            "" => "Unknown",
            state => state,
        };
        return vec![row(None, state.to_owned(), vec![], ready.message, vec![])];
    }
    let used = |used: &RealServerUse| {
        let worst = worst(&used.ports);
        let weights: BTreeSet<u16> = used
            .ports
            .iter()
            .map(|port| port.effective_weight)
            .collect();
        row(
            Some(used.name.clone()),
            worst.map_or_else(|| "Unknown".to_owned(), |port| format!("{:?}", port.state)),
            weights.into_iter().collect(),
            worst.map(|port| port.message.clone()).unwrap_or_default(),
            used.ports.clone(),
        )
    };
    status.virtual_services.iter().map(used).collect()
}

/// The port that is worst off; of several the first that says why.
fn worst(ports: &[RealServerPortState]) -> Option<&RealServerPortState> {
    let rank = |state: RealServerState| match state {
        RealServerState::Down => 0,
        RealServerState::Unknown => 1,
        RealServerState::Draining => 2,
        RealServerState::Disabled => 3,
        RealServerState::Up => 4,
    };
    ports
        .iter()
        .min_by_key(|port| (rank(port.state), port.message.is_empty()))
}

/// Whether a plan is in the kernel as it is now, else why not.
pub fn programmed(plan: &NodePlan) -> Result<(), String> {
    let name = plan.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = &plan.status else {
        return Err(format!("{name}: Pending: its agent has not answered"));
    };
    if status.observed_generation != plan.metadata.generation {
        return Err(format!(
            "{name}: Pending: its agent has not answered the newest"
        ));
    }
    let state = State::of(&status.conditions, "Programmed");
    if state.is_true() {
        Ok(())
    } else {
        Err(format!("{name}: {}: {}", state.reason, state.message))
    }
}

fn node_rows(cluster: &Cluster) -> Vec<NodeRow> {
    let of_agents = cluster.agents.iter().map(|agent| agent.node.as_str());
    let of_plans = cluster
        .plans
        .iter()
        .map(|plan| plan.spec.node_name.as_str());
    let names: BTreeSet<&str> = of_agents.chain(of_plans).collect();
    let row = |name: &str| {
        let agent = cluster.agents.iter().find(|agent| agent.node == name);
        let plans: Vec<&NodePlan> = cluster
            .plans
            .iter()
            .filter(|plan| plan.spec.node_name == name)
            .collect();
        let versions = plans
            .iter()
            .filter_map(|plan| plan.status.as_ref()?.agent_version.clone());
        let versions: BTreeSet<String> = versions.collect();
        // One that is being withdrawn is not to be in the kernel.
        let staying = plans
            .iter()
            .filter(|plan| plan.spec.state != PlanState::Withdrawn);
        let results: Vec<Result<(), String>> = staying.map(|plan| programmed(plan)).collect();
        NodeRow {
            name: name.to_owned(),
            pod: agent.map(|agent| agent.pod.clone()),
            phase: agent.map(|agent| agent.phase.clone()),
            agent_versions: versions.into_iter().collect(),
            master_of: super::kernel::held_by(name, &cluster.routers),
            programmed_plans: results.iter().filter(|result| result.is_ok()).count(),
            plans: results.len(),
            problems: results.into_iter().filter_map(Result::err).collect(),
        }
    };
    names.into_iter().map(row).collect()
}
