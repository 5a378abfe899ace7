//! One trace for each change of a VirtualService, RealServer or VirtualRouter: from the moment it was seen here until every
//! kernel has what came of it. The plans that are written carry it on to the agents.
//!
//! Spans: `change …`, from seen to all plans written; within it `plan` for each pass, `write NodePlan` for each write, and
//! `converge`, from written to the pass that sees every such plan programmed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use lvs_crds::node_plan::{NodePlanSpec, SourceKind};
use lvs_plan::input::{Inputs, Meta, ObjectKey};
use lvs_plan::lifecycle::is_withdrawn;
use lvs_plan::resolution::Resolution;
use lvs_traces::{KeyValue, Span, SpanContext, Tracer};

use crate::world::Kind;

/// Changes that are followed at once; more are not.
const CHANGES: usize = 256;
/// How long the kernels are waited for.
const CONVERGENCE_MAXIMUM: Duration = Duration::from_mins(5);

/// An object that people change.
pub type Subject = (Kind, ObjectKey);

/// When objects were first seen changed since the last pass.
pub type Arrivals = BTreeMap<Subject, SystemTime>;

/// Whether changes of objects of this kind are followed.
pub const fn is_followed(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VirtualService | Kind::RealServer | Kind::VirtualRouter
    )
}

/// Follows changes.
#[derive(Debug)]
pub struct ChangeTraces {
    tracer: Tracer,
    /// UID and generation of every object in the last pass; `None` before the first.
    known: Option<BTreeMap<Subject, (String, i64)>>,
    writing: BTreeMap<Subject, Writing>,
    converging: Vec<Converging>,
}

/// A change whose plans are not all written.
#[derive(Debug)]
struct Writing {
    root: Span,
    uid: String,
    /// Plans that were written for it.
    written: BTreeSet<String>,
    /// Plans that are to be written for it in the pass at hand.
    wanted: BTreeSet<String>,
}

/// A change whose plans are written and not all programmed.
#[derive(Debug)]
struct Converging {
    root: SpanContext,
    since: SystemTime,
    plans: BTreeSet<String>,
}

/// Of which changes the writes of a pass are a part.
#[derive(Debug)]
pub struct PlanWrites {
    tracer: Tracer,
    parents: BTreeMap<String, SpanContext>,
}

impl PlanWrites {
    /// The span of a write that begins now, if the plan is written for a change that is followed.
    pub fn begin(&self, plan: &str, spec: &NodePlanSpec, now: SystemTime) -> Option<Span> {
        let parent = self.parents.get(plan)?;
        let attributes = vec![
            KeyValue::new("lvs.node_plan.name", plan.to_owned()),
            KeyValue::new("k8s.node.name", spec.node_name.clone()),
        ];
        Some(self.tracer.child("write NodePlan", parent, now, attributes))
    }
}

impl ChangeTraces {
    /// Follows nothing yet. What is there in the first pass is no change.
    pub const fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            known: None,
            writing: BTreeMap::new(),
            converging: Vec::new(),
        }
    }

    /// Another replica works: what is seen when this one does again is no change.
    pub fn forget(&mut self) {
        *self = Self::new(self.tracer.clone());
    }

    /// A pass decided this. Says of which changes its writes are a part.
    pub fn planned(
        &mut self,
        inputs: &Inputs,
        resolution: &Resolution,
        arrivals: &Arrivals,
        (began, now): (SystemTime, SystemTime),
    ) -> PlanWrites {
        self.converge(inputs, now);
        self.compare(inputs, arrivals, began);
        for writing in self.writing.values_mut() {
            writing.wanted.clear();
            let root = writing.root.context();
            let span = self.tracer.child("plan", root, began, Vec::new());
            span.end(now);
        }
        let mut parents = BTreeMap::new();
        let changed = resolution.plans.iter().filter(|(_, plan)| plan.is_changed);
        for (name, plan) in changed {
            let stored = inputs.node_plans.get(name);
            let stored = stored.and_then(|stored| stored.object.spec());
            if let Some(writing) = cause(&mut self.writing, &plan.spec, stored) {
                parents.insert(name.clone(), writing.root.context().clone());
                writing.wanted.insert(name.clone());
            }
        }
        PlanWrites {
            tracer: self.tracer.clone(),
            parents,
        }
    }

    /// Those plans were written in this pass.
    pub fn written(&mut self, plans: &BTreeSet<String>, now: SystemTime) {
        for writing in self.writing.values_mut() {
            let of_this = writing.wanted.intersection(plans).cloned();
            writing.written.extend(of_this);
            writing.wanted.retain(|plan| !plans.contains(plan));
        }
        let done = self
            .writing
            .extract_if(.., |_, writing| writing.wanted.is_empty());
        for (_, mut writing) in done {
            let count = i64::try_from(writing.written.len()).unwrap_or(i64::MAX);
            writing.root.set(KeyValue::new("lvs.node_plans", count));
            if !writing.written.is_empty() && writing.root.context().is_sampled() {
                self.converging.push(Converging {
                    root: writing.root.context().clone(),
                    since: now,
                    plans: writing.written,
                });
            }
            writing.root.end(now);
        }
    }

    /// Ends what every kernel has, and what is waited for in vain.
    fn converge(&mut self, inputs: &Inputs, now: SystemTime) {
        // A plan that is gone was withdrawn and acknowledged.
        let is_in_force = |plan: &String| {
            let plan = inputs.node_plans.get(plan);
            plan.is_none_or(|plan| plan.is_programmed() || is_withdrawn(plan))
        };
        let tracer = &self.tracer;
        self.converging.retain(|converging| {
            let missing = converging.plans.iter().filter(|plan| !is_in_force(plan));
            let missing: Vec<_> = missing.map(|plan| plan.clone().into()).collect();
            let waited = now.duration_since(converging.since).unwrap_or_default();
            if !missing.is_empty() && waited < CONVERGENCE_MAXIMUM {
                return true;
            }
            let mut span = tracer.child("converge", &converging.root, converging.since, Vec::new());
            if !missing.is_empty() {
                span.set(KeyValue::new(
                    "lvs.node_plans.missing",
                    lvs_traces::texts(missing),
                ));
                span.fail("NotProgrammed");
            }
            span.end(now);
            false
        });
    }

    /// Finds what has changed since the last pass.
    fn compare(&mut self, inputs: &Inputs, arrivals: &Arrivals, began: SystemTime) {
        let objects = objects(inputs);
        let seen = |subject: &Subject| arrivals.get(subject).copied().unwrap_or(began).min(began);
        if let Some(known) = self.known.take() {
            for (subject, state) in &objects {
                if known.get(subject) != Some(state) {
                    self.follow(subject, state, "Written", seen(subject));
                }
            }
            for (subject, state) in &known {
                if !objects.contains_key(subject) {
                    self.follow(subject, state, "Deleted", seen(subject));
                }
            }
        }
        self.known = Some(objects);
    }

    fn follow(
        &mut self,
        subject: &Subject,
        (uid, generation): &(String, i64),
        change: &'static str,
        seen: SystemTime,
    ) {
        // Whatever of it was not written yet is a part of this one now; the root ends with it.
        self.writing.remove(subject);
        if self.writing.len() + self.converging.len() >= CHANGES {
            return;
        }
        let (kind, key) = subject;
        let name = match kind {
            Kind::RealServer => "change RealServer",
            Kind::VirtualRouter => "change VirtualRouter",
            _ => "change VirtualService",
        };
        let mut attributes = vec![
            KeyValue::new("lvs.object.kind", format!("{kind:?}")),
            KeyValue::new("lvs.object.name", key.name.clone()),
            KeyValue::new("lvs.object.generation", *generation),
            KeyValue::new("lvs.change", change),
        ];
        if !key.namespace.is_empty() {
            attributes.push(KeyValue::new("k8s.namespace.name", key.namespace.clone()));
        }
        let writing = Writing {
            root: self.tracer.root(name, seen, attributes),
            uid: uid.clone(),
            written: BTreeSet::new(),
            wanted: BTreeSet::new(),
        };
        self.writing.insert(subject.clone(), writing);
    }
}

fn objects(inputs: &Inputs) -> BTreeMap<Subject, (String, i64)> {
    let entry = |kind: Kind, meta: &Meta| {
        let state = (meta.uid.clone(), meta.generation);
        ((kind, meta.key.clone()), state)
    };
    let services = inputs.virtual_services.values();
    let services = services.map(|object| entry(Kind::VirtualService, &object.meta));
    let real_servers = inputs.real_servers.values();
    let real_servers = real_servers.map(|object| entry(Kind::RealServer, &object.meta));
    let routers = inputs.virtual_routers.values();
    let routers = routers.map(|object| entry(Kind::VirtualRouter, &object.meta));
    services.chain(real_servers).chain(routers).collect()
}

/// The change for which a plan is written: that of its source, else of its router, else of a RealServer that it names or named.
/// Whatever else wakes the controller, such as Nodes, is no change that somebody made of these objects.
fn cause<'a>(
    writing: &'a mut BTreeMap<Subject, Writing>,
    spec: &NodePlanSpec,
    stored: Option<&NodePlanSpec>,
) -> Option<&'a mut Writing> {
    let source = &spec.source;
    let router = (
        Kind::VirtualRouter,
        ObjectKey::new("", spec.virtual_router_name.clone()),
    );
    let kind = match source.kind {
        SourceKind::VirtualService => Kind::VirtualService,
        SourceKind::VirtualRouter => Kind::VirtualRouter,
    };
    let own = (
        kind,
        ObjectKey::new(source.namespace.clone(), source.name.clone()),
    );
    let subject = if writing.get(&own).is_some_and(|of| of.uid == source.uid) {
        own
    } else if writing.contains_key(&router) {
        router
    } else {
        let real_servers = writing
            .keys()
            .filter(|(kind, key)| *kind == Kind::RealServer && key.namespace == source.namespace);
        let mut named = real_servers.filter(|(_, key)| {
            names(spec, &key.name) || stored.is_some_and(|stored| names(stored, &key.name))
        });
        named.next()?.clone()
    };
    writing.get_mut(&subject)
}

fn names(spec: &NodePlanSpec, real_server: &str) -> bool {
    let services = spec.director.iter().flat_map(|director| &director.services);
    services
        .flat_map(|service| &service.real_servers)
        .any(|planned| planned.name == real_server)
}
