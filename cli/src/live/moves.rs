//! Planned work: addresses handed over, real servers drained. What is to be written and whether it is done are decided here; the waiting
//! is `command`'s.

use lvs_core::shown::ShownServices;
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::virtual_router::{Candidate, CandidateState, VirtualRouterStatus};
use lvs_crds::{HAND_OVER_ANNOTATION, RealServer, VirtualRouter};

use super::agent::Answers;

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is done; in words.
    Done(String),
    /// Not yet; in words.
    Under(String),
}

/// Who is to get the addresses, and what is to be known of it beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The director.
    pub node: String,
    /// Whether the annotation must go first: it names this director since an earlier time, and asks for nothing any more.
    pub asks_anew: bool,
    /// Why it may take long.
    pub warning: Option<String>,
}

/// Who gets the addresses.
///
/// # Errors
/// When the node is no director, or no other director is ready.
pub fn successor(router: &VirtualRouter, to: Option<&str>) -> Result<Successor, String> {
    let status = router.status.clone().unwrap_or_default();
    let name = router.metadata.name.as_deref().unwrap_or_default();
    let candidate = match to {
        Some(node) => named(&status, name, node)?,
        None => best(&status, name)?,
    };
    let annotations = router.metadata.annotations.as_ref();
    let wanted = annotations.and_then(|all| all.get(HAND_OVER_ANNOTATION));
    let is_fit = matches!(
        candidate.state,
        CandidateState::Master | CandidateState::Backup
    );
    let reason = candidate.reason.as_deref().unwrap_or_default();
    Ok(Successor {
        node: candidate.node_name.clone(),
        asks_anew: wanted == Some(&candidate.node_name),
        warning: (!is_fit).then(|| {
            format!(
                "{} is {:?}{}: it gets the addresses as soon as it is ready",
                candidate.node_name,
                candidate.state,
                if reason.is_empty() {
                    String::new()
                } else {
                    format!(" ({reason})")
                }
            )
        }),
    })
}

fn named<'a>(
    status: &'a VirtualRouterStatus,
    router: &str,
    node: &str,
) -> Result<&'a Candidate, String> {
    let mut candidates = status.candidates.iter();
    candidates
        .find(|candidate| candidate.node_name == node)
        .ok_or_else(|| {
            let names = status.candidates.iter().map(|one| one.node_name.as_str());
            let names: Vec<&str> = names.collect();
            format!(
                "{node} is no director of router {router}; its directors are: {}",
                names.join(", ")
            )
        })
}

fn best<'a>(status: &'a VirtualRouterStatus, router: &str) -> Result<&'a Candidate, String> {
    let master = status.master.as_ref().map(|master| &master.node_name);
    let ready = status.candidates.iter().filter(|candidate| {
        candidate.state == CandidateState::Backup && Some(&candidate.node_name) != master
    });
    ready
        .min_by_key(|candidate| {
            let priority = candidate.effective_priority.unwrap_or(candidate.priority);
            (u8::MAX - priority, &candidate.node_name)
        })
        .ok_or_else(|| {
            let told = status.candidates.iter();
            let told = told.map(|one| format!("{} is {:?}", one.node_name, one.state));
            format!(
                "no other director of router {router} is ready: {}",
                told.collect::<Vec<_>>().join(", ")
            )
        })
}

/// How far the hand-over to a node is.
pub fn handed_over(router: &VirtualRouter, node: &str) -> Progress {
    let name = router.metadata.name.as_deref().unwrap_or_default();
    let status = router.status.clone().unwrap_or_default();
    let candidate = status.candidates.iter().find(|one| one.node_name == node);
    match &status.master {
        Some(master) if master.node_name == node => {
            let how = candidate
                .and_then(|one| one.last_transition.as_ref())
                .filter(|transition| transition.epoch == master.epoch)
                .map(|transition| format!(": {}", transition.sentence(node)))
                .unwrap_or_default();
            Progress::Done(format!(
                "{node} holds the addresses of router {name}, epoch {}{how}",
                master.epoch
            ))
        }
        master => {
            let holder = match master {
                Some(master) => format!("{} holds", master.node_name),
                None => "nobody holds".to_owned(),
            };
            let state = match candidate {
                None => "is no director any more".to_owned(),
                Some(one) => {
                    let words = [one.reason.as_deref(), one.message.as_deref()];
                    let words: Vec<&str> = words.into_iter().flatten().collect();
                    let why = if words.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", words.join(": "))
                    };
                    format!("is {:?}{why}", one.state)
                }
            };
            Progress::Under(format!(
                "{holder} the addresses of router {name}; {node} {state}"
            ))
        }
    }
}

/// What is to be merged into a RealServer.
pub fn administrative_patch(is_undone: bool) -> String {
    let state = if is_undone {
        // Enabled is the default, and not written.
        serde_json::Value::Null
    } else {
        "Draining".into()
    };
    serde_json::json!({"spec": {"administrativeState": state}}).to_string()
}

/// How far a RealServer is with draining: done when it is out of every kernel, or no kernel counts a connection of it. `kernels` without
/// an answer: only its status speaks.
pub fn drained(real_server: &RealServer, kernels: &Answers<ShownServices>) -> Progress {
    let name = real_server.metadata.name.as_deref().unwrap_or_default();
    if real_server.spec.administrative_state == AdministrativeState::Enabled {
        return Progress::Under(format!(
            "{name} is Enabled again: somebody else has changed it"
        ));
    }
    let status = real_server.status.clone().unwrap_or_default();
    if status.observed_generation != real_server.metadata.generation {
        return Progress::Under(format!("{name}: the controller has not seen it yet"));
    }
    let ports = || status.virtual_services.iter().flat_map(|used| &used.ports);
    let is_moving = ports().any(|port| {
        matches!(
            port.state,
            RealServerState::Up | RealServerState::Unknown | RealServerState::Down
        ) && port.effective_weight > 0
    });
    let told = ports().find(|port| !port.message.is_empty());
    let told = told
        .map(|port| format!(" ({})", port.message))
        .unwrap_or_default();
    if is_moving {
        return Progress::Under(format!("{name} still gets new connections"));
    }
    if ports().all(|port| port.state == RealServerState::Disabled) {
        return Progress::Done(format!("{name} is out of every kernel{told}"));
    }
    let namespace = real_server.metadata.namespace.as_deref();
    let mut counts = Vec::new();
    for (node, kernel) in &kernels.answers {
        let of_namespace = kernel.services.iter().filter(|service| {
            let owner = service.owner.as_ref();
            owner.is_some_and(|owner| owner.namespace.as_deref() == namespace)
        });
        let own = of_namespace
            .flat_map(|service| &service.destinations)
            .filter(|destination| destination.real_server.as_deref() == Some(name));
        let count: u64 = own
            .map(|one| u64::from(one.active_connections) + u64::from(one.inactive_connections))
            .sum();
        if count > 0 {
            counts.push(format!("{count} on {node}"));
        }
    }
    match (counts.is_empty(), kernels.answers.is_empty()) {
        (true, false) if kernels.not_asked.is_empty() => Progress::Done(format!(
            "{name} gets no new connections and has none left{told}"
        )),
        (true, _) => Progress::Under(format!(
            "{name} gets no new connections{told}; how many it has left is not known"
        )),
        (false, _) => Progress::Under(format!(
            "{name} gets no new connections{told}; connections left: {}",
            counts.join(", ")
        )),
    }
}

fn in_brackets(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

/// How far a RealServer is with coming back: done when it is up, or its checks say that it is down.
pub fn restored(real_server: &RealServer) -> Progress {
    let name = real_server.metadata.name.as_deref().unwrap_or_default();
    let status = real_server.status.clone().unwrap_or_default();
    if status.observed_generation != real_server.metadata.generation {
        return Progress::Under(format!("{name}: the controller has not seen it yet"));
    }
    let ports = status.virtual_services.iter().flat_map(|used| &used.ports);
    let held_back = ports.clone().find(|port| {
        matches!(
            port.state,
            RealServerState::Draining | RealServerState::Disabled | RealServerState::Unknown
        ) && real_server.spec.weight > 0
    });
    match held_back {
        Some(port) => Progress::Under(format!(
            "{name} at {} is {:?} still{}",
            port.address,
            port.state,
            in_brackets(&port.message)
        )),
        None => Progress::Done(format!("{name} is {}", status.summary.state)),
    }
}
