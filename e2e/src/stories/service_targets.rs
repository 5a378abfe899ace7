//! A RealServer that stands for a Service: its endpoints serve, drain and go as their EndpointSlice says.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story};
use crate::await_condition::{until, until_equal};
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Held};

const ADDRESS: &str = "172.16.2.251";
/// The machines behind the Service are nobody's nodes.
const MACHINES: [&str; 2] = ["plain-1", "plain-2"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "service_target",
        tells: "endpoints of a Service are balanced, one that terminates and has closed its listener keeps its connections, one that is gone is out",
        run: service_target,
    }]
}

/// The first machine refuses new connections, and goes on with those that it has.
const CLOSE_LISTENER: &str = "nft 'table ip closed { chain input { type filter hook input priority -200; \
    tcp dport 8080 tcp flags & (syn | ack) == syn reject with tcp reset; }; }'";

fn service_target(lab: &Lab) -> Result<()> {
    // The machines are the administrator's: their gateway is set by hand.
    let gateway = |words: &str| {
        MACHINES.into_iter().try_for_each(|machine| {
            let script = format!("ip route replace default via {words}");
            lab.guest.on(machine, &script).map(drop)
        })
    };
    let told = gateway("192.168.2.251").and_then(|()| told(lab));
    let opened = lab.guest.on(
        MACHINES[0],
        "nft delete table ip closed 2>/dev/null || true",
    );
    let gateways = gateway("192.168.2.254 dev in");
    let removed = lab.cluster.kubectl(&[
        "delete",
        "-n",
        NAMESPACE,
        "--ignore-not-found",
        "service/legacy",
        "endpointslice/legacy-machines",
    ]);
    told?;
    opened?;
    gateways?;
    removed.map(drop)
}

fn told(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "service-target.yaml")?;
    let master = lab.await_serving(NAMESPACE, "legacy")?;
    await_rules(
        lab,
        &master,
        &["192.168.2.31:8080 -m -w 1", "192.168.2.32:8080 -m -w 1"],
    )
    .context("every endpoint, on the Service's port")?;
    await_ready(lab, "2/2")?;
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("plain-1".into(), 5), ("plain-2".into(), 5)].into(),
        "rr gave {seen:?}"
    );

    let held = Held::open(&lab.guest, "client", ADDRESS, 80, 4)?;
    let leaving = json!({"addresses": ["192.168.2.31"],
                         "conditions": {"ready": false, "serving": true, "terminating": true}});
    let staying = json!({"addresses": ["192.168.2.32"], "conditions": {"ready": true}});
    set_endpoints(lab, &json!([leaving, staying]))?;
    await_rules(
        lab,
        &master,
        &["192.168.2.31:8080 -m -w 0", "192.168.2.32:8080 -m -w 1"],
    )?;
    await_ready(lab, "1/1").context("what leaves is not missed")?;
    let seen = spread(lab, 6)?;
    ensure!(
        seen == [("plain-2".into(), 6)].into(),
        "a terminating endpoint got new connections: {seen:?}"
    );
    let go_on = |when: &str| -> Result<()> {
        let active = traffic::active_connections(&lab.guest, &master)?;
        ensure!(
            active.get("192.168.2.31:8080").copied() == Some(2),
            "its connections go on {when}: {active:?}"
        );
        Ok(())
    };
    go_on("while it terminates")?;
    let checks = json!([{"name": "tcp", "type": "TCP", "periodSeconds": 1, "failureThreshold": 1}]);
    lab.cluster.merge_patch(
        &["-n", NAMESPACE, "lvsvs", "legacy"],
        &json!({"spec": {"healthChecks": checks}}),
    )?;
    lab.guest.on(MACHINES[0], CLOSE_LISTENER)?;
    until(LIMIT, "the failure of the one that terminates", || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsrs", "legacy"])?;
        let status = object["status"].to_string();
        Ok(if status.contains("refused") {
            Ok(())
        } else {
            Err(status)
        })
    })?;
    await_rules(
        lab,
        &master,
        &["192.168.2.31:8080 -m -w 0", "192.168.2.32:8080 -m -w 1"],
    )?;
    go_on("when it takes no new ones")?;

    set_endpoints(lab, &json!([staying]))?;
    await_rules(lab, &master, &["192.168.2.32:8080 -m -w 1"])?;
    let seen = spread(lab, 6)?;
    ensure!(
        seen == [("plain-2".into(), 6)].into(),
        "one is left: {seen:?}"
    );
    drop(held);
    Ok(())
}

fn set_endpoints(lab: &Lab, endpoints: &Value) -> Result<()> {
    let words = ["-n", NAMESPACE, "endpointslice", "legacy-machines"];
    lab.cluster
        .merge_patch(&words, &json!({"endpoints": endpoints}))
}

fn spread(lab: &Lab, count: usize) -> Result<traffic::Spread> {
    traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), count)
}

/// Waits for the destinations of the service in the director's kernel.
fn await_rules(lab: &Lab, director: &str, expected: &[&str]) -> Result<()> {
    let wanted: Vec<String> = expected
        .iter()
        .map(|rule| format!("-a -t {ADDRESS}:80 -r {rule}"))
        .collect();
    until(LIMIT, &format!("{expected:?} on {director}"), || {
        let mut rules = lab.ipvs_rules(director)?;
        rules.retain(|rule| rule.starts_with("-a "));
        Ok(if rules == wanted { Ok(()) } else { Err(rules) })
    })
}

fn await_ready(lab: &Lab, ready: &str) -> Result<()> {
    until_equal(LIMIT, "READY of legacy", &ready.to_owned(), || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsvs", "legacy"])?;
        let shown = object["status"]["summary"]["realServers"].as_str();
        Ok(shown.unwrap_or_default().to_owned())
    })
}
