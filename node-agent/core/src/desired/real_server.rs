//! Work as real server: virtual addresses that nobody is told of, tunnel ends, the way back of NAT replies.

use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{RealServerPlan, ReturnPath, TunnelEndpoint};
use lvs_crds::value::{AddressFamily, TunnelType};

use super::director::host_prefix;
use super::tunnel::tunnel_kind;
use super::{Builder, RouterRole, SysctlDemand, tunnel_device_name};
use crate::host::{
    AddressKey, DIRECT_ROUTING_DEVICE, DefaultRoute, FouPort, LinkKind, PolicyRule, ROUTE_TABLE,
    RULE_PRIORITY, SysctlKey,
};
use crate::object::Object;

impl Builder<'_> {
    pub(super) fn real_server(&mut self, plan: &RealServerPlan) {
        for address in &plan.direct_routing_addresses {
            if self.family_available(*address) {
                self.link(DIRECT_ROUTING_DEVICE, LinkKind::Dummy);
                self.silent_address(*address, DIRECT_ROUTING_DEVICE);
            }
        }
        for endpoint in &plan.tunnels {
            self.tunnel(endpoint);
        }
        for path in &plan.return_paths {
            self.return_path(path);
        }
    }

    /// The virtual address on a device of ours, and ARP kept quiet about it. IPv6 needs no more than the device: a
    /// neighbour solicitation is answered only on the device that has the address.
    fn silent_address(&mut self, address: IpAddr, device: &str) {
        let told = self
            .host
            .addresses
            .iter()
            .find(|(key, attributes)| {
                key.address == address
                    && !crate::host::is_our_device(&key.device)
                    && self
                        .host
                        .links
                        .get(&key.device)
                        .is_some_and(|link| link.up && !link.loopback)
                    && attributes.protocol != crate::host::OWNER_PROTOCOL
                    && !self.journal.director_addresses.contains(key)
            })
            .map(|(key, _)| key.device.clone());
        if let Some(device) = told {
            self.problem(
                Reason::ForeignObject,
                format!(
                    "{address} is on {device} too, where neighbours are told of it: remove it there"
                ),
            );
        }
        let key = AddressKey {
            device: device.to_owned(),
            address,
            prefix_length: host_prefix(address),
        };
        self.claim(Object::Address(key.clone()));
        self.state.host.addresses.insert(key);
        if address.is_ipv4() {
            self.demand_quiet_arp();
        }
    }

    fn link(&mut self, name: &str, kind: LinkKind) {
        self.claim(Object::Link(name.to_owned()));
        let other = *self.state.host.links.entry(name.to_owned()).or_insert(kind);
        if other == kind {
            return;
        }
        let message = if other.is_same_tunnel(kind) {
            "GRE with and without checksum is asked of one address; a node has one or the other"
        } else {
            "two tunnels of this node would have this name"
        };
        self.problem(
            Reason::NodeSettingConflict,
            format!("device {name}: {message}"),
        );
    }

    /// The devices that unwrap, with the virtual addresses on them.
    ///
    /// The addresses are on the tunnel's device rather than on the dummy because of the source check: on a device
    /// without any IPv4 address, loose (2) is as strict as 1 (`no_addr` in `__fib_validate_source`,
    /// net/ipv4/fib_frontend.c), and every packet out of the tunnel would be dropped.
    ///
    /// The MTU needs nothing here: a tunnel's end receives only, and the director's IPVS answers what does not fit
    /// with "fragmentation needed" (`vs.pmtu_disc`), naming the size that does.
    fn tunnel(&mut self, endpoint: &TunnelEndpoint) {
        let local = endpoint.local_address;
        if endpoint.virtual_addresses.is_empty() || !self.family_available(local) {
            return;
        }
        if endpoint.tunnel.type_ == TunnelType::GUE {
            let Some(port) = endpoint.tunnel.port.filter(|port| *port != 0) else {
                self.problem(
                    Reason::Invalid,
                    format!("the GUE tunnel to {local} has no port"),
                );
                return;
            };
            let fou = FouPort {
                port,
                family: AddressFamily::of(&local),
            };
            self.claim(Object::FouPort(fou));
            self.state.host.fou_ports.insert(fou);
        }
        for address in &endpoint.virtual_addresses {
            if !self.family_available(*address) {
                continue;
            }
            let kind = tunnel_kind(&endpoint.tunnel, local, AddressFamily::of(address));
            let name = tunnel_device_name(kind);
            if address.is_ipv4() {
                // A packet out of the tunnel comes from a client to whom the way back is another device. The greater
                // of `all` and the device's value is in effect, so 2 (loose) here also softens a strict `all`.
                self.demand(
                    SysctlKey::of_device(AddressFamily::IPv4, &name, "rp_filter"),
                    SysctlDemand::InEffectAtLeast(2),
                );
            }
            self.link(&name, kind);
            self.silent_address(*address, &name);
        }
    }

    /// Replies of what serves here go to the director, whatever the node's own default route is.
    fn return_path(&mut self, path: &ReturnPath) {
        let source = path.source_address;
        if !self.family_available(source) {
            return;
        }
        if self.role == Some(RouterRole::Master) {
            // The director is this node: replies pass its own IPVS.
            return;
        }
        if path.port == 0 {
            self.problem(
                Reason::ReturnPathUnresolved,
                format!(
                    "replies of {source} to all ports or to a firewall mark cannot be told from other traffic: name the ports"
                ),
            );
            return;
        }
        let found = path.gateways.iter().find_map(|gateway| {
            let own = self
                .host
                .addresses
                .iter()
                .any(|(key, _)| key.address == *gateway);
            let same_family = gateway.is_ipv4() == source.is_ipv4();
            if own || !same_family {
                return None;
            }
            self.host
                .connected_device(*gateway)
                .map(|device| (*gateway, device.to_owned()))
        });
        let Some((gateway, device)) = found else {
            let gateways: Vec<String> = path.gateways.iter().map(ToString::to_string).collect();
            self.problem(
                Reason::ReturnPathUnresolved,
                format!(
                    "no director address [{}] is on a subnet of this node, so replies of {source} would not pass the director",
                    gateways.join(", ")
                ),
            );
            return;
        };
        let Some(table) = self.route_table(gateway, &device) else {
            return;
        };
        let route = DefaultRoute {
            table,
            gateway,
            device,
        };
        let rule = PolicyRule {
            priority: RULE_PRIORITY,
            source,
            protocol: path.protocol,
            port: path.port,
            end_port: path.end_port.max(path.port),
            table,
        };
        self.claim(Object::Route(route.clone()));
        self.claim(Object::PolicyRule(rule.clone()));
        self.state.host.routes.insert(route);
        self.state.host.policy_rules.insert(rule);
    }

    /// Table for a gateway: the one it has in the kernel, else the first that no gateway has. `None` for a withdrawn
    /// plan whose gateway has none: nothing of it is left.
    fn route_table(&self, gateway: IpAddr, device: &str) -> Option<u32> {
        let known = self.state.host.routes.iter().chain(&self.host.routes);
        if let Some(route) = known
            .clone()
            .find(|route| route.gateway == gateway && route.device == device)
        {
            return Some(route.table);
        }
        self.role?;
        let mut table = ROUTE_TABLE;
        while known.clone().any(|route| route.table == table) {
            table += 1;
        }
        Some(table)
    }
}
