//! The machine: what a candidate does about one Lease.
//!
//! ```text
//!                 lease seen, epoch of the journal, holder = this node: write adopt
//!        ┌───────┐────────────────────────────────────────────►┌───────────┐
//!        │ Start │                                              │ Acquiring │
//!        └───┬───┘   free, expired or offered: write acquire    └─┬───────┬─┘
//!            │ lease seen, or absent      ┌──────────────────────►│       │ acknowledged
//!            ▼                            │   conflict, failure   │       ▼
//!        ┌────────┐───────────────────────┘◄──────────────────────┘   ┌────────┐
//!        │ Backup │◄─────────────────────────────────────────────────│ Master │◄─┐ renewal acknowledged,
//!        └────────┘   deadline passed, superseded, withdrawn: Drop    └─┬────┬─┘──┘ or alone
//!            ▲                                                          │    │
//!            │ announced: Drop      ┌────────────┐  superseded after    │    │ shutdown: lent, or nobody
//!            └──────────────────────│ HandedOver │◄──an offer───────────┘    ▼ to take it
//!                                   └────────────┘                      ┌─────────┐
//!                                                                       │ Stopped │ ◄─ shutdown elsewhere
//!                                                                       └─────────┘
//! ```
//! RFC 9568 §6.4 has Initialize, Backup and Active. `Start` is its Initialize; Backup and Master (the
//! RFC's Active) are split by what a compare-and-swap needs: a write on its way (Acquiring), and a
//! holder that keeps the address for a moment beside its successor (`HandedOver`). Where the RFC counts
//! missed advertisements, this counts time without a change of the Lease.

mod api_loss;
mod challenge;
mod heartbeat;
mod holder;
mod knowledge;
mod schedule;
mod status;
mod strict;

use crate::election::config::{Config, Resumption};
use crate::election::event::{Effect, Event, Source};
use crate::election::lease::{Identity, LeaseWrite, WritePurpose};
use crate::election::machine::strict::{Predecessor, Waiting};
use crate::election::observation::Observation;
use crate::election::peers::Peers;
use crate::election::tick::Tick;
use crate::election::timing::Timing;
use crate::heartbeat::{Promise, Standing};

// Each is a fact of its own; none excludes another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: u64,
    sent_at: Tick,
    /// Last moment at which nobody can have had a higher epoch: t0, or when promises were asked for.
    confirmed_at: Tick,
    /// The fence thread stood still until then, and was not confirmed since.
    doubted_since: Option<Tick>,
    until: Tick,
    /// When the next renewal is due.
    renew_at: Tick,
    /// No write before this, after one that failed.
    write_not_before: Tick,
    /// The Lease may carry our offer.
    offered: bool,
    /// Heartbeats say that a successor is welcome.
    consents: bool,
    /// The API refused a renewal: being the only director does not help then.
    refused: bool,
    /// Holding without an acknowledgement, as the only director.
    unacknowledged: bool,
    /// The Lease was made anew or restored: only a new epoch can hold it.
    reclaim: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    Backup,
    Acquiring,
    Master(Tenure),
    /// The addresses stay until then, and never longer than `latest`, when the time of the last renewal runs out.
    HandedOver {
        epoch: u64,
        until: Tick,
        latest: Tick,
    },
    Stopped,
}

/// A challenge of the holder of an epoch.
#[derive(Clone, Copy, Debug)]
struct Challenge {
    epoch: u64,
    /// Until when the holder has time to answer; none while it is not known whether the challenge was written.
    answer_by: Option<Tick>,
}

#[derive(Clone, Debug)]
struct InFlight {
    write: LeaseWrite,
    sent_at: Tick,
    /// Who may still carry the addresses when this succeeds.
    predecessor: Option<Predecessor>,
}

/// One candidate for one Lease.
// Each of its flags is a fact of its own; none excludes another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct Machine {
    me: Identity,
    config: Config,
    state: State,
    observation: Option<Observation>,
    /// The Lease was last found not to exist.
    absent: bool,
    /// Highest epoch seen or journaled.
    highest_epoch: u64,
    /// Highest epoch seen in a Lease of another node since the start.
    foreign_epoch: u64,
    /// Epoch whose addresses an earlier process may have left in the kernel.
    leftover: Option<u64>,
    write: Option<InFlight>,
    reading: bool,
    /// A write was sent after the read was begun: its answer may be older than the write's.
    read_overtaken: bool,
    /// A write met something unseen: nothing is sent before the Lease was read.
    must_read: bool,
    read_not_before: Tick,
    /// When the last read was begun.
    read_at: Tick,
    /// As holder: when the Lease is read next because a challenge may be in it.
    listen_at: Option<Tick>,
    acquire_not_before: Tick,
    refused: bool,
    /// Addresses of a lent Lease may be in the kernel until then: the Lease must not become shorter
    /// before, even if this process never gets to refresh them.
    lent_until: Tick,
    shutdown: Option<Tick>,
    release_tried: bool,
    peers: Peers,
    /// Node that holds the highest epoch known.
    highest_holder: Option<String>,
    challenge: Option<Challenge>,
    /// Epoch of which a renewal was faster than a challenge.
    challenge_beaten: Option<u64>,
    /// Epoch whose holder is silent, but has answered a challenge.
    heartbeat_lost: Option<u64>,
    /// Since when nothing was heard of the API server.
    api_lost: Option<Tick>,
    /// Since when this process has listened without standing still: what was not read proves no silence.
    listening_since: Tick,
    /// The promise that heartbeats carry.
    promise: Option<Promise>,
    /// Until when every promise is kept: no challenge, no compare-and-swap.
    promised_until: Tick,
    /// As holder: the addresses of the old one are waited for.
    waiting: Option<Waiting>,
    said: Option<Standing>,
}

impl Machine {
    /// A candidate that knows nothing but what an earlier process of the same boot left.
    pub fn new(me: Identity, config: Config, resumption: Option<Resumption>, now: Tick) -> Self {
        Self {
            me,
            config,
            state: State::Start,
            observation: None,
            absent: false,
            highest_epoch: resumption.map_or(0, |resumption| resumption.epoch),
            foreign_epoch: 0,
            leftover: resumption.and_then(|resumption| resumption.held.then_some(resumption.epoch)),
            write: None,
            reading: false,
            read_overtaken: false,
            must_read: false,
            read_not_before: now,
            read_at: now,
            listen_at: None,
            acquire_not_before: now,
            refused: false,
            lent_until: now,
            shutdown: None,
            release_tried: false,
            peers: Peers::default(),
            highest_holder: None,
            challenge: None,
            challenge_beaten: None,
            heartbeat_lost: None,
            api_lost: None,
            listening_since: now,
            promise: None,
            promised_until: now,
            waiting: None,
            said: None,
        }
    }

    /// Who this is.
    pub const fn identity(&self) -> &Identity {
        &self.me
    }

    /// The times in force.
    pub const fn timing(&self) -> &Timing {
        &self.config.timing
    }

    /// Takes what happened at `now`, returns what to do, in order.
    pub fn handle(&mut self, event: Event, now: Tick) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.note_lateness(now);
        let event = self.judge_read(event);
        match (self.state, event) {
            (State::Stopped, _) => return effects,

            (State::Start, Event::Seen(lease, source)) => {
                self.observe(lease, source, now);
                self.resume(now, &mut effects);
            }
            (
                State::Backup | State::Acquiring | State::HandedOver { .. },
                Event::Seen(lease, source),
            ) => {
                self.observe(lease, source, now);
                self.drop_superseded_leftover(&mut effects);
            }
            (State::Master(tenure), Event::Seen(lease, source)) => {
                self.observe_as_master(tenure, lease, source, now, &mut effects);
            }

            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::Heard(heard),
            ) => self.hear(heard, now, &mut effects),
            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::ApiLost,
            ) => self.note_api_lost(now),
            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::ApiBack,
            ) => self.note_api_back(now),

            (State::Start, Event::Absent(source)) => {
                self.note_absent(source, now);
                if !self.resume_alone(now, &mut effects) {
                    self.state = State::Backup;
                }
            }
            (
                State::Backup | State::Acquiring | State::Master(_) | State::HandedOver { .. },
                Event::Absent(source),
            ) => self.note_absent(source, now),

            (State::Start, Event::ReadFailed) => {
                self.note_lost(true, now);
                self.resume_alone(now, &mut effects);
            }
            (
                State::Backup | State::Acquiring | State::Master(_) | State::HandedOver { .. },
                Event::ReadFailed,
            ) => self.note_lost(true, now),
            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::WatchLost,
            ) => self.note_lost(false, now),

            (State::Acquiring, Event::Acknowledged(lease)) => {
                let sent = self.write.take();
                self.observe(lease, Source::Read, now);
                match sent {
                    Some(sent) => self.become_master(&sent, now, &mut effects),
                    None => self.state = State::Backup,
                }
            }
            (State::Master(tenure), Event::Acknowledged(lease)) => {
                let sent = self.write.take();
                self.observe(lease, Source::Read, now);
                if let Some(sent) = sent {
                    self.renewed(tenure, &sent, now, &mut effects);
                }
            }
            // A challenge; a renewal that came too late, or a release: the Lease is as it says, nothing is held.
            (
                State::Start | State::Backup | State::HandedOver { .. },
                Event::Acknowledged(lease),
            ) => {
                let sent = self.write.take();
                self.note_challenged(sent.as_ref(), now);
                self.observe(lease, Source::Read, now);
            }

            (State::Acquiring, Event::Conflict) => {
                self.not_acquired();
                self.must_read = true;
            }
            // Rule 5: a conflict alone is no loss of mastership; read, then decide.
            (
                State::Start | State::Backup | State::Master(_) | State::HandedOver { .. },
                Event::Conflict,
            ) => {
                self.write = None;
                self.must_read = true;
            }

            (State::Acquiring, Event::LeaseGone) => {
                self.not_acquired();
                self.note_absent(Source::Read, now);
            }
            (
                State::Start | State::Backup | State::Master(_) | State::HandedOver { .. },
                Event::LeaseGone,
            ) => {
                self.write = None;
                self.note_absent(Source::Read, now);
            }

            (State::Acquiring, Event::WriteFailed) => {
                self.not_acquired();
                self.must_read = true;
                self.note_lost(false, now);
                self.read_not_before = now + self.config.timing.retry_interval();
                if matches!(self.state, State::Start) {
                    self.resume_alone(now, &mut effects);
                }
            }
            (State::Master(tenure), Event::WriteFailed) => {
                let sent = self.write.take();
                let alone = self.config.alone(&self.me.node) && !tenure.refused;
                // One that took long to fail is tried again at once: time is running out.
                let sent_at = sent.as_ref().map_or(now, |sent| sent.sent_at);
                if alone && sent.is_some_and(|sent| sent.write.purpose == WritePurpose::Lend) {
                    self.lend(
                        tenure,
                        now,
                        self.config.timing.lent_duration(),
                        now,
                        &mut effects,
                    );
                } else {
                    self.state = State::Master(Tenure {
                        write_not_before: now.max(sent_at + self.config.timing.retry_interval()),
                        ..tenure
                    });
                }
            }
            (State::Start | State::Backup | State::HandedOver { .. }, Event::WriteFailed) => {
                self.write = None;
                self.must_read = true;
                self.read_not_before = now + self.config.timing.retry_interval();
            }

            (State::Acquiring, Event::WriteRefused) => {
                self.write = None;
                self.state = State::Backup;
                self.note_refused(now);
            }
            (State::Master(tenure), Event::WriteRefused) => {
                self.write = None;
                self.state = State::Master(Tenure {
                    write_not_before: now + self.config.timing.renew_interval(),
                    refused: true,
                    ..tenure
                });
                self.note_refused(now);
            }
            (State::Start | State::Backup | State::HandedOver { .. }, Event::WriteRefused) => {
                self.write = None;
                self.note_refused(now);
            }

            (State::Master(tenure), Event::Configured(config)) => {
                self.configure(config);
                self.hold(tenure, now, &mut effects);
            }
            (
                State::Start | State::Backup | State::Acquiring | State::HandedOver { .. },
                Event::Configured(config),
            ) => self.configure(config),

            (State::Master(tenure), Event::Doubted(since)) => self.doubt(tenure, since),

            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::ShutdownRequested,
            ) => {
                self.shutdown.get_or_insert(now);
            }
            (
                State::Start
                | State::Backup
                | State::Acquiring
                | State::Master(_)
                | State::HandedOver { .. },
                Event::Deadline,
            )
            // Who holds nothing has nothing to doubt.
            | (
                State::Start | State::Backup | State::Acquiring | State::HandedOver { .. },
                Event::Doubted(_),
            ) => {}
        }
        self.settle(now, &mut effects);
        self.say(&mut effects);
        effects
    }

    fn configure(&mut self, config: Config) {
        self.config = config;
        self.peers.retain(&self.config);
    }
}
