//! The usual small cluster: every director is a real server too, and any host connects to the address. What each sees is in
//! docs/colocated.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story, other};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Spread};

const ADDRESS: &str = "172.16.2.243";
const INSIDE: &str = "192.168.2.243";
const ROUTER: &str = "virtualrouters.lvs.dev/colocated";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "colocated_nat",
            tells: "NAT: two directors are real servers too; client, holder, standby and real server connect",
            run: |lab| with_servers(lab, nat),
        },
        Story {
            name: "colocated_direct",
            tells: "the same with DR, before and after a hand-over",
            run: |lab| with_servers(lab, direct),
        },
    ]
}

/// A web server on each director that answers with its name.
fn with_servers(lab: &Lab, tell: fn(&Lab) -> Result<()>) -> Result<()> {
    let processes = lab.guest.run(
        "for host in lb-a lb-b; do
             mkdir -p /run/colocated/$host && echo $host >/run/colocated/$host/index.html
             printf '%s\\n' \"server.document-root = \\\"/run/colocated/$host\\\"\" 'server.port = 80' \
                 'index-file.names = (\"index.html\")' >/run/colocated/$host.conf
             setsid ip netns exec $host lighttpd -D -f /run/colocated/$host.conf >/run/colocated/$host.log 2>&1 </dev/null &
             echo $!
         done
         for host in lb-a lb-b; do
             for attempt in $(seq 100); do ip netns exec $host ss -Hltn 'sport = :80' | grep -q . && continue 2; sleep 0.05; done
             exit 1
         done",
    )?;
    let told = tell(lab);
    let processes: Vec<&str> = processes.split_whitespace().collect();
    lab.guest.run(&format!(
        "kill {}; rm -rf /run/colocated",
        processes.join(" ")
    ))?;
    told
}

fn apply(lab: &Lab, forwarding: &str) -> Result<()> {
    let mut text = format!(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: colocated}}
spec:
  directors: [{{nodeName: lb-a}}, {{nodeName: lb-b}}]
  addressPools: [{{name: colocated, addresses: [{ADDRESS}]}}]
  additionalAddresses: [{{address: {INSIDE}}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [colocated], realServerNodes: All}}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: colocated}}
spec:
  virtualRouterName: colocated
  addresses: [{ADDRESS}]
  ports: [{{port: 80}}]
  forwarding: {{type: {forwarding}}}
  scheduler: {{name: rr}}
  realServerSelector: {{}}
---"
    );
    for node in ["lb-a", "lb-b", "web-1"] {
        let _ = write!(
            text,
            "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {node}}}
spec: {{target: {{type: Node, node: {{name: {node}}}}}}}
---"
        );
    }
    lab.cluster.apply_text(NAMESPACE, &text)
}

fn spread(lab: &Lab, host: &str) -> Result<Spread> {
    traffic::spread(&lab.guest, host, &format!("http://{ADDRESS}/"), 6)
}

fn each_of(names: &[&str]) -> Spread {
    let count = 6 / names.len();
    names
        .iter()
        .map(|name| ((*name).to_owned(), count))
        .collect()
}

/// What each host sees: who answers six connections.
fn seen(lab: &Lab, wanted: &[(&str, Spread)]) -> Result<()> {
    let mut differing = BTreeMap::new();
    for (host, wanted) in wanted {
        let seen = spread(lab, host)?;
        if seen != *wanted {
            differing.insert(*host, seen);
        }
    }
    ensure!(differing.is_empty(), "otherwise than told: {differing:?}");
    Ok(())
}

const ALL: [&str; 3] = ["lb-a", "lb-b", "web-1"];

fn nat(lab: &Lab) -> Result<()> {
    apply(lab, "NAT")?;
    let holder = lab.await_serving(NAMESPACE, "colocated")?;
    await_ready(lab)?;
    let standby = other(&holder);
    let but = |own: &str, failure: &str| {
        let mut spread = each_of(&ALL);
        spread.remove(own);
        spread.insert(failure.to_owned(), 2);
        spread
    };
    seen(
        lab,
        &[
            ("client", each_of(&ALL)),
            ("web-2", each_of(&ALL)),
            (&holder, each_of(&ALL)),
            (standby, but(standby, "failed:7")),
            ("web-1", but("web-1", "failed:28")),
        ],
    )
}

fn direct(lab: &Lab) -> Result<()> {
    apply(lab, "DR")?;
    let first = lab.await_serving(NAMESPACE, "colocated")?;
    await_ready(lab)?;
    for holder in [first.as_str(), other(&first)] {
        if holder != first {
            hand_over(lab, holder)?;
        }
        let standby = other(holder);
        let own_turn: Spread = [(holder.to_owned(), 2), ("failed:28".to_owned(), 4)].into();
        seen(
            lab,
            &[
                ("client", each_of(&ALL)),
                ("web-2", each_of(&ALL)),
                (holder, own_turn),
                (standby, each_of(&[standby])),
                ("web-1", each_of(&["web-1"])),
            ],
        )
        .with_context(|| format!("{holder} holds the address"))?;
    }
    Ok(())
}

fn await_ready(lab: &Lab) -> Result<()> {
    until(LIMIT, "every real server serves", || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsvs", "colocated"])?;
        let shown = object["status"]["summary"]["realServers"].clone();
        Ok(if shown == "3/3" { Ok(()) } else { Err(shown) })
    })
}

/// Gives the address to the other director, as an administrator does.
fn hand_over(lab: &Lab, to: &str) -> Result<()> {
    let annotation = format!("lvs.dev/hand-over-to={to}");
    lab.cluster
        .kubectl(&["annotate", "--overwrite", ROUTER, &annotation])?;
    until(LIMIT, &format!("{to} alone holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [to] {
            Ok(())
        } else {
            Err(holders)
        })
    })
}
