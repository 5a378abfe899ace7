//! What is due, and when the next thing will be.

use std::time::Duration;

use crate::election::config::{ApiLoss, Intent, OnShutdown};
use crate::election::event::{DropReason, Effect};
use crate::election::lease::{LeaseWrite, WritePurpose};
use crate::election::machine::{InFlight, Machine, State, Tenure};
use crate::election::tick::Tick;

impl Machine {
    pub(super) fn send(
        &mut self,
        purpose: WritePurpose,
        epoch: u64,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        let Some(observation) = &self.observation else {
            return;
        };
        let timing = &self.config.timing;
        let lent = observation.lease.lease_duration > timing.lease_duration();
        let takes = matches!(purpose, WritePurpose::Acquire | WritePurpose::Adopt);
        if takes && lent && self.holder_is_this_node() {
            self.lent_until = now + timing.lent_duration();
        }
        let write = LeaseWrite {
            purpose,
            resource_version: observation.lease.resource_version.clone(),
            holder: match purpose {
                WritePurpose::Release => None,
                WritePurpose::Challenge => observation.lease.holder.clone(),
                _ => Some(self.me.clone()),
            },
            epoch,
            lease_duration: if purpose == WritePurpose::Challenge {
                observation.lease.lease_duration
            } else if purpose == WritePurpose::Lend || now < self.lent_until {
                timing.lent_duration()
            } else {
                timing.lease_duration()
            },
            offered: match purpose {
                WritePurpose::Renew => self.offering(now),
                WritePurpose::Challenge => observation.lease.offered,
                _ => false,
            },
            challenger: (purpose == WritePurpose::Challenge).then(|| self.me.clone()),
        };
        self.read_overtaken = self.reading;
        effects.push(Effect::Write(write.clone()));
        self.write = Some(InFlight {
            write,
            sent_at: now,
            predecessor: (purpose == WritePurpose::Acquire)
                .then(|| self.predecessor(now))
                .flatten(),
        });
    }

    /// From when until when the Lease should carry our offer; none = never.
    ///
    /// Not while addresses of a lent Lease may be in the kernel: a process that stops then could not
    /// take them away in time.
    fn offer_window(&self) -> Option<(Tick, Tick)> {
        if self.config.alone(&self.me.node) {
            return None;
        }
        match self.shutdown {
            Some(since) => {
                let ends = since + self.config.timing.offer_wait();
                let begins = since.max(self.lent_until);
                (begins < ends).then_some((begins, ends))
            }
            None => (self.config.intent == Intent::Leave)
                .then_some((self.lent_until, Tick::from_nanoseconds(u64::MAX))),
        }
    }

    fn offering(&self, now: Tick) -> bool {
        self.offer_window()
            .is_some_and(|(begins, ends)| begins <= now && now < ends)
    }

    /// From when there is nobody to wait for in a shutdown.
    fn lend_at(&self) -> Option<Tick> {
        self.shutdown
            .map(|since| self.offer_window().map_or(since, |(_, ends)| ends))
    }

    pub(super) fn settle(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let Some(heartbeat) = self.config.timing.heartbeat() {
            self.peers.expire_consent(heartbeat.silence(), now);
        }
        if let State::Master(tenure) = self.state {
            self.settle_master(tenure, now, effects);
        }
        if !matches!(self.state, State::Master(_)) {
            self.waiting = None;
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

    pub(super) fn settle_start(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.shutdown.is_some() {
            self.stop(effects);
        } else if self.config.intent == Intent::Withdraw && self.leftover.is_some() {
            self.drop_leftover(DropReason::Withdrawn, effects);
        } else if let Some(epoch) = self.leftover
            && let Some((asked_at, until)) = self.promised_to_us()
            && now <= until
        {
            return self.resume_unacknowledged(epoch, asked_at, until, now, effects);
        }
        self.read_if_due(now, effects);
    }

    pub(super) fn settle_master(
        &mut self,
        mut tenure: Tenure,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
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
                self.hold(tenure, now, effects);
            }
        } else {
            if let Some((asked_at, until)) = self.promised_to_us()
                && (until > tenure.until || tenure.doubted_since.is_some_and(|at| asked_at >= at))
            {
                tenure.unacknowledged |= until > tenure.until;
                tenure.until = tenure.until.max(until);
                tenure.confirmed_at = tenure.confirmed_at.max(asked_at);
                tenure.doubted_since = tenure.doubted_since.filter(|since| asked_at < *since);
                self.hold(tenure, now, effects);
            }
            if self.api_loss_ends_at().is_some_and(|at| now >= at) {
                return self.give_up(DropReason::Isolated, effects);
            }
            if now > tenure.until {
                return self.give_up(DropReason::Expired, effects);
            }
        }
        self.end_waiting(tenure, now, effects);
        tenure.consents = self.yields_to_the_reachable(tenure, now) || self.gives_way(tenure, now);
        self.state = State::Master(tenure);
        if self.observation.is_none() {
            self.must_read = true;
        }
        if self.must_read {
            self.read_if_due(now, effects);
        } else if self.write.is_none() && now >= self.write_due(tenure) {
            if tenure.reclaim {
                let epoch = self.highest_epoch + 1;
                self.send(WritePurpose::Acquire, epoch, now, effects);
            } else if self.lend_at().is_some_and(|at| now >= at) {
                if self.waiting.is_some() {
                    // One that does not carry the addresses yet has nothing to lend.
                    return self.give_up(DropReason::ShutDown, effects);
                }
                self.send(WritePurpose::Lend, tenure.epoch, now, effects);
            } else {
                if self.offering(now) && !tenure.offered {
                    tenure.offered = true;
                    let limit = now + self.config.timing.offer_authority();
                    tenure.until = tenure.until.min(limit);
                    self.hold(tenure, now, effects);
                }
                self.send(WritePurpose::Renew, tenure.epoch, now, effects);
            }
            self.state = State::Master(tenure);
        }
        self.listen(now, effects);
    }

    /// When the holder writes next.
    fn write_due(&self, tenure: Tenure) -> Tick {
        let window = self.offer_window();
        let offer = window.filter(|_| !tenure.offered).map(|(begins, _)| begins);
        // An offer that is no longer meant is taken back at once.
        // So is a challenge answered: it shows that we are not heard. And a doubt is to be settled.
        let is_challenged = self
            .observation
            .as_ref()
            .is_some_and(|observation| observation.challenged_since.is_some());
        let at_once = tenure.reclaim
            || is_challenged
            || tenure.doubted_since.is_some()
            || (tenure.offered && window.is_none());
        let at_once = at_once.then_some(tenure.write_not_before);
        let due = [Some(tenure.renew_at), offer, self.lend_at(), at_once];
        due.into_iter()
            .flatten()
            .min()
            .unwrap_or(tenure.renew_at)
            .max(tenure.write_not_before)
    }

    /// Whether mastership does not end with the time of the last acknowledged renewal.
    pub(super) fn holds_by_itself(&self, tenure: Tenure) -> bool {
        let always = self.config.on_api_loss == ApiLoss::HoldAlways && self.api_lost.is_some();
        self.config.intent == Intent::Retain
            || ((always || self.config.alone(&self.me.node)) && !tenure.refused)
    }

    pub(super) fn shutdown_limit(&self, since: Tick) -> Tick {
        since + self.config.timing.offer_wait() + 2 * self.config.timing.write_timeout()
    }

    pub(super) fn settle_backup(&mut self, now: Tick, effects: &mut Vec<Effect>) {
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
            if self.shutdown.is_none() {
                self.read_if_due(now, effects);
            }
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
        if let Some(epoch) = lease_epoch
            && may_write
            && self.challenge_at().is_some_and(|at| now >= at)
        {
            self.begin_challenge(epoch);
            self.send(WritePurpose::Challenge, epoch, now, effects);
        }
        self.read_if_due(now, effects);
    }

    /// From when this candidate may compare-and-swap; none = not on what is known now.
    pub(super) fn takeover_at(&self) -> Option<Tick> {
        let observation = self.observation.as_ref()?;
        let lease = &observation.lease;
        let holder = lease.holder.as_ref().map(|holder| holder.node.as_str());
        let consent_since = holder
            .and_then(|holder| self.peers.get(holder))
            .filter(|peer| peer.standing.epoch == lease.epoch)
            .filter(|_| lease.lease_duration <= self.config.timing.lease_duration())
            .and_then(|peer| peer.offers_since);
        // Offered in the Lease, or in heartbeats.
        let first = observation
            .offered_since
            .into_iter()
            .chain(consent_since)
            .min()
            .map(|since| since.max(self.fence_clear_at()));
        let turn = self
            .turn(holder, first.unwrap_or(observation.unchanged_since))
            .unwrap_or_else(|| self.config.skew(&self.me.node) / 4);
        let by_lease = observation.takeover_at(&self.me, &self.config, turn, first)?;
        let at = self.unanswered_at().map_or(by_lease, |at| at.min(by_lease));
        Some(at.max(self.acquire_not_before).max(self.promised_until))
    }

    pub(super) fn read_due(&self) -> Tick {
        match &self.observation {
            Some(observation) if !self.must_read && !observation.lost => self
                .read_not_before
                .max(observation.seen_at + self.config.timing.read_interval()),
            Some(_) | None => self.read_not_before,
        }
    }

    pub(super) fn read_if_due(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if !self.reading && !matches!(self.state, State::Stopped) && now >= self.read_due() {
            self.read(now, effects);
        }
    }

    fn read(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.reading = true;
        self.read_at = now;
        effects.push(Effect::Read);
    }

    /// Reads where a challenge may be under way, or a successor hold already, also while a write takes long. While the API
    /// server is out of reach nothing is told.
    fn listen(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.listen_at = self.listens_at(now);
        let may = !self.reading && !self.must_read && self.api_lost.is_none();
        if may && self.listen_at.is_some_and(|at| now >= at) {
            self.read(now, effects);
        }
        // The answer to what is under way is what wakes next.
        self.listen_at = self.listen_at.filter(|_| may && !self.reading);
    }

    /// When [`Event::Deadline`] is wanted next; none = nothing is due by time alone.
    pub fn next_deadline(&self) -> Option<Tick> {
        let read = (!self.reading).then(|| self.read_due());
        match self.state {
            State::Stopped | State::Acquiring => None,
            State::Start => read,
            State::HandedOver { until, .. } => Some(until),
            // It waits for the answer to its last write, no more.
            State::Backup if self.shutdown.is_some() => None,
            State::Backup => {
                let may_write = self.write.is_none() && !self.must_read;
                let takeover = self.takeover_at().filter(|_| may_write);
                let challenge = self.challenge_at().filter(|_| may_write);
                let unwanted = matches!(self.config.intent, Intent::Leave | Intent::Withdraw);
                let release = (unwanted && may_write && self.holder_is_this_node())
                    .then_some(self.acquire_not_before);
                [read, takeover, challenge, release]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Master(tenure) => {
                let end = if self.holds_by_itself(tenure) {
                    tenure.until - self.config.timing.renew_interval()
                } else {
                    tenure.until + Duration::from_nanos(1)
                };
                let read = read.filter(|_| self.must_read);
                let write =
                    (self.write.is_none() && !self.must_read).then(|| self.write_due(tenure));
                let shutdown = self.shutdown.map(|since| self.shutdown_limit(since));
                let alone = self
                    .api_loss_ends_at()
                    .filter(|_| !self.holds_by_itself(tenure));
                [
                    Some(end),
                    read,
                    write,
                    shutdown,
                    alone,
                    self.waits_until(),
                    self.listen_at,
                ]
                .into_iter()
                .flatten()
                .min()
            }
        }
    }
}
