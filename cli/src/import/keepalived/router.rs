//! VRRP instances and their groups, as VirtualRouters.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::Node;
use super::super::draft::unique;
use super::super::quantity::{bounded, label, seconds, unicast};
use super::super::report::{Fate, Ledger, LineIndex};
use super::tree::Directive;
use super::{of, take};

/// An address that a router holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) device: Option<String>,
    /// Whether a virtual server uses it.
    pub(super) served: bool,
}

/// A VirtualRouter to be.
#[derive(Clone, Debug, Default)]
pub struct Router {
    pub(super) line: LineIndex,
    /// Name of the object.
    pub name: String,
    /// Names of its vrrp_instances.
    pub(super) instances: Vec<String>,
    pub(super) devices: Vec<String>,
    pub(super) held: Vec<Held>,
    pub(super) priority: Option<u32>,
    /// What positive weights of tracked interfaces add while these are up.
    pub(super) raise: u32,
    pub(super) preempt: Option<bool>,
    pub(super) preempt_delay: u32,
    pub(super) virtual_router_id: Option<u32>,
    pub(super) virtual_mac: bool,
    /// Device and delta.
    pub(super) tracked: Vec<(String, i64)>,
    pub(super) burst: Option<u32>,
    pub(super) interval: Option<u32>,
    pub(super) refresh: Option<u32>,
    pub(super) sync: Option<Value>,
    pub(super) timeouts: Option<Value>,
}

const MOST_ADDRESSES: usize = 64;

/// Routers of a file: one for each sync group and for each instance without one.
pub fn routers(ledger: &mut Ledger, directives: &[Directive], node: &Node<'_>) -> Vec<Router> {
    let mut taken = BTreeSet::new();
    let mut routers: Vec<Router> = Vec::new();
    let instances: BTreeSet<&str> = of(directives, "vrrp_instance")
        .map(|instance| instance.argument(0))
        .collect();
    for group in of(directives, "vrrp_sync_group") {
        let name = unique(&label(group.argument(0), 44, "router"), &mut taken);
        let mut router = Router {
            line: group.line,
            name: name.clone(),
            ..Router::default()
        };
        ledger.note(
            group.line,
            Fate::Translated,
            format!("VirtualRouter {name}"),
            "its addresses move as one",
        );
        group.note_braces(ledger);
        let mut member = |ledger: &mut Ledger, directive: &Directive| {
            for word in &directive.words {
                if instances.contains(word.as_str()) {
                    router.instances.push(word.clone());
                    ledger.note(
                        directive.line,
                        Fate::Translated,
                        format!("VirtualRouter {name}"),
                        "",
                    );
                } else {
                    ledger.note(
                        directive.line,
                        Fate::NotOffered,
                        "",
                        format!("no vrrp_instance is called {word:?}"),
                    );
                }
            }
            directive.note_braces(ledger);
        };
        let mut tracked = Vec::new();
        for child in &group.children {
            if child.keyword() == "group" {
                take(ledger, "vrrp_sync_group", child, &name);
                child.note_braces(ledger);
                for inner in &child.children {
                    member(ledger, inner);
                }
            } else if instances.contains(child.keyword()) {
                member(ledger, child);
            } else if take(ledger, "vrrp_sync_group", child, &name)
                && child.keyword() == "track_interface"
            {
                tracked.push(child);
            }
        }
        for child in tracked {
            router.track(ledger, child);
        }
        routers.push(router);
    }
    for instance in of(directives, "vrrp_instance") {
        let name = instance.argument(0);
        let index = if let Some(index) = routers
            .iter()
            .position(|router| router.instances.iter().any(|known| known == name))
        {
            index
        } else {
            let object = unique(&label(name, 44, "router"), &mut taken);
            routers.push(Router {
                line: instance.line,
                name: object,
                instances: vec![name.to_owned()],
                ..Router::default()
            });
            routers.len() - 1
        };
        if let Some(router) = routers.get_mut(index) {
            router.instance(ledger, instance, node);
        }
    }
    routers
}

impl Router {
    /// Whether one of its instances has this address.
    pub fn holds(&self, address: &IpAddr) -> bool {
        self.held.iter().any(|held| held.address == *address)
    }

    /// A virtual server uses this address.
    pub fn serve(&mut self, address: IpAddr) {
        match self.held.iter_mut().find(|held| held.address == address) {
            Some(held) => held.served = true,
            None => self.held.push(Held {
                address,
                device: None,
                served: true,
            }),
        }
    }

    /// Addresses that no virtual server uses, of those that fit.
    pub fn unserved(&self, most: usize, fits: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
        self.held
            .iter()
            .filter(|held| !held.served && fits(&held.address))
            .map(|held| held.address)
            .take(most)
            .collect()
    }

    fn instance(&mut self, ledger: &mut Ledger, instance: &Directive, node: &Node<'_>) {
        let object = self.name.clone();
        ledger.note(
            instance.line,
            Fate::Translated,
            format!("VirtualRouter {object}"),
            "",
        );
        instance.note_braces(ledger);
        let device = of(&instance.children, "interface")
            .last()
            .map(|child| child.argument(0).to_owned())
            .filter(|device| is_device(device));
        if let Some(device) = &device {
            self.device(device);
        }
        for child in &instance.children {
            if !take(ledger, "vrrp_instance", child, &object) {
                continue;
            }
            let text = child.argument(0);
            let mut wrong = |why: &str| ledger.note(child.line, Fate::NotOffered, "", why);
            match child.keyword() {
                "interface" if !is_device(text) => wrong("not the name of a device"),
                "priority" => match bounded(text, 1, 254) {
                    Some((value, changed)) => {
                        if changed {
                            ledger.note(
                                child.line,
                                Fate::Changed,
                                "",
                                format!("{value}: nobody owns an address"),
                            );
                        }
                        keep_first(ledger, child, value, &mut self.priority);
                        if node.name.is_none() {
                            ledger.note(
                                child.line,
                                Fate::NotOffered,
                                "",
                                "which node it is for is not known: name it by --node-name",
                            );
                        }
                    }
                    None => wrong("not a priority of 1..254"),
                },
                "virtual_router_id" => match bounded(text, 1, 255) {
                    Some((value, false)) => {
                        keep_first(ledger, child, value, &mut self.virtual_router_id);
                    }
                    Some(_) | None => wrong("not within 1..255"),
                },
                "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                    child.note_braces(ledger);
                    for entry in &child.children {
                        self.address(ledger, entry, device.as_deref());
                    }
                }
                "nopreempt" => self.preempt = Some(false),
                "preempt" => self.preempt = Some(true),
                "preempt_delay" => match seconds(text, 0, 3600) {
                    Some((value, _)) => self.preempt_delay = value,
                    None => wrong("no number"),
                },
                "use_vmac" => {
                    self.virtual_mac = true;
                    if !text.is_empty() {
                        ledger.note(
                            child.line,
                            Fate::Changed,
                            "",
                            "the agent names the device, and makes the MAC from virtualRouterID",
                        );
                    }
                }
                "track_interface" => self.track(ledger, child),
                "garp_master_repeat" => read(ledger, child, 1, 20, &mut self.burst),
                "garp_master_refresh" => read(ledger, child, 0, 3600, &mut self.refresh),
                "lvs_sync_daemon_interface" => {
                    if is_device(text) {
                        self.device(text);
                        self.sync = Some(json!({"interfaceName": logical(text)}));
                    } else {
                        wrong("not the name of a device");
                    }
                }
                _ => {}
            }
        }
        if self.preempt.is_none() {
            self.preempt = Some(true);
        }
    }

    pub(super) fn device(&mut self, device: &str) {
        if !self.devices.iter().any(|known| known == device) {
            self.devices.push(device.to_owned());
        }
    }

    fn address(&mut self, ledger: &mut Ledger, entry: &Directive, device: Option<&str>) {
        let first = entry.keyword();
        let (text, length) = first.split_once('/').unwrap_or((first, ""));
        let Some(address) = unicast(text) else {
            entry.note_all(
                ledger,
                Fate::NotOffered,
                "",
                "not an address that clients can reach",
            );
            return;
        };
        let mut device = device.map(str::to_owned);
        let mut left_out: Vec<&str> = Vec::new();
        let mut words = entry.arguments().iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "dev" => match words.next() {
                    Some(name) if is_device(name) => device = Some(name.to_owned()),
                    _ => left_out.push(word),
                },
                "-nodad" | "home" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "no_track"
                | "use_vmac" => {}
                "brd" | "broadcast" | "scope" | "label" | "peer" | "preferred_lft"
                | "track_group" => {
                    words.next();
                    left_out.push(word);
                }
                _ => left_out.push(word),
            }
        }
        if self.holds(&address) {
            ledger.note(
                entry.line,
                Fate::Translated,
                "",
                format!("{address} is held already"),
            );
            return;
        }
        if self.held.len() >= MOST_ADDRESSES {
            ledger.note(entry.line, Fate::NotOffered, "", format!("a VirtualRouter holds {MOST_ADDRESSES} addresses from one file: make another of the rest"));
            return;
        }
        let host = if address.is_ipv4() { 32 } else { 128 };
        ledger.note(
            entry.line,
            Fate::Translated,
            format!("VirtualRouter {}", self.name),
            "",
        );
        if !length.is_empty() && length != host.to_string() {
            ledger.note(
                entry.line,
                Fate::Changed,
                "",
                format!("held with /{host}, so that no route to a network comes and goes with it"),
            );
        }
        if !left_out.is_empty() {
            ledger.note(
                entry.line,
                Fate::NotOffered,
                "",
                format!(
                    "{}: the agent holds an address in one way",
                    left_out.join(", ")
                ),
            );
        }
        if let Some(device) = &device {
            self.device(device);
        }
        self.held.push(Held {
            address,
            device,
            served: false,
        });
    }

    fn track(&mut self, ledger: &mut Ledger, directive: &Directive) {
        directive.note_braces(ledger);
        for entry in &directive.children {
            let name = entry.keyword();
            if !is_device(name) {
                entry.note_all(ledger, Fate::NotOffered, "", "not the name of a device");
                continue;
            }
            let weight = match entry.arguments() {
                [] => Some(0),
                [word, weight, ..] if word == "weight" => weight
                    .parse::<i64>()
                    .ok()
                    .filter(|weight| weight.abs() <= 254),
                _ => None,
            };
            let Some(weight) = weight else {
                entry.note_all(ledger, Fate::NotOffered, "", "not a weight of -253..253");
                continue;
            };
            if entry.arguments().iter().any(|word| word == "reverse") {
                entry.note_all(
                    ledger,
                    Fate::NotOffered,
                    "",
                    "a link that is up costs nothing",
                );
                continue;
            }
            let weight = weight.clamp(-253, 253);
            if self.tracked.iter().any(|(known, _)| known == name) {
                ledger.note(
                    entry.line,
                    Fate::Translated,
                    "",
                    format!("{name} is tracked already"),
                );
                continue;
            }
            self.device(name);
            self.tracked.push((name.to_owned(), -weight.abs()));
            let field = format!("VirtualRouter {} spec.tracking.interfaces", self.name);
            if weight > 0 {
                self.raise = self
                    .raise
                    .saturating_add(u32::try_from(weight).unwrap_or(0));
                ledger.note(
                    entry.line,
                    Fate::Translated,
                    field,
                    format!(
                        "{} off while it is down, and {weight} more in spec.directors[].priority",
                        -weight
                    ),
                );
            } else {
                ledger.note(entry.line, Fate::Translated, field, "");
            }
        }
    }
}

/// The vrrp_instances of a group become one router, which has one of each number: that of the first.
fn keep_first(ledger: &mut Ledger, directive: &Directive, value: u32, kept: &mut Option<u32>) {
    let known = *kept.get_or_insert(value);
    if known != value {
        ledger.note(
            directive.line,
            Fate::Changed,
            "",
            format!("{known}, that of the group's first vrrp_instance"),
        );
    }
}

pub(super) fn read(
    ledger: &mut Ledger,
    directive: &Directive,
    least: u32,
    most: u32,
    target: &mut Option<u32>,
) {
    let text = directive.argument(0);
    if let Some(value) = ledger.kept(directive.line, text, seconds(text, least, most)) {
        *target = Some(value);
    }
}

/// Name of a logical interface for a device.
pub(super) fn logical(device: &str) -> String {
    label(device, 63, "device")
}

/// What the kernel takes for the name of a device.
pub(super) fn is_device(text: &str) -> bool {
    (1..=15).contains(&text.chars().count())
        && text != "."
        && text != ".."
        && !text.contains(['/', ':'])
        && !text.chars().any(char::is_whitespace)
}
