//! The fence: which director addresses are added, refreshed, deleted and announced, and when.
//!
//! Pure core of the fence thread. Addresses carry a lifetime in the kernel and are refreshed only while
//! the election permits it, so that an agent that dies, hangs or is paused loses them without doing
//! anything. For every write that puts an address into the kernel or prolongs it the thread checks the
//! time, sends, reports with the time **after** sending, and deletes what is past ([`Fence::done`]).
//!
//! A missing address is never drift here: after an expiry the next permitted refresh puts it back.

pub mod claim;
mod conflict;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lvs_crds::virtual_router::Announcement;
use serde::{Deserialize, Serialize};

use crate::election::{Hold, Lifetime, Tick, Timing};
use crate::fence::claim::{Claim, HardwareAddress};
use crate::fence::conflict::Claims;
use crate::heartbeat::Carriage;

pub use conflict::QUIET_PERIOD;
pub use progress::Progress;

/// Last moment at which an address may be added or refreshed: t0 + L − V − g.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderUntil(Tick);

impl HolderUntil {
    /// Permission until this moment, inclusive.
    pub const fn new(until: Tick) -> Self {
        Self(until)
    }

    /// Whether an address may be added or refreshed at `now`.
    pub fn permits(self, now: Tick) -> bool {
        now <= self.0
    }

    /// The last moment.
    pub const fn tick(self) -> Tick {
        self.0
    }
}

impl fmt::Display for HolderUntil {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An address of a router on a device of this node, programmed as /32 or /128.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectorAddress {
    /// Address.
    pub address: IpAddr,
    /// Device name.
    pub device: String,
}

impl fmt::Display for DirectorAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if self.address.is_ipv4() { 32 } else { 128 };
        write!(formatter, "{}/{length} dev {}", self.address, self.device)
    }
}

/// One thing to do to one address. Display is one line in the words of `ip address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add it; it must not be there yet, or it is not ours.
    Add(Lifetime),
    /// Set its lifetime, adding it when it has expired.
    Refresh(Lifetime),
    /// Delete it.
    Delete,
    /// Tell the neighbours: gratuitous ARP, or an unsolicited neighbour advertisement.
    Announce,
}

/// A step, for whom and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Router.
    pub router: String,
    /// Address.
    pub address: DirectorAddress,
    /// What.
    pub step: Step,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, lifetime) = match &self.step {
            Step::Add(lifetime) => ("addr add", Some(lifetime)),
            Step::Refresh(lifetime) => ("addr replace", Some(lifetime)),
            Step::Delete => ("addr del", None),
            Step::Announce => ("announce", None),
        };
        write!(formatter, "{verb} {}", self.address)?;
        match lifetime {
            Some(Lifetime::Seconds(seconds)) => write!(formatter, " valid_lft {seconds}"),
            Some(Lifetime::Permanent) => formatter.write_str(" valid_lft forever"),
            None => Ok(()),
        }
    }
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; for a deletion also when nothing was there.
    Done,
    /// An address to be added is there already and was not added by us.
    Foreign,
    /// The device does not exist.
    NoDevice,
    /// The kernel refused or the journal could not be written.
    Failed(String),
}

/// Why an address is not held though it should be, or is still there though it should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else's address.
    Foreign,
    /// No such device.
    NoDevice,
    /// The kernel refused.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => formatter.write_str("the address is there and was not added by us"),
            Self::NoDevice => formatter.write_str("the device does not exist"),
            Self::Failed(text) => formatter.write_str(text),
        }
    }
}

/// What the journal keeps of one router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Highest epoch this node acquired.
    pub epoch: u64,
    /// t0 of the first write of that epoch, nanoseconds of `CLOCK_BOOTTIME`.
    pub sent_at_nanoseconds: u64,
    /// Lifetime last given to the addresses, seconds; none = for ever.
    pub lifetime_seconds: Option<u32>,
    /// Whether the epoch had not been given up.
    pub held: bool,
    /// Addresses that we added or were about to add.
    pub addresses: BTreeSet<DirectorAddress>,
}

/// What the fence reports of one router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterAddresses {
    /// Epoch under which addresses are held.
    pub epoch: Option<u64>,
    /// Addresses in the kernel, refreshed as the lifetime asks.
    pub held: BTreeSet<DirectorAddress>,
    /// Addresses that we added and did not yet take away, those of an earlier process included.
    pub present: BTreeSet<DirectorAddress>,
    /// What went wrong, by address.
    pub troubles: BTreeMap<DirectorAddress, Trouble>,
    /// Held addresses that somebody else claims, and the hardware address that was said last.
    pub conflicts: BTreeMap<DirectorAddress, HardwareAddress>,
    /// How far the addresses of the newest epoch have come.
    pub progress: Progress,
}

/// Announcements of one address still to come.
#[derive(Clone, Copy, Debug)]
struct Announcements {
    burst_left: u32,
    /// The old holder may still answer until then.
    contested_until: Tick,
    /// The one after that has been sent.
    confirmed: bool,
    /// At least one has been sent since the addition.
    begun: bool,
    next: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
enum Presence {
    /// Perhaps in the kernel, from an earlier process.
    Adopted,
    /// About to be added: journaled, not yet known to be there.
    Adding,
    /// In the kernel since the refresh at this moment.
    Present {
        refreshed_at: Tick,
        lifetime: Lifetime,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    presence: Presence,
    not_before: Tick,
    announcements: Announcements,
    /// What others say of it.
    claims: Option<Claims>,
}

#[derive(Clone, Copy, Debug)]
enum Authority {
    /// The election has not decided since the start: adopted addresses are left to their lifetime.
    Undecided,
    Held(Hold),
    Dropped,
}

#[derive(Clone, Debug)]
struct RouterFence {
    settings: Option<(Timing, Announcement)>,
    authority: Authority,
    /// When the time was last looked at while it was held.
    looked_at: Tick,
    doubted_since: Option<Tick>,
    /// Highest epoch, its t0, and whether it is not given up: for the journal.
    epoch: u64,
    sent_at: Tick,
    lifetime: Lifetime,
    wanted: Option<BTreeSet<DirectorAddress>>,
    entries: BTreeMap<DirectorAddress, Entry>,
    troubles: BTreeMap<DirectorAddress, (Trouble, Tick)>,
    /// No longer planned: forgotten once its addresses are gone.
    forgotten: bool,
    progress: Progress,
}

impl RouterFence {
    fn new() -> Self {
        Self {
            settings: None,
            authority: Authority::Undecided,
            looked_at: Tick::default(),
            doubted_since: None,
            epoch: 0,
            sent_at: Tick::default(),
            lifetime: Lifetime::Seconds(0),
            wanted: None,
            entries: BTreeMap::new(),
            troubles: BTreeMap::new(),
            forgotten: false,
            progress: Progress::default(),
        }
    }

    /// The hold, when it permits at `now`.
    fn permitted(&self, now: Tick) -> Option<(Hold, Timing, Announcement)> {
        match (&self.authority, &self.settings) {
            (Authority::Held(hold), Some((timing, announcement)))
                if hold.until.permits(now) && !self.is_doubtful(now) =>
            {
                Some((*hold, *timing, announcement.clone()))
            }
            _ => None,
        }
    }

    /// Whether another may have taken over since the time was last looked at, or since an earlier doubt: the others heard
    /// no heartbeat for long enough to challenge this node, and it could not answer.
    fn is_doubtful(&self, now: Tick) -> bool {
        self.doubted_since.is_some() || self.stood_still(now)
    }

    fn stood_still(&self, now: Tick) -> bool {
        let (Authority::Held(hold), Some((timing, _))) = (&self.authority, &self.settings) else {
            return false;
        };
        // The last heartbeat was sent up to one interval before the time was looked at.
        let takeover = timing.heartbeat().map(|heartbeat| {
            (heartbeat.silence() + heartbeat.challenge_window())
                .saturating_sub(heartbeat.interval())
        });
        hold.confirmed_at.is_some()
            && takeover.is_some_and(|takeover| now.since(self.looked_at) > takeover)
    }

    /// Whether the addresses stay as they are for now, neither refreshed nor deleted.
    fn stays(&self, now: Tick) -> bool {
        match self.authority {
            Authority::Undecided => true,
            Authority::Held(hold) => hold.until.permits(now) && self.is_doubtful(now),
            Authority::Dropped => false,
        }
    }
}

/// Announcements sent per call of [`Fence::due`] at most, so that no burst delays a refresh.
const ANNOUNCEMENTS_PER_CALL: usize = 64;
/// While an old holder may still answer, announcements are at most this far apart (rule 12).
const CONTESTED_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before a failed addition or deletion is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// All routers of a node.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    routers: BTreeMap<String, RouterFence>,
    /// How late the latest refresh was.
    lateness: Duration,
    /// Routers that came into doubt and whose elections were not told yet.
    new_doubts: Vec<String>,
}

impl Fence {
    /// Begins with what the journal of an earlier process of the same boot says it added.
    pub fn new(journal: &BTreeMap<String, JournalEntry>, now: Tick) -> Self {
        let mut fence = Self::default();
        for (name, entry) in journal {
            let mut router = RouterFence::new();
            router.epoch = entry.epoch;
            router.sent_at = Tick::from_nanoseconds(entry.sent_at_nanoseconds);
            router.lifetime = entry
                .lifetime_seconds
                .map_or(Lifetime::Permanent, Lifetime::Seconds);
            if !entry.held {
                router.authority = Authority::Dropped;
            }
            for address in &entry.addresses {
                router.entries.insert(
                    address.clone(),
                    Entry {
                        presence: Presence::Adopted,
                        not_before: now,
                        announcements: Announcements::none(true, now),
                        claims: None,
                    },
                );
            }
            fence.routers.insert(name.clone(), router);
        }
        fence
    }

    /// The routers of this node, all of them. Addresses of any other are deleted.
    pub fn configure(&mut self, routers: BTreeMap<String, (Timing, Announcement)>) {
        for (name, router) in &mut self.routers {
            if !routers.contains_key(name) {
                router.authority = Authority::Dropped;
                router.forgotten = true;
            }
        }
        for (name, settings) in routers {
            let router = self.routers.entry(name).or_insert_with(RouterFence::new);
            router.settings = Some(settings);
            router.forgotten = false;
        }
        self.forget();
    }

    /// The election permits to carry the router's addresses.
    pub fn hold(&mut self, router: &str, hold: Hold) {
        if let Some(router) = self.routers.get_mut(router)
            && !router.forgotten
        {
            if router.epoch != hold.epoch || !matches!(router.authority, Authority::Held(_)) {
                router.sent_at = hold.sent_at;
                router.looked_at = hold.decided_at;
                router.doubted_since = None;
            }
            router.doubted_since = router
                .doubted_since
                .filter(|since| hold.confirmed_at.is_some_and(|at| at < *since));
            router.epoch = hold.epoch;
            router.begin_progress(hold.epoch);
            router.lifetime = hold.lifetime;
            router.authority = Authority::Held(hold);
        }
    }

    /// The election demands that the router's addresses go.
    pub fn give_up(&mut self, router: &str) {
        if let Some(router) = self.routers.get_mut(router) {
            router.authority = Authority::Dropped;
            router.progress = Progress::default();
        }
    }

    /// The addresses the router is to carry while it is held.
    pub fn want(&mut self, router: &str, addresses: BTreeSet<DirectorAddress>) {
        let router = self
            .routers
            .entry(router.to_owned())
            .or_insert_with(RouterFence::new);
        router
            .troubles
            .retain(|address, _| addresses.contains(address));
        router.wanted = Some(addresses);
    }

    /// What is to be done at `now`, in order: deletions, refreshes, additions, announcements. The journal
    /// ([`Fence::journal`]) must be written before an addition is carried out.
    pub fn due(&mut self, now: Tick) -> Vec<Action> {
        let mut deletions = Vec::new();
        let mut refreshes = Vec::new();
        let mut additions = Vec::new();
        let mut announcements = Vec::new();
        let mut lateness = None;
        for (name, router) in &mut self.routers {
            let action = |address: &DirectorAddress, step| Action {
                router: name.clone(),
                address: address.clone(),
                step,
            };
            if router.stood_still(now) {
                router.doubted_since = Some(now);
                self.new_doubts.push(name.clone());
            }
            router.looked_at = now;
            let permitted = router.permitted(now);
            let stays = router.stays(now);
            for (address, entry) in &mut router.entries {
                let unwanted = router
                    .wanted
                    .as_ref()
                    .is_some_and(|wanted| !wanted.contains(address));
                let Some((hold, timing, announcement)) = &permitted else {
                    if !stays && now >= entry.not_before {
                        deletions.push(action(address, Step::Delete));
                    }
                    continue;
                };
                if unwanted {
                    if now >= entry.not_before {
                        deletions.push(action(address, Step::Delete));
                    }
                    continue;
                }
                match entry.presence {
                    Presence::Adopted | Presence::Adding => {
                        if now >= entry.not_before {
                            refreshes.push(action(address, Step::Refresh(hold.lifetime)));
                        }
                    }
                    Presence::Present {
                        refreshed_at,
                        lifetime,
                    } => {
                        let due = refreshed_at + timing.refresh_interval();
                        let changed = lifetime != hold.lifetime;
                        let running = matches!(lifetime, Lifetime::Seconds(_)) && now >= due;
                        if (changed || running) && now >= entry.not_before {
                            lateness = lateness.max(running.then(|| now.since(due)));
                            refreshes.push(action(address, Step::Refresh(hold.lifetime)));
                        }
                    }
                }
                entry.judge_claims(timing, announcement, now);
                if announcements.len() < ANNOUNCEMENTS_PER_CALL
                    && matches!(entry.presence, Presence::Present { .. })
                    && entry.announcements.next.is_some_and(|next| now >= next)
                {
                    entry.announcements.sent(announcement, now);
                    announcements.push(action(address, Step::Announce));
                }
            }
            if let Some((hold, ..)) = &permitted {
                for address in router.wanted.iter().flatten() {
                    let waiting = router
                        .troubles
                        .get(address)
                        .is_some_and(|(_, not_before)| now < *not_before);
                    if waiting || router.entries.contains_key(address) {
                        continue;
                    }
                    additions.push(action(address, Step::Add(hold.lifetime)));
                }
                for addition in additions.iter().filter(|addition| addition.router == *name) {
                    router.entries.insert(
                        addition.address.clone(),
                        Entry {
                            presence: Presence::Adding,
                            not_before: now + RETRY_INTERVAL,
                            announcements: Announcements::none(false, now),
                            claims: None,
                        },
                    );
                }
            }
        }
        if let Some(lateness) = lateness {
            self.lateness = lateness;
        }
        self.forget();
        [deletions, refreshes, additions, announcements].concat()
    }

    /// Somebody else, by a hardware address that is none of this node's, claims an address.
    pub fn claimed(&mut self, claim: &Claim, now: Tick) {
        let entries = self
            .routers
            .values_mut()
            .flat_map(|router| &mut router.entries)
            .filter(|(address, _)| address.address == claim.address);
        for (_, entry) in entries {
            let held = matches!(entry.presence, Presence::Present { .. });
            // The old holder may still answer, and its address will go.
            if !held || now < entry.announcements.contested_until {
                continue;
            }
            match &mut entry.claims {
                Some(claims) => claims.again(claim.hardware_address, now),
                None => entry.claims = Some(Claims::first(claim.hardware_address, now)),
            }
        }
    }

    /// Whether the time still permits `action`; asked right before it is sent.
    pub fn permits(&self, action: &Action, now: Tick) -> bool {
        match action.step {
            Step::Delete => true,
            Step::Add(_) | Step::Refresh(_) | Step::Announce => self
                .routers
                .get(&action.router)
                .is_some_and(|router| router.permitted(now).is_some()),
        }
    }

    /// Reports how `action` went, with the time after it was sent. What was put into the kernel but is past
    /// by now must be deleted at once: that is returned.
    #[must_use = "the deletion that follows must be carried out"]
    pub fn done(&mut self, action: &Action, outcome: Outcome, now: Tick) -> Option<Action> {
        let router = self.routers.get_mut(&action.router)?;
        match (&action.step, outcome) {
            (Step::Announce, Outcome::Done) => {
                if let Some(entry) = router.entries.get_mut(&action.address) {
                    entry.announcements.begun = true;
                }
                None
            }
            (Step::Announce, outcome) => {
                if let Some(trouble) = Trouble::of(outcome) {
                    router
                        .troubles
                        .insert(action.address.clone(), (trouble, now));
                }
                None
            }
            (Step::Delete, Outcome::Done | Outcome::NoDevice | Outcome::Foreign) => {
                router.entries.remove(&action.address);
                router.troubles.remove(&action.address);
                self.forget();
                None
            }
            (Step::Delete, Outcome::Failed(text)) => {
                if let Some(entry) = router.entries.get_mut(&action.address) {
                    entry.not_before = now + RETRY_INTERVAL;
                }
                router
                    .troubles
                    .insert(action.address.clone(), (Trouble::Failed(text), now));
                None
            }
            (Step::Add(lifetime) | Step::Refresh(lifetime), Outcome::Done) => {
                router.troubles.remove(&action.address);
                let permitted = router.permitted(now);
                let stays = router.stays(now);
                let entry = router.entries.get_mut(&action.address)?;
                // Whoever could have learnt another way meanwhile is told anew.
                let expired = match entry.presence {
                    Presence::Adding | Presence::Adopted => true,
                    Presence::Present {
                        refreshed_at,
                        lifetime: Lifetime::Seconds(seconds),
                    } => now.since(refreshed_at) >= Duration::from_secs(seconds.into()),
                    Presence::Present {
                        lifetime: Lifetime::Permanent,
                        ..
                    } => false,
                };
                entry.presence = Presence::Present {
                    refreshed_at: now,
                    lifetime: *lifetime,
                };
                entry.not_before = now;
                let Some((_, timing, announcement)) = permitted else {
                    if stays {
                        return None;
                    }
                    return Some(Action {
                        step: Step::Delete,
                        ..action.clone()
                    });
                };
                if expired {
                    entry.announcements = Announcements::begin(&announcement, &timing, now);
                } else if entry.announcements.next.is_none() {
                    entry.announcements.next = Announcements::repeat(&announcement, now);
                }
                None
            }
            (Step::Add(_) | Step::Refresh(_), outcome) => {
                let adding = matches!(
                    router.entries.get(&action.address),
                    Some(Entry {
                        presence: Presence::Adding,
                        ..
                    })
                );
                if adding || outcome == Outcome::NoDevice {
                    // With the device the kernel loses its addresses; a failed addition left none.
                    router.entries.remove(&action.address);
                } else if let Some(entry) = router.entries.get_mut(&action.address) {
                    entry.not_before = now + Duration::from_millis(100);
                }
                if let Some(trouble) = Trouble::of(outcome) {
                    router
                        .troubles
                        .insert(action.address.clone(), (trouble, now + RETRY_INTERVAL));
                }
                None
            }
        }
    }

    /// Whether some address is on a device, or may be.
    pub fn carries(&self, device: &str) -> bool {
        let mut entries = self
            .routers
            .values()
            .flat_map(|router| router.entries.keys());
        entries.any(|address| address.device == device)
    }

    fn forget(&mut self) {
        self.routers
            .retain(|_, router| !(router.forgotten && router.entries.is_empty()));
    }

    /// When [`Fence::due`] is wanted next; none = nothing is due by time alone.
    pub fn next_wake(&self, now: Tick) -> Option<Tick> {
        self.routers
            .values()
            .filter_map(|router| router.next_wake(now))
            .min()
    }

    /// What the journal must say now.
    pub fn journal(&self) -> BTreeMap<String, JournalEntry> {
        self.routers
            .iter()
            .filter(|(_, router)| router.epoch != 0 || !router.entries.is_empty())
            .map(|(name, router)| {
                let entry = JournalEntry {
                    epoch: router.epoch,
                    sent_at_nanoseconds: router.sent_at.nanoseconds(),
                    lifetime_seconds: match router.lifetime {
                        Lifetime::Seconds(seconds) => Some(seconds),
                        Lifetime::Permanent => None,
                    },
                    held: !matches!(router.authority, Authority::Dropped),
                    addresses: router.entries.keys().cloned().collect(),
                };
                (name.clone(), entry)
            })
            .collect()
    }

    /// What is held, for status.
    pub fn report(&self) -> BTreeMap<String, RouterAddresses> {
        self.routers
            .iter()
            .map(|(name, router)| {
                let in_kernel = router
                    .entries
                    .iter()
                    .filter(|(_, entry)| matches!(entry.presence, Presence::Present { .. }));
                let report = RouterAddresses {
                    epoch: match router.authority {
                        Authority::Held(hold) => Some(hold.epoch),
                        Authority::Undecided | Authority::Dropped => None,
                    },
                    held: in_kernel.map(|(address, _)| address.clone()).collect(),
                    present: router.entries.keys().cloned().collect(),
                    troubles: router
                        .troubles
                        .iter()
                        .map(|(address, (trouble, _))| (address.clone(), trouble.clone()))
                        .collect(),
                    conflicts: router
                        .entries
                        .iter()
                        .filter_map(|(address, entry)| {
                            let claims = entry.claims.filter(Claims::is_conflict)?;
                            Some((address.clone(), claims.hardware_address))
                        })
                        .collect(),
                    progress: router.progress,
                };
                (name.clone(), report)
            })
            .collect()
    }

    /// Which of a router's addresses are in the kernel, for heartbeats: they say "all" only while each has been refreshed
    /// in time.
    pub fn carriage(&self, router: &str, now: Tick) -> Carriage {
        let Some(router) = self.routers.get(router) else {
            return Carriage::Nothing;
        };
        let (Some((_, timing, _)), Some(wanted)) = (router.permitted(now), &router.wanted) else {
            return if router.entries.is_empty() {
                Carriage::Nothing
            } else {
                Carriage::Some
            };
        };
        let in_time = |refreshed_at| now.since(refreshed_at) <= 2 * timing.refresh_interval();
        let carried = wanted
            .iter()
            .map(|address| match router.entries.get(address) {
                Some(entry) => match entry.presence {
                    Presence::Present {
                        refreshed_at,
                        lifetime,
                    } if lifetime == Lifetime::Permanent || in_time(refreshed_at) => {
                        if entry.announcements.begun {
                            Carriage::Announced
                        } else {
                            Carriage::All
                        }
                    }
                    Presence::Present { .. } | Presence::Adopted | Presence::Adding => {
                        Carriage::Some
                    }
                },
                None => Carriage::Some,
            });
        // A router without addresses has nothing left to announce.
        carried.min().unwrap_or(Carriage::Announced)
    }

    /// Routers whose addresses the latest [`Fence::due`] found in doubt: their elections are to be told, with its time
    /// ([`crate::election::Event::Doubted`]).
    pub fn take_new_doubts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_doubts)
    }

    /// How late the latest refresh was, against its interval.
    pub const fn refresh_lateness(&self) -> Duration {
        self.lateness
    }
}

impl RouterFence {
    fn next_wake(&self, now: Tick) -> Option<Tick> {
        let unwanted = |address: &DirectorAddress| {
            self.wanted
                .as_ref()
                .is_some_and(|wanted| !wanted.contains(address))
        };
        let (hold, settings) = match (&self.authority, &self.settings) {
            (Authority::Undecided, _) => return None,
            (Authority::Dropped, _) | (Authority::Held(_), None) => {
                return self.entries.values().map(|entry| entry.not_before).min();
            }
            (Authority::Held(hold), Some(_)) if !hold.until.permits(now) => {
                return self.entries.values().map(|entry| entry.not_before).min();
            }
            (Authority::Held(hold), Some(_)) if self.doubted_since.is_some() => {
                return Some(hold.until.tick() + Duration::from_nanos(1));
            }
            (Authority::Held(hold), Some(settings)) => (hold, settings),
        };
        let entries = self.entries.iter().map(|(address, entry)| {
            let write = match entry.presence {
                _ if unwanted(address) => Some(entry.not_before),
                Presence::Adopted | Presence::Adding => Some(entry.not_before),
                Presence::Present { lifetime, .. } if lifetime != hold.lifetime => {
                    Some(entry.not_before)
                }
                Presence::Present {
                    lifetime: Lifetime::Permanent,
                    ..
                } => None,
                Presence::Present { refreshed_at, .. } => {
                    Some((refreshed_at + settings.0.refresh_interval()).max(entry.not_before))
                }
            };
            let announcement = match entry.presence {
                Presence::Present { .. } => entry.announcements.next,
                Presence::Adopted | Presence::Adding => None,
            };
            let fence_bound = settings.0.fence_bound();
            let claims = entry.claims.filter(|_| !unwanted(address));
            let claims = claims.map(|claims| claims.next_wake(fence_bound));
            [write, announcement, claims].into_iter().flatten().min()
        });
        let missing = self.wanted.iter().flatten().filter_map(|address| {
            let entry = self.entries.contains_key(address);
            (!entry).then(|| {
                self.troubles
                    .get(address)
                    .map_or(self.sent_at, |(_, not_before)| *not_before)
            })
        });
        let end = (!self.entries.is_empty()).then(|| hold.until.tick() + Duration::from_nanos(1));
        entries.flatten().chain(missing).chain(end).min()
    }
}

impl Entry {
    /// What others say of the address while it is held: whether that is over, and whether it is announced against.
    fn judge_claims(&mut self, timing: &Timing, announcement: &Announcement, now: Tick) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        if claims.is_over(now) {
            self.claims = None;
        } else if claims.judge(timing.fence_bound(), now) {
            self.announcements.defend(announcement, now);
        }
    }
}

impl Announcements {
    /// None to come, of an address that is adopted or about to be added; `begun` by whoever added it.
    const fn none(begun: bool, now: Tick) -> Self {
        Self {
            burst_left: 0,
            contested_until: now,
            confirmed: true,
            begun,
            next: None,
        }
    }

    /// After an addition: a burst, then on until the old holder's address is gone for sure.
    fn begin(announcement: &Announcement, timing: &Timing, now: Tick) -> Self {
        Self {
            burst_left: announcement.burst_count.into(),
            contested_until: now + timing.fence_bound(),
            confirmed: false,
            begun: false,
            next: Some(now),
        }
    }

    /// Against somebody else's claim: a burst, unless one is on its way.
    fn defend(&mut self, announcement: &Announcement, now: Tick) {
        if self.burst_left == 0 {
            self.burst_left = announcement.burst_count.into();
            self.next = Some(now);
        }
    }

    fn repeat(announcement: &Announcement, now: Tick) -> Option<Tick> {
        (announcement.refresh_seconds != 0)
            .then(|| now + Duration::from_secs(announcement.refresh_seconds.into()))
    }

    fn sent(&mut self, announcement: &Announcement, now: Tick) {
        self.burst_left = self.burst_left.saturating_sub(1);
        let interval = Duration::from_millis(announcement.interval_milliseconds.into());
        self.next = if self.burst_left > 0 {
            Some(now + interval.min(CONTESTED_INTERVAL))
        } else if now < self.contested_until {
            Some(now + CONTESTED_INTERVAL)
        } else if self.confirmed {
            Self::repeat(announcement, now)
        } else {
            self.confirmed = true;
            Some(now + CONTESTED_INTERVAL)
        };
    }
}

impl Trouble {
    fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Done => None,
            Outcome::Foreign => Some(Self::Foreign),
            Outcome::NoDevice => Some(Self::NoDevice),
            Outcome::Failed(text) => Some(Self::Failed(text)),
        }
    }
}
