//! A real server that has enough connections gets no more.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::operator;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Held};

const ADDRESS: &str = "172.16.2.224";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "connection_thresholds",
        tells: "a real server that has as many connections as its upper threshold gets no new ones until it has fewer than the lower",
        run: connection_thresholds,
    }]
}

/// A connection counts until IPVS forgets it, by default two minutes after the client's FIN.
fn connection_thresholds(lab: &Lab) -> Result<()> {
    let timeouts = |value: Value| operator::change(lab, &json!({"timeouts": value}));
    timeouts(json!({"tcpFinSeconds": 3}))?;
    let told = told(lab);
    timeouts(Value::Null)?;
    told
}

fn told(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [172.16.2.224]
  ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-1}
spec:
  target: {type: Node, node: {name: web-1}}
  connectionThresholds: {upper: 3, lower: 2}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-2}
spec: {target: {type: Node, node: {name: web-2}}}
"#,
    )?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    // `ipvsadm -S` leaves thresholds out.
    until(LIMIT, "the thresholds in the kernel", || {
        let seen = lab.guest.on(&master, "ipvsadm -Ln --thresholds")?;
        let has = |line: &str| {
            line.split_whitespace().collect::<Vec<_>>().starts_with(&[
                "->",
                "192.168.2.21:80",
                "3",
                "2",
            ])
        };
        Ok(if seen.lines().any(has) {
            Ok(())
        } else {
            Err(seen)
        })
    })?;
    until(LIMIT, "the router's timeout in the kernel", || {
        let seen = lab.guest.on(&master, "ipvsadm -L --timeout")?;
        Ok(if seen.contains(": 900 3 300") {
            Ok(())
        } else {
            Err(seen)
        })
    })?;

    let some = Held::open(&lab.guest, "client", ADDRESS, 80, 4)?;
    await_active(lab, &master, [2, 2])?;
    let more = Held::open(&lab.guest, "client", ADDRESS, 80, 6)?;
    await_active(lab, &master, [3, 7])?;
    let full = spread(lab)?;
    ensure!(
        full == [("web-2".into(), 6)].into(),
        "web-1 has 3 connections and got more: {full:?}"
    );
    drop(more);
    drop(some);
    until(LIMIT, "web-1 serves again", || {
        let seen = spread(lab)?;
        let all = seen.values().sum::<usize>() == 6 && seen.len() == 2;
        Ok(if all && seen.contains_key("web-1") {
            Ok(())
        } else {
            Err(seen)
        })
    })
}

fn spread(lab: &Lab) -> Result<traffic::Spread> {
    traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 6)
}

/// Waits until web-1 and web-2 have so many active connections.
fn await_active(lab: &Lab, master: &str, expected: [usize; 2]) -> Result<()> {
    until(LIMIT, &format!("{expected:?} active connections"), || {
        let seen = traffic::active_connections(&lab.guest, master)?;
        let of = |last: u8| seen.get(&format!("192.168.2.{last}:80")).copied();
        Ok(if [of(21), of(22)] == expected.map(Some) {
            Ok(())
        } else {
            Err(seen)
        })
    })
}
