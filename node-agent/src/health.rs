//! Asks real servers. When, and what the answers come to, is decided by `lvs_core::health`.
//!
//! Every question is a task of its own: one that hangs, or fails by itself, hurts no other. All of them are on one thread,
//! which never waits for one of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use lvs_core::health::{Cadence, Change, Check, Checks, Health, Outcome, Start, UnixSeconds};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::leadership::clock;
use crate::limits::{QUESTIONS, QUESTIONS_AT_ONCE};
use credentials::CredentialFiles;
use metrics::Results;
use passage::Laid;

pub mod credentials;
mod metrics;
pub mod passage;
pub mod probe;

/// A timer this far ahead while questions are asked, less than the shortest of them may take: setting one that comes before all
/// others costs a write to the kernel, and the timer of each question would.
const SENTINEL: Duration = Duration::from_millis(900);

/// What the sync loop and the one who asks share. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct HealthExchange {
    checks: Arc<Mutex<Checks<Check>>>,
    /// There are other checks to be made than before.
    other: Arc<Notify>,
    /// Counts changes of what is known.
    changes: watch::Sender<u64>,
    /// Ways through IPVS.
    laid: watch::Sender<Laid>,
    results: Results,
}

impl HealthExchange {
    /// The checks that are to be made, all of them. Of a new one `remembered` says what is known already.
    pub fn want(&self, wanted: &BTreeMap<Check, Cadence>, remembered: impl Fn(&Check) -> Health) {
        self.lock().want(wanted, remembered, clock::now());
        self.other.notify_one();
    }

    /// Whether one of these checks is not made yet.
    pub fn is_new(&self, wanted: &BTreeMap<Check, Cadence>) -> bool {
        let checks = self.lock();
        wanted.keys().any(|check| !checks.contains(check))
    }

    /// Looks at what is known.
    pub fn with<T>(&self, look: impl FnOnce(&Checks<Check>) -> T) -> T {
        look(&self.lock())
    }

    /// The ways through IPVS that are in the kernel, all of them. A check that needs another waits for it as long as it may
    /// take.
    pub fn lay(&self, laid: Laid) {
        self.laid.send_if_modified(|known| {
            let is_other = *known != laid;
            if is_other {
                *known = laid;
            }
            is_other
        });
    }

    /// Wakes when that changes.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Checks<Check>> {
        // Nothing in there panics between two writes that belong together.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks on a thread of its own, with these credentials, until the process ends or that thread does, which is an error.
    pub async fn ask(self, credentials: CredentialFiles) -> anyhow::Result<()> {
        allow_files()?;
        let (sender, ended) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of health checks")?;
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                // Dropped when it returns, and also when it panics.
                let _sender = sender;
                // A task of its own: what wakes the future that a runtime blocks on costs a write to the kernel each time.
                let asking = runtime.spawn(self.run(credentials));
                if let Err(error) = runtime.block_on(asking) {
                    tracing::error!("the thread of health checks failed: {error}");
                }
            })
            .context("starting the thread of health checks")?;
        let _: Result<(), _> = ended.await;
        anyhow::bail!("the thread of health checks ended")
    }

    async fn run(self, credentials: CredentialFiles) {
        let mut under_way = UnderWay::new(credentials);
        let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
        let mut paused_until = None;
        let mut sentinel = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let now = clock::now();
            let (starts, next) = {
                let mut checks = self.lock();
                let free = QUESTIONS.saturating_sub(under_way.questions.len());
                let starts = checks.start(now, free.min(QUESTIONS_AT_ONCE));
                (starts, checks.next_due().filter(|_| free > 0))
            };
            if !starts.is_empty() {
                sentinel
                    .as_mut()
                    .reset(tokio::time::Instant::now() + SENTINEL);
            }
            for start in starts {
                under_way.begin(start, self.laid.subscribe());
            }
            // Setting it anew each time costs a write to the kernel each time.
            if paused_until != next {
                paused_until = next;
                let rest = next.map_or(Duration::ZERO, |next| next.since(now));
                pause.as_mut().reset(tokio::time::Instant::now() + rest);
            }
            tokio::select! {
                Some(ended) = under_way.questions.join_next_with_id() => {
                    if let Some(Ended { key, serial, outcome, certificate_expiry, duration }) = under_way.end(ended) {
                        self.results.count(key.question.type_, &outcome, duration);
                        if let Some(not_after) = certificate_expiry {
                            self.note_certificate(&key, serial, not_after);
                        }
                        let change = self.lock().end(&key, serial, &outcome, clock::now());
                        self.note(change.as_ref());
                    }
                }
                () = self.other.notified() => {}
                () = &mut pause, if paused_until.is_some() => paused_until = None,
                () = &mut sentinel, if !sentinel.is_elapsed() => {}
            }
        }
    }

    /// A check was shown a certificate that expires then.
    fn note_certificate(&self, key: &Check, serial: u64, not_after: UnixSeconds) {
        let today = calendar();
        let is_other = {
            let mut checks = self.lock();
            let warned = |checks: &Checks<Check>| {
                let known = checks.certificate_expiry(key);
                known.filter(|not_after| key.warns_of(*not_after, today))
            };
            let before = warned(&checks);
            checks.note_certificate(key, serial, not_after, clock::now());
            before != warned(&checks)
        };
        if is_other {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn note(&self, change: Option<&Change<Check>>) {
        let Some(Change { key, after, .. }) = change else {
            return;
        };
        let (target, type_) = (key, key.question.type_);
        if let Health::Down(why) = after {
            tracing::warn!(%target, ?type_, "real server is down: {why}");
        } else {
            tracing::info!(%target, ?type_, "real server is up");
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Now, by the calendar, which certificates go by.
pub fn calendar() -> UnixSeconds {
    UnixSeconds(Timestamp::now().as_second())
}

/// As many open files as the process may have at all: each question is one.
fn allow_files() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading RLIMIT_NOFILE")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .with_context(|| format!("raising RLIMIT_NOFILE from {soft} to {hard}"))?;
    }
    Ok(())
}

/// Questions that have no answer yet.
struct UnderWay {
    credentials: Arc<CredentialFiles>,
    questions: JoinSet<(Outcome, Option<UnixSeconds>)>,
    checks: BTreeMap<Id, (Check, u64, Instant)>,
}

/// A question that was answered, or had its time.
struct Ended {
    key: Check,
    serial: u64,
    outcome: Outcome,
    /// When the certificate expires that was shown.
    certificate_expiry: Option<UnixSeconds>,
    duration: Duration,
}

impl UnderWay {
    fn new(credentials: CredentialFiles) -> Self {
        Self {
            credentials: Arc::new(credentials),
            questions: JoinSet::new(),
            checks: BTreeMap::new(),
        }
    }

    fn begin(
        &mut self,
        Start {
            key,
            serial,
            timeout,
        }: Start<Check>,
        laid: watch::Receiver<Laid>,
    ) {
        let check = key.clone();
        let credentials = Arc::clone(&self.credentials);
        let asking = async move {
            let way = match passage::way(&check, laid, timeout).await {
                Ok(way) => way,
                Err(words) => return (Outcome::NotAsked(words), None),
            };
            let probe::Answer {
                verdict,
                certificate_expiry,
            } = probe::ask(way, &check.question, &check.means, &credentials).await;
            let outcome = match verdict {
                Ok(()) => Outcome::Success,
                Err(words) if words.starts_with(probe::NOT_ASKED) => Outcome::NotAsked(words),
                Err(words) if way.passage.is_some() => {
                    Outcome::Failure(format!("through {}: {words}", way.address.ip()))
                }
                Err(words) => Outcome::Failure(words),
            };
            (outcome, certificate_expiry)
        };
        let id = self.questions.spawn(asking).id();
        self.checks.insert(id, (key, serial, Instant::now()));
    }

    fn end(
        &mut self,
        ended: Result<(Id, (Outcome, Option<UnixSeconds>)), JoinError>,
    ) -> Option<Ended> {
        let (id, (outcome, certificate_expiry)) = ended.unwrap_or_else(|error| {
            let words = format!("the check itself failed: {error}");
            (error.id(), (Outcome::Failure(words), None))
        });
        let (key, serial, begun) = self.checks.remove(&id)?;
        Some(Ended {
            key,
            serial,
            outcome,
            certificate_expiry,
            duration: begun.elapsed(),
        })
    }
}
