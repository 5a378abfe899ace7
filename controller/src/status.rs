//! The only writer of status and of Events. It runs beside the planning loop at its own pace, so
//! that a wave of statuses never holds up a plan; it always works on the newest report.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::{Api, Client, Resource};
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::{
    CONTROLLER_FIELD_MANAGER, RealServer, RealServerStatus, VirtualRouter, VirtualRouterStatus,
    VirtualService, VirtualServiceStatus,
};
use lvs_plan::input::{Object, ObjectKey, decode};
use lvs_plan::report::{Truth, Verdict, stamp};
use lvs_plan::status::rationed::{Rationed, Telling};
use lvs_plan::status::{ObjectReport, Report};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::event::{leadership, real_server, transitions};
use crate::metrics::{Metrics, Outcome as WriteOutcome};
use crate::reconcile::Outcome;
use crate::world::{Kind, SharedWorld, Store, Versioned, World};

/// Shortest time between two waves.
const PACE: Duration = Duration::from_millis(100);
/// Time after which what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Writes on their way at once.
const CONCURRENT_WRITES: usize = 8;
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes statuses.
pub struct StatusWriter {
    client: Client,
    world: SharedWorld,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    /// What was told of real servers.
    rationed: Mutex<Rationed>,
    /// Times of the ration count from here.
    begun: Instant,
}

/// A kind with a status of ours.
struct Target<Spec, Status> {
    kind: Kind,
    resource: ApiResource,
    store: fn(&mut World) -> &mut Store<Object<Spec, Status>>,
    conditions: fn(&mut Status) -> &mut Vec<Condition>,
    /// What happened between two statuses beside the changes of conditions.
    news: fn(&Status, &Status) -> Vec<Event>,
}

/// One status to write.
struct Change {
    key: ObjectKey,
    base: String,
    body: serde_json::Value,
    reference: ObjectReference,
    events: Vec<Event>,
}

impl StatusWriter {
    /// `instance` names this replica in Events.
    pub fn new(
        client: Client,
        world: SharedWorld,
        metrics: Arc<Metrics>,
        instance: String,
    ) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER_FIELD_MANAGER.to_owned(),
            instance: Some(instance),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            world,
            metrics,
            recorder,
            rationed: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Writes whatever the newest report says, until the process ends.
    pub async fn run(
        self,
        mut outcomes: watch::Receiver<Option<Outcome>>,
        is_leader: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut all_written = true;
        loop {
            let retry = (!all_written).then_some(RETRY);
            match [retry, self.next_telling()].into_iter().flatten().min() {
                None => outcomes.changed().await?,
                Some(wait) => {
                    let changed = tokio::time::timeout(wait, outcomes.changed()).await;
                    changed.unwrap_or(Ok(()))?;
                }
            }
            let begun = Instant::now();
            let outcome = outcomes.borrow_and_update().clone();
            if !*is_leader.borrow() {
                // Another tells now; what it has told is in the statuses that it stores.
                *self.rationed() = Rationed::default();
            }
            if let Some(outcome) = outcome.filter(|_| *is_leader.borrow()) {
                let now = Time(Timestamp::from_second(Timestamp::now().as_second())?);
                all_written = match outcome {
                    Outcome::Resolved(resolution) => self.write(&resolution.report, &now).await,
                    Outcome::Contradicted(contradiction) => {
                        let (resolution, findings) = contradiction.as_ref();
                        let mut report = resolution.report.clone();
                        let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
                        contradict(&mut report, &texts.join("; "));
                        self.write(&report, &now).await
                    }
                };
            }
            tokio::time::sleep_until(begun + PACE).await;
        }
    }

    /// Writes every status that says something new: routers first, they are few and say who is
    /// master. Returns whether all were written.
    pub async fn write(&self, report: &Report, now: &Time) -> bool {
        self.count_not_ready(report);
        let routers = Target {
            kind: Kind::VirtualRouter,
            resource: ApiResource::erase::<VirtualRouter>(&()),
            store: |world| &mut world.virtual_routers,
            conditions: |status: &mut VirtualRouterStatus| &mut status.conditions,
            news: leadership,
        };
        let services = Target {
            kind: Kind::VirtualService,
            resource: ApiResource::erase::<VirtualService>(&()),
            store: |world| &mut world.virtual_services,
            conditions: |status: &mut VirtualServiceStatus| &mut status.conditions,
            news: |_, _| Vec::new(),
        };
        let real_servers = Target {
            kind: Kind::RealServer,
            resource: ApiResource::erase::<RealServer>(&()),
            store: |world| &mut world.real_servers,
            conditions: |status: &mut RealServerStatus| &mut status.conditions,
            news: |_, _| Vec::new(),
        };
        // By the statuses as they are stored before they are written.
        let tellings = self.tellings(report);
        let routers_written = self
            .write_kind(&routers, &report.virtual_routers, now)
            .await;
        let services_written = self
            .write_kind(&services, &report.virtual_services, now)
            .await;
        let real_servers_written = self
            .write_kind(&real_servers, &report.real_servers, now)
            .await;
        for telling in &tellings {
            self.tell_of_real_server(report, telling).await;
        }
        routers_written && services_written && real_servers_written
    }

    fn rationed(&self) -> MutexGuard<'_, Rationed> {
        // Nothing in there panics between two writes that belong together.
        self.rationed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until something of real servers may be told that waits.
    fn next_telling(&self) -> Option<Duration> {
        let next = self.rationed().next()?;
        Some(next.saturating_sub(self.begun.elapsed()))
    }

    fn tellings(&self, report: &Report) -> Vec<Telling> {
        let stored: BTreeMap<ObjectKey, _> = self
            .world
            .lock()
            .real_servers
            .objects()
            .map(|(key, stored)| (key.clone(), Arc::clone(&stored.object)))
            .collect();
        let status = |key: &ObjectKey| stored.get(key)?.status.as_ref();
        self.rationed().tell(report, status, self.begun.elapsed())
    }

    async fn tell_of_real_server(&self, report: &Report, telling: &Telling) {
        let key = &telling.virtual_service;
        let Some(of_service) = report.virtual_services.get(key) else {
            return;
        };
        let reference = ObjectReference {
            api_version: Some(VirtualService::api_version(&()).into_owned()),
            kind: Some(VirtualService::kind(&()).into_owned()),
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: Some(of_service.uid.clone()),
            ..ObjectReference::default()
        };
        self.publish(&real_server(telling), &reference, key).await;
    }

    async fn write_kind<Spec, Status>(
        &self,
        target: &Target<Spec, Status>,
        reports: &BTreeMap<ObjectKey, ObjectReport<Status>>,
        now: &Time,
    ) -> bool
    where
        Spec: DeserializeOwned + PartialEq,
        Status: Clone + Default + PartialEq + Serialize + DeserializeOwned + Debug,
    {
        let changes: Vec<Change> = reports
            .iter()
            .filter_map(|(key, report)| self.change(target, key, report, now))
            .collect();
        let mut outcomes = futures::stream::iter(changes)
            .map(|change| async move {
                let begun = Instant::now();
                let outcome = self.write_one(target, &change).await;
                let duration = begun.elapsed();
                if outcome == WriteOutcome::Written {
                    self.tell(&change).await;
                }
                (outcome, duration)
            })
            .buffer_unordered(CONCURRENT_WRITES);
        let mut all_written = true;
        while let Some((outcome, duration)) = outcomes.next().await {
            self.metrics
                .wrote(&format!("{:?}Status", target.kind), outcome, duration);
            all_written &= outcome == WriteOutcome::Written;
        }
        all_written
    }

    /// What is to be written, if it differs from what is stored by more than times.
    fn change<Spec, Status>(
        &self,
        target: &Target<Spec, Status>,
        key: &ObjectKey,
        report: &ObjectReport<Status>,
        now: &Time,
    ) -> Option<Change>
    where
        Spec: PartialEq,
        Status: Clone + Default + PartialEq + Serialize,
    {
        let stored = (target.store)(&mut self.world.lock()).get(key).cloned()?;
        if stored.object.meta.uid != report.uid {
            return None;
        }
        let mut previous = stored.object.status.clone().unwrap_or_default();
        let before = (target.conditions)(&mut previous).clone();
        let after = stamp(&before, &report.verdicts, report.generation, now);
        let mut status = report.status.clone();
        (target.conditions)(&mut status).clone_from(&after);
        if stored.object.status.as_ref() == Some(&status) {
            return None;
        }
        let mut events = (target.news)(&previous, &status);
        events.extend(transitions(&before, &after));
        let mut metadata = json!({"name": key.name, "uid": report.uid});
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        let status = serde_json::to_value(&status)
            .inspect_err(|error| {
                tracing::error!("encoding the status of {:?} {key}: {error}", target.kind);
            })
            .ok()?;
        Some(Change {
            key: key.clone(),
            base: stored.resource_version,
            body: json!({
                "apiVersion": target.resource.api_version,
                "kind": target.resource.kind,
                "metadata": metadata,
                "status": status,
            }),
            reference: ObjectReference {
                api_version: Some(target.resource.api_version.clone()),
                kind: Some(target.resource.kind.clone()),
                name: Some(key.name.clone()),
                namespace: (!key.namespace.is_empty()).then(|| key.namespace.clone()),
                uid: Some(report.uid.clone()),
                ..ObjectReference::default()
            },
            events,
        })
    }

    async fn write_one<Spec, Status>(
        &self,
        target: &Target<Spec, Status>,
        change: &Change,
    ) -> WriteOutcome
    where
        Spec: DeserializeOwned + PartialEq,
        Status: DeserializeOwned + PartialEq,
    {
        let api: Api<DynamicObject> = if change.key.namespace.is_empty() {
            Api::all_with(self.client.clone(), &target.resource)
        } else {
            Api::namespaced_with(self.client.clone(), &change.key.namespace, &target.resource)
        };
        let parameters = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let patch = Patch::Apply(&change.body);
        let written = api.patch_status(&change.key.name, &parameters, &patch);
        let (kind, key) = (target.kind, &change.key);
        match tokio::time::timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(written)) => {
                let resource_version = written.meta().resource_version.clone().unwrap_or_default();
                let mut value = written.data.clone();
                value["metadata"] = serde_json::to_value(&written.metadata).unwrap_or_default();
                if let Ok(object) = decode::<Spec, Status>(&value) {
                    let learned = Versioned {
                        resource_version,
                        object: Arc::new(object),
                    };
                    (target.store)(&mut self.world.lock()).learn(key, Some(&change.base), learned);
                }
                WriteOutcome::Written
            }
            // The object is gone, or another of the same name: nothing is left to tell.
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
                tracing::debug!("status of {kind:?} {key}: {}", status.message);
                WriteOutcome::Conflict
            }
            Ok(Err(error)) => {
                tracing::warn!("writing the status of {kind:?} {key}: {error}");
                WriteOutcome::Failed
            }
            Err(_) => {
                tracing::warn!(
                    "writing the status of {kind:?} {key}: no answer in {} s",
                    WRITE_TIMEOUT.as_secs()
                );
                WriteOutcome::Failed
            }
        }
    }

    async fn tell(&self, change: &Change) {
        for event in &change.events {
            self.publish(event, &change.reference, &change.key).await;
        }
    }

    async fn publish(&self, event: &Event, reference: &ObjectReference, key: &ObjectKey) {
        let published = self.recorder.publish(event, reference);
        match tokio::time::timeout(WRITE_TIMEOUT, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("Event {} of {key}: {error}", event.reason),
            Err(_) => tracing::warn!("Event {} of {key}: no answer", event.reason),
        }
    }

    fn count_not_ready(&self, report: &Report) {
        let mut counts: BTreeMap<(Kind, Reason), i64> = BTreeMap::new();
        let all = report
            .virtual_services
            .values()
            .map(|r| (Kind::VirtualService, &r.verdicts));
        let all = all.chain(
            report
                .real_servers
                .values()
                .map(|r| (Kind::RealServer, &r.verdicts)),
        );
        let all = all.chain(
            report
                .virtual_routers
                .values()
                .map(|r| (Kind::VirtualRouter, &r.verdicts)),
        );
        for (kind, verdicts) in all {
            let ready = verdicts
                .iter()
                .find(|verdict| verdict.condition == ConditionType::Ready);
            let Some(verdict) = ready
                .or(verdicts.first())
                .filter(|verdict| verdict.reason != Reason::Ready)
            else {
                continue;
            };
            *counts.entry((kind, verdict.reason)).or_default() += 1;
        }
        self.metrics.set_not_ready(counts);
    }
}

/// Says on every router that nothing could be written.
fn contradict(report: &mut Report, findings: &str) {
    let message = format!(
        "nothing is written until this is resolved; it is a fault of the controller, please report it: {findings}"
    );
    for router in report.virtual_routers.values_mut() {
        for verdict in &mut router.verdicts {
            if verdict.condition == ConditionType::Programmed {
                *verdict = Verdict {
                    truth: Truth::False,
                    reason: Reason::CheckFailed,
                    message: message.clone(),
                    ..verdict.clone()
                };
            }
        }
    }
}
