//! What the machine knows of the Lease.

use crate::election::event::{Event, Source};
use crate::election::lease::LeaseRecord;
use crate::election::machine::Machine;
use crate::election::observation::Observation;
use crate::election::tick::Tick;

impl Machine {
    /// An epoch below this in a Lease means that it was made anew or restored. The last holder knows
    /// that nobody else can hold, and need not wait.
    pub(super) fn known_epoch(&self) -> u64 {
        if self.highest_epoch > self.foreign_epoch {
            0
        } else {
            self.foreign_epoch
        }
    }

    /// An answer to a read that a write overtook, by its beginning or by its answer, proves no more than late news of a
    /// watch.
    pub(super) fn judge_read(&mut self, event: Event) -> Event {
        let overtaken = match event {
            Event::Acknowledged(_) | Event::Conflict | Event::LeaseGone => {
                self.read_overtaken |= self.reading;
                false
            }
            Event::Seen(_, Source::Read) | Event::Absent(Source::Read) | Event::ReadFailed => {
                self.reading = false;
                std::mem::take(&mut self.read_overtaken)
            }
            _ => false,
        };
        match event {
            Event::Seen(lease, Source::Read) if overtaken => Event::Seen(lease, Source::Watch),
            Event::Absent(Source::Read) if overtaken => Event::Absent(Source::Watch),
            other => other,
        }
    }

    pub(super) fn observe(&mut self, lease: LeaseRecord, source: Source, now: Tick) {
        if source == Source::Read {
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
        let holder = lease.holder.as_ref().map(|holder| holder.node.clone());
        self.learn(lease.epoch, holder);
        self.judge_challenge(&lease, source);
        let known_epoch = self.known_epoch();
        match &mut self.observation {
            Some(observation) => observation.renew(lease, known_epoch, &self.config, now),
            None => self.observation = Some(Observation::first(lease, known_epoch, now)),
        }
    }

    /// An epoch and who holds it, from a Lease or from a heartbeat.
    pub(super) fn learn(&mut self, epoch: u64, holder: Option<String>) {
        if holder
            .as_ref()
            .is_some_and(|holder| *holder != self.me.node)
        {
            self.foreign_epoch = self.foreign_epoch.max(epoch);
        }
        if epoch > self.highest_epoch || (epoch == self.highest_epoch && holder.is_some()) {
            self.highest_holder = holder;
        }
        self.highest_epoch = self.highest_epoch.max(epoch);
    }

    pub(super) fn note_absent(&mut self, source: Source, now: Tick) {
        if source == Source::Read {
            self.must_read = false;
        }
        self.absent = true;
        self.observation = None;
        self.read_not_before = now + self.config.timing.renew_interval();
    }

    pub(super) fn note_lost(&mut self, read: bool, now: Tick) {
        if let Some(observation) = &mut self.observation {
            observation.lost = true;
        }
        if read {
            self.read_not_before = now + self.config.timing.retry_interval();
        }
    }

    pub(super) fn note_refused(&mut self, now: Tick) {
        self.refused = true;
        self.acquire_not_before = now + self.config.timing.renew_interval();
    }

    pub(super) fn holder_is_this_node(&self) -> bool {
        self.observation
            .as_ref()
            .and_then(|observation| observation.lease.holder.as_ref())
            .is_some_and(|holder| holder.node == self.me.node)
    }
}
