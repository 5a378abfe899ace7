//! N machines with their fences, one Lease, a network for heartbeats, and everything that may go wrong between them. Time is
//! virtual; a schedule is fixed by its seed.

mod account;
mod fault;
pub mod node;
pub mod random;
pub mod scenario;
pub mod store;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use lvs_core::election::{Config, Effect, Event, LeaseRecord, Source};
use lvs_core::fence::Action;
use lvs_core::heartbeat::Message;

pub use account::Overlaps;
pub use fault::Fault;
use node::{Agent, Clock, Node};
use random::Random;
use store::{Reply, Request, Store};

#[derive(Debug)]
enum Happening {
    Fault(Fault),
    Timer {
        node: usize,
        timer: u64,
    },
    Arrives {
        node: usize,
        incarnation: u64,
        request: Request,
        answered_at: Option<Duration>,
    },
    Answer {
        node: usize,
        incarnation: u64,
        write: bool,
        reply: Option<Reply>,
    },
    Watched {
        node: usize,
        incarnation: u64,
        lease: Option<LeaseRecord>,
        version: u64,
    },
    WatchLost {
        node: usize,
        incarnation: u64,
    },
    /// A heartbeat arrives.
    Heartbeat {
        to: usize,
        message: Message,
    },
    /// A look at whether the API answers.
    ApiLooked {
        node: usize,
        incarnation: u64,
        reached: bool,
    },
    Resumes {
        node: usize,
        incarnation: u64,
        action: Action,
    },
}

/// How the API behaves when it is reachable.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Milliseconds of a way, at most.
    pub latency: u64,
    /// Percent of answers that are lost.
    pub loss: u64,
    /// Milliseconds the store takes for each write.
    pub write_delay: u64,
}

/// How the network between the directors behaves where it is not cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// Milliseconds of a way, at most.
    pub latency: u64,
    /// Percent of heartbeats that are lost.
    pub loss: u64,
}

pub struct World {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub store: Store,
    pub random: Random,
    pub api: Api,
    pub network: Network,
    deaf: BTreeSet<(usize, usize)>,
    pub overlaps: Overlaps,
    /// Since when nobody has carried the address, and the longest such time since `measure_from`.
    pub longest_gap: Duration,
    pub measure_from: Duration,
    /// Since when so many nodes have carried the address.
    carried: (Duration, usize),
    /// The last refresh by a superseded node, and how many there were in this stretch.
    superseded_writes: (Duration, usize),
    bare_since: Option<Duration>,
    shared_since: Option<Duration>,
    freeze_at_write: BTreeMap<usize, Duration>,
    /// A process went on between its look at the time and its write, long after.
    pub wrote_late: bool,
    /// A watch died, with nobody knowing.
    pub lost_watch: bool,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    /// Whether the story is written down: thousands of storms go faster without.
    pub tracing: bool,
    pub trace: Vec<String>,
}

const CLIENT_TIMEOUT: Duration = Duration::from_millis(2_200);

impl World {
    pub fn new(seed: u64, configs: Vec<(String, Config)>, api: Api, drift_percent: u64) -> Self {
        let mut random = Random::new(seed);
        let nodes = configs
            .into_iter()
            .map(|(name, config)| {
                let clock = Clock::new(&mut random, drift_percent);
                Node::new(&name, clock, config)
            })
            .collect();
        let mut store = Store::default();
        store.create();
        Self {
            now: Duration::ZERO,
            nodes,
            store,
            random,
            api,
            network: Network::default(),
            deaf: BTreeSet::new(),
            overlaps: Overlaps::default(),
            longest_gap: Duration::ZERO,
            measure_from: Duration::ZERO,
            carried: (Duration::ZERO, 0),
            superseded_writes: (Duration::ZERO, 0),
            bare_since: Some(Duration::ZERO),
            shared_since: None,
            freeze_at_write: BTreeMap::new(),
            wrote_late: false,
            lost_watch: false,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            tracing: true,
            trace: Vec::new(),
        }
    }

    pub fn at(&mut self, time: Duration, fault: Fault) {
        self.schedule(time, Happening::Fault(fault));
    }

    fn schedule(&mut self, time: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue
            .push(Reverse((time.max(self.now), self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.tracing {
            let line = line(self);
            self.trace
                .push(format!("{:>9.3} {line}", self.now.as_secs_f64()));
        }
    }

    pub fn run_until(&mut self, end: Duration) {
        loop {
            let expiry = self
                .nodes
                .iter()
                .flat_map(|node| [node.expires_at(), Some(node.suspended_until)])
                .flatten()
                .filter(|at| *at > self.now)
                .min();
            let next = self.queue.peek().map(|Reverse((time, _))| *time);
            let step = [expiry, next].into_iter().flatten().min();
            let Some(step) = step.filter(|step| *step <= end) else {
                self.now = end;
                self.account();
                return;
            };
            self.now = step;
            self.account();
            if next.is_some_and(|next| next <= step)
                && let Some(Reverse((_, sequence))) = self.queue.pop()
                && let Some(happening) = self.happenings.remove(&sequence)
            {
                self.happen(happening);
                self.account();
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let frozen = |world: &Self, node: usize| {
            let until = world.nodes[node].frozen_until;
            (until > world.now).then_some(until)
        };
        match happening {
            Happening::Fault(fault) => {
                // A stopped process takes no signal but SIGKILL, and reads nothing.
                if let Fault::Shutdown { node } | Fault::Configure { node, .. } = &fault
                    && let Some(until) = frozen(self, *node)
                {
                    return self.schedule(until, Happening::Fault(fault));
                }
                self.fault(fault);
            }
            Happening::Timer { node, timer } => {
                if let Some(until) = frozen(self, node) {
                    return self.schedule(until, Happening::Timer { node, timer });
                }
                if self.nodes[node].timer == timer {
                    self.check_progress(node);
                    self.feed(node, Event::Deadline);
                }
            }
            Happening::Arrives {
                node,
                incarnation,
                request,
                answered_at,
            } => {
                let consented = self.holder_consents();
                let reply = self.store.serve(&request, consented, self.now);
                if let Reply::Accepted(_) = reply {
                    let text = match &request {
                        Request::Write(write) => write.to_string(),
                        Request::Read => String::new(),
                    };
                    self.note(|world| format!("{}: {text}", world.nodes[node].name));
                    self.tell_watchers();
                }
                if let Some(at) = answered_at {
                    let write = matches!(request, Request::Write(_));
                    let answer = Happening::Answer {
                        node,
                        incarnation,
                        write,
                        reply: Some(reply),
                    };
                    self.schedule(at, answer);
                }
            }
            Happening::Answer {
                node,
                incarnation,
                write,
                reply,
            } => {
                if let Some(until) = frozen(self, node) {
                    let later = Happening::Answer {
                        node,
                        incarnation,
                        write,
                        reply,
                    };
                    return self.schedule(until, later);
                }
                if self.nodes[node].incarnation == incarnation {
                    let event = match (reply, write) {
                        (None, true) => Event::WriteFailed,
                        (None, false) => Event::ReadFailed,
                        (Some(Reply::Lease(lease)), _) => Event::Seen(lease, Source::Read),
                        (Some(Reply::Accepted(lease)), _) => Event::Acknowledged(lease),
                        (Some(Reply::Conflict), _) => Event::Conflict,
                        (Some(Reply::Absent), true) => Event::LeaseGone,
                        (Some(Reply::Absent), false) => Event::Absent(Source::Read),
                    };
                    self.feed(node, event);
                }
            }
            Happening::Watched {
                node,
                incarnation,
                lease,
                version,
            } => {
                if let Some(until) = frozen(self, node) {
                    let later = Happening::Watched {
                        node,
                        incarnation,
                        lease,
                        version,
                    };
                    return self.schedule(until, later);
                }
                let receiver = &mut self.nodes[node];
                // A watch is in order: what is overtaken is not delivered.
                let current =
                    receiver.incarnation == incarnation && version > receiver.watch_version;
                if current && receiver.reachable {
                    receiver.watch_version = version;
                    let event = match lease {
                        Some(lease) => Event::Seen(lease, Source::Watch),
                        None => Event::Absent(Source::Watch),
                    };
                    self.feed(node, event);
                }
            }
            Happening::WatchLost { node, incarnation } => {
                if let Some(until) = frozen(self, node) {
                    return self.schedule(until, Happening::WatchLost { node, incarnation });
                }
                if self.nodes[node].incarnation == incarnation {
                    self.feed(node, Event::WatchLost);
                }
            }
            Happening::Heartbeat { to, message } => {
                if let Some(until) = frozen(self, to) {
                    // A stopped machine receives nothing; a stopped process finds it in its socket.
                    if self.nodes[to].suspended_until <= self.now {
                        self.schedule(until, Happening::Heartbeat { to, message });
                    }
                    return;
                }
                let now = self.now;
                if let Ok(heard) = self.nodes[to].receive(message, now) {
                    self.feed(to, Event::Heard(heard));
                }
            }
            Happening::ApiLooked {
                node,
                incarnation,
                reached,
            } => {
                if let Some(until) = frozen(self, node) {
                    let later = Happening::ApiLooked {
                        node,
                        incarnation,
                        reached,
                    };
                    return self.schedule(until, later);
                }
                let current = &self.nodes[node];
                if current.incarnation == incarnation && current.reachable == reached {
                    self.feed(
                        node,
                        if reached {
                            Event::ApiBack
                        } else {
                            Event::ApiLost
                        },
                    );
                }
            }
            Happening::Resumes {
                node,
                incarnation,
                action,
            } => {
                let lives = self.nodes[node].agent.is_some();
                if lives && self.nodes[node].incarnation == incarnation {
                    let now = self.now;
                    self.nodes[node].send(&action, now, &mut self.random);
                    self.feed(node, Event::Deadline);
                }
            }
        }
    }

    /// A machine that asks to be woken for nothing would spin.
    fn check_progress(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        let count = match node.last_timer {
            Some((at, count)) if at == now => count + 1,
            _ => 0,
        };
        node.last_timer = Some((now, count));
        assert!(
            count < 20,
            "{} spins at {now:?}: {:?}",
            node.name,
            node.agent
        );
    }

    fn feed(&mut self, node: usize, event: Event) {
        let now = self.now;
        let role = |world: &Self| {
            let agent = world.nodes[node].agent.as_ref().filter(|_| world.tracing);
            agent.map(role)
        };
        let before = role(self);
        let mut effects = self.nodes[node].handle(event, now);
        let freeze = self.freeze_at_write.contains_key(&node);
        let (done, interrupted) = self.nodes[node].fence(now, &mut self.random, freeze);
        if let Some(since) = self.nodes[node].new_doubt(now) {
            self.note(|world| format!("{}: stood still", world.nodes[node].name));
            let doubted = Event::Doubted(since);
            effects.extend(self.nodes[node].handle(doubted, now));
        }
        let after = role(self);
        if before != after {
            self.note(|world| format!("{}: {after:?}", world.nodes[node].name));
        }
        for action in done {
            if !matches!(
                action.step,
                lvs_core::fence::Step::Refresh(_) | lvs_core::fence::Step::Announce
            ) {
                self.note(|world| format!("{}: {action}", world.nodes[node].name));
            }
        }
        if let Some(action) = interrupted
            && let Some(length) = self.freeze_at_write.remove(&node)
        {
            let until = now + length;
            self.nodes[node].frozen_until = until;
            self.wrote_late = true;
            let incarnation = self.nodes[node].incarnation;
            self.note(|world| format!("{}: frozen before {action}", world.nodes[node].name));
            self.schedule(
                until,
                Happening::Resumes {
                    node,
                    incarnation,
                    action,
                },
            );
        }
        for effect in effects {
            match effect {
                Effect::Read => self.request(node, Request::Read),
                Effect::Write(write) => self.request(node, Request::Write(write)),
                Effect::Hold(_)
                | Effect::Yield
                | Effect::Drop(_)
                | Effect::Say(_)
                | Effect::Stop => {}
            }
        }
        if self.nodes[node].frozen_until <= now {
            for message in self.nodes[node].beat(now) {
                self.post(node, message);
            }
        }
        if self.nodes[node]
            .agent
            .as_ref()
            .is_some_and(|agent| agent.stopped)
        {
            self.note(|world| format!("{}: stops", world.nodes[node].name));
            self.nodes[node].agent = None;
        }
        self.nodes[node].timer += 1;
        let timer = self.nodes[node].timer;
        if let Some(at) = self.nodes[node].next_wake(now) {
            self.schedule(at, Happening::Timer { node, timer });
        }
    }

    fn post(&mut self, from: usize, message: Message) {
        let Some(to) = self.nodes.iter().position(|node| node.name == message.to) else {
            return;
        };
        let is_cut = self.deaf.contains(&(from, to))
            || self.nodes[from].wrong_key != self.nodes[to].wrong_key
            || self.random.chance(self.network.loss);
        if !is_cut {
            let at = self.now + self.random.milliseconds(0..self.network.latency + 1);
            self.schedule(at, Happening::Heartbeat { to, message });
        }
    }

    /// Whether the Lease's holder says that a successor is welcome.
    fn holder_consents(&self) -> bool {
        let holder = self
            .store
            .lease
            .as_ref()
            .and_then(|lease| lease.holder.as_ref());
        holder.is_some_and(|holder| {
            self.nodes
                .iter()
                .filter(|node| node.name == holder.node)
                .filter_map(|node| node.agent.as_ref()?.standing.as_ref())
                .any(|standing| standing.offers)
        })
    }

    fn look_at_api(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let reached = self.nodes[node].reachable;
        let after = if reached {
            self.random.milliseconds(1..300)
        } else {
            Duration::from_secs(1)
        };
        let looked = Happening::ApiLooked {
            node,
            incarnation,
            reached,
        };
        self.schedule(self.now + after, looked);
    }

    fn request(&mut self, node: usize, request: Request) {
        let incarnation = self.nodes[node].incarnation;
        let write = matches!(request, Request::Write(_));
        let timed_out = self.now + CLIENT_TIMEOUT;
        let failed = Happening::Answer {
            node,
            incarnation,
            write,
            reply: None,
        };
        if !self.nodes[node].reachable {
            let refused = self.now + self.random.milliseconds(1..2_000);
            return self.schedule(refused, failed);
        }
        let store = Duration::from_millis(if write { self.api.write_delay } else { 0 });
        let arrives = self.now + store + self.random.milliseconds(1..self.api.latency + 2);
        let answered = arrives + self.random.milliseconds(1..self.api.latency + 2);
        // Both a request and its answer may be lost; nobody but the store knows which it was.
        let answer_lost = self.random.chance(self.api.loss) || answered >= timed_out;
        let request_lost = self.random.chance(self.api.loss);
        if answer_lost || request_lost {
            self.schedule(timed_out, failed);
        }
        if !request_lost {
            let answered_at = (!answer_lost).then_some(answered);
            let arrival = Happening::Arrives {
                node,
                incarnation,
                request,
                answered_at,
            };
            self.schedule(arrives, arrival);
        }
    }

    fn tell_watchers(&mut self) {
        for node in 0..self.nodes.len() {
            self.tell_watcher(node, Duration::ZERO);
        }
    }

    fn tell_watcher(&mut self, node: usize, after: Duration) {
        if !self.nodes[node].watches {
            return;
        }
        let incarnation = self.nodes[node].incarnation;
        let lease = self.store.lease.clone();
        let at = self.now + after + self.random.milliseconds(1..self.api.latency + 2);
        self.sequence += 1;
        let version = self.sequence;
        self.schedule(
            at,
            Happening::Watched {
                node,
                incarnation,
                lease,
                version,
            },
        );
    }
}

fn role(agent: &Agent) -> (lvs_core::election::Role, Option<u64>) {
    let status = agent.machine.status();
    (status.role, status.epoch)
}
