//! The fence: which director addresses are added, refreshed, deleted and announced, and when.
//!
//! Pure core of the fence thread. Addresses carry a lifetime in the kernel and are refreshed only while
//! the election permits it, so that an agent that dies, hangs or is paused loses them without doing
//! anything. For every write that puts an address into the kernel or prolongs it the thread checks the
//! time, sends, reports with the time **after** sending, and deletes what is past ([`Fence::done`]).
//!
//! An address that has expired is no drift here: the next permitted refresh puts it back. One that is gone before its time was
//! removed by somebody else: it is put back at once, announced anew and counted ([`Fence::missing`]).

mod action;
mod announcements;
pub mod claim;
mod conflict;
mod progress;
mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvs_crds::virtual_router::Announcement;
use serde::{Deserialize, Serialize};

use crate::election::{Hold, Lifetime, Tick, Timing};
use crate::fence::claim::{Claim, HardwareAddress};
use crate::fence::conflict::Claims;
use crate::heartbeat::Carriage;

use announcements::Announcements;
use router::{Authority, Entry, Presence, RouterFence};

pub use action::{Action, DirectorAddress, HolderUntil, Outcome, Step, Trouble};
pub use conflict::QUIET_PERIOD;
pub use progress::Progress;

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
    /// How often somebody else removed an address, and it was put back.
    pub restored: BTreeMap<DirectorAddress, u64>,
    /// Held addresses that somebody else claims, and the hardware address that was said last.
    pub conflicts: BTreeMap<DirectorAddress, HardwareAddress>,
    /// How far the addresses of the newest epoch have come.
    pub progress: Progress,
}

/// Announcements sent per call of [`Fence::due`] at most, so that no burst delays a refresh.
const ANNOUNCEMENTS_PER_CALL: usize = 64;
/// Pause before a failed addition or deletion is tried again, and between two restorations of an address.
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
                        restored_at: None,
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
            router.has_yielded = false;
        }
    }

    /// A successor announces the router's addresses from now on; what stays of them for a moment is announced no more.
    pub fn yield_to_successor(&mut self, router: &str) {
        if let Some(router) = self.routers.get_mut(router) {
            router.has_yielded = true;
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
        router
            .restored
            .retain(|address, _| addresses.contains(address));
        router.wanted = Some(addresses);
    }

    /// The routers of which no address is to be added for now; what is there of them stays. It is the full truth: any other
    /// router gets its addresses when the election permits it.
    pub fn hold_back(&mut self, routers: &BTreeSet<String>) {
        for router in self.routers.values_mut() {
            router.held_back = false;
        }
        for name in routers {
            self.routers
                .entry(name.clone())
                .or_insert_with(RouterFence::new)
                .held_back = true;
        }
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
                if router.has_yielded {
                    continue;
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
            if let (Some((hold, ..)), false) = (&permitted, router.held_back) {
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
                            restored_at: None,
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

    /// A look at the kernel that began at `looked_at` did not find this address. Where it was there before, has not expired and
    /// is to be there, somebody else removed it.
    pub fn missing(&mut self, router: &str, address: &DirectorAddress, looked_at: Tick, now: Tick) {
        let Some(router) = self.routers.get_mut(router) else {
            return;
        };
        if router.permitted(now).is_none() {
            return;
        }
        let Some(entry) = router.entries.get_mut(address) else {
            return;
        };
        let Presence::Present {
            refreshed_at,
            lifetime,
        } = entry.presence
        else {
            return;
        };
        let has_expired = match lifetime {
            Lifetime::Seconds(seconds) => {
                looked_at >= refreshed_at + Duration::from_secs(seconds.into())
            }
            Lifetime::Permanent => false,
        };
        if refreshed_at >= looked_at || has_expired {
            return;
        }
        *router.restored.entry(address.clone()).or_default() += 1;
        entry.presence = Presence::Adding;
        // Whoever removes it without end gets no burst of announcements each time.
        let earliest = entry
            .restored_at
            .map(|restored_at| restored_at + RETRY_INTERVAL);
        entry.not_before = earliest.map_or(now, |earliest| earliest.max(now));
        entry.restored_at = Some(entry.not_before);
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
                if expired && entry.restored_at.is_some() {
                    entry.restored_at = Some(now);
                }
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
                    restored: router.restored.clone(),
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
