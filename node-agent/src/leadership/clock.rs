//! The one clock of leadership.

use lvs_core::election::Tick;
use nix::time::{ClockId, clock_gettime};

/// Now, by `CLOCK_BOOTTIME`: never set back, and going on while the machine is suspended.
pub fn now() -> Tick {
    // clock_gettime fails only for a clock the kernel does not have; this one came with Linux 2.6.39. Should
    // it fail nevertheless, the end of time is the answer by which every permission has run out.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Tick::from_nanoseconds(u64::MAX), |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(u64::MAX);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        Tick::from_nanoseconds(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds),
        )
    })
}
