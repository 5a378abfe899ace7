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
//!            │ 300 ms later: Drop   ┌────────────┐  superseded after    │    │ shutdown: lent, or nobody
//!            └──────────────────────│ HandedOver │◄──an offer───────────┘    ▼ to take it
//!                                   └────────────┘                      ┌─────────┐
//!                                                                       │ Stopped │ ◄─ shutdown elsewhere
//!                                                                       └─────────┘
//! ```
//! RFC 9568 §6.4 has Initialize, Backup and Active. `Start` is its Initialize; Backup and Master (the
//! RFC's Active) are split by what a compare-and-swap needs: a write on its way (Acquiring), and a
//! holder that keeps the address for a moment beside its successor (`HandedOver`). Where the RFC counts
//! missed advertisements, this counts time without a change of the Lease.

use std::fmt;
use std::time::Duration;

use lvs_crds::condition::Reason;

use crate::election::config::{Config, Intent, OnShutdown, Resumption};
use crate::election::lease::{Identity, LeaseRecord, LeaseWrite, WritePurpose};
use crate::election::observation::Observation;
use crate::election::tick::Tick;
use crate::fence::HolderUntil;

/// How a version of the Lease came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// By a watch: in order, but perhaps late.
    Watch,
    /// By a quorum read that was begun after everything this machine sent before.
    Read,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A version of the Lease was seen.
    Seen(LeaseRecord, Source),
    /// The Lease does not exist.
    Absent(Source),
    /// The read that was asked for failed or timed out.
    ReadFailed,
    /// The watch broke: versions may have been missed.
    WatchLost,
    /// The write was accepted; the Lease is now this.
    Acknowledged(LeaseRecord),
    /// The write was refused since the version is no longer current (409).
    Conflict,
    /// The write was refused since the Lease does not exist (404).
    LeaseGone,
    /// Nobody knows whether the write was applied: no answer, or a server error.
    WriteFailed,
    /// The write was refused for good (403, 422): another attempt would be, too.
    WriteRefused,
    /// Something about this candidate changed.
    Configured(Config),
    /// The process is to end.
    ShutdownRequested,
    /// [`Machine::next_deadline`] was reached.
    Deadline,
}

/// How long addresses live in the kernel without being refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// This many seconds (`valid_lft`).
    Seconds(u32),
    /// For ever.
    Permanent,
}

/// Permission to carry the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Epoch that this node's own compare-and-swap created.
    pub epoch: u64,
    /// t0: when the write was sent that this rests on.
    pub sent_at: Tick,
    /// Last moment for a refresh.
    pub until: HolderUntil,
    /// Lifetime of the addresses.
    pub lifetime: Lifetime,
}

/// Why addresses are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// No renewal was acknowledged in time.
    Expired,
    /// Another node holds a higher epoch, or the Lease itself.
    Superseded,
    /// The successor has it, and had time to take over.
    HandedOver,
    /// The plan is withdrawn.
    Withdrawn,
    /// The process ends and has nothing that could be handed over.
    ShutDown,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the Lease with quorum; report `Seen(_, Read)`, `Absent(Read)` or `ReadFailed`.
    Read,
    /// Send this once; report its outcome within the write timeout.
    Write(LeaseWrite),
    /// Carry the addresses.
    Hold(Hold),
    /// Delete the addresses now.
    Drop(DropReason),
    /// Nothing more will come of this machine. What is held stays for its lifetime.
    Stop,
}

/// Role in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nothing is known yet, or no longer.
    Unknown,
    /// Another node holds, or nobody.
    Backup,
    /// This node holds.
    Master,
    /// The plan is withdrawn, and the Lease names this node no longer.
    Released,
}

/// The state in words users know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role.
    pub role: Role,
    /// Epoch: one's own as master, else that of the Lease.
    pub epoch: Option<u64>,
    /// Holder by the Lease.
    pub holder: Option<Identity>,
    /// Until when addresses may be refreshed, as master.
    pub until: Option<Tick>,
    /// Why it is so.
    pub reason: Reason,
    /// The reason in words.
    pub message: String,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: u64,
    sent_at: Tick,
    until: Tick,
    /// When the next renewal is due.
    renew_at: Tick,
    /// No write before this, after one that failed.
    write_not_before: Tick,
    /// The Lease may carry our offer.
    offered: bool,
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
    HandedOver { epoch: u64, until: Tick },
    Stopped,
}

#[derive(Clone, Debug)]
struct InFlight {
    write: LeaseWrite,
    sent_at: Tick,
}

/// One candidate for one Lease.
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
    /// A write met something unseen: nothing is sent before the Lease was read.
    must_read: bool,
    read_not_before: Tick,
    acquire_not_before: Tick,
    refused: bool,
    shutdown: Option<Tick>,
    release_tried: bool,
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
            must_read: false,
            read_not_before: now,
            acquire_not_before: now,
            refused: false,
            shutdown: None,
            release_tried: false,
        }
    }

    /// Who this is.
    pub const fn identity(&self) -> &Identity {
        &self.me
    }

    /// Takes what happened at `now`, returns what to do, in order.
    pub fn handle(&mut self, event: Event, now: Tick) -> Vec<Effect> {
        let mut effects = Vec::new();
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
            // A renewal that came too late, or a release: the Lease is as it says, nothing is held.
            (
                State::Start | State::Backup | State::HandedOver { .. },
                Event::Acknowledged(lease),
            ) => {
                self.write = None;
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
                if alone && sent.is_some_and(|sent| sent.write.purpose == WritePurpose::Lend) {
                    self.lend(
                        tenure,
                        now,
                        self.config.timing.lent_duration(),
                        &mut effects,
                    );
                } else {
                    self.state = State::Master(Tenure {
                        write_not_before: now + self.config.timing.retry_interval(),
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
                self.config = config;
                effects.push(self.hold(tenure));
            }
            (
                State::Start | State::Backup | State::Acquiring | State::HandedOver { .. },
                Event::Configured(config),
            ) => self.config = config,

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
            ) => {}
        }
        self.settle(now, &mut effects);
        effects
    }

    // ---- What is known ----------------------------------------------------------------------

    /// An epoch below this in a Lease means that it was made anew or restored. The last holder knows
    /// that nobody else can hold, and need not wait.
    fn known_epoch(&self) -> u64 {
        if self.highest_epoch > self.foreign_epoch {
            0
        } else {
            self.foreign_epoch
        }
    }

    fn observe(&mut self, lease: LeaseRecord, source: Source, now: Tick) {
        if source == Source::Read {
            self.reading = false;
            self.must_read = false;
        } else if self
            .observation
            .as_ref()
            .is_some_and(|observation| lease.epoch < observation.lease.epoch)
        {
            // Late news. A Lease that was really made anew is met by the next read.
            return;
        }
        self.absent = false;
        self.highest_epoch = self.highest_epoch.max(lease.epoch);
        if lease
            .holder
            .as_ref()
            .is_some_and(|holder| holder.node != self.me.node)
        {
            self.foreign_epoch = self.foreign_epoch.max(lease.epoch);
        }
        let known_epoch = self.known_epoch();
        match &mut self.observation {
            Some(observation) => observation.renew(lease, known_epoch, &self.config, now),
            None => self.observation = Some(Observation::first(lease, known_epoch, now)),
        }
    }

    fn note_absent(&mut self, source: Source, now: Tick) {
        if source == Source::Read {
            self.reading = false;
            self.must_read = false;
        }
        self.absent = true;
        self.observation = None;
        self.read_not_before = now + self.config.timing.renew_interval();
    }

    fn note_lost(&mut self, read: bool, now: Tick) {
        if let Some(observation) = &mut self.observation {
            observation.lost = true;
        }
        if read {
            self.reading = false;
            self.read_not_before = now + self.config.timing.retry_interval();
        }
    }

    fn note_refused(&mut self, now: Tick) {
        self.refused = true;
        self.acquire_not_before = now + self.config.timing.renew_interval();
    }

    fn holder_is_this_node(&self) -> bool {
        self.observation
            .as_ref()
            .and_then(|observation| observation.lease.holder.as_ref())
            .is_some_and(|holder| holder.node == self.me.node)
    }

    // ---- After a restart ---------------------------------------------------------------------

    /// Rule 10: an earlier process of this boot held the very epoch that the Lease names. Its addresses
    /// are adopted once a write of that same epoch is acknowledged.
    fn resume(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(observation) = self.observation.as_ref().filter(|_| !self.must_read) else {
            return;
        };
        let epoch = observation.lease.epoch;
        self.state = State::Backup;
        if self.config.intent == Intent::Withdraw {
            self.drop_leftover(DropReason::Withdrawn, effects);
        } else if self.holder_is_this_node()
            && self.leftover == Some(epoch)
            && self.shutdown.is_none()
        {
            self.state = State::Acquiring;
            self.send(WritePurpose::Adopt, epoch, now, effects);
        } else {
            self.drop_superseded_leftover(effects);
        }
    }

    /// Rules 9 and 10 for the only director: with the API out it goes on from the journal.
    fn resume_alone(&mut self, now: Tick, effects: &mut Vec<Effect>) -> bool {
        let Some(epoch) = self.leftover else {
            return false;
        };
        let wanted = matches!(
            self.config.intent,
            Intent::Hold | Intent::Leave | Intent::Retain
        );
        if !wanted || !self.config.alone(&self.me.node) || self.shutdown.is_some() {
            return false;
        }
        self.leftover = None;
        let tenure = Tenure {
            epoch,
            sent_at: now,
            until: self.authority(now, self.config.timing.lease_duration()),
            renew_at: now,
            write_not_before: now,
            offered: false,
            refused: false,
            unacknowledged: true,
            reclaim: false,
        };
        self.state = State::Master(tenure);
        effects.push(self.hold(tenure));
        true
    }

    fn drop_leftover(&mut self, reason: DropReason, effects: &mut Vec<Effect>) {
        if self.leftover.take().is_some() {
            effects.push(Effect::Drop(reason));
        }
    }

    fn drop_superseded_leftover(&mut self, effects: &mut Vec<Effect>) {
        let other = self
            .observation
            .as_ref()
            .and_then(|observation| observation.lease.holder.as_ref())
            .is_some_and(|holder| holder.node != self.me.node);
        if other && !matches!(self.state, State::HandedOver { .. }) {
            self.drop_leftover(DropReason::Superseded, effects);
        }
    }

    // ---- Mastership --------------------------------------------------------------------------

    fn authority(&self, sent_at: Tick, lease_duration: Duration) -> Tick {
        self.config.timing.holder_until(
            sent_at,
            lease_duration,
            self.config.timing.address_lifetime_seconds(),
        )
    }

    fn hold(&self, tenure: Tenure) -> Effect {
        Effect::Hold(Hold {
            epoch: tenure.epoch,
            sent_at: tenure.sent_at,
            until: HolderUntil::new(tenure.until),
            lifetime: if self.config.intent == Intent::Retain {
                Lifetime::Permanent
            } else {
                Lifetime::Seconds(self.config.timing.address_lifetime_seconds())
            },
        })
    }

    fn become_master(&mut self, sent: &InFlight, now: Tick, effects: &mut Vec<Effect>) {
        let until = self.authority(sent.sent_at, sent.write.lease_duration);
        self.highest_epoch = self.highest_epoch.max(sent.write.epoch);
        if now > until {
            // The answer took longer than the Lease allows; it names us, so the next attempt is free.
            self.state = State::Backup;
            return;
        }
        self.leftover = None;
        self.refused = false;
        let tenure = Tenure {
            epoch: sent.write.epoch,
            sent_at: sent.sent_at,
            until,
            renew_at: sent.sent_at + self.config.timing.renew_interval(),
            write_not_before: now,
            offered: sent.write.offered,
            refused: false,
            unacknowledged: false,
            reclaim: false,
        };
        self.state = State::Master(tenure);
        effects.push(self.hold(tenure));
    }

    fn renewed(&mut self, tenure: Tenure, sent: &InFlight, now: Tick, effects: &mut Vec<Effect>) {
        if sent.write.purpose == WritePurpose::Lend {
            self.lend(tenure, sent.sent_at, sent.write.lease_duration, effects);
        } else {
            self.become_master(sent, now, effects);
            if matches!(self.state, State::Backup) {
                effects.push(Effect::Drop(DropReason::Expired));
            }
        }
    }

    /// The last refresh of a process that ends without successor.
    fn lend(
        &mut self,
        tenure: Tenure,
        sent_at: Tick,
        lease_duration: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let seconds = self.config.timing.lent_seconds();
        effects.push(Effect::Hold(Hold {
            epoch: tenure.epoch,
            sent_at,
            until: HolderUntil::new(self.config.timing.holder_until(
                sent_at,
                lease_duration,
                seconds,
            )),
            lifetime: Lifetime::Seconds(seconds),
        }));
        self.stop(effects);
    }

    fn observe_as_master(
        &mut self,
        tenure: Tenure,
        lease: LeaseRecord,
        source: Source,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        let this_node = lease
            .holder
            .as_ref()
            .is_some_and(|holder| holder.node == self.me.node);
        let nobody = lease.holder.is_none();
        let epoch = lease.epoch;
        if this_node && epoch == tenure.epoch {
            // A watch lags behind our own writes: only a change that others made to the newest of them
            // brings a version worth knowing.
            let newest = self
                .observation
                .as_ref()
                .is_none_or(|observation| observation.lease.same_life(&lease));
            if source == Source::Read || newest {
                let renew_at = if self.must_read && source == Source::Read {
                    now
                } else {
                    tenure.renew_at
                };
                self.observe(lease, source, now);
                self.state = State::Master(Tenure { renew_at, ..tenure });
            }
        } else if epoch > tenure.epoch && !this_node {
            self.observe(lease, source, now);
            if tenure.offered {
                let until = (now + self.config.timing.handover_keep()).min(tenure.until);
                self.state = State::HandedOver {
                    epoch: tenure.epoch,
                    until,
                };
            } else {
                self.give_up(DropReason::Superseded, effects);
            }
        } else if source == Source::Read || epoch > tenure.epoch {
            // The Lease was made anew or restored, or an answer of ours got lost.
            self.observe(lease, source, now);
            if this_node || nobody {
                self.state = State::Master(Tenure {
                    reclaim: true,
                    ..tenure
                });
            } else {
                self.give_up(DropReason::Superseded, effects);
            }
        }
    }

    fn give_up(&mut self, reason: DropReason, effects: &mut Vec<Effect>) {
        self.leftover = None;
        self.state = State::Backup;
        effects.push(Effect::Drop(reason));
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.state = State::Stopped;
        effects.push(Effect::Stop);
    }

    /// A write that would have made this node the holder did not: back to where it came from.
    fn not_acquired(&mut self) {
        let adopting = self
            .write
            .take()
            .is_some_and(|sent| sent.write.purpose == WritePurpose::Adopt);
        self.state = if adopting {
            State::Start
        } else {
            State::Backup
        };
    }

    // ---- What is due -------------------------------------------------------------------------

    fn send(&mut self, purpose: WritePurpose, epoch: u64, now: Tick, effects: &mut Vec<Effect>) {
        let Some(observation) = &self.observation else {
            return;
        };
        let timing = &self.config.timing;
        let write = LeaseWrite {
            purpose,
            resource_version: observation.lease.resource_version.clone(),
            holder: (purpose != WritePurpose::Release).then(|| self.me.clone()),
            epoch,
            lease_duration: if purpose == WritePurpose::Lend {
                timing.lent_duration()
            } else {
                timing.lease_duration()
            },
            offered: matches!(purpose, WritePurpose::Renew) && self.offering(now),
        };
        effects.push(Effect::Write(write.clone()));
        self.write = Some(InFlight {
            write,
            sent_at: now,
        });
    }

    /// Whether the Lease should carry our offer.
    fn offering(&self, now: Tick) -> bool {
        let wanted = match self.shutdown {
            Some(since) => now < since + self.config.timing.offer_wait(),
            None => self.config.intent == Intent::Leave,
        };
        wanted && !self.config.alone(&self.me.node)
    }

    /// Whether the time for a successor to show up is over, or there can be none.
    fn lending(&self, now: Tick) -> bool {
        self.shutdown.is_some() && !self.offering(now)
    }

    fn settle(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let State::Master(tenure) = self.state {
            self.settle_master(tenure, now, effects);
        }
        if let State::HandedOver { until, .. } = self.state
            && (now >= until || self.config.intent == Intent::Withdraw)
        {
            self.give_up(DropReason::HandedOver, effects);
        }
        match self.state {
            State::Start => self.settle_start(now, effects),
            State::Backup => self.settle_backup(now, effects),
            State::Acquiring | State::Master(_) | State::HandedOver { .. } | State::Stopped => {}
        }
    }

    fn settle_start(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.shutdown.is_some() {
            self.stop(effects);
        } else if self.config.intent == Intent::Withdraw && self.leftover.is_some() {
            self.drop_leftover(DropReason::Withdrawn, effects);
        }
        self.read_if_due(now, effects);
    }

    fn settle_master(&mut self, mut tenure: Tenure, now: Tick, effects: &mut Vec<Effect>) {
        if self.config.intent == Intent::Withdraw {
            return self.give_up(DropReason::Withdrawn, effects);
        }
        if let Some(since) = self.shutdown {
            if self.config.on_shutdown == OnShutdown::Release {
                return self.give_up(DropReason::ShutDown, effects);
            }
            if self.config.intent == Intent::Retain || now >= self.shutdown_limit(since) {
                return self.stop(effects);
            }
        }
        // Rule 9: the only director holds as long as nobody tells it otherwise.
        // So does one whose agent is being uninstalled: no other takes anything then.
        if self.holds_by_itself(tenure) {
            if now + self.config.timing.renew_interval() >= tenure.until {
                tenure.sent_at = now;
                tenure.until = self.authority(now, self.config.timing.lease_duration());
                tenure.unacknowledged = true;
                effects.push(self.hold(tenure));
            }
        } else if now > tenure.until {
            return self.give_up(DropReason::Expired, effects);
        }
        self.state = State::Master(tenure);
        if self.observation.is_none() {
            self.must_read = true;
        }
        if self.must_read {
            self.read_if_due(now, effects);
        } else if self.write.is_none() && now >= self.write_due(tenure, now) {
            if tenure.reclaim {
                let epoch = self.highest_epoch + 1;
                self.send(WritePurpose::Acquire, epoch, now, effects);
            } else if self.lending(now) {
                self.send(WritePurpose::Lend, tenure.epoch, now, effects);
            } else {
                tenure.offered |= self.offering(now);
                self.send(WritePurpose::Renew, tenure.epoch, now, effects);
            }
            self.state = State::Master(tenure);
        }
    }

    /// When the holder writes next.
    fn write_due(&self, tenure: Tenure, now: Tick) -> Tick {
        let at_once = tenure.reclaim || self.lending(now) || self.offering(now) != tenure.offered;
        if at_once {
            tenure.write_not_before
        } else {
            tenure.renew_at.max(tenure.write_not_before)
        }
    }

    /// Whether mastership does not end with the time of the last acknowledged renewal.
    fn holds_by_itself(&self, tenure: Tenure) -> bool {
        self.config.intent == Intent::Retain
            || (self.config.alone(&self.me.node) && !tenure.refused)
    }

    fn shutdown_limit(&self, since: Tick) -> Tick {
        since + self.config.timing.offer_wait() + 2 * self.config.timing.write_timeout()
    }

    fn settle_backup(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let may_write = self.write.is_none() && !self.must_read;
        let unwanted = match (self.shutdown, self.config.on_shutdown) {
            (Some(_), OnShutdown::Release) => true,
            (Some(_) | None, _) => matches!(self.config.intent, Intent::Leave | Intent::Withdraw),
        };
        let lease_epoch = self
            .observation
            .as_ref()
            .map(|observation| observation.lease.epoch);
        if let Some(epoch) = lease_epoch
            && unwanted
            && may_write
            && self.holder_is_this_node()
            && now >= self.acquire_not_before
            && !(self.shutdown.is_some() && self.release_tried)
        {
            self.release_tried = true;
            self.acquire_not_before = now + self.config.timing.retry_interval();
            self.send(WritePurpose::Release, epoch, now, effects);
            return;
        }
        if self.shutdown.is_some() {
            if self.write.is_none() {
                self.stop(effects);
            }
            return;
        }
        if may_write
            && let Some(at) = self.takeover_at()
            && now >= at
        {
            let watched = self.observation.as_ref().is_some_and(|observation| {
                now.since(observation.seen_at) <= self.config.timing.observation_gap()
            });
            if watched {
                self.state = State::Acquiring;
                let epoch = self.highest_epoch + 1;
                self.send(WritePurpose::Acquire, epoch, now, effects);
                return;
            }
            self.note_lost(false, now);
        }
        self.read_if_due(now, effects);
    }

    fn takeover_at(&self) -> Option<Tick> {
        self.observation
            .as_ref()
            .and_then(|observation| observation.takeover_at(&self.me, &self.config))
            .map(|at| at.max(self.acquire_not_before))
    }

    fn read_due(&self) -> Tick {
        match &self.observation {
            Some(observation) if !self.must_read && !observation.lost => self
                .read_not_before
                .max(observation.seen_at + self.config.timing.read_interval()),
            Some(_) | None => self.read_not_before,
        }
    }

    fn read_if_due(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if !self.reading && !matches!(self.state, State::Stopped) && now >= self.read_due() {
            self.reading = true;
            effects.push(Effect::Read);
        }
    }

    /// When [`Event::Deadline`] is wanted next; none = nothing is due by time alone.
    pub fn next_deadline(&self) -> Option<Tick> {
        let read = (!self.reading).then(|| self.read_due());
        match self.state {
            State::Stopped | State::Acquiring => None,
            State::Start => read,
            State::HandedOver { until, .. } => Some(until),
            State::Backup => {
                let may_write = self.write.is_none() && !self.must_read;
                let takeover = self.takeover_at().filter(|_| may_write);
                let unwanted = matches!(self.config.intent, Intent::Leave | Intent::Withdraw);
                let release = (unwanted && may_write && self.holder_is_this_node())
                    .then_some(self.acquire_not_before);
                [read, takeover, release].into_iter().flatten().min()
            }
            State::Master(tenure) => {
                let end = if self.holds_by_itself(tenure) {
                    tenure.until - self.config.timing.renew_interval()
                } else {
                    tenure.until + Duration::from_nanos(1)
                };
                let read = read.filter(|_| self.must_read);
                let write =
                    (self.write.is_none() && !self.must_read).then(|| self.write_due_from(tenure));
                let shutdown = self.shutdown.map(|since| self.shutdown_limit(since));
                [Some(end), read, write, shutdown]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// The next write as seen from any moment before it: an offer ends by time, which makes lending due.
    fn write_due_from(&self, tenure: Tenure) -> Tick {
        match self.shutdown {
            Some(since) if !tenure.reclaim && !self.config.alone(&self.me.node) => {
                let offer_ends = since + self.config.timing.offer_wait();
                let renewal = if tenure.offered {
                    tenure.renew_at
                } else {
                    since
                };
                offer_ends.min(renewal).max(tenure.write_not_before)
            }
            Some(_) | None => self.write_due(tenure, tenure.until),
        }
    }

    // ---- For people --------------------------------------------------------------------------

    /// The state in words.
    pub fn status(&self) -> Status {
        let lease = self
            .observation
            .as_ref()
            .map(|observation| &observation.lease);
        let holder = lease.and_then(|lease| lease.holder.clone());
        let lease_epoch = lease.map(|lease| lease.epoch);
        let (role, epoch, until, reason, message) = match self.state {
            State::Start | State::Stopped => (
                Role::Unknown,
                lease_epoch,
                None,
                Reason::Unknown,
                "the Lease has not been read yet".to_owned(),
            ),
            State::Master(tenure) => {
                let (reason, message) = if tenure.refused {
                    (
                        Reason::PermissionDenied,
                        "the API refuses renewals of the Lease".to_owned(),
                    )
                } else if self.absent {
                    (
                        Reason::LeaseNotFound,
                        "the Lease does not exist any more".to_owned(),
                    )
                } else if tenure.unacknowledged {
                    (
                        Reason::BecameMaster,
                        format!(
                            "epoch {}, held as only director without the API",
                            tenure.epoch
                        ),
                    )
                } else if tenure.offered {
                    (
                        Reason::Leaving,
                        format!("epoch {}, offered to the others", tenure.epoch),
                    )
                } else {
                    (Reason::BecameMaster, format!("epoch {}", tenure.epoch))
                };
                (
                    Role::Master,
                    Some(tenure.epoch),
                    Some(tenure.until),
                    reason,
                    message,
                )
            }
            State::HandedOver { epoch, until } => (
                Role::Master,
                Some(epoch),
                Some(until),
                Reason::Leaving,
                format!("epoch {epoch}, handed over"),
            ),
            State::Backup | State::Acquiring => {
                let (role, reason, message) = self.backup_status(holder.as_ref());
                (role, lease_epoch, None, reason, message)
            }
        };
        Status {
            role,
            epoch,
            holder,
            until,
            reason,
            message,
        }
    }

    fn backup_status(&self, holder: Option<&Identity>) -> (Role, Reason, String) {
        let this_node = holder.is_some_and(|holder| holder.node == self.me.node);
        if self.config.intent == Intent::Withdraw
            && self.write.is_none()
            && (self.absent || self.refused || (self.observation.is_some() && !this_node))
        {
            return (
                Role::Released,
                Reason::Withdrawn,
                "the Lease is released".to_owned(),
            );
        }
        let (reason, message) = if self.absent {
            (Reason::LeaseNotFound, "the Lease does not exist".to_owned())
        } else if self.refused && (holder.is_none() || this_node) {
            (
                Reason::PermissionDenied,
                "the API refuses this node's writes to the Lease".to_owned(),
            )
        } else if !self.config.permitted && holder.is_none() {
            (
                Reason::Pending,
                "not yet permitted to acquire the Lease".to_owned(),
            )
        } else {
            match holder {
                Some(_) if this_node => (
                    Reason::Fenced,
                    "the time of the last renewal has run out".to_owned(),
                ),
                Some(holder) => (
                    Reason::BecameBackup,
                    format!("{} holds the Lease", holder.node),
                ),
                None => (Reason::NoMaster, "nobody holds the Lease".to_owned()),
            }
        };
        (Role::Backup, reason, message)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => formatter.write_str("read the Lease"),
            Self::Write(write) => write.fmt(formatter),
            Self::Hold(hold) => write!(formatter, "hold epoch {} until {}", hold.epoch, hold.until),
            Self::Drop(reason) => write!(formatter, "drop the addresses: {reason:?}"),
            Self::Stop => formatter.write_str("stop"),
        }
    }
}
