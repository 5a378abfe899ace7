//! Virtual services and real servers as all three tools have them, and the objects made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::quantity::{address_label, label, networks};
use super::report::{Fate, Ledger, LineIndex};

/// One IPVS service with its real servers.
#[derive(Clone, Debug)]
pub struct Service {
    /// The line that begins it.
    pub line: LineIndex,
    /// Name of the object.
    pub name: String,
    /// Its spec, real servers aside.
    pub spec: Map<String, Value>,
    /// `spec.forwarding`.
    pub forwarding: Value,
    /// The one port; 0 for all ports and for marks.
    pub port: u16,
    /// Who serves.
    pub servers: Vec<Server>,
    /// Addresses that must lie in realServerCIDRs beside those of the real servers.
    pub other_targets: Vec<IpAddr>,
}

/// Who serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// By address.
    Address(IpAddr),
    /// By a whole name in the DNS, in lower case.
    Name(String),
}

impl Host {
    /// The address, where that is what is known.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }

    /// `spec.target`.
    fn target(&self) -> Value {
        match self {
            Self::Address(address) => {
                json!({"type": "Addresses", "addresses": [address.to_string()]})
            }
            Self::Name(name) => json!({"type": "DNSName", "dnsName": {"name": name}}),
        }
    }

    /// A part of an object's name.
    fn label(&self) -> String {
        match self {
            Self::Address(address) => address_label(address),
            Self::Name(name) => label(name, 63, "host"),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// One real server of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The line that begins it.
    pub line: LineIndex,
    /// Who it is.
    pub host: Host,
    /// Its port; 0 = that of the service.
    pub port: u16,
    /// Share of new connections.
    pub weight: u16,
    /// How packets reach it.
    pub forwarding: Value,
    /// Upper and lower limit of connections; 0 = none.
    pub thresholds: (u32, u32),
    /// Whether it is to serve.
    pub disabled: bool,
    /// `spec.healthChecks` of the RealServer.
    pub checks: Vec<Value>,
}

impl Service {
    /// `spec.addresses`.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.spec.get("addresses").and_then(Value::as_array);
        addresses
            .into_iter()
            .flatten()
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect()
    }

    /// Hosts that packets are sent to.
    pub fn targets(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.servers
            .iter()
            .filter_map(|server| server.host.address())
            .chain(self.other_targets.iter().copied())
    }

    fn spec_of(&self, server: &Server) -> Value {
        let mut spec = json!({"target": server.host.target()});
        if server.weight != 1 {
            spec["weight"] = json!(server.weight);
        }
        if is_nat(&server.forwarding)
            && server.port != 0
            && server.port != self.port
            && self.port != 0
        {
            spec["port"] = json!(server.port);
        }
        if server.forwarding != self.forwarding {
            spec["forwarding"] = server.forwarding.clone();
        }
        if server.thresholds != (0, 0) {
            let (upper, lower) = server.thresholds;
            spec["connectionThresholds"] = if lower == 0 {
                json!({"upper": upper})
            } else {
                json!({"upper": upper, "lower": lower})
            };
        }
        if server.disabled {
            spec["administrativeState"] = json!("Disabled");
        }
        if !server.checks.is_empty() {
            spec["healthChecks"] = json!(server.checks);
        }
        spec
    }
}

/// Whether a forwarding is NAT, by which alone ports can be mapped.
pub fn is_nat(forwarding: &Value) -> bool {
    forwarding["type"] == "NAT"
}

/// Real servers that one service may have here, well above what a RealServer's labels and a plan hold.
const LABEL_PREFIX: &str = "import.lvs.dev";

/// The objects of the services: VirtualServices, then RealServers; each host is one RealServer, unless it is not the
/// same for every service.
pub fn objects(
    services: &[Service],
    namespace: &str,
    ledger: &mut Ledger,
) -> (Vec<Value>, Vec<Value>) {
    let mut virtual_services = Vec::new();
    // Name, spec and services of each RealServer.
    let mut real_servers: Vec<(String, Value, BTreeSet<&str>)> = Vec::new();
    let mut hosts: BTreeMap<&Host, Vec<(&Service, &Server)>> = BTreeMap::new();
    for service in services {
        let mut spec = service.spec.clone();
        let key = format!("{LABEL_PREFIX}/{}", service.name);
        spec.insert(
            "realServerSelector".to_owned(),
            json!({"matchLabels": {key: "true"}}),
        );
        virtual_services.push(json!({
            "apiVersion": "lvs.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {"name": service.name, "namespace": namespace},
            "spec": spec,
        }));
        for server in &service.servers {
            hosts
                .entry(&server.host)
                .or_default()
                .push((service, server));
        }
    }
    let mut names = BTreeSet::new();
    for (host, uses) in &hosts {
        let mut specs: Vec<Value> = uses
            .iter()
            .map(|(service, server)| service.spec_of(server))
            .collect();
        specs.dedup();
        let services_of_host: BTreeSet<&str> = uses
            .iter()
            .map(|(service, _)| service.name.as_str())
            .collect();
        let label = host.label();
        if specs.len() == 1 && services_of_host.len() == uses.len() {
            let name = unique(&format!("rs-{label}"), &mut names);
            for (_, server) in uses {
                ledger.note(
                    server.line,
                    Fate::Translated,
                    format!("RealServer {name}"),
                    "",
                );
            }
            real_servers.push((name, specs.swap_remove(0), services_of_host));
            continue;
        }
        let mut taken: BTreeSet<(&str, u16)> = BTreeSet::new();
        for (service, server) in uses {
            let spec = service.spec_of(server);
            let port = if spec.get("port").is_some() {
                server.port
            } else {
                service.port
            };
            if !taken.insert((&service.name, port)) {
                ledger.note(
                    server.line,
                    Fate::NotOffered,
                    "",
                    format!("{host} serves {} with this port already", service.name),
                );
                continue;
            }
            let first = !taken
                .iter()
                .any(|(name, other)| *name == service.name && *other != port);
            let mut name = format!(
                "rs-{label}-{}",
                service.name.strip_prefix("vs-").unwrap_or(&service.name)
            );
            if !first {
                name = format!("{name}-{port}");
            }
            let name = unique(&name, &mut names);
            ledger.note(
                server.line,
                Fate::Translated,
                format!("RealServer {name}"),
                "",
            );
            real_servers.push((name, spec, BTreeSet::from([service.name.as_str()])));
        }
    }
    let real_servers = real_servers
        .into_iter()
        .map(|(name, spec, services)| {
            let labels: Map<String, Value> = services
                .into_iter()
                .map(|service| (format!("{LABEL_PREFIX}/{service}"), json!("true")))
                .collect();
            json!({
                "apiVersion": "lvs.dev/v1alpha1",
                "kind": "RealServer",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": spec,
            })
        })
        .collect();
    (virtual_services, real_servers)
}

/// Says what the default router must have for services that name none.
pub fn require_default_router(services: &[Service], namespace: &str, ledger: &mut Ledger) {
    let mut addresses = BTreeSet::new();
    let mut targets = BTreeSet::new();
    let mut names = BTreeSet::new();
    for service in services
        .iter()
        .filter(|service| !service.spec.contains_key("virtualRouterName"))
    {
        addresses.extend(service.addresses());
        targets.extend(service.targets());
        names.extend(
            service
                .servers
                .iter()
                .filter_map(|server| match &server.host {
                    Host::Name(name) => Some(name.as_str()),
                    Host::Address(_) => None,
                }),
        );
    }
    if !addresses.is_empty() {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        ledger.require(format!(
            "the default VirtualRouter has an addressPool with {}, granted to namespace {namespace}", addresses.join(", ")
        ));
    }
    if !targets.is_empty() {
        let targets: Vec<IpAddr> = targets.into_iter().collect();
        ledger.require(format!(
            "the default VirtualRouter has a grant for namespace {namespace} with realServerCIDRs {}",
            networks(&targets, 16).join(", ")
        ));
    }
    if !names.is_empty() {
        let names: Vec<&str> = names.into_iter().collect();
        ledger.require(format!(
            "the default VirtualRouter has a grant for namespace {namespace} with realServerCIDRs that have the addresses of {}",
            names.join(", ")
        ));
    }
}

/// Makes names of services unique: the second `web` is `web-2`.
pub fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 1;
    while !taken.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{name}-{number}");
    }
    candidate
}

/// Name of a service by its address, port and protocol.
pub fn service_name(address: &IpAddr, port: u16, protocol: &str) -> String {
    let port = if port == 0 {
        "all".to_owned()
    } else {
        port.to_string()
    };
    format!(
        "vs-{}-{port}-{}",
        address_label(address),
        protocol.to_ascii_lowercase()
    )
}

/// A forwarding without parameters.
pub fn forwarding(type_: &str) -> Value {
    json!({"type": type_})
}

/// A tunnel: ipip, gue or gre, its port, its checksum.
pub fn tunnel(type_: &str, port: Option<u16>, checksum: Option<&str>) -> Option<Value> {
    let type_ = match type_ {
        "" | "ipip" => "IPIP",
        "gue" => "GUE",
        "gre" => "GRE",
        _ => return None,
    };
    if (type_ == "GUE") != port.is_some_and(|port| port != 0) {
        return None;
    }
    let checksum = match checksum {
        None | Some("nocsum") => None,
        Some("csum") if type_ != "IPIP" => Some("Checksum"),
        Some("remcsum") if type_ == "GUE" => Some("RemoteChecksum"),
        Some(_) => return None,
    };
    let mut value = forwarding("TUN");
    if type_ != "IPIP" {
        value["tunnel"] = json!({"type": type_});
        if let Some(port) = port {
            value["tunnel"]["port"] = json!(port);
        }
        if let Some(checksum) = checksum {
            value["tunnel"]["checksum"] = json!(checksum);
        }
    }
    Some(value)
}

/// Whether a scheduler exists.
pub fn is_scheduler(name: &str) -> bool {
    [
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
        "twos",
    ]
    .contains(&name)
}
