//! Devices whose link the sync loop has taken into account: a change of one of them is a reason for a pass at once, a
//! change of any other (of which a node with many pods sees plenty) is none.

use std::collections::BTreeMap;

use lvs_core::desired::{DesiredState, PlanInput};
use lvs_core::host::{Link, ObservedHost};

use crate::kernel::link_watch::Links;

/// Devices of directors' addresses and of tracking, as the last pass saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedLinks(BTreeMap<String, Option<Link>>);

impl WatchedLinks {
    /// Those that plans name or that carry an address.
    pub fn seen(plans: &[PlanInput], desired: &DesiredState, host: &ObservedHost) -> Self {
        let directors = || plans.iter().filter_map(|plan| plan.spec.director.as_ref());
        let named = directors()
            .flat_map(|director| &director.addresses)
            .flat_map(|planned| &planned.devices);
        let tracked = directors()
            .filter_map(|director| director.leadership.as_ref())
            .flat_map(|leadership| &leadership.tracked_interfaces)
            .flat_map(|tracked| &tracked.devices);
        let carrying = desired
            .director_addresses
            .values()
            .flatten()
            .map(|key| &key.device);
        Self(
            named
                .chain(tracked)
                .chain(carrying)
                .map(|name| (name.clone(), host.links.get(name).cloned()))
                .collect(),
        )
    }

    /// Whether one of them is not any more as it was seen.
    pub fn differ(&self, links: &Links) -> bool {
        self.0
            .iter()
            .any(|(name, seen)| links.get(name) != seen.as_ref())
    }
}
