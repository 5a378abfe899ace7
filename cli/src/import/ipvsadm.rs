//! What `ipvsadm --save --numeric` writes: one command a line.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Parts;
use super::draft::{
    Host, Server, Service, forwarding, is_nat, is_scheduler, service_name, tunnel, unique,
};
use super::quantity::{bounded, endpoint, port, prefix_length, saved_mark, seconds, unicast};
use super::report::{Fate, Ledger, LineIndex};
use crate::keyword::Tool;

/// An option and its argument, if it takes one.
pub type Options = Vec<(String, Option<String>)>;

/// By what IPVS knows a service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Address(&'static str, IpAddr, u16),
    Mark(u32, bool),
}

struct Known {
    key: Key,
    service: Service,
}

/// Reads a saved table.
pub fn import(ledger: &mut Ledger, path: &Path, text: &str) -> Parts {
    let mut known: Vec<Known> = Vec::new();
    let mut taken = BTreeSet::new();
    for line in ledger.add_file(path, text) {
        let text = ledger.text(line).trim().to_owned();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = match words.split_first() {
            Some((first, rest)) if first.rsplit('/').next() == Some("ipvsadm") => rest,
            _ => words.as_slice(),
        };
        let Some((command, rest)) = words.split_first() else {
            ledger.note(line, Fate::NotOffered, "", "no command");
            continue;
        };
        let result = match *command {
            "-A" | "--add-service" => {
                service(ledger, line, rest, &mut taken, &known).map(|new| known.push(new))
            }
            "-a" | "--add-server" => server(ledger, line, rest, &mut known),
            other => {
                match Tool::Ipvsadm.find("command", other) {
                    Some(row) => {
                        ledger.note(line, row.fate.max(Fate::Replaced), row.field, row.remark);
                    }
                    None => ledger.note(
                        line,
                        Fate::NotOffered,
                        "",
                        format!("{other} is no command of ipvsadm"),
                    ),
                }
                Ok(())
            }
        };
        if let Err(why) = result {
            ledger.note(line, Fate::NotOffered, "", why);
        }
    }
    let services = known
        .into_iter()
        .map(|known| {
            let mut service = known.service;
            if service.forwarding.is_null() {
                service.forwarding = forwarding("DR");
            }
            service
                .spec
                .insert("forwarding".to_owned(), service.forwarding.clone());
            service
        })
        .collect();
    Parts {
        routers: Vec::new(),
        services,
    }
}

/// Splits words into options of a place; -p may have an argument.
///
/// # Errors
/// Which word is no option there, or lacks its argument.
pub fn options(words: &[&str], places: &[&str]) -> Result<Options, String> {
    let mut options = Options::new();
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        let (word, attached) = match word.split_once('=') {
            Some((word, value)) if word.starts_with("--") => (word, Some(value.to_owned())),
            _ => (word, None),
        };
        if !places
            .iter()
            .any(|place| Tool::Ipvsadm.find(place, word).is_some())
        {
            return Err(format!("{word} is no option here"));
        }
        let flag = matches!(
            word,
            "-6" | "--ipv6"
                | "-o"
                | "--ops"
                | "-g"
                | "--gatewaying"
                | "-i"
                | "--ipip"
                | "-m"
                | "--masquerading"
                | "--tun-nocsum"
                | "--tun-csum"
                | "--tun-remcsum"
        );
        let optional = matches!(word, "-p" | "--persistent");
        let argument = match attached {
            Some(value) => Some(value),
            None if flag || optional && words.peek().is_none_or(|next| next.starts_with('-')) => {
                None
            }
            None => Some(
                words
                    .next()
                    .map(str::to_owned)
                    .ok_or_else(|| format!("{word} needs an argument"))?,
            ),
        };
        options.push((word.to_owned(), argument));
    }
    Ok(options)
}

fn key(options: &Options) -> Result<Key, String> {
    let six = options
        .iter()
        .any(|(word, _)| matches!(word.as_str(), "-6" | "--ipv6"));
    for (word, argument) in options {
        let protocol = match word.as_str() {
            "-t" | "--tcp-service" => "TCP",
            "-u" | "--udp-service" => "UDP",
            "--sctp-service" => "SCTP",
            "-f" | "--fwmark-service" => {
                let text = argument.as_deref().unwrap_or("");
                return saved_mark(text)
                    .map(|mark| Key::Mark(mark, six))
                    .ok_or_else(|| format!("{text:?} is no mark of 1..4294967295"));
            }
            _ => continue,
        };
        let text = argument.as_deref().unwrap_or("");
        let (address, number) =
            endpoint(text).ok_or_else(|| format!("{text:?} is no address and port"))?;
        let address = unicast(address).ok_or_else(|| format!("{address:?} is no address that clients can reach; names are written as addresses by ipvsadm --numeric"))?;
        return Ok(Key::Address(protocol, address, number));
    }
    Err("no service is named by -t, -u, --sctp-service or -f".to_owned())
}

fn service(
    ledger: &mut Ledger,
    line: LineIndex,
    words: &[&str],
    taken: &mut BTreeSet<String>,
    known: &[Known],
) -> Result<Known, String> {
    let options = options(words, &["service"])?;
    let key = key(&options)?;
    if known.iter().any(|known| known.key == key) {
        return Err("the service is there already".to_owned());
    }
    let mut spec = Map::new();
    let (name, number, protocol) = match &key {
        Key::Address(protocol, address, number) => {
            let mut entry = json!({"port": number});
            if *protocol != "TCP" {
                entry["protocol"] = json!(protocol);
            }
            spec.insert("addresses".to_owned(), json!([address.to_string()]));
            spec.insert("ports".to_owned(), json!([entry]));
            (service_name(address, *number, protocol), *number, *protocol)
        }
        Key::Mark(mark, six) => {
            spec.insert("grouping".to_owned(), json!("FirewallMark"));
            spec.insert(
                "firewallMark".to_owned(),
                json!({"marking": "External", "value": mark}),
            );
            spec.insert("ports".to_owned(), json!([{"port": 0}]));
            if *six {
                spec.insert("addressFamilies".to_owned(), json!(["IPv6"]));
            }
            ledger.note(line, Fate::Changed, "VirtualService spec.addresses, spec.ports", "which addresses and ports have the mark is not said here: name them, and set marking Managed instead of rules of your own");
            (
                format!("vs-mark-{mark}{}", if *six { "-6" } else { "" }),
                0,
                "TCP",
            )
        }
    };
    let name = unique(&name, taken);
    let mut scheduler = json!({});
    let mut persistence: Option<Value> = None;
    let mut note = |fate: Fate, text: String| ledger.note(line, fate, "", text);
    for (word, argument) in &options {
        let text = argument.as_deref().unwrap_or("");
        match word.as_str() {
            "-s" | "--scheduler" if is_scheduler(text) => scheduler["name"] = json!(text),
            "-s" | "--scheduler" => note(
                Fate::NotOffered,
                format!("no scheduler is called {text:?}: wlc"),
            ),
            "-p" | "--persistent" => match if text.is_empty() {
                Some((300, false))
            } else {
                seconds(text, 1, 2_678_400)
            } {
                Some((value, _)) => {
                    persistence.get_or_insert_with(|| json!({}))["timeoutSeconds"] = json!(value);
                }
                None => note(Fate::NotOffered, format!("-p {text:?} is no number")),
            },
            "-M" | "--netmask" => match prefix_length(text) {
                Some(length) => {
                    let six =
                        matches!(&key, Key::Address(_, IpAddr::V6(_), _) | Key::Mark(_, true));
                    if six || length <= 32 {
                        persistence.get_or_insert_with(|| json!({}))[if six {
                            "ipv6PrefixLength"
                        } else {
                            "ipv4PrefixLength"
                        }] = json!(length);
                    }
                }
                None => note(Fate::NotOffered, format!("-M {text:?} is no mask")),
            },
            "--pe" if text == "sip" && protocol == "UDP" => {
                persistence.get_or_insert_with(|| json!({}))["engine"] = json!("SIP");
            }
            "--pe" => note(
                Fate::NotOffered,
                format!("--pe {text}: the one engine is sip, which needs -u"),
            ),
            "-o" | "--ops" if protocol == "UDP" => {
                spec.insert("packetScheduling".to_owned(), json!("OnePacket"));
            }
            "-o" | "--ops" => note(Fate::NotOffered, "-o needs -u".to_owned()),
            _ => {}
        }
    }
    for (_, argument) in options
        .iter()
        .filter(|(word, _)| matches!(word.as_str(), "-b" | "--sched-flags"))
    {
        for flag in argument.as_deref().unwrap_or("").split(',') {
            let name = scheduler["name"].as_str().unwrap_or("wlc").to_owned();
            let hash = matches!(name.as_str(), "sh" | "mh");
            match flag {
                "flag-2" | "sh-port" | "mh-port" if hash => {
                    scheduler["options"] = json!([format!("{name}-port")]);
                }
                "flag-1" | "sh-fallback" | "mh-fallback" if hash => {}
                other => note(
                    Fate::NotOffered,
                    format!("flag {other} of scheduler {name}"),
                ),
            }
        }
    }
    if number == 0 && persistence.is_none() && matches!(key, Key::Address(..)) {
        return Err("all ports need -p".to_owned());
    }
    if scheduler != json!({}) {
        spec.insert("scheduler".to_owned(), scheduler);
    }
    if let Some(persistence) = persistence {
        spec.insert("persistence".to_owned(), persistence);
    }
    spec.insert(
        "healthChecks".to_owned(),
        json!([{"name": "none", "type": "None"}]),
    );
    ledger.note(
        line,
        Fate::Translated,
        format!("VirtualService {name}"),
        "no health checks, as ipvsadm makes none",
    );
    // ipvsadm's default is -g; that of the first real server counts.
    Ok(Known {
        key,
        service: Service {
            line,
            name,
            spec,
            forwarding: Value::Null,
            port: number,
            servers: Vec::new(),
            other_targets: Vec::new(),
        },
    })
}

fn server(
    ledger: &mut Ledger,
    line: LineIndex,
    words: &[&str],
    known: &mut [Known],
) -> Result<(), String> {
    let options = options(words, &["service", "server"])?;
    let key = key(&options)?;
    let service = known
        .iter_mut()
        .find(|known| known.key == key)
        .ok_or("no service before it is the one that it names")?;
    let service = &mut service.service;
    let target = options
        .iter()
        .rfind(|(word, _)| matches!(word.as_str(), "-r" | "--real-server"))
        .and_then(|(_, argument)| argument.as_deref())
        .ok_or("no real server is named by -r")?;
    let (address, number) =
        endpoint(target).ok_or_else(|| format!("{target:?} is no address and port"))?;
    let address = unicast(address).ok_or_else(|| format!("{address:?} is no address that directors can reach; names are written as addresses by ipvsadm --numeric"))?;
    let mut weight = 1;
    let mut upper = 0;
    let mut lower = 0;
    let mut method = "DR";
    let mut tunnel_type = "";
    let mut tunnel_port = None;
    let mut checksum = None;
    for (word, argument) in &options {
        let text = argument.as_deref().unwrap_or("");
        let mut limit = |target: &mut u32, most: u32| match bounded(text, 0, most) {
            Some((value, changed)) => {
                *target = value;
                if changed {
                    ledger.note(
                        line,
                        Fate::Changed,
                        "",
                        format!("{word} {value} instead of {text}"),
                    );
                }
            }
            None => ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!("{word} {text:?} is no number"),
            ),
        };
        match word.as_str() {
            "-w" | "--weight" => limit(&mut weight, 65_535),
            "-x" | "--u-threshold" => limit(&mut upper, 2_147_483_647),
            "-y" | "--l-threshold" => limit(&mut lower, 2_147_483_647),
            "-g" | "--gatewaying" => method = "DR",
            "-i" | "--ipip" => method = "TUN",
            "-m" | "--masquerading" => method = "NAT",
            "--tun-type" => tunnel_type = text,
            "--tun-port" => tunnel_port = port(text),
            "--tun-nocsum" => checksum = Some("nocsum"),
            "--tun-csum" => checksum = Some("csum"),
            "--tun-remcsum" => checksum = Some("remcsum"),
            _ => {}
        }
    }
    let forwarding = if method == "TUN" {
        tunnel(tunnel_type, tunnel_port.filter(|port| *port != 0), checksum)
            .ok_or("not a tunnel that the kernel has")?
    } else {
        forwarding(method)
    };
    if lower > upper {
        ledger.note(
            line,
            Fate::Changed,
            "",
            format!("-y 0 instead of {lower}, as it is above -x"),
        );
        lower = 0;
    }
    if number != service.port && number != 0 && (service.port == 0 || !is_nat(&forwarding)) {
        ledger.note(
            line,
            Fate::Changed,
            "",
            "the port stays what the client has asked for, as in IPVS",
        );
    }
    if service.servers.is_empty() {
        service.forwarding = forwarding.clone();
    }
    service.servers.push(Server {
        line,
        host: Host::Address(address),
        port: number,
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        forwarding,
        thresholds: (upper, lower),
        disabled: false,
        checks: Vec::new(),
    });
    Ok(())
}
