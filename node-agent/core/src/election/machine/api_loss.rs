//! Rules 8 and 9: an API server that is lost, or slow.

use std::time::Duration;

use crate::election::config::{ApiLoss, Intent};
use crate::election::machine::{Machine, State, Tenure};
use crate::election::tick::Tick;

/// How long a holder that has lost the API server waits for promises, or for a successor: the others notice the loss up to
/// half a second later, and answer with their next heartbeat.
const PROMISE_ALLOWANCE: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn note_api_lost(&mut self, now: Tick) {
        self.api_lost.get_or_insert(now);
        self.note_lost(false, now);
    }

    /// Fresh news is asked for at once; a holder renews at once.
    pub(super) fn note_api_back(&mut self, now: Tick) {
        self.api_lost = None;
        self.promise = None;
        self.read_not_before = now;
        if let State::Master(tenure) = &mut self.state {
            tenure.renew_at = tenure.renew_at.min(now);
            tenure.write_not_before = now;
        }
    }

    /// A process that runs a heartbeat later than it wanted to stood still.
    pub(super) fn note_lateness(&mut self, now: Tick) {
        let Some(heartbeat) = self.config.timing.heartbeat() else {
            return;
        };
        let is_late = self
            .next_deadline()
            .is_some_and(|due| now.since(due) > heartbeat.interval());
        if is_late {
            self.listening_since = now;
        }
    }

    /// Whether the others are asked for promises: by a holder, and by one that was the holder before its agent was
    /// started again (rule 10).
    pub(super) fn asks_for_promises(&self) -> bool {
        let has_use = match self.state {
            State::Master(_) => true,
            State::Start => {
                self.leftover == Some(self.highest_epoch)
                    && self.shutdown.is_none()
                    && self.config.intent != Intent::Withdraw
            }
            State::Backup | State::Acquiring | State::HandedOver { .. } | State::Stopped => false,
        };
        has_use
            && self.api_lost.is_some()
            && self.config.on_api_loss == ApiLoss::Hold
            && !self.config.alone(&self.me.node)
    }

    /// When **all** other directors were asked for the promises that they gave, and until when these permit to refresh.
    pub(super) fn promised_to_us(&self) -> Option<(Tick, Tick)> {
        if !self.asks_for_promises() || self.config.directors.is_empty() {
            return None;
        }
        let asked = self.config.others(&self.me.node);
        let asked = asked.map(|node| self.peers.get(node)?.promised_at);
        // One that has not promised, which is none, is less than every other.
        let asked_at = asked.min()??;
        Some((asked_at, self.config.timing.promised_until(asked_at)?))
    }

    /// When a holder that has lost the API server must give up: once it hears nobody else either, or for want of promises,
    /// since any director that has not promised may challenge it, and it would not see the challenge (I2).
    pub(super) fn api_loss_ends_at(&self) -> Option<Tick> {
        let heartbeat = self.config.timing.heartbeat()?;
        let since = self.api_lost?;
        if self.config.on_api_loss == ApiLoss::HoldAlways {
            return None;
        }
        let isolated = self.peers.last_heard().map_or(since, |heard| {
            since.max(heard.max(self.listening_since) + heartbeat.silence())
        });
        let first_answers = since + PROMISE_ALLOWANCE;
        let unpromised = self
            .promised_to_us()
            .map_or(first_answers, |(_, until)| until.max(first_answers));
        Some(isolated.min(unpromised))
    }

    /// Whether the holder would be better off with a successor that reaches the API server: it has lost it, or its
    /// renewals are not acknowledged in time, and somebody ready can be heard who has not.
    pub(super) fn yields_to_the_reachable(&self, tenure: Tenure, now: Tick) -> bool {
        let Some(heartbeat) = self.config.timing.heartbeat() else {
            return false;
        };
        let in_trouble =
            self.api_lost.is_some() || now >= tenure.sent_at + self.config.timing.slow_after();
        let wanted = matches!(self.config.intent, Intent::Hold | Intent::Leave);
        in_trouble
            && wanted
            && !tenure.refused
            && self
                .peers
                .alive(heartbeat.silence(), now)
                .any(|(_, peer)| peer.standing.ready && !peer.standing.api_lost)
    }
}
