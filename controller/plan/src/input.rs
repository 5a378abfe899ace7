//! The cluster as a plain value.
//!
//! An object that cannot be decoded stays visible as [`Body::Undecodable`]: unknown is not none.
//! The same holds one level up: whoever makes an [`Inputs`] must have seen a complete list of
//! every kind first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease as ApiLease;
use k8s_openapi::api::core::v1::Node as ApiNode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use lvs_crds::tracking::NodeConditionStatus;
use lvs_crds::{
    NodePlanSpec, NodePlanStatus, RealServerSpec, RealServerStatus, VirtualRouterSpec,
    VirtualRouterStatus, VirtualServiceSpec, VirtualServiceStatus,
};
use serde::de::DeserializeOwned;

use crate::address_range::{AddressRange, parse_address};
use crate::ca_bundle::CaBundle;
use crate::dns_name::DnsName;
use crate::endpoint::EndpointSlice;
use crate::report;

/// Label that keeps a node out of routers without `directors`.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Annotation of the operator's namespace: tokens of confirmed removals, separated by commas.
pub const CONFIRM_REMOVAL_ANNOTATION: &str = "lvs.dev/confirm-removal";

/// Everything that planning looks at.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Marks the controller may allocate.
    pub firewall_mark_range: RangeInclusive<u32>,
    /// Tokens of removals that the administrator confirmed.
    pub confirmed_removals: BTreeSet<String>,
    /// Name of the operator's namespace, for messages.
    pub operator_namespace: String,
    /// Every VirtualService.
    pub virtual_services: BTreeMap<ObjectKey, Arc<VirtualServiceObject>>,
    /// Every RealServer.
    pub real_servers: BTreeMap<ObjectKey, Arc<RealServerObject>>,
    /// ConfigMaps with certificate authorities.
    pub ca_bundles: BTreeMap<ObjectKey, Arc<CaBundle>>,
    /// EndpointSlices of every Service that a RealServer names; of others they may be missing.
    pub endpoint_slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
    /// What is known of names that RealServers have as targets; of one that is missing nothing.
    pub dns_names: BTreeMap<String, Arc<DnsName>>,
    /// Every VirtualRouter by name.
    pub virtual_routers: BTreeMap<String, Arc<VirtualRouterObject>>,
    /// Every Node by name.
    pub nodes: BTreeMap<String, Node>,
    /// Labels of every Namespace by name.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// NodePlans stored now, by name: the memory of earlier decisions.
    pub node_plans: BTreeMap<String, Arc<ExistingPlan>>,
    /// Leases of routers by Lease name.
    pub leases: BTreeMap<String, Lease>,
    /// Networks of Services; no virtual address may lie in them.
    pub service_cidrs: Vec<AddressRange>,
    /// Addresses of the API servers; none may be a virtual address.
    pub api_endpoints: BTreeSet<IpAddr>,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            firewall_mark_range: 0x2000..=0x20ff,
            confirmed_removals: BTreeSet::new(),
            operator_namespace: "lvs-system".to_owned(),
            virtual_services: BTreeMap::new(),
            real_servers: BTreeMap::new(),
            ca_bundles: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
            dns_names: BTreeMap::new(),
            virtual_routers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            node_plans: BTreeMap::new(),
            leases: BTreeMap::new(),
            service_cidrs: Vec::new(),
            api_endpoints: BTreeSet::new(),
        }
    }
}

/// A VirtualService as read.
pub type VirtualServiceObject = Object<VirtualServiceSpec, VirtualServiceStatus>;
/// A RealServer as read.
pub type RealServerObject = Object<RealServerSpec, RealServerStatus>;
/// A VirtualRouter as read.
pub type VirtualRouterObject = Object<VirtualRouterSpec, VirtualRouterStatus>;

/// Namespace and name; the namespace of a cluster object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Key of a namespaced object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What identifies and dates an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Generation of spec.
    pub generation: i64,
    /// Creation, in seconds since 1970: only compared between objects, never with a clock.
    pub created_seconds: i64,
    /// Whether deletion was asked for and only finalizers keep the object.
    pub deleting: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Rank among claimants: the lower is the older and wins.
pub type Age<'a> = (i64, &'a ObjectKey);

impl Meta {
    /// Rank of the object: creation, then namespace and name.
    pub fn age(&self) -> Age<'_> {
        (self.created_seconds, &self.key)
    }
}

/// A spec that could be read, or why not.
#[derive(Clone, Debug, PartialEq)]
pub enum Body<Spec> {
    /// The spec.
    Decoded(Spec),
    /// This version does not understand the object; the text says where.
    Undecodable(String),
}

/// An object of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<Spec, Status> {
    /// Identity and age.
    pub meta: Meta,
    /// Spec.
    pub body: Body<Spec>,
    /// Status, if there is one that can be read.
    pub status: Option<Status>,
}

impl<Spec, Status> Object<Spec, Status> {
    /// The spec, if it could be read.
    pub fn spec(&self) -> Option<&Spec> {
        match &self.body {
            Body::Decoded(spec) => Some(spec),
            Body::Undecodable(_) => None,
        }
    }
}

/// A NodePlan as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct ExistingPlan {
    /// The object. Its labels say what an undecodable spec cannot.
    pub object: Object<NodePlanSpec, NodePlanStatus>,
    /// Version to write from.
    pub resource_version: String,
    /// UID of the Node that owns the plan.
    pub owner_uid: Option<String>,
}

impl ExistingPlan {
    /// Whether the agent's status speaks of the stored spec.
    pub fn is_acknowledged(&self) -> bool {
        let observed = self
            .object
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        observed.is_some_and(|observed| observed >= self.object.meta.generation)
    }

    /// Whether the agent says that its kernel holds the stored spec.
    pub fn is_programmed(&self) -> bool {
        let status = self.object.status.iter();
        let conditions = status.flat_map(|status| &status.conditions);
        self.is_acknowledged() && report::is_programmed(conditions)
    }
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Addresses of type InternalIP, in the Node's order.
    pub internal_addresses: Vec<IpAddr>,
    /// Every address of the Node.
    pub addresses: BTreeSet<IpAddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether an agent runs there, or did a moment ago.
    pub has_agent: bool,
    /// Whether people or an autoscaler are about to take the node away: `kubectl cordon` and `drain`, or a taint that says so.
    pub is_cordoned: bool,
    /// Status of each condition by type. When a condition was last reported and why is not kept: a kubelet says it again
    /// and again.
    pub conditions: BTreeMap<String, NodeConditionStatus>,
}

/// Taints of nodes that are about to go.
const LEAVING_TAINTS: [&str; 3] = [
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/out-of-service",
    "ToBeDeletedByClusterAutoscaler",
];

/// The Lease of a router.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    /// Name.
    pub name: String,
    /// Node part of the holder's identity; `None` when nobody holds it.
    pub holder_node: Option<String>,
    /// `leaseTransitions`.
    pub epoch: i64,
    /// `acquireTime`, only to be shown.
    pub acquired: Option<Time>,
    /// Whether the holder renewed within the Lease's duration, by local observation.
    pub is_alive: bool,
    /// Annotation with the nodes that may update it.
    pub directors: Option<String>,
    /// Label with the name of the router.
    pub virtual_router_name: Option<String>,
}

/// An object that lacks what every object has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading metadata of an object: {0}")]
pub struct MetadataError(String);

/// Reads an object; what is wrong in spec or status becomes [`Body::Undecodable`].
pub fn decode<Spec: DeserializeOwned, Status: DeserializeOwned>(
    value: &serde_json::Value,
) -> Result<Object<Spec, Status>, MetadataError> {
    let meta = decode_meta(value)?;
    let body = decode_part(value, "spec").map_or_else(Body::Undecodable, Body::Decoded);
    let status = match value.get("status") {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(_) => decode_part(value, "status").map(Some),
    };
    Ok(match status {
        Ok(status) => Object { meta, body, status },
        Err(error) => Object {
            meta,
            body: Body::Undecodable(error),
            status: None,
        },
    })
}

/// Reads a NodePlan. A status that cannot be read is no status: nothing counts as acknowledged.
pub fn decode_plan(value: &serde_json::Value) -> Result<ExistingPlan, MetadataError> {
    let metadata = api_metadata(value)?;
    Ok(ExistingPlan {
        object: Object {
            meta: decode_meta(value)?,
            body: decode_part(value, "spec").map_or_else(Body::Undecodable, Body::Decoded),
            status: decode_part(value, "status").ok(),
        },
        resource_version: metadata.resource_version.unwrap_or_default(),
        owner_uid: metadata
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.kind == "Node")
            .map(|o| o.uid.clone()),
    })
}

fn decode_part<T: DeserializeOwned>(value: &serde_json::Value, part: &str) -> Result<T, String> {
    let value = value
        .get(part)
        .ok_or_else(|| format!("{part} is missing"))?;
    T::deserialize(value).map_err(|error| format!("{part}: {error}"))
}

fn api_metadata(value: &serde_json::Value) -> Result<ObjectMeta, MetadataError> {
    let metadata = value
        .get("metadata")
        .ok_or_else(|| MetadataError("there is none".to_owned()))?;
    serde::Deserialize::deserialize(metadata)
        .map_err(|error: serde_json::Error| MetadataError(error.to_string()))
}

fn decode_meta(value: &serde_json::Value) -> Result<Meta, MetadataError> {
    let metadata = api_metadata(value)?;
    let name = metadata
        .name
        .ok_or_else(|| MetadataError("name is missing".to_owned()))?;
    Ok(Meta {
        uid: metadata
            .uid
            .ok_or_else(|| MetadataError(format!("uid of {name} is missing")))?,
        key: ObjectKey {
            namespace: metadata.namespace.unwrap_or_default(),
            name,
        },
        generation: metadata.generation.unwrap_or_default(),
        created_seconds: metadata
            .creation_timestamp
            .map_or(0, |Time(time)| time.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
    })
}

impl Node {
    /// From the API object and what is known of its agent.
    pub fn from_api(node: &ApiNode, has_agent: bool) -> Self {
        let listed = node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten());
        let addresses: Vec<_> = listed
            .filter_map(|a| Some((a.type_.as_str(), parse_address(&a.address)?)))
            .collect();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            internal_addresses: addresses
                .iter()
                .filter(|(t, _)| *t == "InternalIP")
                .map(|(_, a)| *a)
                .collect(),
            addresses: addresses.iter().map(|(_, address)| *address).collect(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            has_agent,
            is_cordoned: node.spec.as_ref().is_some_and(|spec| {
                let mut taints = spec.taints.iter().flatten();
                spec.unschedulable == Some(true)
                    || taints.any(|taint| LEAVING_TAINTS.contains(&taint.key.as_str()))
            }),
            conditions: node
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .map(|condition| {
                    let status = NodeConditionStatus::parse(&condition.status);
                    (condition.type_.clone(), status)
                })
                .collect(),
        }
    }

    /// Status of a condition; of one that the node does not have nothing is known.
    pub fn condition(&self, type_: &str) -> NodeConditionStatus {
        let status = self.conditions.get(type_).copied();
        status.unwrap_or(NodeConditionStatus::Unknown)
    }
}

impl Lease {
    /// From the API object and whether local observation says that it is renewed in time.
    pub fn from_api(lease: &ApiLease, is_alive: bool) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let label = |key: &str| {
            lease
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(key).cloned())
        };
        let annotation = |key: &str| {
            lease
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(key).cloned())
        };
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        Self {
            name: lease.metadata.name.clone().unwrap_or_default(),
            holder_node: holder
                .map(|holder| holder.split('/').next().unwrap_or_default().to_owned()),
            epoch: i64::from(spec.lease_transitions.unwrap_or_default()),
            acquired: spec.acquire_time.map(|time| Time(time.0)),
            is_alive,
            directors: annotation(lvs_crds::LEASE_DIRECTORS_ANNOTATION),
            virtual_router_name: label(lvs_crds::VIRTUAL_ROUTER_LABEL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_word_makes_the_body_undecodable_and_keeps_the_metadata() {
        let object: VirtualServiceObject = decode(&json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 3, "labels": {"a": "b"},
                         "creationTimestamp": "2026-01-01T00:00:01Z"},
            "spec": {"ports": [{"port": 80}], "forwarding": {"type": "DR"}, "scheduler": {"name": "quantum"},
                     "realServerSelector": {}},
        }))
        .unwrap();
        assert_eq!(object.meta.key.to_string(), "shop/web");
        assert_eq!(object.meta.created_seconds, 1_767_225_601);
        let Body::Undecodable(error) = object.body else {
            panic!("decoded")
        };
        assert!(error.contains("quantum"), "{error}");
    }

    #[test]
    fn a_plan_with_an_unreadable_status_is_not_acknowledged() {
        let plan = decode_plan(&json!({
            "metadata": {"name": "vr-1", "uid": "u", "generation": 1, "resourceVersion": "7",
                         "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid"}]},
            "spec": {"nodeName": "a", "state": "Active", "virtualRouterName": "edge",
                     "source": {"kind": "VirtualRouter", "name": "edge", "uid": "r", "generation": 1}},
            "status": {"observedGeneration": "one"},
        }))
        .unwrap();
        assert!(plan.object.spec().is_some());
        assert!(!plan.is_acknowledged());
        assert_eq!(plan.owner_uid.as_deref(), Some("node-uid"));
    }

    #[test]
    fn metadata_that_every_object_has_is_demanded() {
        assert!(decode_plan(&json!({"spec": {}})).is_err());
        assert!(decode_plan(&json!({"metadata": {"name": "x"}})).is_err());
    }
}
