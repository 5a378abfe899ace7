//! The constants of the protocol in one type that cannot hold an illegal order.

use std::time::Duration;

use crate::election::Tick;

/// Times of heartbeats before they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatParts {
    /// i: from one heartbeat to the next.
    pub interval: Duration,
    /// k: a peer is silent after this many intervals without a fresh heartbeat.
    pub missed: u32,
    /// c: how long a challenged holder has to renew.
    pub challenge_window: Duration,
}

/// Times before they are checked. [`Timing::new`] checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingParts {
    /// L: without a renewal for this long the Lease is up for takeover. Whole seconds.
    pub lease_duration: Duration,
    /// From the sending of one renewal to the sending of the next.
    pub renew_interval: Duration,
    /// `W_max`: a write or read that has not been answered by then counts as failed.
    pub write_timeout: Duration,
    /// V: `valid_lft` of an address in the kernel, seconds.
    pub address_lifetime_seconds: u32,
    /// From one refresh of an address to the next.
    pub refresh_interval: Duration,
    /// g: how late the kernel's address garbage collection may remove an expired address.
    pub collector_lateness: Duration,
    /// Heartbeats between the candidates; none = only the Lease tells.
    pub heartbeat: Option<HeartbeatParts>,
}

/// Why a set of times is refused. Every text names the rule and the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// V < 1: the kernel counts whole seconds and 0 is not a lifetime.
    #[error("address lifetime is {0} s, must be at least 1 s")]
    AddressLifetime(u32),
    /// L is not a whole number of seconds; `leaseDurationSeconds` could not say it.
    #[error("lease duration {0:?} is not a whole number of seconds")]
    LeaseDurationFraction(Duration),
    /// L < 3·W_max + V + g.
    #[error(
        "lease duration {lease_duration:?} is shorter than {minimum:?} \
         (three writes of {write_timeout:?}, address lifetime and collector lateness)"
    )]
    LeaseDuration {
        /// L.
        lease_duration: Duration,
        /// What L must reach.
        minimum: Duration,
        /// `W_max`.
        write_timeout: Duration,
    },
    /// After one failed renewal the next could not be acknowledged in time.
    #[error(
        "renew interval {renew_interval:?} and two writes of {write_timeout:?} exceed \
         the holder's time of {authority:?}"
    )]
    RenewInterval {
        /// Renew interval.
        renew_interval: Duration,
        /// `W_max`.
        write_timeout: Duration,
        /// L − V − g.
        authority: Duration,
    },
    /// A zero interval would never let the holder rest.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// Two refreshes must fit into the shortest lifetime seen, V − 20 ms.
    #[error(
        "refresh interval {refresh_interval:?} does not fit twice into an address lifetime of {address_lifetime_seconds} s less 20 ms"
    )]
    RefreshInterval {
        /// Refresh interval.
        refresh_interval: Duration,
        /// V.
        address_lifetime_seconds: u32,
    },
    /// Addresses of an agent that died could be gone before another director has them.
    #[error(
        "{missed} heartbeats of {interval:?}, a challenge of {challenge_window:?} and {TAKEOVER_ALLOWANCE:?} for the takeover \
         exceed {limit:?}, for which addresses that are not refreshed any more are there"
    )]
    Detection {
        /// i.
        interval: Duration,
        /// k.
        missed: u32,
        /// c.
        challenge_window: Duration,
        /// V less one refresh interval and 20 ms.
        limit: Duration,
    },
}

/// Two writes of 50 ms, the next rank, and programming: what a takeover takes besides detection.
const TAKEOVER_ALLOWANCE: Duration = Duration::from_millis(300);
/// P, how long a promise lasts. Longer than F, so that a holder that is never heard again has lost its addresses.
const PROMISE: Duration = Duration::from_secs(6);
/// From one rank of candidates to the next.
const RANK_STEP: Duration = Duration::from_millis(100);

/// Checked times of heartbeats; a part of [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTiming {
    parts: HeartbeatParts,
}

impl HeartbeatTiming {
    /// i.
    pub const fn interval(&self) -> Duration {
        self.parts.interval
    }

    /// k·i: without a fresh heartbeat for this long a peer is silent.
    pub fn silence(&self) -> Duration {
        self.parts.interval * self.parts.missed
    }

    /// How old a heartbeat of ours may be that a fresh one answers.
    pub fn freshness(&self) -> Duration {
        2 * self.silence()
    }

    /// c.
    pub const fn challenge_window(&self) -> Duration {
        self.parts.challenge_window
    }

    /// P: a promise lasts this long after the heartbeat that asked for it was sent.
    pub const fn promise(&self) -> Duration {
        PROMISE
    }

    /// How long the one who promised keeps it, by its own clock, which may run faster than the other's.
    pub fn promise_kept(&self) -> Duration {
        PROMISE + PROMISE / 20
    }

    /// How much later the candidate of this rank acts than the first.
    pub fn rank_delay(&self, rank: u32) -> Duration {
        RANK_STEP * rank
    }
}

/// The kernel was never seen to remove an address earlier than V less this.
const EARLIEST_EXPIRY: Duration = Duration::from_millis(20);
/// A lent Lease and its addresses live this long without an agent.
const LENT_SECONDS: u32 = 30;

/// Checked times of the protocol (docs/leadership.md has the derivation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    parts: TimingParts,
}

impl Timing {
    /// Checks the orders.
    ///
    /// # Errors
    /// [`TimingError`] names the first order that is violated.
    pub fn new(parts: TimingParts) -> Result<Self, TimingError> {
        if parts.address_lifetime_seconds == 0 {
            return Err(TimingError::AddressLifetime(parts.address_lifetime_seconds));
        }
        for (value, name) in [
            (parts.renew_interval, "renew interval"),
            (parts.write_timeout, "write timeout"),
            (parts.refresh_interval, "refresh interval"),
            (
                parts.heartbeat.map_or(Duration::MAX, |heartbeat| {
                    heartbeat.interval * heartbeat.missed
                }),
                "heartbeat interval, or the count of missed ones,",
            ),
        ] {
            if value.is_zero() {
                return Err(TimingError::Zero(name));
            }
        }
        if parts.lease_duration.subsec_nanos() != 0 {
            return Err(TimingError::LeaseDurationFraction(parts.lease_duration));
        }
        let timing = Self { parts };
        let minimum = 3 * parts.write_timeout + timing.fence_bound();
        if parts.lease_duration < minimum {
            return Err(TimingError::LeaseDuration {
                lease_duration: parts.lease_duration,
                minimum,
                write_timeout: parts.write_timeout,
            });
        }
        let authority = parts.lease_duration.saturating_sub(timing.fence_bound());
        if parts.renew_interval + 2 * parts.write_timeout > authority {
            return Err(TimingError::RenewInterval {
                renew_interval: parts.renew_interval,
                write_timeout: parts.write_timeout,
                authority,
            });
        }
        let lifetime = Duration::from_secs(parts.address_lifetime_seconds.into());
        if 2 * parts.refresh_interval + EARLIEST_EXPIRY > lifetime {
            return Err(TimingError::RefreshInterval {
                refresh_interval: parts.refresh_interval,
                address_lifetime_seconds: parts.address_lifetime_seconds,
            });
        }
        if let Some(heartbeat) = parts.heartbeat {
            let HeartbeatParts {
                interval,
                missed,
                challenge_window,
            } = heartbeat;
            let limit = lifetime.saturating_sub(parts.refresh_interval + EARLIEST_EXPIRY);
            if interval * missed + challenge_window + TAKEOVER_ALLOWANCE > limit {
                return Err(TimingError::Detection {
                    interval,
                    missed,
                    challenge_window,
                    limit,
                });
            }
        }
        Ok(timing)
    }

    /// The times for a Lease of this duration: renewed five times in it, V = 2 s refreshed every
    /// 0.5 s, g = 1.25 s, writes of at most 2.2 s; and for these heartbeats.
    ///
    /// # Errors
    /// [`TimingError::LeaseDuration`] when it is below 10 s; [`TimingError::Detection`] when heartbeats are too slow.
    pub fn for_detection(
        seconds: u32,
        heartbeat: Option<HeartbeatParts>,
    ) -> Result<Self, TimingError> {
        let lease_duration = Duration::from_secs(seconds.into());
        Self::new(TimingParts {
            lease_duration,
            renew_interval: (lease_duration / 5).max(Duration::from_secs(1)),
            // A store that takes two seconds for every write must not look like one that is lost.
            write_timeout: Duration::from_millis(2_200),
            address_lifetime_seconds: 2,
            refresh_interval: Duration::from_millis(500),
            collector_lateness: Duration::from_millis(1250),
            heartbeat,
        })
    }

    /// [`Timing::for_detection`] without heartbeats: for candidates that share nothing but the Lease.
    ///
    /// # Errors
    /// As there.
    pub fn for_lease_seconds(seconds: u32) -> Result<Self, TimingError> {
        Self::for_detection(seconds, None)
    }

    /// The times of heartbeats, when there are any.
    pub fn heartbeat(&self) -> Option<HeartbeatTiming> {
        self.parts.heartbeat.map(|parts| HeartbeatTiming { parts })
    }

    /// L.
    pub const fn lease_duration(&self) -> Duration {
        self.parts.lease_duration
    }

    /// From the sending of one renewal to the next.
    pub const fn renew_interval(&self) -> Duration {
        self.parts.renew_interval
    }

    /// `W_max`: the driver must report every write and read as failed by then.
    pub const fn write_timeout(&self) -> Duration {
        self.parts.write_timeout
    }

    /// V in seconds.
    pub const fn address_lifetime_seconds(&self) -> u32 {
        self.parts.address_lifetime_seconds
    }

    /// From one refresh of an address to the next.
    pub const fn refresh_interval(&self) -> Duration {
        self.parts.refresh_interval
    }

    /// F = V + g: an old holder's address is gone this long after its last refresh.
    pub fn fence_bound(&self) -> Duration {
        Duration::from_secs(self.parts.address_lifetime_seconds.into())
            + self.parts.collector_lateness
    }

    /// Until when a holder whose write was **sent** at `sent_at` may refresh addresses with a
    /// lifetime of `lifetime_seconds`: now + lifetime + g ≤ t0 + L.
    pub fn holder_until(
        &self,
        sent_at: Tick,
        lease_duration: Duration,
        lifetime_seconds: u32,
    ) -> Tick {
        sent_at
            + lease_duration.saturating_sub(
                Duration::from_secs(lifetime_seconds.into()) + self.parts.collector_lateness,
            )
    }

    /// Until when a holder may refresh addresses on promises that were asked for at `asked_at`: now + V + g ≤ asked + P.
    /// Without heartbeats there are no promises.
    pub fn promised_until(&self, asked_at: Tick) -> Option<Tick> {
        self.heartbeat()
            .map(|heartbeat| asked_at + heartbeat.promise().saturating_sub(self.fence_bound()))
    }

    /// How long after its last acknowledged renewal a holder whose writes are not acknowledged, though the API server
    /// can be read, offers the Lease: one second before its time ends.
    pub fn slow_after(&self) -> Duration {
        self.parts
            .lease_duration
            .saturating_sub(self.fence_bound() + Duration::from_secs(1))
    }

    /// How long an unchanged Lease of this duration is watched before it is taken over: 1.05·L, where
    /// the twentieth covers clocks that run at different speed.
    pub fn expiry(&self, lease_duration: Duration) -> Duration {
        let lease_duration = lease_duration.max(self.parts.lease_duration);
        lease_duration + lease_duration / 20
    }

    /// Silence after which a candidate reads the Lease itself.
    pub fn read_interval(&self) -> Duration {
        self.parts.renew_interval * 3 / 2
    }

    /// A gap between two observations beyond which the Lease counts as not having been watched.
    pub fn observation_gap(&self) -> Duration {
        self.read_interval() + self.parts.write_timeout
    }

    /// Pause before a failed read or renewal is tried again.
    pub const fn retry_interval(&self) -> Duration {
        Duration::from_millis(500)
    }

    /// How long a holder that goes away voluntarily keeps the addresses after it saw its successor's
    /// write, or heard that the successor has none of them yet. Below the 0.5 s that two nodes may carry
    /// an address, less the time to see the write.
    pub const fn handover_keep(&self) -> Duration {
        Duration::from_millis(300)
    }

    /// While an offer may be in the Lease it can be taken at any moment, so the holder must hear of it soon:
    /// it holds no longer than this after its last acknowledged write, or its first offer.
    pub const fn offer_authority(&self) -> Duration {
        self.parts.write_timeout
    }

    /// How long a holder that shuts down waits for a successor before it lends.
    pub const fn offer_wait(&self) -> Duration {
        Duration::from_millis(1500)
    }

    /// How much later a candidate whose services are not verified takes over a free Lease, so that
    /// one whose services are goes first.
    pub const fn unverified_delay(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// Lifetime of the addresses of a holder that shuts down without successor.
    pub const fn lent_seconds(&self) -> u32 {
        LENT_SECONDS
    }

    /// L while lent: the lifetime, g, and room for the write itself, in whole seconds.
    pub fn lent_duration(&self) -> Duration {
        let exact = Duration::from_secs(LENT_SECONDS.into())
            + self.parts.collector_lateness
            + self.parts.write_timeout;
        Duration::from_secs(exact.as_secs() + 2).max(self.parts.lease_duration)
    }
}
