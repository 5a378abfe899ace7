//! Names in the DNS that RealServers have as targets: what is known of them, and when which is asked for.
//!
//! An answer holds for its time to live. What is no answer, or one without addresses, changes what the last one said to
//! nothing (`dns_name_target.rs`), and is asked again sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lvs_crds::value::AddressFamily;

/// Most addresses of one family of a name. Of more the lowest serve.
pub const ADDRESSES_MAXIMUM: usize = 32;

/// Shortest time for which an answer is believed.
const TIME_TO_LIVE_MINIMUM: Duration = Duration::from_secs(5);
/// Longest time for which an answer is believed.
const TIME_TO_LIVE_MAXIMUM: Duration = Duration::from_mins(5);
/// Wait after the first failure in a row. It doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait after a failure, and no longer than the last answer held.
const RETRY_MAXIMUM: Duration = Duration::from_secs(30);
/// The same for a name of which nothing was ever heard: it takes up a place until its time is out.
const RETRY_MAXIMUM_UNHEARD: Duration = Duration::from_mins(5);
/// What part of a wait is added at most, so that names which were asked for together do not stay together.
const JITTER_DIVISOR: f64 = 10.0;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsName {
    /// A records.
    pub ipv4: Records,
    /// AAAA records.
    pub ipv6: Records,
}

impl DnsName {
    /// Records with addresses of a family.
    pub fn of(&self, family: AddressFamily) -> &Records {
        match family {
            AddressFamily::IPv4 => &self.ipv4,
            AddressFamily::IPv6 => &self.ipv6,
        }
    }
}

/// What is known of the addresses of one family of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Addresses of the last answer that had some, at most [`ADDRESSES_MAXIMUM`]. `None`: there was none since this
    /// controller asks.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// How many more that answer had.
    pub left_out: usize,
    /// What the last question came to.
    pub last_answer: LastAnswer,
}

/// What a question came to, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LastAnswer {
    /// There was no question yet.
    #[default]
    NotAsked,
    /// It has addresses.
    Addresses,
    /// The name has no addresses of the family (NODATA).
    NoRecords,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// No answer, or none that says anything; why, in words.
    Failed(String),
}

/// What the DNS answered to the question for the addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, at least one, in whatever order.
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// Shortest time to live of the records that led to them.
        time_to_live: Duration,
    },
    /// NODATA.
    NoRecords,
    /// NXDOMAIN.
    NoSuchName,
    /// No answer, or none that says anything; why, in words.
    Failed(String),
}

/// Answers to the questions for both families of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// For A records.
    pub ipv4: Answer,
    /// For AAAA records.
    pub ipv6: Answer,
}

impl Records {
    /// Takes an answer in. What held before it is replaced by addresses only.
    fn take(&mut self, answer: Answer) {
        self.last_answer = match answer {
            Answer::Addresses { addresses, .. } => {
                let all: BTreeSet<IpAddr> = addresses.into_iter().collect();
                self.left_out = all.len().saturating_sub(ADDRESSES_MAXIMUM);
                self.addresses = Some(all.into_iter().take(ADDRESSES_MAXIMUM).collect());
                LastAnswer::Addresses
            }
            Answer::NoRecords => LastAnswer::NoRecords,
            Answer::NoSuchName => LastAnswer::NoSuchName,
            Answer::Failed(why) => LastAnswer::Failed(why),
        };
    }

    /// Whether the last answer says less than is wanted: nothing, or that what there was is gone.
    fn is_in_doubt(&self) -> bool {
        match self.last_answer {
            LastAnswer::Addresses => false,
            LastAnswer::NoRecords => self.addresses.is_some(),
            LastAnswer::NotAsked | LastAnswer::NoSuchName | LastAnswer::Failed(_) => true,
        }
    }
}

/// What is known of one name, and when it is asked for.
#[derive(Clone, Debug)]
struct Entry {
    known: Arc<DnsName>,
    due: Duration,
    is_under_way: bool,
    /// Questions in a row after which something was in doubt.
    failures: u32,
    /// How long the last addresses held.
    time_to_live: Option<Duration>,
}

/// Every name that some RealServer has, once. Times are counted from any moment that stays the same.
#[derive(Clone, Debug, Default)]
pub struct NameBook {
    entries: BTreeMap<String, Entry>,
}

impl NameBook {
    /// Takes over which names there are. A new one is due at once; what nobody names is forgotten.
    pub fn want(&mut self, names: &BTreeSet<String>, now: Duration) {
        self.entries.retain(|name, _| names.contains(name));
        for name in names {
            self.entries.entry(name.clone()).or_insert_with(|| Entry {
                known: Arc::default(),
                due: now,
                is_under_way: false,
                failures: 0,
                time_to_live: None,
            });
        }
    }

    /// Names to be asked for now, at most `room`, those first that wait longest. Each is under way from now on.
    pub fn ask(&mut self, now: Duration, room: usize) -> Vec<String> {
        let mut due: Vec<_> = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| !entry.is_under_way && entry.due <= now)
            .collect();
        due.sort_by_key(|(name, entry)| (entry.due, *name));
        due.into_iter()
            .take(room)
            .map(|(name, entry)| {
                entry.is_under_way = true;
                name.clone()
            })
            .collect()
    }

    /// When the next name is due that is not under way.
    pub fn next(&self) -> Option<Duration> {
        let waiting = self.entries.values().filter(|entry| !entry.is_under_way);
        waiting.map(|entry| entry.due).min()
    }

    /// Takes answers in; `jitter` in 0..1 is drawn anew for each. Says whether what is known has changed.
    pub fn answered(&mut self, name: &str, answers: Answers, now: Duration, jitter: f64) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.is_under_way = false;
        let live = [&answers.ipv4, &answers.ipv6]
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Addresses { time_to_live, .. } => Some(*time_to_live),
                _ => None,
            });
        if let Some(shortest) = live.min() {
            let bounded = shortest.clamp(TIME_TO_LIVE_MINIMUM, TIME_TO_LIVE_MAXIMUM);
            entry.time_to_live = Some(bounded);
        }
        let mut known = DnsName::clone(&entry.known);
        known.ipv4.take(answers.ipv4);
        known.ipv6.take(answers.ipv6);
        let wait = entry.wait(&known);
        entry.due = now + wait + wait.mul_f64(jitter.clamp(0.0, 1.0) / JITTER_DIVISOR);
        let differs = *entry.known != known;
        entry.known = Arc::new(known);
        differs
    }

    /// What is known of each name.
    pub fn known(&self) -> BTreeMap<String, Arc<DnsName>> {
        let entries = self.entries.iter();
        entries
            .map(|(name, entry)| (name.clone(), entry.known.clone()))
            .collect()
    }
}

impl Entry {
    /// How long to wait before the next question, and how many were in vain by now.
    fn wait(&mut self, known: &DnsName) -> Duration {
        let both = [&known.ipv4, &known.ipv6];
        let is_nowhere = both
            .iter()
            .all(|records| records.last_answer != LastAnswer::Addresses);
        let is_in_doubt = is_nowhere || both.iter().any(|records| records.is_in_doubt());
        if !is_in_doubt {
            self.failures = 0;
            return self.time_to_live.unwrap_or(TIME_TO_LIVE_MINIMUM);
        }
        let retry = RETRY_FIRST.saturating_mul(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        let is_silent = both
            .iter()
            .all(|records| matches!(records.last_answer, LastAnswer::Failed(_)));
        let maximum = match self.time_to_live {
            Some(time_to_live) => RETRY_MAXIMUM.min(time_to_live),
            None if is_silent => RETRY_MAXIMUM_UNHEARD,
            None => RETRY_MAXIMUM,
        };
        retry.min(maximum)
    }
}
