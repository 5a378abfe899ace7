//! Which changes of real servers people are told of: each once, and no more of a VirtualService than they can read.
//!
//! What was told last is compared with what is so now, so that nothing is told twice and what has gone by untold never is.
//! A state that nobody knows, as while an agent starts, changes nothing; nor does one that somebody asked for.
//! Certificates that expire have a ration of their own.

mod certificate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvs_crds::condition::Reason;
use lvs_crds::real_server::{RealServerState, RealServerStatus};

use super::Report;
use crate::input::ObjectKey;

/// Told of one VirtualService at once at most.
const AT_ONCE: u32 = 10;
/// Then one more after each time of this length.
const ONE_MORE: Duration = Duration::from_secs(30);
/// Real servers that a summary names.
const NAMED: usize = 3;

/// Something that happened to real servers of a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The VirtualService.
    pub virtual_service: ObjectKey,
    /// RealServerDown, RealServerUp or CertificateExpires.
    pub reason: Reason,
    /// Who, and why.
    pub note: String,
    /// The RealServer; none of a summary.
    pub real_server: Option<String>,
}

/// One port of one address of a RealServer, as one VirtualService uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    real_server: String,
    address: String,
    port: u16,
    port_name: Option<String>,
}

/// `web-1 (192.0.2.21:80)`.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            real_server,
            address,
            port,
            ..
        } = self;
        if address.contains(':') {
            write!(formatter, "{real_server} ([{address}]:{port})")
        } else {
            write!(formatter, "{real_server} ({address}:{port})")
        }
    }
}

/// What is known of a place.
struct Seen {
    /// Whether it is up; nothing while nobody knows, or somebody wanted it otherwise.
    standing: Option<Standing>,
    /// When the certificate expires that is to be warned of.
    certificate_expiry: Option<Time>,
}

/// Whether a place is up.
struct Standing {
    is_up: bool,
    message: String,
}

/// How much may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowance {
    /// How many may be told now.
    left: u32,
    /// Since when the next grows.
    since: Duration,
}

impl Allowance {
    const fn new(now: Duration) -> Self {
        Self {
            left: AT_ONCE,
            since: now,
        }
    }

    /// What has grown until now.
    fn grow(&mut self, now: Duration) {
        while self.left < AT_ONCE && now >= self.since + ONE_MORE {
            self.left += 1;
            self.since += ONE_MORE;
        }
    }

    /// Of so many changes, how many are told each by itself; the last one of the ration tells of the rest.
    fn single(&self, changes: usize) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if changes <= left {
            changes
        } else {
            left.saturating_sub(1)
        }
    }

    /// So many are told now.
    fn take(&mut self, count: usize, now: Duration) {
        if self.left == AT_ONCE {
            self.since = now;
        }
        let count = u32::try_from(count).unwrap_or(self.left);
        self.left = self.left.saturating_sub(count);
    }

    /// When what waits can be told.
    fn due(&self, waits: bool) -> Option<Duration> {
        waits.then(|| self.since + ONE_MORE)
    }
}

/// What is remembered of a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ration {
    /// Whether each place was up when that was told last, or first seen.
    told: BTreeMap<Place, bool>,
    states: Allowance,
    /// When the certificate of each place expires that was warned of last, if any was.
    told_certificates: BTreeMap<Place, Option<Time>>,
    certificates: Allowance,
}

/// What was told so far. It begins with the statuses that are stored, so that a controller that starts tells nothing anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rationed {
    rations: BTreeMap<ObjectKey, Ration>,
    /// When what waits is to be looked at again.
    next: Option<Duration>,
}

impl Rationed {
    /// What is to be told at `now`, a time since any fixed moment. `stored` is the status of a RealServer as it was written
    /// last: what was not seen before was so before.
    pub fn tell<'a>(
        &mut self,
        report: &Report,
        stored: impl Fn(&ObjectKey) -> Option<&'a RealServerStatus>,
        now: Duration,
    ) -> Vec<Telling> {
        let mut standings: BTreeMap<ObjectKey, BTreeMap<Place, Seen>> = BTreeMap::new();
        let mut before: BTreeMap<ObjectKey, BTreeMap<Place, Seen>> = BTreeMap::new();
        for (key, of_real_server) in &report.real_servers {
            collect(key, &of_real_server.status, &mut standings);
            if let Some(status) = stored(key) {
                collect(key, status, &mut before);
            }
        }
        self.rations.retain(|key, _| standings.contains_key(key));
        self.next = None;
        let mut tellings = Vec::new();
        for (key, places) in standings {
            let before = before.remove(&key).unwrap_or_default();
            let ration = self.rations.entry(key.clone()).or_insert(Ration {
                told: BTreeMap::new(),
                states: Allowance::new(now),
                told_certificates: BTreeMap::new(),
                certificates: Allowance::new(now),
            });
            tellings.extend(ration.tell(&key, &places, &before, now));
            tellings.extend(ration.tell_certificates(&key, &places, &before, now));
            let states = ration.states.due(ration.changes(&places).next().is_some());
            let certificates = ration
                .certificates
                .due(ration.new_certificates(&places).next().is_some());
            self.next = [self.next, states, certificates]
                .into_iter()
                .flatten()
                .min();
        }
        tellings
    }

    /// When [`Rationed::tell`] has something to say by time alone.
    pub const fn next(&self) -> Option<Duration> {
        self.next
    }
}

impl Ration {
    fn tell(
        &mut self,
        key: &ObjectKey,
        places: &BTreeMap<Place, Seen>,
        before: &BTreeMap<Place, Seen>,
        now: Duration,
    ) -> Vec<Telling> {
        self.told.retain(|place, _| places.contains_key(place));
        for (place, seen) in places {
            let stored = before.get(place).and_then(|seen| seen.standing.as_ref());
            let Some(known) = stored.or(seen.standing.as_ref()) else {
                continue;
            };
            let told = self.told.entry(place.clone());
            told.or_insert(known.is_up);
        }
        self.states.grow(now);
        let changes: Vec<(&Place, &Standing)> = self.changes(places).collect();
        if changes.is_empty() || self.states.left == 0 {
            return Vec::new();
        }
        let single = self.states.single(changes.len());
        let (each, rest) = changes.split_at(single);
        let mut tellings: Vec<Telling> = each
            .iter()
            .map(|(place, standing)| one(key, place, standing))
            .collect();
        tellings.extend(summary(key, rest));
        let told: Vec<(Place, bool)> = changes
            .iter()
            .map(|(place, standing)| ((*place).clone(), standing.is_up))
            .collect();
        self.states.take(tellings.len(), now);
        self.told.extend(told);
        tellings
    }

    /// What is not as it was told last.
    fn changes<'a>(
        &'a self,
        places: &'a BTreeMap<Place, Seen>,
    ) -> impl Iterator<Item = (&'a Place, &'a Standing)> {
        places.iter().filter_map(|(place, seen)| {
            let standing = seen.standing.as_ref()?;
            let told = self.told.get(place)?;
            (*told != standing.is_up).then_some((place, standing))
        })
    }
}

/// Adds the places of a RealServer, by VirtualService. Nothing is known of one that is not up or down.
fn collect(
    key: &ObjectKey,
    status: &RealServerStatus,
    standings: &mut BTreeMap<ObjectKey, BTreeMap<Place, Seen>>,
) {
    for by in &status.virtual_services {
        let service = ObjectKey::new(key.namespace.clone(), by.name.clone());
        let places = standings.entry(service).or_default();
        for port in &by.ports {
            let place = Place {
                real_server: key.name.clone(),
                address: port.address.clone(),
                port: port.port,
                port_name: port.name.clone(),
            };
            let is_up = match port.state {
                RealServerState::Up => Some(true),
                RealServerState::Down => Some(false),
                RealServerState::Draining
                | RealServerState::Disabled
                | RealServerState::Unknown => None,
            };
            let standing = is_up.map(|is_up| Standing {
                is_up,
                message: port.message.clone(),
            });
            let seen = Seen {
                standing,
                certificate_expiry: port.certificate_expiry_time.clone(),
            };
            places.insert(place, seen);
        }
    }
}

const fn reason(is_up: bool) -> Reason {
    if is_up {
        Reason::RealServerUp
    } else {
        Reason::RealServerDown
    }
}

fn one(key: &ObjectKey, place: &Place, standing: &Standing) -> Telling {
    let note = match (standing.is_up, standing.message.as_str()) {
        (true, _) => format!("{place} is up"),
        (false, "") => format!("{place} is down"),
        (false, message) => format!("{place} is down: {message}"),
    };
    Telling {
        virtual_service: key.clone(),
        reason: reason(standing.is_up),
        note,
        real_server: Some(place.real_server.clone()),
    }
}

/// What there is no room for one by one.
fn summary(key: &ObjectKey, rest: &[(&Place, &Standing)]) -> Option<Telling> {
    let names = |is_up: bool| -> BTreeSet<&str> {
        let concerned = rest.iter().filter(|(_, standing)| standing.is_up == is_up);
        concerned
            .map(|(place, _)| place.real_server.as_str())
            .collect()
    };
    let words = |is_up: bool| {
        let names = names(is_up);
        let (count, verb) = match names.len() {
            0 => return None,
            1 => ("1 more real server".to_owned(), "is"),
            more => (format!("{more} more real servers"), "are"),
        };
        let state = if is_up { "up" } else { "down" };
        Some(format!("{count} {verb} {state}: {}", names_shown(&names)))
    };
    let is_up = names(false).is_empty();
    let note: Vec<String> = [words(false), words(true)].into_iter().flatten().collect();
    (!note.is_empty()).then(|| Telling {
        virtual_service: key.clone(),
        reason: reason(is_up),
        note: note.join("; "),
        real_server: None,
    })
}

/// The first of them.
fn names_shown(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).copied().collect();
    let dots = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{dots}", shown.join(", "))
}
