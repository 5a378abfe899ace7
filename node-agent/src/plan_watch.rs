//! The watch of this node's plans.
//!
//! An object that cannot be decoded is passed on as undecodable, never dropped: a dropped one would look deleted.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use lvs_crds::NodePlan;
use lvs_crds::node_plan::{NodePlanSpec, NodePlanStatus};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use crate::book::{PlanEvent, ReceivedPlan};
use crate::limits::{LIST_PAGE, WATCH_RETRY_SHARE, WATCH_SECONDS};
use crate::plan_traces::PlanTrace;

/// A NodePlan, decoded as far as possible. Each is decoded on its own, so that one bad object spoils no list.
#[derive(Clone, Debug)]
pub struct GuardedPlan {
    metadata: ObjectMeta,
    spec: Result<NodePlanSpec, String>,
    status: NodePlanStatus,
}

impl<'de> Deserialize<'de> for GuardedPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: ObjectMeta,
            #[serde(default)]
            spec: serde_json::Value,
            #[serde(default)]
            status: serde_json::Value,
        }
        let Parts {
            metadata,
            spec,
            status,
        } = Parts::deserialize(deserializer)?;
        Ok(Self {
            metadata,
            spec: serde_json::from_value(spec).map_err(|error| error.to_string()),
            // A status that another version wrote is only a status: it is written anew.
            status: serde_json::from_value(status).unwrap_or_default(),
        })
    }
}

impl Resource for GuardedPlan {
    type DynamicType = ();
    type Scope = <NodePlan as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        NodePlan::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        NodePlan::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        NodePlan::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        NodePlan::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<GuardedPlan> for ReceivedPlan {
    fn from(plan: GuardedPlan) -> Self {
        Self {
            name: plan.name_any(),
            uid: plan.uid().unwrap_or_default(),
            generation: plan.metadata.generation.unwrap_or_default(),
            trace: PlanTrace::of(plan.annotations(), SystemTime::now()),
            spec: plan.spec,
            status: plan.status,
        }
    }
}

impl From<Event<GuardedPlan>> for PlanEvent {
    fn from(event: Event<GuardedPlan>) -> Self {
        match event {
            Event::Init => Self::ListBegins,
            Event::InitApply(plan) => Self::Listed(plan.into()),
            Event::InitDone => Self::ListEnds,
            Event::Apply(plan) => Self::Applied(plan.into()),
            Event::Delete(plan) => Self::Deleted {
                name: plan.name_any(),
                uid: plan.uid().unwrap_or_default(),
            },
        }
    }
}

/// Waits before a broken watch is tried again: a [`WATCH_RETRY_SHARE`]th of kube's, which double from 0.8 to 30 s with
/// jitter, so that the agents of a cluster do not all come back at once.
#[derive(Default)]
struct WatchBackoff(DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait / WATCH_RETRY_SHARE)
    }
}

impl Backoff for WatchBackoff {
    // kube's watcher says that it begins to list before it asks, and that alone would reset this: five requests a
    // second from each agent while the API server is away. What it counts by itself is enough.
    fn reset(&mut self) {}
}

/// Watches until the receiver is gone. Errors are logged and tried again: without the API the agent goes on.
pub async fn run(
    client: Client,
    namespace: String,
    node_name: String,
    events: mpsc::Sender<PlanEvent>,
) -> anyhow::Result<()> {
    let api: Api<GuardedPlan> = Api::namespaced(client, &namespace);
    let config = watcher::Config {
        page_size: Some(LIST_PAGE),
        ..watcher::Config::default()
    }
    .fields(&format!("spec.nodeName={node_name}"))
    .timeout(WATCH_SECONDS);
    let mut stream = std::pin::pin!(watch(api, config).backoff(WatchBackoff::default()));
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => {
                if events.send(event.into()).await.is_err() {
                    anyhow::bail!("the sync loop ended");
                }
            }
            Ok(None) => anyhow::bail!("the watch of NodePlans ended"),
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(|cause| format!(": {cause}"))
                    .unwrap_or_default();
                tracing::warn!("watching NodePlans: {error}{cause}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kube::core::ObjectList;

    use super::*;

    fn plan(name: &str, state: &str) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlan",
            "metadata": {"name": name, "uid": "u", "generation": 4},
            "spec": {
                "nodeName": "node-a", "state": state, "virtualRouterName": "edge",
                "source": {"kind": "VirtualRouter", "name": "edge", "uid": "r", "generation": 1}
            },
            "status": {"observedGeneration": 3}
        })
    }

    #[test]
    fn one_bad_object_does_not_spoil_the_list() {
        let list = serde_json::json!({
            "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlanList", "metadata": {},
            "items": [plan("good", "Active"), plan("bad", "Hibernating"), {"metadata": {"name": "none"}}]
        });
        let list: ObjectList<GuardedPlan> = serde_json::from_value(list).unwrap();
        let plans: Vec<ReceivedPlan> = list.items.into_iter().map(Into::into).collect();
        let [good, bad, none] = plans.as_slice() else {
            unreachable!()
        };
        assert!(good.spec.is_ok());
        assert_eq!(
            (good.generation, good.status.observed_generation),
            (4, Some(3))
        );
        assert!(bad.spec.as_ref().unwrap_err().contains("Hibernating"));
        assert!(none.spec.is_err());
    }

    #[test]
    fn an_api_server_that_is_away_is_not_asked_ever_so_often() {
        let mut waits = WatchBackoff::default();
        let first = waits.next().unwrap_or_default();
        assert!(first < Duration::from_millis(300), "{first:?}");
        // What the watcher calls a success before every attempt to list.
        for _ in 0..20 {
            waits.reset();
            waits.next();
        }
        let last = waits.next().unwrap_or_default();
        assert!((5..=10).contains(&last.as_secs()), "{last:?}");
    }
}
