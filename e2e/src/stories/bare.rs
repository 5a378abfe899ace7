//! A kernel that lacks what some services need: they say so, the others go on.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::lab::Lab;
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "kernel_without_ipv6_and_tunnels",
        tells: "what needs IPv6 or a tunnel says that the kernel has none; IPv4 is balanced all the same",
        run: bare,
    }]
}

fn bare(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.cluster.apply_text(
        NAMESPACE,
        r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: six}
spec:
  addresses: ["fd00:2::216"]
  ports: [{port: 80}]
  forwarding: {type: DR}
  realServerSelector: {matchLabels: {app: six}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: six, labels: {app: six}}
spec: {target: {type: Node, node: {name: web-2, addresses: ["fd00:192::22"]}}}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: tunnelled}
spec:
  addresses: [172.16.2.216]
  ports: [{port: 80}]
  forwarding: {type: TUN, tunnel: {type: IPIP}}
  realServerSelector: {matchLabels: {app: tunnelled}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: tunnelled, labels: {app: tunnelled}}
spec: {target: {type: Node, node: {name: web-3}}}
"#,
    )?;
    for (name, reason, word) in [
        ("six", "IPv6Unavailable", "IPv6"),
        ("tunnelled", "KernelModuleMissing", "ipip"),
    ] {
        let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", name];
        let message = lab.await_reason(&words, "Programmed", reason)?;
        ensure!(
            message.contains(word),
            "{name}: the message does not name {word}: {message}"
        );
    }
    lab.await_serving(NAMESPACE, "web")?;
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 6)?;
    ensure!(
        spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
        "the others: {spread:?}"
    );
    Ok(())
}
