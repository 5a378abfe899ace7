//! The weight with which a real server stands in the kernel: the one place where everything that changes it meets.

use std::time::Duration;

use lvs_crds::traffic_policy::{AdministrativeState, OnFailure};

use crate::election::Tick;

/// More and more after it came up, so that a cold real server is not overrun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// When it came up.
    pub since: Tick,
    /// From then until it has its whole weight.
    pub duration: Duration,
}

/// Everything that decides about the weight of one real server of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Weight of the specification, 0 to 65535.
    pub weight: u16,
    /// Whether all its checks say that it is up; without checks it is. Unknown is not.
    pub is_up: bool,
    /// Whether the kernel has it, which may have connections of it then.
    pub is_in_kernel: bool,
    /// What people want of it.
    pub administrative_state: AdministrativeState,
    /// What becomes of it while it is down.
    pub on_failure: OnFailure,
    /// None, or it came up lately.
    pub slow_start: Option<SlowStart>,
}

/// What is to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectiveWeight {
    /// No destination.
    Absent,
    /// A destination with this weight.
    Weight(u16),
}

impl Standing {
    /// The weight at `now`.
    pub fn effective_weight(&self, now: Tick) -> EffectiveWeight {
        match (self.administrative_state, self.is_up, self.on_failure) {
            // Who is about to end takes no new connections, its checks among them, and still serves those that it has.
            (AdministrativeState::Draining, false, OnFailure::Remove) if self.is_in_kernel => {
                EffectiveWeight::Weight(0)
            }
            (AdministrativeState::Disabled, _, _) | (_, false, OnFailure::Remove) => {
                EffectiveWeight::Absent
            }
            (AdministrativeState::Draining, _, _) | (_, false, OnFailure::Quiesce) => {
                EffectiveWeight::Weight(0)
            }
            (AdministrativeState::Enabled, true, _) => EffectiveWeight::Weight(self.started(now)),
        }
    }

    /// When the weight changes next by time alone: a slow start goes in as many steps as there are weights, at most one a
    /// second.
    pub fn next_step(&self, now: Tick) -> Option<Tick> {
        const STEP: Duration = Duration::from_secs(1);
        let slow_start = self.slow_start?;
        let is_rising = self.effective_weight(now) < EffectiveWeight::Weight(self.weight)
            && self.effective_weight(now) > EffectiveWeight::Weight(0);
        let end = slow_start.since + slow_start.duration;
        is_rising.then(|| (now + STEP).min(end))
    }

    /// The part of the weight that a slow start gives at `now`: at least 1, unless it is 0 altogether.
    fn started(&self, now: Tick) -> u16 {
        let Some(SlowStart { since, duration }) = self.slow_start else {
            return self.weight;
        };
        let elapsed = now.since(since).as_nanos();
        let duration = duration.as_nanos();
        if elapsed >= duration {
            return self.weight;
        }
        let part = u128::from(self.weight) * elapsed / duration;
        u16::try_from(part)
            .unwrap_or(self.weight)
            .max(self.weight.min(1))
    }
}
