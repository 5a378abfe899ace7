//! When an address is announced to the neighbours (rule 12 of docs/leadership.md).

use std::time::Duration;

use lvs_crds::virtual_router::Announcement;

use crate::election::{Tick, Timing};

/// While an old holder may still answer, announcements are at most this far apart (rule 12).
const CONTESTED_INTERVAL: Duration = Duration::from_millis(250);

/// Announcements of one address still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcements {
    burst_left: u32,
    /// The old holder may still answer until then.
    pub(super) contested_until: Tick,
    /// The one after that has been sent.
    confirmed: bool,
    /// At least one has been sent since the addition.
    pub(super) begun: bool,
    pub(super) next: Option<Tick>,
}

impl Announcements {
    /// None to come, of an address that is adopted or about to be added; `begun` by whoever added it.
    pub(super) const fn none(begun: bool, now: Tick) -> Self {
        Self {
            burst_left: 0,
            contested_until: now,
            confirmed: true,
            begun,
            next: None,
        }
    }

    /// After an addition: a burst, then on until the old holder's address is gone for sure.
    pub(super) fn begin(announcement: &Announcement, timing: &Timing, now: Tick) -> Self {
        Self {
            burst_left: announcement.burst_count.into(),
            contested_until: now + timing.fence_bound(),
            confirmed: false,
            begun: false,
            next: Some(now),
        }
    }

    /// Against somebody else's claim: a burst, unless one is on its way.
    pub(super) fn defend(&mut self, announcement: &Announcement, now: Tick) {
        if self.burst_left == 0 {
            self.burst_left = announcement.burst_count.into();
            self.next = Some(now);
        }
    }

    pub(super) fn repeat(announcement: &Announcement, now: Tick) -> Option<Tick> {
        (announcement.refresh_seconds != 0)
            .then(|| now + Duration::from_secs(announcement.refresh_seconds.into()))
    }

    pub(super) fn sent(&mut self, announcement: &Announcement, now: Tick) {
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
