//! When certificates expire, and what people are told of it.
//!
//! The words stand in statuses, which are written when they change: they count whole days, and whole hours only within the last
//! two days.

use std::time::Duration;

use lvs_crds::node_plan::NodePlanSpec;
use lvs_crds::real_server::RealServerState;

use super::key::{Check, Questions};
use super::policy::{Serving, held};
use crate::desired::PlanInput;
use crate::election::Tick;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Nearer than this hours are counted.
const NEAR: i64 = 2 * DAY;
/// How long no result may show the certificate that expires sooner until one that expires later counts: behind one address may
/// be several servers, of which one has the new certificate already.
const RENEWED: Duration = Duration::from_mins(10);

/// A moment of the calendar: seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// Seconds from `earlier` to here; less than 0 when `earlier` is later.
    const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What is to be said at `now` of a certificate whose last second is `not_after`: "expires in 9 days" or "expired 2 days ago".
/// Days and hours that have not passed completely do not count.
pub fn expiry_words(not_after: UnixSeconds, now: UnixSeconds) -> String {
    let left = not_after.since(now);
    let span = |seconds: i64| {
        if seconds >= NEAR {
            Some(counted(seconds / DAY, "day"))
        } else {
            (seconds >= HOUR).then(|| counted(seconds / HOUR, "hour"))
        }
    };
    if left >= 0 {
        span(left).map_or_else(
            || "expires within the hour".to_owned(),
            |span| format!("expires in {span}"),
        )
    } else {
        span(left.saturating_neg()).map_or_else(
            || "expired within the last hour".to_owned(),
            |span| format!("expired {span} ago"),
        )
    }
}

/// What is to be said at `now` of a certificate whose first second is `not_before`, which is later: "is valid only in 3 hours".
/// Days and hours that have begun count, so that it is valid when they have passed.
pub fn begin_words(not_before: UnixSeconds, now: UnixSeconds) -> String {
    let seconds = not_before.since(now).max(1);
    let part = |unit: i64| seconds / unit + i64::from(seconds % unit > 0);
    let span = if seconds > NEAR {
        counted(part(DAY), "day")
    } else {
        counted(part(HOUR), "hour")
    };
    format!("is valid only in {span}")
}

fn counted(count: i64, unit: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// When the certificate expires that one check was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShownExpiry {
    /// It, and when it was shown last.
    known: Option<(UnixSeconds, Tick)>,
}

impl ShownExpiry {
    /// A certificate was shown at `now`: one that expires sooner than the one before counts at once, one that expires later when
    /// the one before has not been shown for [`RENEWED`].
    pub(super) fn note(&mut self, not_after: UnixSeconds, now: Tick) {
        match self.known {
            Some((known, shown)) if not_after > known && now.since(shown) < RENEWED => {}
            _ => self.known = Some((not_after, now)),
        }
    }

    pub(super) fn get(self) -> Option<UnixSeconds> {
        self.known.map(|(not_after, _)| not_after)
    }
}

impl Check {
    /// Whether people are to be warned at `now` of a certificate that expires then, as its `expiryWarningDays` says.
    pub fn warns_of(&self, not_after: UnixSeconds, now: UnixSeconds) -> bool {
        let tls = self.question.tls.as_ref();
        let days = tls.and_then(|tls| tls.expiry_warning_days);
        days.is_some_and(|days| not_after.since(now) <= i64::from(days) * DAY)
    }
}

impl Serving {
    /// Says beside how real servers stand which certificates are to be warned of at `now`. `expiry` is when that expires which a
    /// check was shown.
    pub fn warn_of_certificates(
        &mut self,
        plans: &[PlanInput],
        expiry: impl Fn(&Check) -> Option<UnixSeconds>,
        now: UnixSeconds,
    ) {
        for plan in held(plans) {
            self.warn_of_plan(&plan.name, &plan.spec, &expiry, now);
        }
    }

    fn warn_of_plan(
        &mut self,
        name: &str,
        plan: &NodePlanSpec,
        expiry: &impl Fn(&Check) -> Option<UnixSeconds>,
        now: UnixSeconds,
    ) {
        let questions = Questions::of(plan);
        for service in plan.director.iter().flat_map(|director| &director.services) {
            let Some(standing) = self.of_mut(name, service) else {
                continue;
            };
            let each = service.real_servers.iter();
            for (planned, stands) in each.zip(&mut standing.real_servers) {
                let checks = questions.checks(service, planned).into_iter();
                let shown = checks.filter_map(|check| {
                    let not_after = expiry(&check).filter(|end| check.warns_of(*end, now))?;
                    Some((not_after, check.subject.map(|_| check.target)))
                });
                let Some((not_after, judge)) = shown.min() else {
                    continue;
                };
                stands.certificate_expiry = Some(not_after);
                // Why one gets no connections is of more interest, and may be just this.
                if stands.state == RealServerState::Up {
                    let whose = judge.map(|judge| format!(" of judge {judge}"));
                    let whose = whose.unwrap_or_default();
                    let words = format!("certificate{whose} {}", expiry_words(not_after, now));
                    if !stands.message.is_empty() {
                        stands.message.push_str("; ");
                    }
                    stands.message.push_str(&words);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn after(seconds: i64) -> UnixSeconds {
        UnixSeconds(NOW.0 + seconds)
    }

    #[test]
    fn days_are_counted_and_hours_within_two_of_them() {
        for (left, words) in [
            (400 * DAY, "expires in 400 days"),
            (10 * DAY - 1, "expires in 9 days"),
            (9 * DAY, "expires in 9 days"),
            (2 * DAY, "expires in 2 days"),
            (2 * DAY - 1, "expires in 47 hours"),
            (2 * HOUR - 1, "expires in 1 hour"),
            (HOUR - 1, "expires within the hour"),
            (0, "expires within the hour"),
            (-1, "expired within the last hour"),
            (-HOUR, "expired 1 hour ago"),
            (-2 * HOUR, "expired 2 hours ago"),
            (1 - 2 * DAY, "expired 47 hours ago"),
            (-2 * DAY, "expired 2 days ago"),
            (1 - 3 * DAY, "expired 2 days ago"),
        ] {
            assert_eq!(expiry_words(after(left), NOW), words, "{left}");
        }
        for (ahead, words) in [
            (1, "is valid only in 1 hour"),
            (HOUR, "is valid only in 1 hour"),
            (2 * HOUR + 1, "is valid only in 3 hours"),
            (2 * DAY, "is valid only in 48 hours"),
            (2 * DAY + 1, "is valid only in 3 days"),
        ] {
            assert_eq!(begin_words(after(ahead), NOW), words, "{ahead}");
        }
        let (first, last) = (UnixSeconds(i64::MIN), UnixSeconds(i64::MAX));
        assert_eq!(expiry_words(last, first), "expires in 106751991167300 days");
        assert_eq!(
            expiry_words(first, last),
            "expired 106751991167300 days ago"
        );
        assert_eq!(
            begin_words(last, first),
            "is valid only in 106751991167301 days"
        );
    }

    #[test]
    fn a_later_end_counts_when_the_sooner_has_not_been_shown_for_a_while() {
        let at = |seconds: u64| Tick::default() + Duration::from_secs(seconds);
        let (sooner, later) = (after(DAY), after(90 * DAY));
        let mut shown = ShownExpiry::default();
        assert_eq!(shown.get(), None);
        // Two servers behind one address, one of which has the new certificate.
        for second in (0..1200).step_by(10) {
            shown.note(later, at(second));
            shown.note(sooner, at(second + 5));
            assert_eq!(shown.get(), Some(sooner), "{second}");
        }
        shown.note(later, at(1195 + 599));
        assert_eq!(shown.get(), Some(sooner));
        shown.note(later, at(1195 + 600));
        assert_eq!(shown.get(), Some(later));
    }

    /// The number in the words, in seconds; 0 where there is none.
    fn told(words: &str) -> i64 {
        let mut parts = words
            .split(' ')
            .skip_while(|part| part.parse::<i64>().is_err());
        let count = parts.next().map_or(0, |count| count.parse().unwrap_or(0));
        let unit = parts.next().unwrap_or_default();
        count * if unit.starts_with("day") { DAY } else { HOUR }
    }

    proptest! {
        /// What is told of either side is never more than is so, and less by no more than a day, or an hour within two days.
        #[test]
        fn days_are_rounded_towards_the_moment(left in -400 * DAY..400 * DAY) {
            let words = expiry_words(after(left), NOW);
            prop_assert_eq!(words.starts_with("expired "), left < 0);
            let unit = if left.abs() >= NEAR { DAY } else { HOUR };
            let rest = left.abs() - told(&words);
            prop_assert!((0..unit).contains(&rest), "{words} of {left} s");
        }

        /// Who waits as long as is told finds it valid, and not much later than it is.
        #[test]
        fn the_beginning_is_never_told_too_soon(ahead in 1..400 * DAY) {
            let words = begin_words(after(ahead), NOW);
            let unit = if ahead > NEAR { DAY } else { HOUR };
            let wait = told(&words) - ahead;
            prop_assert!((0..unit).contains(&wait), "{words} of {ahead} s");
        }

        /// A countdown is no more than a write for each day, and one for each hour of the last two.
        #[test]
        fn the_words_change_once_a_day(left in 2 * DAY..400 * DAY, later in 0..DAY) {
            let words = expiry_words(after(left), NOW);
            let after_a_while = expiry_words(after(left), after(later));
            let passed = left / DAY != (left - later) / DAY;
            prop_assert_eq!(words != after_a_while, passed);
        }
    }
}
