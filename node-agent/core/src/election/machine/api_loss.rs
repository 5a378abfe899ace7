//! Rules 8 and 9: an API server that is lost, or slow.

use std::time::Duration;

use crate::election::config::{ApiLoss, Intent};
use crate::election::machine::{Machine, Tenure};
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
        if let super::State::Master(tenure) = &mut self.state {
            tenure.renew_at = tenure.renew_at.min(now);
            tenure.write_not_before = now;
        }
    }

    /// Whether the holder asks the others for promises.
    pub(super) fn asks_for_promises(&self) -> bool {
        self.api_lost.is_some()
            && self.config.on_api_loss == ApiLoss::Hold
            && !self.config.alone(&self.me.node)
    }

    /// Until when promises of **all** other directors permit to refresh.
    pub(super) fn promised_to_us_until(&self) -> Option<Tick> {
        if !self.asks_for_promises() || self.config.directors.is_empty() {
            return None;
        }
        let mut until = None;
        for node in self.config.others(&self.me.node) {
            let asked_at = self.peers.get(node)?.promised_at?;
            let this = self.config.timing.promised_until(asked_at)?;
            until = Some(until.map_or(this, |until: Tick| until.min(this)));
        }
        until
    }

    /// When a holder that has lost the API server must give up: once it hears nobody else either, or for want of promises,
    /// since any director that has not promised may challenge it, and it would not see the challenge (I2).
    pub(super) fn api_loss_ends_at(&self) -> Option<Tick> {
        let heartbeat = self.config.timing.heartbeat()?;
        let since = self.api_lost?;
        if self.config.on_api_loss == ApiLoss::HoldAlways {
            return None;
        }
        let isolated = self
            .peers
            .last_heard()
            .map_or(since, |heard| since.max(heard + heartbeat.silence()));
        let first_answers = since + PROMISE_ALLOWANCE;
        let unpromised = self
            .promised_to_us_until()
            .map_or(first_answers, |until| until.max(first_answers));
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
