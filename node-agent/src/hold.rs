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
        Op::Ipvs(
            IpvsOp::AddService(..)
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
            | HostOp::DeleteMarkRules,
        ) => false,
        Op::Host(HostOp::ReplaceMarkRules(wanted)) => {
            // The table is written whole: what is in it stays in it.
            let present = observed
                .mark_rules
                .as_ref()
                .map(|found| found.rules.as_slice())
                .unwrap_or_default();
            let mut rules = wanted.clone();
            rules.extend(
                present
                    .iter()
                    .filter(|rule| !wanted.contains(rule))
                    .cloned(),
            );
            rules.sort();
            let unchanged = rules == present
                && !observed
                    .mark_rules
                    .as_ref()
                    .is_some_and(|found| found.damaged);
            return (!unchanged).then_some(Op::Host(HostOp::ReplaceMarkRules(rules)));
        }
    };
    stays.then_some(op)
}
