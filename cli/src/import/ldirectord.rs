//! ldirectord(8): ldirectord.cf.

mod check;
mod real;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Parts;
use super::draft::{Server, Service, forwarding, is_nat, is_scheduler, service_name, unique};
use super::own_checks;
use super::quantity::{bounded, endpoint, port, prefix_length, unicast};
use super::report::{Fate, Ledger, LineIndex};
use crate::keyword::Tool;
use check::Question;

/// The last value of each directive, and its line.
type Directives = BTreeMap<String, (LineIndex, String)>;

/// A `virtual` with what is indented below it.
struct Block {
    line: LineIndex,
    head: String,
    six: bool,
    directives: Directives,
    reals: Vec<(LineIndex, String)>,
}

/// Reads a file.
pub fn import(ledger: &mut Ledger, path: &Path, text: &str, namespace: &str) -> Parts {
    let mut globals = Directives::new();
    let mut blocks: Vec<Block> = Vec::new();
    for line in ledger.add_file(path, text) {
        let whole = ledger.text(line).replace('\t', "    ");
        let text = whole.split('#').next().unwrap_or_default();
        if text.trim().is_empty() {
            continue;
        }
        let Some((word, value)) = text.split_once('=') else {
            ledger.note(line, Fate::NotOffered, "", "no directive with a value");
            continue;
        };
        let (word, value) = (word.trim(), value.trim().to_owned());
        let block = if text.starts_with("    ") {
            blocks.last_mut()
        } else {
            None
        };
        let place = if block.is_some() { "virtual" } else { "global" };
        let Some(row) = Tool::Ldirectord.find(place, word) else {
            ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!(
                    "no directive of ldirectord is called {word}, {}",
                    if place == "global" {
                        "outside virtual"
                    } else {
                        "within virtual"
                    }
                ),
            );
            continue;
        };
        match (block, word) {
            (None, "virtual" | "virtual6") => blocks.push(Block {
                line,
                head: value,
                six: word == "virtual6",
                directives: Directives::new(),
                reals: Vec::new(),
            }),
            (Some(block), "real" | "real6") => block.reals.push((line, value)),
            (block, _) => {
                // What a block says is told with the name of its object.
                if block.is_none() {
                    ledger.note(line, row.fate, row.field, row.remark);
                }
                if matches!(word, "passwd" | "secret") {
                    ledger.hide(line, unquoted(&value));
                }
                let directives = block.map_or(&mut globals, |block| &mut block.directives);
                if let Some((before, _)) = directives.insert(word.to_owned(), (line, value)) {
                    ledger.note(before, Fate::Translated, "", "what is said later counts");
                }
            }
        }
    }
    let mut taken = BTreeSet::new();
    let services = blocks
        .iter()
        .filter_map(|block| service(ledger, block, &globals, namespace, &mut taken))
        .collect();
    Parts {
        routers: Vec::new(),
        services,
    }
}

impl Block {
    /// A directive of the block, else of the whole file.
    fn get<'a>(&'a self, globals: &'a Directives, word: &str) -> Option<&'a (LineIndex, String)> {
        self.directives.get(word).or_else(|| globals.get(word))
    }

    /// Says of every line of it that it is left out.
    fn refuse(&self, ledger: &mut Ledger, why: &str) {
        let lines = self
            .directives
            .values()
            .map(|(line, _)| *line)
            .chain(self.reals.iter().map(|(line, _)| *line));
        for line in lines.chain([self.line]) {
            ledger.note(line, Fate::NotOffered, "", why);
        }
    }
}

/// Text without quotes around it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(text)
}

fn service(
    ledger: &mut Ledger,
    block: &Block,
    globals: &Directives,
    namespace: &str,
    taken: &mut BTreeSet<String>,
) -> Option<Service> {
    let mut spec = Map::new();
    let mark = bounded(&block.head, 1, u32::MAX)
        .filter(|(_, changed)| !changed)
        .map(|(mark, _)| mark);
    let (name, number, protocol) = if let Some(mark) = mark {
        spec.insert("grouping".to_owned(), json!("FirewallMark"));
        spec.insert(
            "firewallMark".to_owned(),
            json!({"marking": "External", "value": mark}),
        );
        spec.insert("ports".to_owned(), json!([{"port": 0}]));
        if block.six {
            spec.insert("addressFamilies".to_owned(), json!(["IPv6"]));
        }
        ledger.note(block.line, Fate::Changed, "VirtualService spec.addresses, spec.ports", "which addresses and ports have the mark is not said here: name them, and set marking Managed instead of rules of your own");
        (format!("vs-mark-{mark}"), 0, "TCP")
    } else {
        let found =
            endpoint(&block.head).and_then(|(address, number)| Some((unicast(address)?, number)));
        let Some((address, number)) = found.filter(|(_, number)| *number != 0) else {
            block.refuse(ledger, "the virtual service is no address that clients can reach with a port; a name must be written as an address");
            return None;
        };
        let named = block
            .directives
            .get("protocol")
            .map(|(line, text)| (*line, text.as_str()));
        let protocol = match named {
            Some((_, "tcp")) => "TCP",
            Some((_, "udp")) => "UDP",
            _ if number == 53 => "UDP",
            _ => "TCP",
        };
        if let Some((line, text)) = named.filter(|(_, text)| !matches!(*text, "tcp" | "udp")) {
            ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!("{text:?} is neither tcp nor udp"),
            );
        }
        let mut entry = json!({"port": number});
        if protocol != "TCP" {
            entry["protocol"] = json!(protocol);
        }
        spec.insert("addresses".to_owned(), json!([address.to_string()]));
        spec.insert("ports".to_owned(), json!([entry]));
        (service_name(&address, number, protocol), number, protocol)
    };
    let name = unique(&name, taken);
    ledger.note(
        block.line,
        Fate::Translated,
        format!("VirtualService {name}"),
        "",
    );
    scheduling(ledger, block, &mut spec, protocol);
    let quiescent =
        block
            .get(globals, "quiescent")
            .is_none_or(|(line, text)| match text.as_str() {
                "yes" => true,
                "no" => false,
                _ => {
                    ledger.note(*line, Fate::NotOffered, "", "neither yes nor no: yes");
                    true
                }
            });
    if quiescent {
        spec.insert("onFailure".to_owned(), json!("Quiesce"));
    }
    let mut servers = Vec::new();
    // What each is asked that is asked otherwise than the others.
    let mut requests = Vec::new();
    for (line, text) in &block.reals {
        let (found, request) = real::read(ledger, *line, text, number);
        requests.resize(requests.len() + found.len(), request);
        servers.extend(found);
    }
    let method = servers.first().map_or_else(
        || forwarding("DR"),
        |server: &Server| server.forwarding.clone(),
    );
    let mut service = Service {
        line: block.line,
        name: name.clone(),
        spec,
        forwarding: method,
        port: number,
        servers,
        other_targets: Vec::new(),
    };
    service
        .spec
        .insert("forwarding".to_owned(), service.forwarding.clone());
    let question = Question {
        block,
        globals,
        number,
        protocol,
        is_mark: mark.is_some(),
        request: None,
        server_port: service.servers.first().map_or(0, |server| server.port),
        name: &name,
        namespace,
    };
    for (word, (line, _)) in &block.directives {
        if let Some((fate, why)) = question.unused(word) {
            ledger.note(*line, fate, "", why);
        } else if let Some(row) = Tool::Ldirectord.find("virtual", word) {
            let field = match row.field.split_once(' ') {
                Some((kind @ "VirtualService", rest)) => format!("{kind} {} {rest}", service.name),
                _ => row.field.to_owned(),
            };
            ledger.note(*line, row.fate, field, row.remark);
        }
    }
    let of_service = question.checks(ledger);
    let mut lists = Vec::new();
    for (server, request) in service.servers.iter().zip(&requests) {
        let own = Question {
            request: request.as_ref(),
            server_port: server.port,
            ..question
        };
        let is_other = request.is_some() || number == 0;
        lists.push(if is_other {
            own.checks(ledger)
        } else {
            of_service.clone()
        });
    }
    if service.servers.is_empty() {
        lists.push(of_service);
    }
    let checks = own_checks::assign(ledger, &name, &mut service.servers, &lists);
    service
        .spec
        .insert("healthChecks".to_owned(), json!(checks));
    if question.nobody_serves(ledger) {
        service
            .servers
            .iter_mut()
            .for_each(|server| server.disabled = true);
    }
    let word = if block.six { "fallback6" } else { "fallback" };
    if let Some((line, text)) = block.get(globals, word) {
        fallback(ledger, *line, text, &mut service);
    }
    Some(service)
}

fn scheduling(ledger: &mut Ledger, block: &Block, spec: &mut Map<String, Value>, protocol: &str) {
    let mut scheduler = "wrr";
    if let Some((line, text)) = block.directives.get("scheduler") {
        if is_scheduler(text) {
            scheduler = text;
        } else {
            ledger.note(
                *line,
                Fate::NotOffered,
                "",
                format!("no scheduler is called {text:?}: wrr"),
            );
        }
    }
    let mut value = json!({"name": scheduler});
    if let Some((line, text)) = block.directives.get("schedflags") {
        for flag in text.split(',') {
            match flag.trim() {
                "flag-2" | "sh-port" | "mh-port" if matches!(scheduler, "sh" | "mh") => {
                    value["options"] = json!([format!("{scheduler}-port")]);
                }
                "flag-1" | "sh-fallback" | "mh-fallback" if matches!(scheduler, "sh" | "mh") => {}
                other => ledger.note(
                    *line,
                    Fate::NotOffered,
                    "",
                    format!("flag {other} of scheduler {scheduler}"),
                ),
            }
        }
    }
    spec.insert("scheduler".to_owned(), value);
    let persistent = block.directives.get("persistent").and_then(|(line, text)| {
        let value = bounded(text, 1, 2_678_400);
        if value.is_none() {
            ledger.note(
                *line,
                Fate::NotOffered,
                "",
                format!("{text:?} is no number"),
            );
        }
        value
    });
    if let Some((seconds, _)) = persistent {
        spec.insert("persistence".to_owned(), json!({"timeoutSeconds": seconds}));
    }
    if let Some((line, text)) = block.directives.get("netmask") {
        match (prefix_length(text), spec.get_mut("persistence")) {
            (Some(length), Some(persistence)) if block.six => {
                persistence["ipv6PrefixLength"] = json!(length);
            }
            (Some(length), Some(persistence)) if length <= 32 => {
                persistence["ipv4PrefixLength"] = json!(length);
            }
            (_, None) => ledger.note(
                *line,
                Fate::NotOffered,
                "",
                "it is nothing without persistent",
            ),
            _ => ledger.note(*line, Fate::NotOffered, "", format!("{text:?} is no mask")),
        }
    }
    if let Some((line, text)) = block
        .directives
        .get("ops")
        .filter(|(_, text)| text == "yes")
    {
        if protocol == "UDP" {
            spec.insert("packetScheduling".to_owned(), json!("OnePacket"));
        } else {
            ledger.note(
                *line,
                Fate::NotOffered,
                "",
                format!("{text} needs protocol udp"),
            );
        }
    }
}

/// `address[:port] [gate|masq|ipip]`
fn fallback(ledger: &mut Ledger, line: LineIndex, text: &str, service: &mut Service) {
    let mut words = text.split_whitespace();
    let Some((address, number)) = words.next().and_then(endpoint) else {
        ledger.note(line, Fate::NotOffered, "", "no address and port");
        return;
    };
    let own_port = (number != 0 && service.port != 0 && number != service.port).then_some(number);
    if address == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
    {
        let mut sorry = json!({"type": "Director"});
        if let Some(port) = own_port {
            sorry["port"] = json!(port);
        }
        service.spec.insert("sorryServer".to_owned(), sorry);
        ledger.note(
            line,
            Fate::Translated,
            format!("VirtualService {}", service.name),
            "the director itself",
        );
        return;
    }
    let Some(address) = unicast(address) else {
        ledger.note(
            line,
            Fate::NotOffered,
            "",
            "no address that directors can reach; a name must be written as an address",
        );
        return;
    };
    let method = forwarding(match words.next() {
        Some("masq") => "NAT",
        Some("ipip") => "TUN",
        _ => "DR",
    });
    let mut sorry = json!({"type": "Address", "address": {"address": address.to_string()}});
    if method != service.forwarding {
        sorry["address"]["forwarding"] = method.clone();
    }
    match own_port {
        Some(port) if is_nat(&method) => sorry["address"]["port"] = json!(port),
        Some(_) => ledger.note(
            line,
            Fate::Changed,
            "",
            "the port stays what the client has asked for, as in IPVS",
        ),
        None => {}
    }
    service.spec.insert("sorryServer".to_owned(), sorry);
    service.other_targets.push(address);
}

/// A port by number or name.
fn port_of(text: &str) -> Option<u16> {
    port(text).filter(|port| *port != 0)
}
