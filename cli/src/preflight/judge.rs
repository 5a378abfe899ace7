//! Judges what was seen of a cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lvs_plan::address_range::AddressRange;
use lvs_plan::input::EXCLUDE_LABEL;
use serde_json::Value;

use super::look::Seen;
use super::{Finding, Level};
use super::{external_address, kube_proxy, nodes};

/// Oldest minor version of Kubernetes 1.
const KUBERNETES_MINOR_MINIMUM: u32 = 32;
/// Label of a Namespace that says what pods may do.
const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Everything that was looked at.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![version(seen), namespace(seen)];
    findings.extend(kube_proxy::judge(seen));
    findings.extend(external_address::judge(seen));
    findings.extend(cilium(seen));
    findings.extend(calico(seen));
    findings.extend(definitions(seen));
    findings.extend(directors(seen));
    findings.extend(nodes::judge(seen));
    findings
}

/// What could not be looked at.
pub(super) fn unknown(subject: &str, error: &str) -> Finding {
    Finding::new(
        Level::Warning,
        subject,
        format!("cannot be looked at: {error}"),
        "what it says is not known",
        "ask as somebody who may read it, or look by other means",
    )
}

/// Major and minor of a version, as v1.33.1 or 6.1.0-40-amd64.
pub(super) fn major_and_minor(text: &str) -> Option<(u32, u32)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts = text.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn version(seen: &Seen) -> Finding {
    let subject = "Kubernetes";
    let text = match &seen.server_version {
        Ok(text) => text,
        Err(error) => return unknown(subject, error),
    };
    match major_and_minor(text) {
        Some((major, minor)) if (major, minor) >= (1, KUBERNETES_MINOR_MINIMUM) => {
            Finding::ok(subject, text)
        }
        _ => Finding::new(
            Level::Problem,
            subject,
            format!("version {text}"),
            "agents select their plans by field, and what they may write is bound to their node: both came with 1.32",
            format!("upgrade to Kubernetes 1.{KUBERNETES_MINOR_MINIMUM} or later"),
        ),
    }
}

fn namespace(seen: &Seen) -> Finding {
    let name = &seen.operator_namespace;
    let subject = format!("namespace {name}");
    let label = match &seen.namespace {
        Err(error) => return unknown(&subject, error),
        Ok(None) => None,
        Ok(Some(namespace)) => namespace["metadata"]["labels"][ENFORCE_LABEL].as_str(),
    };
    let cure = format!("kubectl label namespace {name} --overwrite {ENFORCE_LABEL}=privileged");
    let why = "agents use the host's network and folders, which only the level privileged permits";
    match label {
        Some("privileged") => Finding::ok(subject, "Pod Security admits the agents"),
        Some(level) => Finding::new(
            Level::Problem,
            subject,
            format!("Pod Security enforces {level}"),
            why,
            cure,
        ),
        None => {
            let exists = matches!(&seen.namespace, Ok(Some(_)));
            let cure = if exists {
                cure
            } else {
                format!("kubectl create namespace {name} && {cure}")
            };
            let what = if exists {
                "has no label of Pod Security"
            } else {
                "does not exist yet"
            };
            let why = format!("where the API server enforces a level by default, {why}");
            Finding::new(Level::Note, subject, what, why, cure)
        }
    }
}

/// Ranges of all pools.
pub(super) fn pools(routers: &[Value]) -> Vec<(String, AddressRange)> {
    let mut ranges = Vec::new();
    for router in routers {
        let pools = router["spec"]["addressPools"].as_array();
        for pool in pools.into_iter().flatten() {
            let entries = pool["addresses"].as_array().into_iter().flatten();
            for text in entries.filter_map(Value::as_str) {
                let range = AddressRange::parse(text);
                ranges.extend(range.ok().map(|range| (text.to_owned(), range)));
            }
        }
    }
    ranges
}

fn cilium(seen: &Seen) -> Vec<Finding> {
    let data = match &seen.cilium {
        Err(error) => return vec![unknown("Cilium", error)],
        Ok(None) => return Vec::new(),
        Ok(Some(data)) => data,
    };
    let is = |key: &str, values: &[&str]| {
        let value = data.get(key).map(String::as_str);
        value.is_some_and(|value| values.contains(&value))
    };
    let mut findings = Vec::new();
    if is(
        "kube-proxy-replacement",
        &["true", "strict", "partial", "probe"],
    ) {
        findings.push(Finding::new(
            Level::Warning,
            "Cilium",
            "takes the place of kube-proxy in BPF",
            "an address that is an external address of a Service too is balanced by BPF before IPVS sees the packet, and pods that \
             connect to it get the Service by the socket load balancer",
            "give the pools of VirtualRouters addresses that no Service and no pool of Cilium's LoadBalancer IPAM has",
        ));
    }
    if is("enable-l2-announcements", &["true"]) {
        findings.push(Finding::new(
            Level::Warning,
            "Cilium",
            "announces addresses of Services by ARP",
            "an address that both have is answered for by two nodes",
            "keep its CiliumLoadBalancerIPPools apart from the pools of VirtualRouters",
        ));
    }
    if is("enable-host-legacy-routing", &["false"]) {
        findings.push(Finding::new(
            Level::Warning,
            "Cilium",
            "routes packets of pods by BPF, past the host's stack",
            "policy rules, nftables and IPVS of a node do not see what pods of it send: replies of pods that are real servers with NAT \
             do not find their director by them",
            "use DR, TUN or FullNAT for real servers that are pods, or set enable-host-legacy-routing: \"true\"",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("Cilium", "without kube-proxy replacement"));
    }
    findings
}

/// Whether any VirtualService has tunnels of this type.
fn has_tunnels(services: &[Value], wanted: &str) -> bool {
    services.iter().any(|service| {
        let forwarding = &service["spec"]["forwarding"];
        let type_ = forwarding["tunnel"]["type"].as_str().unwrap_or("IPIP");
        forwarding["type"] == "TUN" && type_ == wanted
    })
}

fn calico(seen: &Seen) -> Vec<Finding> {
    let (pools, felix) = match (&seen.calico_pools, &seen.felix) {
        (Err(error), _) | (_, Err(error)) => return vec![unknown("Calico", error)],
        (Ok(pools), Ok(felix)) => (pools, felix),
    };
    let mut findings = Vec::new();
    let with_ipip: Vec<&str> = pools
        .iter()
        .filter(|pool| {
            matches!(
                pool["spec"]["ipipMode"].as_str(),
                Some("Always" | "CrossSubnet")
            )
        })
        .filter_map(|pool| pool["metadata"]["name"].as_str())
        .collect();
    if !with_ipip.is_empty() {
        let services = seen.services.as_deref().unwrap_or_default();
        let level = if has_tunnels(services, "IPIP") {
            Level::Warning
        } else {
            Level::Note
        };
        findings.push(Finding::new(
            level,
            "Calico",
            format!("carries pods' packets by IPIP (IPPool {})", with_ipip.join(", ")),
            "its rules drop IPIP that does not come from an address that it knows as a node's, and the device tunl0 is its own",
            "use DR, or TUN with GUE or GRE; with IPIP see that directors and real servers are reached by the addresses that Calico has of them",
        ));
    }
    let in_bpf = felix.iter().any(|one| one["spec"]["bpfEnabled"] == true);
    if in_bpf {
        findings.push(Finding::new(
            Level::Warning,
            "Calico",
            "takes the place of kube-proxy in BPF",
            "an address that is an external address of a Service too is balanced by BPF before IPVS sees the packet",
            "give the pools of VirtualRouters addresses that no Service has",
        ));
    }
    if findings.is_empty() && !(pools.is_empty() && felix.is_empty()) {
        findings.push(Finding::ok("Calico", "without IPIP and BPF"));
    }
    findings
}

fn definitions(seen: &Seen) -> Vec<Finding> {
    let names = match &seen.definitions {
        Err(error) => return vec![unknown("CustomResourceDefinitions", error)],
        Ok(names) => names,
    };
    let mut findings = Vec::new();
    let own = [
        "virtualservices",
        "realservers",
        "virtualrouters",
        "nodeplans",
    ];
    let missing: Vec<&str> = own
        .into_iter()
        .filter(|plural| {
            !names
                .iter()
                .any(|name| *name == format!("{plural}.lvs.dev"))
        })
        .collect();
    if missing.is_empty() {
        findings.push(Finding::ok(
            "CustomResourceDefinitions",
            "all of lvs.dev are there",
        ));
    } else if missing.len() == own.len() {
        findings.push(Finding::new(
            Level::Note,
            "CustomResourceDefinitions",
            "none of lvs.dev is there",
            "the operator is not installed yet",
            "helm install brings them",
        ));
    } else {
        findings.push(Finding::new(
            Level::Problem,
            "CustomResourceDefinitions",
            format!("{} of lvs.dev are missing", missing.join(", ")),
            "the operator does nothing before it has listed every kind",
            "apply the chart's folder crds: helm upgrade does not",
        ));
    }
    let others: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("virtualservices.") && *name != "virtualservices.lvs.dev")
        .collect();
    if !others.is_empty() {
        findings.push(Finding::new(
            Level::Note,
            "CustomResourceDefinitions",
            format!("{} has the same short name", others.join(", ")),
            "kubectl get virtualservices may mean the other kind",
            "write virtualservices.lvs.dev, or lvsvs",
        ));
    }
    findings
}

/// Nodes that a router's directors name; `None` where it takes any node.
pub(super) fn named_directors(router: &Value) -> Option<BTreeSet<&str>> {
    let directors = router["spec"]["directors"].as_array()?;
    let named = directors.iter().filter_map(|one| one["nodeName"].as_str());
    (!directors.is_empty()).then(|| named.collect())
}

fn directors(seen: &Seen) -> Vec<Finding> {
    let (routers, nodes, agents) = match (&seen.routers, &seen.nodes, &seen.agents) {
        (Err(error), _, _) => return vec![unknown("VirtualRouters", error)],
        (_, Err(error), _) => return vec![unknown("nodes", error)],
        (_, _, Err(error)) => return vec![unknown("agents", error)],
        (Ok(routers), Ok(nodes), Ok(agents)) => (routers, nodes, agents),
    };
    let labels: BTreeMap<&str, &Value> = nodes
        .iter()
        .filter_map(|node| {
            Some((
                node["metadata"]["name"].as_str()?,
                &node["metadata"]["labels"],
            ))
        })
        .collect();
    let ready: BTreeMap<&str, bool> = agents
        .iter()
        .map(|agent| (agent.node_name.as_str(), agent.is_ready))
        .collect();
    let mut findings = Vec::new();
    let mut takes_any = false;
    for router in routers {
        let name = router["metadata"]["name"].as_str().unwrap_or_default();
        let subject = format!("VirtualRouter {name}");
        let named = named_directors(router);
        takes_any |= named.is_none();
        for node in named.into_iter().flatten() {
            findings.push(match (labels.get(node), ready.get(node)) {
                (None, _) => Finding::new(
                    Level::Problem,
                    &subject,
                    format!("director {node} is no node of this cluster"),
                    "one director less can take the addresses over",
                    "correct spec.directors, or add the node",
                ),
                (Some(_), None) => Finding::new(
                    Level::Problem,
                    &subject,
                    format!("director {node} has no agent"),
                    "it cannot hold the addresses",
                    "see the chart's value agent.nodeSelector, and the DaemonSet lvs-operator-agent",
                ),
                (Some(_), Some(false)) => Finding::new(
                    Level::Warning,
                    &subject,
                    format!("the agent of director {node} is not ready"),
                    "not everything that was planned for it is in its kernel",
                    "kubectl describe its pod, and kubectl get lvsnp --all-namespaces",
                ),
                (Some(_), Some(true)) => {
                    Finding::ok(&subject, format!("director {node} has an agent"))
                }
            });
        }
    }
    let excluded: Vec<&str> = labels
        .iter()
        .filter(|(_, labels)| labels.get(EXCLUDE_LABEL).is_some())
        .map(|(name, _)| *name)
        .collect();
    if !excluded.is_empty() {
        let level = if takes_any && excluded.len() == labels.len() {
            Level::Problem
        } else {
            Level::Note
        };
        findings.push(Finding::new(
            level,
            "nodes",
            format!("{} have the label {EXCLUDE_LABEL}", excluded.join(", ")),
            "a VirtualRouter without spec.directors does not take them as directors",
            "name them in spec.directors where they are meant to direct, or remove the label",
        ));
    }
    findings
}
