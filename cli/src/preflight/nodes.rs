//! Judges nodes: what the API server knows of them, and what their agents say. Pure.

use std::collections::BTreeSet;

use lvs_core::facts::NodeFacts;
use lvs_core::interference::KUBE_PROXY_DEVICE;
use serde_json::Value;

use super::judge::{major_and_minor, unknown};
use super::look::Seen;
use super::{Finding, Level};

/// Releases of Linux from which on something is there, and what is to be said before.
const KERNELS: [((u32, u32), Level, &str, &str); 3] = [
    (
        (4, 18),
        Level::Problem,
        "IPVS has no scheduler mh before Linux 4.18, and nothing older was ever tried",
        "upgrade the node's kernel",
    ),
    (
        (5, 3),
        Level::Warning,
        "IPVS has tunnels with GUE from Linux 5.2 and with GRE from 5.3 on",
        "upgrade the node's kernel, or use DR, NAT, or TUN with IPIP",
    ),
    (
        (5, 18),
        Level::Note,
        "addresses carry the mark of who made them from Linux 5.18 on; before, only the agent's journal tells its own from others'",
        "nothing has to be done; do not remove /run/lvs-operator while the agent runs",
    ),
];

/// Modules that VirtualServices need: the module, and which they are.
fn needed(services: &[Value]) -> BTreeSet<(&'static str, &'static str)> {
    let mut needed = BTreeSet::new();
    for service in services {
        let spec = &service["spec"];
        let forwarding = &spec["forwarding"];
        if spec["grouping"] == "FirewallMark" {
            needed.insert(("nf_tables", "grouping FirewallMark"));
        }
        match forwarding["type"].as_str() {
            Some("FullNAT") => {
                needed.insert(("nf_tables", "FullNAT"));
            }
            Some("TUN") => match forwarding["tunnel"]["type"].as_str() {
                Some("GUE") => {
                    needed.insert(("fou", "TUN with GUE"));
                }
                Some("GRE") => {
                    needed.insert(("ip_gre", "TUN with GRE"));
                }
                _ => {
                    needed.insert(("ipip", "TUN with IPIP"));
                }
            },
            _ => {}
        }
    }
    needed
}

/// All findings of nodes.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &seen.nodes {
        Err(error) => findings.push(unknown("nodes", error)),
        Ok(nodes) => findings.extend(nodes.iter().map(kernel)),
    }
    let needed = needed(seen.services.as_deref().unwrap_or_default());
    for agent in seen.agents.as_deref().unwrap_or_default() {
        let subject = format!("node {}", agent.node_name);
        match &agent.facts {
            Ok(facts) => findings.extend(judge_facts(&subject, facts, &needed)),
            Err(error) => findings.push(Finding::new(
                Level::Note,
                subject,
                format!("its agent could not be asked: {error}"),
                "modules and sysctls of the node are not known",
                "ask as somebody who may create pods/exec in the operator's namespace",
            )),
        }
    }
    if seen.agents.as_ref().is_ok_and(Vec::is_empty) {
        findings.push(Finding::new(
            Level::Note,
            "agents",
            format!("none is in namespace {}", seen.operator_namespace),
            "modules, sysctls and devices of the nodes are known once agents run",
            "after the installation run this again",
        ));
    }
    findings
}

fn kernel(node: &Value) -> Finding {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let subject = format!("node {name}");
    let info = &node["status"]["nodeInfo"];
    let release = info["kernelVersion"].as_str().unwrap_or_default();
    if info["operatingSystem"]
        .as_str()
        .is_some_and(|system| !system.is_empty() && system != "linux")
    {
        return Finding::ok(subject, "no Linux, and therefore nothing of this operator");
    }
    let Some(version) = major_and_minor(release) else {
        return Finding::new(
            Level::Warning,
            subject,
            format!("kernel {release:?} is of no known form"),
            "whether it is new enough is not known",
            "see that it is Linux 5.18 or later",
        );
    };
    let found = KERNELS.iter().find(|(from, ..)| version < *from);
    match found {
        Some((_, level, why, cure)) => {
            Finding::new(*level, subject, format!("kernel {release}"), *why, *cure)
        }
        None => Finding::ok(subject, format!("kernel {release}")),
    }
}

fn judge_facts(
    subject: &str,
    facts: &NodeFacts,
    needed: &BTreeSet<(&'static str, &'static str)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |level, what: String, why: &str, cure: String| {
        findings.push(Finding::new(level, subject, what, why, cure));
    };
    if facts.devices.contains(KUBE_PROXY_DEVICE) {
        add(
            Level::Problem,
            format!("has the device {KUBE_PROXY_DEVICE}"),
            "kube-proxy runs here in mode ipvs, or did: then it deletes IPVS services that it does not know, unless their addresses are \
             in ipvs.excludeCIDRs",
            "choose another mode and remove what is left with kube-proxy --cleanup, or exclude the networks of the pools".to_owned(),
        );
    }
    for (module, user) in needed {
        if !facts.modules.contains(*module) {
            add(
                Level::Warning,
                format!("module {module} is not loaded"),
                &format!(
                    "VirtualServices need it for {user}; the kernel loads it by itself where it is installed, the agent may not"
                ),
                format!(
                    "echo {module} >>/etc/modules-load.d/lvs-operator.conf && modprobe {module}"
                ),
            );
        }
    }
    let sysctl = |key: &str| facts.sysctls.get(key).map(String::as_str);
    if sysctl("net/ipv4/conf/all/rp_filter") == Some("1") {
        add(
            Level::Warning,
            "net.ipv4.conf.all.rp_filter is 1, strict".to_owned(),
            "packets that come by another device than the way back leads are dropped; the agent loosens it only on devices of its own",
            "sysctl -w net.ipv4.conf.all.rp_filter=2".to_owned(),
        );
    }
    if sysctl("net/ipv6/conf/all/disable_ipv6") == Some("1") {
        add(
            Level::Note,
            "IPv6 is disabled".to_owned(),
            "virtual addresses of IPv6 cannot be held here",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 where they are wanted".to_owned(),
        );
    }
    for problem in &facts.problems {
        add(
            Level::Note,
            problem.clone(),
            "part of what the node is like is not known",
            "see the rights of the agent's pod".to_owned(),
        );
    }
    let loaded = if facts.modules.contains("ip_vs") {
        "IPVS is loaded"
    } else {
        "IPVS is not loaded; it is with the first service"
    };
    let forwards = match sysctl("net/ipv4/ip_forward") {
        Some("1") => "forwards",
        _ => "does not forward (the agent switches it on for NAT)",
    };
    findings.push(Finding::ok(
        subject,
        format!("agent {}: {loaded}; {forwards}", facts.agent_version),
    ));
    findings
}
