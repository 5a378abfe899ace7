//! Services and destinations. The usual pass over ten thousand unchanged destinations compares two sorted vectors per
//! service and allocates nothing.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Walk;
use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, Service, ServiceFlags, ServiceKey,
    ServiceState,
};
use crate::object::Object;
use crate::op::{IpvsOp, Op};
use crate::table::{depends_on_order, out_of_order};

/// Operations on services.
#[derive(Default)]
pub(super) struct ServiceOps {
    /// Services to add and edit: all of them before any destination, so that both travel in large batches.
    pub services: Vec<Op>,
    /// Destinations to add and edit.
    pub destinations: Vec<Op>,
    /// Removals.
    pub remove: Vec<Op>,
}

impl Walk<'_> {
    pub(super) fn services(&mut self) -> ServiceOps {
        let mut ops = ServiceOps::default();
        for (key, wanted) in &self.desired.services {
            let Some(found) = self.observed.services.get(key) else {
                ops.services
                    .push(Op::Ipvs(IpvsOp::AddService(*key, wanted.service.clone())));
                let begin = ops.destinations.len();
                destinations(*key, &wanted.destinations, &[], &mut ops);
                self.own_first(begin, &mut ops);
                // All are added in ascending order.
                continue;
            };
            if !self.journal.services.contains_key(key) {
                self.foreign(
                    &Object::Service(*key),
                    "remove it or choose another address, port or mark",
                );
                continue;
            }
            if !same_service(&wanted.service, &found.service) {
                ops.services
                    .push(Op::Ipvs(IpvsOp::EditService(*key, wanted.service.clone())));
            }
            let begin = ops.destinations.len();
            destinations(*key, &wanted.destinations, &found.destinations, &mut ops);
            if self.desired.stateless_services.contains(key) && depends_on_order(&wanted.service) {
                let added: Vec<DestinationKey> = ops
                    .destinations
                    .iter()
                    .skip(begin)
                    .filter_map(|op| match op {
                        Op::Ipvs(IpvsOp::AddDestination(_, added, _)) => Some(*added),
                        _ => None,
                    })
                    .collect();
                self.reorder(*key, wanted, found, &added, &mut ops);
            }
        }
        for key in self.journal.services.keys() {
            if self.observed.services.contains_key(key) && !self.desired.services.contains_key(key)
            {
                ops.remove.push(Op::Ipvs(IpvsOp::DeleteService(*key)));
            }
        }
        ops
    }
}

impl Walk<'_> {
    /// A director that is a real server of a new service gets packets meant for itself before it is the holder: from the one
    /// that still is. A table without this node would send them on, and the connection would stay with the wrong one. So
    /// the others have weight 0 until all destinations are there, in their order.
    fn own_first(&self, begin: usize, ops: &mut ServiceOps) {
        let addresses = &self.observed.host.addresses;
        let is_own = |key: &DestinationKey, destination: &Destination| {
            destination.forwarding != DestinationForwarding::Masquerade
                && addresses.iter().any(|(own, _)| own.address == key.address)
        };
        let added = ops.destinations.get_mut(begin..).unwrap_or_default();
        let serves = added.iter().any(|op| {
            matches!(op, Op::Ipvs(IpvsOp::AddDestination(_, key, destination)) if is_own(key, destination))
        });
        if !serves {
            return;
        }
        let mut edits = Vec::new();
        for op in added {
            if let Op::Ipvs(IpvsOp::AddDestination(service, key, destination)) = op
                && destination.weight > 0
                && !is_own(key, destination)
            {
                let edit = IpvsOp::EditDestination(*service, *key, *destination);
                edits.push(Op::Ipvs(edit));
                destination.weight = 0;
            }
        }
        ops.destinations.append(&mut edits);
    }

    /// Brings destinations into the canonical order, by which every director sends a connection to the same real
    /// server. Nothing edits an order: those that are too far back are removed and added again, one by one. The kernel
    /// keeps a removed destination at hand and gives it back to its connections.
    fn reorder(
        &self,
        key: ServiceKey,
        wanted: &ServiceState,
        found: &ServiceState,
        added: &[DestinationKey],
        ops: &mut ServiceOps,
    ) {
        let listed: Vec<DestinationKey> = match self.observed.disorder.get(&key) {
            Some(listed) => listed.clone(),
            None if added.is_empty() => return,
            None => found
                .destinations
                .iter()
                .rev()
                .map(|(key, _)| *key)
                .collect(),
        };
        let keys: Vec<DestinationKey> = wanted.destinations.iter().map(|(key, _)| *key).collect();
        let again: BTreeSet<DestinationKey> =
            out_of_order(&listed, added, &keys).into_iter().collect();
        for (destination, attributes) in &wanted.destinations {
            if again.contains(destination) {
                ops.destinations.extend([
                    Op::Ipvs(IpvsOp::DeleteDestination(key, *destination)),
                    Op::Ipvs(IpvsOp::AddDestination(key, *destination, *attributes)),
                ]);
            }
        }
    }
}

/// Equal but for flags that the kernel owns.
fn same_service(wanted: &Service, found: &Service) -> bool {
    wanted.scheduler == found.scheduler
        && wanted.flags.0 & ServiceFlags::OWNED == found.flags.0 & ServiceFlags::OWNED
        && wanted.timeout_seconds == found.timeout_seconds
        && wanted.prefix_length == found.prefix_length
        && wanted.persistence_engine == found.persistence_engine
}

/// Walk two sorted lists side by side.
fn destinations(
    service: ServiceKey,
    mut wanted: &[(DestinationKey, Destination)],
    mut found: &[(DestinationKey, Destination)],
    ops: &mut ServiceOps,
) {
    loop {
        let order = match (wanted.first(), found.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        if order != Ordering::Greater
            && let Some(((key, destination), rest)) = wanted.split_first()
        {
            match (order, found.first()) {
                (Ordering::Less, _) => ops.destinations.push(Op::Ipvs(IpvsOp::AddDestination(
                    service,
                    *key,
                    *destination,
                ))),
                (_, Some((_, present))) if present != destination => ops.destinations.push(
                    Op::Ipvs(IpvsOp::EditDestination(service, *key, *destination)),
                ),
                _ => {}
            }
            wanted = rest;
        }
        if order != Ordering::Less
            && let Some(((key, _), rest)) = found.split_first()
        {
            if order == Ordering::Greater {
                ops.remove
                    .push(Op::Ipvs(IpvsOp::DeleteDestination(service, *key)));
            }
            found = rest;
        }
    }
}
