//! Status of a RealServer.

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::real_server::{
    RealServerState, RealServerStatus, RealServerSummary, RealServerUse, TargetType,
};

use super::{ObjectReport, endpoint};
use crate::input::{Body, RealServerObject};
use crate::report::{self, Truth, Verdict};
use crate::router::undecodable;

/// Longest list of VirtualServices in the status of a RealServer.
const USES_MAXIMUM: usize = 32;

/// Most ports in the status of a RealServer, over all VirtualServices: a Service of many endpoints has many, and the API
/// server stores no object of more than 1.5 MiB.
const PORTS_MAXIMUM: usize = 1024;

/// Names that a column of `kubectl get` shows; of more it says only how many.
const NAMES_IN_COLUMN: usize = 3;

/// A few names, and how many more there are: `api,mail,web,+12`.
fn in_one_column(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES_IN_COLUMN);
    let shown = names.iter().take(NAMES_IN_COLUMN).map(ToString::to_string);
    shown
        .chain((more > 0).then(|| format!("+{more}")))
        .collect::<Vec<_>>()
        .join(",")
}

/// Why a RealServer gets no new connections: what a port of it says, else what is usual.
fn no_new_connections(told: Option<&str>, usual: &str) -> String {
    match told {
        Some(told) => format!("{told}; no new connections"),
        None => format!("{usual}: no new connections"),
    }
}

/// What to tell about a RealServer: `problems` and `uses` are of every VirtualService that selects it.
pub(super) fn report(
    object: &RealServerObject,
    mut problems: Vec<Verdict>,
    mut uses: Vec<RealServerUse>,
) -> ObjectReport<RealServerStatus> {
    if let Body::Undecodable(error) = &object.body {
        problems.push(undecodable(error));
    }
    uses.sort_by(|left, right| left.name.cmp(&right.name));
    let accepted = report::accepted(&problems);
    let resolved = report::resolved(&problems);
    let ready_count = uses.iter().filter(|used| used.ready).count();
    let staying = endpoint::staying(object, uses.iter().flat_map(|used| &used.ports));
    let ports = || staying.iter().copied();
    let worst = if accepted.truth != Truth::True || resolved.truth != Truth::True {
        "Refused"
    } else if uses.is_empty() {
        "Unused"
    } else if ports().any(|port| port.state == RealServerState::Down) {
        "Down"
    } else if uses.iter().any(|used| used.ports.is_empty())
        || ports().any(|p| p.state == RealServerState::Unknown)
    {
        "Unknown"
    } else if ports().any(|port| port.state == RealServerState::Draining) {
        "Draining"
    } else if ports().any(|port| port.state == RealServerState::Disabled) {
        "Disabled"
    } else {
        "Up"
    };
    let told = |state: RealServerState| {
        let mut ports = ports().filter(|port| port.state == state);
        ports.find_map(|port| Some(port.message.as_str()).filter(|text| !text.is_empty()))
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
        None if worst == "Disabled" && ready_count == 0 => not(
            Reason::Pending,
            &no_new_connections(
                told(RealServerState::Disabled),
                "spec.weight is 0, or spec.administrativeState Disabled",
            ),
        ),
        None if worst == "Draining" && ready_count == 0 => not(
            Reason::Pending,
            &no_new_connections(
                told(RealServerState::Draining),
                "spec.administrativeState is Draining",
            ),
        ),
        None if worst == "Down" && ready_count == 0 => not(
            Reason::ChecksFailed,
            &ports()
                .find(|port| port.state == RealServerState::Down)
                .map(|port| format!("{}:{}: {}", port.address, port.port, port.message))
                .unwrap_or_default(),
        ),
        None if ready_count == 0 => not(Reason::Pending, "no node has reported it as programmed"),
        None if ready_count < uses.len() => Verdict::good(
            ConditionType::Ready,
            Reason::PartiallyReady,
            format!("ready for {ready_count} of {} VirtualServices", uses.len()),
        ),
        None => match endpoints_ready(object, &uses) {
            Some(message) => Verdict::good(ConditionType::Ready, Reason::PartiallyReady, message),
            None => Verdict::good(ConditionType::Ready, Reason::Ready, "it serves"),
        },
    };
    let target = object.spec().map(|spec| match spec.target.type_ {
        TargetType::Addresses => spec.target.addresses.join(","),
        TargetType::Node => spec
            .target
            .node
            .as_ref()
            .map(|node| node.name.clone())
            .unwrap_or_default(),
        TargetType::Service => spec
            .target
            .service
            .as_ref()
            .map(|service| format!("service/{}", service.name))
            .unwrap_or_default(),
        TargetType::DNSName => spec
            .target
            .dns_name
            .as_ref()
            .map(|target| target.name.clone())
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
        used_by: in_one_column(&names),
    };
    uses.truncate(USES_MAXIMUM);
    bound_ports(&mut uses);
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

/// How many addresses of a Service or a name are ready for a VirtualService, of the first for which not all are.
fn endpoints_ready(object: &RealServerObject, uses: &[RealServerUse]) -> Option<String> {
    let noun = match object.spec().map(|spec| spec.target.type_) {
        Some(TargetType::DNSName) => "addresses",
        _ => "endpoints",
    };
    uses.iter().find_map(|used| {
        let hosts = endpoint::hosts(Some(object), &used.ports);
        (hosts.ready < hosts.selected).then(|| {
            format!(
                "{} of {} {noun} are ready for VirtualService {}",
                hosts.ready, hosts.selected, used.name
            )
        })
    })
}

/// Cuts the lists of ports; who is not up is of more interest than who is.
fn bound_ports(uses: &mut [RealServerUse]) {
    let mut room = PORTS_MAXIMUM;
    for used in uses {
        if used.ports.len() > room {
            used.ports
                .sort_by_key(|port| port.state == RealServerState::Up);
            used.ports.truncate(room);
        }
        room -= used.ports.len();
    }
}

#[cfg(test)]
mod tests {
    use super::in_one_column;

    #[test]
    fn used_by_fits_into_a_column() {
        assert_eq!(in_one_column(&[]), "");
        assert_eq!(in_one_column(&["mail", "web"]), "mail,web");
        let many: Vec<_> = std::iter::repeat_n("web", 200).collect();
        assert_eq!(in_one_column(&many), "web,web,web,+197");
    }
}
