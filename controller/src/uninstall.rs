//! `prepare-uninstall`: the last word of the operator to its nodes.
//!
//! Planning is stopped first, otherwise the controller would undo it. Then every plan is told to be
//! withdrawn, or retained, and every agent must have answered before this ends well: only then may the
//! agents be removed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
};
use kube::{Api, Client};
use lvs_crds::{CONTROLLER_FIELD_MANAGER, NodePlan};
use lvs_plan::input::{ExistingPlan, decode_plan};
use lvs_plan::lifecycle::is_withdrawn;
use lvs_traces::context::ANNOTATION;
use serde_json::json;
use tokio::time::Instant;

use crate::args::{UninstallArguments, UninstallPolicy};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Stops planning, tells the nodes, waits for their answers.
pub async fn prepare(arguments: UninstallArguments) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("finding the API server")?;
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout_seconds);
    stop_planning(&client, &arguments, deadline).await?;
    let plans = Plans::new(client, &arguments);
    plans.finish(deadline).await
}

async fn stop_planning(
    client: &Client,
    arguments: &UninstallArguments,
    deadline: Instant,
) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), &arguments.namespace);
    let none = json!({"spec": {"replicas": 0}});
    let parameters = PatchParams {
        field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match deployments
        .patch_scale(
            &arguments.deployment_name,
            &parameters,
            &Patch::Merge(&none),
        )
        .await
    {
        Ok(_) => tracing::info!("Deployment {} is scaled to 0", arguments.deployment_name),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            tracing::info!(
                "there is no Deployment {}: nothing plans",
                arguments.deployment_name
            );
        }
        Err(error) => {
            return Err(error).context(format!(
                "scaling Deployment {} to 0",
                arguments.deployment_name
            ));
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &arguments.namespace);
    let selector = ListParams::default().labels(&arguments.controller_pod_selector);
    loop {
        let left = pods
            .list(&selector)
            .await
            .context("listing the controller's pods")?
            .items;
        let running: Vec<_> = left
            .iter()
            .filter(|pod| runs(pod))
            .filter_map(|pod| pod.metadata.name.clone())
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "these pods of the controller have not ended: {}",
                running.join(", ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn runs(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Failed" | "Succeeded"))
}

struct Plans {
    api: Api<DynamicObject>,
    policy: UninstallPolicy,
}

impl Plans {
    fn new(client: Client, arguments: &UninstallArguments) -> Self {
        let resource = ApiResource::erase::<NodePlan>(&());
        let api = Api::namespaced_with(client, &arguments.namespace, &resource);
        Self {
            api,
            policy: arguments.policy,
        }
    }

    /// Until every plan is told and answered.
    async fn finish(&self, deadline: Instant) -> anyhow::Result<()> {
        loop {
            let mut waiting = BTreeSet::new();
            for object in self.list().await? {
                if let Some(why) = self.advance(&object).await? {
                    waiting.insert(why);
                }
            }
            if waiting.is_empty() {
                tracing::info!("every node has answered");
                return Ok(());
            }
            if Instant::now() > deadline {
                let waiting: Vec<_> = waiting.into_iter().collect();
                bail!(
                    "not answered yet: {}. Bring the agents there up again and repeat; or, if such a node is gone for \
                     good, delete its Node object",
                    waiting.join("; ")
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn list(&self) -> anyhow::Result<Vec<DynamicObject>> {
        match self.api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            // Without the kind there are no plans.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error).context("listing NodePlans"),
        }
    }

    /// One step for one plan; what it still waits for. The state is read from the JSON: a plan that
    /// another version wrote is told like any other.
    async fn advance(&self, object: &DynamicObject) -> anyhow::Result<Option<String>> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let text = |field: &str| {
            object.data["spec"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (node, state) = (text("nodeName"), text("state"));
        let wanted = match self.policy {
            UninstallPolicy::Clean => "Withdrawn",
            UninstallPolicy::KeepTraffic if state == "Withdrawn" => "Withdrawn",
            UninstallPolicy::KeepTraffic => "Retained",
        };
        let waits = format!("NodePlan {name} on node {node}");
        if state != wanted {
            let body = json!({
                "metadata": {
                    "resourceVersion": object.metadata.resource_version,
                    // This write is a part of no change that is traced.
                    "annotations": {ANNOTATION: null},
                },
                "spec": {"state": wanted},
            });
            let parameters = PatchParams {
                field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            return match self
                .api
                .patch(&name, &parameters, &Patch::Merge(&body))
                .await
            {
                Ok(_) => Ok(Some(waits)),
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    Ok(Some(waits))
                }
                Err(error) => Err(error).context(format!("setting NodePlan {name} to {wanted}")),
            };
        }
        let Some(plan) = answered(object)? else {
            return Ok(Some(waits));
        };
        if wanted == "Withdrawn" {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(plan.object.meta.uid),
                    resource_version: Some(plan.resource_version),
                }),
                ..DeleteParams::default()
            };
            match self.api.delete(&name, &parameters).await {
                Ok(_) => tracing::info!("NodePlan {name}: node {node} is clean"),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(kube::Error::Api(status)) if status.is_conflict() => return Ok(Some(waits)),
                Err(error) => return Err(error).context(format!("deleting NodePlan {name}")),
            }
        }
        Ok(None)
    }
}

/// The plan, if its agent has acknowledged this very spec.
fn answered(object: &DynamicObject) -> anyhow::Result<Option<ExistingPlan>> {
    let mut value = object.data.clone();
    value["metadata"] = serde_json::to_value(&object.metadata).context("encoding metadata")?;
    let plan = decode_plan(&value)?;
    let is_withdrawn_state = value["spec"]["state"] == "Withdrawn";
    let is_answered = if is_withdrawn_state {
        is_withdrawn(&plan)
    } else {
        plan.is_acknowledged()
    };
    Ok(is_answered.then_some(plan))
}
