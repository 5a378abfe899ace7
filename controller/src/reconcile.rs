//! One pass: snapshot → resolve → check → write → report. And the loop that makes passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use lvs_plan::input::Body;
use lvs_plan::{Checked, Finding, Resolution, resolve};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::{Backoff, Writer};
use crate::change_traces::ChangeTraces;
use crate::metrics::Metrics;
use crate::snapshot::{self, Settings};
use crate::world::{Kind, SharedWorld};

/// Events closer together than this are one.
const COALESCE: Duration = Duration::from_millis(10);
/// A pass is made at least this often, event or not.
const SLOW_PASS: Duration = Duration::from_secs(30);

/// When the loop last turned.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it last turned.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the status writer gets.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A resolution that passed the check.
    Resolved(Arc<Checked<Resolution>>),
    /// The planner contradicted itself; nothing was written.
    Contradicted(Arc<(Resolution, Vec<Finding>)>),
}

/// Makes passes.
pub struct Reconciler {
    /// Stores.
    pub world: SharedWorld,
    /// Settings.
    pub settings: Settings,
    /// Writer of plans and Leases.
    pub writer: Writer,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Sign of life.
    pub pulse: Pulse,
    /// Where reports go.
    pub outcomes: watch::Sender<Option<Outcome>>,
    /// Names that the DNS is to be asked for.
    pub names: watch::Sender<BTreeSet<String>>,
    /// Whether this replica is the one that plans.
    pub is_leader: watch::Receiver<bool>,
    /// Traces of changes, where there is a collector.
    pub traces: Option<Mutex<ChangeTraces>>,
}

impl Reconciler {
    /// Makes passes until the process ends.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut wake_at = Instant::now();
        loop {
            tokio::select! {
                () = self.world.changed() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep_until(wake_at) => {}
                changed = self.is_leader.changed() => changed?,
            }
            self.pulse.beat();
            wake_at = Instant::now() + SLOW_PASS;
            let is_leader = *self.is_leader.borrow_and_update();
            self.metrics.set_leader(is_leader);
            if is_leader {
                let valid_until = self.pass(&mut backoff).await;
                let next = [valid_until, backoff.next()].into_iter().flatten().min();
                wake_at = next.map_or(wake_at, |next| next.min(wake_at));
            } else {
                if let Some(mut traces) = self.traces() {
                    traces.forget();
                }
                // What was answered grows old; the plans of the replica that works are newer.
                self.ask_for(BTreeSet::new());
            }
        }
    }

    /// One pass; says until when it holds if nothing happens.
    pub async fn pass(&self, backoff: &mut Backoff) -> Option<Instant> {
        let (snapshot, names, arrivals) = {
            let mut world = self.world.lock();
            let snapshot = snapshot::take(&mut world, &self.settings, Instant::now())?;
            (snapshot, world.names(), world.take_arrivals())
        };
        self.ask_for(names);
        self.count_undecodable(&snapshot.inputs);

        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        let resolution = resolve(&snapshot.inputs);
        let checked = Checked::new(resolution.clone());
        self.metrics
            .passed(begun.elapsed(), checked.as_ref().err().map_or(0, Vec::len));

        match checked {
            Ok(checked) => {
                let writes = self.traces().map(|mut traces| {
                    let times = (begun_at, SystemTime::now());
                    traces.planned(&snapshot.inputs, &checked, &arrivals, times)
                });
                let written = self.writer.apply(&checked, backoff, writes.as_ref()).await;
                if let Some(mut traces) = self.traces() {
                    traces.written(&written, SystemTime::now());
                }
                self.outcomes
                    .send_replace(Some(Outcome::Resolved(Arc::new(checked))));
            }
            Err(findings) => {
                for finding in &findings {
                    tracing::error!("nothing is written, the plan contradicts itself: {finding}");
                }
                self.outcomes
                    .send_replace(Some(Outcome::Contradicted(Arc::new((
                        resolution, findings,
                    )))));
            }
        }
        snapshot.valid_until
    }

    fn traces(&self) -> Option<MutexGuard<'_, ChangeTraces>> {
        let traces = self.traces.as_ref()?;
        // Nothing in there panics between two writes that belong together.
        Some(traces.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask_for(&self, names: BTreeSet<String>) {
        self.names.send_if_modified(|wanted| {
            let differs = *wanted != names;
            *wanted = names;
            differs
        });
    }

    fn count_undecodable(&self, inputs: &lvs_plan::Inputs) {
        let counts = BTreeMap::from([
            (
                Kind::VirtualService,
                inputs
                    .virtual_services
                    .values()
                    .filter(|o| o.spec().is_none())
                    .count(),
            ),
            (
                Kind::RealServer,
                inputs
                    .real_servers
                    .values()
                    .filter(|o| o.spec().is_none())
                    .count(),
            ),
            (
                Kind::EndpointSlice,
                inputs
                    .endpoint_slices
                    .values()
                    .filter(|slice| matches!(slice.body, Body::Undecodable(_)))
                    .count(),
            ),
            (
                Kind::VirtualRouter,
                inputs
                    .virtual_routers
                    .values()
                    .filter(|o| o.spec().is_none())
                    .count(),
            ),
            (
                Kind::NodePlan,
                inputs
                    .node_plans
                    .values()
                    .filter(|o| o.object.spec().is_none())
                    .count(),
            ),
        ]);
        for (kind, count) in counts {
            self.metrics.set_undecodable(kind, count);
        }
    }
}
