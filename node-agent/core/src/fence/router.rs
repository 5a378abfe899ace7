//! What the fence knows of one router, and what that permits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvs_crds::virtual_router::Announcement;

use super::action::{DirectorAddress, Trouble};
use super::announcements::Announcements;
use super::conflict::Claims;
use super::progress::Progress;
use crate::election::{Hold, Lifetime, Tick, Timing};

#[derive(Clone, Copy, Debug)]
pub(super) enum Presence {
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
pub(super) struct Entry {
    pub(super) presence: Presence,
    pub(super) not_before: Tick,
    pub(super) announcements: Announcements,
    /// What others say of it.
    pub(super) claims: Option<Claims>,
    /// When it was last put back, or is to be, after somebody else had removed it.
    pub(super) restored_at: Option<Tick>,
}

impl Entry {
    /// What others say of the address while it is held: whether that is over, and whether it is announced against.
    pub(super) fn judge_claims(&mut self, timing: &Timing, announcement: &Announcement, now: Tick) {
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

#[derive(Clone, Copy, Debug)]
pub(super) enum Authority {
    /// The election has not decided since the start: adopted addresses are left to their lifetime.
    Undecided,
    Held(Hold),
    Dropped,
}

#[derive(Clone, Debug)]
pub(super) struct RouterFence {
    pub(super) settings: Option<(Timing, Announcement)>,
    pub(super) authority: Authority,
    /// When the time was last looked at while it was held.
    pub(super) looked_at: Tick,
    /// A successor holds the addresses too, and announces them.
    pub(super) has_yielded: bool,
    pub(super) doubted_since: Option<Tick>,
    /// Highest epoch, its t0, and whether it is not given up: for the journal.
    pub(super) epoch: u64,
    pub(super) sent_at: Tick,
    pub(super) lifetime: Lifetime,
    pub(super) wanted: Option<BTreeSet<DirectorAddress>>,
    /// None is added for now.
    pub(super) held_back: bool,
    pub(super) entries: BTreeMap<DirectorAddress, Entry>,
    pub(super) troubles: BTreeMap<DirectorAddress, (Trouble, Tick)>,
    /// How often addresses were put back that somebody else had removed.
    pub(super) restored: BTreeMap<DirectorAddress, u64>,
    /// No longer planned: forgotten once its addresses are gone.
    pub(super) forgotten: bool,
    pub(super) progress: Progress,
}

impl RouterFence {
    pub(super) fn new() -> Self {
        Self {
            settings: None,
            authority: Authority::Undecided,
            looked_at: Tick::default(),
            has_yielded: false,
            doubted_since: None,
            epoch: 0,
            sent_at: Tick::default(),
            lifetime: Lifetime::Seconds(0),
            wanted: None,
            held_back: false,
            entries: BTreeMap::new(),
            troubles: BTreeMap::new(),
            restored: BTreeMap::new(),
            forgotten: false,
            progress: Progress::default(),
        }
    }

    /// The hold, when it permits at `now`.
    pub(super) fn permitted(&self, now: Tick) -> Option<(Hold, Timing, Announcement)> {
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

    pub(super) fn stood_still(&self, now: Tick) -> bool {
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
    pub(super) fn stays(&self, now: Tick) -> bool {
        match self.authority {
            Authority::Undecided => true,
            Authority::Held(hold) => hold.until.permits(now) && self.is_doubtful(now),
            Authority::Dropped => false,
        }
    }

    pub(super) fn next_wake(&self, now: Tick) -> Option<Tick> {
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
                Presence::Present { .. } if !self.has_yielded => entry.announcements.next,
                _ => None,
            };
            let fence_bound = settings.0.fence_bound();
            let is_judged = !unwanted(address) && !self.has_yielded;
            let claims = entry.claims.filter(|_| is_judged);
            let claims = claims.map(|claims| claims.next_wake(fence_bound));
            [write, announcement, claims].into_iter().flatten().min()
        });
        let awaited = self.wanted.iter().filter(|_| !self.held_back);
        let missing = awaited.flatten().filter_map(|address| {
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
