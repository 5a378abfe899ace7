//! The interfaces of a network plugin: made, addressed and removed by somebody else while ours work. Here the plugin that tier 1
//! uses too, `bridge` of the CNI project.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Lab, Story, Sysctls};
use crate::await_condition::until;
use crate::lab::LIMIT;
use crate::stories::{NAMESPACE, Undo, clean};
use crate::traffic;

const URL: &str = "http://172.16.2.200/";
/// On both: the pod network of the plugin's configuration.
const GATEWAY: &str = "10.244.9.1";
const POD: &str = "foreign-pod";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "coexistence_network_plugin",
        tells: "a network plugin makes and removes bridge, veth and addresses on a real server and a director: pods and services both work, nothing of either is taken away",
        run: network_plugin,
    }]
}

/// A call of the plugin as a container runtime makes it; its result.
fn call(lab: &Lab, host: &str, command: &str) -> Result<Value> {
    let output = lab.guest.on(
        host,
        &format!(
            "CNI_COMMAND={command} CNI_CONTAINERID={host} CNI_NETNS=/run/netns/{POD}-{host} CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni \
             /usr/lib/cni/bridge <<'T'\n\
             {{\"cniVersion\": \"1.0.0\", \"name\": \"pods-{host}\", \"type\": \"bridge\", \"bridge\": \"cni0\", \"isGateway\": true, \"ipMasq\": true,\n\
             \"ipam\": {{\"type\": \"host-local\", \"dataDir\": \"/run/cni\", \"ranges\": [[{{\"subnet\": \"10.244.9.0/24\"}}]], \"routes\": [{{\"dst\": \"0.0.0.0/0\"}}]}}}}\nT"
        ),
    )?;
    Ok(if output.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&output)?
    })
}

/// What the plugin made on a host: addresses of its bridge, ports of it.
fn made(lab: &Lab, host: &str) -> Result<String> {
    lab.guest.on(
        host,
        "ip -o address show dev cni0 | grep -w inet; ip -o link show master cni0 | cut -d: -f2",
    )
}

/// The pod reaches its gateway and, masqueraded, a host outside.
fn pod_works(lab: &Lab, host: &str) -> Result<()> {
    let pod = format!("{POD}-{host}");
    lab.guest.on(
        &pod,
        &format!("ip neigh flush all; ping -c 1 -W 5 {GATEWAY} >/dev/null"),
    )?;
    let answer = traffic::get(&lab.guest, &pod, "http://192.168.2.31/")?;
    ensure!(answer == "plain-1", "the pod of {host}: {answer}");
    Ok(())
}

fn network_plugin(lab: &Lab) -> Result<()> {
    const REAL_SERVER: &str = "web-1";
    const DIRECTOR: &str = "lb-a";
    const HOSTS: [&str; 2] = [REAL_SERVER, DIRECTOR];
    let apply = || -> Result<()> {
        lab.cluster
            .apply_example(NAMESPACE, "direct-routing.yaml")?;
        lab.await_serving(NAMESPACE, "web").map(drop)
    };
    let balanced = |when: &str| -> Result<()> {
        let spread = traffic::spread(&lab.guest, "client", URL, 6)?;
        ensure!(
            spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
            "{when}: {spread:?}"
        );
        Ok(())
    };
    let counts = || -> Result<Vec<f64>> {
        let count = |node: &&str| lab.agent_metric(node, "lvs_agent_drift_repaired_total");
        HOSTS.iter().map(count).collect()
    };
    apply()?;
    let repaired = counts()?;
    // The plugin switches forwarding on.
    let _sysctls: Vec<Sysctls<'_>> = HOSTS
        .iter()
        .map(|host| Sysctls::keep(lab, host))
        .collect::<Result<_>>()?;
    let mut undo = Vec::new();
    for host in HOSTS {
        undo.push(Undo {
            lab,
            script: format!(
                "ip netns delete {POD}-{host}; ip -n {host} link delete cni0; rm -rf /run/cni/pods-{host}\n\
                 ip netns exec {host} nft delete table ip nat"
            ),
        });
        lab.guest.run(&format!(
            "ip netns add {POD}-{host} && ip -n {POD}-{host} link set lo up"
        ))?;
        let result = call(lab, host, "ADD")?;
        ensure!(
            result["ips"][0]["address"] == "10.244.9.2/24",
            "the plugin on {host} says {result}"
        );
        pod_works(lab, host)?;
    }
    balanced("with pods")?;
    let plugins: Vec<String> = HOSTS
        .iter()
        .map(|host| made(lab, host))
        .collect::<Result<_>>()?;

    // An address that the plugin has is not ours to take.
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: pods}}
spec:
  directors: [{{nodeName: {DIRECTOR}}}]
  addressPools: [{{name: pods, addresses: [{GATEWAY}]}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [pods], realServerNodes: All}}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: gateway}}
spec:
  virtualRouterName: pods
  addresses: [{GATEWAY}]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  realServerSelector: {{matchLabels: {{app: web}}}}
"
        ),
    )?;
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "gateway"];
    let message = lab.await_reason(&words, "Programmed", "ForeignObject")?;
    ensure!(message.contains(GATEWAY), "it names no address: {message}");

    // What is ours goes, with what it set on the plugin's devices, and nothing else.
    clean(lab)?;
    let quiet = || {
        lab.guest.on(
            REAL_SERVER,
            "cat /proc/sys/net/ipv4/conf/{cni0,veth*}/arp_ignore",
        )
    };
    until(LIMIT, "the plugin's devices answer ARP as they did", || {
        let values = quiet()?;
        Ok(if values.split_whitespace().all(|value| value == "0") {
            Ok(())
        } else {
            Err(values)
        })
    })?;
    for (host, plugin) in HOSTS.iter().zip(&plugins) {
        let now = made(lab, host)?;
        ensure!(now == *plugin, "{host} had {plugin}, has {now}");
        pod_works(lab, host)?;
    }
    apply()?;
    for host in HOSTS {
        call(lab, host, "DEL")?;
        lab.guest.run(&format!("ip -n {host} link delete cni0"))?;
    }
    balanced("after the pods")?;
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
    lab.await_condition(&words, "Programmed", "True", "Programmed")?;
    ensure!(
        counts()? == repaired,
        "repaired {:?}, before {repaired:?}",
        counts()?
    );
    Ok(())
}
