//! Virtual servers of keepalived.conf.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::value::AddressFamily;
use serde_json::{Map, Value, json};

use super::super::draft::{
    Host, Server, Service, forwarding, is_scheduler, service_name, tunnel, unique,
};
use super::super::http::host_header;
use super::super::own_checks::Check;
use super::super::quantity::{bounded, label, port, prefix_length, seconds, unicast};
use super::super::report::{Fate, Ledger, LineIndex};
use super::check::{Asked, Timing, checks};
use super::group::{Groups, Head};
use super::tree::Directive;
use super::virtual_service::VirtualServer;
use super::{of, take};
use crate::keyword::keepalived::is_checker;

/// How long keepalived keeps a client where no number says it, in seconds (IPVS_SVC_PERSISTENT_TIMEOUT).
pub(super) const DEFAULT_PERSISTENCE_SECONDS: u32 = 360;

/// Settings of one `virtual_server` block.
pub(super) struct Settings {
    pub(super) spec: Map<String, Value>,
    pub(super) forwarding: Value,
    pub(super) protocol: &'static str,
    pub(super) persistence: Option<Value>,
    pub(super) engine: Option<LineIndex>,
    pub(super) quorum: Option<u32>,
    pub(super) hysteresis: u32,
    pub(super) timing: Timing,
    pub(super) host: Option<String>,
    pub(super) inhibited: bool,
    pub(super) sorry: Option<(LineIndex, IpAddr, u16)>,
    pub(super) sorry_forwarding: Option<Value>,
    pub(super) scheduler: Option<String>,
    pub(super) hash_ports: bool,
    pub(super) one_packet: Option<LineIndex>,
    /// `ip_family`, where it says one.
    pub(super) family: Option<AddressFamily>,
}

/// Reads a `virtual_server`: one service, or one for each part of its group.
pub fn virtual_server(
    ledger: &mut Ledger,
    directive: &Directive,
    groups: &Groups,
    taken: &mut BTreeSet<String>,
    moves: &dyn Fn(&IpAddr) -> bool,
) -> Vec<Service> {
    let heads = match directive.argument(0) {
        "fwmark" => bounded(directive.argument(1), 1, u32::MAX)
            .filter(|(_, changed)| !changed)
            .map(|(mark, _)| vec![Head::Mark(mark)])
            .ok_or("not a mark of 1..4294967295"),
        "group" => groups
            .get(directive.argument(1))
            .filter(|heads| !heads.is_empty())
            .cloned()
            .ok_or("no virtual_server_group of this name has an entry"),
        address => {
            let number = if directive.argument(1).is_empty() {
                Some(0)
            } else {
                port(directive.argument(1))
            };
            match (unicast(address), number) {
                (Some(address), Some(number)) => Ok(vec![Head::Addresses(vec![address], number)]),
                _ => Err("not an address that clients can reach, with a port"),
            }
        }
    };
    let heads = match heads {
        Ok(heads) => heads,
        Err(why) => {
            directive.note_all(ledger, Fate::NotOffered, "", why);
            return Vec::new();
        }
    };
    // Names first, so that every note can say them. keepalived itself takes UDP where no protocol is named, and passes over
    // one that it does not know; to a mark none means anything.
    let said = directive
        .children
        .iter()
        .filter(|child| child.keyword() == "protocol")
        .filter_map(|child| protocol(child.argument(0)))
        .next_back();
    let is_by_mark = heads.iter().all(|head| matches!(head, Head::Mark(_)));
    let protocol = said.unwrap_or(if is_by_mark { "TCP" } else { "UDP" });
    if said.is_none() && !is_by_mark {
        ledger.note(
            directive.line,
            Fate::Translated,
            "",
            "no protocol is said: UDP, as keepalived takes it",
        );
    }
    let group_name =
        (directive.argument(0) == "group").then(|| label(directive.argument(1), 40, "group"));
    let names: Vec<String> = heads
        .iter()
        .map(|head| {
            let name = match (head, &group_name) {
                (Head::Addresses(_, number), Some(group)) => format!(
                    "vs-{group}-{}-{}",
                    if *number == 0 {
                        "all".to_owned()
                    } else {
                        number.to_string()
                    },
                    protocol.to_ascii_lowercase()
                ),
                (Head::Addresses(addresses, number), None) => {
                    addresses.first().map_or_else(String::new, |address| {
                        service_name(address, *number, protocol)
                    })
                }
                (Head::Mark(mark), _) => format!("vs-mark-{mark}"),
            };
            unique(&name, taken)
        })
        .collect();
    let object = match names.as_slice() {
        [first, _, _, ..] => format!("{first} and {} more", names.len() - 1),
        names => names.join(", "),
    };
    ledger.note(
        directive.line,
        Fate::Translated,
        format!("VirtualService {object}"),
        "",
    );
    directive.note_braces(ledger);

    let mut settings = settings(ledger, directive, protocol, &object);
    let mut servers = Vec::new();
    let mut checks: Vec<Vec<Check>> = Vec::new();
    for child in of(&directive.children, "real_server") {
        if let Some((server, found)) = real_server(ledger, child, &mut settings, &object, moves) {
            checks.push(found);
            servers.push(server);
        }
    }
    settings.finish(ledger, directive.line);
    let virtual_server = VirtualServer {
        line: directive.line,
        settings,
        servers,
        checks,
    };
    heads
        .into_iter()
        .zip(names)
        .map(|(head, name)| virtual_server.service(ledger, &head, name))
        .collect()
}

fn protocol(text: &str) -> Option<&'static str> {
    ["TCP", "UDP", "SCTP"]
        .into_iter()
        .find(|known| text.eq_ignore_ascii_case(known))
}

fn settings(
    ledger: &mut Ledger,
    directive: &Directive,
    protocol_in_use: &'static str,
    object: &str,
) -> Settings {
    let mut settings = Settings {
        spec: Map::new(),
        forwarding: forwarding("NAT"),
        protocol: protocol_in_use,
        persistence: None,
        engine: None,
        quorum: None,
        hysteresis: 0,
        timing: Timing::default(),
        host: None,
        inhibited: false,
        sorry: None,
        sorry_forwarding: None,
        scheduler: None,
        hash_ports: false,
        one_packet: None,
        family: None,
    };
    let mut granularity: Option<u8> = None;
    for child in directive
        .children
        .iter()
        .filter(|child| child.keyword() != "real_server")
    {
        if !take(ledger, "virtual_server", child, object) || settings.timing.read(ledger, child) {
            continue;
        }
        let text = child.argument(0);
        let mut wrong = |why: String| ledger.note(child.line, Fate::NotOffered, "", why);
        match child.keyword() {
            "lvs_sched" | "lb_algo" if is_scheduler(text) => {
                settings.scheduler = Some(text.to_owned());
            }
            "lvs_sched" | "lb_algo" => wrong(format!("no scheduler is called {text:?}: wlc")),
            "sh-port" | "mh-port" | "flag-2" => settings.hash_ports = true,
            "ops" => settings.one_packet = Some(child.line),
            "lvs_method" | "lb_kind" => match method(child.arguments()) {
                Some(method) => settings.forwarding = method,
                None => wrong("not a way of forwarding that the kernel has: NAT".to_owned()),
            },
            "persistence_engine" if text == "sip" => settings.engine = Some(child.line),
            "persistence_engine" => wrong(format!("no persistence engine is called {text:?}")),
            "persistence_timeout" => {
                match if text.is_empty() {
                    Some((DEFAULT_PERSISTENCE_SECONDS, false))
                } else {
                    seconds(text, 1, 2_678_400)
                } {
                    Some((value, _)) => {
                        settings.persistence = Some(json!({"timeoutSeconds": value}));
                    }
                    None => wrong(format!("{text:?} is no number")),
                }
            }
            "persistence_granularity" => match prefix_length(text) {
                Some(length) => granularity = Some(length),
                None => wrong(format!("{text:?} is no mask")),
            },
            "protocol" if protocol(text).is_none() => {
                wrong(format!(
                    "no protocol of IPVS is called {text:?}: it is passed over"
                ));
            }
            "virtualhost" if host_header(text) => settings.host = Some(text.to_owned()),
            "virtualhost" => wrong("not what a Host header holds".to_owned()),
            "quorum" => match bounded(text, 1, 268_431_360) {
                Some((value, _)) => settings.quorum = Some(value),
                None => wrong(format!("{text:?} is no number")),
            },
            "hysteresis" => match bounded(text, 0, 268_431_360) {
                Some((value, _)) => settings.hysteresis = value,
                None => wrong(format!("{text:?} is no number")),
            },
            "inhibit_on_failure" => settings.inhibited = !is_off(text),
            "ip_family" => match text {
                "inet" => settings.family = Some(AddressFamily::IPv4),
                "inet6" => settings.family = Some(AddressFamily::IPv6),
                _ => wrong(format!("{text:?} is neither inet nor inet6")),
            },
            "sorry_server" => {
                let number = if child.argument(1).is_empty() {
                    Some(0)
                } else {
                    port(child.argument(1))
                };
                match (text.parse(), number) {
                    (Ok(address), Some(number)) => {
                        settings.sorry = Some((child.line, address, number));
                    }
                    _ => wrong("not an address with a port".to_owned()),
                }
            }
            "sorry_server_lvs_method" => match method(child.arguments()) {
                Some(method) => settings.sorry_forwarding = Some(method),
                None => wrong("not a way of forwarding that the kernel has".to_owned()),
            },
            _ => {}
        }
    }
    if let Some(length) = granularity {
        let persistence = settings
            .persistence
            .get_or_insert_with(|| json!({"timeoutSeconds": DEFAULT_PERSISTENCE_SECONDS}));
        if length <= 32 {
            persistence["ipv4PrefixLength"] = json!(length);
        } else {
            persistence["ipv6PrefixLength"] = json!(length);
        }
    }
    settings
}

impl Settings {
    /// Whether the packets of a mark are IPv6: as it says, else as its real servers are, if they are all alike.
    pub(super) fn is_ipv6(&self, servers: &[Server]) -> bool {
        let mut hosts = servers.iter().filter_map(|server| server.host.address());
        match self.family {
            Some(family) => family == AddressFamily::IPv6,
            None => !servers.is_empty() && hosts.all(|address| address.is_ipv6()),
        }
    }

    /// What depends on several keywords.
    fn finish(&mut self, ledger: &mut Ledger, line: LineIndex) {
        let udp = self.protocol == "UDP";
        if let Some(name) = &self.scheduler {
            let mut scheduler = json!({"name": name});
            if self.hash_ports && matches!(name.as_str(), "sh" | "mh") {
                scheduler["options"] = json!([format!("{name}-port")]);
            }
            self.spec.insert("scheduler".to_owned(), scheduler);
        }
        if let Some(engine) = self.engine {
            if udp {
                self.persistence.get_or_insert_with(
                    || json!({"timeoutSeconds": DEFAULT_PERSISTENCE_SECONDS}),
                )["engine"] = json!("SIP");
            } else {
                ledger.note(engine, Fate::NotOffered, "", "it needs protocol UDP");
            }
        }
        if let Some(persistence) = &self.persistence {
            self.spec
                .insert("persistence".to_owned(), persistence.clone());
        }
        if let Some(one_packet) = self.one_packet {
            if udp {
                self.spec
                    .insert("packetScheduling".to_owned(), json!("OnePacket"));
            } else {
                ledger.note(one_packet, Fate::NotOffered, "", "it needs protocol UDP");
            }
        }
        if self.quorum.is_some() || self.hysteresis > 0 {
            let minimum = self.quorum.unwrap_or(1);
            let hysteresis = self.hysteresis.min(minimum - 1);
            if hysteresis != self.hysteresis {
                ledger.note(
                    line,
                    Fate::Changed,
                    "",
                    format!("hysteresis {hysteresis}, as it must be less than the quorum"),
                );
            }
            let mut quorum = json!({"minimumWeight": minimum});
            if hysteresis > 0 {
                quorum["hysteresis"] = json!(hysteresis);
            }
            self.spec.insert("quorum".to_owned(), quorum);
        }
        if self.inhibited {
            self.spec.insert("onFailure".to_owned(), json!("Quiesce"));
        }
        self.spec
            .insert("forwarding".to_owned(), self.forwarding.clone());
    }
}

/// Whether a boolean argument says no; none says yes.
fn is_off(text: &str) -> bool {
    matches!(text, "off" | "false" | "no")
}

/// `NAT`, `DR`, or `TUN [type {ipip|gue port N|gre} [nocsum|csum|remcsum]]`.
fn method(arguments: &[String]) -> Option<Value> {
    let first = arguments.first()?.to_ascii_uppercase();
    match first.as_str() {
        "NAT" | "DR" => Some(forwarding(&first)),
        "TUN" => {
            let mut type_ = "";
            let mut number = None;
            let mut checksum = None;
            let mut words = arguments.iter().skip(1).map(String::as_str);
            while let Some(word) = words.next() {
                match word {
                    "type" => type_ = words.next()?,
                    "port" => number = Some(port(words.next()?)?),
                    "nocsum" | "csum" | "remcsum" => checksum = Some(word),
                    _ => return None,
                }
            }
            tunnel(type_, number, checksum)
        }
        _ => None,
    }
}

fn real_server(
    ledger: &mut Ledger,
    directive: &Directive,
    settings: &mut Settings,
    object: &str,
    moves: &dyn Fn(&IpAddr) -> bool,
) -> Option<(Server, Vec<Check>)> {
    let number = if directive.argument(1).is_empty() {
        Some(0)
    } else {
        port(directive.argument(1))
    };
    let (Some(address), Some(number)) = (unicast(directive.argument(0)), number) else {
        directive.note_all(
            ledger,
            Fate::NotOffered,
            "",
            "not an address that directors can reach, with a port",
        );
        return None;
    };
    directive.note_braces(ledger);
    let mut server = Server {
        line: directive.line,
        host: Host::Address(address),
        port: number,
        weight: 1,
        forwarding: settings.forwarding.clone(),
        thresholds: (0, 0),
        disabled: false,
        checks: Vec::new(),
    };
    let mut timing = settings.timing.clone();
    let mut host = settings.host.clone();
    let object_of_server = format!("of {address} in {object}");
    for child in directive
        .children
        .iter()
        .filter(|child| !is_checker(child.keyword()))
    {
        if !take(ledger, "real_server", child, &object_of_server) || timing.read(ledger, child) {
            continue;
        }
        let text = child.argument(0);
        let mut limit = |target: &mut u32, most: u32| {
            if let Some(value) = ledger.kept(child.line, text, bounded(text, 0, most)) {
                *target = value;
            }
        };
        match child.keyword() {
            "weight" => {
                let mut weight = 1;
                limit(&mut weight, 65_535);
                server.weight = u16::try_from(weight).unwrap_or(u16::MAX);
            }
            "uthreshold" => limit(&mut server.thresholds.0, 2_147_483_647),
            "lthreshold" => limit(&mut server.thresholds.1, 2_147_483_647),
            "lvs_method" | "lb_kind" => match method(child.arguments()) {
                Some(method) => server.forwarding = method,
                None => ledger.note(
                    child.line,
                    Fate::NotOffered,
                    "",
                    "not a way of forwarding that the kernel has",
                ),
            },
            "virtualhost" if host_header(text) => host = Some(text.to_owned()),
            "virtualhost" => ledger.note(
                child.line,
                Fate::NotOffered,
                "",
                "not what a Host header holds",
            ),
            "inhibit_on_failure" if !is_off(text) => {
                settings.inhibited = true;
                ledger.note(
                    child.line,
                    Fate::Translated,
                    "",
                    "it holds for every real server of the VirtualService",
                );
            }
            _ => {}
        }
    }
    if server.thresholds.1 > server.thresholds.0 {
        ledger.note(
            directive.line,
            Fate::Changed,
            "",
            format!(
                "no lower limit of connections, as {} is above the upper one",
                server.thresholds.1
            ),
        );
        server.thresholds.1 = 0;
    }
    let asked = Asked {
        address,
        port: number,
        timing: &timing,
        host: host.as_deref(),
        connects: settings.protocol == "TCP",
        moves,
    };
    let found = directive
        .children
        .iter()
        .filter(|child| is_checker(child.keyword()))
        .flat_map(|child| checks(ledger, child, &asked, object))
        .collect();
    Some((server, found))
}
