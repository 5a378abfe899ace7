//! The script that makes a host outside the cluster a real server, and undoes it: what an agent does on a node,
//! by hand.

use std::net::IpAddr;

use lvs_crds::real_server::TargetType;
use lvs_crds::value::{
    AddressFamily, Forwarding, ForwardingType, Tunnel, TunnelChecksum, TunnelType,
};
use lvs_crds::{RealServer, VirtualService};

/// The part that is the same for every host.
const FUNCTIONS: &str = include_str!("real_server_script.sh");

/// What a script is for.
pub struct Request<'a> {
    /// The service.
    pub service: &'a VirtualService,
    /// The host; needed for TUN and NAT, and where it overrides the forwarding.
    pub real_server: Option<&'a RealServer>,
    /// Virtual addresses where the service does not name them.
    pub addresses: &'a [IpAddr],
    /// Addresses that move with the router, by which replies of NAT go back.
    pub gateways: &'a [IpAddr],
}

impl Request<'_> {
    /// The script; or what is missing, and how to give it.
    pub fn script(&self) -> Result<String, String> {
        let name = self.service.metadata.name.as_deref().unwrap_or("service");
        let namespace = self
            .service
            .metadata
            .namespace
            .as_deref()
            .unwrap_or("default");
        for word in [name, namespace] {
            if !word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
            {
                return Err(format!("{word:?} is no name of an object"));
            }
        }
        let functions = FUNCTIONS
            .split_once("\n\n")
            .map_or(FUNCTIONS, |(_, functions)| functions);
        let addresses = self.virtual_addresses(name)?;
        let own = self
            .real_server
            .and_then(|server| server.spec.forwarding.as_ref());
        let forwarding = own.unwrap_or(&self.service.spec.forwarding);
        let (what, commands) = match forwarding.type_ {
            ForwardingType::DR => ("direct routing", direct_routing(&addresses)),
            ForwardingType::TUN => ("tunnel", self.tunnel(forwarding, &addresses)?),
            ForwardingType::NAT => ("NAT", self.nat(&addresses)?),
            ForwardingType::FullNAT => {
                return Err(
                    "with FullNAT a real server needs no preparation: its replies go to the director's source address"
                        .to_owned(),
                );
            }
        };
        let host = self
            .real_server
            .and_then(|server| server.metadata.name.as_deref())
            .unwrap_or("any host");
        let body: String = commands
            .iter()
            .flat_map(|command| ["    ", command.as_str(), "\n"])
            .collect();
        Ok(format!(
            "#!/bin/sh
# VirtualService {namespace}/{name}, {what}: makes a real server of {host}, and undoes it.
# Written by: kubectl lvs realserver-script. As root: sh FILE start|stop|status; start again changes nothing.
# It does not outlive a boot: run it from a unit of the host.
set -eu
name={namespace}.{name}

{functions}
prepare() {{
{body}}}

main \"$@\"
"
        ))
    }

    fn virtual_addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.to_vec());
        }
        let status = self.service.status.as_ref();
        let assigned = status.into_iter().flat_map(|status| {
            status
                .addresses
                .iter()
                .map(|assigned| assigned.address.as_str())
        });
        let named = self.service.spec.addresses.iter().map(String::as_str);
        let texts: Vec<&str> = if self.service.spec.addresses.is_empty() {
            assigned.collect()
        } else {
            named.collect()
        };
        if texts.is_empty() {
            return Err(format!(
                "VirtualService {name} names no address: give it by --address, or take the object from the cluster: kubectl get virtualservices.lvs.dev {name} -o yaml | kubectl lvs realserver-script -f -"
            ));
        }
        texts
            .into_iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| format!("VirtualService {name}: {text:?} is no address"))
            })
            .collect()
    }

    /// Addresses of the host.
    fn own_addresses(&self, why: &str) -> Result<Vec<IpAddr>, String> {
        let Some(server) = self.real_server else {
            return Err(format!(
                "{why}: name the host by --real-server, and give its RealServer in a file"
            ));
        };
        let name = server.metadata.name.as_deref().unwrap_or_default();
        if server.spec.target.type_ != TargetType::Addresses {
            return Err(format!(
                "RealServer {name} is no host outside the cluster: a node is prepared by its agent; endpoints of a Service each need a RealServer of their own for this"
            ));
        }
        server
            .spec
            .target
            .addresses
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| format!("RealServer {name}: {text:?} is no address"))
            })
            .collect()
    }

    fn tunnel(&self, forwarding: &Forwarding, addresses: &[IpAddr]) -> Result<Vec<String>, String> {
        let tunnel = forwarding.tunnel.clone().unwrap_or_default();
        let own = self.own_addresses("a tunnel ends at an address of the host")?;
        let mut commands = Vec::new();
        if addresses.iter().any(IpAddr::is_ipv4) {
            commands.push("quiet_arp".to_owned());
        }
        for address in addresses {
            let family = AddressFamily::of(address);
            // That of the same family; else the packet is wrapped in the other.
            let local = own
                .iter()
                .find(|local| AddressFamily::of(local) == family)
                .or_else(|| own.first());
            let Some(local) = local else { continue };
            if tunnel.type_ == TunnelType::GUE {
                let port = tunnel
                    .port
                    .ok_or("the GUE tunnel has no port: set forwarding.tunnel.port")?;
                let six = if local.is_ipv6() { " -6" } else { "" };
                push(&mut commands, format!("foo_over_udp {port}{six}"));
            }
            let (device, kind) = device(&tunnel, *local, family);
            push(&mut commands, format!("device {device} type {kind}"));
            push(&mut commands, silent(address, device));
        }
        Ok(commands)
    }

    fn nat(&self, addresses: &[IpAddr]) -> Result<Vec<String>, String> {
        let own = self.own_addresses("replies are known by the address of the host")?;
        let server = self.real_server;
        let mut commands = Vec::new();
        for local in own.iter().filter(|local| {
            addresses
                .iter()
                .any(|address| address.is_ipv4() == local.is_ipv4())
        }) {
            let gateway = self.gateways.iter().find(|gateway| gateway.is_ipv4() == local.is_ipv4()).ok_or_else(|| {
                format!("replies of {local} must go back through the director: give by --gateway an address on the host's subnet that moves with the router (additionalAddresses of the VirtualRouter)")
            })?;
            for port in &self.service.spec.ports {
                let named = server.and_then(|server| {
                    let by_name = server
                        .spec
                        .ports
                        .iter()
                        .find(|known| Some(&known.name) == port.name.as_ref());
                    by_name.map(|known| known.port).or(server.spec.port)
                });
                let first = named.or(port.real_server_port).unwrap_or(port.port);
                if first == 0 {
                    return Err("replies of all ports cannot be told from other traffic of the host: name the ports in the VirtualService".to_owned());
                }
                let last = port.end_port.map_or(first, |end| {
                    first.saturating_add(end.saturating_sub(port.port))
                });
                let ports = if last == first {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                };
                let protocol = port.protocol.to_string().to_ascii_lowercase();
                commands.push(format!("way_back {local} {protocol} {ports} {gateway}"));
            }
        }
        Ok(commands)
    }
}

fn direct_routing(addresses: &[IpAddr]) -> Vec<String> {
    let mut commands = Vec::new();
    // Neighbours must not be told of the address in between.
    if addresses.iter().any(IpAddr::is_ipv4) {
        commands.push("quiet_arp".to_owned());
    }
    commands.extend(addresses.iter().map(|address| silent(address, "lo")));
    commands
}

fn push(commands: &mut Vec<String>, command: String) {
    if !commands.contains(&command) {
        commands.push(command);
    }
}

/// The virtual address on a device.
fn silent(address: &IpAddr, device: &str) -> String {
    match address {
        IpAddr::V4(_) => format!("address {address}/32 {device}"),
        IpAddr::V6(_) => format!("address {address}/128 {device}"),
    }
}

/// Name and kind of the device that unwraps packets of `inner` family sent to `local`, as an agent makes it. GUE is
/// unwrapped by a foo-over-udp port, which hands the inner packet to the devices of IPIP.
fn device(tunnel: &Tunnel, local: IpAddr, inner: AddressFamily) -> (&'static str, String) {
    let checksum = if tunnel.checksum == TunnelChecksum::None {
        ""
    } else {
        " icsum"
    };
    match (tunnel.type_, local, inner) {
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V4(_), AddressFamily::IPv4) => {
            ("rs-ipip", format!("ipip local {local} remote any"))
        }
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V4(_), AddressFamily::IPv6) => {
            ("rs-sit", format!("sit local {local} remote any"))
        }
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V6(_), _) => (
            "rs-ip6tnl",
            format!("ip6tnl mode any local {local} remote any"),
        ),
        (TunnelType::GRE, IpAddr::V4(_), _) => {
            ("rs-gre", format!("gre local {local} remote any{checksum}"))
        }
        (TunnelType::GRE, IpAddr::V6(_), _) => (
            "rs-ip6gre",
            format!("ip6gre local {local} remote any{checksum}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: &serde_json::Value) -> VirtualService {
        let mut object = json!({"apiVersion": "lvs.dev/v1alpha1", "kind": "VirtualService", "metadata": {"name": "web", "namespace": "shop"}, "spec": {
            "addresses": ["192.0.2.100"], "ports": [{"port": 80}], "forwarding": {"type": "DR"}, "realServerSelector": {}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn host(target: &serde_json::Value) -> RealServer {
        serde_json::from_value(json!({"apiVersion": "lvs.dev/v1alpha1", "kind": "RealServer", "metadata": {"name": "web-1"}, "spec": {"target": target}})).unwrap()
    }

    fn script(
        service: &VirtualService,
        real_server: Option<&RealServer>,
    ) -> Result<String, String> {
        Request {
            service,
            real_server,
            addresses: &[],
            gateways: &[],
        }
        .script()
    }

    #[test]
    fn what_is_missing_is_named_with_the_cure() {
        let addresses = host(&json!({"type": "Addresses", "addresses": ["198.51.100.7"]}));
        let node = host(&json!({"type": "Node", "node": {"name": "web-1"}}));
        for (spec, real_server, words) in [
            (json!({"addresses": []}), None, "--address"),
            (
                json!({"forwarding": {"type": "TUN"}}),
                None,
                "--real-server",
            ),
            (
                json!({"forwarding": {"type": "TUN"}}),
                Some(&node),
                "prepared by its agent",
            ),
            (
                json!({"forwarding": {"type": "NAT"}}),
                Some(&addresses),
                "--gateway",
            ),
            (json!({"addresses": ["x; reboot"]}), None, "is no address"),
        ] {
            let refusal = script(&service(&spec), real_server).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
        let mut named = service(&json!({}));
        named.metadata.name = Some("$(reboot)".to_owned());
        assert!(
            script(&named, None)
                .unwrap_err()
                .contains("no name of an object")
        );
    }

    #[test]
    fn addresses_of_the_status_serve_where_the_spec_names_none() {
        let mut allocated = service(&json!({"addresses": []}));
        allocated.status = serde_json::from_value(
            json!({"addresses": [{"address": "192.0.2.7", "addressPoolName": "public"}]}),
        )
        .unwrap();
        assert!(
            script(&allocated, None)
                .unwrap()
                .contains("    address 192.0.2.7/32 lo\n")
        );
    }

    #[test]
    fn nat_sends_back_what_the_ports_of_the_host_send() {
        let server = host(&json!({"type": "Addresses", "addresses": ["198.51.100.7"]}));
        let service = service(&json!({"forwarding": {"type": "NAT"}, "ports": [
            {"name": "web", "port": 80, "endPort": 89, "realServerPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]}));
        let gateways = ["2001:db8::1", "198.51.100.1"].map(|text| text.parse().unwrap());
        let script = Request {
            service: &service,
            real_server: Some(&server),
            addresses: &[],
            gateways: &gateways,
        }
        .script()
        .unwrap();
        assert!(script.contains("    way_back 198.51.100.7 tcp 8080-8089 198.51.100.1\n    way_back 198.51.100.7 udp 53 198.51.100.1\n}"), "{script}");
    }
}
