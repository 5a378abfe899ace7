//! The only writer of NodePlans' spec and of Leases' permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::{Api, Client};
use lvs_crds::{
    CONTROLLER_FIELD_MANAGER, LEASE_DIRECTORS_ANNOTATION, NodePlan, VIRTUAL_ROUTER_LABEL,
};
use lvs_plan::input::{ObjectKey, decode_plan};
use lvs_plan::resolution::{Base, PlannedLease, PlannedNodePlan};
use lvs_plan::{Checked, Resolution};
use lvs_traces::context::{ANNOTATION, to_text};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::change_traces::PlanWrites;
use crate::metrics::{Metrics, Outcome};
use crate::world::{SharedWorld, Versioned};

/// Writes on their way at once: a large change is not held up by one slow answer.
const CONCURRENT_WRITES: usize = 16;
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// First delay after a conflict on one object: an agent reported meanwhile, and the watch brings what it wrote at once.
const BACKOFF_CONFLICT: Duration = Duration::from_millis(5);
/// First delay after another failure of one object.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest delay of one object.
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// Delays of objects whose write failed.
#[derive(Debug, Default)]
pub struct Backoff {
    objects: BTreeMap<String, (u32, Instant)>,
}

impl Backoff {
    /// Whether the object may be written now.
    pub fn permits(&self, object: &str, now: Instant) -> bool {
        self.objects
            .get(object)
            .is_none_or(|(_, until)| *until <= now)
    }

    /// Notes how a write ended.
    pub fn note(&mut self, object: &str, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Written {
            self.objects.remove(object);
            return;
        }
        let failures = self
            .objects
            .get(object)
            .map_or(0, |(failures, _)| *failures);
        let first = match outcome {
            Outcome::Conflict => BACKOFF_CONFLICT,
            _ => BACKOFF_FIRST,
        };
        let delay = first
            .saturating_mul(1 << failures.min(16))
            .min(BACKOFF_LAST);
        self.objects
            .insert(object.to_owned(), (failures + 1, now + delay));
    }

    /// When the next of them may be written.
    pub fn next(&self) -> Option<Instant> {
        self.objects.values().map(|(_, until)| *until).min()
    }

    /// Forgets objects that nobody wants to write any more.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.objects.retain(|object, _| wanted(object));
    }
}

/// What one pass writes with.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    world: SharedWorld,
    metrics: Arc<Metrics>,
}

/// One write.
enum Write {
    Lease(String, PlannedLease),
    Plan(String, Box<PlannedNodePlan>),
    DeletePlan(String, Base),
    DeleteLease(String),
}

impl Write {
    fn kind(&self) -> &'static str {
        match self {
            Self::Lease(..) | Self::DeleteLease(_) => "Lease",
            Self::Plan(..) | Self::DeletePlan(..) => "NodePlan",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Lease(name, _)
            | Self::Plan(name, _)
            | Self::DeletePlan(name, _)
            | Self::DeleteLease(name) => name,
        }
    }
}

impl Writer {
    /// For the operator's namespace.
    pub fn new(
        client: Client,
        namespace: String,
        world: SharedWorld,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            namespace,
            world,
            metrics,
        }
    }

    /// Writes what differs: Leases before the plans that name them, deletions last. A write that
    /// fails does not hold up the others; it is planned again after its delay. `traces` says of which changes they are a part.
    /// Returns the names of the plans that were written.
    pub async fn apply(
        &self,
        resolution: &Checked<Resolution>,
        backoff: &mut Backoff,
        traces: Option<&PlanWrites>,
    ) -> BTreeSet<String> {
        let leases = resolution
            .leases
            .iter()
            .filter(|(_, lease)| lease.is_changed);
        let leases: Vec<_> = leases
            .map(|(name, lease)| Write::Lease(name.clone(), lease.clone()))
            .collect();
        let plans = resolution.plans.iter().filter(|(_, plan)| plan.is_changed);
        let plans: Vec<_> = plans
            .map(|(name, plan)| Write::Plan(name.clone(), Box::new(plan.clone())))
            .collect();
        let mut deletions: Vec<_> = resolution
            .deletions
            .iter()
            .map(|(name, base)| Write::DeletePlan(name.clone(), base.clone()))
            .collect();
        deletions.extend(
            resolution
                .lease_deletions
                .iter()
                .cloned()
                .map(Write::DeleteLease),
        );
        let wanted: BTreeSet<String> = leases
            .iter()
            .chain(&plans)
            .chain(&deletions)
            .map(|write| write.name().to_owned())
            .collect();
        backoff.retain(|object| wanted.contains(object));
        let mut written = BTreeSet::new();
        for writes in [leases, plans, deletions] {
            self.write_all(writes, backoff, traces, &mut written).await;
        }
        written
    }

    async fn write_all(
        &self,
        mut writes: Vec<Write>,
        backoff: &mut Backoff,
        traces: Option<&PlanWrites>,
        written: &mut BTreeSet<String>,
    ) {
        let now = Instant::now();
        writes.retain(|write| backoff.permits(write.name(), now));
        let mut outcomes = futures::stream::iter(writes)
            .map(|write| async move {
                let begun = Instant::now();
                let outcome = self.write_traced(&write, traces).await;
                (write, outcome, begun.elapsed())
            })
            .buffer_unordered(CONCURRENT_WRITES);
        let mut failures = 0;
        while let Some((write, outcome, duration)) = outcomes.next().await {
            self.metrics.wrote(write.kind(), outcome, duration);
            backoff.note(write.name(), outcome, Instant::now());
            failures += usize::from(outcome == Outcome::Failed);
            if let (Write::Plan(name, _), Outcome::Written) = (&write, outcome) {
                written.insert(name.clone());
            }
            if failures >= CONCURRENT_WRITES {
                // The API server is not well: the rest is planned again, and the loop goes on turning.
                break;
            }
        }
    }

    async fn write_traced(&self, write: &Write, traces: Option<&PlanWrites>) -> Outcome {
        let span = match write {
            Write::Plan(name, plan) => {
                traces.and_then(|traces| traces.begin(name, &plan.spec, SystemTime::now()))
            }
            _ => None,
        };
        let context = span.as_ref().and_then(|span| to_text(span.context()));
        let outcome = self.write(write, context.as_deref()).await;
        if let Some(mut span) = span {
            match outcome {
                Outcome::Written => {}
                Outcome::Conflict => span.fail("Conflict"),
                Outcome::Failed => span.fail("NotWritten"),
            }
            span.end(SystemTime::now());
        }
        outcome
    }

    async fn write(&self, write: &Write, context: Option<&str>) -> Outcome {
        let result = tokio::time::timeout(WRITE_TIMEOUT, async {
            match write {
                Write::Lease(name, lease) => self.write_lease(name, lease).await,
                Write::Plan(name, plan) => self.write_plan(name, plan, context).await,
                Write::DeletePlan(name, base) => self.delete_plan(name, base).await,
                Write::DeleteLease(name) => self.delete_lease(name).await,
            }
        });
        let (kind, name) = (write.kind(), write.name());
        match result.await {
            Ok(Ok(())) => Outcome::Written,
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                tracing::debug!("writing {kind} {name}: it changed meanwhile; planned again");
                Outcome::Conflict
            }
            Ok(Err(error)) => {
                tracing::warn!("writing {kind} {name}: {error}");
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(
                    "writing {kind} {name}: no answer in {} s",
                    WRITE_TIMEOUT.as_secs()
                );
                Outcome::Failed
            }
        }
    }

    fn plans(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<NodePlan>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Server-side apply from the version that was planned from: if the plan has changed since,
    /// the API server answers with a conflict.
    async fn write_plan(
        &self,
        name: &str,
        plan: &PlannedNodePlan,
        context: Option<&str>,
    ) -> Result<(), kube::Error> {
        let body = plan_body(name, &self.namespace, plan, context);
        let body = body.map_err(kube::Error::SerdeError)?;
        let parameters = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let written = self
            .plans()
            .patch(name, &parameters, &Patch::Apply(&body))
            .await?;
        tracing::info!(
            "NodePlan {name}: {:?} on {}",
            plan.spec.state,
            plan.spec.node_name
        );
        let mut value = written.data.clone();
        value["metadata"] =
            serde_json::to_value(&written.metadata).map_err(kube::Error::SerdeError)?;
        if let Ok(stored) = decode_plan(&value) {
            let resource_version = stored.resource_version.clone();
            let base = plan
                .base
                .as_ref()
                .map(|base| base.resource_version.as_str());
            let key = ObjectKey::new(self.namespace.clone(), name);
            let mut world = self.world.lock();
            world.node_plans.learn(
                &key,
                base,
                Versioned {
                    resource_version,
                    object: Arc::new(stored),
                },
            );
        }
        Ok(())
    }

    async fn delete_plan(&self, name: &str, base: &Base) -> Result<(), kube::Error> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(base.uid.clone()),
                resource_version: Some(base.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        match self.plans().delete(name, &parameters).await {
            Ok(_) => {
                tracing::info!("NodePlan {name}: withdrawn and deleted");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Only who may update the Lease is ours; its spec belongs to the holders.
    async fn write_lease(&self, name: &str, lease: &PlannedLease) -> Result<(), kube::Error> {
        let body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {VIRTUAL_ROUTER_LABEL: lease.virtual_router_name},
                "annotations": {LEASE_DIRECTORS_ANNOTATION: lease.directors.join(",")},
            },
        });
        let parameters = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        self.leases()
            .patch(name, &parameters, &Patch::Apply(&body))
            .await?;
        tracing::info!("Lease {name}: for {}", lease.directors.join(", "));
        Ok(())
    }

    async fn delete_lease(&self, name: &str) -> Result<(), kube::Error> {
        match self.leases().delete(name, &DeleteParams::default()).await {
            Ok(_) => {
                tracing::info!("Lease {name}: its router is gone; deleted");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn plan_body(
    name: &str,
    namespace: &str,
    plan: &PlannedNodePlan,
    context: Option<&str>,
) -> Result<Value, serde_json::Error> {
    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "labels": {VIRTUAL_ROUTER_LABEL: plan.spec.virtual_router_name},
        "ownerReferences": [{
            "apiVersion": "v1",
            "kind": "Node",
            "name": plan.spec.node_name,
            "uid": plan.owner_uid,
        }],
    });
    if let Some(context) = context {
        // That of an earlier write goes with this one: what is not applied is no longer ours.
        metadata["annotations"] = json!({ANNOTATION: context});
    }
    if let Some(base) = &plan.base {
        metadata["resourceVersion"] = json!(base.resource_version);
        metadata["uid"] = json!(base.uid);
    }
    Ok(json!({
        "apiVersion": "lvs.dev/v1alpha1",
        "kind": "NodePlan",
        "metadata": metadata,
        "spec": serde_json::to_value(&plan.spec)?,
    }))
}
