//! S1: what its article could not do with NAT: a director that is a real server too, and a real server that connects to
//! the address itself.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::lab::Lab;
use crate::traffic::{self, Spread};

const ADDRESS: &str = "172.16.2.247";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S1_director_and_real_servers_as_clients",
        tells: "NAT: the director is a real server too; a real server connects to the address and is balanced to the others",
        run: limits,
    }]
}

fn limits(lab: &Lab) -> Result<()> {
    let process = lab.guest.on(
        "lb-a",
        "mkdir -p /run/colocated && echo lb-a >/run/colocated/index.html
         setsid busybox httpd -f -p 8081 -h /run/colocated >/dev/null 2>&1 </dev/null &
         echo $!
         for attempt in $(seq 100); do ss -Hltn 'sport = :8081' | grep -q . && exit 0; sleep 0.05; done
         exit 1",
    )?;
    let told = balanced(lab);
    lab.guest
        .run(&format!("kill {}; rm -rf /run/colocated", process.trim()))?;
    told
}

fn balanced(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: article}}
spec:
  directors: [{{nodeName: lb-a}}]
  addressPools: [{{name: article, addresses: [{ADDRESS}]}}]
  additionalAddresses: [{{address: 192.168.2.247}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [article], realServerNodes: All}}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: article}}
spec:
  virtualRouterName: article
  addresses: [{ADDRESS}]
  ports: [{{port: 80}}]
  forwarding: {{type: NAT}}
  scheduler: {{name: rr}}
  realServerSelector: {{matchLabels: {{app: article}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: lb-a, labels: {{app: article}}}}
spec: {{target: {{type: Node, node: {{name: lb-a}}}}, port: 8081}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-1, labels: {{app: article}}}}
spec: {{target: {{type: Node, node: {{name: web-1}}}}, port: 8080}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-2, labels: {{app: article}}}}
spec: {{target: {{type: Node, node: {{name: web-2}}}}, port: 8080}}
"
        ),
    )?;
    lab.await_serving(NAMESPACE, "article")?;
    let url = format!("http://{ADDRESS}/");
    let all: Spread = [("lb-a".into(), 2), ("web-1".into(), 2), ("web-2".into(), 2)].into();
    let spread = traffic::spread(&lab.guest, "client", &url, 6)?;
    ensure!(spread == all, "from the client: {spread:?}");
    // Its own turn is not among them: what it answers to itself does not come back through the director (docs/nodes.md).
    let spread = traffic::spread(&lab.guest, "web-1", &url, 6)?;
    let answered = |name: &str| spread.get(name) == Some(&2);
    ensure!(
        answered("lb-a") && answered("web-2"),
        "from web-1, a real server: {spread:?}"
    );
    Ok(())
}
