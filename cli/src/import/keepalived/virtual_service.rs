//! A virtual server as a VirtualService.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::super::draft::{Server, Service, is_nat};
use super::super::quantity::unicast;
use super::super::report::{Fate, Ledger, LineIndex};
use super::check::Check;
use super::group::Head;
use super::service::Settings;

/// A `virtual_server` that was read.
pub struct VirtualServer {
    /// The line that begins it.
    pub line: LineIndex,
    /// What it says of the service.
    pub settings: Settings,
    /// Its real servers.
    pub servers: Vec<Server>,
    /// The line of each real server, and its checks.
    pub checks: Vec<(LineIndex, Vec<Check>)>,
}

impl VirtualServer {
    /// The service for one of the things that it balances.
    pub fn service(&self, ledger: &mut Ledger, head: &Head, name: String) -> Option<Service> {
        let (line, settings, servers) = (self.line, &self.settings, self.servers.as_slice());
        let mut spec = settings.spec.clone();
        let number = match head {
            Head::Addresses(addresses, number) => {
                if *number == 0 && settings.persistence.is_none() {
                    ledger.note(
                        line,
                        Fate::NotOffered,
                        "",
                        format!("{name} is left out: all ports need persistence_timeout"),
                    );
                    return None;
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
                ledger.note(line, Fate::Changed, format!("VirtualService {name} spec.ports, spec.firewallMark.marking"), "which addresses and ports have the mark is not said here: name them, and set marking Managed instead of rules of your own");
                0
            }
        };
        let mut entry = json!({"port": number});
        if settings.protocol != "TCP" {
            entry["protocol"] = json!(settings.protocol);
        }
        spec.insert("ports".to_owned(), json!([entry]));
        for server in servers {
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
        let checks = health_checks(ledger, number, servers, &self.checks);
        spec.insert("healthChecks".to_owned(), json!(checks));
        let other_targets = sorry_server(ledger, &mut spec, settings, number);
        Some(Service {
            line,
            name,
            spec,
            forwarding: settings.forwarding.clone(),
            port: number,
            servers: servers.to_vec(),
            other_targets,
        })
    }
}

/// The checks of the first real server that has any, with names; they hold for all.
fn health_checks(
    ledger: &mut Ledger,
    number: u16,
    servers: &[Server],
    all_checks: &[(LineIndex, Vec<Check>)],
) -> Vec<Value> {
    let none = || vec![json!({"name": "none", "type": "None"})];
    let Some((first, (_, chosen))) = all_checks
        .iter()
        .enumerate()
        .find(|(_, (_, checks))| !checks.is_empty())
    else {
        for server in servers {
            ledger.note(
                server.line,
                Fate::Translated,
                "VirtualService spec.healthChecks",
                "no checker: type None",
            );
        }
        return none();
    };
    for (index, (line, checks)) in all_checks.iter().enumerate() {
        let same = checks.len() == chosen.len()
            && checks
                .iter()
                .zip(chosen)
                .all(|(one, other)| one.value == other.value);
        if index != first && !same {
            let where_ = chosen.first().map_or(0, |check| ledger.number(check.line));
            let at = checks.first().map_or(*line, |check| check.line);
            ledger.note(
                at,
                Fate::Changed,
                "VirtualService spec.healthChecks",
                format!("checks are the same for all real servers: those of line {where_}"),
            );
        }
    }
    let server_port = servers.get(first).map_or(0, |server| server.port);
    let mut named: Vec<Value> = Vec::new();
    for check in chosen {
        let mut value = check.value.clone();
        let type_ = value["type"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if number == 0 && value["port"].is_null() && type_ != "ping" {
            if server_port == 0 {
                ledger.note(
                    check.line,
                    Fate::NotOffered,
                    "",
                    "no port is named that could be asked: set connect_port",
                );
                continue;
            }
            value["port"] = json!(server_port);
        }
        if named.len() == 8 {
            ledger.note(
                check.line,
                Fate::NotOffered,
                "",
                "there are 8 checks already",
            );
            continue;
        }
        let count = named
            .iter()
            .filter(|known| known["type"] == value["type"])
            .count();
        value["name"] = json!(if count == 0 {
            type_
        } else {
            format!("{type_}-{}", count + 1)
        });
        named.push(value);
    }
    if named.is_empty() { none() } else { named }
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
