//! What is left of a list of operations while something that was asked of this node is not known: only what adds and
//! edits. A removal could take away what the unknown plan wants.

use lvs_core::desired::DesiredState;
use lvs_core::host::ObservedHost;
use lvs_core::op::{HostOp, IpvsOp, Op};

/// Operations that cannot take away anything an unknown plan may want.
pub fn without_removals(ops: Vec<Op>, desired: &DesiredState, observed: &ObservedHost) -> Vec<Op> {
    ops.into_iter()
        .filter_map(|op| keep(op, desired, observed))
        .collect()
}

fn keep(op: Op, desired: &DesiredState, observed: &ObservedHost) -> Option<Op> {
    let stays = match &op {
        // Within a service that a known plan owns, its destinations are known too.
        Op::Ipvs(IpvsOp::DeleteDestination(service, _)) => desired.services.contains_key(service),
        Op::Ipvs(IpvsOp::SetTimeouts(_)) => desired.timeouts.is_some(),
        // Roles change on nodes with an unknown plan, too; the last daemon stays.
        Op::Ipvs(IpvsOp::StopSyncDaemon(_)) => !desired.sync_daemons.is_empty(),
        Op::Ipvs(
            IpvsOp::StartSyncDaemon(..)
            | IpvsOp::AddService(..)
            | IpvsOp::EditService(..)
            | IpvsOp::AddDestination(..)
            | IpvsOp::EditDestination(..),
        )
        | Op::Host(
            HostOp::SetLinkUp { .. }
            | HostOp::AddAddress(_)
            | HostOp::AddFouPort(_)
            | HostOp::AddRoute(_)
            | HostOp::AddPolicyRule(_),
        ) => true,
        // One that is there would have to go first.
        Op::Host(HostOp::AddLink { name, .. }) => !observed.links.contains_key(name),
        Op::Host(HostOp::SetSysctl { key, .. }) => desired.host.sysctls.contains_key(key),
        Op::Ipvs(IpvsOp::DeleteService(_))
        | Op::Host(
            HostOp::DeleteLink { .. }
            | HostOp::DeleteAddress(_)
            | HostOp::DeleteFouPort(_)
            | HostOp::DeleteRoute(_)
            | HostOp::DeletePolicyRule(_)
            | HostOp::DeletePacketRules,
        ) => false,
        Op::Host(HostOp::ReplacePacketRules(wanted)) => {
            // The table is written whole: what is in it stays in it.
            let found = observed.packet_rules.as_ref();
            let present = found.map(|found| found.rules.clone()).unwrap_or_default();
            let mut rules = wanted.clone();
            rules.add_missing(&present);
            let unchanged = rules == present && !found.is_some_and(|found| found.damaged);
            return (!unchanged).then_some(Op::Host(HostOp::ReplacePacketRules(rules)));
        }
    };
    stays.then_some(op)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_core::host::{LinkKind, MarkRule, ObservedPacketRules, PacketRules, SysctlKey};
    use lvs_core::ipvs::{DestinationKey, ServiceKey};
    use lvs_core::sync_daemon::SyncRole;
    use lvs_crds::node_plan::MarkMatch;
    use lvs_crds::value::Protocol;

    use super::*;

    fn mark(port: u16) -> MarkRule {
        MarkRule {
            packets: MarkMatch {
                address: "192.0.2.1".parse().unwrap(),
                protocol: Protocol::TCP,
                port,
                end_port: port,
            },
            mark: 1,
        }
    }

    fn left(op: Op, observed: &ObservedHost) -> Vec<Op> {
        without_removals(vec![op], &DesiredState::default(), observed)
    }

    #[test]
    fn removals_wait_and_additions_go_on() {
        let host = ObservedHost::default();
        let service = ServiceKey::FirewallMark {
            mark: 1,
            family: lvs_crds::value::AddressFamily::IPv4,
        };
        let destination = DestinationKey {
            address: "192.0.2.9".parse().unwrap(),
            port: 0,
        };
        let name = "lvs-dr".to_owned();
        for op in [
            Op::Ipvs(IpvsOp::DeleteService(service)),
            Op::Ipvs(IpvsOp::DeleteDestination(service, destination)),
            Op::Ipvs(IpvsOp::StopSyncDaemon(SyncRole::Master)),
            Op::Host(HostOp::DeleteLink { name: name.clone() }),
            Op::Host(HostOp::DeletePacketRules),
            // Puts an original back: nobody known demands it any more, somebody unknown may.
            Op::Host(HostOp::SetSysctl {
                key: SysctlKey("net/ipv4/ip_forward".into()),
                value: "0".into(),
            }),
        ] {
            assert_eq!(left(op.clone(), &host), [], "{op}");
        }
        let add = Op::Host(HostOp::AddLink {
            name,
            kind: LinkKind::Dummy,
        });
        assert_eq!(left(add.clone(), &host), [add]);
    }

    #[test]
    fn marks_that_nobody_known_wants_stay_in_the_table() {
        let marks = |ports: &[u16]| PacketRules {
            marks: ports.iter().map(|port| mark(*port)).collect(),
            source_nat: Vec::new(),
        };
        let with = |rules| ObservedHost {
            packet_rules: Some(ObservedPacketRules {
                rules,
                damaged: false,
            }),
            ..ObservedHost::default()
        };
        let host = with(marks(&[80]));
        let replace = |rules| Op::Host(HostOp::ReplacePacketRules(rules));
        assert_eq!(
            left(replace(marks(&[443])), &host),
            [replace(marks(&[80, 443]))]
        );
        // Writing what is there already is no repair.
        let host = with(marks(&[80, 443]));
        assert_eq!(left(replace(marks(&[443])), &host), []);
    }
}
