//! Global definitions that VirtualRouters have fields for.

use std::net::IpAddr;

use serde_json::{Map, json};

use super::super::quantity::{bounded, digits, seconds};
use super::super::report::{Fate, Ledger};
use super::router::{Router, is_device, logical, read};
use super::take;
use super::tree::Directive;

/// Reads the global definitions that routers have fields for.
pub fn global_defs(ledger: &mut Ledger, directive: &Directive, routers: &mut [Router]) {
    take(ledger, "top", directive, "");
    directive.note_braces(ledger);
    let all: Vec<String> = routers.iter().map(|router| router.name.clone()).collect();
    let object = all.join(", ");
    for child in &directive.children {
        if !take(ledger, "global_defs", child, &object) {
            continue;
        }
        if routers.is_empty() {
            ledger.note(
                child.line,
                Fate::Changed,
                "",
                "there is no vrrp_instance: set it in the default VirtualRouter",
            );
            continue;
        }
        match child.keyword() {
            "vrrp_garp_master_repeat" => {
                every(ledger, routers, child, 1, 20, |router| &mut router.burst);
            }
            "vrrp_garp_master_refresh" => every(ledger, routers, child, 0, 3600, |router| {
                &mut router.refresh
            }),
            "vrrp_min_garp" => routers.iter_mut().for_each(|router| {
                router.burst.get_or_insert(1);
            }),
            "vrrp_garp_interval" => {
                let milliseconds = child
                    .argument(0)
                    .parse::<f64>()
                    .ok()
                    .filter(|seconds| (0.0..=1000.0).contains(seconds))
                    .map(|seconds| seconds * 1000.0);
                match milliseconds {
                    Some(milliseconds) => {
                        let kept = digits(&format!("{:.0}", milliseconds.clamp(10.0, 1000.0)))
                            .and_then(|number| u32::try_from(number).ok());
                        for router in routers.iter_mut() {
                            router.interval = router.interval.or(kept);
                        }
                    }
                    None => ledger.note(child.line, Fate::NotOffered, "", "no number of seconds"),
                }
            }
            "lvs_timeouts" => timeouts(ledger, child, routers),
            "lvs_sync_daemon" => sync_daemon(ledger, child, routers),
            _ => {}
        }
    }
}

/// A value that every router without one of its own has.
fn every(
    ledger: &mut Ledger,
    routers: &mut [Router],
    directive: &Directive,
    least: u32,
    most: u32,
    field: impl Fn(&mut Router) -> &mut Option<u32>,
) {
    let mut value = None;
    read(ledger, directive, least, most, &mut value);
    for router in routers {
        let field = field(router);
        *field = field.or(value);
    }
}

fn timeouts(ledger: &mut Ledger, directive: &Directive, routers: &mut [Router]) {
    let mut value = json!({});
    let mut words = directive.arguments().iter().map(String::as_str);
    while let Some(word) = words.next() {
        let field = match word {
            "tcp" => "tcpSeconds",
            "tcpfin" => "tcpFinSeconds",
            "udp" => "udpSeconds",
            _ => {
                ledger.note(
                    directive.line,
                    Fate::NotOffered,
                    "",
                    format!("{word:?} is none of tcp, tcpfin, udp"),
                );
                continue;
            }
        };
        match seconds(words.next().unwrap_or(""), 1, 2_147_483) {
            Some((number, _)) => value[field] = json!(number),
            None => ledger.note(
                directive.line,
                Fate::NotOffered,
                "",
                format!("{word} has no number"),
            ),
        }
    }
    let set = value.as_object().map_or(0, Map::len);
    if set == 0 {
        return;
    }
    if set < 3 {
        ledger.note(
            directive.line,
            Fate::Changed,
            "",
            "what is not named is 900, 120 and 300 s",
        );
    }
    for router in routers {
        router.timeouts = Some(value.clone());
    }
}

/// `IF [[inst] NAME] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]`
fn sync_daemon(ledger: &mut Ledger, directive: &Directive, routers: &mut [Router]) {
    let device = directive.argument(0);
    if !is_device(device) {
        ledger.note(
            directive.line,
            Fate::NotOffered,
            "",
            "not the name of a device",
        );
        return;
    }
    let mut daemon = json!({"interfaceName": logical(device)});
    let mut instance = None;
    let mut words = directive.arguments().iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        let (field, least, most) = match word {
            "id" => ("syncID", 1, 255),
            "maxlen" => ("maximumLength", 1024, 65_487),
            "port" => ("port", 1, 65_535),
            "ttl" => ("ttl", 1, 255),
            "group" => {
                match words.next().unwrap_or("").parse::<IpAddr>() {
                    Ok(address) if address.is_multicast() => {
                        daemon["group"] = json!(address.to_string());
                    }
                    _ => ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        "group: not a multicast address",
                    ),
                }
                continue;
            }
            "inst" => {
                instance = words.next();
                continue;
            }
            name => {
                instance = Some(name);
                continue;
            }
        };
        let text = words.next().unwrap_or("");
        match bounded(text, least, most) {
            Some((number, changed)) if !(changed && field == "syncID") => {
                daemon[field] = json!(number);
                if changed {
                    ledger.note(
                        directive.line,
                        Fate::Changed,
                        "",
                        format!("{word} {number} instead of {text}"),
                    );
                }
            }
            _ => ledger.note(
                directive.line,
                Fate::Changed,
                "",
                format!("{word} {text:?}: the default, or virtualRouterID"),
            ),
        }
    }
    let index = if let Some(name) = instance {
        routers
            .iter()
            .position(|router| router.instances.iter().any(|known| known == name))
    } else {
        ledger.note(
            directive.line,
            Fate::Changed,
            "",
            "master and backup follow the first VirtualRouter of the file",
        );
        Some(0)
    };
    match index.and_then(|index| routers.get_mut(index)) {
        Some(router) => {
            router.device(device);
            router.sync = Some(daemon);
        }
        None => ledger.note(
            directive.line,
            Fate::NotOffered,
            "",
            "no vrrp_instance of this name",
        ),
    }
}
