//! What people are told of an election: how this node came to hold a router and ceased to, why, how long each part of a
//! takeover took, and whose heartbeats are missing.
//!
//! A [`Chronicle`] stands beside one [`Machine`](crate::election::Machine). It is told what the machine is told and sees
//! what the machine does about it; it has no say in anything.

mod cause;
mod hearing;
mod takeover;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lvs_crds::condition::Reason;
use lvs_crds::transition::TransitionKind;

use crate::election::{
    Config, DropReason, Effect, Event, Hold, Identity, LeaseRecord, LeaseWrite, Resumption, Role,
    Status, Tick, WritePurpose,
};
use crate::fence::Progress;
use crate::heartbeat::{Heard, Standing};

use cause::{Cause, Giving};
use hearing::Hearing;
use takeover::{Attempt, Challenge, Takeover};

pub use cause::Departure;
pub use hearing::QUIET_PERIOD;
pub use takeover::{Phase, Phases};

/// Versions of the Lease that are remembered: the election bases a write on one of the newest.
const VERSIONS: usize = 8;

/// What happened to this node's hold on the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub kind: TransitionKind,
    /// Of a takeover or handover the epoch that began, else the one that was given up.
    pub epoch: u64,
    /// The director that held the addresses before, or holds them now.
    pub peer: Option<String>,
    /// What led to it, in words with values.
    pub why: String,
}

/// A version of the Lease, and what it shows of its holder.
#[derive(Clone, Debug)]
struct Version {
    lease: LeaseRecord,
    /// Since when the holder has shown no other sign of life in the Lease.
    unchanged_since: Tick,
    /// Since when the Lease has been offered.
    offered_since: Option<Tick>,
}

/// What was heard last of another director.
#[derive(Clone, Debug)]
struct LastHeard {
    at: Tick,
    standing: Standing,
    offers_since: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: u64,
    /// When the newest write was sent that it rests on.
    sent_at: Tick,
    /// Held by this process, not only left in the kernel by an earlier one.
    is_own: bool,
}

/// The chronicle of one candidate for one Lease.
#[derive(Clone, Debug)]
pub struct Chronicle {
    me: Identity,
    config: Config,
    departure: Option<Departure>,
    /// The newest is the last.
    versions: VecDeque<Version>,
    /// By node; only fresh heartbeats.
    heard: BTreeMap<String, LastHeard>,
    challenge: Option<Challenge>,
    attempt: Option<Attempt>,
    tenure: Option<Tenure>,
    /// Highest epoch that another node is known to hold.
    successor: Option<(u64, String)>,
    giving: Option<Giving>,
    is_ending: bool,
    has_lost_api: bool,
    takeover: Option<Takeover>,
    hearing: Hearing,
}

impl Chronicle {
    /// The chronicle of the machine that was made from the same values.
    pub fn new(me: Identity, config: Config, resumption: Option<Resumption>, now: Tick) -> Self {
        let left = resumption.filter(|resumption| resumption.held);
        Self {
            me,
            config,
            departure: None,
            versions: VecDeque::new(),
            heard: BTreeMap::new(),
            challenge: None,
            attempt: None,
            tenure: left.map(|left| Tenure {
                epoch: left.epoch,
                sent_at: now,
                is_own: false,
            }),
            successor: None,
            giving: None,
            is_ending: false,
            has_lost_api: false,
            takeover: None,
            hearing: Hearing::default(),
        }
    }

    /// Why this node is to leave the router to others, when it is; the machine is told no more than that it is.
    pub fn depart(&mut self, departure: Option<Departure>) {
        self.departure = departure;
    }

    /// Notes what the machine is told at `now`.
    pub fn told(&mut self, event: &Event, now: Tick) {
        match event {
            Event::Seen(lease, _) | Event::Acknowledged(lease) => self.see(lease, now),
            Event::Heard(heard) => self.hear(heard, now),
            Event::Configured(config) => self.config = config.clone(),
            Event::ShutdownRequested => self.is_ending = true,
            Event::ApiLost => self.has_lost_api = true,
            Event::ApiBack => self.has_lost_api = false,
            Event::Absent(_)
            | Event::Doubted(_)
            | Event::ReadFailed
            | Event::WatchLost
            | Event::Conflict
            | Event::LeaseGone
            | Event::WriteFailed
            | Event::WriteRefused
            | Event::Deadline => {}
        }
    }

    /// Notes what the machine does about it; what that means for people, in order.
    pub fn said(&mut self, effects: &[Effect], now: Tick) -> Vec<Happened> {
        let mut happened = Vec::new();
        for effect in effects {
            match effect {
                Effect::Write(write) => self.write(write, now),
                Effect::Hold(hold) => happened.extend(self.hold(hold, now)),
                Effect::Drop(reason) => happened.extend(self.give_up(*reason, now)),
                Effect::Say(standing) => {
                    let holds = standing.holder.as_ref() == Some(&self.me.node);
                    if standing.offers {
                        self.begin_giving();
                    } else if holds {
                        // It is no longer meant. Once a successor is there it was.
                        self.giving = None;
                    }
                }
                Effect::Read | Effect::Yield | Effect::Stop => {}
            }
        }
        happened
    }

    /// Notes what the machine says of itself, for [`Chronicle::heartbeat_lost_from`].
    pub fn look(&mut self, status: &Status, now: Tick) {
        let holder = status.holder.as_ref().map(|holder| holder.node.as_str());
        let holder = holder.filter(|_| status.role == Role::Backup);
        let is_lost = status.reason == Reason::HeartbeatLost;
        self.hearing.look(holder, is_lost, now);
    }

    /// The holder whose heartbeats do not arrive though it renews its Lease. Said at once, and until they have arrived again
    /// for [`QUIET_PERIOD`].
    pub fn heartbeat_lost_from(&self) -> Option<&str> {
        self.hearing.lost_from()
    }

    /// When [`Chronicle::look`] is wanted though nothing happened.
    pub fn next_look(&self) -> Option<Tick> {
        self.hearing.next_look()
    }

    /// Whether a takeover waits for its addresses to be announced.
    pub const fn awaits_announcement(&self) -> bool {
        self.takeover.is_some()
    }

    /// How long each phase of the takeover took, once `progress` says that all addresses were announced.
    pub fn announced(&mut self, progress: &Progress) -> Option<Phases> {
        let takeover = self
            .takeover
            .as_ref()
            .filter(|takeover| takeover.epoch() == progress.epoch)?;
        let phases = takeover.phases(progress.applied_at?, progress.announced_at?);
        self.takeover = None;
        Some(phases)
    }

    // ---- What the machine is told ------------------------------------------------------------

    fn see(&mut self, lease: &LeaseRecord, now: Tick) {
        if let Some(holder) = &lease.holder {
            self.note_successor(lease.epoch, &holder.node);
        }
        let is_known = |version: &Version| version.lease.resource_version == lease.resource_version;
        if self.versions.iter().any(is_known) {
            return;
        }
        let before = self.versions.back();
        let version = Version {
            unchanged_since: before
                .filter(|before| before.lease.same_life(lease))
                .map_or(now, |before| before.unchanged_since),
            offered_since: lease.offered.then(|| {
                before
                    .filter(|before| before.lease.epoch == lease.epoch)
                    .and_then(|before| before.offered_since)
                    .unwrap_or(now)
            }),
            lease: lease.clone(),
        };
        self.versions.push_back(version);
        if self.versions.len() > VERSIONS {
            self.versions.pop_front();
        }
    }

    fn hear(&mut self, heard: &Heard, now: Tick) {
        let standing = &heard.standing;
        if let Some(holder) = &standing.holder {
            self.note_successor(standing.epoch, holder);
        }
        if !heard.fresh {
            return;
        }
        let before = self.heard.get(&heard.from.node);
        let offers_since = standing.offers.then(|| {
            before
                .filter(|before| before.standing.epoch == standing.epoch)
                .and_then(|before| before.offers_since)
                .unwrap_or(now)
        });
        let last = LastHeard {
            at: now,
            standing: standing.clone(),
            offers_since,
        };
        self.heard.insert(heard.from.node.clone(), last);
    }

    fn note_successor(&mut self, epoch: u64, node: &str) {
        let known = self.successor.as_ref().map_or(0, |(epoch, _)| *epoch);
        if node != self.me.node && epoch >= known {
            self.successor = Some((epoch, node.to_owned()));
        }
    }

    // ---- What the machine does ---------------------------------------------------------------

    fn write(&mut self, write: &LeaseWrite, now: Tick) {
        match write.purpose {
            WritePurpose::Challenge => {
                let holder = write.holder.as_ref().map(|holder| &holder.node);
                let last = holder.and_then(|node| self.heard.get(node));
                self.challenge = Some(Challenge {
                    epoch: write.epoch,
                    sent_at: now,
                    heard_at: last.map(|last| last.at),
                });
            }
            WritePurpose::Acquire => {
                let attempt = self.attempt(write, now);
                self.attempt = attempt;
            }
            WritePurpose::Renew if write.offered => self.begin_giving(),
            // With heartbeats these say when it is no longer meant.
            WritePurpose::Renew if self.config.timing.heartbeat().is_none() => self.giving = None,
            WritePurpose::Renew
            | WritePurpose::Adopt
            | WritePurpose::Lend
            | WritePurpose::Release => {}
        }
    }

    fn attempt(&mut self, write: &LeaseWrite, now: Tick) -> Option<Attempt> {
        let version = self
            .versions
            .iter()
            .find(|version| version.lease.resource_version == write.resource_version)?;
        let lease = &version.lease;
        let holder = lease.holder.as_ref().map(|holder| holder.node.as_str());
        let is_mine = holder == Some(self.me.node.as_str());
        // One whose acknowledgement got lost, or came too late: the second attempt ends what the first began.
        let earlier = self.attempt.take();
        if let Some(earlier) = earlier.filter(|earlier| is_mine && earlier.epoch == lease.epoch) {
            return Some(Attempt {
                epoch: write.epoch,
                ..earlier
            });
        }
        let silence = self.config.timing.heartbeat().map(|times| times.silence());
        let last = holder.and_then(|holder| self.heard.get(holder));
        let consent_since = last
            .filter(|last| last.standing.epoch == lease.epoch)
            .filter(|last| silence.is_some_and(|silence| now.since(last.at) < silence))
            .and_then(|last| last.offers_since);
        let offered_since = version.offered_since.into_iter().chain(consent_since).min();
        let challenge = self
            .challenge
            .filter(|challenge| challenge.epoch == lease.epoch)
            .filter(|_| lease.challenger.as_ref() == Some(&self.me));
        let (cause, lost_at, challenged_at) = if self.tenure.is_some_and(|tenure| tenure.is_own) {
            (Cause::Reclaimed, now, now)
        } else if is_mine {
            (Cause::Resumed, now, now)
        } else if holder.is_none() {
            (Cause::Vacant, version.unchanged_since, now)
        } else if let Some(since) = offered_since {
            (Cause::Offered, since, now)
        } else if let Some(challenge) = challenge {
            let heard_at = challenge.heard_at;
            let cause = Cause::Unanswered {
                silence: heard_at.map(|at| challenge.sent_at.since(at)),
                waited: now.since(challenge.sent_at),
            };
            let lost_at = heard_at.unwrap_or(version.unchanged_since);
            (cause, lost_at.min(challenge.sent_at), challenge.sent_at)
        } else {
            let unchanged = now.since(version.unchanged_since);
            (Cause::Expired { unchanged }, version.unchanged_since, now)
        };
        Some(Attempt {
            epoch: write.epoch,
            from: holder.filter(|_| !is_mine).map(str::to_owned),
            cause,
            lost_at,
            challenged_at,
            sent_at: now,
        })
    }

    fn hold(&mut self, hold: &Hold, now: Tick) -> Option<Happened> {
        let before = self.tenure.replace(Tenure {
            epoch: hold.epoch,
            sent_at: hold.sent_at,
            is_own: true,
        });
        if before.is_some_and(|before| before.epoch == hold.epoch) {
            return None;
        }
        self.giving = None;
        let attempt = self
            .attempt
            .take()
            .filter(|attempt| attempt.epoch == hold.epoch)?;
        self.challenge = None;
        let happened = Happened {
            kind: TransitionKind::BecameMaster,
            epoch: hold.epoch,
            peer: attempt.from.clone(),
            why: attempt.cause.to_string(),
        };
        self.takeover = Takeover::begun(attempt, now);
        Some(happened)
    }

    /// From now on the holder consents to a successor, or offers the Lease: why, as things are now. They may have changed when
    /// a successor is there.
    fn begin_giving(&mut self) {
        let Config {
            priority,
            preemption_delay,
            hand_over_to,
            ..
        } = &self.config;
        self.giving.get_or_insert_with(|| Giving {
            is_ending: self.is_ending,
            departure: self.departure.clone(),
            wanted: hand_over_to.clone(),
            has_lost_api: self.has_lost_api,
            priority: *priority,
            is_preemptible: preemption_delay.is_some(),
        });
    }

    fn give_up(&mut self, reason: DropReason, now: Tick) -> Option<Happened> {
        self.takeover = None;
        let tenure = self.tenure.take()?;
        let giving = self.giving.take();
        let successor = self
            .successor
            .clone()
            .filter(|(epoch, _)| *epoch > tenure.epoch);
        let fenced = |why: String, peer: Option<String>| Happened {
            kind: TransitionKind::Fenced,
            epoch: tenure.epoch,
            peer,
            why,
        };
        match reason {
            DropReason::HandedOver => {
                let (epoch, peer) = successor.unzip();
                let priority = peer
                    .as_ref()
                    .and_then(|peer| self.heard.get(peer))
                    .map(|last| last.standing.priority);
                let why = giving.map_or_else(
                    || "it had offered them".to_owned(),
                    |giving| giving.why(peer.as_deref(), priority),
                );
                Some(Happened {
                    kind: TransitionKind::HandedOver,
                    epoch: epoch.unwrap_or(tenure.epoch),
                    peer,
                    why,
                })
            }
            DropReason::Superseded => {
                let why = match &successor {
                    Some((epoch, node)) => format!("{node} holds epoch {epoch}"),
                    None => "another director holds the Lease".to_owned(),
                };
                Some(fenced(why, successor.map(|(_, node)| node)))
            }
            DropReason::Expired => {
                let since = now.since(tenure.sent_at);
                let why = format!("no renewal was acknowledged for {}", seconds(since));
                Some(fenced(why, None))
            }
            DropReason::Isolated => {
                let why = "the API server cannot be reached, and not every other director has promised to wait";
                Some(fenced(why.to_owned(), None))
            }
            // The plan says so itself, or nothing is held.
            DropReason::Withdrawn | DropReason::ShutDown => None,
        }
    }
}

/// `0.45 s`.
fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
