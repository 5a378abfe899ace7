//! HTTP endpoints that routers track: when each is asked, what its answers come to, and what that costs the node.
//!
//! As in Kubernetes' probes: the state changes after so many answers in a row that contradict it. Before the first change
//! it is unknown, which speaks neither for nor against the node.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::PlanState;
use lvs_crds::tracking::{Deduction, TrackedEndpoint};

use crate::desired::{DesiredState, Fault, PlanInput, Problem};
use crate::election::Tick;

/// Statuses of a success.
const GOOD_STATUSES: std::ops::RangeInclusive<u16> = 200..=299;

/// An endpoint: a router and what it asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Name of the router.
    pub router: String,
    /// What is asked.
    pub url: String,
}

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer with this HTTP status.
    Status(u16),
    /// None, and why, in words.
    Failed(String),
    /// None in time.
    TimedOut,
}

impl Answer {
    /// Why this is no success, in words.
    fn failure(&self, timeout: Duration) -> Option<String> {
        match self {
            Self::Status(status) if GOOD_STATUSES.contains(status) => None,
            Self::Status(status) => Some(format!(
                "status {status}, expected {}-{}",
                GOOD_STATUSES.start(),
                GOOD_STATUSES.end()
            )),
            Self::Failed(why) => Some(why.clone()),
            Self::TimedOut => Some(format!("timed out after {} s", timeout.as_secs())),
        }
    }
}

/// What is known of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EndpointState {
    /// Too few answers yet.
    #[default]
    Unknown,
    /// It succeeds.
    Good,
    /// It fails, and how, in words.
    Failing(String),
}

/// Asks one endpoint: never two questions at the same time, from start to start a period or more.
#[derive(Clone, Debug)]
pub struct EndpointCheck {
    settings: TrackedEndpoint,
    state: EndpointState,
    /// Successes since the last failure.
    successes: u8,
    /// Failures since the last success.
    failures: u8,
    /// The last failure, and how often it came in a row.
    last_failure: (String, u8),
    /// When the question under way, or else the last, was begun.
    begun: Option<Tick>,
    is_under_way: bool,
}

impl EndpointCheck {
    /// An endpoint of which nothing is known; the first question is due at once.
    pub const fn new(settings: TrackedEndpoint) -> Self {
        Self {
            settings,
            state: EndpointState::Unknown,
            successes: 0,
            failures: 0,
            last_failure: (String::new(), 0),
            begun: None,
            is_under_way: false,
        }
    }

    /// New times and thresholds; what is known stays.
    pub fn configure(&mut self, settings: TrackedEndpoint) {
        self.settings = settings;
    }

    /// What is known.
    pub const fn state(&self) -> &EndpointState {
        &self.state
    }

    /// When the next question is due; none while one is under way.
    pub fn due(&self) -> Option<Tick> {
        let period = Duration::from_secs(self.settings.period_seconds.into());
        let next = self.begun.map_or(Tick::default(), |begun| begun + period);
        (!self.is_under_way).then_some(next)
    }

    /// A question is asked; returns how long to wait for the answer.
    pub fn begin(&mut self, now: Tick) -> Duration {
        self.begun = Some(now);
        self.is_under_way = true;
        self.timeout()
    }

    /// The question came to this.
    pub fn finish(&mut self, answer: &Answer) {
        self.is_under_way = false;
        let Some(failure) = answer.failure(self.timeout()) else {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            self.last_failure = (String::new(), 0);
            if self.successes >= self.settings.success_threshold {
                self.state = EndpointState::Good;
            }
            return;
        };
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.last_failure.0 == failure {
            self.last_failure.1 = self.last_failure.1.saturating_add(1);
        } else {
            self.last_failure = (failure, 1);
        }
        let threshold = self.settings.failure_threshold;
        // Words that change with every answer would be a write to the API server with every answer.
        let counts = match self.state {
            EndpointState::Failing(_) => self.last_failure.1,
            EndpointState::Unknown | EndpointState::Good => self.failures,
        };
        if counts >= threshold {
            self.state = EndpointState::Failing(self.last_failure.0.clone());
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.settings.timeout_seconds.into())
    }
}

/// Endpoints that these plans track.
pub fn tracked(plans: &[PlanInput]) -> BTreeMap<EndpointKey, TrackedEndpoint> {
    let mut endpoints = BTreeMap::new();
    for (plan, tracked) in of_plans(plans) {
        endpoints.insert(key(plan, tracked), tracked.clone());
    }
    endpoints
}

/// Adds what endpoints that fail cost: a fault, which is told in the plan of its router, or a part of the priority.
pub fn judge(
    desired: &mut DesiredState,
    plans: &[PlanInput],
    states: &BTreeMap<EndpointKey, EndpointState>,
) {
    for (plan, tracked) in of_plans(plans) {
        let Some(EndpointState::Failing(why)) = states.get(&key(plan, tracked)) else {
            continue;
        };
        let message = format!("tracked endpoint {}: {why}", tracked.url);
        let router = plan.spec.virtual_router_name.clone();
        let fitness = desired.fitness.entry(router).or_default();
        if tracked.priority_delta == 0 {
            fitness.faults.insert(Fault {
                reason: Reason::EndpointFailed,
                message: message.clone(),
            });
            desired.problems.push(Problem {
                plan: plan.name.clone(),
                reason: Reason::EndpointFailed,
                message,
            });
        } else {
            fitness.deductions.insert(Deduction {
                priority_delta: tracked.priority_delta,
                reason: Reason::EndpointFailed.as_str().to_owned(),
                message,
            });
        }
    }
    desired.problems.sort();
    desired.problems.dedup();
}

fn of_plans(plans: &[PlanInput]) -> impl Iterator<Item = (&PlanInput, &TrackedEndpoint)> {
    plans
        .iter()
        .filter(|plan| plan.spec.state != PlanState::Withdrawn)
        .filter_map(|plan| Some((plan, plan.spec.director.as_ref()?.leadership.as_ref()?)))
        .flat_map(|(plan, leadership)| {
            let endpoints = leadership.tracked_endpoints.iter();
            endpoints.map(move |tracked| (plan, tracked))
        })
}

fn key(plan: &PlanInput, tracked: &TrackedEndpoint) -> EndpointKey {
    EndpointKey {
        router: plan.spec.virtual_router_name.clone(),
        url: tracked.url.clone(),
    }
}
