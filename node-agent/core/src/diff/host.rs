//! Devices, addresses on them, routes, rules and marks.

use std::collections::BTreeSet;

use super::Walk;
use super::sysctl::SysctlOps;
use crate::host::{AddressKey, Link, PacketRules, is_our_device};
use crate::object::Object;
use crate::op::{HostOp, Op};

/// Operations on the host.
#[derive(Default)]
pub(super) struct HostOps {
    /// Devices and GUE ports to make.
    pub links: Vec<Op>,
    /// Addresses, routes and rules to add.
    pub add: Vec<Op>,
    /// Our nftables table with what new destinations need, if it is not there yet.
    pub source_nat: Vec<Op>,
    /// Our nftables table as it is to be.
    pub marks: Vec<Op>,
    /// Rules, routes and addresses to remove.
    pub remove: Vec<Op>,
    /// Devices and GUE ports to remove.
    pub remove_links: Vec<Op>,
}

impl Walk<'_> {
    pub(super) fn host(&mut self, sysctls: &SysctlOps) -> HostOps {
        let mut ops = HostOps::default();
        self.fou_ports(&mut ops);
        let foreign = self.links(&mut ops);
        self.routes_added(&mut ops);
        self.packet_rules(&mut ops);
        self.routes_removed(&mut ops);
        self.addresses(&foreign, sysctls.unmet_arp, &mut ops);
        ops
    }

    fn fou_ports(&mut self, ops: &mut HostOps) {
        let found = &self.observed.host.fou_ports;
        for fou in &self.desired.host.fou_ports {
            if !found.contains(fou) {
                ops.links.push(Op::Host(HostOp::AddFouPort(*fou)));
            } else if !self.journal.fou_ports.contains(fou) {
                self.foreign(&Object::FouPort(*fou), "close it or choose another port");
            }
        }
        for fou in &self.journal.fou_ports {
            if found.contains(fou) && !self.desired.host.fou_ports.contains(fou) {
                ops.remove_links.push(Op::Host(HostOp::DeleteFouPort(*fou)));
            }
        }
    }

    /// Returns the wanted names that foreign devices have.
    fn links(&mut self, ops: &mut HostOps) -> BTreeSet<String> {
        let mut foreign = BTreeSet::new();
        for (name, kind) in &self.desired.host.links {
            let add = Op::Host(HostOp::AddLink {
                name: name.clone(),
                kind: *kind,
            });
            match self.observed.host.links.get(name) {
                None => ops.links.push(add),
                Some(link) if self.is_ours(name, link) => {
                    if link.kind != Some(*kind) {
                        // The kernel has room for one such tunnel only, so it goes before the other comes.
                        ops.links
                            .push(Op::Host(HostOp::DeleteLink { name: name.clone() }));
                        ops.links.push(add);
                    } else if !link.up && kind.is_always_up() {
                        ops.links
                            .push(Op::Host(HostOp::SetLinkUp { name: name.clone() }));
                    }
                }
                Some(_) => {
                    foreign.insert(name.clone());
                    self.foreign(
                        &Object::Link(name.clone()),
                        "remove it, names that begin with lvs- belong to this agent",
                    );
                }
            }
        }
        for name in self.journal.links.keys() {
            let present = self
                .observed
                .host
                .links
                .get(name)
                .is_some_and(|link| self.is_ours(name, link));
            if present && !self.desired.host.links.contains_key(name) {
                ops.remove_links
                    .push(Op::Host(HostOp::DeleteLink { name: name.clone() }));
            }
        }
        foreign
    }

    /// By the journal, and still what we made: someone may have put another device in its place.
    /// Whether a device of ours makes room for another of its name: its addresses go with it.
    fn is_replaced(&self, name: &str) -> bool {
        let wanted = self.desired.host.links.get(name);
        let found = self.observed.host.links.get(name);
        wanted
            .zip(found)
            .is_some_and(|(kind, link)| link.kind != Some(*kind) && self.is_ours(name, link))
    }

    pub(super) fn is_ours(&self, name: &str, link: &Link) -> bool {
        match (self.journal.links.get(name), link.kind) {
            (Some(made), Some(found)) => made.is_same_tunnel(found),
            _ => false,
        }
    }

    fn addresses(&self, foreign: &BTreeSet<String>, unmet_arp: bool, ops: &mut HostOps) {
        let present: BTreeSet<&AddressKey> = self
            .observed
            .host
            .addresses
            .iter()
            .map(|(key, _)| key)
            .filter(|key| is_our_device(&key.device) && !self.is_replaced(&key.device))
            .collect();
        let added = self
            .desired
            .host
            .addresses
            .iter()
            .filter(|key| !present.contains(key) && !foreign.contains(&key.device))
            // Neighbours would be told of it; the unmet demand is the problem that is reported.
            .filter(|key| !(unmet_arp && key.address.is_ipv4()))
            .map(|key| Op::Host(HostOp::AddAddress(key.clone())));
        ops.add.splice(0..0, added);
        let removed = self
            .journal
            .addresses
            .iter()
            .filter(|key| present.contains(key) && !self.desired.host.addresses.contains(*key))
            .map(|key| Op::Host(HostOp::DeleteAddress(key.clone())));
        ops.remove.extend(removed);
    }

    fn routes_added(&self, ops: &mut HostOps) {
        let (wanted, found) = (&self.desired.host, &self.observed.host);
        let routes = wanted.routes.difference(&found.routes);
        ops.add
            .extend(routes.map(|route| Op::Host(HostOp::AddRoute(route.clone()))));
        let rules = wanted.policy_rules.difference(&found.policy_rules);
        ops.add
            .extend(rules.map(|rule| Op::Host(HostOp::AddPolicyRule(rule.clone()))));
    }

    /// Rules and routes carry our protocol number: what is not wanted is ours to remove.
    fn routes_removed(&self, ops: &mut HostOps) {
        let (wanted, found) = (&self.desired.host, &self.observed.host);
        let rules = found.policy_rules.difference(&wanted.policy_rules);
        ops.remove
            .extend(rules.map(|rule| Op::Host(HostOp::DeletePolicyRule(rule.clone()))));
        let routes = found.routes.difference(&wanted.routes);
        ops.remove
            .extend(routes.map(|route| Op::Host(HostOp::DeleteRoute(route.clone()))));
    }

    /// The table is ours by its name. No destination comes before the source addresses that its connections need; marks
    /// come after their services.
    fn packet_rules(&self, ops: &mut HostOps) {
        let wanted = &self.desired.host.packet_rules;
        let observed = self.observed.host.packet_rules.as_ref();
        let found = observed.map(|observed| &observed.rules);
        let is_damaged = observed.is_some_and(|observed| observed.damaged);
        let mut is_wanted = !is_damaged && found.is_some_and(|found| found == wanted);
        if !is_wanted && !wanted.source_nat.is_empty() {
            let mut early = PacketRules {
                source_nat: wanted.source_nat.clone(),
                marks: Vec::new(),
            };
            if let Some(found) = found {
                early.add_missing(found);
            }
            if is_damaged || found != Some(&early) {
                is_wanted = early == *wanted;
                ops.source_nat
                    .push(Op::Host(HostOp::ReplacePacketRules(early)));
            }
        }
        match found {
            None if wanted.is_empty() => {}
            Some(_) if wanted.is_empty() => ops.marks.push(Op::Host(HostOp::DeletePacketRules)),
            _ if is_wanted => {}
            _ => ops
                .marks
                .push(Op::Host(HostOp::ReplacePacketRules(wanted.clone()))),
        }
    }
}
