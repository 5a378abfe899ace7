//! Part of `make bench-detection`: how long a dead listener stays in the kernel, with our agent, Debian's keepalived and
//! Debian's ldirectord, told the same, in one machine at the same time. Tier 2; the last line is one JSON object.
//!
//! The three ask the same two real servers, so that they see the same deaths.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lvs_e2e::detection::{Clients, Death, Kind, PORT, SURVIVOR, VICTIM};
use lvs_e2e::guest::quote;
use lvs_e2e::lab::{Lab, Machine};
use serde_json::{Map, Value, json};

const NAMESPACE: &str = "bench";
const OURS: &str = "lvs-operator";
const OUR_ADDRESS: &str = "172.16.2.200";
/// Name, network namespace with the last number of its addresses, and virtual address.
const OTHERS: [(&str, &str, u8, &str); 2] = [
    ("keepalived", "ka-a", 13, "172.16.2.240"),
    ("ldirectord", "ka-b", 14, "172.16.2.241"),
];
/// Their files, in the guest.
const FOLDER: &str = "/run/detection";
/// What all three are told: asked every second, 1 s for an answer, down after two failures.
const SETTINGS: (u16, u16, u16) = (1, 1, 2);
/// Above what the settings say, for the programs themselves.
const ALLOWANCE_SECONDS: f64 = 0.05;

/// How long a dead listener stays in the kernel.
#[derive(Parser)]
struct Arguments {
    /// Deaths of each kind.
    #[arg(long, default_value_t = 12)]
    deaths: u32,
    /// Folder for state and logs.
    #[arg(long, default_value = "e2e/.run/bench-detection")]
    state: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let lab = Lab::up(&arguments.state, Machine::Whole)?;
    let measured = measure(&lab, arguments.deaths);
    let ended = lab.down();
    let deaths = measured?;
    ended?;
    println!("{}", figures(&deaths)?);
    Ok(())
}

fn measure(lab: &Lab, deaths: u32) -> Result<Vec<Death>> {
    lab.cluster.namespace(NAMESPACE)?;
    lab.cluster.apply_text(NAMESPACE, &service())?;
    start_others(lab)?;
    let mut directors = OTHERS.map(|(name, host, _, address)| format!("{name}={host}={address}"));
    directors.sort();
    let ours = lab.await_holder(OUR_ADDRESS)?;
    let directors = format!("{OURS}={ours}={OUR_ADDRESS} {}", directors.join(" "));
    let program = std::env::current_exe()?.with_file_name("detection-probe");
    let program = quote(&program.display().to_string());
    let _quiet = lab.without_probes();
    let mut all = Vec::new();
    for kind in ["refused", "silent"] {
        println!("{kind}: {deaths} deaths");
        // In front of everything else there: what measures must not wait for what is measured.
        let told = lab
            .guest
            .run(&format!("exec chrt --fifo 10 {program} {kind} {deaths} {directors}"))
            .with_context(|| {
                let logs = lab.guest.run(&format!(
                    "tail -n 20 {FOLDER}/*.log {FOLDER}/*.out; for host in {ours} ka-a ka-b; do ip netns exec $host ipvsadm -Ln; done"
                ));
                logs.unwrap_or_default()
            })?;
        for line in told.lines() {
            println!("  {line}");
            all.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
        }
    }
    Ok(all)
}

fn service() -> String {
    let (period, timeout, failures) = SETTINGS;
    let mut text = format!(
        "apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: detection}}
spec:
  addresses: [{OUR_ADDRESS}]
  ports: [{{port: {PORT}}}]
  forwarding: {{type: DR}}
  scheduler: {{name: rr}}
  onFailure: Remove
  healthChecks:
  - {{name: tcp, type: TCP, periodSeconds: {period}, timeoutSeconds: {timeout}, failureThreshold: {failures}}}
  realServerSelector: {{matchLabels: {{app: detection}}}}
"
    );
    for host in [VICTIM.host, SURVIVOR.host] {
        let _ = write!(
            text,
            "---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {host}, labels: {{app: detection}}}}
spec:
  target: {{type: Node, node: {{name: {host}}}}}
"
        );
    }
    text
}

fn keepalived_configuration(address: &str) -> String {
    let (period, timeout, failures) = SETTINGS;
    let mut text = format!(
        "virtual_server {address} {PORT} {{\n delay_loop {period}\n lb_algo rr\n lb_kind DR\n protocol TCP\n alpha\n"
    );
    for real_server in [VICTIM.address, SURVIVOR.address] {
        let _ = write!(
            text,
            "real_server {real_server} {PORT} {{\n weight 1\n TCP_CHECK {{\n connect_timeout {timeout}\n retry {}\n \
             delay_before_retry {period}\n }}\n }}\n",
            failures - 1
        );
    }
    text + "}\n"
}

fn ldirectord_configuration(address: &str) -> String {
    let (period, timeout, failures) = SETTINGS;
    format!(
        "checktimeout={timeout}\nnegotiatetimeout={timeout}\ncheckinterval={period}\nfailurecount={failures}\nquiescent=no\n\
         supervised=yes\nlogfile=\"{FOLDER}/ldirectord.log\"\n\
         virtual={address}:{PORT}\n\treal={}:{PORT} gate 1\n\treal={}:{PORT} gate 1\n\
         \tscheduler=rr\n\tprotocol=tcp\n\tchecktype=connect\n",
        VICTIM.address, SURVIVOR.address
    )
}

/// Two more directors that have their address from the start; and the real servers answer for these without telling it by
/// ARP, as ours have it from their agents.
fn start_others(lab: &Lab) -> Result<()> {
    let mut script = format!(
        ". {}/e2e/machine/hosts.sh\nmkdir -p {FOLDER}\n",
        lab.repository.display()
    );
    for (name, host, last, address) in OTHERS {
        let (text, command) = if name == "keepalived" {
            let words = format!(
                "keepalived --check --dont-fork --log-console --use-file {FOLDER}/keepalived.conf --pid {FOLDER}/main.pid \
                 --checkers_pid {FOLDER}/checkers.pid"
            );
            (keepalived_configuration(address), words)
        } else {
            let words = format!("ldirectord {FOLDER}/ldirectord.conf start");
            (ldirectord_configuration(address), words)
        };
        let _ = write!(script,
            "host {host} {last} out in && gateway {host} out
             ip -n {host} address add {address}/32 dev out
             ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.vs.expire_nodest_conn=1
             for web in {} {}; do
                 ip netns exec $web sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
                 ip -n $web address add {address}/32 dev lo
             done
             printf %s {} >{FOLDER}/{name}.conf
             setsid ip netns exec {host} {command} >{FOLDER}/{name}.out 2>&1 </dev/null &\n",
            VICTIM.host,
            SURVIVOR.host,
            quote(&text),
        );
    }
    lab.guest.run(&script).map(drop)
}

/// Every director's figures of every kind of death, and ours as a part of theirs.
fn figures(deaths: &[Death]) -> Result<Value> {
    let (period, timeout, failures) = SETTINGS;
    let mut seen: BTreeMap<(Kind, &str), Vec<&Clients>> = BTreeMap::new();
    for death in deaths {
        for (director, clients) in &death.clients {
            seen.entry((death.kind, director))
                .or_default()
                .push(clients);
        }
    }
    let mut kinds = Map::new();
    for kind in [Kind::Refused, Kind::Silent] {
        let waited = if kind == Kind::Silent { timeout } else { 0 };
        let bound = f64::from(period * failures + waited) + ALLOWANCE_SECONDS;
        let mut directors = Map::new();
        let mut medians = BTreeMap::new();
        for ((_, name), clients) in seen.iter().filter(|((of, _), _)| *of == kind) {
            let mut seconds: Vec<f64> = clients.iter().map(|one| one.removed_seconds).collect();
            seconds.sort_by(f64::total_cmp);
            ensure!(!seconds.is_empty(), "no death was seen of {name}");
            let median = seconds[seconds.len() / 2];
            medians.insert(*name, median);
            let figures = json!({
                "deaths": seconds.len(),
                "minimum_seconds": seconds[0],
                "median_seconds": median,
                "maximum_seconds": seconds[seconds.len() - 1],
                "over_bound": seconds.iter().filter(|seconds| **seconds > bound).count(),
                "failed_clients_before": clients.iter().map(|one| one.failed_before).sum::<usize>(),
                "failed_clients_after": clients.iter().map(|one| one.failed_after.len()).sum::<usize>(),
            });
            directors.insert((*name).to_owned(), figures);
        }
        let ours = medians.get(OURS).context("no figures of ours")?;
        let ratio = |name: &str| medians.get(name).map(|theirs| ours / theirs);
        let figures = json!({
            "bound_seconds": bound,
            "median_ratio_to_keepalived": ratio("keepalived"),
            "median_ratio_to_ldirectord": ratio("ldirectord"),
            "directors": directors,
        });
        let name = serde_json::to_value(kind)?;
        kinds.insert(name.as_str().context("a name")?.to_owned(), figures);
    }
    Ok(Value::Object(kinds))
}
