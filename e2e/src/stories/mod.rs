//! What users must be able to do, shown with real packets. Each story leaves the hosts as they were.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::await_condition::until;
use crate::lab::{Hosts, LIMIT, Lab, Machine, OPERATOR_NAMESPACE};

mod active_active;
mod authentication;
mod bare;
mod boundaries;
mod certificate_expiry;
mod coexistence;
mod collector;
mod colocated;
mod conflict;
mod connection_sync;
mod connection_takeover;
mod connection_thresholds;
mod credentials;
mod differential;
mod direct_routing;
mod dns_names;
mod drain;
mod external_check;
mod failover;
mod full_nat;
mod guarded_metrics;
mod health_checks;
mod import_shadow;
mod inside_clients;
mod nat;
mod paths;
mod persistence;
mod prometheus;
mod prometheus_server;
mod protocols;
mod real_server_checks;
mod resilience;
mod schedulers;
mod seen;
mod service_targets;
mod shown;
mod strict;
mod sync_group;
mod tenants;
mod through_virtual_address;
mod traces;
mod tracking;
mod tunnel;
mod virtual_mac;
mod withdraw_address;

/// One story.
pub struct Story {
    /// Name, begins with the scenario's id where there is one.
    pub name: &'static str,
    /// What it shows, in one line.
    pub tells: &'static str,
    /// The story.
    pub run: fn(&Lab) -> Result<()>,
}

/// Every story of a machine, in the order they are told.
pub fn all(machine: Machine) -> Vec<Story> {
    if machine == Machine::Bare {
        return bare::stories();
    }
    [
        direct_routing::stories(),
        nat::stories(),
        full_nat::stories(),
        sync_group::stories(),
        inside_clients::stories(),
        colocated::stories(),
        virtual_mac::stories(),
        authentication::stories(),
        tunnel::stories(),
        health_checks::stories(),
        credentials::stories(),
        real_server_checks::stories(),
        certificate_expiry::stories(),
        through_virtual_address::stories(),
        external_check::stories(),
        drain::stories(),
        withdraw_address::stories(),
        differential::stories(),
        import_shadow::stories(),
        service_targets::stories(),
        dns_names::stories(),
        schedulers::stories(),
        connection_thresholds::stories(),
        persistence::stories(),
        protocols::stories(),
        resilience::stories(),
        failover::stories(),
        active_active::stories(),
        tracking::stories(),
        strict::stories(),
        seen::stories(),
        shown::stories(),
        connection_sync::stories(),
        connection_takeover::stories(),
        boundaries::stories(),
        tenants::stories(),
        conflict::stories(),
        coexistence::stories(),
        paths::stories(),
        prometheus::stories(),
        guarded_metrics::stories(),
        traces::stories(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Namespace of a story's objects.
pub const NAMESPACE: &str = "story";

/// Every host as it was before the stories, once somebody looked.
pub type Before = Option<Hosts>;

/// Tells one story between two looks at every host: what it made is deleted, and nothing may remain.
/// The look after one story is the look before the next; a story that left something is forgotten with it.
pub fn tell(lab: &Lab, story: &Story, known: &mut Before) -> Result<()> {
    let before = match known.take() {
        Some(hosts) => hosts,
        None => lab.hosts().context("looking at the hosts before")?,
    };
    lab.cluster.namespace(NAMESPACE)?;
    let told = (story.run)(lab);
    let cleaned = clean(lab).and_then(|()| lab.await_hosts(&before));
    if cleaned.is_ok() {
        *known = Some(before);
    }
    told.context("the story")?;
    cleaned.context("afterwards")
}

/// Deletes every object of stories; the chart's own router stays.
fn clean(lab: &Lab) -> Result<()> {
    let kinds = "virtualservices.lvs.dev,realservers.lvs.dev";
    lab.cluster
        .kubectl(&["delete", "-n", NAMESPACE, "--all", "--wait", kinds])?;
    let label = "app.kubernetes.io/managed-by!=Helm";
    lab.cluster
        .kubectl(&["delete", "virtualrouters.lvs.dev", "--wait", "-l", label])?;
    Ok(())
}

/// What a story needs of the machine, undone when dropped.
struct Undo<'a> {
    lab: &'a Lab,
    script: String,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = self.lab.guest.try_run(&self.script);
    }
}

/// Installs the chart again with these values beside those of the lab (`name=value`), and waits until every agent and every
/// controller runs with them. Without any it is as it was installed.
fn upgrade(lab: &Lab, settings: &[&str]) -> Result<()> {
    let chart = lab.repository.join("charts/lvs-operator");
    let values = lab.repository.join("e2e/machine/values.yaml");
    let (chart, values) = (chart.display().to_string(), values.display().to_string());
    let mut words = vec!["upgrade", "lvs-operator", &chart, "--values", &values];
    words.extend(["--namespace", OPERATOR_NAMESPACE]);
    words.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    lab.cluster.helm(&words)?;
    let is_newest = |kind: &str, name: &str, counts: [&str; 3]| -> Result<_> {
        let set = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, kind, name])?;
        let [wanted, newest, ready] = counts.map(|count| set["status"][count].as_i64());
        let good = set["status"]["observedGeneration"] == set["metadata"]["generation"]
            && newest == wanted
            && ready == wanted;
        Ok(if good {
            Ok(())
        } else {
            Err(set["status"].clone())
        })
    };
    until(
        LIMIT * 4,
        "every agent is of the newest template and ready",
        || {
            let counts = [
                "desiredNumberScheduled",
                "updatedNumberScheduled",
                "numberReady",
            ];
            is_newest("daemonset", "lvs-operator-agent", counts)
        },
    )?;
    until(LIMIT * 2, "every controller is", || {
        let counts = ["replicas", "updatedReplicas", "readyReplicas"];
        is_newest("deployment", "lvs-operator-controller", counts)
    })
}

/// The plugin, built beside the program that tells stories.
fn plugin() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("kubectl-lvs");
    ensure!(
        path.is_file(),
        "{} is not there: cargo build --package kubectl-lvs",
        path.display()
    );
    Ok(path)
}

/// RealServers that are the cluster nodes of these names: documents of YAML that follow others.
fn real_servers(nodes: &[&str]) -> String {
    let document = |node: &&str| {
        format!(
            "---\napiVersion: lvs.dev/v1alpha1\nkind: RealServer\nmetadata: {{name: {node}}}\n\
             spec: {{target: {{type: Node, node: {{name: {node}}}}}}}\n"
        )
    };
    nodes.iter().map(document).collect()
}

/// The director that is not this one.
fn other(director: &str) -> &'static str {
    if director == "lb-a" { "lb-b" } else { "lb-a" }
}

/// Name of the plan of VirtualService `web` for a node.
fn plan_of(lab: &Lab, node: &str) -> Result<String> {
    let plans = lab.cluster.get(&[
        "-n",
        OPERATOR_NAMESPACE,
        "nodeplans",
        "--field-selector",
        &format!("spec.nodeName={node}"),
    ])?;
    plans["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|plan| {
            plan["spec"]["source"]["name"] == "web"
                && plan["spec"]["source"]["kind"] == "VirtualService"
        })
        .and_then(|plan| plan["metadata"]["name"].as_str().map(str::to_owned))
        .ok_or_else(|| anyhow::anyhow!("no plan of web for {node}"))
}
