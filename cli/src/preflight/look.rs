//! What is to be judged, read by kubectl. What cannot be read is kept as such, with the reason: it may be that nothing is
//! installed yet, or that whoever asks may not see it.

use std::collections::BTreeMap;

use lvs_core::facts::NodeFacts;
use serde_json::Value;

use crate::chart;
use crate::kubectl::{Kubectl, KubectlError, Scope};
use crate::live::agent;

/// Namespace of what belongs to the cluster itself.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// Something that was asked for: what was found, nothing, or why it is not known.
pub type Answer<T> = Result<T, String>;

/// What kube-proxy is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeProxy {
    /// Mode; empty = the default, iptables.
    pub mode: String,
    /// Whether it answers ARP only where an address is.
    pub strict_arp: bool,
    /// Whether conntrack takes TCP packets for valid that fit no connection, and nothing is dropped for it.
    pub is_tcp_liberal: bool,
    /// Networks whose IPVS services it leaves alone.
    pub exclude_cidrs: Vec<String>,
}

impl KubeProxy {
    /// From its configuration file.
    ///
    /// # Errors
    /// When that is no YAML.
    pub fn read(text: &str) -> Result<Self, String> {
        let config: Value = serde_saphyr::from_str(text)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        let ipvs = &config["ipvs"];
        let excluded = ipvs["excludeCIDRs"].as_array().into_iter().flatten();
        Ok(Self {
            mode: config["mode"].as_str().unwrap_or_default().to_owned(),
            strict_arp: ipvs["strictARP"].as_bool().unwrap_or_default(),
            is_tcp_liberal: config["conntrack"]["tcpBeLiberal"]
                .as_bool()
                .unwrap_or_default(),
            exclude_cidrs: excluded
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

/// The agent of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenAgent {
    /// Node.
    pub node_name: String,
    /// Whether it is ready.
    pub is_ready: bool,
    /// What it says of its node.
    pub facts: Answer<NodeFacts>,
}

/// All that is judged.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Version of the API server, as v1.33.1.
    pub server_version: Answer<String>,
    /// Nodes.
    pub nodes: Answer<Vec<Value>>,
    /// Namespace of the operator.
    pub operator_namespace: String,
    /// That Namespace; `None` = it does not exist.
    pub namespace: Answer<Option<Value>>,
    /// kube-proxy; `None` = it has no ConfigMap.
    pub kube_proxy: Answer<Option<KubeProxy>>,
    /// Services of Kubernetes.
    pub cluster_services: Answer<Vec<Value>>,
    /// Data of Cilium's ConfigMap; `None` = there is none.
    pub cilium: Answer<Option<BTreeMap<String, String>>>,
    /// Calico's IPPools; empty = there are none.
    pub calico_pools: Answer<Vec<Value>>,
    /// Calico's FelixConfigurations; empty = there are none.
    pub felix: Answer<Vec<Value>>,
    /// Names of all CustomResourceDefinitions.
    pub definitions: Answer<Vec<String>>,
    /// VirtualRouters; empty where their kind is not installed.
    pub routers: Answer<Vec<Value>>,
    /// VirtualServices; empty where their kind is not installed.
    pub services: Answer<Vec<Value>>,
    /// Agents; empty where none is installed.
    pub agents: Answer<Vec<SeenAgent>>,
}

/// Whether kubectl says that there is no such object or kind.
fn is_not_found(error: &KubectlError) -> bool {
    let KubectlError::Refused { message, .. } = error else {
        return false;
    };
    message.contains("(NotFound)") || message.contains("doesn't have a resource type")
}

fn words<T>(result: Result<T, KubectlError>) -> Answer<T> {
    result.map_err(|error| error.to_string())
}

/// A list; of a kind that is not there an empty one.
fn list(kubectl: &Kubectl, resource: &str) -> Answer<Vec<Value>> {
    match kubectl.list(resource, Scope::Cluster) {
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        other => words(other),
    }
}

/// One object, if it is there.
fn get(kubectl: &Kubectl, arguments: &[&str]) -> Answer<Option<Value>> {
    let mut all = vec!["get", "--output=json"];
    all.extend(arguments);
    match kubectl.run(&all, &[]) {
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(answer) => serde_json::from_slice(&answer)
            .map(Some)
            .map_err(|error| format!("kubectl {} answered: {error}", all.join(" "))),
    }
}

fn system_map(kubectl: &Kubectl, name: &str) -> Answer<Option<BTreeMap<String, String>>> {
    let found = get(
        kubectl,
        &["configmap", name, "--namespace", SYSTEM_NAMESPACE],
    )?;
    Ok(found.map(|found| {
        let data = found["data"].as_object().into_iter().flatten();
        data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }))
}

fn kube_proxy(kubectl: &Kubectl) -> Answer<Option<KubeProxy>> {
    let Some(data) = system_map(kubectl, "kube-proxy")? else {
        return Ok(None);
    };
    let text = data.get("config.conf").map(String::as_str);
    KubeProxy::read(text.unwrap_or_default()).map(Some)
}

fn server_version(kubectl: &Kubectl) -> Answer<String> {
    let answer = words(kubectl.run(&["version", "--output=json"], &[]))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let version = answer["serverVersion"]["gitVersion"].as_str();
    version
        .map(str::to_owned)
        .ok_or_else(|| "the API server says none".to_owned())
}

fn agents(kubectl: &Kubectl, namespace: &str) -> Answer<Vec<SeenAgent>> {
    let agents = words(agent::list(kubectl, namespace))?;
    let command = ["show", "facts", "--output", "json"];
    let facts = agent::ask_each::<NodeFacts>(kubectl, &agents, &command);
    let mut facts: BTreeMap<String, Answer<NodeFacts>> = facts.into_iter().collect();
    let seen = agents.into_iter().filter_map(|agent| {
        Some(SeenAgent {
            facts: facts.remove(&agent.node)?,
            node_name: agent.node,
            is_ready: agent.is_ready,
        })
    });
    Ok(seen.collect())
}

/// Looks at a cluster.
pub fn look(kubectl: &Kubectl, operator_namespace: Option<&str>) -> Seen {
    let operator_namespace = operator_namespace.map(str::to_owned).or_else(|| {
        let selection = [chart::CONTROLLERS];
        let found = kubectl.list_selected("deployments.apps", Scope::Cluster, &selection);
        let found = found.ok()?;
        let namespace = found.first()?["metadata"]["namespace"].as_str()?;
        Some(namespace.to_owned())
    });
    let operator_namespace =
        operator_namespace.unwrap_or_else(|| chart::DEFAULT_NAMESPACE.to_owned());
    let definitions = kubectl.list(
        "customresourcedefinitions.apiextensions.k8s.io",
        Scope::Cluster,
    );
    let definitions = words(definitions).map(|definitions| {
        let names = definitions.iter();
        let names = names.filter_map(|one| one["metadata"]["name"].as_str());
        names.map(str::to_owned).collect()
    });
    Seen {
        server_version: server_version(kubectl),
        nodes: words(kubectl.list("nodes", Scope::Cluster)),
        namespace: get(kubectl, &["namespace", &operator_namespace]),
        kube_proxy: kube_proxy(kubectl),
        cluster_services: words(kubectl.list("services", Scope::Cluster)),
        cilium: system_map(kubectl, "cilium-config"),
        calico_pools: list(kubectl, "ippools.crd.projectcalico.org"),
        felix: list(kubectl, "felixconfigurations.crd.projectcalico.org"),
        definitions,
        routers: list(kubectl, "virtualrouters.lvs.dev"),
        services: list(kubectl, "virtualservices.lvs.dev"),
        agents: agents(kubectl, &operator_namespace),
        operator_namespace,
    }
}
