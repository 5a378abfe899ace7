//! Drift: what differs from a state that was verified before and is still wanted was changed by someone else. The
//! kernel tells nobody of changes to IPVS, so comparing is the only way to know.

use crate::desired::DesiredState;
use crate::ipvs::{DestinationKey, ServiceKey};
use crate::op::{HostOp, IpvsOp, Op};

/// Operations that repair drift: those about things for which `desired` asks the same as `verified` did, the last
/// desired state that a dump showed in force. Before anything was verified nothing is drift.
pub fn repairs<'a>(
    ops: &'a [Op],
    verified: Option<&'a DesiredState>,
    desired: &'a DesiredState,
) -> impl Iterator<Item = &'a Op> {
    ops.iter()
        .filter(move |op| verified.is_some_and(|verified| asked_alike(op, verified, desired)))
}

fn asked_alike(op: &Op, verified: &DesiredState, desired: &DesiredState) -> bool {
    let alike = |select: &dyn Fn(&DesiredState) -> bool| select(verified) && select(desired);
    match op {
        Op::Ipvs(op) => match op {
            IpvsOp::AddService(key, _) | IpvsOp::EditService(key, _) => {
                let service = |state: &DesiredState| {
                    state.services.get(key).map(|found| found.service.clone())
                };
                service(verified) == service(desired)
            }
            IpvsOp::AddDestination(key, destination, _)
            | IpvsOp::EditDestination(key, destination, _)
            | IpvsOp::DeleteDestination(key, destination) => {
                verified.services.contains_key(key)
                    && attributes(verified, *key, *destination)
                        == attributes(desired, *key, *destination)
            }
            // A service that is to go was wanted when it was verified, or the journal would not have it.
            IpvsOp::DeleteService(key) => {
                !verified.services.contains_key(key) && !desired.services.contains_key(key)
            }
            IpvsOp::SetTimeouts(_) => verified.timeouts == desired.timeouts,
            IpvsOp::StartSyncDaemon(role, _) | IpvsOp::StopSyncDaemon(role) => {
                verified.sync_daemons.get(role) == desired.sync_daemons.get(role)
            }
        },
        Op::Host(op) => match op {
            HostOp::AddLink { name, .. } | HostOp::SetLinkUp { name } => {
                verified.host.links.get(name) == desired.host.links.get(name)
            }
            HostOp::AddAddress(key) => alike(&|state| state.host.addresses.contains(key)),
            HostOp::SetSysctl { key, .. } => {
                verified.host.sysctls.contains_key(key)
                    && verified.host.sysctls.get(key) == desired.host.sysctls.get(key)
            }
            HostOp::AddFouPort(fou) => alike(&|state| state.host.fou_ports.contains(fou)),
            HostOp::AddRoute(route) => alike(&|state| state.host.routes.contains(route)),
            HostOp::AddPolicyRule(rule) => alike(&|state| state.host.policy_rules.contains(rule)),
            HostOp::DeleteRoute(route) => alike(&|state| !state.host.routes.contains(route)),
            HostOp::DeletePolicyRule(rule) => {
                alike(&|state| !state.host.policy_rules.contains(rule))
            }
            HostOp::DeleteLink { name } => alike(&|state| !state.host.links.contains_key(name)),
            HostOp::DeleteAddress(key) => alike(&|state| !state.host.addresses.contains(key)),
            HostOp::DeleteFouPort(fou) => alike(&|state| !state.host.fou_ports.contains(fou)),
            HostOp::ReplacePacketRules(_) | HostOp::DeletePacketRules => {
                verified.host.packet_rules == desired.host.packet_rules
            }
        },
    }
}

fn attributes(
    state: &DesiredState,
    key: ServiceKey,
    destination: DestinationKey,
) -> Option<crate::ipvs::Destination> {
    let destinations = &state.services.get(&key)?.destinations;
    let index = destinations
        .binary_search_by(|(found, _)| found.cmp(&destination))
        .ok()?;
    destinations.get(index).map(|(_, attributes)| *attributes)
}
