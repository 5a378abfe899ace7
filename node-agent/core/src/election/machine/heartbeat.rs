//! What heartbeats of the others mean, and what ours say.

use std::time::Duration;

use crate::election::config::Intent;
use crate::election::event::{DropReason, Effect};
use crate::election::machine::{Machine, State};
use crate::election::tick::Tick;
use crate::heartbeat::{Carriage, Heard, Promise, Standing};

impl Machine {
    pub(super) fn hear(&mut self, heard: Heard, now: Tick, effects: &mut Vec<Effect>) {
        let Some(heartbeat) = self.config.timing.heartbeat() else {
            return;
        };
        let epoch = heard.standing.epoch;
        let holder = heard.standing.holder.clone();
        // What was seen of the Lease is out of date: nothing is written before it was read.
        self.must_read |= epoch > self.highest_epoch;
        self.learn(epoch, holder.clone());
        let is_mine = holder.as_ref() == Some(&self.me.node);
        let is_holders = holder.as_ref() == Some(&heard.from.node);
        let has_announced = heard.carriage == Carriage::Announced && is_holders;
        let has_nothing_yet = heard.carriage == Carriage::Nothing && is_holders && heard.fresh;
        if heard.fresh {
            let lease_holder = self
                .observation
                .as_ref()
                .and_then(|observation| observation.lease.holder.as_ref());
            if lease_holder.is_some_and(|holder| holder.node == heard.from.node) {
                self.challenge = None;
                self.challenge_beaten = None;
                self.heartbeat_lost = None;
            }
            self.promise_if_asked(&heard, now);
            self.peers.hear(heard, heartbeat.silence(), now);
        }
        match self.state {
            // I3: whoever learns of a higher epoch gives up at once, but for one that has agreed to it.
            State::Master(tenure) if epoch > tenure.epoch => {
                if is_mine {
                    // Our own, of which the acknowledgement got lost: reading will tell.
                } else {
                    self.yield_to_successor(tenure, has_announced, now, effects);
                }
            }
            State::HandedOver { epoch: mine, .. } if epoch > mine && has_announced => {
                self.give_up(DropReason::HandedOver, effects);
            }
            // Nobody but this node answers while the successor gets its services ready.
            State::HandedOver {
                epoch: mine,
                latest,
                ..
            } if epoch > mine && has_nothing_yet => {
                let until = now + self.config.timing.handover_keep();
                self.state = State::HandedOver {
                    epoch: mine,
                    until: until.min(latest),
                    latest,
                };
            }
            State::Start | State::Backup | State::Acquiring
                if !is_mine
                    && holder.is_some()
                    && self.leftover.is_some_and(|left| epoch > left) =>
            {
                self.drop_leftover(DropReason::Superseded, effects);
            }
            State::Start
            | State::Backup
            | State::Acquiring
            | State::Master(_)
            | State::HandedOver { .. }
            | State::Stopped => {}
        }
    }

    /// Rule 9: one that has lost the API server too promises the holder that asks to do nothing for a while.
    fn promise_if_asked(&mut self, heard: &Heard, now: Tick) {
        let Some(heartbeat) = self.config.timing.heartbeat() else {
            return;
        };
        let is_idle = matches!(self.state, State::Start | State::Backup) && self.write.is_none();
        let holds_the_newest = heard.standing.epoch >= self.highest_epoch
            && heard.standing.holder.as_ref() == Some(&heard.from.node);
        if heard.standing.asks && self.api_lost.is_some() && is_idle && holds_the_newest {
            self.promised_until = self.promised_until.max(now + heartbeat.promise_kept());
            self.promise = Some(Promise {
                to: heard.from.node.clone(),
                sequence: heard.sequence,
            });
        }
    }

    /// Whether this node may and could take over at once.
    pub(super) fn is_ready(&self) -> bool {
        self.config.permitted
            && self.config.verified
            && self.config.intent == Intent::Hold
            && self.shutdown.is_none()
    }

    /// Rule 6: how much later than the best of the candidates known at that moment this one acts; none when nobody was ever
    /// heard.
    pub(super) fn turn(&self, holder: Option<&str>, at: Tick) -> Option<Duration> {
        let heartbeat = self.config.timing.heartbeat()?;
        let rank = self
            .peers
            .rank(&self.config, &self.me.node, holder, heartbeat.silence(), at)?;
        Some(heartbeat.rank_delay(rank))
    }

    /// Tells the heartbeats what to say, when it has changed.
    pub(super) fn say(&mut self, effects: &mut Vec<Effect>) {
        if self.config.timing.heartbeat().is_none() {
            return;
        }
        let (holds, offers) = match self.state {
            State::Master(tenure) => (true, tenure.offered || tenure.consents),
            _ => (false, false),
        };
        let standing = Standing {
            epoch: self.highest_epoch,
            holder: if holds || self.asks_for_promises() {
                Some(self.me.node.clone())
            } else {
                self.highest_holder.clone()
            },
            priority: self.config.priority,
            ready: self.is_ready(),
            offers,
            api_lost: self.api_lost.is_some(),
            asks: self.asks_for_promises(),
            promise: self.promise.clone(),
        };
        if self.said.as_ref() != Some(&standing) {
            self.said = Some(standing.clone());
            effects.push(Effect::Say(standing));
        }
    }
}
