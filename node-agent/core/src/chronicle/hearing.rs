//! Whose heartbeats are missing, without flapping.

use std::time::Duration;

use crate::election::Tick;

/// How long heartbeats must have been heard again before nothing is said of their loss any more. One that gets through now and
/// then is no cure, and what is said is written to the API server.
pub const QUIET_PERIOD: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Default)]
pub(super) struct Hearing {
    lost_from: Option<String>,
    heard_since: Option<Tick>,
}

impl Hearing {
    /// `holder`: whom this node should hear; none when there is nobody, or it holds itself.
    pub(super) fn look(&mut self, holder: Option<&str>, is_lost: bool, now: Tick) {
        if is_lost {
            self.lost_from = holder.map(str::to_owned);
            self.heard_since = None;
        } else if self.lost_from.is_some() {
            let since = *self.heard_since.get_or_insert(now);
            if self.lost_from.as_deref() != holder || now.since(since) >= QUIET_PERIOD {
                *self = Self::default();
            }
        }
    }

    pub(super) fn lost_from(&self) -> Option<&str> {
        self.lost_from.as_deref()
    }

    pub(super) fn next_look(&self) -> Option<Tick> {
        self.heard_since.map(|since| since + QUIET_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Tick {
        Tick::from_nanoseconds(1_000_000_000) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_loss_is_said_at_once_and_its_end_after_a_quiet_period() {
        let mut hearing = Hearing::default();
        hearing.look(Some("lb-a"), false, at(0));
        assert_eq!(hearing.lost_from(), None);
        hearing.look(Some("lb-a"), true, at(100));
        assert_eq!(hearing.lost_from(), Some("lb-a"));
        assert_eq!(hearing.next_look(), None);
        hearing.look(Some("lb-a"), false, at(1_000));
        assert_eq!(hearing.lost_from(), Some("lb-a"));
        assert_eq!(hearing.next_look(), Some(at(4_000)));
        hearing.look(Some("lb-a"), false, at(3_999));
        assert_eq!(hearing.lost_from(), Some("lb-a"));
        hearing.look(Some("lb-a"), false, at(4_000));
        assert_eq!((hearing.lost_from(), hearing.next_look()), (None, None));
    }

    #[test]
    fn another_holder_is_another_matter() {
        for holder in [Some("lb-b"), None] {
            let mut hearing = Hearing::default();
            hearing.look(Some("lb-a"), true, at(0));
            hearing.look(holder, false, at(1));
            assert_eq!(hearing.lost_from(), None);
        }
    }

    proptest! {
        /// However heartbeats come and go: a loss is never hidden, and never more than one end is said in a quiet period.
        #[test]
        fn what_is_said_does_not_flap(steps in proptest::collection::vec((any::<bool>(), 1_u64..2_000), 1..200)) {
            let mut hearing = Hearing::default();
            let mut now = 0;
            let mut ended: Option<u64> = None;
            let mut was_lost = false;
            for (is_lost, pause) in steps {
                now += pause;
                hearing.look(Some("lb-a"), is_lost, at(now));
                let says = hearing.lost_from().is_some();
                prop_assert!(says || !is_lost);
                if was_lost && !says {
                    let before = ended.replace(now);
                    prop_assert!(before.is_none_or(|before| now - before >= 3_000));
                }
                was_lost = says;
            }
        }
    }
}
