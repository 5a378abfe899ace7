//! What a RealServer that stands for a Service or a name comes to: its addresses count one by one, endpoints that leave by
//! themselves not at all.

use std::collections::BTreeMap;

use lvs_crds::real_server::{RealServerPortState, RealServerState, TargetType};

use crate::expansion;
use crate::input::RealServerObject;

/// Real servers behind a RealServer, as one VirtualService counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Those that are to serve.
    pub selected: u32,
    /// Those of which every port is up.
    pub ready: u32,
}

/// Counts: a host or node is one real server, a Service or a name as many as it has addresses that are to serve.
pub(super) fn hosts(object: Option<&RealServerObject>, ports: &[RealServerPortState]) -> Hosts {
    let is_up = |port: &RealServerPortState| port.state == RealServerState::Up;
    if !object.is_some_and(expansion::is_expanded) || ports.is_empty() {
        return Hosts {
            selected: 1,
            ready: u32::from(ports.iter().all(is_up)),
        };
    }
    let mut up: BTreeMap<&str, bool> = BTreeMap::new();
    for port in ports.iter().filter(|port| !leaves(object, port.state)) {
        let all = up.entry(&port.address).or_insert(true);
        *all &= is_up(port);
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Hosts {
        selected: count(up.len()),
        ready: count(up.values().filter(|all| **all).count()),
    }
}

/// Ports that speak for the state of a RealServer: without those of endpoints that leave, as long as others stay.
pub(super) fn staying<'a>(
    object: &RealServerObject,
    ports: impl Iterator<Item = &'a RealServerPortState>,
) -> Vec<&'a RealServerPortState> {
    let (leaving, staying): (Vec<_>, Vec<_>) =
        ports.partition(|port| leaves(Some(object), port.state));
    if staying.is_empty() { leaving } else { staying }
}

/// Whether what drains of a RealServer is an endpoint that leaves by itself, not by the will of who made the RealServer.
pub(super) fn leaves_by_itself(object: Option<&RealServerObject>) -> bool {
    let spec = object.and_then(RealServerObject::spec);
    spec.is_some_and(|spec| {
        spec.target.type_ == TargetType::Service && spec.administrative_state.is_enabled()
    })
}

fn leaves(object: Option<&RealServerObject>, state: RealServerState) -> bool {
    state == RealServerState::Draining && leaves_by_itself(object)
}
