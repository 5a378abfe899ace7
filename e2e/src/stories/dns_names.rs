//! A RealServer that stands for a name: its addresses serve as a real DNS server says, and stay while it says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::{until, until_equal};
use crate::kubelet::NAME_SERVER;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic::{self, Held};

const ADDRESS: &str = "172.16.2.252";
/// The machines behind the name are nobody's nodes.
const MACHINES: [&str; 2] = ["plain-1", "plain-2"];
/// Time to live of every record.
const TIME_TO_LIVE: Duration = Duration::from_secs(5);
/// Of the example.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const REAL_SERVER: [&str; 4] = ["-n", NAMESPACE, "lvsrs", "shop"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "dns_name",
        tells: "a record that changes moves the traffic when its TTL is over and the old address drains; a DNS that fails takes nothing away, over a restart either",
        run: dns_name,
    }]
}

fn dns_name(lab: &Lab) -> Result<()> {
    // The machines are the administrator's: their gateway is set by hand.
    let gateway = |words: &str| {
        MACHINES.into_iter().try_for_each(|machine| {
            let script = format!("ip route replace default via {words}");
            lab.guest.on(machine, &script).map(drop)
        })
    };
    let told = gateway("192.168.2.252").and_then(|()| told(lab));
    let gateways = gateway("192.168.2.254 dev in");
    told?;
    gateways
}

fn told(lab: &Lab) -> Result<()> {
    let mut dns = Dns::start(lab)?;
    dns.says(&["192.168.2.31"])?;
    lab.cluster.apply_example(NAMESPACE, "dns-name.yaml")?;
    let master = lab.await_serving(NAMESPACE, "shop")?;
    await_rules(lab, &master, &["192.168.2.31:8080 -m -w 1"])?;
    await_spread(lab, "plain-1")?;
    let shown = lab.cluster.get(&REAL_SERVER)?["status"]["summary"]["target"].clone();
    ensure!(shown == "shop.example", "column TARGET: {shown}");

    // The record moves.
    let held = Held::open(&lab.guest, "client", ADDRESS, 80, 2)?;
    dns.says(&["192.168.2.32"])?;
    let moved = Instant::now();
    await_rules(
        lab,
        &master,
        &["192.168.2.31:8080 -m -w 0", "192.168.2.32:8080 -m -w 1"],
    )
    .context("the old address drains, the new one serves")?;
    let took = moved.elapsed();
    println!("    the record changed, the traffic moved after {took:.1?} (TTL {TIME_TO_LIVE:?})");
    // A tenth of jitter, and what this machine takes for a look.
    ensure!(took < TIME_TO_LIVE * 3, "it took {took:?}");
    await_spread(lab, "plain-2")?;
    let active = traffic::active_connections(&lab.guest, &master)?;
    ensure!(
        active.get("192.168.2.31:8080").copied() == Some(2),
        "its connections go on while it drains: {active:?}"
    );
    await_rules(lab, &master, &["192.168.2.32:8080 -m -w 1"])?;
    ensure!(moved.elapsed() >= DRAIN_TIMEOUT, "it did not drain");
    drop(held);

    // Somebody rebinds the name.
    dns.says(&["192.168.2.32", "127.0.0.1", "192.0.2.7"])?;
    let message = lab.await_reason(&REAL_SERVER, "Accepted", "TargetNotPermitted")?;
    ensure!(message.contains("2 of 3 addresses"), "{message}");
    await_rules(lab, &master, &["192.168.2.32:8080 -m -w 1"])?;
    dns.says(&["192.168.2.32"])?;
    lab.await_true(&REAL_SERVER, "Accepted")?;

    // Nobody answers, nobody knows the name any more, nobody listens: what served serves.
    dns.signal("STOP")?;
    await_kept(
        lab,
        &master,
        "no answer from 10.96.0.10 within 5 s; the last address 192.168.2.32 stays",
    )?;
    dns.signal("CONT")?;
    dns.says(&[])?;
    await_kept(
        lab,
        &master,
        "there is no such name (NXDOMAIN); the last address 192.168.2.32 stays",
    )?;
    dns.end();
    await_kept(
        lab,
        &master,
        "no answer from 10.96.0.10 within 5 s; the last address 192.168.2.32 stays",
    )?;
    restart_controllers(lab)?;
    await_kept(lab, &master, "the last address 192.168.2.32 stays")
        .context("a controller that never heard an answer")?;

    // It answers again.
    let mut dns = Dns::start(lab)?;
    dns.says(&["192.168.2.31", "192.168.2.32"])?;
    await_rules(
        lab,
        &master,
        &["192.168.2.31:8080 -m -w 1", "192.168.2.32:8080 -m -w 1"],
    )?;
    lab.await_true(&REAL_SERVER, "ResolvedRefs").map(drop)
}

/// Waits until a message tells what is the matter, and looks whether everything works all the same.
fn await_kept(lab: &Lab, master: &str, words: &str) -> Result<()> {
    until(LIMIT, &format!("{words:?} of shop"), || {
        let message = lab.await_reason(&REAL_SERVER, "ResolvedRefs", "DnsNameNotResolved")?;
        Ok(if message.contains(words) {
            Ok(())
        } else {
            Err(message)
        })
    })?;
    await_rules(lab, master, &["192.168.2.32:8080 -m -w 1"])?;
    let seen = traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 6)?;
    ensure!(seen == [("plain-2".into(), 6)].into(), "{seen:?}");
    Ok(())
}

/// Waits until new connections go to one machine.
fn await_spread(lab: &Lab, machine: &str) -> Result<()> {
    let expected: traffic::Spread = [(machine.into(), 6)].into();
    until_equal(LIMIT, "who answers", &expected, || {
        traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 6)
    })
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

/// Pods of the controller, and the process of each.
pub(super) fn controllers(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let label = "app.kubernetes.io/component=controller";
    let pods = lab
        .cluster
        .get(&["-n", OPERATOR_NAMESPACE, "pods", "-l", label])?;
    let mut found = BTreeMap::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let file = lab.state.join("pods").join(uid).join("pid");
        let pid = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        found.insert(uid.to_owned(), pid.trim().to_owned());
    }
    ensure!(!found.is_empty(), "no pod of the controller");
    Ok(found)
}

/// Ends every controller and waits until others have taken their place.
fn restart_controllers(lab: &Lab) -> Result<()> {
    let before = controllers(lab)?;
    for pid in before.values() {
        run("kill", &["-KILL", pid])?;
    }
    until(LIMIT, "other processes of the controllers", || {
        let now = controllers(lab)?;
        let is_other = now.iter().all(|(uid, pid)| before.get(uid) != Some(pid));
        Ok(if is_other { Ok(()) } else { Err(now) })
    })?;
    lab.await_product()
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).output()?;
    ensure!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A DNS server beside each controller, as each has a network of its own; all have the same records.
struct Dns {
    hosts: PathBuf,
    processes: Vec<PathBuf>,
}

impl Dns {
    fn start(lab: &Lab) -> Result<Self> {
        let folder = lab.state.join("dns");
        std::fs::create_dir_all(&folder)?;
        let mut dns = Self {
            hosts: folder.join("hosts"),
            processes: Vec::new(),
        };
        std::fs::write(&dns.hosts, "")?;
        for (uid, pid) in controllers(lab)? {
            let file = folder.join(format!("{uid}.pid"));
            let arguments = [
                "-t",
                &pid,
                "-n",
                "dnsmasq",
                "--no-resolv",
                "--no-hosts",
                "--conf-file=/dev/null",
                "--user=root",
                "--bind-interfaces",
                "--local=/example/",
                &format!("--local-ttl={}", TIME_TO_LIVE.as_secs()),
                &format!("--listen-address={NAME_SERVER}"),
                &format!("--addn-hosts={}", dns.hosts.display()),
                &format!("--pid-file={}", file.display()),
            ];
            run("nsenter", &arguments)?;
            dns.processes.push(file);
        }
        Ok(dns)
    }

    /// From now on `shop.example` has these addresses.
    fn says(&mut self, addresses: &[&str]) -> Result<()> {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} shop.example\n"));
        std::fs::write(&self.hosts, lines.collect::<String>())?;
        self.signal("HUP")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.processes.iter().try_for_each(|file| {
            let pid = std::fs::read_to_string(file)?;
            run("kill", &[&format!("-{signal}"), pid.trim()])
        })
    }

    /// Nobody listens any more.
    fn end(&mut self) {
        // One that has gone by itself is gone, too.
        let _ = self.signal("KILL");
        self.processes.clear();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.end();
    }
}
