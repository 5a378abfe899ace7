//! What a candidate knows of the Lease, and from when a takeover is right.

use std::time::Duration;

use crate::election::config::{Config, Intent};
use crate::election::lease::{Identity, LeaseRecord};
use crate::election::tick::Tick;

/// The newest version seen and how long it has been watched unchanged.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// Newest version.
    pub(super) lease: LeaseRecord,
    /// Since when the holder has shown no life, all the time being watched.
    pub(super) unchanged_since: Tick,
    /// Last time anything was seen.
    pub(super) seen_at: Tick,
    /// Since when the holder offers it.
    pub(super) offered_since: Option<Tick>,
    /// Since when this epoch has been known.
    pub(super) epoch_since: Tick,
    /// Whether the present holder may have taken it from one that held it: that one's addresses may be there for F, also where
    /// it had agreed, as it may have died before it took them away.
    pub(super) seized: bool,
    /// Since when another candidate has been challenging the holder.
    pub(super) challenged_since: Option<Tick>,
    /// The watch was lost since: time does not count until the next reading.
    pub(super) lost: bool,
    /// The epoch went down: the Lease was made anew or restored, an empty holder proves no release.
    pub(super) reset: bool,
}

impl Observation {
    /// The first version seen.
    ///
    /// `known_epoch`: an epoch below it can only come from a Lease that was made anew or restored.
    pub(super) fn first(lease: LeaseRecord, known_epoch: u64, now: Tick) -> Self {
        Self {
            offered_since: lease.offered.then_some(now),
            epoch_since: now,
            seized: true,
            challenged_since: lease.challenger.is_some().then_some(now),
            reset: lease.epoch < known_epoch,
            lease,
            unchanged_since: now,
            seen_at: now,
            lost: false,
        }
    }

    /// A later version.
    pub(super) fn renew(
        &mut self,
        lease: LeaseRecord,
        known_epoch: u64,
        config: &Config,
        now: Tick,
    ) {
        let watched = !self.lost && now.since(self.seen_at) <= config.timing.observation_gap();
        if !watched || !self.lease.same_life(&lease) {
            self.unchanged_since = now;
        }
        self.offered_since = match (self.offered_since, lease.offered) {
            (Some(since), true) => Some(since),
            (None, true) => Some(now),
            (_, false) => None,
        };
        if lease.epoch != self.lease.epoch {
            self.epoch_since = now;
            self.seized = self.lost || self.lease.holder.is_some();
        }
        if lease.challenger != self.lease.challenger {
            self.challenged_since = lease.challenger.is_some().then_some(now);
        }
        self.reset = lease.epoch < known_epoch;
        self.lease = lease;
        self.seen_at = now;
        self.lost = false;
    }

    /// From when this candidate may compare-and-swap; none = not on what is known now.
    ///
    /// - A Lease whose holder is this very node: at once, no other process can be on the node.
    /// - One without holder: in the order of candidates, `turn` later than the first. After a reset the
    ///   old holder may not know yet: like an unchanged one.
    /// - One that has been given away since `given_since`: likewise, but only with services verified.
    /// - Else 1.05·L after the last change seen, plus the skew.
    pub(super) fn takeover_at(
        &self,
        me: &Identity,
        config: &Config,
        turn: Duration,
        given_since: Option<Tick>,
    ) -> Option<Tick> {
        let mine = self
            .lease
            .holder
            .as_ref()
            .is_some_and(|holder| holder.node == me.node);
        let may = config.permitted
            && match config.intent {
                Intent::Hold => true,
                Intent::Retain => mine,
                Intent::Leave | Intent::Withdraw => false,
            };
        if !may || self.lost {
            return None;
        }
        if mine {
            return Some(self.seen_at);
        }
        let skew = config.skew(&me.node);
        let unverified = if config.verified {
            Duration::ZERO
        } else {
            config.timing.unverified_delay()
        };
        let expired = self.unchanged_since
            + config.timing.expiry(self.lease.lease_duration)
            + skew
            + unverified;
        if self.lease.holder.is_none() && !self.reset {
            return Some(self.unchanged_since + turn + unverified);
        }
        match given_since {
            Some(since) if config.verified => Some(expired.min(since + turn)),
            _ => Some(expired),
        }
    }
}
