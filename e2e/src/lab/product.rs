//! The product in the lab: its pods, its agents as processes and what they count.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::await_condition::until;
use crate::kubelet::guest_work;

impl Lab {
    /// Waits until every pod of the product is ready.
    pub fn await_product(&self) -> Result<()> {
        until(
            Duration::from_mins(5),
            "all pods of the product ready",
            || {
                let set =
                    self.cluster
                        .get(&["-n", OPERATOR_NAMESPACE, "daemonsets,deployments"])?;
                let rows: Vec<(String, i64, i64)> = set["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| {
                        let status = &item["status"];
                        let wanted = status["desiredNumberScheduled"]
                            .as_i64()
                            .or(item["spec"]["replicas"].as_i64());
                        let ready = status["numberReady"]
                            .as_i64()
                            .or(status["readyReplicas"].as_i64());
                        (
                            item["metadata"]["name"].to_string(),
                            wanted.unwrap_or(-1),
                            ready.unwrap_or(0),
                        )
                    })
                    .collect();
                let good = rows.len() == 2
                    && rows
                        .iter()
                        .all(|(_, wanted, ready)| wanted == ready && *wanted > 0);
                Ok(if good { Ok(()) } else { Err(rows) })
            },
        )
    }

    /// Name of the controller's Deployment.
    pub fn controller_deployment(&self) -> Result<String> {
        let list = self
            .cluster
            .get(&["-n", OPERATOR_NAMESPACE, "deployments"])?;
        list["items"][0]["metadata"]["name"]
            .as_str()
            .map(str::to_owned)
            .context("no Deployment")
    }

    /// Names of the controller's pods.
    pub fn controller_pods(&self) -> Result<Vec<String>> {
        let list = self.cluster.get(&["-n", OPERATOR_NAMESPACE, "pods"])?;
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["spec"]["hostNetwork"] != true)
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Folder in the guest of the agent's pod on a node.
    pub fn agent_work(&self, node: &str) -> Result<String> {
        let selector = format!("spec.nodeName={node}");
        let pods = self.cluster.get(&[
            "-n",
            OPERATOR_NAMESPACE,
            "pods",
            "--field-selector",
            &selector,
        ])?;
        let uid = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|pod| {
                pod["spec"]["hostNetwork"] == true && pod["metadata"]["deletionTimestamp"].is_null()
            })
            .and_then(|pod| pod["metadata"]["uid"].as_str())
            .with_context(|| format!("no agent pod on {node}"))?;
        Ok(guest_work(uid))
    }

    /// Sends a signal to a node's agent; with `hold` it is not started again until [`Lab::release_agent`].
    pub fn signal_agent(&self, node: &str, signal: &str, hold: bool) -> Result<()> {
        let work = self.agent_work(node)?;
        let hold = if hold {
            format!("touch {work}/hold;")
        } else {
            String::new()
        };
        self.guest
            .run(&format!("{hold} kill -{signal} $(cat {work}/pid)"))?;
        if hold.is_empty() {
            return Ok(());
        }
        until(LIMIT, "the agent ends", || {
            let output = self
                .guest
                .try_run(&format!("[ ! -d /proc/$(cat {work}/pid) ]"))?;
            Ok(if output.status == 0 {
                Ok(())
            } else {
                Err("still there")
            })
        })
    }

    /// Lets a held agent start again.
    pub fn release_agent(&self, node: &str) -> Result<()> {
        let work = self.agent_work(node)?;
        self.guest.run(&format!("rm -f {work}/hold")).map(drop)
    }

    /// A metric of a node's agent, summed over its label sets; 0 when absent.
    pub fn agent_metric(&self, node: &str, name: &str) -> Result<f64> {
        let text = self.guest.on(
            node,
            "curl --silent --show-error --max-time 10 http://127.0.0.1:9650/metrics",
        )?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{')))
            .filter_map(|line| {
                line.rsplit(' ')
                    .next()
                    .and_then(|word| word.parse::<f64>().ok())
            })
            .sum())
    }
}
