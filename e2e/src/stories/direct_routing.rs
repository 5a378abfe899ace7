//! S3, S9: direct routing over IPv4.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::lab::Lab;
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S3_direct_routing",
        tells: "a DR service on cluster nodes: applied, prepared, balanced, weight edited live, restored",
        run: direct_routing,
    }]
}

fn service(weight: u32) -> String {
    format!(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  addresses: [172.16.2.200]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  scheduler: {{name: wrr}}
  realServerSelector: {{matchLabels: {{app: web}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-1, namespace: {NAMESPACE}, labels: {{app: web}}}}
spec: {{target: {{type: Node, node: {{name: web-1}}}}, weight: {weight}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-2, namespace: {NAMESPACE}, labels: {{app: web}}}}
spec: {{target: {{type: Node, node: {{name: web-2}}}}, weight: 1}}
"
    )
}

fn direct_routing(lab: &Lab) -> Result<()> {
    lab.cluster.apply(&service(2))?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    let rules = lab.ipvs_rules(&master)?;
    ensure!(
        rules
            == [
                "-A -t 172.16.2.200:80 -s wrr",
                "-a -t 172.16.2.200:80 -r 192.168.2.21:80 -g -w 2",
                "-a -t 172.16.2.200:80 -r 192.168.2.22:80 -g -w 1",
            ],
        "rules on {master}: {rules:#?}"
    );
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 30)?;
    ensure!(
        spread == [("web-1".into(), 20), ("web-2".into(), 10)].into(),
        "wrr 2:1 gave {spread:?}"
    );

    lab.cluster.apply(&service(0))?;
    crate::await_condition::until_equal(
        crate::lab::LIMIT,
        "weight 0 in the kernel",
        &true,
        || {
            Ok(lab
                .ipvs_rules(&master)?
                .iter()
                .any(|rule| rule.contains("192.168.2.21:80 -g -w 0")))
        },
    )?;
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 10)?;
    ensure!(
        spread == [("web-2".into(), 10)].into(),
        "weight 0 gave {spread:?}"
    );
    Ok(())
}
