//! Which checks there are, and when each is made.
//!
//! A check is made from start to start a period after the one before, a little less so that checks do not fall into step,
//! and never twice at a time: one that takes longer than its period is followed by the next when it ends. While the last
//! result contradicts what is known the shorter retry period counts. The first checks of many real servers are spread. When
//! exactly is chosen so that several are due together: waking up costs as much as asking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::expiry::{ShownExpiry, UnixSeconds};
use super::machine::{Health, Machine, Outcome, Thresholds};
use crate::election::Tick;

/// First checks are spread over this long for each of them, in all over [`FIRST_WITHIN`] or a period at most.
const FIRST_APART: Duration = Duration::from_millis(1);
/// See [`FIRST_APART`].
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// A period is shortened by this part of it at most, never lengthened: bounds of detection hold.
const JITTER_PART: u32 = 20;
/// Checks are due at whole multiples of this, by the clock; less than the jitter of the shortest period, 1 s.
const STEP: Duration = Duration::from_millis(20);

/// When a check is made, and when its results count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// From start to start.
    pub period: Duration,
    /// The same while the last result contradicts what is known.
    pub retry_period: Duration,
    /// How long one check may take; may be longer than the period.
    pub timeout: Duration,
    /// Results in a row that count.
    pub thresholds: Thresholds,
}

/// A check to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start<K> {
    /// Which.
    pub key: K,
    /// Goes with the outcome: that of a check which was taken away meanwhile counts for nobody.
    pub serial: u64,
    /// It has failed when it took this long.
    pub timeout: Duration,
}

/// What is known of a check has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<K> {
    /// Of which.
    pub key: K,
    /// Known before.
    pub before: Health,
    /// Known now.
    pub after: Health,
}

#[derive(Clone, Debug)]
struct Entry {
    cadence: Cadence,
    machine: Machine,
    expiry: ShownExpiry,
    progress: Progress,
    /// Differs between checks, for spreading.
    seed: u64,
    /// Checks made so far.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    /// The next is due then.
    Waits(Tick),
    /// One is under way, begun then.
    UnderWay { serial: u64, begun: Tick },
}

/// All checks of a node, each once however many services want it.
#[derive(Clone, Debug)]
pub struct Checks<K> {
    entries: BTreeMap<K, Entry>,
    /// When each that waits is due.
    agenda: BTreeSet<(Tick, K)>,
    serial: u64,
}

impl<K: Ord + Clone> Default for Checks<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            agenda: BTreeSet::new(),
            serial: 0,
        }
    }
}

impl<K: Ord + Clone> Checks<K> {
    /// The checks that are wanted from `now` on, all of them. One that was wanted before keeps what is known of it, also with
    /// another cadence; of a new one that is known which `remembered` says.
    pub fn want(
        &mut self,
        wanted: &BTreeMap<K, Cadence>,
        remembered: impl Fn(&K) -> Health,
        now: Tick,
    ) {
        let agenda = &mut self.agenda;
        self.entries.retain(|key, check| {
            let stays = wanted.contains_key(key);
            if let (false, Progress::Waits(due)) = (stays, check.progress) {
                agenda.remove(&(due, key.clone()));
            }
            stays
        });
        let new = wanted.keys().filter(|key| !self.entries.contains_key(*key));
        let count = u32::try_from(new.count()).unwrap_or(u32::MAX);
        let spread = FIRST_APART.saturating_mul(count).min(FIRST_WITHIN);
        for (key, cadence) in wanted {
            if let Some(check) = self.entries.get_mut(key) {
                check.cadence = *cadence;
                // A shorter period counts from now on.
                if let Progress::Waits(due) = check.progress
                    && due > now + cadence.period
                {
                    self.agenda.remove(&(due, key.clone()));
                    check.progress = Progress::Waits(now + cadence.period);
                    self.agenda.insert((now + cadence.period, key.clone()));
                }
                continue;
            }
            self.serial += 1;
            let seed = mixed(self.serial);
            let due = step_at(now + part(spread.min(cadence.period), seed)).max(now);
            let check = Entry {
                cadence: *cadence,
                machine: Machine::with(remembered(key)),
                expiry: ShownExpiry::default(),
                progress: Progress::Waits(due),
                seed,
                count: 0,
            };
            self.entries.insert(key.clone(), check);
            self.agenda.insert((due, key.clone()));
        }
    }

    /// Checks that are due at `now`, the one that is due longest first, `limit` at most; they are under way from now on.
    pub fn start(&mut self, now: Tick, limit: usize) -> Vec<Start<K>> {
        let mut starts = Vec::new();
        while starts.len() < limit {
            let Some(entry) = self.agenda.first().filter(|(due, _)| *due <= now).cloned() else {
                break;
            };
            self.agenda.remove(&entry);
            let (_, key) = entry;
            let Some(check) = self.entries.get_mut(&key) else {
                continue;
            };
            self.serial += 1;
            check.progress = Progress::UnderWay {
                serial: self.serial,
                begun: now,
            };
            check.count += 1;
            starts.push(Start {
                serial: self.serial,
                timeout: check.cadence.timeout,
                key,
            });
        }
        starts
    }

    /// A check that is under way was shown a certificate whose last second is `not_after`. When that expires which counts is in
    /// [`Checks::certificate_expiry`].
    pub fn note_certificate(&mut self, key: &K, serial: u64, not_after: UnixSeconds, now: Tick) {
        let check = self.entries.get_mut(key);
        let asked = check.filter(|check| {
            matches!(check.progress, Progress::UnderWay { serial: under_way, .. } if under_way == serial)
        });
        if let Some(check) = asked {
            check.expiry.note(not_after, now);
        }
    }

    /// A check has ended.
    pub fn end(&mut self, key: &K, serial: u64, outcome: &Outcome, now: Tick) -> Option<Change<K>> {
        let check = self.entries.get_mut(key)?;
        let Progress::UnderWay {
            serial: under_way,
            begun,
        } = check.progress
        else {
            return None;
        };
        if under_way != serial {
            return None;
        }
        let before = check.machine.health().clone();
        let is_changed = check.machine.note(outcome, check.cadence.thresholds);
        let due = check.next_due(begun).max(now);
        check.progress = Progress::Waits(due);
        self.agenda.insert((due, key.clone()));
        is_changed.then(|| Change {
            key: key.clone(),
            before,
            after: check.machine.health().clone(),
        })
    }

    /// When [`Checks::start`] is wanted next.
    pub fn next_due(&self) -> Option<Tick> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// What is known of a check; nothing of one that is not wanted.
    pub fn health(&self, key: &K) -> Health {
        let check = self.entries.get(key);
        check.map_or(Health::Unknown, |check| check.machine.health().clone())
    }

    /// When the certificate expires that a check was shown, if it was shown one. Of two that are shown in turn it is the one that
    /// expires first.
    pub fn certificate_expiry(&self, key: &K) -> Option<UnixSeconds> {
        self.entries.get(key)?.expiry.get()
    }

    /// Whether a check is wanted.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// What is known of all of them.
    pub fn all(&self) -> impl Iterator<Item = (&K, &Health)> {
        self.entries
            .iter()
            .map(|(key, check)| (key, check.machine.health()))
    }

    /// When certificates expire, of every check that was shown one.
    pub fn certificate_expiries(&self) -> impl Iterator<Item = (&K, UnixSeconds)> {
        self.entries
            .iter()
            .filter_map(|(key, check)| Some((key, check.expiry.get()?)))
    }
}

impl Entry {
    /// When the check after one that began at `begun` is due.
    fn next_due(&self, begun: Tick) -> Tick {
        let random = mixed(self.seed ^ self.count);
        if self.machine.is_contradicted() {
            return step_at(begun + self.cadence.retry_period);
        }
        let period = self.cadence.period;
        if self.count == 1 {
            // Checks that began together within a second are spread over the whole period.
            return step_at(begun + part(period, random));
        }
        let jitter = period / JITTER_PART;
        step_at(begun + period - part(jitter.saturating_sub(STEP), random))
    }
}

/// The last step that is not after `at`.
fn step_at(at: Tick) -> Tick {
    let step = u64::try_from(STEP.as_nanos()).unwrap_or(u64::MAX);
    Tick::from_nanoseconds(at.nanoseconds() / step * step)
}

/// A part of a duration: none of it with the least number, nearly all of it with the greatest.
fn part(whole: Duration, random: u64) -> Duration {
    let nanoseconds = (whole.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Numbers that are near each other become ones that are not: the finalizer of splitmix64 (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
