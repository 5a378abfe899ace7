//! Rule 4: a holder that is silent is challenged, not deposed. A candidate writes its name into the Lease; a holder that
//! lives sees it and renews. Only a Lease that stays as the challenge left it may be taken, by a compare-and-swap on that
//! very version.

use std::time::Duration;

use crate::election::event::Source;
use crate::election::lease::{LeaseRecord, WritePurpose};
use crate::election::machine::{Challenge, InFlight, Machine};
use crate::election::tick::Tick;

/// How long a candidate waits for the first heartbeat of a holder that it has never heard.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(1);
/// How much longer than the challenge window another candidate's challenge is left alone: its writes and its takeover.
const RIVAL_ALLOWANCE: Duration = Duration::from_millis(400);
/// How long after a peer fell silent its challenge may come: its turn and its writes.
const CHALLENGE_EXPECTED: Duration = Duration::from_secs(3);
/// How often a holder that expects a challenge reads the Lease within the time it has to answer.
const READS_IN_A_WINDOW: u32 = 3;
/// From one read to the next while a peer stays silent: a successor that is not heard is known of by then, well before the
/// holder's next renewal would meet it.
const READS_UNHEARD: Duration = Duration::from_millis(500);

impl Machine {
    /// When the holder's silence permits a challenge; none = not on what is known now.
    pub(super) fn challenge_at(&self) -> Option<Tick> {
        let heartbeat = self.config.timing.heartbeat()?;
        let observation = self.observation.as_ref()?;
        let lease = &observation.lease;
        let holder = lease.holder.as_ref()?;
        let may = self.is_ready() && self.challenge.is_none() && self.api_lost.is_none();
        let is_of_use = holder.node != self.me.node
            && self.config.directors.contains(&holder.node)
            && !observation.lost
            && !observation.reset
            && lease.epoch == self.highest_epoch
            && self.heartbeat_lost != Some(lease.epoch)
            // While it is lent its holder is away with its own good reason.
            && lease.lease_duration <= self.config.timing.lease_duration();
        if !may || !is_of_use {
            return None;
        }
        let silence = heartbeat.silence();
        let silent_from = match self.peers.get(&holder.node) {
            Some(peer) => (peer.heard_at + silence).max(observation.epoch_since + silence),
            None => observation.epoch_since + FIRST_HEARTBEAT,
        };
        let turn = self
            .turn(Some(&holder.node), silent_from)
            .unwrap_or_else(|| self.config.skew(&self.me.node));
        let rival_until = observation
            .challenged_since
            .filter(|_| lease.challenger.as_ref() != Some(&self.me))
            .map(|since| since + heartbeat.challenge_window() + RIVAL_ALLOWANCE);
        let at = (silent_from + turn)
            .max(self.promised_until)
            .max(self.fence_clear_at())
            .max(self.acquire_not_before);
        Some(rival_until.map_or(at, |until| at.max(until)))
    }

    /// From when the holder may have a successor before its Lease has run out: not while a third director may still carry
    /// the addresses that the holder took from it (I2: never more than two).
    pub(super) fn fence_clear_at(&self) -> Tick {
        // Without heartbeats a Lease is seized only when it has run out, and the addresses with it.
        let (Some(observation), Some(_)) = (&self.observation, self.config.timing.heartbeat())
        else {
            return Tick::default();
        };
        let holder = observation.lease.holder.as_ref();
        let is_clear = holder.is_none_or(|holder| {
            self.peers.others_are_clear(
                &self.config,
                &self.me.node,
                &holder.node,
                observation.epoch_since,
            )
        });
        if observation.seized && !is_clear {
            observation.epoch_since + self.config.timing.fence_bound()
        } else {
            observation.epoch_since
        }
    }

    /// When the holder reads the Lease by itself; none = every peer is heard. Who is not heard may not hear, and will
    /// challenge, or hold already; the watch that would tell of it may have died with nobody knowing yet.
    pub(super) fn listens_at(&self, now: Tick) -> Option<Tick> {
        let heartbeat = self.config.timing.heartbeat()?;
        let at = |silent_from: Tick| {
            let pause = if now <= silent_from + CHALLENGE_EXPECTED {
                heartbeat.challenge_window() / READS_IN_A_WINDOW
            } else {
                READS_UNHEARD
            };
            silent_from.max(self.read_at + pause)
        };
        self.config
            .others(&self.me.node)
            .filter_map(|other| self.peers.get(other))
            // Who stood still has not read yet what came meanwhile.
            .map(|peer| at(peer.heard_at.max(self.listening_since) + heartbeat.silence()))
            .min()
            .map(|at| at.max(self.read_not_before))
    }

    /// From when a challenged holder has let its time pass.
    pub(super) fn unanswered_at(&self) -> Option<Tick> {
        let lease_epoch = self.observation.as_ref()?.lease.epoch;
        self.challenge
            .filter(|challenge| challenge.epoch == lease_epoch)
            .and_then(|challenge| challenge.answer_by)
    }

    /// The challenge is about to be written.
    pub(super) fn begin_challenge(&mut self, epoch: u64) {
        self.challenge = Some(Challenge {
            epoch,
            answer_by: None,
        });
    }

    /// A write was acknowledged that may have been the challenge.
    pub(super) fn note_challenged(&mut self, sent: Option<&InFlight>, now: Tick) {
        let window = self
            .config
            .timing
            .heartbeat()
            .map(|heartbeat| heartbeat.challenge_window());
        let written = sent.is_some_and(|sent| sent.write.purpose == WritePurpose::Challenge);
        if let (Some(challenge), Some(window), true) = (&mut self.challenge, window, written) {
            challenge.answer_by = Some(now + window);
        }
    }

    /// What a version of the Lease, about to be noted, says about the challenge.
    pub(super) fn judge_challenge(&mut self, lease: &LeaseRecord, source: Source) {
        let (Some(challenge), Some(observation)) = (self.challenge, &self.observation) else {
            return;
        };
        if lease.epoch != challenge.epoch || lease.holder.is_none() {
            self.challenge = None;
        } else if !observation.lease.same_life(lease) {
            // An answer: it lives, though we cannot hear it. A renewal that was faster than the challenge may have been on
            // its way when the holder died; a second one was not.
            let was_written = challenge.answer_by.is_some();
            if was_written || self.challenge_beaten == Some(lease.epoch) {
                self.heartbeat_lost = Some(lease.epoch);
            }
            self.challenge_beaten = Some(lease.epoch);
            self.challenge = None;
        } else if source == Source::Read && challenge.answer_by.is_none() && self.write.is_none() {
            // It was not written, or nobody knows: from the start, on what was read now.
            self.challenge = None;
        }
    }
}
