//! A cluster as its API server lists it: raw objects by kind, to be read as what planning looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease as ApiLease;
use lvs_crds::mark_range::mark_range;
use lvs_crds::node_plan::NodePlanSpec;
use lvs_plan::Inputs;
use lvs_plan::dns_name::{DnsName, LastAnswer, Records};
use lvs_plan::endpoint::{EndpointSlice, SERVICE_NAME_LABEL};
use lvs_plan::input::{Lease, Node, ObjectKey, decode, decode_plan};
use lvs_plan::reading;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::chart;

/// Kinds that planning looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// lvs.dev.
    VirtualService,
    /// lvs.dev.
    RealServer,
    /// lvs.dev.
    VirtualRouter,
    /// lvs.dev; those of the operator's namespace.
    NodePlan,
    /// Nodes.
    Node,
    /// Namespaces.
    Namespace,
    /// Endpoints of Services.
    EndpointSlice,
    /// ConfigMaps that are labelled as having certificate authorities.
    ConfigMap,
    /// Leases of the operator's namespace.
    Lease,
    /// Networks of Services.
    ServiceCidr,
    /// Pods of agents.
    Pod,
}

impl Kind {
    /// The kind of an object, by group and kind.
    pub fn of(object: &Value) -> Option<Self> {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        Some(match (group, object["kind"].as_str()?) {
            ("lvs.dev", "VirtualService") => Self::VirtualService,
            ("lvs.dev", "RealServer") => Self::RealServer,
            ("lvs.dev", "VirtualRouter") => Self::VirtualRouter,
            ("lvs.dev", "NodePlan") => Self::NodePlan,
            ("", "Node") => Self::Node,
            ("", "Namespace") => Self::Namespace,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            ("", "ConfigMap") => Self::ConfigMap,
            ("coordination.k8s.io", "Lease") => Self::Lease,
            ("networking.k8s.io", "ServiceCIDR") => Self::ServiceCidr,
            ("", "Pod") => Self::Pod,
            _ => return None,
        })
    }

    /// Whether people apply objects of it and planning follows: plans, Leases and pods are for others to write.
    pub const fn is_of_users(self) -> bool {
        !matches!(self, Self::NodePlan | Self::Lease | Self::Pod)
    }
}

/// Namespace and name of an object.
pub fn key(object: &Value) -> ObjectKey {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    ObjectKey::new(part("namespace"), part("name"))
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    objects: BTreeMap<Kind, BTreeMap<ObjectKey, Value>>,
    /// Namespace of the operator.
    pub operator_namespace: String,
    /// Marks that the controller may allocate.
    pub firewall_mark_range: RangeInclusive<u32>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            operator_namespace: chart::DEFAULT_NAMESPACE.to_owned(),
            firewall_mark_range: Inputs::default().firewall_mark_range,
        }
    }
}

impl Cluster {
    /// Takes over what the controller's Deployment says: its namespace, and its arguments.
    ///
    /// # Errors
    /// When its range of marks is none.
    pub fn learn_settings(&mut self, deployment: &Value) -> Result<(), String> {
        self.operator_namespace = key(deployment).namespace;
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
        let containers = containers.into_iter().flatten();
        let arguments = containers.flat_map(|one| one["args"].as_array().into_iter().flatten());
        let range = arguments
            .filter_map(Value::as_str)
            .find_map(|argument| argument.strip_prefix("--firewall-mark-range="));
        if let Some(range) = range {
            self.firewall_mark_range = mark_range(range)
                .map_err(|error| format!("the controller's --firewall-mark-range: {error}"))?;
        }
        Ok(())
    }

    /// Puts an object in, in the place of one of its kind and name, which it gives. Of kinds that planning does not look at
    /// nothing is kept.
    pub fn put(&mut self, object: Value) -> Option<Value> {
        let kind = Kind::of(&object)?;
        let of_kind = self.objects.entry(kind).or_default();
        of_kind.insert(key(&object), object)
    }

    /// An object.
    pub fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(&kind)?.get(key)
    }

    /// Takes an object out, and with a Namespace all that is in it.
    pub fn remove(&mut self, object: &Value) -> Option<Value> {
        let (kind, key) = (Kind::of(object)?, key(object));
        if kind == Kind::Namespace {
            for (kind, of_kind) in &mut self.objects {
                if kind.is_of_users() {
                    of_kind.retain(|other, _| other.namespace != key.name);
                }
            }
        }
        self.objects.get_mut(&kind)?.remove(&key)
    }

    /// Objects of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    /// What the controller would plan from, the answers of the DNS excepted: of these it knows what the plans hold.
    ///
    /// # Errors
    /// When an object is not what its kind has to be.
    pub fn inputs(&self) -> Result<Inputs, String> {
        let mut inputs = Inputs {
            firewall_mark_range: self.firewall_mark_range.clone(),
            operator_namespace: self.operator_namespace.clone(),
            ..Inputs::default()
        };
        for (key, object) in self.of(Kind::VirtualService) {
            let object =
                decode(object).map_err(|error| format!("VirtualService {key}: {error}"))?;
            inputs
                .virtual_services
                .insert(key.clone(), Arc::new(object));
        }
        for (key, object) in self.of(Kind::RealServer) {
            let object = decode(object).map_err(|error| format!("RealServer {key}: {error}"))?;
            inputs.real_servers.insert(key.clone(), Arc::new(object));
        }
        for (key, object) in self.of(Kind::VirtualRouter) {
            let object = decode(object).map_err(|error| format!("VirtualRouter {key}: {error}"))?;
            inputs
                .virtual_routers
                .insert(key.name.clone(), Arc::new(object));
        }
        for (key, object) in self.of_operator(Kind::NodePlan) {
            let plan = decode_plan(object).map_err(|error| format!("NodePlan {key}: {error}"))?;
            inputs.node_plans.insert(key.name.clone(), Arc::new(plan));
        }
        self.read_nodes(&mut inputs)?;
        for (key, object) in self.of(Kind::Namespace) {
            let labels = texts(&object["metadata"]["labels"]);
            inputs.namespaces.insert(key.name.clone(), labels);
        }
        if let Some(operator) = self.get(
            Kind::Namespace,
            &ObjectKey::new("", self.operator_namespace.clone()),
        ) {
            let annotations = texts(&operator["metadata"]["annotations"]);
            inputs.confirmed_removals = reading::confirmed_removals(&annotations);
        }
        self.read_slices(&mut inputs)?;
        for (key, object) in self.of(Kind::ConfigMap) {
            let bundle = reading::certificate_authorities(&read("ConfigMap", key, object)?);
            inputs.ca_bundles.insert(key.clone(), Arc::new(bundle));
        }
        for (key, object) in self.of_operator(Kind::Lease) {
            let lease: ApiLease = read("Lease", key, object)?;
            if reading::is_of_router(&lease) {
                // Whether its holder lives, only who watches it can say.
                let lease = Lease::from_api(&lease, true);
                inputs.leases.insert(key.name.clone(), lease);
            }
        }
        let ranges = self.of(Kind::ServiceCidr);
        inputs.service_cidrs = ranges
            .flat_map(|(_, object)| reading::service_ranges(object))
            .collect();
        inputs.service_cidrs.sort();
        inputs.dns_names = planned_names(&inputs);
        Ok(inputs)
    }

    fn of_operator(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        let of_kind = self.of(kind);
        of_kind.filter(|(key, _)| key.namespace == self.operator_namespace)
    }

    fn read_nodes(&self, inputs: &mut Inputs) -> Result<(), String> {
        let mut with_agent: BTreeSet<String> = BTreeSet::new();
        for (key, object) in self.of_operator(Kind::Pod) {
            let pod = read("Pod", key, object)?;
            with_agent.extend(reading::agent_node(&pod).map(str::to_owned));
        }
        let plans = inputs.node_plans.values().map(AsRef::as_ref);
        with_agent.extend(reading::planned_agents(plans).map(str::to_owned));
        for (key, object) in self.of(Kind::Node) {
            let node = read("Node", key, object)?;
            let has_agent = with_agent.contains(&key.name);
            let node = Node::from_api(&node, has_agent);
            inputs.nodes.insert(key.name.clone(), node);
        }
        Ok(())
    }

    fn read_slices(&self, inputs: &mut Inputs) -> Result<(), String> {
        let real_servers = inputs.real_servers.iter();
        let named =
            reading::target_services(real_servers.map(|(key, object)| (key, object.as_ref())));
        let mut slices = BTreeMap::new();
        for (key, object) in self.of(Kind::EndpointSlice) {
            let service = object["metadata"]["labels"][SERVICE_NAME_LABEL].as_str();
            let service = service.unwrap_or_default();
            if named.contains(&(key.namespace.as_str(), service)) {
                slices.insert(key.clone(), Arc::new(EndpointSlice::read(object)));
            }
            if key.namespace == reading::API_SERVICE_NAMESPACE
                && service == reading::API_SERVICE_NAME
            {
                let addresses = reading::api_addresses(&read("EndpointSlice", key, object)?);
                inputs.api_endpoints.extend(addresses);
            }
        }
        inputs.endpoint_slices = slices;
        Ok(())
    }
}

/// What the plans hold of names that RealServers have as targets: the controller's last answers.
fn planned_names(inputs: &Inputs) -> BTreeMap<String, Arc<DnsName>> {
    let mut names: BTreeMap<String, DnsName> = BTreeMap::new();
    let specs = inputs.node_plans.values();
    let specs: Vec<&NodePlanSpec> = specs.filter_map(|plan| plan.object.spec()).collect();
    for (key, object) in &inputs.real_servers {
        let target = object.spec().and_then(|spec| spec.target.dns_name.as_ref());
        let Some(target) = target else { continue };
        let of_namespace = specs
            .iter()
            .filter(|spec| spec.source.namespace == key.namespace);
        let services = of_namespace.flat_map(|spec| {
            let director = spec.director.iter();
            director.flat_map(|director| &director.services)
        });
        let planned = services.flat_map(|service| &service.real_servers);
        for real_server in planned.filter(|one| one.name == key.name) {
            let name = names.entry(target.name.clone()).or_default();
            let records = if real_server.address.is_ipv4() {
                &mut name.ipv4
            } else {
                &mut name.ipv6
            };
            let Records {
                addresses,
                last_answer,
                ..
            } = records;
            addresses
                .get_or_insert_default()
                .insert(real_server.address);
            *last_answer = LastAnswer::Addresses;
        }
    }
    let names = names.into_iter();
    names.map(|(name, known)| (name, Arc::new(known))).collect()
}

fn read<T: DeserializeOwned>(kind: &str, key: &ObjectKey, object: &Value) -> Result<T, String> {
    T::deserialize(object).map_err(|error| format!("{kind} {key}: {error}"))
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
