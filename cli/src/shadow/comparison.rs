//! Two tables, service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, Service, ServiceFlags, ServiceKey,
    ServiceState,
};
use serde::Serialize;

use super::ours::Ours;
use super::saved::Saved;
use crate::live::table::{Cell, Paint, Table};

/// How a service, or a destination, compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// In both, and the same.
    Equal,
    /// In both, and another.
    Different,
    /// Only in the table that was given.
    OnlyTheirs,
    /// Only in ours.
    OnlyOurs,
}

/// One thing that is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Destination, address and port; unset where it is about the service itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What is another.
    pub what: &'static str,
    /// There, in ipvsadm's words; unset where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<String>,
    /// Here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<String>,
    /// Where it comes from, as far as the tables tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceComparison {
    /// As ipvsadm names it.
    pub service: String,
    /// The VirtualService that it is of, with its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<String>,
    /// How it compares.
    pub state: State,
    /// What is another, where it is in both.
    pub differences: Vec<Difference>,
}

/// Two tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Whether they are equal.
    pub is_equal: bool,
    /// Every service of both, sorted.
    pub services: Vec<ServiceComparison>,
    /// What stands against objects, in words.
    pub problems: Vec<String>,
    /// What has to be said beside.
    pub notes: Vec<String>,
}

/// Compares them.
pub fn compare(theirs: &Saved, ours: &Ours) -> Comparison {
    let keys: BTreeSet<&ServiceKey> = theirs.services.keys().chain(ours.services.keys()).collect();
    let mut has_thresholds = false;
    let services: Vec<ServiceComparison> = keys
        .into_iter()
        .map(|key| {
            let (there, here) = (theirs.services.get(key), ours.services.get(key));
            let (state, differences) = match (there, here) {
                (Some(there), Some(here)) => {
                    let mut here = here.clone();
                    if !theirs.says_thresholds {
                        has_thresholds |= without_thresholds(&mut here);
                    }
                    let differences = of_service(there, &here);
                    let state = if differences.is_empty() {
                        State::Equal
                    } else {
                        State::Different
                    };
                    (state, differences)
                }
                (Some(_), None) => (State::OnlyTheirs, Vec::new()),
                (None, _) => (State::OnlyOurs, Vec::new()),
            };
            ServiceComparison {
                service: key.to_string(),
                virtual_service: ours.owners.get(key).cloned(),
                state,
                differences,
            }
        })
        .collect();
    let mut notes = Vec::new();
    if has_thresholds {
        notes.push(
            "limits of connections are not compared, as ipvsadm -Sn does not write them".to_owned(),
        );
    }
    Comparison {
        is_equal: services.iter().all(|one| one.state == State::Equal),
        services,
        problems: ours.problems.clone(),
        notes,
    }
}

/// Forgets limits of connections; whether there were any.
fn without_thresholds(state: &mut ServiceState) -> bool {
    let mut had = false;
    for (_, destination) in &mut state.destinations {
        had |= (destination.upper_threshold, destination.lower_threshold) != (0, 0);
        (destination.upper_threshold, destination.lower_threshold) = (0, 0);
    }
    had
}

fn of_service(theirs: &ServiceState, ours: &ServiceState) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut add = |what, theirs: Option<String>, ours: Option<String>, why| {
        if theirs != ours {
            differences.push(Difference {
                destination: None,
                what,
                theirs,
                ours,
                why,
            });
        }
    };
    let (there, here) = (&theirs.service, &ours.service);
    let scheduler = |service: &Service| Some(service.scheduler.clone());
    add("scheduler", scheduler(there), scheduler(here), None);
    let flags = |service: &Service| {
        let words = service.flags.scheduler_words(&service.scheduler);
        (!words.is_empty()).then(|| words.join(","))
    };
    let is_fallback = there.flags.0 | ServiceFlags::FALLBACK == here.flags.0;
    let why = "sh and mh always fall back here, to a real server that is up";
    add(
        "scheduler flags",
        flags(there),
        flags(here),
        is_fallback.then_some(why),
    );
    let timeout = |service: &Service| {
        let is_persistent = service.flags.0 & ServiceFlags::PERSISTENT != 0;
        is_persistent.then(|| format!("{} s", service.timeout_seconds))
    };
    add("persistence", timeout(there), timeout(here), None);
    let prefix = |service: &Service| Some(format!("/{}", service.prefix_length));
    add("persistence granularity", prefix(there), prefix(here), None);
    let engine = |service: &Service| service.persistence_engine.clone();
    add("persistence engine", engine(there), engine(here), None);
    let packets = |service: &Service| {
        let is_one = service.flags.0 & ServiceFlags::ONE_PACKET != 0;
        is_one.then(|| "one packet".to_owned())
    };
    add("scheduling", packets(there), packets(here), None);
    destinations(theirs, ours, &mut differences);
    differences
}

/// Destinations of both. One whose address each has once, at another port, is the same with another port.
fn destinations(theirs: &ServiceState, ours: &ServiceState, differences: &mut Vec<Difference>) {
    let mut there: BTreeMap<DestinationKey, Destination> =
        theirs.destinations.iter().copied().collect();
    let mut here: BTreeMap<DestinationKey, Destination> =
        ours.destinations.iter().copied().collect();
    let mut pairs: Vec<(DestinationKey, DestinationKey)> = there
        .keys()
        .filter(|key| here.contains_key(key))
        .map(|key| (*key, *key))
        .collect();
    let only = |these: &BTreeMap<DestinationKey, Destination>,
                those: &BTreeMap<DestinationKey, Destination>|
     -> Vec<DestinationKey> {
        let keys = these.keys().copied();
        keys.filter(|key| !those.contains_key(key)).collect()
    };
    let (left, right) = (only(&there, &here), only(&here, &there));
    for key in &left {
        let same = |keys: &[DestinationKey]| -> Vec<DestinationKey> {
            let keys = keys.iter().copied();
            keys.filter(|other| other.address == key.address).collect()
        };
        if let ([_], [other]) = (same(&left).as_slice(), same(&right).as_slice()) {
            pairs.push((*key, *other));
        }
    }
    pairs.sort_unstable();
    for (their_key, our_key) in pairs {
        let (Some(there), Some(here)) = (there.remove(&their_key), here.remove(&our_key)) else {
            continue;
        };
        of_destination((their_key, there), (our_key, here), differences);
    }
    for (key, destination) in there {
        differences.push(Difference {
            destination: Some(key.to_string()),
            what: "real server",
            theirs: Some(destination.to_string()),
            ours: None,
            why: key
                .address
                .is_loopback()
                .then_some("a sorry server is here only while it is needed"),
        });
    }
    for (key, destination) in here {
        differences.push(Difference {
            destination: Some(key.to_string()),
            what: "real server",
            theirs: None,
            ours: Some(destination.to_string()),
            why: Some("it may be down there; here it counts as up"),
        });
    }
}

fn of_destination(
    (their_key, there): (DestinationKey, Destination),
    (our_key, here): (DestinationKey, Destination),
    differences: &mut Vec<Difference>,
) {
    let mut add = |what, theirs: String, ours: String, why| {
        if theirs != ours {
            differences.push(Difference {
                destination: Some(their_key.to_string()),
                what,
                theirs: Some(theirs),
                ours: Some(ours),
                why,
            });
        }
    };
    let is_translated = [&there, &here]
        .iter()
        .any(|one| one.forwarding == DestinationForwarding::Masquerade);
    let why = "nothing for clients: with DR and TUN the port stays what they have asked for";
    add(
        "port",
        their_key.port.to_string(),
        our_key.port.to_string(),
        (!is_translated).then_some(why),
    );
    // A destination in words, without what is compared by itself.
    let forwarding = |destination: Destination| {
        let bare = Destination {
            weight: 0,
            upper_threshold: 0,
            lower_threshold: 0,
            ..destination
        };
        bare.to_string().replace(" -w 0", "")
    };
    add("forwarding", forwarding(there), forwarding(here), None);
    let why = "it may be down or drained there; here it counts as up";
    add(
        "weight",
        there.weight.to_string(),
        here.weight.to_string(),
        (there.weight == 0).then_some(why),
    );
    add(
        "upper limit",
        there.upper_threshold.to_string(),
        here.upper_threshold.to_string(),
        None,
    );
    add(
        "lower limit",
        there.lower_threshold.to_string(),
        here.lower_threshold.to_string(),
        None,
    );
}

impl Comparison {
    /// As a table, with what has to be said below it.
    pub fn text(&self, paint: Paint) -> String {
        let mut table = Table::new([
            "SERVICE",
            "VIRTUALSERVICE",
            "STATE",
            "DESTINATION",
            "WHAT",
            "THEIRS",
            "OURS",
            "WHY",
        ]);
        for service in &self.services {
            let state = match service.state {
                State::Equal => "equal",
                State::Different => "different",
                State::OnlyTheirs => "only theirs",
                State::OnlyOurs => "only ours",
            };
            let name = service.virtual_service.as_deref().unwrap_or_default();
            let mut begin: [Cell; 3] = [service.service.as_str().into(), name.into(), state.into()];
            if service.differences.is_empty() {
                let [first, second, third] = begin;
                let empty = Cell::default;
                table.row([
                    first,
                    second,
                    third,
                    empty(),
                    empty(),
                    empty(),
                    empty(),
                    empty(),
                ]);
                continue;
            }
            for difference in &service.differences {
                let [first, second, third] = std::mem::take(&mut begin);
                let or_none =
                    |text: &Option<String>| -> Cell { text.as_deref().unwrap_or("none").into() };
                table.row([
                    first,
                    second,
                    third,
                    difference.destination.as_deref().unwrap_or_default().into(),
                    difference.what.into(),
                    or_none(&difference.theirs),
                    or_none(&difference.ours),
                    difference.why.unwrap_or_default().into(),
                ]);
            }
        }
        let mut text = String::new();
        if !table.is_empty() {
            text.push_str(&table.text(paint));
        }
        for problem in &self.problems {
            // Writing to a String does not fail.
            let _ = writeln!(text, "problem: {problem}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let services = self.services.iter();
        let equal = services.filter(|one| one.state == State::Equal).count();
        let _ = writeln!(
            text,
            "{equal} of {} services are equal",
            self.services.len()
        );
        text
    }
}
