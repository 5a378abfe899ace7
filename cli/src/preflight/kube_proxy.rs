//! Judges kube-proxy, by its mode. Pure.

use std::collections::BTreeSet;

use lvs_plan::address_range::AddressRange;
use serde_json::Value;

use super::judge::{named_directors, pools, unknown};
use super::look::{KubeProxy, Seen};
use super::{Finding, Level};

const SUBJECT: &str = "kube-proxy";
/// First version of Kubernetes in which kube-proxy has no mode ipvs by default.
const IPVS_MODE_GOES: &str = "off by default from Kubernetes 1.40, gone in 1.43";
/// VirtualServices that are named.
const SERVICES_NAMED: usize = 3;

/// All findings of it.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let proxy = match &seen.kube_proxy {
        Err(error) => return vec![unknown(SUBJECT, error)],
        Ok(None) => {
            return vec![Finding::new(
                Level::Note,
                SUBJECT,
                "has no ConfigMap kube-system/kube-proxy",
                "in its mode ipvs it would remove the services of this operator",
                "see that what stands in its place has no IPVS of its own",
            )];
        }
        Ok(Some(proxy)) => proxy,
    };
    match proxy.mode.as_str() {
        "ipvs" => {
            let routers = seen.routers.as_deref().unwrap_or_default();
            let mut findings = vec![ipvs_mode(proxy, routers)];
            findings.extend(strict_arp(proxy));
            findings
        }
        "" => vec![iptables_mode("the default, iptables", proxy, seen)],
        "iptables" => vec![iptables_mode("iptables", proxy, seen)],
        mode => vec![Finding::ok(SUBJECT, format!("mode {mode}"))],
    }
}

/// In mode iptables answers of real servers by NAT are dropped (`pkg/proxy/iptables`, the rule `ctstate INVALID` of chain
/// KUBE-FORWARD): IPVS keeps its packets out of conntrack, for which an answer without a question is invalid.
fn iptables_mode(mode: &str, proxy: &KubeProxy, seen: &Seen) -> Finding {
    let good = |why: &str| Finding::ok(SUBJECT, format!("mode {mode}{why}"));
    if proxy.is_tcp_liberal {
        return good(" with conntrack.tcpBeLiberal");
    }
    if has_conntrack_at_directors(seen) {
        return good("; at the directors IPVS keeps its connections in conntrack");
    }
    let services = seen.services.as_deref().unwrap_or_default();
    let concerned: Vec<String> = services.iter().filter_map(dropped).collect();
    let (level, whose) = match &concerned[..] {
        [] if services.is_empty() => (Level::Note, String::new()),
        [] => return good(""),
        all => {
            let (first, rest) = all.split_at(all.len().min(SERVICES_NAMED));
            let hidden = match rest.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let whose = format!(
                ", and VirtualServices have NAT: {}{hidden}",
                first.join(", ")
            );
            (Level::Problem, whose)
        }
    };
    Finding::new(
        level,
        SUBJECT,
        format!("mode {mode}, without conntrack.tcpBeLiberal{whose}"),
        "it drops the answers of real servers to clients with NAT over TCP and SCTP: they are invalid for conntrack, as IPVS keeps its \
         packets out of it",
        "set conntrack.tcpBeLiberal: true in ConfigMap kube-system/kube-proxy and restart kube-proxy, or net.ipv4.vs.conntrack=1 at \
         every director",
    )
}

/// Namespace and name of a VirtualService whose answers come back by the director, over a protocol of whose connections
/// conntrack wants to see the begin.
fn dropped(service: &Value) -> Option<String> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let has_connections = ports.into_iter().any(|port| port["protocol"] != "UDP");
    let is_nat = service["spec"]["forwarding"]["type"] == "NAT";
    let [namespace, name] = ["namespace", "name"].map(|key| &service["metadata"][key]);
    (is_nat && has_connections).then(|| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text(namespace), text(name))
    })
}

/// Whether the agent of every node that may be a director says so.
fn has_conntrack_at_directors(seen: &Seen) -> bool {
    let routers = seen.routers.as_deref().unwrap_or_default();
    let agents = seen.agents.as_deref().unwrap_or_default();
    let named: Option<Vec<BTreeSet<&str>>> = routers.iter().map(named_directors).collect();
    let is_director = |node: &str| {
        named
            .as_ref()
            .is_none_or(|sets| sets.iter().any(|set| set.contains(node)))
    };
    let mut directors = agents
        .iter()
        .filter(|agent| is_director(&agent.node_name))
        .peekable();
    directors.peek().is_some()
        && directors.all(|agent| {
            let facts = agent.facts.as_ref().ok();
            let value = facts.and_then(|facts| facts.sysctls.get("net/ipv4/vs/conntrack"));
            value.is_some_and(|value| value != "0")
        })
}

fn strict_arp(proxy: &KubeProxy) -> Option<Finding> {
    (!proxy.strict_arp).then(|| {
        Finding::new(
            Level::Warning,
            SUBJECT,
            "strictARP is false in mode ipvs",
            "every node answers ARP for every external address of a Service, so that such an address cannot be this operator's",
            "set ipvs.strictARP: true in ConfigMap kube-system/kube-proxy and restart kube-proxy",
        )
    })
}

fn ipvs_mode(proxy: &KubeProxy, routers: &[Value]) -> Finding {
    let excluded: Vec<AddressRange> = proxy
        .exclude_cidrs
        .iter()
        .filter_map(|text| AddressRange::parse(text).ok())
        .collect();
    let pools = pools(routers);
    let open: Vec<&str> = pools
        .iter()
        .filter(|(_, range)| !excluded.iter().any(|network| network.includes(range)))
        .map(|(text, _)| text.as_str())
        .collect();
    let why = "in every pass kube-proxy deletes IPVS services whose address it does not know and which is not in ipvs.excludeCIDRs";
    let other =
        format!("or better choose mode nftables or iptables: mode ipvs is {IPVS_MODE_GOES}");
    if !open.is_empty() {
        return Finding::new(
            Level::Problem,
            SUBJECT,
            format!(
                "mode ipvs, and addresses of pools are not excluded: {}",
                open.join(", ")
            ),
            why,
            format!(
                "add them to ipvs.excludeCIDRs in ConfigMap kube-system/kube-proxy and restart kube-proxy, {other}"
            ),
        );
    }
    if pools.is_empty() && excluded.is_empty() {
        return Finding::new(
            Level::Problem,
            SUBJECT,
            "mode ipvs, and nothing is excluded",
            why,
            format!(
                "add the networks of your virtual addresses to ipvs.excludeCIDRs in ConfigMap kube-system/kube-proxy and restart \
                 kube-proxy, {other}"
            ),
        );
    }
    Finding::new(
        Level::Warning,
        SUBJECT,
        "mode ipvs; the addresses of the pools are excluded",
        "it shares IPVS and its sysctls with this operator, and kube-proxy --cleanup flushes the services of both",
        format!("see that all its pods have that configuration, {other}"),
    )
}
