//! What our tables would be: objects, planned by the controller's code and turned into tables by the agents', on a director
//! that has nothing else. Every real server counts as up, but for those that the directors of a cluster report as down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use lvs_core::health::service_key;
use lvs_core::ipvs::{ServiceKey, Services};
use lvs_crds::IS_DEFAULT_ROUTER_ANNOTATION;
use lvs_crds::node_plan::SourceKind;
use lvs_plan::Inputs;
use lvs_plan::rehearsal::rehearse;
use serde_json::{Value, json};

use crate::live::agent::Agent;
use crate::live::comparison::last_offset;
use crate::plan::{Cluster, Kind, NodeUnderPlans, problems};

/// Name of the one director, where the files name none.
const DIRECTOR: &str = "director";
/// Phase of a pod whose containers run.
const RUNNING: &str = "Running";
/// Where addresses are taken from that no file says: networks for benchmarks, which no client uses (RFC 2544, RFC 5180).
const SPARE_ADDRESSES: [&str; 2] = ["198.19.255.0/24", "2001:2::/120"];
/// The first address of directors, of the same network.
const FIRST_DIRECTOR_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Tables of our directors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Services.
    pub services: Services,
    /// VirtualService of each service, with its namespace.
    pub owners: BTreeMap<ServiceKey, String>,
    /// What stands against objects, so that they are not in the tables or not as a whole, in words.
    pub problems: Vec<String>,
}

/// Tables of imported objects.
///
/// # Errors
/// When an object cannot be planned at all.
pub fn of_import(objects: &[Value], namespace: &str) -> Result<Ours, String> {
    of_cluster(&imagined(objects, namespace))
}

/// Tables of the directors of a cluster, once it has come to rest.
///
/// # Errors
/// When an object cannot be planned at all.
pub fn of_cluster(cluster: &Cluster) -> Result<Ours, String> {
    let rehearsal = rehearse(cluster.inputs()?);
    if let Some(finding) = rehearsal.findings.first() {
        return Err(format!(
            "the planner contradicts itself and the controller would write nothing: {finding}"
        ));
    }
    let mut ours = Ours {
        problems: problems(&rehearsal.resolution.report),
        ..Ours::default()
    };
    if !rehearsal.is_settled {
        ours.problems.push(
            "the objects do not come to rest within the steps that were looked at".to_owned(),
        );
    }
    let inputs = &rehearsal.inputs;
    ours.problems.extend(missing_directors(inputs));
    let agents = agents(cluster);
    for node in directors(inputs) {
        let under_plans = NodeUnderPlans::settled(inputs, inputs, &node);
        if !under_plans.desired.services.is_empty() {
            ours.problems
                .extend(without_agent(&node, agents.get(&node)));
        }
        for (key, state) in under_plans.desired.services {
            ours.services.entry(key).or_insert(state);
        }
    }
    ours.owners = owners(inputs);
    Ok(ours)
}

/// Directors that routers name and the cluster does not have.
fn missing_directors(inputs: &Inputs) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, router) in &inputs.virtual_routers {
        let directors = router.spec().into_iter().flat_map(|spec| &spec.directors);
        let named = directors.filter_map(|director| director.node_name.as_ref());
        let missing = named.filter(|node| !inputs.nodes.contains_key(*node));
        problems.extend(missing.map(|node| {
            format!("VirtualRouter {name}: director {node}: the cluster has no node of this name")
        }));
    }
    problems
}

/// Agents' pods, by node; of two of a node, as during an update, the one that runs.
fn agents(cluster: &Cluster) -> BTreeMap<String, Agent> {
    let pods = cluster.of(Kind::Pod);
    let agents = pods
        .filter(|(key, _)| key.namespace == cluster.operator_namespace)
        .filter_map(|(_, pod)| Agent::of_pod(pod));
    let mut by_node: BTreeMap<String, Agent> = BTreeMap::new();
    for agent in agents {
        let known = by_node.get(&agent.node);
        if known.is_none_or(|known| known.phase != RUNNING) {
            by_node.insert(agent.node.clone(), agent);
        }
    }
    by_node
}

/// Why a director would hold nothing at all, where its agent does not run.
fn without_agent(node: &str, agent: Option<&Agent>) -> Option<String> {
    match agent {
        None => Some(format!(
            "director {node}: no agent's pod is on it, and nobody else would hold what is shown as ours"
        )),
        Some(agent) if agent.phase != RUNNING => Some(format!(
            "director {node}: its agent's pod {} is {}, and nobody else would hold what is shown as ours",
            agent.pod, agent.phase
        )),
        Some(_) => None,
    }
}

/// Nodes that have services, those first that hold a router's addresses.
fn directors(inputs: &Inputs) -> Vec<String> {
    let holders = inputs.leases.values();
    let holders = holders.filter_map(|lease| lease.holder_node.clone());
    let plans = inputs.node_plans.values();
    let specs = plans.filter_map(|plan| plan.object.spec());
    let planned = specs.map(|spec| spec.node_name.clone());
    let mut known = BTreeSet::new();
    let all = holders.chain(planned);
    all.filter(|node| known.insert(node.clone())).collect()
}

fn owners(inputs: &Inputs) -> BTreeMap<ServiceKey, String> {
    let mut owners = BTreeMap::new();
    let plans = inputs.node_plans.values();
    for spec in plans.filter_map(|plan| plan.object.spec()) {
        let source = &spec.source;
        if source.kind != SourceKind::VirtualService {
            continue;
        }
        for planned in spec.director.iter().flat_map(|director| &director.services) {
            let Some(key) = service_key(planned) else {
                continue;
            };
            for offset in 0..=last_offset(planned) {
                let name = format!("{}/{}", source.namespace, source.name);
                owners.insert(key.at_offset(offset), name);
            }
        }
    }
    owners
}

/// A cluster with nothing but the objects, the directors that they name, and what else they need: an administrator who
/// permits everything, and a default router where they name none.
fn imagined(objects: &[Value], namespace: &str) -> Cluster {
    let mut cluster = Cluster::default();
    let operator_namespace = cluster.operator_namespace.clone();
    for name in [namespace, &operator_namespace] {
        cluster.put(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        }));
    }
    let of_kind = |kind: &'static str| objects.iter().filter(move |one| one["kind"] == kind);
    let mut nodes: BTreeSet<&str> = of_kind("VirtualRouter")
        .flat_map(|router| router["spec"]["directors"].as_array().into_iter().flatten())
        .filter_map(|director| director["nodeName"].as_str())
        .collect();
    if nodes.is_empty() {
        nodes.insert(DIRECTOR);
    }
    let taken: BTreeSet<String> = objects.iter().flat_map(texts).collect();
    let mut spare = (u32::from(FIRST_DIRECTOR_ADDRESS)..)
        .map(Ipv4Addr::from)
        .map(|address| address.to_string())
        .filter(|address| !taken.contains(address));
    for node in nodes {
        cluster.put(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "uid": node},
            "status": {"addresses": [{"type": "InternalIP", "address": spare.next()}]},
        }));
        cluster.put(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("agent-{node}"), "namespace": operator_namespace},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": RUNNING},
        }));
    }
    let without_router: Vec<&Value> = of_kind("VirtualService")
        .filter(|service| service["spec"]["virtualRouterName"].is_null())
        .collect();
    let default_router = (!without_router.is_empty()).then(|| default_router(&without_router));
    for (index, object) in objects.iter().chain(&default_router).enumerate() {
        let mut object = object.clone();
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("imported-{index}"));
        metadata["generation"] = json!(1);
        // Whoever stands first in the files is the older one.
        let (minutes, seconds) = (index / 60, index % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        metadata["creationTimestamp"] = json!(format!(
            "2000-01-{:02}T{:02}:{minutes:02}:{seconds:02}Z",
            1 + (hours / 24) % 28,
            hours % 24
        ));
        cluster.put(object);
    }
    cluster
}

/// The default router that the report of an import requires.
fn default_router(services: &[&Value]) -> Value {
    let addresses: BTreeSet<&str> = services
        .iter()
        .flat_map(|service| {
            service["spec"]["addresses"]
                .as_array()
                .into_iter()
                .flatten()
        })
        .filter_map(Value::as_str)
        .collect();
    let mut pools = vec![json!({"name": "spare", "addresses": SPARE_ADDRESSES})];
    if !addresses.is_empty() {
        pools.push(json!({"name": "imported", "addresses": addresses, "assignment": "Explicit"}));
    }
    let names: Vec<Value> = pools.iter().map(|pool| pool["name"].clone()).collect();
    json!({
        "apiVersion": "lvs.dev/v1alpha1",
        "kind": "VirtualRouter",
        "metadata": {"name": "default", "annotations": {IS_DEFAULT_ROUTER_ANNOTATION: "true"}},
        "spec": {
            "addressPools": pools,
            "grants": [{
                "namespaces": {"from": "All"},
                "addressPoolNames": names,
                "realServerCIDRs": ["0.0.0.0/0", "::/0"],
            }],
        },
    })
}

/// Every address in an object, wherever it stands.
fn texts(object: &Value) -> Vec<String> {
    match object {
        Value::String(text) => {
            let address = text.split('/').next().unwrap_or_default();
            let address: Option<IpAddr> = address.parse().ok();
            address
                .map(|address| address.to_string())
                .into_iter()
                .collect()
        }
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
