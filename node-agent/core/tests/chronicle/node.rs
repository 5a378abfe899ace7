//! A machine and its chronicle beside it, a Lease that is played, and heartbeats of another director.

use std::time::Duration;

use lvs_core::chronicle::{Chronicle, Happened};
use lvs_core::election::{
    ApiLoss, Config, Effect, Event, HeartbeatParts, Identity, Intent, LeaseRecord, LeaseWrite,
    Machine, OnShutdown, Resumption, Role, Source, Takeover, Tick, Timing, WritePurpose,
};
use lvs_core::heartbeat::{Carriage, Heard, Standing};

const BEGIN: Tick = Tick::from_nanoseconds(1_000_000_000_000);
/// How long a write takes.
pub const W: Duration = Duration::from_millis(12);
/// i of the heartbeats.
pub const INTERVAL: Duration = Duration::from_millis(150);

fn identity(node: &str) -> Identity {
    Identity {
        node: node.to_owned(),
        incarnation: "1".to_owned(),
    }
}

pub fn config(has_heartbeats: bool) -> Config {
    let heartbeat = HeartbeatParts {
        interval: INTERVAL,
        missed: 3,
        challenge_window: Duration::from_millis(200),
    };
    Config {
        timing: Timing::for_detection(10, has_heartbeats.then_some(heartbeat)).unwrap(),
        priority: 100,
        preemption_delay: None,
        hand_over_to: None,
        permitted: true,
        directors: vec!["lb-a".to_owned(), "lb-b".to_owned()],
        intent: Intent::Hold,
        verified: true,
        on_shutdown: OnShutdown::HandOver,
        on_api_loss: ApiLoss::Hold,
        takeover: Takeover::Fast,
    }
}

/// lb-b with its Lease, and lb-a as far as lb-b sees it.
pub struct Node {
    pub machine: Machine,
    pub chronicle: Chronicle,
    pub config: Config,
    pub lease: LeaseRecord,
    pub now: Tick,
    pub happened: Vec<Happened>,
    /// Writes that wait to be answered.
    pub writes: Vec<LeaseWrite>,
}

impl Node {
    pub fn new(config: Config, holder: Option<&str>, resumption: Option<Resumption>) -> Self {
        let lease = LeaseRecord {
            resource_version: "100".to_owned(),
            holder: holder.map(identity),
            epoch: 6,
            lease_duration: Duration::from_secs(10),
            renewed: "renewal 100".to_owned(),
            offered: false,
            challenger: None,
        };
        let me = identity("lb-b");
        let mut node = Self {
            machine: Machine::new(me.clone(), config.clone(), resumption, BEGIN),
            chronicle: Chronicle::new(me, config.clone(), resumption, BEGIN),
            config,
            lease,
            now: BEGIN,
            happened: Vec::new(),
            writes: Vec::new(),
        };
        node.tell(Event::Seen(node.lease.clone(), Source::Read));
        node
    }

    pub fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.chronicle.told(&event, self.now);
            let effects = self.machine.handle(event, self.now);
            self.happened
                .extend(self.chronicle.said(&effects, self.now));
            self.chronicle.look(&self.machine.status(), self.now);
            for effect in effects {
                match effect {
                    Effect::Read => events.push(Event::Seen(self.lease.clone(), Source::Read)),
                    Effect::Write(write) => self.writes.push(write),
                    Effect::Hold(_)
                    | Effect::Yield
                    | Effect::Drop(_)
                    | Effect::Say(_)
                    | Effect::Stop => {}
                }
            }
        }
    }

    /// Somebody writes the Lease, and the watch shows it.
    pub fn written(&mut self, change: impl FnOnce(&mut LeaseRecord)) {
        change(&mut self.lease);
        let version: u32 = self.lease.resource_version.parse().unwrap();
        self.lease.resource_version = (version + 1).to_string();
        self.tell(Event::Seen(self.lease.clone(), Source::Watch));
    }

    /// lb-a renews.
    pub fn renewed(&mut self) {
        self.written(|lease| {
            lease.renewed += "+";
            lease.challenger = None;
        });
    }

    /// lb-a takes the Lease, with or without this node's consent.
    pub fn taken(&mut self) {
        self.written(|lease| {
            lease.holder = Some(identity("lb-a"));
            lease.epoch += 1;
            lease.renewed += "+";
            lease.offered = false;
        });
    }

    /// Stores a write W later, as the API server does.
    pub fn store(&mut self, write: &LeaseWrite) {
        self.now = self.now + W;
        assert_eq!(write.resource_version, self.lease.resource_version);
        let version: u32 = self.lease.resource_version.parse().unwrap();
        self.lease = LeaseRecord {
            resource_version: (version + 1).to_string(),
            holder: write.holder.clone(),
            epoch: write.epoch,
            lease_duration: write.lease_duration,
            renewed: if write.purpose == WritePurpose::Challenge {
                self.lease.renewed.clone()
            } else {
                format!("renewal {}", version + 1)
            },
            offered: write.offered,
            challenger: write.challenger.clone(),
        };
    }

    pub fn acknowledge(&mut self, write: &LeaseWrite) {
        self.store(write);
        self.tell(Event::Acknowledged(self.lease.clone()));
    }

    /// Time passes until the machine writes for this purpose; other writes are stored.
    pub fn await_write(&mut self, purpose: WritePurpose) -> LeaseWrite {
        for _ in 0..1_000 {
            if !self.writes.is_empty() {
                let write = self.writes.remove(0);
                if write.purpose == purpose {
                    return write;
                }
                self.acknowledge(&write);
            } else if let Some(deadline) = self.machine.next_deadline() {
                self.now = self.now.max(deadline);
                self.tell(Event::Deadline);
            }
        }
        panic!("no {purpose}: {:?}", self.machine);
    }

    /// Time passes without anything but the machine's own deadlines.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            self.tell(Event::Deadline);
            for write in std::mem::take(&mut self.writes) {
                self.acknowledge(&write);
            }
        }
        self.now = self.now.max(end);
        self.tell(Event::Deadline);
    }

    /// lb-a says this, freshly.
    pub fn hear(&mut self, carriage: Carriage, change: impl FnOnce(&mut Standing)) {
        let holder = self.lease.holder.as_ref().map(|holder| holder.node.clone());
        let mut standing = Standing {
            epoch: self.lease.epoch,
            holder,
            priority: 100,
            ready: true,
            ..Standing::default()
        };
        change(&mut standing);
        self.tell(Event::Heard(Heard {
            from: identity("lb-a"),
            sequence: 9,
            fresh: true,
            carriage,
            standing,
            promised_at: None,
        }));
    }

    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.tell(Event::Configured(self.config.clone()));
    }

    /// Master since a moment.
    pub fn master(has_heartbeats: bool) -> Self {
        let mut node = Self::new(config(has_heartbeats), None, None);
        let write = node.await_write(WritePurpose::Acquire);
        node.acknowledge(&write);
        assert_eq!(node.machine.status().role, Role::Master);
        node.happened.clear();
        if has_heartbeats {
            node.hear(Carriage::Nothing, |_| ());
        }
        node
    }

    pub fn only(&mut self) -> Happened {
        assert_eq!(self.happened.len(), 1, "{:?}", self.happened);
        self.happened.remove(0)
    }
}
