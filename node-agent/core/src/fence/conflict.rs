//! Conflicts: somebody else claims an address that is held here.
//!
//! In a takeover two nodes announce one address, and both hear it. The new holder expects claims of the old one until F
//! has passed since its addition; the old one must not shout against its successor, so it waits as long from the first
//! claim: if it still holds then, the claim was no successor's. Only from then on is it a conflict: told, and answered
//! with announcements.

use std::time::Duration;

use crate::election::Tick;
use crate::fence::claim::HardwareAddress;

/// A conflict ends when nobody has claimed the address for this long: hosts ask for their gateway's hardware address
/// about once a minute at the most, and say their own address with it, but those that are in use do so more often.
pub const QUIET_PERIOD: Duration = Duration::from_secs(30);
/// Announcements against claims begin at most this often, however fast the other one claims.
const DEFENCE_INTERVAL: Duration = Duration::from_secs(1);

/// Claims of somebody else on one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims {
    /// Who claimed it last.
    pub(super) hardware_address: HardwareAddress,
    /// First claim.
    since: Tick,
    /// Last claim.
    seen_at: Tick,
    /// They were no successor's.
    established: bool,
    /// Last answer.
    defended_at: Option<Tick>,
}

impl Claims {
    pub(super) const fn first(hardware_address: HardwareAddress, now: Tick) -> Self {
        Self {
            hardware_address,
            since: now,
            seen_at: now,
            established: false,
            defended_at: None,
        }
    }

    pub(super) const fn again(&mut self, hardware_address: HardwareAddress, now: Tick) {
        self.hardware_address = hardware_address;
        self.seen_at = now;
    }

    pub(super) const fn is_conflict(&self) -> bool {
        self.established
    }

    pub(super) fn is_over(&self, now: Tick) -> bool {
        now >= self.seen_at + QUIET_PERIOD
    }

    /// Looks at the time, with the address still held. Returns whether it is to be announced anew.
    pub(super) fn judge(&mut self, fence_bound: Duration, now: Tick) -> bool {
        self.established |= now >= self.since + fence_bound;
        let due = self.established
            && self.defended_at.is_none_or(|defended_at| {
                self.seen_at > defended_at && now >= defended_at + DEFENCE_INTERVAL
            });
        if due {
            self.defended_at = Some(now);
        }
        due
    }

    /// When [`judge`](Self::judge) or [`is_over`](Self::is_over) has something new to say.
    pub(super) fn next_wake(&self, fence_bound: Duration) -> Tick {
        let over = self.seen_at + QUIET_PERIOD;
        match self.defended_at {
            _ if !self.established => over.min(self.since + fence_bound),
            Some(defended_at) if self.seen_at > defended_at => {
                over.min(defended_at + DEFENCE_INTERVAL)
            }
            Some(_) => over,
            None => self.seen_at,
        }
    }
}
