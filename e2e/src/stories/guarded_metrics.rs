//! Metrics over TLS, for whom the API server lets get them: the chart's values metrics.tls and metrics.authentication.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::prometheus_server::{Prometheus, Relay, Target, agents, controllers};
use super::{NAMESPACE, Story, Undo};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE, nodes};

const SECRET: &str = "story-metrics";
/// The ClusterRoleBinding of the one who may.
const BINDING: &str = "story-metrics";
/// The chart's `metrics.tls.serverName`.
const SERVER_NAME: &str = "lvs-operator-metrics";
const AGENTS: u16 = 9651;
const CONTROLLERS: u16 = 9661;
/// Jobs that are refused, and what Prometheus is told.
const REFUSED: [(&str, &str); 4] = [
    ("nobody", "401 Unauthorized"),
    ("stranger", "403 Forbidden"),
    ("plain", ""),
    ("health", "404 Not Found"),
];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "metrics_with_tls_and_tokens",
        tells: "Debian's Prometheus scrapes over TLS with a token; without one 401, without the right 403, by plain HTTP nothing; certificates are renewed and rights withdrawn without a restart",
        run: guarded,
    }]
}

fn guarded(lab: &Lab) -> Result<()> {
    let told = certificates(lab).and_then(|_files| told(lab));
    let undone = super::upgrade(lab, &[]).and_then(|()| forget(lab));
    told?;
    undone.context("the chart as it was")
}

fn forget(lab: &Lab) -> Result<()> {
    let gone = ["delete", "--ignore-not-found"];
    for object in [
        ["-n", OPERATOR_NAMESPACE, "secret", SECRET].as_slice(),
        &["clusterrolebinding", BINDING],
        &["-n", NAMESPACE, "serviceaccount", "prometheus", "stranger"],
    ] {
        lab.cluster.kubectl(&[&gone, object].concat())?;
    }
    Ok(())
}

/// An authority and two certificates of the same name, in a folder that guest and machine see.
fn certificates(lab: &Lab) -> Result<Undo<'_>> {
    let key = "ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    lab.guest.run(&format!(
        "set -e; mkdir -p /share/metrics; cd /share/metrics
         openssl req -x509 -newkey {key} -days 2 -subj /CN=authority -keyout authority.key -out authority.crt
         echo subjectAltName=DNS:{SERVER_NAME} >extensions
         for name in first second; do
             openssl req -newkey {key} -subj /CN=$name -keyout $name.key -out $name.csr
             openssl x509 -req -days 2 -in $name.csr -CA authority.crt -CAkey authority.key -CAcreateserial \\
                 -extfile extensions -out $name.crt
         done"
    ))?;
    let script = "rm -rf /share/metrics".to_owned();
    Ok(Undo { lab, script })
}

/// The Secret has this certificate from now on.
fn present(lab: &Lab, name: &str) -> Result<()> {
    let read = |file: &str| {
        let path = lab.guest.share.join("metrics").join(file);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": OPERATOR_NAMESPACE},
        "stringData": {
            "tls.crt": read(&format!("{name}.crt"))?,
            "tls.key": read(&format!("{name}.key"))?,
            "ca.crt": read("authority.crt")?,
        },
    });
    lab.cluster.apply(&secret.to_string())
}

/// One who may get metrics and one who may not; their tokens, where Prometheus finds them.
fn users(lab: &Lab) -> Result<()> {
    for user in ["prometheus", "stranger"] {
        let words = ["-n", NAMESPACE, "create", "serviceaccount", user];
        lab.cluster.kubectl(&words)?;
        let token = lab
            .cluster
            .kubectl(&["-n", NAMESPACE, "create", "token", user])?;
        let file = lab.guest.share.join("metrics").join(user);
        std::fs::write(file, token.trim())?;
    }
    let account = format!("--serviceaccount={NAMESPACE}:prometheus");
    let role = "--clusterrole=lvs-operator-metrics-reader";
    let words = ["create", "clusterrolebinding", BINDING, role, &account];
    lab.cluster.kubectl(&words).map(drop)
}

/// What Prometheus is to scrape, and how many targets these are: everything as the one who may, and one agent and one controller
/// in each way that is refused.
fn jobs(relays: &[Relay]) -> (String, usize) {
    let own = relays.iter().map(Relay::target);
    let all: Vec<String> = agents(AGENTS).into_iter().chain(own).collect();
    let few = [&all[0], &all[all.len() - 1]];
    let tls = json!({"ca_file": "/share/metrics/authority.crt", "server_name": SERVER_NAME});
    let token = |user: &str| json!({"credentials_file": format!("/share/metrics/{user}")});
    let job = |name: &str, targets: serde_json::Value| {
        json!({
            "job_name": name, "scheme": "https", "tls_config": tls,
            "static_configs": [{"targets": targets}],
        })
    };
    let mut granted = job("granted", json!(all));
    granted["authorization"] = token("prometheus");
    let nobody = job("nobody", json!(few));
    let mut stranger = job("stranger", json!(few));
    stranger["authorization"] = token("stranger");
    let plain = json!({"job_name": "plain", "static_configs": [{"targets": few}]});
    let health = json!({"job_name": "health", "static_configs": [{"targets": [agents(9650)[0]]}]});
    let jobs = [granted, nobody, stranger, plain, health];
    let targets = jobs.iter().map(|job| &job["static_configs"][0]["targets"]);
    let count = targets.filter_map(|targets| targets.as_array().map(Vec::len));
    let count = count.sum();
    let global = json!({"scrape_interval": "2s", "scrape_timeout": "2s"});
    let config = json!({"global": global, "scrape_configs": jobs});
    (config.to_string(), count)
}

fn await_targets(
    server: &Prometheus<'_>,
    count: usize,
    what: &str,
    is_as_wanted: impl Fn(&Target) -> bool,
) -> Result<()> {
    // Who had the right has it for a minute more.
    until(LIMIT * 2, what, || {
        let all = server.targets()?;
        let good = all.iter().filter(|target| is_as_wanted(target)).count();
        Ok(if good == count { Ok(()) } else { Err(all) })
    })
}

/// The certificate that an agent shows, by its name.
fn shown(lab: &Lab, node: &str) -> Result<String> {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{AGENTS} -servername {SERVER_NAME} </dev/null 2>/dev/null |
             openssl x509 -noout -subject -nameopt multiline | sed -n 's/ *commonName *= //p'"
    );
    Ok(lab.guest.on(node, &script)?.trim().to_owned())
}

/// Processes of all agents by node.
fn processes(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let process = |node: String| {
        let work = lab.agent_work(&node)?;
        let process = lab.guest.run(&format!("cat {work}/pid"))?;
        Ok((node, process))
    };
    nodes().into_iter().map(|node| process(node.name)).collect()
}

fn told(lab: &Lab) -> Result<()> {
    // The Secret comes after the agents, and nothing waits for it.
    let secret = format!("metrics.tls.secretName={SECRET}");
    super::upgrade(lab, &[&secret, "metrics.authentication.enabled=true"])?;
    let before = processes(lab)?;
    present(lab, "first")?;
    users(lab)?;
    let relays = controllers(lab, CONTROLLERS)?;
    let (config, count) = jobs(&relays);
    let server = Prometheus::start(lab, &config)?;
    await_targets(
        &server,
        count,
        "who may is answered, the others are not",
        |target| {
            let refusal = REFUSED.iter().find(|(job, _)| *job == target.job);
            refusal.map_or(target.is_up, |(_, words)| {
                !target.is_up && !target.error.is_empty() && target.error.contains(words)
            })
        },
    )?;
    // The right job's metrics, of everybody, and no other's.
    let queries = [
        "count by (job) ({__name__=~\"lvs_.*\"})",
        "count(lvs_agent_api_server_reached)",
        "count(lvs_controller_passes_total)",
    ];
    let queries = queries.map(str::to_owned);
    let wanted = [nodes().len(), relays.len()].map(|count| json!(count.to_string()));
    until(LIMIT, "metrics of every agent and controller", || {
        let results = server.query(&queries)?;
        let jobs = results[0].as_array().into_iter().flatten();
        let jobs: Vec<_> = jobs.map(|row| row["metric"]["job"].clone()).collect();
        let counts = [1, 2].map(|query| results[query][0]["value"][1].clone());
        let good = jobs == ["granted"] && counts == wanted;
        Ok(if good { Ok(()) } else { Err((jobs, counts)) })
    })?;

    let first = shown(lab, "lb-a")?;
    ensure!(first == "first", "the certificate is {first}");
    present(lab, "second")?;
    until(LIMIT, "the renewed certificate is shown", || {
        let names = [shown(lab, "lb-a")?, shown(lab, "far-1")?];
        Ok(if names == ["second", "second"] {
            Ok(())
        } else {
            Err(names)
        })
    })?;
    lab.cluster
        .kubectl(&["delete", "clusterrolebinding", BINDING])?;
    await_targets(&server, count, "who may no longer is refused", |target| {
        target.job != "granted" || target.error.contains("403 Forbidden")
    })?;
    let after = processes(lab)?;
    ensure!(before == after, "agents restarted: {before:?} {after:?}");
    Ok(())
}
