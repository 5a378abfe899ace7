//! Takeover Strict: a new holder adds the addresses once the old one's are gone. Nobody else carries them then, at the price
//! of F after a crash, and of one heartbeat in a handover.

use crate::election::config::Takeover;
use crate::election::event::Effect;
use crate::election::machine::{Machine, Tenure};
use crate::election::tick::Tick;

/// The holder before this one.
#[derive(Clone, Debug)]
pub(super) struct Predecessor {
    node: String,
    /// From when on nobody but it can carry the addresses.
    others_clear_at: Tick,
}

/// What a new holder waits for.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    predecessor: Predecessor,
    epoch: u64,
    /// Whatever the old holder does, its addresses are gone by then.
    until: Tick,
}

impl Waiting {
    pub(super) fn message(&self) -> String {
        format!(
            "epoch {}; waits until the addresses of {} are gone (takeover Strict)",
            self.epoch, self.predecessor.node
        )
    }
}

impl Machine {
    /// Who may carry the addresses if the Lease is taken now. Nobody, when the Lease has no holder or has run out: then its
    /// addresses have, too.
    pub(super) fn predecessor(&self, now: Tick) -> Option<Predecessor> {
        let observation = self.observation.as_ref()?;
        let holder = observation.lease.holder.as_ref()?;
        let expires_at = observation.unchanged_since
            + self.config.timing.expiry(observation.lease.lease_duration);
        let waits = self.config.takeover == Takeover::Strict
            && holder.node != self.me.node
            && now < expires_at;
        waits.then(|| Predecessor {
            node: holder.node.clone(),
            others_clear_at: self.fence_clear_at(),
        })
    }

    /// The Lease was taken.
    pub(super) fn wait_for(&mut self, predecessor: Predecessor, epoch: u64, now: Tick) {
        self.waiting = Some(Waiting {
            predecessor,
            epoch,
            until: now + self.config.timing.fence_bound(),
        });
    }

    /// When the addresses may be added; none = they may already.
    pub(super) fn waits_until(&self) -> Option<Tick> {
        let waiting = self.waiting.as_ref()?;
        let predecessor = &waiting.predecessor;
        let is_clear = self
            .peers
            .get(&predecessor.node)
            .is_some_and(|peer| peer.is_clear() && peer.standing.epoch >= waiting.epoch);
        Some(if is_clear {
            predecessor.others_clear_at.min(waiting.until)
        } else {
            waiting.until
        })
    }

    pub(super) fn end_waiting(&mut self, tenure: Tenure, now: Tick, effects: &mut Vec<Effect>) {
        if self.waits_until().is_some_and(|until| now >= until) {
            self.waiting = None;
            self.hold(tenure, now, effects);
        }
    }
}
