//! How long each phase of a takeover took.

use std::time::Duration;

use crate::election::Tick;

use super::cause::Cause;

/// A challenge that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Challenge {
    pub(super) epoch: u64,
    pub(super) sent_at: Tick,
    /// When the holder's last heartbeat was heard.
    pub(super) heard_at: Option<Tick>,
}

/// An attempt to take the Lease.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The epoch that it would begin.
    pub(super) epoch: u64,
    /// Who holds the Lease, if that is another node.
    pub(super) from: Option<String>,
    pub(super) cause: Cause,
    /// Last sign of life of the holder, or when it gave the Lease away.
    pub(super) lost_at: Tick,
    /// When the holder was challenged; without a challenge when the takeover was sent.
    pub(super) challenged_at: Tick,
    /// When the takeover was sent first.
    pub(super) sent_at: Tick,
}

/// A part of a takeover. They follow each other without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// From the holder's last sign of life, or its offer, to the challenge, or to the write where there is none.
    Detection,
    /// From the challenge until it counts as unanswered.
    Challenge,
    /// The compare-and-swap, from its first sending to its acknowledgement.
    Write,
    /// Until all addresses are in the kernel.
    Apply,
    /// Until all of them have been announced once.
    Announce,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Detection,
        Self::Challenge,
        Self::Write,
        Self::Apply,
        Self::Announce,
    ];

    /// The word for a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Challenge => "challenge",
            Self::Write => "write",
            Self::Apply => "apply",
            Self::Announce => "announce",
        }
    }
}

/// How long a takeover took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// `unanswered`, `offered`, `expired` or `vacant`.
    pub cause: &'static str,
    /// In the order of [`Phase::ALL`].
    pub durations: [Duration; 5],
}

impl Phases {
    /// From the holder's last sign of life, or its offer, to the announcement: the sum of all.
    pub fn whole(&self) -> Duration {
        self.durations.iter().sum()
    }
}

/// A takeover that has the Lease.
#[derive(Clone, Debug)]
pub(super) struct Takeover {
    cause: &'static str,
    attempt: Attempt,
    acknowledged_at: Tick,
}

impl Takeover {
    /// None of an attempt that replaced no holder.
    pub(super) fn begun(attempt: Attempt, acknowledged_at: Tick) -> Option<Self> {
        let cause = attempt.cause.label()?;
        Some(Self {
            cause,
            attempt,
            acknowledged_at,
        })
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.attempt.epoch
    }

    pub(super) fn phases(&self, applied_at: Tick, announced_at: Tick) -> Phases {
        let moments = [
            self.attempt.challenged_at,
            self.attempt.sent_at,
            self.acknowledged_at,
            applied_at,
            announced_at,
        ];
        let mut durations = [Duration::ZERO; 5];
        let mut last = self.attempt.lost_at;
        for (duration, moment) in durations.iter_mut().zip(moments) {
            // What was there already took no time.
            *duration = moment.since(last);
            last = last.max(moment);
        }
        Phases {
            cause: self.cause,
            durations,
        }
    }
}
