//! What is remembered of tokens: verdicts, for a time, and never the tokens themselves.

use std::collections::BTreeMap;
use std::time::Instant;

use ring::digest::{SHA256, digest};

use crate::limits::{ALLOWED, REFUSED};

/// May a token get /metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// The API server does not know it: it is none, has expired, or what it was bound to is gone.
    Unknown,
    /// It is somebody's who may not.
    Forbidden,
}

impl Verdict {
    const fn holds(self) -> std::time::Duration {
        match self {
            Self::Allowed => ALLOWED,
            Self::Unknown | Self::Forbidden => REFUSED,
        }
    }
}

/// What a token is known by: its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a token.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// Verdicts that still hold, so many at most.
#[derive(Debug)]
pub struct Verdicts {
    capacity: usize,
    known: BTreeMap<TokenDigest, (Verdict, Instant)>,
}

impl Verdicts {
    /// None yet.
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            known: BTreeMap::new(),
        }
    }

    /// What was found of a token, if that holds at `now`.
    pub fn of(&self, token: &TokenDigest, now: Instant) -> Option<Verdict> {
        let (verdict, until) = self.known.get(token)?;
        (now < *until).then_some(*verdict)
    }

    /// What was found of a token at `now`. Where there is no room the one goes that would end first.
    pub fn remember(&mut self, token: TokenDigest, verdict: Verdict, now: Instant) {
        self.known.retain(|_, (_, until)| now < *until);
        self.known.remove(&token);
        while self.known.len() >= self.capacity {
            let first = self.known.iter().min_by_key(|(_, (_, until))| *until);
            let Some(first) = first.map(|(token, _)| *token) else {
                return;
            };
            self.known.remove(&first);
        }
        self.known.insert(token, (verdict, now + verdict.holds()));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{REVIEW_INTERVAL, VERDICTS};

    #[test]
    fn a_verdict_holds_for_its_time_and_no_longer() {
        let now = Instant::now();
        let tick = Duration::from_millis(1);
        let earlier = now;
        let now = now + tick;
        for (verdict, time) in [
            (Verdict::Allowed, ALLOWED),
            (Verdict::Unknown, REFUSED),
            (Verdict::Forbidden, REFUSED),
        ] {
            let mut verdicts = Verdicts::new(4);
            let token = TokenDigest::of("a");
            verdicts.remember(token, verdict, now);
            assert_eq!(verdicts.of(&token, earlier + time), Some(verdict));
            assert_eq!(verdicts.of(&token, now + time), None);
            assert_eq!(verdicts.of(&TokenDigest::of("b"), now), None);
        }
    }

    /// Whoever shows nonsense as fast as it is judged does not make others be judged anew.
    #[test]
    fn tokens_that_are_refused_push_out_none_that_is_allowed() {
        let start = Instant::now();
        let mut verdicts = Verdicts::new(VERDICTS);
        let allowed = TokenDigest::of("prometheus");
        verdicts.remember(allowed, Verdict::Allowed, start);
        let mut now = start;
        for turn in 0.. {
            now += REVIEW_INTERVAL;
            if now >= start + ALLOWED {
                break;
            }
            let nonsense = TokenDigest::of(&format!("nonsense {turn}"));
            verdicts.remember(nonsense, Verdict::Unknown, now);
            assert_eq!(verdicts.of(&allowed, now), Some(Verdict::Allowed));
        }
    }

    proptest! {
        /// Against a plain list of everything that was ever found.
        #[test]
        fn nobody_is_let_in_by_what_was_found_of_another_or_too_long_ago(
            capacity in 1_usize..6,
            found in prop::collection::vec((0_u8..8, 0_u8..3, 0_u64..30_000), 0..60),
        ) {
            let mut now = Instant::now();
            let mut verdicts = Verdicts::new(capacity);
            let mut history = BTreeMap::new();
            for (token, verdict, milliseconds) in found {
                now += Duration::from_millis(milliseconds);
                let verdict = [Verdict::Allowed, Verdict::Unknown, Verdict::Forbidden][usize::from(verdict)];
                verdicts.remember(TokenDigest::of(&token.to_string()), verdict, now);
                history.insert(token, (verdict, now));
                prop_assert!(verdicts.len() <= capacity);
                prop_assert_eq!(verdicts.of(&TokenDigest::of(&token.to_string()), now), Some(verdict));
                for other in 0_u8..8 {
                    let Some(seen) = verdicts.of(&TokenDigest::of(&other.to_string()), now) else { continue };
                    let (last, then) = history[&other];
                    prop_assert_eq!(seen, last);
                    prop_assert!(now < then + last.holds());
                }
            }
        }
    }
}
