//! Somebody else claims a virtual address.

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic;

const ADDRESS: &str = "172.16.2.200";
const URL: &str = "http://172.16.2.200/";
const ADDRESS_IPV6: &str = "fd00:2::200";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "foreign_claim",
            tells: "another host on the segment claims the virtual address: ConflictDetected, announced against, cleared when it stops",
            run: ipv4,
        },
        Story {
            name: "foreign_claim_ipv6",
            tells: "the same over IPv6, by neighbour advertisements",
            run: ipv6,
        },
    ]
}

/// Unsolicited neighbour advertisements from a device, one a second: what a host sends whose administrator gave it an
/// address that is taken.
const ADVERTISE: &str = r#"
import socket, sys, time
device, target = sys.argv[1], socket.inet_pton(socket.AF_INET6, sys.argv[2])
hardware = bytes.fromhex(open(f"/sys/class/net/{device}/address").read().strip().replace(":", ""))
index = socket.if_nametoindex(device)
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
while True:
    sender.sendto(bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + target + bytes([2, 1]) + hardware, ("ff02::1", 0, 0, index))
    time.sleep(1)
"#;

/// A host of the segment that has the address too and says so until it is dropped.
struct Claimant<'a> {
    lab: &'a Lab,
    process: String,
    address: String,
}

impl<'a> Claimant<'a> {
    const HOST: &'static str = "router";

    fn start(lab: &'a Lab, address: &str) -> Result<Self> {
        let (length, claim) = if address.contains(':') {
            let script = quote(ADVERTISE);
            (128, format!("python3 -c {script} out {address}"))
        } else {
            (32, format!("arping -U -I out {address}"))
        };
        let address = format!("{address}/{length}");
        lab.guest.on(
            Self::HOST,
            &format!("ip address add {address} dev out nodad"),
        )?;
        let process = lab.guest.on(
            Self::HOST,
            &format!("setsid {claim} >/run/claim.log 2>&1 </dev/null & echo $!"),
        )?;
        Ok(Self {
            lab,
            process: process.trim().to_owned(),
            address,
        })
    }
}

impl Drop for Claimant<'_> {
    fn drop(&mut self) {
        let end = format!(
            "kill -KILL {}; ip address del {} dev out",
            self.process, self.address
        );
        let _ = self.lab.guest.try_on(Self::HOST, &end);
    }
}

fn ipv4(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    told_and_cleared(lab, "web", ADDRESS)?;
    let spread = traffic::spread(&lab.guest, "client", URL, 3)?;
    ensure!(
        !spread.keys().any(|answer| answer.starts_with("failed")),
        "when the claimant is gone: {spread:?}"
    );
    Ok(())
}

fn ipv6(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: six}}
spec:
  addresses: ["{ADDRESS_IPV6}"]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  realServerSelector: {{}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-1}}
spec: {{target: {{type: Node, node: {{name: web-1}}}}}}
"#
        ),
    )?;
    told_and_cleared(lab, "six", ADDRESS_IPV6)
}

fn told_and_cleared(lab: &Lab, name: &str, address: &str) -> Result<()> {
    lab.await_serving(NAMESPACE, name)?;
    let master = lab.await_holder(address)?;
    let stranger = lab
        .guest
        .on("router", "cat /sys/class/net/out/address")?
        .trim()
        .to_owned();
    let claimant = Claimant::start(lab, address)?;
    let service = ["-n", NAMESPACE, "virtualservices.lvs.dev", name];
    let message = lab.await_reason(&service, "Programmed", "ConflictDetected")?;
    ensure!(
        message.contains(&stranger) && message.contains(address),
        "the message names neither {stranger} nor {address}: {message}"
    );
    lab.await_reason(
        &["virtualrouters.lvs.dev", "default"],
        "Ready",
        "ConflictDetected",
    )?;
    until(LIMIT, "the metric by reason", || {
        let count = lab.agent_metric(
            &master,
            "lvs_agent_plan_conditions{reason=\"ConflictDetected\"}",
        )?;
        Ok(if count >= 1.0 { Ok(()) } else { Err(count) })
    })?;
    until(LIMIT, "an Event", || {
        let events = lab.cluster.get(&[
            "events.events.k8s.io",
            "-n",
            OPERATOR_NAMESPACE,
            "--field-selector",
            "reason=ConflictDetected",
        ])?;
        let found = events["items"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
        Ok(if found { Ok(()) } else { Err("none") })
    })?;
    // Against the claims stand announcements: the client hears both.
    let holder = lab
        .guest
        .on(&master, "cat /sys/class/net/out/address")?
        .trim()
        .to_owned();
    let filter = if address.contains(':') {
        "icmp6 and ip6[40] = 136".to_owned()
    } else {
        format!("arp and src host {address}")
    };
    until(LIMIT, "claims and announcements at the client", || {
        let heard = lab.guest.on(
            "client",
            &format!("timeout 4 tcpdump -e -n -l -i out '{filter}' 2>/dev/null; true"),
        )?;
        let both = heard.contains(&stranger) && heard.contains(&holder);
        Ok(if both { Ok(()) } else { Err(heard) })
    })?;
    ensure!(
        lab.await_holder(address)? == master,
        "a claim moved the address"
    );
    drop(claimant);
    lab.await_true(&service, "Programmed")?;
    lab.await_true(&["virtualrouters.lvs.dev", "default"], "Ready")
        .map(drop)
}
