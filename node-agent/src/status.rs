//! The only writer of the status of NodePlans. It writes on material change only: a status that says the same is left
//! alone, whatever the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use lvs_crds::condition::{ConditionType, Reason, same_meaning};
use lvs_crds::node_plan::{CheckedRealServer, NodePlanStatus};
use lvs_crds::{AGENT_FIELD_MANAGER, NodePlan};
use tokio::sync::watch;

use crate::limits::{STATUS_RETRY, STATUS_WRITE, STATUS_WRITES};
use crate::metrics::{Metrics, PassLabels};
use crate::plan_traces::StatusTraces;
use crate::report::{PlanReport, Programmed};

/// Reports by name of the plan.
pub type Reports = BTreeMap<String, PlanReport>;

/// Writes statuses and Events.
pub struct StatusWriter {
    api: Api<NodePlan>,
    recorder: Recorder,
    namespace: String,
    boot_id: String,
    metrics: Metrics,
    /// What was written last, by UID.
    written: BTreeMap<String, NodePlanStatus>,
    /// Traces of changes, where there is a collector.
    traces: Option<StatusTraces>,
    /// Transitions already told, by UID.
    told: BTreeMap<String, (&'static str, &'static str)>,
}

/// One status to write.
struct Write {
    name: String,
    uid: String,
    status: NodePlanStatus,
}

impl StatusWriter {
    /// A writer for the plans of `namespace` that reports as `node_name`.
    pub fn new(
        client: Client,
        namespace: &str,
        node_name: &str,
        boot_id: &str,
        metrics: Metrics,
    ) -> Self {
        let reporter = Reporter {
            controller: AGENT_FIELD_MANAGER.to_owned(),
            instance: Some(node_name.to_owned()),
        };
        Self {
            api: Api::namespaced(client.clone(), namespace),
            recorder: Recorder::new(client, reporter),
            namespace: namespace.to_owned(),
            boot_id: boot_id.to_owned(),
            metrics,
            written: BTreeMap::new(),
            traces: None,
            told: BTreeMap::new(),
        }
    }

    /// Says where spans of writes go; without it none are made.
    #[must_use]
    pub fn with_traces(mut self, traces: Option<StatusTraces>) -> Self {
        self.traces = traces;
        self
    }

    /// Writes what `reports` says until its sender is gone.
    pub async fn run(mut self, mut reports: watch::Receiver<Reports>) -> anyhow::Result<()> {
        let (first_wait, longest_wait) = STATUS_RETRY;
        let mut wait = first_wait;
        loop {
            let newest = reports.borrow_and_update().clone();
            let failed = self.write_all(&newest).await;
            self.tell(&newest).await;
            let changed = if failed {
                let pause = wait;
                wait = (wait * 2).min(longest_wait);
                tokio::time::timeout(pause, reports.changed())
                    .await
                    .unwrap_or(Ok(()))
            } else {
                wait = first_wait;
                reports.changed().await
            };
            if changed.is_err() {
                anyhow::bail!("the sync loop ended");
            }
        }
    }

    /// Writes these once, as the process is to end.
    pub async fn write_last(mut self, reports: &Reports) {
        // What fails has been logged; nobody is there to try again.
        let _ = self.write_all(reports).await;
    }

    /// Returns whether some write failed.
    async fn write_all(&mut self, reports: &Reports) -> bool {
        let present: BTreeSet<&str> = reports
            .values()
            .filter_map(|report| report.live.as_ref().map(|live| live.uid.as_str()))
            .collect();
        self.written.retain(|uid, _| present.contains(uid.as_str()));
        self.told.retain(|uid, _| present.contains(uid.as_str()));
        if let Some(traces) = &self.traces {
            traces.retain(&present);
        }
        let now = Time(Timestamp::now());
        let due: Vec<Write> = reports
            .iter()
            .filter_map(|(name, report)| self.due(name, report, &now))
            .collect();
        let (api, traces) = (&self.api, self.traces.as_ref());
        let mut results = futures::stream::iter(due)
            .map(|write| async move {
                let (begun, begun_at) = (Instant::now(), SystemTime::now());
                let result = patch(api, &write).await;
                if let Some(traces) = traces {
                    let plan = (&*write.name, &*write.uid, write.status.observed_generation);
                    traces.written(plan, (begun_at, SystemTime::now()), result.is_ok());
                }
                (write, result, begun.elapsed())
            })
            .buffer_unordered(STATUS_WRITES);
        let mut failed = false;
        let mut done = Vec::new();
        while let Some((write, result, duration)) = results.next().await {
            self.metrics
                .status_write_seconds
                .observe(duration.as_secs_f64());
            let label = match result {
                Ok(()) => {
                    done.push((write.uid, write.status));
                    "complete"
                }
                Err(message) => {
                    tracing::warn!(plan = write.name, "status not written: {message}");
                    failed = true;
                    "failed"
                }
            };
            self.metrics
                .status_writes
                .get_or_create(&PassLabels { result: label })
                .inc();
        }
        drop(results);
        self.written.extend(done);
        failed
    }

    /// The status to write, if it says something new.
    fn due(&self, name: &str, report: &PlanReport, now: &Time) -> Option<Write> {
        let live = report.live.as_ref()?;
        let known = self.written.get(&live.uid).unwrap_or(&live.status);
        let status = self.status(report, known, now);
        (!same(&status, known)).then(|| Write {
            name: name.to_owned(),
            uid: live.uid.clone(),
            status,
        })
    }

    fn status(&self, report: &PlanReport, known: &NodePlanStatus, now: &Time) -> NodePlanStatus {
        NodePlanStatus {
            observed_generation: report.observed_generation,
            boot_id: Some(self.boot_id.clone()),
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            role: report.role,
            effective_priority: report.effective_priority,
            deductions: report.deductions.clone(),
            last_transition: report.last_transition.clone(),
            heartbeat_lost_from: report.heartbeat_lost_from.clone(),
            conditions: vec![condition(&report.programmed, known, now)],
            addresses: report.addresses.clone(),
            table_hash: report.table_hash.clone(),
            heartbeat: report.heartbeat.clone(),
            real_servers: timed(&report.real_servers, &known.real_servers, now),
            services_without_quorum: report.services_without_quorum.clone(),
        }
    }

    /// An Event when a plan's condition takes another status or another reason. The first good report is no news.
    async fn tell(&mut self, reports: &Reports) {
        for (name, report) in reports {
            let Some(live) = &report.live else { continue };
            let now = (report.programmed.status, report.programmed.reason.as_str());
            let before = self.told.insert(live.uid.clone(), now).or_else(|| {
                // Since before this process: what stands in the API was told by the one that wrote it.
                let old = live.status.conditions.first()?;
                (old.status == now.0 && old.reason == now.1).then_some(now)
            });
            if before == Some(now) || (before.is_none() && now.0 == "True") {
                continue;
            }
            let event = Event {
                type_: match report.programmed.reason {
                    Reason::Withdrawn | Reason::Pending => EventType::Normal,
                    Reason::DriftRepaired => EventType::Warning,
                    _ if now.0 == "True" => EventType::Normal,
                    _ => EventType::Warning,
                },
                reason: now.1.to_owned(),
                note: Some(report.programmed.message.clone()),
                action: ConditionType::Programmed.as_str().to_owned(),
                secondary: None,
            };
            let reference = ObjectReference {
                api_version: Some(NodePlan::api_version(&()).into_owned()),
                kind: Some(NodePlan::kind(&()).into_owned()),
                name: Some(name.clone()),
                namespace: Some(self.namespace.clone()),
                uid: Some(live.uid.clone()),
                ..ObjectReference::default()
            };
            let published =
                tokio::time::timeout(STATUS_WRITE, self.recorder.publish(&event, &reference));
            match published.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(plan = name, "event not published: {error}"),
                Err(_) => tracing::warn!(plan = name, "event not published in time"),
            }
        }
    }
}

async fn patch(api: &Api<NodePlan>, write: &Write) -> Result<(), String> {
    let body = serde_json::json!({
        "apiVersion": NodePlan::api_version(&()),
        "kind": NodePlan::kind(&()),
        "metadata": {"name": write.name},
        "status": write.status,
    });
    let parameters = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let answer = api.patch_status(&write.name, &parameters, &patch);
    match tokio::time::timeout(STATUS_WRITE, answer).await {
        Ok(Ok(_)) => Ok(()),
        // The plan went while we spoke of it: the watch says so too, and the next report leaves it out.
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", STATUS_WRITE.as_secs())),
    }
}

fn condition(programmed: &Programmed, known: &NodePlanStatus, now: &Time) -> Condition {
    let type_ = ConditionType::Programmed.as_str();
    let since = known
        .conditions
        .iter()
        .find(|old| old.type_ == type_ && old.status == programmed.status)
        .map_or_else(|| now.clone(), |old| old.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: programmed.status.to_owned(),
        reason: programmed.reason.as_str().to_owned(),
        message: programmed.message.clone(),
        observed_generation: programmed.generation,
        last_transition_time: since,
    }
}

/// Real servers with the time since when each has its state: kept while the state is.
fn timed(
    reported: &[CheckedRealServer],
    known: &[CheckedRealServer],
    now: &Time,
) -> Vec<CheckedRealServer> {
    let slot = |one: &CheckedRealServer| {
        (
            one.name.clone(),
            one.port_name.clone(),
            one.address,
            one.port,
        )
    };
    let known: BTreeMap<_, _> = known.iter().map(|one| (slot(one), one)).collect();
    reported
        .iter()
        .map(|one| {
            let before = known.get(&slot(one)).filter(|old| old.state == one.state);
            let since = before.and_then(|old| old.since.clone());
            CheckedRealServer {
                since: since.or_else(|| Some(now.clone())),
                ..one.clone()
            }
        })
        .collect()
}

/// Whether two statuses say the same.
fn same(left: &NodePlanStatus, right: &NodePlanStatus) -> bool {
    let rest = |status: &NodePlanStatus| NodePlanStatus {
        conditions: Vec::new(),
        ..status.clone()
    };
    same_meaning(&left.conditions, &right.conditions) && rest(left) == rest(right)
}
