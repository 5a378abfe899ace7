//! Waiting on conditions, with a limit and with what was last seen in the error.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks. Each costs the guest processes, or this machine a kubectl.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` returns `Ok(Ok(value))`. `Ok(Err(seen))` is "not yet"; an error is "not yet" too, as
/// an API server that restarts answers with errors for a while. At the limit the last thing seen is told.
pub fn until<T, S: Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Result<T, S>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let seen = match look() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => format!("{seen:?}"),
            Err(error) => format!("error: {error:#}"),
        };
        if Instant::now() >= end {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `look` is equal to `wanted`.
pub fn until_equal<T: PartialEq + Debug>(
    limit: Duration,
    what: &str,
    wanted: &T,
    mut look: impl FnMut() -> Result<T>,
) -> Result<()> {
    until(limit, what, || {
        let seen = look()?;
        Ok(if seen == *wanted { Ok(()) } else { Err(seen) })
    })
}
