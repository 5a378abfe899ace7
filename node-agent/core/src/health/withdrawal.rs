//! Addresses that a director is not to have since too few real servers are up behind them (`quorum.onLoss: WithdrawAddress`).
//!
//! An address stays while any port of any VirtualService on it has a quorum: what works is never lost. It goes when none has
//! and some VirtualService that asks for it has lost all its ports. While real servers are unknown that could make a quorum
//! it is as it was, so that a restart neither takes an address away nor offers one before anybody has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::node_plan::{DirectorPlan, PlanState, PlannedService};
use lvs_crds::traffic_policy::OnQuorumLoss;
use lvs_crds::value::AddressFamily;

use super::policy::Serving;
use crate::desired::PlanInput;

/// What is known of the ports of one VirtualService on one address together. The lesser is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Quorums {
    /// One has a quorum.
    Some,
    /// One may have, when all its real servers are known.
    Perhaps,
    /// None has.
    None,
}

/// What counts for one address.
struct Standing {
    /// Of the best VirtualService.
    best: Quorums,
    /// Whether a VirtualService that has lost all its ports wants it withdrawn.
    is_lost: bool,
    /// Whether one wants it at all.
    may_be_withdrawn: bool,
}

/// The addresses by router that this node is not to have. `carries` says of a router's address whether the node has it, or
/// is about to.
pub fn withdrawn(
    plans: &[PlanInput],
    serving: &Serving,
    carries: impl Fn(&str, IpAddr) -> bool,
) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut standings: BTreeMap<(&str, IpAddr), Standing> = BTreeMap::new();
    for plan in plans {
        let Some(director) = &plan.spec.director else {
            continue;
        };
        if plan.spec.state == PlanState::Withdrawn {
            continue;
        }
        for (address, (quorums, wants)) in by_address(&plan.name, director, serving) {
            let key = (plan.spec.virtual_router_name.as_str(), address);
            let standing = standings.entry(key).or_insert(Standing {
                best: quorums,
                is_lost: false,
                may_be_withdrawn: false,
            });
            standing.best = standing.best.min(quorums);
            standing.is_lost |= wants && quorums == Quorums::None;
            standing.may_be_withdrawn |= wants;
        }
    }
    let mut withdrawn: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for ((router, address), standing) in standings {
        let goes = match standing.best {
            Quorums::Some => false,
            Quorums::Perhaps => standing.may_be_withdrawn && !carries(router, address),
            Quorums::None => standing.is_lost,
        };
        if goes {
            let of_router = withdrawn.entry(router.to_owned()).or_default();
            of_router.insert(address);
        }
    }
    withdrawn
}

/// What is known of each address of a VirtualService, and whether the VirtualService wants it withdrawn.
fn by_address(
    plan: &str,
    director: &DirectorPlan,
    serving: &Serving,
) -> BTreeMap<IpAddr, (Quorums, bool)> {
    let mut found: BTreeMap<IpAddr, (Quorums, bool)> = BTreeMap::new();
    for service in &director.services {
        let quorums = match serving.of(plan, service) {
            Some(stands) if stands.has_quorum => Quorums::Some,
            Some(stands) if !stands.may_have_quorum => Quorums::None,
            Some(_) | None => Quorums::Perhaps,
        };
        let on_loss = service.quorum.as_ref().and_then(|quorum| quorum.on_loss);
        let wants = on_loss == Some(OnQuorumLoss::WithdrawAddress);
        for address in addresses(director, service) {
            let known = found.entry(address).or_insert((quorums, wants));
            *known = (known.0.min(quorums), known.1 || wants);
        }
    }
    found
}

/// The addresses of a service; of one with a firewall mark all that have packets marked for it.
fn addresses(director: &DirectorPlan, service: &PlannedService) -> BTreeSet<IpAddr> {
    if let Some(address) = &service.address {
        return [address.address].into();
    }
    let Some(mark) = &service.firewall_mark else {
        return BTreeSet::new();
    };
    let marked = director
        .firewall_marks
        .iter()
        .filter(|marks| marks.mark == mark.mark)
        .flat_map(|marks| &marks.matches)
        .map(|packets| packets.address);
    marked
        .filter(|address| AddressFamily::of(address) == mark.address_family)
        .collect()
}
