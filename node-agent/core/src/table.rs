//! Tables of the hashing schedulers, which must be equal on all directors for a takeover without state.
//!
//! `mh` and `sh` find a connection's real server from its addresses and from the list of destinations alone. The list's
//! order matters (`ip_vs_mh_populate`, net/netfilter/ipvs/ip_vs_mh.c; `ip_vs_sh_reassign`, `ip_vs_sh.c`), and the kernel
//! puts each new destination at its head. Destinations that were added in ascending order are therefore listed
//! descending: that is the canonical order, in which a director that has just booted has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use crate::desired::{DesiredState, PlanInput};
use crate::ipvs::{DestinationKey, Service, ServiceKey, ServiceState};
use crate::object::Object;
use crate::observed::Observed;
use crate::op::IpvsOp;

/// Services whose destinations the kernel lists in another than the canonical order, with that order.
pub type Disorder = BTreeMap<ServiceKey, Vec<DestinationKey>>;

/// Whether the order of destinations decides where this service sends a connection.
pub fn depends_on_order(service: &Service) -> bool {
    matches!(service.scheduler.as_str(), "mh" | "sh")
}

/// Whether a list is as the kernel lists destinations that were added in ascending order.
pub fn is_canonical(listed: &[DestinationKey]) -> bool {
    listed
        .windows(2)
        .all(|pair| matches!(pair, [newer, older] if newer > older))
}

/// Destinations to be removed and added again, ascending, so that the kernel lists `wanted` canonically. `listed` is
/// the kernel's list, `added` (ascending) what is put at its head meanwhile; what is not wanted counts for nothing.
pub fn out_of_order(
    listed: &[DestinationKey],
    added: &[DestinationKey],
    wanted: &[DestinationKey],
) -> Vec<DestinationKey> {
    let position: BTreeMap<DestinationKey, usize> = added
        .iter()
        .rev()
        .chain(listed)
        .enumerate()
        .map(|(index, key)| (*key, index))
        .collect();
    // What is added again goes to the head, so what stays must be the tail of the list as it shall be: the lowest keys,
    // as far as each is listed before the one below it.
    let in_place = wanted
        .windows(2)
        .take_while(
            |pair| matches!(pair, [lower, higher] if position.get(higher) < position.get(lower)),
        )
        .count();
    wanted.iter().skip(in_place + 1).copied().collect()
}

/// Hashes of the tables of stateless routers' services, by the plan that owns them all. A director that is itself a real
/// server has some of its services only while it is master, and nothing to compare.
pub fn tables(
    plans: &[PlanInput],
    desired: &DesiredState,
    observed: &Observed,
) -> BTreeMap<String, String> {
    if desired.stateless_services.is_empty() {
        return BTreeMap::new();
    }
    let hidden: BTreeSet<&str> = desired
        .claims
        .iter()
        .filter_map(|(object, plans)| match object {
            Object::Service(key) if !desired.services.contains_key(key) => Some(plans),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .collect();
    let mut owned: BTreeMap<&str, Vec<ServiceKey>> = BTreeMap::new();
    for key in &desired.stateless_services {
        if let Some(owner) = desired.owner(key).filter(|owner| !hidden.contains(owner)) {
            owned.entry(owner).or_default().push(*key);
        }
    }
    plans
        .iter()
        .filter_map(|plan| {
            let keys = owned.get(plan.name.as_str())?;
            let services = keys
                .iter()
                .filter_map(|key| observed.services.get_key_value(key));
            Some((plan.name.clone(), table_hash(services, &observed.disorder)))
        })
        .collect()
}

/// Hash of services as the kernel holds them (64 bits FNV-1a over ipvsadm's words), sixteen hexadecimal digits.
pub fn table_hash<'a>(
    services: impl Iterator<Item = (&'a ServiceKey, &'a ServiceState)>,
    disorder: &Disorder,
) -> String {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for (key, state) in services {
        hash.line(&IpvsOp::AddService(*key, state.service.clone()));
        for (destination, attributes) in &state.destinations {
            hash.line(&IpvsOp::AddDestination(*key, *destination, *attributes));
        }
        for destination in disorder.get(key).into_iter().flatten() {
            hash.line(destination);
        }
    }
    format!("{:016x}", hash.0)
}

struct Fnv(u64);

impl Fnv {
    fn line(&mut self, text: &impl fmt::Display) {
        // Writing to it cannot fail.
        let _ = writeln!(self, "{text}");
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
