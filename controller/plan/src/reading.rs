//! From objects as the API server has them to what planning looks at: one way for the controller, which watches them, and
//! for whoever lists them once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lvs_crds::VIRTUAL_ROUTER_LABEL;
use lvs_crds::node_plan::{PlanState, SourceKind};
use serde_json::Value;

use crate::address_range::{AddressRange, parse_address};
use crate::ca_bundle::{CA_BUNDLE_KEY, CaBundle};
use crate::input::{CONFIRM_REMOVAL_ANNOTATION, ExistingPlan, ObjectKey, RealServerObject};

/// Namespace of the Service of the API servers.
pub const API_SERVICE_NAMESPACE: &str = "default";
/// Name of the Service of the API servers.
pub const API_SERVICE_NAME: &str = "kubernetes";

/// The node that a pod of an agent is on; `None` while it has none, and when it has ended.
pub fn agent_node(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let node = pod.spec.as_ref()?.node_name.as_deref();
    node.filter(|_| !matches!(phase, Some("Failed" | "Succeeded")))
}

/// Nodes of which the plans say that an agent is there: what whoever has just begun to look believes.
pub fn planned_agents<'a>(
    plans: impl IntoIterator<Item = &'a ExistingPlan>,
) -> impl Iterator<Item = &'a str> {
    let specs = plans.into_iter().filter_map(|plan| plan.object.spec());
    let standing = specs.filter(|spec| {
        spec.source.kind == SourceKind::VirtualRouter && spec.state != PlanState::Withdrawn
    });
    standing.map(|spec| spec.node_name.as_str())
}

/// Addresses of a slice of the API servers' Service.
pub fn api_addresses(slice: &EndpointSlice) -> BTreeSet<IpAddr> {
    let endpoints = slice.endpoints.iter();
    let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
    addresses
        .filter_map(|address| parse_address(address))
        .collect()
}

/// Networks of a ServiceCIDR.
pub fn service_ranges(object: &Value) -> Vec<AddressRange> {
    let texts = object["spec"]["cidrs"].as_array();
    let texts = texts.into_iter().flatten().filter_map(Value::as_str);
    texts
        .filter_map(|text| AddressRange::parse(text).ok())
        .collect()
}

/// Certificate authorities of a ConfigMap that is labelled as having some.
pub fn certificate_authorities(map: &ConfigMap) -> CaBundle {
    let data = map.data.as_ref();
    CaBundle::read(
        data.and_then(|data| data.get(CA_BUNDLE_KEY))
            .map(String::as_str),
    )
}

/// Whether a Lease is that of a router.
pub fn is_of_router(lease: &Lease) -> bool {
    let labels = lease.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(VIRTUAL_ROUTER_LABEL))
}

/// Tokens of removals that are confirmed by annotations of the operator's namespace.
pub fn confirmed_removals(annotations: &BTreeMap<String, String>) -> BTreeSet<String> {
    let tokens = annotations.get(CONFIRM_REMOVAL_ANNOTATION).into_iter();
    let tokens = tokens.flat_map(|tokens| tokens.split(','));
    tokens.map(|token| token.trim().to_owned()).collect()
}

/// Namespaces and names of the Services that RealServers name as their targets.
pub fn target_services<'a>(
    real_servers: impl IntoIterator<Item = (&'a ObjectKey, &'a RealServerObject)>,
) -> BTreeSet<(&'a str, &'a str)> {
    let named = real_servers.into_iter().filter_map(|(key, object)| {
        let service = object.spec()?.target.service.as_ref()?;
        Some((key.namespace.as_str(), service.name.as_str()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "agent-1"}, "spec": {"nodeName": "lb-a", "containers": []},
                                      "status": {"phase": phase}}),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_that_has_ended_is_on_no_node() {
        assert_eq!(agent_node(&pod("Running")), Some("lb-a"));
        assert_eq!(agent_node(&pod("Pending")), Some("lb-a"));
        assert_eq!(agent_node(&pod("Failed")), None);
        assert_eq!(agent_node(&pod("Succeeded")), None);
    }

    #[test]
    fn confirmations_are_separated_by_commas() {
        let annotation =
            |text: &str| BTreeMap::from([(CONFIRM_REMOVAL_ANNOTATION.to_owned(), text.to_owned())]);
        assert_eq!(
            confirmed_removals(&annotation("a, b")),
            BTreeSet::from(["a".to_owned(), "b".to_owned()])
        );
        assert!(confirmed_removals(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_network_that_cannot_be_read_is_left_out() {
        let object = json!({"spec": {"cidrs": ["10.96.0.0/12", "nonsense"]}});
        assert_eq!(
            service_ranges(&object),
            [AddressRange::parse("10.96.0.0/12").unwrap()]
        );
    }
}
