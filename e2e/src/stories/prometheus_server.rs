//! Debian's Prometheus in the machine, and how it reaches agents and controllers.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE, nodes};

/// Where Prometheus listens in the guest.
const PROMETHEUS: &str = "http://127.0.0.1:9090";
/// The way of every node to the API server, for which Prometheus has an address too.
const MANAGEMENT: &str = "10.111.0";

/// A controller as the guest reaches it. They are in name spaces of this machine; the relay ends when it is dropped.
pub(super) struct Relay {
    port: u16,
    process: Child,
}

impl Relay {
    /// Where Prometheus finds it.
    pub(super) fn target(&self) -> String {
        format!("10.0.2.2:{}", self.port)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every controller, by this port of its pod.
pub(super) fn controllers(lab: &Lab, port_of_pod: u16) -> Result<Vec<Relay>> {
    let pods = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, "pods"])?;
    let controllers = pods["items"].as_array().into_iter().flatten();
    let controllers = controllers.filter(|pod| {
        pod["spec"]["hostNetwork"] != true && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let relays: Vec<Relay> = controllers
        .map(|pod| {
            let uid = pod["metadata"]["uid"].as_str().context("uid of a pod")?;
            let file = lab.state.join("pods").join(uid).join("pid");
            let pid = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let process = Command::new("socat")
                .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"))
                .arg(format!(
                    "EXEC:nsenter -t {} -n socat - TCP\\:127.0.0.1\\:{port_of_pod}",
                    pid.trim()
                ))
                .stdin(Stdio::null())
                .spawn()?;
            lab.carry_in(port)?;
            Ok(Relay { port, process })
        })
        .collect::<Result<_>>()?;
    ensure!(!relays.is_empty(), "no controllers");
    Ok(relays)
}

/// Every agent, by this port of its node.
pub(super) fn agents(port: u16) -> Vec<String> {
    let nodes = nodes();
    let last = nodes
        .iter()
        .filter_map(|node| node.addresses[0].rsplit('.').next());
    last.map(|last| format!("{MANAGEMENT}.{last}:{port}"))
        .collect()
}

/// One of those that are scraped.
pub(super) struct Target {
    /// Job.
    pub job: String,
    /// What is asked.
    pub url: String,
    /// Whether the last scrape was answered.
    pub is_up: bool,
    /// Why not.
    pub error: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            job,
            url,
            is_up,
            error,
        } = self;
        let word = if *is_up { "up" } else { "down" };
        write!(formatter, "{job}: {url} is {word} {error}")
    }
}

/// Debian's Prometheus in the guest's first namespace. Ends when it is dropped.
pub(super) struct Prometheus<'a> {
    lab: &'a Lab,
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.lab.guest.try_run(
            "kill $(cat /run/prometheus/pid)
             for i in $(seq 100); do ss -Hltn 'sport = :9090' | grep -q . || break; sleep 0.1; done
             rm -rf /run/prometheus",
        );
    }
}

impl<'a> Prometheus<'a> {
    /// Starts it with this configuration, and waits until it answers.
    pub(super) fn start(lab: &'a Lab, config: &str) -> Result<Self> {
        lab.guest.run(&format!(
            "mkdir -p /run/prometheus; echo {} >/run/prometheus/config.yaml
             setsid prometheus --config.file=/run/prometheus/config.yaml --storage.tsdb.path=/run/prometheus/data \
                 --web.listen-address=127.0.0.1:9090 >/run/prometheus/log 2>&1 </dev/null & echo $! >/run/prometheus/pid",
            quote(config)
        ))?;
        let server = Self { lab };
        until(LIMIT, "Prometheus answers", || Ok(server.targets()))?;
        Ok(server)
    }

    /// What it scrapes, and what came of it.
    pub(super) fn targets(&self) -> Result<Vec<Target>> {
        let targets = self.get("/api/v1/targets")?;
        let targets = targets["activeTargets"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(targets
            .map(|target| Target {
                job: text(&target["labels"]["job"]),
                url: text(&target["scrapeUrl"]),
                is_up: target["health"] == "up",
                error: text(&target["lastError"]),
            })
            .collect())
    }

    /// The data of one answer of its API.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let text = self.lab.guest.run(&format!(
            "curl --silent --show-error --max-time 10 {PROMETHEUS}{path}"
        ))?;
        data(&text)
    }

    /// The result of each query, all asked in one go.
    pub(super) fn query(&self, queries: &[String]) -> Result<Vec<Value>> {
        let mut script = String::new();
        for query in queries {
            let query = quote(&format!("query={query}"));
            writeln!(
                script,
                "curl --silent --show-error --max-time 10 --data-urlencode {query} {PROMETHEUS}/api/v1/query; echo"
            )?;
        }
        let text = self.lab.guest.run(&script)?;
        let lines = text.lines().filter(|line| !line.is_empty());
        let results: Vec<Value> = lines
            .zip(queries)
            .map(|(line, query)| {
                let mut data = data(line).with_context(|| format!("the query {query}"))?;
                Ok(data["result"].take())
            })
            .collect::<Result<_>>()?;
        ensure!(
            results.len() == queries.len(),
            "{} of {} answers",
            results.len(),
            queries.len()
        );
        Ok(results)
    }
}

fn data(answer: &str) -> Result<Value> {
    let mut answer: Value =
        serde_json::from_str(answer).with_context(|| format!("Prometheus said {answer}"))?;
    if answer["status"] != "success" {
        bail!("Prometheus said {answer}");
    }
    Ok(answer["data"].take())
}
