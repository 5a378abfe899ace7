//! The agent's part of the trace of a change: when the plan came, what was done to the kernel, when that was reported.
//!
//! A plan says in an annotation in which span of the controller its spec was written. That is followed once, as long as the spec
//! is new here; the annotation alone wakes nobody and changes nothing that is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use lvs_core::object::Object;
use lvs_core::op::Op;
use lvs_crds::condition::Reason;
use lvs_traces::context::{ANNOTATION, from_text};
use lvs_traces::{KeyValue, SpanContext, Tracer};

use crate::book::{PlanBook, PlanEvent, Presence};
use crate::execute::Execution;
use crate::limits::TRACED_PASSES;
use crate::metrics::kind;
use crate::report::PlanReport;

/// Where a plan's spec was written, and when the plan came.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanTrace {
    /// The span in which the controller wrote it.
    pub context: SpanContext,
    /// When the watch brought it.
    pub received: SystemTime,
}

impl PlanTrace {
    /// What annotations say, if that can be read.
    pub fn of(annotations: &BTreeMap<String, String>, received: SystemTime) -> Option<Self> {
        let context = from_text(annotations.get(ANNOTATION)?)?;
        Some(Self { context, received })
    }
}

/// Makes the spans of plans.
#[derive(Debug)]
pub struct PlanTraces {
    tracer: Tracer,
    statuses: StatusTraces,
    /// By name of the plan.
    followed: BTreeMap<String, Followed>,
    /// Operations of the pass at hand on things that no plan wants.
    unwanted: Operations,
    /// When the pass at hand began.
    began: SystemTime,
}

/// A plan whose spec is new.
#[derive(Debug)]
struct Followed {
    uid: String,
    generation: i64,
    trace: PlanTrace,
    passes: u32,
    /// Of the pass at hand.
    operations: Operations,
}

#[derive(Debug, Default)]
struct Operations {
    applied: i64,
    failed: i64,
    kinds: BTreeSet<&'static str>,
}

impl Followed {
    fn attributes(&self, plan: &str) -> Vec<KeyValue> {
        attributes(plan, self.generation)
    }
}

fn attributes(plan: &str, generation: i64) -> Vec<KeyValue> {
    vec![
        KeyValue::new("lvs.node_plan.name", plan.to_owned()),
        KeyValue::new("lvs.node_plan.generation", generation),
    ]
}

impl PlanTraces {
    /// Follows nothing yet.
    pub fn new(tracer: Tracer) -> Self {
        Self {
            statuses: StatusTraces {
                tracer: tracer.clone(),
                awaited: Arc::default(),
            },
            tracer,
            followed: BTreeMap::new(),
            unwanted: Operations::default(),
            began: SystemTime::UNIX_EPOCH,
        }
    }

    /// For the writer of statuses.
    pub fn statuses(&self) -> StatusTraces {
        self.statuses.clone()
    }

    /// What the watch brought, and what was known before it. A spec is new whose generation is higher than the known one, or
    /// that nobody knew after all had been listed: a restart tells nothing anew.
    pub fn received(&mut self, event: &PlanEvent, book: &PlanBook) {
        let plan = match event {
            PlanEvent::Applied(plan) | PlanEvent::Listed(plan) => plan,
            PlanEvent::Deleted { name, .. } => {
                self.followed.remove(name);
                return;
            }
            PlanEvent::ListBegins | PlanEvent::ListEnds => return,
        };
        let entry = book.entries().get(&plan.name);
        let known = entry.and_then(|entry| match &entry.presence {
            Presence::Live {
                uid, generation, ..
            } => Some((uid, *generation)),
            Presence::Cached | Presence::Orphaned => {
                let (uid, generation) = entry.good.as_ref()?;
                Some((uid, *generation))
            }
        });
        let is_new = known.map_or(book.is_listed(), |(uid, generation)| {
            *uid != plan.uid || generation < plan.generation
        });
        if !is_new {
            return;
        }
        // What it was before does not count any more, whoever wrote it.
        self.followed.remove(&plan.name);
        if let (Ok(_), Some(trace)) = (&plan.spec, &plan.trace) {
            let followed = Followed {
                uid: plan.uid.clone(),
                generation: plan.generation,
                trace: trace.clone(),
                passes: 0,
                operations: Operations::default(),
            };
            self.followed.insert(plan.name.clone(), followed);
        }
    }

    /// A pass begins.
    pub fn begin(&mut self, now: SystemTime) {
        self.began = now;
        self.unwanted = Operations::default();
        for (name, followed) in &mut self.followed {
            followed.operations = Operations::default();
            if followed.passes == 0 {
                let PlanTrace { context, received } = &followed.trace;
                let attributes = followed.attributes(name);
                let span = self
                    .tracer
                    .child("receive NodePlan", context, *received, attributes);
                span.end(now);
            }
        }
    }

    /// Operations were carried out; `owners` says which plans want a thing. What none wants any more, or none yet, is told of
    /// every plan that is new.
    pub fn carried_out<'a>(
        &mut self,
        execution: &Execution,
        owners: impl Fn(&Object) -> BTreeSet<&'a str>,
    ) {
        if self.followed.is_empty() {
            return;
        }
        let applied = execution.succeeded.iter().map(|op| (op, true));
        let failed = execution.failures.iter().map(|failure| &failure.op);
        for (op, is_applied) in applied.chain(failed.map(|op| (op, false))) {
            let owners = owners(&op.object());
            if owners.is_empty() {
                self.unwanted.note(op, is_applied);
            }
            for owner in owners {
                if let Some(followed) = self.followed.get_mut(owner) {
                    followed.operations.note(op, is_applied);
                }
            }
        }
    }

    /// The pass is over, and that is what is reported of plans.
    pub fn end(&mut self, reports: &BTreeMap<String, PlanReport>, now: SystemTime) {
        let (tracer, statuses, began) = (&self.tracer, &self.statuses, self.began);
        let unwanted = &self.unwanted;
        self.followed.retain(|name, followed| {
            let Some(report) = reports.get(name) else {
                return false;
            };
            followed.passes += 1;
            let programmed = &report.programmed;
            let is_done = programmed.status == "True" || programmed.reason == Reason::Withdrawn;
            let own = &followed.operations;
            let mut attributes = followed.attributes(name);
            let kinds = own.kinds.union(&unwanted.kinds);
            let kinds: Vec<_> = kinds.map(|kind| (*kind).into()).collect();
            attributes.extend([
                KeyValue::new("lvs.operations.applied", own.applied + unwanted.applied),
                KeyValue::new("lvs.operations.failed", own.failed + unwanted.failed),
                KeyValue::new("lvs.operations.kinds", lvs_traces::texts(kinds)),
                KeyValue::new("lvs.reason", programmed.reason.as_str()),
            ]);
            let context = &followed.trace.context;
            let mut span = tracer.child("apply NodePlan", context, began, attributes);
            if !is_done {
                span.fail(programmed.reason.as_str());
            }
            span.end(now);
            statuses.await_write(followed);
            !is_done && followed.passes < TRACED_PASSES
        });
    }
}

impl Operations {
    fn note(&mut self, op: &Op, is_applied: bool) {
        if is_applied {
            self.applied += 1;
        } else {
            self.failed += 1;
        }
        self.kinds.insert(kind(op));
    }
}

/// Makes the spans of writes of statuses. Cloning shares what is awaited.
#[derive(Clone, Debug)]
pub struct StatusTraces {
    tracer: Tracer,
    /// Generation and trace by UID of the plan.
    awaited: Arc<Mutex<BTreeMap<String, (i64, SpanContext)>>>,
}

impl StatusTraces {
    fn awaited(&self) -> MutexGuard<'_, BTreeMap<String, (i64, SpanContext)>> {
        // Nothing in there panics between two writes that belong together.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_write(&self, followed: &Followed) {
        let write = (followed.generation, followed.trace.context.clone());
        self.awaited().insert(followed.uid.clone(), write);
    }

    /// Forgets plans that are gone.
    pub fn retain(&self, present: &BTreeSet<&str>) {
        self.awaited()
            .retain(|uid, _| present.contains(uid.as_str()));
    }

    /// The status of `plan` that speaks of this generation was written, or not, between these times.
    pub fn written(
        &self,
        (plan, uid, generation): (&str, &str, Option<i64>),
        (began, now): (SystemTime, SystemTime),
        is_written: bool,
    ) {
        let mut awaited = self.awaited();
        let Some((traced, context)) = awaited.get(uid) else {
            return;
        };
        if generation.is_none_or(|generation| generation < *traced) {
            return;
        }
        let attributes = attributes(plan, *traced);
        let mut span = self
            .tracer
            .child("write NodePlan status", context, began, attributes);
        if is_written {
            awaited.remove(uid);
        } else {
            span.fail("NotWritten");
        }
        span.end(now);
    }
}
