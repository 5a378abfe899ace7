//! Devices whose link the sync loop has taken into account: a change of one of them is a reason for a pass at once, a
//! change of any other (of which a node with many pods sees plenty) is none.

use std::collections::BTreeMap;

use lvs_core::desired::{DesiredState, PlanInput};
use lvs_core::host::{Link, ObservedHost, is_virtual_mac_device};

use crate::kernel::link_watch::Links;

/// Devices of directors' addresses, of tracking and of heartbeats, as the last pass saw them.
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
        let beating = directors()
            .filter_map(|director| director.leadership.as_ref()?.heartbeat.as_ref())
            .flat_map(|heartbeat| &heartbeat.devices);
        let carrying = || {
            let keys = desired.director_addresses.values().flatten();
            keys.map(|key| &key.device)
        };
        let underlying =
            carrying().map(|device| desired.underlying_device(host, device).to_owned());
        Self(
            named
                .chain(tracked)
                .chain(beating)
                .chain(carrying())
                .cloned()
                .chain(underlying)
                .map(|name| {
                    let link = host.links.get(&name).map(|link| counted(&name, link));
                    (name, link)
                })
                .collect(),
        )
    }

    /// Whether one of them is not any more as it was seen.
    pub fn differ(&self, links: &Links) -> bool {
        self.0
            .iter()
            .any(|(name, seen)| links.get(name).map(|link| counted(name, link)) != *seen)
    }
}

/// What counts of a device: of one with a virtual MAC that it is there. The fence sets it up and down.
fn counted(name: &str, link: &Link) -> Link {
    let fenced = is_virtual_mac_device(name);
    Link {
        up: link.up || fenced,
        carrier: link.carrier || fenced,
        ..link.clone()
    }
}
