//! Over which interface, and from which addresses, a router's heartbeats leave this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::value::AddressFamily;

use super::PlanInput;
use crate::host::{OWNER_PROTOCOL, ObservedHost};
use crate::journal::Journal;

/// The interface of a router's heartbeats as it is on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatInterface {
    /// Device names of the plan that this answers.
    pub devices: Vec<String>,
    /// Index of the first of them that exists.
    pub index: Option<u32>,
    /// Its first global address of each family, IPv4 before IPv6, without those that move with a router.
    pub addresses: Vec<IpAddr>,
}

impl HeartbeatInterface {
    /// Index and source address for heartbeats to `peer`; none while there is no such device, or no address of the peer's
    /// family on it.
    pub fn source_for(&self, peer: IpAddr) -> Option<(u32, IpAddr)> {
        let family = AddressFamily::of(&peer);
        let mut addresses = self.addresses.iter();
        let address = addresses.find(|address| AddressFamily::of(address) == family)?;
        Some((self.index?, *address))
    }
}

/// The interfaces of the routers whose heartbeats have one, by router.
///
/// `held` are the plans in force, `all` those and the withdrawn ones: an address that any of them moves is none to be
/// reached at, wherever it is now.
pub(super) fn interfaces(
    held: &[&PlanInput],
    all: &[PlanInput],
    host: &ObservedHost,
    journal: &Journal,
) -> BTreeMap<String, HeartbeatInterface> {
    let planned = all
        .iter()
        .filter_map(|plan| plan.spec.director.as_ref())
        .flat_map(|director| &director.addresses)
        .map(|planned| planned.address);
    let ours = journal.director_addresses.iter().map(|key| key.address);
    let moving: BTreeSet<IpAddr> = planned.chain(ours).collect();
    held.iter()
        .filter_map(|plan| {
            let leadership = plan.spec.director.as_ref()?.leadership.as_ref()?;
            let devices = &leadership.heartbeat.as_ref()?.devices;
            let router = plan.spec.virtual_router_name.clone();
            (!devices.is_empty()).then(|| (router, interface(devices, host, &moving)))
        })
        .collect()
}

fn interface(
    devices: &[String],
    host: &ObservedHost,
    moving: &BTreeSet<IpAddr>,
) -> HeartbeatInterface {
    let device = host.first_present(devices);
    let device = device.and_then(|device| Some((device, host.links.get(device)?)));
    let Some((device, link)) = device else {
        return HeartbeatInterface {
            devices: devices.to_vec(),
            ..HeartbeatInterface::default()
        };
    };
    let mut suitable: Vec<(bool, IpAddr)> = host
        .addresses
        .iter()
        .filter(|(key, attributes)| {
            key.device == device
                && attributes.global
                && attributes.protocol != OWNER_PROTOCOL
                && !key.address.is_loopback()
                && !moving.contains(&key.address)
        })
        .map(|(key, attributes)| (attributes.valid_seconds.is_some(), key.address))
        .collect();
    // In the kernel's order, but what stays before what has a lifetime: privacy addresses of IPv6 come and go.
    suitable.sort_by_key(|(passes, _)| *passes);
    let first = |family| {
        let mut addresses = suitable.iter().map(|(_, address)| *address);
        addresses.find(|address| AddressFamily::of(address) == family)
    };
    HeartbeatInterface {
        devices: devices.to_vec(),
        index: Some(link.index),
        addresses: [AddressFamily::IPv4, AddressFamily::IPv6]
            .into_iter()
            .filter_map(first)
            .collect(),
    }
}
