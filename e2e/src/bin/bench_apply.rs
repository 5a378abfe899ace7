//! `make bench-apply`: from the write of a VirtualService to the first packet forwarded, and the agent's
//! memory with 10,100 rules. Tier 2, one run; the last line is one JSON object.
//!
//! What is not ours is measured in the same run: an API server's way from a write to a watch, twice on the
//! path (VirtualService to controller, NodePlan to agent).

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::config::KubeConfigOptions;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use lvs_crds::VirtualService;
use lvs_e2e::await_condition::until;
use lvs_e2e::lab::{Lab, Machine};
use serde_json::json;

const NAMESPACE: &str = "bench";
const PROBE_PORT: u16 = 7100;

/// Latency of applying and memory of the agent.
#[derive(Parser)]
struct Arguments {
    /// VirtualServices that are applied one after another.
    #[arg(long, default_value_t = 50)]
    runs: u8,
    /// Folder for state and logs.
    #[arg(long, default_value = "e2e/.run/bench-apply")]
    state: PathBuf,
}

struct Spread {
    p50: f64,
    p99: f64,
    least: f64,
    most: f64,
}

fn spread(milliseconds: &mut [f64]) -> Result<Spread> {
    ensure!(!milliseconds.is_empty(), "nothing was measured");
    milliseconds.sort_by(f64::total_cmp);
    let last = milliseconds.len() - 1;
    let at = |percent: usize| milliseconds[(last * percent).div_ceil(100)];
    Ok(Spread {
        p50: at(50),
        p99: at(99),
        least: milliseconds[0],
        most: milliseconds[last],
    })
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let forward = free_port()?;
    let lab = Lab::up(&arguments.state, Machine::Whole)?;
    let measured = lab
        .carry_out(&format!("127.0.0.1:{forward}"), PROBE_PORT)
        .and_then(|()| measure(&lab, forward, arguments.runs));
    let ended = lab.down();
    let line = measured?;
    ended?;
    println!("{line}");
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

fn measure(lab: &Lab, forward: u16, runs: u8) -> Result<serde_json::Value> {
    lab.cluster.namespace(NAMESPACE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let kubeconfig = kube::config::Kubeconfig::read_from(lab.cluster.kubeconfig())?;
    let client = runtime.block_on(async {
        anyhow::Ok(Client::try_from(
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?,
        )?)
    })?;
    let hop = spread(&mut runtime.block_on(hops(&client, usize::from(runs)))?)?;
    println!(
        "write to watch event: p50 {:.1} ms, p99 {:.1} ms (one hop; the path has two)",
        hop.p50, hop.p99
    );
    let apply = latency(lab, &runtime, &client, forward, runs)?;
    println!(
        "apply to first packet: p50 {:.0} ms, p99 {:.0} ms ({:.0}–{:.0}), of {runs}",
        apply.p50, apply.p99, apply.least, apply.most
    );
    let ours = (apply.p50 - 2.0 * hop.p50).max(0.0) / apply.p50;
    println!(
        "share that is not the API server's two hops: {:.0} %",
        ours * 100.0
    );
    let (rules, resident, peak) = memory(lab, 2 * (usize::from(runs) + 1))?;
    println!("agent of lb-a with {rules} rules: {resident:.1} MB resident, {peak:.1} MB at most");
    Ok(json!({
        "bench": "apply", "runs": runs,
        "apply_to_first_packet_milliseconds": {"p50": apply.p50, "p99": apply.p99, "least": apply.least, "most": apply.most},
        "api_hop_milliseconds": {"p50": hop.p50, "p99": hop.p99},
        "share_ours": ours,
        "agent": {"rules": rules, "resident_megabytes": resident, "peak_megabytes": peak},
    }))
}

/// From a create to its watch event, on one client.
async fn hops(client: &Client, count: usize) -> Result<Vec<f64>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut events = watcher(api.clone(), watcher::Config::default())
        .applied_objects()
        .boxed();
    let mut seen = Vec::new();
    for index in 0..count {
        let name = format!("hop-{index}");
        let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let begun = Instant::now();
        let parameters = PostParams::default();
        let (created, event) = tokio::join!(api.create(&parameters, &object), async {
            while let Some(event) = events.try_next().await? {
                if event.metadata.name.as_deref() == Some(&name) {
                    return anyhow::Ok(begun.elapsed());
                }
            }
            anyhow::bail!("the watch ended")
        });
        created?;
        seen.push(event?.as_secs_f64() * 1000.0);
    }
    // The first one also opened the connection.
    Ok(seen.split_off(1))
}

fn latency(
    lab: &Lab,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    forward: u16,
    runs: u8,
) -> Result<Spread> {
    let probe = std::env::current_exe()?.with_file_name("probe");
    let probe = probe.display();
    lab.guest.run(&format!(
        "setsid {probe} 0.0.0.0:{PROBE_PORT} client >/run/probe.log 2>&1 </dev/null &"
    ))?;
    lab.cluster.apply_text(
        NAMESPACE,
        "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-1, labels: {app: web}}
spec: {target: {type: Node, node: {name: web-1}}}
",
    )?;
    let api: Api<VirtualService> = Api::namespaced(client.clone(), NAMESPACE);
    let mut measured = Vec::new();
    for run in 0..=runs {
        // One address, other ports: the real server and the master hold it after the first one.
        let port = 2000 + u16::from(run);
        let object: VirtualService = serde_json::from_value(json!({
            "apiVersion": "lvs.dev/v1alpha1", "kind": "VirtualService", "metadata": {"name": format!("run-{run}")},
            "spec": {"addresses": ["172.16.2.230"], "ports": [{"port": port, "realServerPort": 80}],
                "forwarding": {"type": "NAT"}, "scheduler": {"name": "rr"},
                "realServerSelector": {"matchLabels": {"app": "web"}}, "virtualRouterName": "bench"},
        }))?;
        if run == 0 {
            router(lab)?;
        }
        let mut stream = TcpStream::connect(("127.0.0.1", forward))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(90)))?;
        stream.write_all(format!("172.16.2.230:{port}\n").as_bytes())?;
        let begun = Instant::now();
        runtime.block_on(api.create(&PostParams::default(), &object))?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        let elapsed = begun.elapsed().as_secs_f64() * 1000.0;
        ensure!(
            answer
                .trim()
                .parse::<u32>()
                .is_ok_and(|attempts| attempts > 0),
            "run {run}: the probe said {answer:?}"
        );
        // The first brings the address, the way back and every connection up.
        if run > 0 {
            measured.push(elapsed);
        }
    }
    spread(&mut measured)
}

fn router(lab: &Lab) -> Result<()> {
    lab.cluster.apply(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: bench}
spec:
  directors: [{nodeName: lb-a}]
  addressPools: [{name: bench, addresses: [172.16.2.230]}]
  additionalAddresses: [{address: 192.168.2.230}]
  grants: [{namespaces: {from: All}, addressPoolNames: [bench], realServerNodes: All}]
",
    )?;
    lab.await_true(&["virtualrouters.lvs.dev", "bench"], "Ready")
        .map(drop)
}

/// Rules in the kernel, resident and peak memory in MB of the agent of lb-a with 100 services of 100 real servers
/// beside the `others` rules that are there.
fn memory(lab: &Lab, others: usize) -> Result<(usize, f64, f64)> {
    let mut yaml = String::new();
    for index in 0..100 {
        write!(
            yaml,
            "---\napiVersion: lvs.dev/v1alpha1\nkind: RealServer\nmetadata: {{name: bulk-{index}, labels: {{app: bulk}}}}\n\
             spec: {{target: {{type: Addresses, addresses: [192.168.2.{}]}}}}\n",
            101 + index
        )?;
    }
    for index in 0..100 {
        write!(
            yaml,
            "---\napiVersion: lvs.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: bulk-{index}}}\n\
             spec: {{addresses: [172.16.2.220], ports: [{{port: {}}}], forwarding: {{type: DR}}, \
             healthChecks: [{{name: nothing, type: None}}], realServerSelector: {{matchLabels: {{app: bulk}}}}}}\n",
            3000 + index
        )?;
    }
    lab.cluster.apply_text(NAMESPACE, &yaml)?;
    let count = until(
        Duration::from_mins(5),
        "10,100 more rules in the kernel of lb-a",
        || {
            let count: usize = lab
                .guest
                .on("lb-a", "ipvsadm -Sn | wc -l")?
                .trim()
                .parse()?;
            Ok(if count == 10_100 + others {
                Ok(count)
            } else {
                Err(count)
            })
        },
    )?;
    let work = lab.agent_work("lb-a")?;
    // Two rounds of the loop with everything in place.
    let rounds = lab.agent_metric("lb-a", "lvs_agent_passes_total")?;
    until(
        Duration::from_mins(2),
        "two more rounds of the sync loop",
        || {
            let now = lab.agent_metric("lb-a", "lvs_agent_passes_total")?;
            Ok(if now >= rounds + 2.0 {
                Ok(())
            } else {
                Err(now)
            })
        },
    )?;
    let status = lab.guest.run(&format!(
        "grep -E '^(VmRSS|VmHWM)' /proc/$(cat {work}/pid)/status"
    ))?;
    let of = |name: &str| -> Result<f64> {
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
            .with_context(|| format!("{name} in {status}"))?
            .parse()?;
        Ok(kilobytes / 1024.0)
    };
    Ok((count, of("VmRSS")?, of("VmHWM")?))
}
