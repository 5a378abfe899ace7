//! What Prometheus sees: Debian's own scrapes agents and controllers while there is traffic, and answers every query of the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::prometheus_server::{Prometheus, Relay, agents, controllers};
use super::{NAMESPACE, Story, real_servers};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab, nodes};
use crate::metrics_document::{self, Metrics};
use crate::traffic;

const ADDRESS: &str = "172.16.2.240";
const ROUTER: &str = "virtualrouters.lvs.dev/metered";
/// Rates are over so many scrapes, one a second.
const RATE_INTERVAL: &str = "10s";
/// Labels of things that this story does not have.
const LABELS_NOT_SHOWN: [&str; 3] = ["mark", "address_family", "url"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "prometheus",
        tells: "Debian's Prometheus scrapes agents and controllers: counters are ipvsadm's, every query of the dashboard has an answer, no alert lacks its metrics",
        run: prometheus,
    }]
}

fn prometheus(lab: &Lab) -> Result<()> {
    let objects = [OBJECTS, &real_servers(&["web-1", "web-2"])].concat();
    lab.cluster.apply_text(NAMESPACE, &objects)?;
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "shop"];
    lab.await_true(&words, "Programmed")?;
    let relays = controllers(lab, 9660)?;
    let server = start(lab, &relays)?;
    let first = lab.await_holder(ADDRESS)?;
    let url = format!("http://{ADDRESS}/");
    until(LIMIT, "both real servers serve", || {
        let spread = traffic::spread(&lab.guest, "client", &url, 4)?;
        Ok(
            if spread.len() == 2 && !spread.keys().any(|name| name.starts_with("failed")) {
                Ok(())
            } else {
                Err(spread)
            },
        )
    })?;
    counters_are_those_of_ipvsadm(lab, &first)?;

    // A takeover, so that its phases are known.
    let second = super::other(&first);
    let annotation = format!("lvs.dev/hand-over-to={second}");
    lab.cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    let holder = until(LIMIT, &format!("{second} holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [second] {
            Ok(second)
        } else {
            Err(holders)
        })
    })?;
    let spread = traffic::spread(&lab.guest, "client", &url, 10)?;
    ensure!(
        spread.values().sum::<usize>() == 10,
        "of {holder} came {spread:?}"
    );

    every_query_has_an_answer(lab, &server)?;
    every_alert_has_its_metrics(lab, &server)?;
    labels_are_as_documented(lab, &relays)
}

/// Two directors, two real servers by NAT, and one that does not exist.
const OBJECTS: &str = r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: metered}
spec:
  directors: [{nodeName: lb-a, priority: 110}, {nodeName: lb-b}]
  addressPools: [{name: metered, addresses: [172.16.2.240]}]
  additionalAddresses: [{address: 192.168.2.250}]
  grants: [{namespaces: {from: All}, addressPoolNames: [metered], realServerCIDRs: [192.168.2.0/24], realServerNodes: All}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: shop}
spec:
  virtualRouterName: metered
  addresses: [172.16.2.240]
  ports: [{port: 80}]
  forwarding: {type: NAT}
  scheduler: {name: rr}
  healthChecks: [{name: tcp, type: TCP, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}]
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: absent}
spec: {target: {type: Addresses, addresses: [192.168.2.99]}}
"#;

/// What the agent says of the service and of its real servers is what ipvsadm says.
fn counters_are_those_of_ipvsadm(lab: &Lab, director: &str) -> Result<()> {
    let names = [
        "connections",
        "incoming_packets",
        "outgoing_packets",
        "incoming_bytes",
        "outgoing_bytes",
    ];
    until(
        LIMIT,
        "the same counters from the agent and ipvsadm",
        || {
            let table = lab.guest.on(director, "ipvsadm -Ln --stats --exact")?;
            let mut of_ipvsadm: BTreeMap<&str, [f64; 5]> = BTreeMap::new();
            for line in table.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (kind, numbers) = match &words[..] {
                    ["TCP", _, numbers @ ..] => ("service", numbers),
                    ["->", _, numbers @ ..] => ("real_server", numbers),
                    _ => continue,
                };
                let sums = of_ipvsadm.entry(kind).or_default();
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    // The head of the table has words there.
                    *sum += number.parse().unwrap_or(0.0);
                }
            }
            let mut of_agent: BTreeMap<&str, [f64; 5]> = BTreeMap::new();
            for kind in ["service", "real_server"] {
                let sums = of_agent.entry(kind).or_default();
                for (sum, name) in sums.iter_mut().zip(names) {
                    *sum = lab.agent_metric(director, &format!("lvs_agent_{kind}_{name}_total"))?;
                }
            }
            let is_all_counted =
                of_ipvsadm.len() == 2 && of_ipvsadm.values().flatten().all(|number| *number > 0.0);
            Ok(if is_all_counted && of_agent == of_ipvsadm {
                Ok(())
            } else {
                Err((of_agent, of_ipvsadm))
            })
        },
    )
}

/// With our rules, from the port of the health endpoints by plain HTTP, as the chart has it by default.
fn start<'a>(lab: &'a Lab, relays: &[Relay]) -> Result<Prometheus<'a>> {
    let rules = lab.repository.join("charts/lvs-operator/files/rules.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [{}]\n\
         scrape_configs:\n\
         - {{job_name: agents, static_configs: [{{targets: {}}}]}}\n\
         - {{job_name: controllers, static_configs: [{{targets: {}}}]}}\n",
        rules.display(),
        json!(agents(9650)),
        json!(relays.iter().map(Relay::target).collect::<Vec<_>>()),
    );
    let server = Prometheus::start(lab, &config)?;
    let wanted = nodes().len() + relays.len();
    until(LIMIT, &format!("{wanted} targets are scraped"), || {
        let targets = server.targets()?;
        let up = targets.iter().filter(|target| target.is_up).count();
        Ok(if up == wanted { Ok(()) } else { Err(targets) })
    })?;
    Ok(server)
}

/// As Grafana asks with all variables on All.
fn every_query_has_an_answer(lab: &Lab, server: &Prometheus<'_>) -> Result<()> {
    let file = lab
        .repository
        .join("charts/lvs-operator/files/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let queries: Vec<String> = panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["expr"].as_str())
        .map(|query| {
            let query = query.replace("$__rate_interval", RATE_INTERVAL);
            ["$namespace", "$virtual_service", "$router"]
                .iter()
                .fold(query, |query, variable| query.replace(variable, ".*"))
        })
        .collect();
    ensure!(
        queries.len() > 20,
        "only {} queries in {}",
        queries.len(),
        file.display()
    );
    until(
        Duration::from_secs(30),
        "every query of the dashboard has an answer",
        || {
            let results = server.query(&queries)?;
            let empty: Vec<&String> = queries
                .iter()
                .zip(&results)
                .filter(|(_, result)| result.as_array().is_none_or(Vec::is_empty))
                .map(|(query, _)| query)
                .collect();
            Ok(if empty.is_empty() {
                Ok(())
            } else {
                Err(format!("no answer to {empty:#?}"))
            })
        },
    )?;
    println!(
        "    {} queries of the dashboard have an answer",
        queries.len()
    );
    Ok(())
}

/// Prometheus evaluates every rule, has every metric that it names, and sees the real server that does not exist.
fn every_alert_has_its_metrics(lab: &Lab, server: &Prometheus<'_>) -> Result<()> {
    let loaded = server.get("/api/v1/rules")?;
    let groups = loaded["groups"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = groups
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    for rule in &rules {
        ensure!(
            rule["health"] == "ok",
            "{} is {}: {}",
            rule["name"],
            rule["health"],
            rule["lastError"]
        );
    }
    let known = server.get("/api/v1/label/__name__/values")?;
    let known: BTreeSet<&str> = known
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let file = lab.repository.join("charts/lvs-operator/files/rules.yaml");
    let text = std::fs::read_to_string(&file)?;
    let expressions = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let names: BTreeSet<&str> = expressions
        .clone()
        .flat_map(|expression| {
            expression.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric())
        })
        .filter(|word| word.starts_with("lvs_"))
        .collect();
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| !known.contains(**name))
        .collect();
    ensure!(
        missing.is_empty() && names.len() > 10,
        "Prometheus has none of {missing:?}, which alerts name"
    );
    ensure!(
        rules.len() == expressions.count(),
        "{} rules are loaded",
        rules.len()
    );
    let pending = "ALERTS{alertname=\"LvsRealServerDown\",real_server=\"absent\"}";
    until(
        LIMIT,
        "the alert on the real server that does not exist",
        || {
            let results = server.query(&[pending.to_owned()])?;
            let is_there = results[0].as_array().is_some_and(|found| !found.is_empty());
            Ok(if is_there { Ok(()) } else { Err(results) })
        },
    )?;
    println!("    {} alerts, {} metrics", rules.len(), names.len());
    Ok(())
}

/// Whatever is exposed anywhere is in docs/metrics.md, with these labels.
fn labels_are_as_documented(lab: &Lab, relays: &[Relay]) -> Result<()> {
    let document = std::fs::read_to_string(lab.repository.join("docs/metrics.md"))?;
    let documented = metrics_document::documented(&document, "lvs_");
    let mut exposed = Metrics::new();
    for node in nodes() {
        let ask = "curl --silent --show-error --max-time 10 http://127.0.0.1:9650/metrics";
        add(&mut exposed, &lab.guest.on(&node.name, ask)?);
    }
    for relay in relays {
        let ask = format!(
            "curl --silent --show-error --max-time 10 http://{}/metrics",
            relay.target()
        );
        add(&mut exposed, &lab.guest.run(&ask)?);
    }
    let mut differences = Vec::new();
    for (name, found) in &exposed {
        let Some(said) = documented.get(name) else {
            differences.push(format!("{name} is not there"));
            continue;
        };
        let hidden = LABELS_NOT_SHOWN.map(str::to_owned);
        let expected: BTreeSet<&String> = said
            .labels
            .iter()
            .filter(|label| !hidden.contains(label))
            .collect();
        let has_samples = !found.labels.is_empty();
        if has_samples && expected != found.labels.iter().collect() {
            differences.push(format!("{name} has the labels {:?}", found.labels));
        }
    }
    ensure!(differences.is_empty(), "docs/metrics.md: {differences:#?}");
    ensure!(
        exposed.len() > 60,
        "only {} metrics were found",
        exposed.len()
    );
    Ok(())
}

fn add(all: &mut Metrics, text: &str) {
    for (name, metric) in metrics_document::exposed(text) {
        all.entry(name).or_default().labels.extend(metric.labels);
    }
}
