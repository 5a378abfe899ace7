//! Judges external addresses of Services: whoever balances Services takes their packets before IPVS sees them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_plan::address_range::parse_address;
use serde_json::Value;

use super::judge::{pools, unknown};
use super::look::Seen;
use super::{Finding, Level};

/// One finding of each Service that has an address out of a pool of a VirtualRouter.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let services = match &seen.cluster_services {
        Err(error) => return vec![unknown("Services", error)],
        Ok(services) => services,
    };
    let pools = pools(seen.routers.as_deref().unwrap_or_default());
    let held = held(seen.services.as_deref().unwrap_or_default());
    let findings = services.iter().filter_map(|service| {
        let external = external(service);
        let pooled = external
            .into_iter()
            .filter(|address| pools.iter().any(|(_, range)| range.contains(address)));
        let (both, free): (Vec<IpAddr>, Vec<IpAddr>) =
            pooled.partition(|address| held.contains(address));
        let (level, whose, addresses) = if !both.is_empty() {
            (Level::Problem, "are those of VirtualServices, too", both)
        } else if !free.is_empty() {
            (Level::Warning, "lie in pools of VirtualRouters", free)
        } else {
            return None;
        };
        let [namespace, name] =
            ["namespace", "name"].map(|key| service["metadata"][key].as_str().unwrap_or_default());
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Some(Finding::new(
            level,
            format!("Service {namespace}/{name}"),
            format!("its external addresses {whose}: {}", addresses.join(", ")),
            "kube-proxy, or what stands in its place, takes packets to them on every node before IPVS sees them",
            "give the Service another address, or take this one out of spec.addressPools of the VirtualRouter",
        ))
    });
    findings.collect()
}

/// Addresses of VirtualServices, assigned or asked for.
fn held(services: &[Value]) -> BTreeSet<IpAddr> {
    let texts = services.iter().flat_map(|service| {
        let assigned = service["status"]["addresses"].as_array();
        let assigned = assigned.into_iter().flatten().map(|one| &one["address"]);
        let wanted = service["spec"]["addresses"].as_array();
        assigned.chain(wanted.into_iter().flatten())
    });
    texts
        .filter_map(Value::as_str)
        .filter_map(parse_address)
        .collect()
}

/// External addresses of a Service that are balanced on nodes.
fn external(service: &Value) -> BTreeSet<IpAddr> {
    let named = service["spec"]["externalIPs"].as_array();
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let ingress = ingress
        .into_iter()
        .flatten()
        // Packets to an address of mode Proxy go to the load balancer, from nodes too.
        .filter(|one| one["ipMode"] != "Proxy")
        .map(|one| &one["ip"]);
    let all = named.into_iter().flatten().chain(ingress);
    all.filter_map(Value::as_str)
        .filter_map(parse_address)
        .collect()
}
