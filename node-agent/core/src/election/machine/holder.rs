//! Becoming, staying and ceasing to be the holder.

use std::time::Duration;

use crate::election::config::{Intent, Takeover};
use crate::election::event::{DropReason, Effect, Hold, Lifetime, Source};
use crate::election::lease::{LeaseRecord, WritePurpose};
use crate::election::machine::{InFlight, Machine, State, Tenure};
use crate::election::tick::Tick;
use crate::fence::HolderUntil;

impl Machine {
    /// Rule 10: an earlier process of this boot held the very epoch that the Lease names. Its addresses
    /// are adopted once a write of that same epoch is acknowledged.
    pub(super) fn resume(&mut self, now: Tick, effects: &mut Vec<Effect>) {
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
    pub(super) fn resume_alone(&mut self, now: Tick, effects: &mut Vec<Effect>) -> bool {
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
        let until = self.authority(now, self.config.timing.lease_duration());
        self.resume_unacknowledged(epoch, now, until, now, effects);
        true
    }

    /// Goes on with the epoch of the journal without a word of the API server.
    pub(super) fn resume_unacknowledged(
        &mut self,
        epoch: u64,
        confirmed_at: Tick,
        until: Tick,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        self.leftover = None;
        let tenure = Tenure {
            epoch,
            sent_at: confirmed_at,
            confirmed_at,
            doubted_since: None,
            until,
            renew_at: now,
            write_not_before: now,
            offered: false,
            consents: false,
            refused: false,
            unacknowledged: true,
            reclaim: false,
        };
        self.state = State::Master(tenure);
        self.hold(tenure, now, effects);
    }

    pub(super) fn drop_leftover(&mut self, reason: DropReason, effects: &mut Vec<Effect>) {
        if self.leftover.take().is_some() {
            effects.push(Effect::Drop(reason));
        }
    }

    pub(super) fn drop_superseded_leftover(&mut self, effects: &mut Vec<Effect>) {
        let other = self
            .observation
            .as_ref()
            .and_then(|observation| observation.lease.holder.as_ref())
            .is_some_and(|holder| holder.node != self.me.node);
        if other && !matches!(self.state, State::HandedOver { .. }) {
            self.drop_leftover(DropReason::Superseded, effects);
        }
    }

    /// Whether somebody who is ready is to have it by the wish of people, by preemption, or since this node gives way to any.
    pub(super) fn gives_way(&self, tenure: Tenure, now: Tick) -> bool {
        let Some(heartbeat) = self.config.timing.heartbeat() else {
            return false;
        };
        let priority = self.config.priority;
        self.peers
            .alive(heartbeat.silence(), now)
            .filter(|(_, peer)| peer.standing.epoch >= tenure.epoch && !peer.standing.api_lost)
            .filter_map(|(node, peer)| Some((node, peer, peer.ready_since?)))
            .any(|(node, peer, ready_since)| {
                let is_wanted = self.config.hand_over_to.as_deref() == Some(node);
                let preempts = self
                    .config
                    .preemption_delay
                    .is_some_and(|delay| now >= ready_since + delay);
                let is_better = peer.standing.priority > priority;
                is_wanted || (is_better && (priority == 0 || preempts))
            })
    }

    // ---- Mastership --------------------------------------------------------------------------

    pub(super) fn authority(&self, sent_at: Tick, lease_duration: Duration) -> Tick {
        self.config.timing.holder_until(
            sent_at,
            lease_duration,
            self.config.timing.address_lifetime_seconds(),
        )
    }

    /// Tells the fence what it may do; nothing while the old holder's addresses are waited for.
    pub(super) fn hold(&self, tenure: Tenure, now: Tick, effects: &mut Vec<Effect>) {
        if self.waiting.is_some() {
            return;
        }
        effects.push(Effect::Hold(Hold {
            epoch: tenure.epoch,
            sent_at: tenure.sent_at,
            until: HolderUntil::new(tenure.until),
            lifetime: if self.config.intent == Intent::Retain {
                Lifetime::Permanent
            } else {
                Lifetime::Seconds(self.config.timing.address_lifetime_seconds())
            },
            decided_at: now,
            confirmed_at: (!self.holds_by_itself(tenure)).then_some(tenure.confirmed_at),
        }));
    }

    /// Asks the API server at once whether the epoch is still this node's.
    pub(super) fn doubt(&mut self, tenure: Tenure, since: Tick) {
        if tenure.confirmed_at < since {
            self.state = State::Master(Tenure {
                doubted_since: Some(since),
                ..tenure
            });
        }
    }

    pub(super) fn become_master(&mut self, sent: &InFlight, now: Tick, effects: &mut Vec<Effect>) {
        let mut until = self.authority(sent.sent_at, sent.write.lease_duration);
        let mut renew_at = sent.sent_at + self.config.timing.renew_interval();
        if sent.write.offered {
            until = until.min(sent.sent_at + self.config.timing.offer_authority());
            renew_at = sent.sent_at + self.config.timing.retry_interval();
        }
        self.highest_epoch = self.highest_epoch.max(sent.write.epoch);
        if now > until {
            // The answer took longer than the Lease allows; it names us, so the next attempt is free.
            self.state = State::Backup;
            return;
        }
        if let Some(predecessor) = &sent.predecessor {
            self.wait_for(predecessor.clone(), sent.write.epoch, now);
        }
        self.leftover = None;
        self.refused = false;
        self.challenge = None;
        self.challenge_beaten = None;
        self.heartbeat_lost = None;
        self.highest_holder = Some(self.me.node.clone());
        let tenure = Tenure {
            epoch: sent.write.epoch,
            sent_at: sent.sent_at,
            confirmed_at: sent.sent_at,
            doubted_since: None,
            until,
            renew_at,
            write_not_before: now,
            offered: sent.write.offered,
            consents: false,
            refused: false,
            unacknowledged: false,
            reclaim: false,
        };
        self.state = State::Master(tenure);
        self.hold(tenure, now, effects);
    }

    pub(super) fn renewed(
        &mut self,
        tenure: Tenure,
        sent: &InFlight,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        if sent.write.purpose == WritePurpose::Lend {
            self.lend(
                tenure,
                sent.sent_at,
                sent.write.lease_duration,
                now,
                effects,
            );
        } else {
            self.become_master(sent, now, effects);
            match (self.state, tenure.doubted_since) {
                (State::Backup, _) => effects.push(Effect::Drop(DropReason::Expired)),
                // It was on its way when the doubt arose.
                (State::Master(renewed), Some(since)) => self.doubt(renewed, since),
                _ => {}
            }
        }
    }

    /// The last refresh of a process that ends without successor.
    pub(super) fn lend(
        &mut self,
        tenure: Tenure,
        sent_at: Tick,
        lease_duration: Duration,
        now: Tick,
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
            decided_at: now,
            confirmed_at: None,
        }));
        self.stop(effects);
    }

    pub(super) fn observe_as_master(
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
            self.yield_to_successor(tenure, false, now, effects);
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

    /// I3: another node has a higher epoch. Addresses go at once, but for those of a holder that agreed to it: they stay until
    /// the successor has announced them, unless nobody may ever share them, and for 300 ms at most after this node last heard
    /// that the successor has none of them yet.
    pub(super) fn yield_to_successor(
        &mut self,
        tenure: Tenure,
        has_announced: bool,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        if !tenure.offered && !tenure.consents {
            self.give_up(DropReason::Superseded, effects);
        } else if has_announced || self.config.takeover == Takeover::Strict {
            self.give_up(DropReason::HandedOver, effects);
        } else {
            self.state = State::HandedOver {
                epoch: tenure.epoch,
                until: (now + self.config.timing.handover_keep()).min(tenure.until),
                latest: tenure.until,
            };
            effects.push(Effect::Yield);
        }
    }

    pub(super) fn give_up(&mut self, reason: DropReason, effects: &mut Vec<Effect>) {
        self.leftover = None;
        self.state = State::Backup;
        effects.push(Effect::Drop(reason));
    }

    pub(super) fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.state = State::Stopped;
        effects.push(Effect::Stop);
    }

    /// A write that would have made this node the holder did not: back to where it came from.
    pub(super) fn not_acquired(&mut self) {
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
}
