//! A cluster without an API server: objects as JSON go in, plans are stored as the API server would
//! store them, agents acknowledge.

#![allow(dead_code, reason = "each test uses its part")]

pub mod four_nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use lvs_crds::node_plan::{NodePlanSpec, PlanState};
use lvs_plan::address_range::AddressRange;
use lvs_plan::ca_bundle::CaBundle;
use lvs_plan::endpoint::EndpointSlice;
use lvs_plan::input::{Inputs, Lease, Node, ObjectKey, decode, decode_plan};
use lvs_plan::resolution::Resolution;
use lvs_plan::{check, resolve};
use serde_json::{Value, json};

/// A cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// What planning sees.
    pub inputs: Inputs,
    /// NodePlans as stored.
    plans: BTreeMap<String, Value>,
    /// RealServers, by name or address, that fail their checks, and how.
    pub failing: BTreeMap<String, String>,
    /// RealServers with a certificate that is to be warned of, and when it expires.
    pub expiring: BTreeMap<String, String>,
    /// Real servers that have left and drain, as the agents of these nodes report them.
    pub leaving: BTreeMap<String, Vec<Value>>,
    clock: i64,
}

impl Cluster {
    /// With these objects, as YAML documents of the API. What the API server fills in is filled in: uid
    /// from kind and name, creation in the order of the documents, generation 1. Nodes have an agent
    /// unless labelled `agent: none`.
    pub fn from_yaml(text: &str) -> Self {
        let mut cluster = Self::default();
        for document in text
            .split("\n---\n")
            .filter(|document| !document.trim().is_empty())
        {
            let object: Value =
                serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{e}\n{document}"));
            cluster.apply(object);
        }
        cluster
    }

    /// Creates or replaces an object; a changed spec gets the next generation.
    pub fn apply(&mut self, mut object: Value) {
        self.clock += 1;
        let kind = object["kind"].as_str().unwrap().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if object["metadata"]["namespace"].is_null()
            && ["VirtualService", "RealServer", "EndpointSlice", "ConfigMap"]
                .contains(&kind.as_str())
        {
            object["metadata"]["namespace"] = json!("default");
        }
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata
            .entry("uid")
            .or_insert_with(|| json!(format!("{kind}-{namespace}-{name}")));
        metadata
            .entry("generation")
            .or_insert_with(|| json!(self.clock));
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| json!(timestamp(self.clock)));
        let key = ObjectKey::new(namespace, name.clone());
        match kind.as_str() {
            "VirtualService" => {
                self.namespace(&key.namespace);
                let mut object: lvs_plan::input::VirtualServiceObject = decode(&object).unwrap();
                if let Some(old) = self.inputs.virtual_services.get(&key) {
                    object.meta.created_seconds = old.meta.created_seconds;
                }
                self.inputs.virtual_services.insert(key, Arc::new(object));
            }
            "RealServer" => {
                self.namespace(&key.namespace);
                let mut object: lvs_plan::input::RealServerObject = decode(&object).unwrap();
                if let Some(old) = self.inputs.real_servers.get(&key) {
                    object.meta.created_seconds = old.meta.created_seconds;
                }
                self.inputs.real_servers.insert(key, Arc::new(object));
            }
            "EndpointSlice" => {
                let slice = EndpointSlice::read(&object);
                self.inputs.endpoint_slices.insert(key, Arc::new(slice));
            }
            "ConfigMap" => {
                let bundle = CaBundle::read(object["data"]["ca.crt"].as_str());
                self.inputs.ca_bundles.insert(key, Arc::new(bundle));
            }
            "VirtualRouter" => {
                let mut object: lvs_plan::input::VirtualRouterObject = decode(&object).unwrap();
                if let Some(old) = self.inputs.virtual_routers.get(&name) {
                    object.meta.created_seconds = old.meta.created_seconds;
                }
                self.inputs.virtual_routers.insert(name, Arc::new(object));
            }
            "Node" => {
                let node: k8s_openapi::api::core::v1::Node =
                    serde_json::from_value(object).unwrap();
                let has_agent = node
                    .metadata
                    .labels
                    .iter()
                    .flatten()
                    .all(|(key, _)| key != "agent");
                self.inputs
                    .nodes
                    .insert(name, Node::from_api(&node, has_agent));
            }
            "Namespace" => {
                let labels = object["metadata"]["labels"]
                    .as_object()
                    .into_iter()
                    .flatten();
                let labels =
                    labels.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()));
                self.inputs.namespaces.insert(name, labels.collect());
            }
            "Lease" => {
                let lease: k8s_openapi::api::coordination::v1::Lease =
                    serde_json::from_value(object).unwrap();
                self.inputs
                    .leases
                    .insert(name, Lease::from_api(&lease, true));
            }
            "NodePlan" => self.store(&name, object),
            "ServiceCIDR" => {
                for text in object["spec"]["cidrs"].as_array().unwrap() {
                    self.inputs
                        .service_cidrs
                        .push(AddressRange::parse(text.as_str().unwrap()).unwrap());
                }
            }
            "ApiServer" => {
                let address = object["spec"]["address"].as_str().unwrap();
                self.inputs.api_endpoints.insert(address.parse().unwrap());
            }
            other => panic!("no such kind: {other}"),
        }
    }

    fn namespace(&mut self, name: &str) {
        self.inputs.namespaces.entry(name.to_owned()).or_default();
    }

    fn store(&mut self, name: &str, object: Value) {
        self.inputs
            .node_plans
            .insert(name.to_owned(), Arc::new(decode_plan(&object).unwrap()));
        self.plans.insert(name.to_owned(), object);
    }

    /// One pass: resolves, checks, stores what is to be written.
    pub fn pass(&mut self) -> Resolution {
        let resolution = resolve(&self.inputs);
        let findings = check(&resolution);
        assert!(findings.is_empty(), "{findings:#?}");
        self.write(&resolution);
        resolution
    }

    /// Passes and acknowledgements until nothing changes.
    pub fn settle(&mut self) -> Resolution {
        for _ in 0..12 {
            self.acknowledge_all();
            let resolution = self.pass();
            if is_quiet(&resolution) {
                return resolution;
            }
        }
        panic!("it does not settle");
    }

    /// Stores what a resolution says.
    pub fn write(&mut self, resolution: &Resolution) {
        for (name, planned) in resolution
            .plans
            .iter()
            .filter(|(_, planned)| planned.is_changed)
        {
            self.clock += 1;
            let stored = self.plans.get(name);
            let spec = serde_json::to_value(&planned.spec).unwrap();
            let generation = stored.map_or(1, |stored| {
                let generation = stored["metadata"]["generation"].as_i64().unwrap();
                if stored["spec"] == spec {
                    generation
                } else {
                    generation + 1
                }
            });
            let status = stored.map_or(Value::Null, |stored| stored["status"].clone());
            let object = json!({
                "metadata": {
                    "name": name, "namespace": "lvs-system", "uid": format!("uid-{name}"), "generation": generation,
                    "resourceVersion": self.clock.to_string(),
                    "labels": {"lvs.dev/virtual-router": planned.spec.virtual_router_name},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": planned.spec.node_name,
                                         "uid": planned.owner_uid}],
                },
                "spec": spec,
                "status": status,
            });
            self.store(name, object);
        }
        for name in resolution.deletions.keys() {
            self.delete_plan(name);
        }
        for (name, planned) in &resolution.leases {
            let lease = self.inputs.leases.entry(name.clone()).or_default();
            lease.name.clone_from(name);
            lease.virtual_router_name = Some(planned.virtual_router_name.clone());
            lease.directors = Some(planned.directors.join(","));
        }
        for name in &resolution.lease_deletions {
            self.inputs.leases.remove(name);
        }
        for (key, report) in &resolution.report.virtual_services {
            let object = self.inputs.virtual_services.get_mut(key).unwrap();
            Arc::make_mut(object).status = Some(report.status.clone());
        }
    }

    fn delete_plan(&mut self, name: &str) {
        self.plans.remove(name);
        self.inputs.node_plans.remove(name);
    }

    /// Every agent acknowledges every plan.
    pub fn acknowledge_all(&mut self) {
        let nodes: Vec<String> = self.inputs.nodes.keys().cloned().collect();
        for node in nodes {
            self.acknowledge(&node);
        }
    }

    /// The agent of a node acknowledges every plan.
    pub fn acknowledge(&mut self, node: &str) {
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node) {
                let is_withdrawn = object["spec"]["state"] == json!("Withdrawn");
                let (status, reason) = if is_withdrawn {
                    ("False", "Withdrawn")
                } else {
                    ("True", "Programmed")
                };
                let planned = object["spec"]["director"]["addresses"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let held = !is_withdrawn
                    && self.is_holder(node, object["spec"]["virtualRouterName"].as_str().unwrap());
                let addresses: Vec<Value> = planned
                    .iter()
                    .filter(|_| !is_withdrawn)
                    .map(|a| json!({"address": a["address"], "state": if held { "Held" } else { "Released" }}))
                    .collect();
                let mut real_servers = self.checked(&object["spec"]["director"]);
                if object["spec"]["director"]["services"].is_array() {
                    real_servers.extend(self.leaving.get(node).cloned().unwrap_or_default());
                }
                object["status"] = json!({
                    "observedGeneration": object["metadata"]["generation"],
                    "conditions": [{"type": "Programmed", "status": status, "reason": reason, "message": "",
                                    "lastTransitionTime": timestamp(0)}],
                    "addresses": addresses,
                    "realServers": real_servers,
                });
                self.store(&name, object);
            }
        }
    }

    /// What a director says of real servers that it checks or that have a time to drain.
    fn checked(&self, director: &Value) -> Vec<Value> {
        let services = director["services"].as_array().into_iter().flatten();
        let checked = services.filter(|service| {
            service["checks"].is_array() || service["drainTimeoutSeconds"].is_number()
        });
        let mut seen: Vec<Value> = checked
            .flat_map(|service| {
                let real_servers = service["realServers"].as_array().into_iter().flatten();
                real_servers.map(|real_server| {
                    let name = real_server["name"].as_str().unwrap_or_default();
                    let address = real_server["address"].as_str().unwrap_or_default();
                    let failure = self.failing.get(name).or(self.failing.get(address));
                    let weight = &real_server["weight"];
                    let drains = real_server["administrativeState"] == json!("Draining");
                    let timeout = &service["drainTimeoutSeconds"];
                    let (state, effective_weight, message) = match failure {
                        Some(failure) => ("Down", json!(0), failure.clone()),
                        None if drains && timeout.is_number() => {
                            ("Draining", json!(0), format!("draining, at most {timeout} s"))
                        }
                        None if drains => ("Draining", json!(0), String::new()),
                        None if *weight == json!(0) => ("Disabled", json!(0), String::new()),
                        None if self.expiring.contains_key(name) => {
                            ("Up", weight.clone(), "certificate expires in 9 days".to_owned())
                        }
                        None => ("Up", weight.clone(), String::new()),
                    };
                    json!({"name": name, "certificateExpiryTime": self.expiring.get(name), "portName": service["portName"], "address": real_server["address"],
                           "port": real_server["port"], "state": state, "effectiveWeight": effective_weight,
                           "message": message})
                })
            })
            .collect();
        seen.dedup();
        seen
    }

    /// The agent of a node reports a failure of a plan of this source.
    pub fn fail(&mut self, node: &str, source: &str, reason: &str) {
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node)
                && object["spec"]["source"]["name"] == json!(source)
            {
                object["status"] = json!({
                    "observedGeneration": object["metadata"]["generation"],
                    "conditions": [{"type": "Programmed", "status": "False", "reason": reason, "message": "it says why",
                                    "lastTransitionTime": timestamp(0)}],
                });
                self.store(&name, object);
            }
        }
    }

    /// The agent of a node holds all that was asked, and says what makes it worth less as director.
    pub fn report_deductions(&mut self, node: &str, deductions: &Value, effective_priority: u8) {
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node)
                && object["spec"]["source"]["kind"] == json!("VirtualRouter")
            {
                object["status"]["deductions"] = deductions.clone();
                object["status"]["effectivePriority"] = json!(effective_priority);
                self.store(&name, object);
            }
        }
    }

    /// The agent of a node reports that it cannot hold the addresses of this source.
    pub fn report_unavailable(&mut self, node: &str, source: &str) {
        self.fail(node, source, "InterfaceNotFound");
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node)
                && object["spec"]["source"]["name"] == json!(source)
            {
                let planned = object["spec"]["director"]["addresses"].clone();
                let addresses = planned.as_array().into_iter().flatten();
                object["status"]["addresses"] = addresses
                    .map(|a| json!({"address": a["address"], "state": "Unavailable"}))
                    .collect();
                self.store(&name, object);
            }
        }
    }

    /// The agent of a node cannot follow the newest plan of this source; it says why and acknowledges the one before.
    pub fn stall(&mut self, node: &str, source: &str, status: &str, reason: &str) {
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node)
                && object["spec"]["source"]["name"] == json!(source)
            {
                let generation = object["metadata"]["generation"].as_i64().unwrap();
                object["status"] = json!({
                    "observedGeneration": generation - 1,
                    "conditions": [{"type": "Programmed", "status": status, "reason": reason, "message": "it says why",
                                    "observedGeneration": generation, "lastTransitionTime": timestamp(0)}],
                });
                self.store(&name, object);
            }
        }
    }

    /// Agents report the hashes of their tables, for every plan of a VirtualService.
    pub fn report_tables(&mut self, hashes: &[(&str, &str)]) {
        for (name, mut object) in self.plans.clone() {
            let node = object["spec"]["nodeName"].as_str().unwrap();
            let hash = hashes.iter().find(|(reporting, _)| *reporting == node);
            if let Some((_, hash)) = hash
                && object["spec"]["source"]["kind"] == json!("VirtualService")
            {
                object["status"]["tableHash"] = json!(hash);
                self.store(&name, object);
            }
        }
    }

    /// The agent of a node reports the addresses that it has on the interface for heartbeats of a router.
    pub fn report_heartbeat(
        &mut self,
        node: &str,
        router: &str,
        devices: &[&str],
        addresses: &[&str],
    ) {
        for (name, mut object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node)
                && object["spec"]["source"]["name"] == json!(router)
            {
                object["status"]["heartbeat"] = json!({"devices": devices, "addresses": addresses});
                self.store(&name, object);
            }
        }
    }

    fn is_holder(&self, node: &str, router: &str) -> bool {
        let lease = self.inputs.leases.get(&lvs_crds::lease_name(router));
        lease.is_some_and(|lease| lease.holder_node.as_deref() == Some(node))
    }

    /// A director takes the Lease.
    pub fn elect(&mut self, router: &str, node: &str) {
        let name = lvs_crds::lease_name(router);
        let lease = self.inputs.leases.entry(name.clone()).or_default();
        lease.name = name;
        lease.holder_node = Some(node.to_owned());
        lease.epoch += 1;
        lease.is_alive = true;
    }

    /// The Node object is gone, and its plans with it.
    pub fn remove_node(&mut self, node: &str) {
        self.inputs.nodes.remove(node);
        for (name, object) in self.plans.clone() {
            if object["spec"]["nodeName"] == json!(node) {
                self.delete_plan(&name);
            }
        }
    }

    /// Specs of stored plans by name.
    pub fn stored(&self) -> BTreeMap<String, NodePlanSpec> {
        let plans = self.inputs.node_plans.iter();
        plans
            .map(|(name, plan)| (name.clone(), plan.object.spec().unwrap().clone()))
            .collect()
    }

    /// The stored plan of a source on a node.
    pub fn plan(&self, node: &str, source: &str) -> Option<NodePlanSpec> {
        self.stored()
            .into_values()
            .find(|spec| spec.node_name == node && spec.source.name == source)
    }
}

/// Whether nothing is to be written.
pub fn is_quiet(resolution: &Resolution) -> bool {
    resolution.plans.values().all(|planned| !planned.is_changed)
        && resolution.deletions.is_empty()
        && resolution.leases.values().all(|lease| !lease.is_changed)
        && resolution.lease_deletions.is_empty()
}

/// Plans that are not withdrawn.
pub fn standing(specs: &BTreeMap<String, NodePlanSpec>) -> BTreeMap<&String, &NodePlanSpec> {
    specs
        .iter()
        .filter(|(_, spec)| spec.state != PlanState::Withdrawn)
        .collect()
}

fn timestamp(seconds: i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(seconds)
        .unwrap()
        .to_string()
}

/// A node.
pub fn node(name: &str, address: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name},
           "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
}
