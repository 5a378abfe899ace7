//! A virtual server as a VirtualService.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::super::draft::{Server, Service, is_nat};
use super::super::own_checks::{self, Check};
use super::super::quantity::unicast;
use super::super::report::{Fate, Ledger, LineIndex};
use super::group::Head;
use super::service::{DEFAULT_PERSISTENCE_SECONDS, Settings};

/// A `virtual_server` that was read.
pub struct VirtualServer {
    /// The line that begins it.
    pub line: LineIndex,
    /// What it says of the service.
    pub settings: Settings,
    /// Its real servers.
    pub servers: Vec<Server>,
    /// The checks of each real server.
    pub checks: Vec<Vec<Check>>,
}

impl VirtualServer {
    /// The service for one of the things that it balances.
    pub fn service(&self, ledger: &mut Ledger, head: &Head, name: String) -> Service {
        let (line, settings) = (self.line, &self.settings);
        let mut servers = self.servers.clone();
        let mut spec = settings.spec.clone();
        let number = match head {
            Head::Addresses(addresses, number) => {
                if *number == 0 && settings.persistence.is_none() {
                    let persistence = json!({"timeoutSeconds": DEFAULT_PERSISTENCE_SECONDS});
                    spec.insert("persistence".to_owned(), persistence);
                    ledger.note(
                        line,
                        Fate::Translated,
                        "",
                        "all ports need persistence: 360 s, as keepalived sets it",
                    );
                }
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                spec.insert("addresses".to_owned(), json!(addresses));
                *number
            }
            Head::Mark(mark) => {
                spec.insert("grouping".to_owned(), json!("FirewallMark"));
                spec.insert(
                    "firewallMark".to_owned(),
                    json!({"marking": "External", "value": mark}),
                );
                if settings.is_ipv6(&servers) {
                    spec.insert("addressFamilies".to_owned(), json!(["IPv6"]));
                }
                ledger.note(line, Fate::Changed, format!("VirtualService {name} spec.ports, spec.firewallMark.marking"), "which addresses and ports have the mark is not said here: name them, and set marking Managed instead of rules of your own");
                0
            }
        };
        let mut entry = json!({"port": number});
        if settings.protocol != "TCP" {
            entry["protocol"] = json!(settings.protocol);
        }
        spec.insert("ports".to_owned(), json!([entry]));
        for server in &servers {
            if server.port != number
                && server.port != 0
                && (number == 0 || !is_nat(&server.forwarding))
            {
                ledger.note(
                    server.line,
                    Fate::Changed,
                    "",
                    "the port stays what the client has asked for, as in IPVS",
                );
            }
        }
        let lists = with_ports(ledger, number, &servers, &self.checks);
        let checks = own_checks::assign(ledger, &name, &mut servers, &lists);
        spec.insert("healthChecks".to_owned(), json!(checks));
        let mut other_targets = sorry_server(ledger, &mut spec, settings, number);
        other_targets.extend(lists.iter().flatten().filter_map(|check| {
            let address = check.value["address"].as_str()?;
            address.parse::<IpAddr>().ok()
        }));
        Service {
            line,
            name,
            spec,
            forwarding: settings.forwarding.clone(),
            port: number,
            servers,
            other_targets,
        }
    }
}

/// Checks of each real server as they are asked, where the service names no port.
fn with_ports(
    ledger: &mut Ledger,
    number: u16,
    servers: &[Server],
    all: &[Vec<Check>],
) -> Vec<Vec<Check>> {
    if number != 0 {
        return all.to_vec();
    }
    let lists = servers.iter().zip(all).map(|(server, checks)| {
        let mut found = Vec::new();
        for check in checks {
            let mut check = check.clone();
            if check.value["port"].is_null() && check.value["type"] != "Ping" {
                if server.port == 0 {
                    ledger.note(
                        check.line,
                        Fate::NotOffered,
                        "",
                        "no port is named that could be asked: set connect_port",
                    );
                    continue;
                }
                check.value["port"] = json!(server.port);
            }
            found.push(check);
        }
        found
    });
    lists.collect()
}

fn sorry_server(
    ledger: &mut Ledger,
    spec: &mut Map<String, Value>,
    settings: &Settings,
    number: u16,
) -> Vec<IpAddr> {
    let Some((line, address, port)) = settings.sorry else {
        return Vec::new();
    };
    let own_port = (port != 0 && port != number && number != 0).then_some(port);
    if address.is_loopback() {
        let mut sorry = json!({"type": "Director"});
        if let Some(port) = own_port {
            sorry["port"] = json!(port);
        }
        spec.insert("sorryServer".to_owned(), sorry);
        ledger.note(line, Fate::Translated, "", "the director itself");
        return Vec::new();
    }
    let Some(address) = unicast(&address.to_string()) else {
        ledger.note(
            line,
            Fate::NotOffered,
            "",
            "not an address that directors can reach",
        );
        return Vec::new();
    };
    let mut sorry = json!({"type": "Address", "address": {"address": address.to_string()}});
    let method = settings
        .sorry_forwarding
        .as_ref()
        .unwrap_or(&settings.forwarding);
    if *method != settings.forwarding {
        sorry["address"]["forwarding"] = method.clone();
    }
    if let Some(port) = own_port {
        if is_nat(method) {
            sorry["address"]["port"] = json!(port);
        } else {
            ledger.note(
                line,
                Fate::Changed,
                "",
                "the port stays what the client has asked for, as in IPVS",
            );
        }
    }
    spec.insert("sorryServer".to_owned(), sorry);
    vec![address]
}
