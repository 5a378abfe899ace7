//! The virtual MAC of VRRP (RFC 9568 §7.3): a macvlan device of ours beside the device of the address, that has it.

use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::value::AddressFamily;

use super::director::host_prefix;
use super::tunnel::short_hash;
use super::{Builder, DesiredState, Problem, SysctlDemand};
use crate::host::{
    AddressKey, LinkKind, ObservedHost, SysctlKey, VIRTUAL_MAC_DEVICE_PREFIX, is_virtual_mac_device,
};
use crate::journal::Journal;
use crate::object::Object;

/// 00-00-5E-00-01-{VRID} for IPv4, 00-00-5E-00-02-{VRID} for IPv6.
pub const fn virtual_mac(virtual_router_id: u8, family: AddressFamily) -> [u8; 6] {
    let family = match family {
        AddressFamily::IPv4 => 1,
        AddressFamily::IPv6 => 2,
    };
    [0, 0, 0x5e, 0, family, virtual_router_id]
}

/// Name of the device with a virtual MAC beside `parent`: `lvs-v<VRID>-<4|6>` and five characters from the parent's name,
/// 15 at most (`IFNAMSIZ`). The same on every start, so that a restarted agent finds its device.
pub fn virtual_mac_device_name(
    virtual_router_id: u8,
    family: AddressFamily,
    parent: &str,
) -> String {
    let family = match family {
        AddressFamily::IPv4 => '4',
        AddressFamily::IPv6 => '6',
    };
    let hash = short_hash(parent.as_bytes());
    format!("{VIRTUAL_MAC_DEVICE_PREFIX}{virtual_router_id}-{family}{hash:05x}")
}

impl Builder<'_> {
    /// The device that carries an address whose link is `parent`: the parent, or a device with a virtual MAC beside it.
    pub(super) fn carrying_device(&mut self, parent: &str, address: IpAddr) -> String {
        let router = self.plan.spec.virtual_router_name.as_str();
        let virtual_router_id = self
            .leaderships
            .get(router)
            .and_then(|(_, leadership)| leadership.virtual_router_id);
        let (Some(virtual_router_id), Some(link)) =
            (virtual_router_id, self.host.links.get(parent))
        else {
            return parent.to_owned();
        };
        if link.hardware_address.len() != 6 {
            self.problem(
                Reason::Invalid,
                format!(
                    "device {parent} of {address} is no Ethernet device and has no room for a virtual MAC: disable virtualMAC of the VirtualRouter"
                ),
            );
            return parent.to_owned();
        }
        let family = AddressFamily::of(&address);
        let name = virtual_mac_device_name(virtual_router_id, family, parent);
        let kind = LinkKind::Macvlan {
            parent: link.index,
            hardware_address: virtual_mac(virtual_router_id, family),
        };
        self.claim(Object::Link(name.clone()));
        self.state.host.links.insert(name.clone(), kind);
        self.virtual_mac_sysctls(parent, &name);
        let is_there = self
            .host
            .links
            .get(&name)
            .is_some_and(|link| link.kind == Some(kind));
        let on_parent = AddressKey {
            device: parent.to_owned(),
            address,
            prefix_length: host_prefix(address),
        };
        if !is_there && is_carried(self.host, self.journal, &on_parent) {
            // It stays where it is until there is somewhere to go.
            return parent.to_owned();
        }
        name
    }

    /// So that each MAC answers for its own addresses and for no others. The kernel would answer on any device for any
    /// address of the node (arp_ignore 0), ask with a virtual address as sender and the device's own MAC (arp_announce
    /// 0), drop what comes in at the virtual MAC as its way back is the parent (rp_filter 1), and make addresses and
    /// routes of its own from router advertisements.
    fn virtual_mac_sysctls(&mut self, parent: &str, name: &str) {
        for device in [parent, name] {
            for (setting, value) in [("arp_ignore", 1), ("arp_announce", 2)] {
                self.demand(
                    SysctlKey::of_device(AddressFamily::IPv4, device, setting),
                    SysctlDemand::InEffectAtLeast(value),
                );
            }
        }
        self.demand(
            SysctlKey::of_device(AddressFamily::IPv4, name, "rp_filter"),
            SysctlDemand::InEffectAtLeast(2),
        );
        if self.host.ipv6 {
            // addr_gen_mode 1: no link-local address, which two directors would have in common.
            for (setting, value) in [("accept_ra", 0), ("addr_gen_mode", 1)] {
                self.demand(
                    SysctlKey::of_device(AddressFamily::IPv6, name, setting),
                    SysctlDemand::Exactly(value),
                );
            }
        }
    }
}

/// Whether the address is on the device because the fence put it there.
fn is_carried(host: &ObservedHost, journal: &Journal, key: &AddressKey) -> bool {
    journal.director_addresses.contains(key) && host.addresses.iter().any(|(found, _)| found == key)
}

/// A device with a virtual MAC that is not wanted any more stays for as long as it carries an address of a director: the
/// fence takes that away, or puts it elsewhere, first.
pub(super) fn keep_carrying_devices(
    state: &mut DesiredState,
    host: &ObservedHost,
    journal: &Journal,
) {
    let carried = |name: &str| {
        host.addresses
            .iter()
            .any(|(key, _)| key.device == name && journal.director_addresses.contains(key))
    };
    for (name, kind) in &journal.links {
        let is_there = host
            .links
            .get(name)
            .is_some_and(|link| link.kind == Some(*kind));
        if !is_virtual_mac_device(name)
            || !is_there
            || !carried(name)
            || state.host.links.contains_key(name)
        {
            continue;
        }
        state.host.links.insert(name.clone(), *kind);
        // Whoever is withdrawn is so only when it is gone.
        let waiting: Vec<Problem> = state
            .claimants(&Object::Link(name.clone()))
            .map(|plan| Problem {
                plan: plan.to_owned(),
                reason: Reason::Pending,
                message: format!("device {name} still carries an address"),
            })
            .collect();
        state.problems.extend(waiting);
        state.problems.sort();
    }
}

impl DesiredState {
    /// The device whose link counts for an address on `device`: that below a virtual MAC, else itself.
    pub fn underlying_device<'a>(&self, host: &'a ObservedHost, device: &'a str) -> &'a str {
        match self.host.links.get(device) {
            Some(LinkKind::Macvlan { parent, .. }) => host
                .links
                .iter()
                .find(|(_, link)| link.index == *parent)
                .map_or(device, |(name, _)| name.as_str()),
            _ => device,
        }
    }
}
