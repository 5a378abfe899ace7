//! `kubectl lvs explain`: why a VirtualService serves as it does: its conditions and their cure, who holds its addresses and why, each real
//! server and why it is in or out, and what each director's kernel should hold and holds.

use std::fmt::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lvs_core::ipvs::SocketText;
use lvs_core::shown::ShownServices;
use lvs_crds::node_plan::{PlannedService, SourceKind};
use lvs_crds::real_server::RealServerState;
use lvs_crds::virtual_router::{Candidate, CandidateState};
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use serde::Serialize;

use super::agent::{Answers, NotAsked};
use super::cluster::Cluster;
use super::comparison::{differences, is_resting, last_offset};
use super::cure;
use super::picture::{self, State};
use super::table::{Cell, Paint, Table, Tone};

/// The explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What is balanced, in a line.
    pub summary: String,
    /// Condition Ready.
    pub ready: State,
    /// Conditions that are not True, or True in part, each with what to do.
    pub complaints: Vec<Complaint>,
    /// Who holds the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterPart>,
    /// RealServers that the selector means.
    pub real_servers: Vec<RealServerPart>,
    /// RealServers of the namespace that it does not mean.
    pub not_selected: Vec<String>,
    /// Directors.
    pub directors: Vec<DirectorPart>,
    /// What could not be read or asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// A condition that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Complaint {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Since when it has this status.
    pub since: String,
    /// What to do, where docs/troubleshooting.md says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// The router.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterPart {
    /// Its name.
    pub name: String,
    /// Node that holds the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Epoch of its Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// How that came, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Every director.
    pub candidates: Vec<Candidate>,
}

/// A RealServer that is selected, at one address and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPart {
    /// Its name.
    pub name: String,
    /// Where it serves; unset of one that does not come so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// State.
    pub state: String,
    /// Whether it gets new connections.
    pub is_in: bool,
    /// Weight that it asks for.
    pub weight: u16,
    /// Weight in the kernel of the director that holds the addresses.
    pub effective_weight: u16,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why.
    pub why: String,
}

/// A director's plan and kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorPart {
    /// Node.
    pub node: String,
    /// The plan.
    pub plan: String,
    /// What is to be done with it.
    pub state: String,
    /// What the node is for it, as its agent says.
    pub role: String,
    /// Why it is not in the kernel, by the agent's own words; unset = it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_programmed: Option<String>,
    /// Services that the plan has for the node as it is.
    pub services_planned: usize,
    /// Services that it leaves out until it holds the addresses, as it is a DR or TUN real server itself.
    pub services_resting: usize,
    /// Whether the kernel was looked at.
    pub is_compared: bool,
    /// What the kernel holds otherwise than it should, a line each.
    pub differences: Vec<String>,
}

impl Explanation {
    /// Joins what was read. `kernels` unset: nobody was asked.
    pub fn new(
        service: &VirtualService,
        cluster: &Cluster,
        kernels: &Answers<ShownServices>,
    ) -> Self {
        let status = service.status.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        let router = status.virtual_router_name.as_deref().and_then(|name| {
            let mut routers = cluster.routers.iter();
            routers.find(|router| router.metadata.name.as_deref() == Some(name))
        });
        let (selected, others): (Vec<&RealServer>, Vec<&RealServer>) = cluster
            .real_servers
            .iter()
            .filter(|one| one.metadata.namespace.as_deref() == Some(&namespace))
            .partition(|one| is_selected(service, one));
        let plans = cluster.plans.iter().filter(|plan| {
            let source = &plan.spec.source;
            source.kind == SourceKind::VirtualService
                && (source.namespace.as_str(), source.name.as_str()) == (&namespace, &name)
                && plan.spec.director.is_some()
        });
        let directors = plans.map(|plan| director(plan, kernels)).collect();
        let mut missing = cluster.missing.clone();
        missing.extend(kernels.not_asked.iter().map(NotAsked::text));
        Self {
            summary: summary(service),
            ready: State::of(&status.conditions, "Ready"),
            complaints: complaints(&status.conditions),
            router: router.map(router_part),
            real_servers: selected
                .iter()
                .flat_map(|one| real_server_parts(one, &name))
                .collect(),
            not_selected: others
                .iter()
                .filter_map(|one| one.metadata.name.clone())
                .collect(),
            directors,
            missing,
            namespace,
            name,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let tone = Tone::of(self.ready.is_true());
        let ready = format!("{} ({})", self.ready.reason, self.ready.message);
        let _ = writeln!(
            text,
            "VirtualService {}/{}: {}",
            self.namespace,
            self.name,
            paint.text(tone, &ready)
        );
        let _ = writeln!(text, "  {}", self.summary);
        if !self.complaints.is_empty() {
            text.push_str("\nNot as it should be\n");
        }
        for complaint in &self.complaints {
            let Complaint {
                type_,
                status,
                reason,
                message,
                since,
                ..
            } = complaint;
            let head = paint.text(Tone::Bad, &format!("{type_} is {status}, {reason}"));
            let _ = writeln!(text, "  {head}, since {since}: {message}");
            if let Some(cure) = &complaint.cure {
                let _ = writeln!(text, "    what to do: {cure}");
            }
        }
        self.router_text(&mut text, paint);
        self.real_servers_text(&mut text, paint);
        self.directors_text(&mut text, paint);
        text
    }

    fn router_text(&self, text: &mut String, paint: Paint) {
        let Some(router) = &self.router else {
            text.push_str("\nRouter: none that could be read\n");
            return;
        };
        let _ = write!(text, "\nRouter {}: ", router.name);
        match &router.master {
            None => text.push_str(&paint.text(Tone::Bad, "nobody holds its addresses")),
            Some(master) => {
                let held = format!("{master} holds its addresses");
                text.push_str(&paint.text(Tone::Good, &held));
            }
        }
        if let Some(epoch) = router.epoch {
            let _ = write!(text, ", epoch {epoch}");
        }
        text.push('\n');
        if let Some(because) = &router.because {
            let _ = writeln!(text, "  {because}");
        }
        let mut table = Table::new([
            "  DIRECTOR",
            "PRIORITY",
            "EFFECTIVE",
            "STATE",
            "REASON",
            "MESSAGE",
        ]);
        for candidate in &router.candidates {
            let tone = match candidate.state {
                CandidateState::Master | CandidateState::Backup => Tone::Good,
                CandidateState::Fault => Tone::Bad,
                CandidateState::Pending | CandidateState::Unknown => Tone::Warning,
            };
            let effective = candidate.effective_priority;
            table.row([
                format!("  {}", candidate.node_name).into(),
                candidate.priority.to_string().into(),
                effective
                    .map_or_else(String::new, |priority| priority.to_string())
                    .into(),
                Cell::new(tone, format!("{:?}", candidate.state)),
                candidate.reason.as_deref().unwrap_or_default().into(),
                candidate.message.as_deref().unwrap_or_default().into(),
            ]);
        }
        text.push_str(&table.text(paint));
    }

    fn real_servers_text(&self, text: &mut String, paint: Paint) {
        text.push_str("\nReal servers\n");
        if self.real_servers.is_empty() {
            text.push_str("  spec.realServerSelector matches no RealServer of the namespace\n");
        } else {
            let mut table = Table::new([
                "  REALSERVER",
                "SERVES-AT",
                "NEW-CONNECTIONS",
                "STATE",
                "WEIGHT",
                "SINCE",
                "WHY",
            ]);
            for one in &self.real_servers {
                let is_in = if one.is_in {
                    Cell::new(Tone::Good, "yes")
                } else {
                    Cell::new(Tone::Bad, "no")
                };
                table.row([
                    format!("  {}", one.name).into(),
                    one.socket.as_deref().unwrap_or_default().into(),
                    is_in,
                    Cell::new(picture::tone_of(&one.state), one.state.as_str()),
                    format!("{} of {}", one.effective_weight, one.weight).into(),
                    one.since.as_deref().unwrap_or_default().into(),
                    one.why.as_str().into(),
                ]);
            }
            text.push_str(&table.text(paint));
        }
        if !self.not_selected.is_empty() {
            let _ = writeln!(text, "  not selected: {}", self.not_selected.join(", "));
        }
    }

    fn directors_text(&self, text: &mut String, paint: Paint) {
        text.push_str("\nKernels of the directors\n");
        if self.directors.is_empty() {
            text.push_str("  no plan that could be read\n");
        }
        for director in &self.directors {
            let DirectorPart {
                node,
                plan,
                state,
                role,
                services_planned,
                services_resting,
                ..
            } = director;
            let is_whole = director.not_programmed.is_none() && director.differences.is_empty();
            let verdict = match (is_whole, director.is_compared) {
                (true, true) => paint.text(Tone::Good, "holds what it should"),
                (true, false) => paint.text(
                    Tone::Warning,
                    "holds what it should, its agent says; nobody looked",
                ),
                (false, _) => paint.text(Tone::Bad, "does not hold what it should"),
            };
            let mut services = match services_planned {
                1 => "1 service".to_owned(),
                count => format!("{count} services"),
            };
            if *services_resting > 0 {
                let _ = write!(
                    services,
                    ", {services_resting} more once it holds the addresses, as it is a real server itself"
                );
            }
            let _ = writeln!(
                text,
                "  {node} ({role}): {verdict} ({services}, plan {plan}, {state})"
            );
            for line in director.not_programmed.iter().chain(&director.differences) {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
}

fn is_selected(service: &VirtualService, real_server: &RealServer) -> bool {
    let labels = real_server.metadata.labels.clone().unwrap_or_default();
    lvs_plan::selector::matches(&service.spec.real_server_selector, &labels) == Some(true)
}

fn summary(service: &VirtualService) -> String {
    let row = service.status.clone().unwrap_or_default();
    let addresses = match row.summary.addresses.as_str() {
        "" => "no address",
        addresses => addresses,
    };
    let spec = &service.spec;
    format!(
        "{addresses}, ports {}, {:?}, {}, {}/{} real servers ready",
        row.summary.ports,
        spec.forwarding.type_,
        spec.scheduler.name.as_str(),
        row.real_servers.ready,
        row.real_servers.selected
    )
}

fn complaints(conditions: &[Condition]) -> Vec<Complaint> {
    let is_bad = |condition: &&Condition| {
        condition.status != "True" || matches!(condition.reason.as_str(), "PartiallyReady")
    };
    let complaint = |condition: &Condition| Complaint {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time.0.to_string(),
        cure: cure::of(&condition.reason),
    };
    conditions.iter().filter(is_bad).map(complaint).collect()
}

fn router_part(router: &VirtualRouter) -> RouterPart {
    let status = router.status.clone().unwrap_or_default();
    let because = status.master.as_ref().and_then(|master| {
        let mut candidates = status.candidates.iter();
        let own = candidates.find(|candidate| candidate.node_name == master.node_name)?;
        let transition = own.last_transition.as_ref()?;
        Some(format!(
            "{} ({})",
            transition.sentence(&master.node_name),
            transition.time.0
        ))
    });
    RouterPart {
        name: router.metadata.name.clone().unwrap_or_default(),
        master: status
            .master
            .as_ref()
            .map(|master| master.node_name.clone()),
        epoch: status.master.as_ref().map(|master| master.epoch),
        because,
        candidates: status.candidates,
    }
}

fn real_server_parts(real_server: &RealServer, service: &str) -> Vec<RealServerPart> {
    let name = real_server.metadata.name.clone().unwrap_or_default();
    let status = real_server.status.clone().unwrap_or_default();
    let weight = real_server.spec.weight;
    let used = status
        .virtual_services
        .iter()
        .find(|used| used.name == service);
    let ports = used.map(|used| used.ports.as_slice()).unwrap_or_default();
    if ports.is_empty() {
        let bad = status.conditions.iter().find(|one| one.status != "True");
        return vec![RealServerPart {
            name,
            socket: None,
            state: "Unknown".to_owned(),
            is_in: false,
            weight,
            effective_weight: 0,
            since: bad.map(|one| one.last_transition_time.0.to_string()),
            why: bad.map_or_else(
                || "the controller has not taken it up yet".to_owned(),
                |one| format!("{}: {}", one.reason, one.message),
            ),
        }];
    }
    let part = |port: &lvs_crds::real_server::RealServerPortState| RealServerPart {
        name: name.clone(),
        socket: Some(match port.address.parse() {
            Ok(address) => SocketText(address, port.port).to_string(),
            Err(_) => format!("{}:{}", port.address, port.port),
        }),
        state: format!("{:?}", port.state),
        is_in: port.state == RealServerState::Up && port.effective_weight > 0,
        weight,
        effective_weight: port.effective_weight,
        since: port.since.as_ref().map(|since| since.0.to_string()),
        why: why(port.state, &port.message, port.effective_weight),
    };
    ports.iter().map(part).collect()
}

fn why(state: RealServerState, message: &str, effective_weight: u16) -> String {
    let usual = match state {
        RealServerState::Up if effective_weight > 0 => "",
        RealServerState::Up => "it is up, and not in the kernel yet",
        RealServerState::Down => "it fails a check",
        RealServerState::Draining => "it gets no new connections and keeps those it has",
        RealServerState::Disabled => "its weight is 0, or administrativeState Disabled",
        RealServerState::Unknown => "not checked yet, or not reported",
    };
    if message.is_empty() {
        usual.to_owned()
    } else {
        message.to_owned()
    }
}

fn director(plan: &NodePlan, kernels: &Answers<ShownServices>) -> DirectorPart {
    let node = &plan.spec.node_name;
    let name = plan.metadata.name.clone().unwrap_or_default();
    let kernel = kernels.answers.iter().find(|(asked, _)| asked == node);
    let status = plan.status.clone().unwrap_or_default();
    let services = plan.spec.director.iter();
    let (resting, active): (Vec<_>, Vec<_>) = services
        .flat_map(|director| &director.services)
        .partition(|service| is_resting(&plan.spec, status.role, service));
    let count = |services: &[&PlannedService]| -> usize {
        let ports = services.iter().map(|one| 1 + usize::from(last_offset(one)));
        ports.sum()
    };
    DirectorPart {
        node: node.clone(),
        state: format!("{:?}", plan.spec.state),
        role: status
            .role
            .map_or_else(|| "unknown".to_owned(), |role| format!("{role:?}")),
        not_programmed: picture::programmed(plan).err(),
        services_planned: count(&active),
        services_resting: count(&resting),
        is_compared: kernel.is_some(),
        differences: kernel
            .map(|(_, kernel)| {
                differences(&name, &plan.spec, status.role, &status.real_servers, kernel)
            })
            .unwrap_or_default(),
        plan: name,
    }
}
