//! S2: NAT with the way back prepared.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story, real_servers};
use crate::lab::Lab;
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "S2_nat",
            tells: "NAT, a port per real server; nodes keep their default route, an outside host uses the gateway address",
            run: nat,
        },
        Story {
            name: "S2_nat_ipv6",
            tells: "NAT over IPv6",
            run: nat_ipv6,
        },
    ]
}

fn nat(lab: &Lab) -> Result<()> {
    // The outside host is the administrator's: its gateway is set by hand, as in the article.
    lab.guest
        .on("plain-1", "ip route replace default via 192.168.2.250")?;
    let told = nat_told(lab);
    lab.guest.on(
        "plain-1",
        "ip route replace default via 192.168.2.254 dev in",
    )?;
    told
}

fn nat_told(lab: &Lab) -> Result<()> {
    let route_before = lab.guest.on("web-1", "ip route show default")?;
    lab.cluster.apply_example(NAMESPACE, "nat.yaml")?;
    let master = lab.await_serving(NAMESPACE, "shop")?;
    ensure!(
        master == "lb-a",
        "the only director is lb-a, master is {master}"
    );
    let rules = lab.ipvs_rules("lb-a")?;
    ensure!(
        rules
            == [
                "-A -t 172.16.2.250:80 -s wrr",
                "-a -t 172.16.2.250:80 -r 192.168.2.21:8080 -m -w 2",
                "-a -t 172.16.2.250:80 -r 192.168.2.22:80 -m -w 1",
                "-a -t 172.16.2.250:80 -r 192.168.2.31:82 -m -w 1",
            ],
        "rules: {rules:#?}"
    );
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.250/", 20)?;
    ensure!(
        spread
            == [
                ("web-1".into(), 10),
                ("web-2".into(), 5),
                ("plain-1".into(), 5)
            ]
            .into(),
        "wrr 2:1:1 gave {spread:?}"
    );
    let route = lab.guest.on("web-1", "ip route show default")?;
    ensure!(
        route == route_before,
        "the node's default route changed from {route_before} to {route}"
    );
    Ok(())
}

fn nat_ipv6(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &[
            r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: edge-six}
spec:
  directors: [{nodeName: lb-b}]
  addressPools: [{name: six, addresses: ["fd00:2::600"]}]
  additionalAddresses: [{address: "fd00:192::600"}]
  grants: [{namespaces: {from: All}, addressPoolNames: [six], realServerNodes: All}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: six}
spec:
  virtualRouterName: edge-six
  addresses: ["fd00:2::600"]
  ports: [{port: 80, realServerPort: 8080}]
  forwarding: {type: NAT}
  scheduler: {name: rr}
  realServerSelector: {}
"#,
            &real_servers(&["web-1", "web-2"]),
        ]
        .concat(),
    )?;
    let master = lab.await_serving(NAMESPACE, "six")?;
    ensure!(master == "lb-b", "master is {master}");
    let spread = traffic::spread(&lab.guest, "client", "http://[fd00:2::600]/", 10)?;
    ensure!(
        spread == [("web-1".into(), 5), ("web-2".into(), 5)].into(),
        "rr gave {spread:?}"
    );
    Ok(())
}
