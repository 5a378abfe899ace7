//! S11: persistence per client, per port, per firewall mark; granularity; expiry.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story, real_servers};
use crate::await_condition::until;
use crate::failover::operator;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "S11_persistence",
            tells: "per port, per client, by mark; a /24 counts as one client; the template expires",
            run: persistence,
        },
        Story {
            name: "persistence_drain",
            tells: "a client whose real server drains goes to another with its next connection and stays there; the connection it has goes on",
            run: drain,
        },
        Story {
            name: "S11_port_range_and_external_mark",
            tells: "a range of ports; a mark that the administrator's own rules set",
            run: ranges,
        },
    ]
}

fn persistence(lab: &Lab) -> Result<()> {
    let timeouts = |value: Value| operator::change(lab, &json!({"timeouts": value}));
    // A template lives as long as connections under it, by default two minutes after their FIN.
    timeouts(json!({"tcpFinSeconds": 3}))?;
    // A second client in the same /24, on the same host.
    lab.guest
        .on("client", "ip address add 172.16.2.101/24 dev out")?;
    let told = told(lab);
    lab.guest
        .on("client", "ip address del 172.16.2.101/24 dev out")?;
    timeouts(Value::Null)?;
    told
}

fn told(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "persistence.yaml")?;
    for name in ["per-port", "per-client", "shop"] {
        lab.await_serving(NAMESPACE, name)?;
    }
    let master = lab.await_holder("172.16.2.208")?;
    until(LIMIT, "the router's timeout in the kernel", || {
        let seen = lab.guest.on(&master, "ipvsadm -L --timeout")?;
        Ok(if seen.contains(": 900 3 300") {
            Ok(())
        } else {
            Err(seen)
        })
    })?;
    let get = |url: &str, arguments: &str| -> Result<String> {
        let spread = traffic::spread_with(&lab.guest, "client", url, 4, arguments)?;
        let (server, count) = spread.iter().next().context("no answer")?;
        ensure!(
            spread.len() == 1 && *count == 4,
            "{url} {arguments}: 4 connections gave {spread:?}"
        );
        ensure!(server.starts_with("web-"), "{url}: {spread:?}");
        Ok(server.clone())
    };

    // Per port: rr gives the two ports different real servers, and each is kept.
    let first = get("http://172.16.2.208/", "")?;
    let other = get("http://172.16.2.208:8080/", "--interface 172.16.2.101")?;
    ensure!(
        first == get("http://172.16.2.208/", "")?,
        "port 80 left {first}"
    );
    ensure!(other.starts_with("web-"), "port 8080 answered {other}");
    // The template expires, and rr goes on with the other real server.
    until(LIMIT, "the template of 172.16.2.208:80 expires", || {
        let table = lab.guest.on(
            &master,
            r#"ipvsadm -Lcn | grep -E "ASSURED +[0-9.]+:0 +172.16.2.208:80 " || true"#,
        )?;
        Ok(if table.trim().is_empty() {
            Ok(())
        } else {
            Err(table)
        })
    })?;
    let second = get("http://172.16.2.208/", "")?;
    ensure!(
        second != first,
        "after the template expired rr chose {second} again"
    );

    // Per client: every port of every client of the /24 goes to one real server.
    let client = get("http://172.16.2.209/", "")?;
    ensure!(
        get("http://172.16.2.209:8080/", "")? == client,
        "another port left {client}"
    );
    ensure!(
        get("http://172.16.2.209/", "--interface 172.16.2.101")? == client,
        "the /24 is not one client"
    );

    // By mark: http and https of one client meet at the same real server. (Plain HTTP on 443 here:
    // what is inside the connection is nothing to IPVS.)
    let http = get("http://172.16.2.210/", "")?;
    ensure!(
        get("http://172.16.2.210:443/", "")? == http,
        "http and https of one client part"
    );
    let rules = lab.ipvs_rules(&master)?;
    ensure!(
        rules.iter().any(|rule| rule.starts_with("-A -f ")),
        "no service by mark: {rules:#?}"
    );
    Ok(())
}

/// For longer than the story takes persistence alone would send the client to where it was.
fn drain(lab: &Lab) -> Result<()> {
    const ADDRESS: &str = "172.16.2.209";
    lab.cluster.apply_example(NAMESPACE, "persistence.yaml")?;
    let master = lab.await_serving(NAMESPACE, "per-client")?;
    let get = || -> Result<String> {
        let spread = traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 4)?;
        let (server, count) = spread.iter().next().context("no answer")?;
        ensure!(*count == 4, "a client was spread over {spread:?}");
        Ok(server.clone())
    };
    let first = get()?;
    let held = traffic::Held::open(&lab.guest, "client", ADDRESS, 80, 1)?;
    let state = |state: &str, weight: u8| {
        let words = ["-n", NAMESPACE, "lvsrs", &first];
        let patch = json!({"spec": {"administrativeState": state}});
        lab.cluster.merge_patch(&words, &patch)?;
        let last = first.trim_start_matches("web-");
        let wanted = format!("-a -t {ADDRESS}:0 -r 192.168.2.2{last}:0 -g -w {weight}");
        until(LIMIT, &wanted, || {
            let rules = lab.ipvs_rules(&master)?;
            Ok(if rules.contains(&wanted) {
                Ok(())
            } else {
                Err(rules)
            })
        })
    };
    state("Draining", 0)?;
    let second = get()?;
    ensure!(second != first, "{first} drains and got new connections");
    let table = lab.guest.on(&master, "ipvsadm -Lcn")?;
    let last = first.trim_start_matches("web-");
    let goes_on = table.lines().any(|line| {
        line.contains("ESTABLISHED") && line.ends_with(&format!("192.168.2.2{last}:80"))
    });
    ensure!(goes_on, "the connection that {first} had: {table}");
    drop(held);
    // Back in service it gets nobody back who has found another.
    state("Enabled", 1)?;
    ensure!(get()? == second, "the client left {second}");
    Ok(())
}

fn ranges(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &[
            r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: range}
spec:
  addresses: [172.16.2.211]
  ports: [{port: 80, endPort: 83}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: marked}
spec:
  addresses: [172.16.2.212]
  ports: [{port: 80}]
  grouping: FirewallMark
  firewallMark: {marking: External, value: 4242}
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {}
"#,
            &real_servers(&["web-1"]),
        ]
        .concat(),
    )?;
    lab.await_serving(NAMESPACE, "range")?;
    lab.await_serving(NAMESPACE, "marked")?;
    let master = lab.await_holder("172.16.2.211")?;
    for port in [80, 82, 83] {
        let answer = traffic::get(
            &lab.guest,
            "client",
            &format!("http://172.16.2.211:{port}/"),
        )?;
        ensure!(answer == "web-1", "port {port} answered {answer}");
    }
    let rules = lab.ipvs_rules(&master)?;
    let services = rules
        .iter()
        .filter(|rule| rule.starts_with("-A -t 172.16.2.211:"))
        .count();
    ensure!(
        services == 4,
        "80-83 became {services} services: {rules:#?}"
    );
    // The administrator's own table, which we neither make nor touch.
    let table = "table ip administrator { chain c { type filter hook prerouting priority mangle; ip daddr 172.16.2.212 tcp dport 80 meta mark set 4242; }; }";
    lab.guest.on(&master, &format!("nft '{table}'"))?;
    let answer = traffic::get(&lab.guest, "client", "http://172.16.2.212/");
    lab.guest.on(&master, "nft delete table ip administrator")?;
    let answer = answer?;
    ensure!(answer == "web-1", "the marked service answered {answer}");
    Ok(())
}
