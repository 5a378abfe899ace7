//! Devices, addresses, sysctls, routes, rules and marks, as far as our operations reach.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lvs_crds::value::AddressFamily;

use super::Errno;
use crate::desired::forwarding_switch;
use crate::host::{
    AddressAttributes, AddressKey, DefaultRoute, Link, LinkKind, OWNER_PROTOCOL, ObservedHost,
    ObservedPacketRules, SysctlKey,
};
use crate::op::HostOp;

/// Settings that every device has, with the family they belong to.
const DEVICE_SETTINGS: [(AddressFamily, &str); 10] = [
    (AddressFamily::IPv4, "accept_local"),
    (AddressFamily::IPv4, "arp_ignore"),
    (AddressFamily::IPv4, "arp_announce"),
    (AddressFamily::IPv4, "rp_filter"),
    (AddressFamily::IPv4, "send_redirects"),
    (AddressFamily::IPv4, "accept_redirects"),
    (AddressFamily::IPv4, "forwarding"),
    (AddressFamily::IPv6, "forwarding"),
    (AddressFamily::IPv6, "accept_ra"),
    (AddressFamily::IPv6, "addr_gen_mode"),
];

/// Everything of a network namespace but IPVS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostModel {
    /// What can be read, sysctls aside.
    state: ObservedHost,
    /// Every sysctl file there is.
    pub sysctls: BTreeMap<SysctlKey, String>,
}

impl HostModel {
    /// A namespace with IPVS' sysctls and `all` and `default` at the kernel's defaults.
    pub fn new(ipv6: bool) -> Self {
        let mut model = Self {
            state: ObservedHost {
                ipv6,
                ..ObservedHost::default()
            },
            sysctls: BTreeMap::new(),
        };
        for device in ["all", "default"] {
            model.add_settings(device);
        }
        for (name, value) in [
            ("expire_nodest_conn", "0"),
            ("expire_quiescent_template", "0"),
            ("nat_icmp_send", "0"),
            ("pmtu_disc", "1"),
            ("sync_threshold", "3 50"),
            ("sync_refresh_period", "0"),
            ("sync_retries", "0"),
            ("backup_only", "0"),
            ("sloppy_tcp", "0"),
            ("sloppy_sctp", "0"),
            ("conntrack", "0"),
        ] {
            model
                .sysctls
                .insert(SysctlKey::of_ipvs(name), value.to_owned());
        }
        model
            .sysctls
            .insert(forwarding_switch(AddressFamily::IPv4), "0".to_owned());
        model
    }

    /// A device that is not ours.
    pub fn add_foreign_link(&mut self, name: &str, loopback: bool, up: bool) {
        self.insert_link(name, None, loopback, up);
    }

    /// An address that is not ours.
    pub fn add_foreign_address(&mut self, key: AddressKey) {
        self.insert_address(key, 0);
    }

    /// A director address as the fence thread adds it.
    pub fn add_director_address(&mut self, key: AddressKey) {
        self.insert_address(key, OWNER_PROTOCOL);
    }

    /// Remove an address as anyone may.
    pub fn remove_address(&mut self, key: &AddressKey) {
        self.state.addresses.retain(|(found, _)| found != key);
    }

    /// What can be read apart from sysctls.
    pub const fn state(&self) -> &ObservedHost {
        &self.state
    }

    /// Change what can be read in any way: for damage done by others.
    pub const fn state_mut(&mut self) -> &mut ObservedHost {
        &mut self.state
    }

    /// Read everything, and of the sysctls those asked for.
    pub fn observe(&self, keys: &BTreeSet<SysctlKey>) -> ObservedHost {
        let mut observed = self.state.clone();
        observed.sysctls = keys
            .iter()
            .map(|key| (key.clone(), self.sysctls.get(key).cloned()))
            .collect();
        observed
    }

    /// Carry out one operation, or refuse it and change nothing.
    pub fn apply(&mut self, op: &HostOp) -> Result<(), Errno> {
        match op {
            HostOp::AddLink { name, kind } => {
                if self.state.links.contains_key(name) || self.tunnel_exists(*kind) {
                    return Err(Errno::EEXIST);
                }
                self.insert_link(name, Some(*kind), false, kind.is_always_up());
                Ok(())
            }
            HostOp::SetLinkUp { name } => {
                self.state.links.get_mut(name).ok_or(Errno::ENODEV)?.up = true;
                Ok(())
            }
            HostOp::DeleteLink { name } => self.delete_link(name),
            HostOp::AddAddress(key) => {
                if !self.state.links.contains_key(&key.device) {
                    return Err(Errno::ENODEV);
                }
                if self.has_address(key) {
                    return Err(Errno::EEXIST);
                }
                if key.address.is_ipv6() && !self.state.ipv6 {
                    return Err(Errno::EAFNOSUPPORT);
                }
                self.insert_address(key.clone(), OWNER_PROTOCOL);
                Ok(())
            }
            HostOp::DeleteAddress(key) => {
                if !self.state.links.contains_key(&key.device) {
                    return Err(Errno::ENODEV);
                }
                if !self.has_address(key) {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                self.remove_address(key);
                Ok(())
            }
            HostOp::SetSysctl { key, value } => self.set_sysctl(key, value),
            HostOp::AddFouPort(fou) => {
                if !self.state.fou_ports.insert(*fou) {
                    return Err(Errno::EADDRINUSE);
                }
                Ok(())
            }
            HostOp::DeleteFouPort(fou) => {
                if !self.state.fou_ports.remove(fou) {
                    return Err(Errno::EINVAL);
                }
                Ok(())
            }
            HostOp::AddRoute(route) => self.add_route(route),
            HostOp::DeleteRoute(route) => {
                if !self.state.routes.remove(route) {
                    return Err(Errno::ESRCH);
                }
                Ok(())
            }
            HostOp::AddPolicyRule(rule) => {
                if !self.state.policy_rules.insert(rule.clone()) {
                    return Err(Errno::EEXIST);
                }
                Ok(())
            }
            HostOp::DeletePolicyRule(rule) => {
                if !self.state.policy_rules.remove(rule) {
                    return Err(Errno::ENOENT);
                }
                Ok(())
            }
            HostOp::ReplacePacketRules(rules) => {
                self.state.packet_rules = Some(ObservedPacketRules {
                    rules: rules.clone(),
                    damaged: false,
                });
                Ok(())
            }
            HostOp::DeletePacketRules => self
                .state
                .packet_rules
                .take()
                .map(drop)
                .ok_or(Errno::ENOENT),
        }
    }

    fn has_address(&self, key: &AddressKey) -> bool {
        self.state.addresses.iter().any(|(found, _)| found == key)
    }

    /// Two tunnels of one kind cannot have the same ends (`ip_tunnel_newlink`, net/ipv4/ip_tunnel.c).
    fn tunnel_exists(&self, kind: LinkKind) -> bool {
        kind != LinkKind::Dummy
            && self
                .state
                .links
                .values()
                .any(|link| link.kind.is_some_and(|other| other.is_same_tunnel(kind)))
    }

    fn insert_link(&mut self, name: &str, kind: Option<LinkKind>, loopback: bool, up: bool) {
        let index = self
            .state
            .links
            .values()
            .map(|link| link.index)
            .max()
            .unwrap_or(0)
            + 1;
        self.state.links.insert(
            name.to_owned(),
            Link {
                index,
                kind,
                up,
                carrier: true,
                loopback,
                hardware_address: match kind {
                    Some(LinkKind::Macvlan {
                        hardware_address, ..
                    }) => hardware_address.to_vec(),
                    _ => Vec::new(),
                },
            },
        );
        self.add_settings(name);
    }

    /// Settings of a new device, as in `default`.
    fn add_settings(&mut self, device: &str) {
        for (family, name) in DEVICE_SETTINGS {
            if family == AddressFamily::IPv6 && !self.state.ipv6 {
                continue;
            }
            let from_default = self
                .sysctls
                .get(&SysctlKey::of_device(family, "default", name))
                .cloned();
            let value = from_default.unwrap_or_else(|| {
                match name {
                    "send_redirects" | "accept_redirects" | "accept_ra" => "1",
                    _ => "0",
                }
                .to_owned()
            });
            self.sysctls
                .insert(SysctlKey::of_device(family, device, name), value);
        }
    }

    fn delete_link(&mut self, name: &str) -> Result<(), Errno> {
        self.state.links.remove(name).ok_or(Errno::ENODEV)?;
        self.state.addresses.retain(|(key, _)| key.device != name);
        self.state.routes.retain(|route| route.device != name);
        self.sysctls.retain(|key, _| key.device() != Some(name));
        Ok(())
    }

    fn insert_address(&mut self, key: AddressKey, protocol: u8) {
        let attributes = AddressAttributes {
            valid_seconds: None,
            protocol,
            global: true,
        };
        self.state.addresses.push((key, attributes));
    }

    fn set_sysctl(&mut self, key: &SysctlKey, value: &str) -> Result<(), Errno> {
        let Some(found) = self.sysctls.get_mut(key) else {
            return Err(Errno::ENOENT);
        };
        let numbers = value.split(' ').map(str::parse::<i32>);
        let expected = if key.name() == "sync_threshold" { 2 } else { 1 };
        if numbers.clone().count() != expected || numbers.into_iter().any(|number| number.is_err())
        {
            return Err(Errno::EINVAL);
        }
        let changed = found != value;
        value.clone_into(found);
        if !changed {
            return Ok(());
        }
        // inet_forward_change and addrconf_forward_change: one switch moves every device's.
        for family in [AddressFamily::IPv4, AddressFamily::IPv6] {
            if *key != forwarding_switch(family) {
                continue;
            }
            let prefix = match family {
                AddressFamily::IPv4 => "net/ipv4/conf/",
                AddressFamily::IPv6 => "net/ipv6/conf/",
            };
            for (other, state) in &mut self.sysctls {
                if other.0.starts_with(prefix) && other.name() == "forwarding" {
                    value.clone_into(state);
                }
            }
            if family == AddressFamily::IPv4 {
                let redirects =
                    SysctlKey::of_device(AddressFamily::IPv4, "all", "accept_redirects");
                let opposite = if value == "0" { "1" } else { "0" };
                self.sysctls.insert(redirects, opposite.to_owned());
            }
        }
        Ok(())
    }

    fn add_route(&mut self, route: &DefaultRoute) -> Result<(), Errno> {
        if !self.state.links.contains_key(&route.device) {
            return Err(Errno::ENODEV);
        }
        let family = AddressFamily::of(&route.gateway);
        if self
            .state
            .routes
            .iter()
            .any(|other| other.table == route.table && AddressFamily::of(&other.gateway) == family)
        {
            return Err(Errno::EEXIST);
        }
        let on_link = self.state.addresses.iter().any(|(key, _)| {
            key.device == route.device
                && IpNet::new(key.address, key.prefix_length)
                    .is_ok_and(|net| net.contains(&route.gateway))
        });
        if !on_link {
            return Err(Errno::ENETUNREACH);
        }
        self.state.routes.insert(route.clone());
        Ok(())
    }
}
