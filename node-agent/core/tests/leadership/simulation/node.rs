//! A node: a clock of its own that a suspension stops, a kernel that carries an address with a lifetime, an agent that may die,
//! hang and come back, and a journal that survives the agent but not the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvs_core::election::{
    Config, Effect, Event, Identity, Lifetime, Machine, Resumption, Tick, Timing,
};
use lvs_core::fence::{Action, DirectorAddress, Fence, JournalEntry, Outcome, Step};
use lvs_core::heartbeat::{Exchange, Heard, Ignored, Message, Standing};
use lvs_crds::virtual_router::Announcement;

use super::random::Random;

pub const ROUTER: &str = "edge";

/// A clock that runs at its own speed from its own beginning.
#[derive(Clone, Debug)]
pub struct Clock {
    offset: Duration,
    /// Speed in millionths.
    parts_per_million: u64,
    /// When it stood still, and for how long.
    pauses: Vec<(Duration, Duration)>,
}

impl Clock {
    pub fn new(random: &mut Random, drift_percent: u64) -> Self {
        let drift = drift_percent * 10_000;
        Self {
            offset: Duration::from_secs(1 + random.below(1_000_000)),
            parts_per_million: 1_000_000 - drift + random.below(2 * drift + 1),
            pauses: Vec::new(),
        }
    }

    pub fn pause(&mut self, at: Duration, length: Duration) {
        self.pauses.push((at, length));
    }

    pub fn local(&self, at: Duration) -> Tick {
        let stood = self
            .pauses
            .iter()
            .map(|(from, length)| at.saturating_sub(*from).min(*length));
        let at = at.saturating_sub(stood.sum::<Duration>());
        let run = at.as_nanos() * u128::from(self.parts_per_million) / 1_000_000;
        let nanoseconds = self.offset.as_nanos() + run;
        Tick::from_nanoseconds(u64::try_from(nanoseconds).unwrap())
    }

    /// The first moment at which the clock shows at least `tick`.
    pub fn global(&self, tick: Tick) -> Duration {
        let run = u128::from(tick.nanoseconds()).saturating_sub(self.offset.as_nanos());
        let nanoseconds = (run * 1_000_000).div_ceil(u128::from(self.parts_per_million));
        let mut at = Duration::from_nanos(u64::try_from(nanoseconds).unwrap());
        for (from, length) in &self.pauses {
            if at > *from {
                at += *length;
            }
        }
        at
    }
}

/// The address in the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InKernel {
    Nothing,
    /// By the node's own clock.
    Until(Tick),
    ForEver,
}

/// The agent's process.
#[derive(Debug)]
pub struct Agent {
    pub machine: Machine,
    pub fence: Fence,
    pub exchange: Option<Exchange>,
    pub standing: Option<Standing>,
    pub stopped: bool,
}

#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub clock: Clock,
    pub kernel: InKernel,
    pub agent: Option<Agent>,
    pub incarnation: u64,
    pub journal: BTreeMap<String, JournalEntry>,
    pub config: Config,
    pub reachable: bool,
    /// Events wait until then.
    pub frozen_until: Duration,
    /// The whole machine stands still until then: its kernel answers nobody.
    pub suspended_until: Duration,
    /// When the address was last added or refreshed.
    pub written_at: Duration,
    /// Its key is another one than the others'.
    pub wrong_key: bool,
    /// Its watch of the Lease lives.
    pub watches: bool,
    /// Only the newest timer counts.
    pub timer: u64,
    pub watch_version: u64,
    pub last_timer: Option<(Duration, u32)>,
}

pub fn address() -> DirectorAddress {
    DirectorAddress {
        address: "192.0.2.250".parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

impl Node {
    pub fn new(name: &str, clock: Clock, config: Config) -> Self {
        Self {
            name: name.to_owned(),
            clock,
            kernel: InKernel::Nothing,
            agent: None,
            incarnation: 0,
            journal: BTreeMap::new(),
            config,
            reachable: true,
            frozen_until: Duration::ZERO,
            suspended_until: Duration::ZERO,
            written_at: Duration::ZERO,
            wrong_key: false,
            watches: true,
            timer: 0,
            watch_version: 0,
            last_timer: None,
        }
    }

    /// Whether its kernel answers for the address.
    pub fn carries(&self, at: Duration) -> bool {
        at >= self.suspended_until && self.has_address(at)
    }

    fn has_address(&self, at: Duration) -> bool {
        match self.kernel {
            InKernel::Nothing => false,
            InKernel::Until(until) => self.clock.local(at) < until,
            InKernel::ForEver => true,
        }
    }

    /// When the address expires, if it does.
    pub fn expires_at(&self) -> Option<Duration> {
        match self.kernel {
            InKernel::Until(until) => Some(self.clock.global(until)),
            InKernel::Nothing | InKernel::ForEver => None,
        }
    }

    pub fn start(&mut self, at: Duration) {
        self.incarnation += 1;
        let now = self.clock.local(at);
        let identity = Identity {
            node: self.name.clone(),
            incarnation: format!("i{}", self.incarnation),
        };
        let resumption = self.journal.get(ROUTER).map(|entry| Resumption {
            epoch: entry.epoch,
            held: entry.held,
        });
        let mut fence = Fence::new(&self.journal, now);
        fence.configure([(ROUTER.to_owned(), self.settings())].into());
        fence.want(ROUTER, BTreeSet::from([address()]));
        let exchange = self.config.timing.heartbeat().map(|timing| {
            let mut exchange = Exchange::new(ROUTER, identity.clone(), timing);
            exchange.configure(&self.config.directors.iter().cloned().collect(), timing);
            exchange
        });
        self.agent = Some(Agent {
            machine: Machine::new(identity, self.config.clone(), resumption, now),
            fence,
            exchange,
            standing: None,
            stopped: false,
        });
    }

    fn settings(&self) -> (Timing, Announcement) {
        (self.config.timing, Announcement::default())
    }

    /// Feeds the election; the fence is told at once. Returns what goes to the API.
    pub fn handle(&mut self, event: Event, at: Duration) -> Vec<Effect> {
        let now = self.clock.local(at);
        let Some(agent) = &mut self.agent else {
            return Vec::new();
        };
        if let Event::Configured(config) = &event {
            self.config = config.clone();
        }
        let mut requests = Vec::new();
        for effect in agent.machine.handle(event, now) {
            match effect {
                Effect::Hold(hold) => {
                    agent.fence.hold(ROUTER, hold);
                    self.journal = agent.fence.journal();
                }
                Effect::Yield => agent.fence.yield_to_successor(ROUTER),
                Effect::Drop(_) => {
                    agent.fence.give_up(ROUTER);
                    self.journal = agent.fence.journal();
                }
                Effect::Say(standing) => agent.standing = Some(standing),
                Effect::Stop => agent.stopped = true,
                Effect::Read | Effect::Write(_) => requests.push(effect),
            }
        }
        requests
    }

    /// What the fence thread tells the election after it stood still.
    pub fn new_doubt(&mut self, at: Duration) -> Option<Tick> {
        let doubts = self.agent.as_mut()?.fence.take_new_doubts();
        (!doubts.is_empty()).then(|| self.clock.local(at))
    }

    /// The heartbeats that the fence thread sends after its round.
    pub fn beat(&mut self, at: Duration) -> Vec<Message> {
        let now = self.clock.local(at);
        let Some(agent) = &mut self.agent else {
            return Vec::new();
        };
        match (&mut agent.exchange, &agent.standing) {
            (Some(exchange), Some(standing)) => {
                exchange.due(standing, agent.fence.carriage(ROUTER, now), now)
            }
            _ => Vec::new(),
        }
    }

    /// A heartbeat that came in.
    pub fn receive(&mut self, message: Message, at: Duration) -> Result<Heard, Ignored> {
        let now = self.clock.local(at);
        let exchange = self
            .agent
            .as_mut()
            .and_then(|agent| agent.exchange.as_mut());
        exchange.map_or(Err(Ignored::NotForUs), |exchange| {
            exchange.receive(message, now)
        })
    }

    /// One round of the fence thread. Returns the action before whose sending the node is to be frozen,
    /// when `freeze` says so.
    pub fn fence(
        &mut self,
        at: Duration,
        random: &mut Random,
        freeze: bool,
    ) -> (Vec<Action>, Option<Action>) {
        let now = self.clock.local(at);
        let Some(agent) = &mut self.agent else {
            return (Vec::new(), None);
        };
        let mut done = Vec::new();
        let actions = agent.fence.due(now);
        if !actions.is_empty() {
            self.journal = agent.fence.journal();
        }
        for action in actions {
            if !self
                .agent
                .as_ref()
                .is_some_and(|agent| agent.fence.permits(&action, now))
            {
                continue;
            }
            if freeze && matches!(action.step, Step::Add(_) | Step::Refresh(_)) {
                return (done, Some(action));
            }
            self.send(&action, at, random);
            done.push(action);
        }
        (done, None)
    }

    /// The kernel takes a request, and the fence hears of it.
    pub fn send(&mut self, action: &Action, at: Duration, random: &mut Random) {
        let outcome = self.tell_kernel(action, at, random);
        let now = self.clock.local(at);
        let Some(agent) = &mut self.agent else {
            return;
        };
        if let Some(deletion) = agent.fence.done(action, outcome, now) {
            let outcome = self.tell_kernel(&deletion, at, random);
            if let Some(agent) = &mut self.agent {
                assert!(agent.fence.done(&deletion, outcome, now).is_none());
            }
        }
        if let Some(agent) = &self.agent {
            self.journal = agent.fence.journal();
        }
    }

    fn tell_kernel(&mut self, action: &Action, at: Duration, random: &mut Random) -> Outcome {
        if matches!(action.step, Step::Add(_) | Step::Refresh(_)) {
            self.written_at = at;
        }
        match &action.step {
            Step::Add(_) if self.has_address(at) => return Outcome::Foreign,
            Step::Add(Lifetime::Seconds(seconds)) | Step::Refresh(Lifetime::Seconds(seconds)) => {
                // Measured: V - 20 ms at the earliest, V + 1 s when the collector has just run.
                let lifetime = Duration::from_millis(u64::from(*seconds) * 1000 - 20)
                    + random.milliseconds(0..1000);
                self.kernel = InKernel::Until(self.clock.local(at) + lifetime);
            }
            Step::Add(Lifetime::Permanent) | Step::Refresh(Lifetime::Permanent) => {
                self.kernel = InKernel::ForEver;
            }
            Step::Delete => self.kernel = InKernel::Nothing,
            Step::Announce => {}
        }
        Outcome::Done
    }

    /// The next moment at which the agent wants to run by itself.
    pub fn next_wake(&self, at: Duration) -> Option<Duration> {
        let agent = self.agent.as_ref()?;
        let now = self.clock.local(at);
        let election = if agent.stopped {
            None
        } else {
            agent.machine.next_deadline()
        };
        let beat = agent
            .exchange
            .as_ref()
            .filter(|_| agent.standing.is_some())
            .and_then(Exchange::next_wake);
        let wake = [election, agent.fence.next_wake(now), beat]
            .into_iter()
            .flatten()
            .min()?;
        Some(self.clock.global(wake).max(at))
    }
}
