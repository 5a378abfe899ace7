//! Tier 2: everything up, in order, and what stories share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::await_condition::until;
use crate::cluster::{Cluster, condition};
use crate::guest::Guest;
use crate::kubelet::{Images, Kubelet, NodeSpec, guest_work};

/// Namespace of the product.
pub const OPERATOR_NAMESPACE: &str = "lvs-system";
/// Limit for anything that should take a second, under load.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Every host of the machine; see `e2e/machine/machine-init.sh`.
pub const HOSTS: [&str; 10] = [
    "client", "router", "lb-a", "lb-b", "web-1", "web-2", "web-3", "plain-1", "plain-2", "far-1",
];

/// Facts about every host, see `e2e/machine/look.sh`.
pub type Hosts = BTreeMap<String, BTreeSet<String>>;

/// A line of `e2e/machine/look.sh` without what changes by itself: numbers of links, remaining lifetimes.
fn fact(line: &str) -> Option<String> {
    let line = line.trim();
    let line = match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    let fact = match line.split_once(": <") {
        // State and counters of a link are its own; only that it is there counts.
        Some((device, _)) => format!("link {}", device.split('@').next().unwrap_or(device)),
        None => match line.split_once("valid_lft") {
            Some((address, _)) => address.trim_end().to_owned(),
            None => match line.split_once(" expires ") {
                Some((route, rest)) => {
                    let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
                    format!("{route} {rest}")
                }
                None => line.to_owned(),
            },
        },
    };
    (!fact.is_empty()).then_some(fact)
}

/// The lab.
pub struct Lab {
    /// The guest.
    pub guest: Guest,
    /// The control plane.
    pub cluster: Cluster,
    /// The repository.
    pub repository: PathBuf,
    /// State and logs.
    pub state: PathBuf,
    kubelet: Option<Kubelet>,
}

/// Cluster nodes and their InternalIPs.
pub fn nodes() -> Vec<NodeSpec> {
    [
        ("lb-a", 11),
        ("lb-b", 12),
        ("web-1", 21),
        ("web-2", 22),
        ("web-3", 23),
    ]
    .into_iter()
    .map(|(name, last)| NodeSpec {
        name: name.into(),
        addresses: vec![format!("192.168.2.{last}"), format!("fd00:192::{last}")],
    })
    .chain([NodeSpec {
        name: "far-1".into(),
        addresses: vec!["10.9.0.41".into(), "fd00:9::41".into()],
    }])
    .collect()
}

/// The repository this was built from.
pub fn repository() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here
        .parent()
        .context("the e2e folder has a parent")?
        .to_owned())
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    println!(
        "  {what:<48} {:>6.1} s{}",
        start.elapsed().as_secs_f64(),
        if result.is_ok() { "" } else { "  FAILED" }
    );
    result
}

/// Ends everything that a lab started in `state`.
fn end(state: &Path) -> Result<()> {
    let status = Command::new(repository()?.join("e2e/machine/down.sh"))
        .arg(state)
        .status()?;
    if !status.success() {
        bail!("e2e/machine/down.sh {}: {status}", state.display());
    }
    Ok(())
}

/// One of the relays of `e2e/machine/boot.sh`: its command, and what follows the state folder.
fn carry(repository: &Path, state: &Path, words: &[&str]) -> Result<()> {
    let (command, more) = words.split_first().context("a command of boot.sh")?;
    let status = Command::new(repository.join("e2e/machine/boot.sh"))
        .arg(command)
        .arg(state)
        .args(more)
        .status()?;
    if !status.success() {
        bail!("e2e/machine/boot.sh {words:?}: {status}");
    }
    Ok(())
}

/// From now on an interrupt ends the lab in `state` before it ends this process.
fn end_on_signal(state: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
        });
        eprintln!("interrupted; ending the lab in {}", state.display());
        if let Err(error) = end(&state) {
            eprintln!("{error:#}");
        }
        #[expect(clippy::exit, reason = "the main thread may be anywhere in a story")]
        std::process::exit(130);
    })?;
    Ok(())
}

/// What the guest's kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Everything the product can use.
    Whole,
    /// No IPv6 (`ipv6.disable=1`) and no tunnel modules.
    Bare,
}

impl Lab {
    /// Images: `target/images`, or the folder in `LVS_IMAGES`. Boots the machine, starts the control plane, installs the chart and waits until every agent is ready.
    pub fn up(state: &Path, machine: Machine) -> Result<Self> {
        let repository = repository()?;
        std::fs::create_dir_all(state)?;
        let state = state.canonicalize()?;
        end_on_signal(state.clone())?;
        // What a run that was killed may have left.
        end(&state)?;
        let _ = std::fs::remove_dir_all(state.join("pods"));
        let lab = Self::start(repository, state.clone(), machine);
        if lab.is_err() {
            end(&state)?;
        }
        lab
    }

    fn start(repository: PathBuf, state: PathBuf, machine: Machine) -> Result<Self> {
        let mut boot = Command::new(repository.join("e2e/machine/boot.sh"))
            .arg("up")
            .arg(&state)
            .args((machine == Machine::Bare).then_some("bare"))
            .spawn()
            .context("starting e2e/machine/boot.sh")?;
        let cluster = step("control plane", || {
            Cluster::up(&repository, &state.join("cluster"))
        });
        let mut images = Images::default();
        let archives = std::env::var_os("LVS_IMAGES")
            .map_or_else(|| repository.join("target/images"), PathBuf::from);
        let unpacked = step("images unpacked", || {
            let version = env!("CARGO_PKG_VERSION");
            for name in ["controller", "agent"] {
                images.add(
                    &repository,
                    &format!("localhost/lvs-operator/{name}:{version}"),
                    &archives.join(format!("{name}.tar")),
                    &state.join("images"),
                )?;
            }
            Ok(())
        });
        // Awaited whatever happened before: what it starts must not outlive this.
        step("machine booted", || {
            if !boot.wait()?.success() {
                bail!(
                    "the machine did not boot, see {}",
                    state.join("logs").display()
                );
            }
            Ok(())
        })?;
        let cluster = cluster?;
        unpacked?;
        carry(
            &repository,
            &state,
            &["carry-in", &cluster.port.to_string()],
        )?;
        let guest = Guest::open(&state);
        let kubelet = Kubelet::start(&cluster, &guest, &repository, &state, images, &nodes())?;
        let lab = Self {
            guest,
            cluster,
            repository,
            state,
            kubelet: Some(kubelet),
        };
        step("helm install", || {
            let chart = lab
                .repository
                .join("charts/lvs-operator")
                .display()
                .to_string();
            let values = lab
                .repository
                .join("e2e/machine/values.yaml")
                .display()
                .to_string();
            lab.cluster.helm(&[
                "install",
                "lvs-operator",
                &chart,
                "--namespace",
                OPERATOR_NAMESPACE,
                "--create-namespace",
                "--values",
                &values,
            ])
        })?;
        step("agents and controllers ready", || lab.await_product())?;
        Ok(lab)
    }

    /// The lab that another process keeps up in `state`.
    pub fn attach(state: &Path) -> Result<Self> {
        let repository = repository()?;
        let state = state.canonicalize()?;
        let cluster = Cluster::open(&repository, &state.join("cluster"))?;
        let guest = Guest::open(&state);
        Ok(Self {
            guest,
            cluster,
            repository,
            state,
            kubelet: None,
        })
    }

    /// From now on the guest reaches `port` of this machine's loopback at 10.0.2.2.
    pub fn carry_in(&self, port: u16) -> Result<()> {
        let words = ["carry-in", &port.to_string()];
        carry(&self.repository, &self.state, &words)
    }

    /// From now on `listen` ("127.0.0.1:1234") of this machine is `port` of the guest's first namespace.
    pub fn carry_out(&self, listen: &str, port: u16) -> Result<()> {
        let words = ["carry-out", listen, &port.to_string()];
        carry(&self.repository, &self.state, &words)
    }

    /// The kubelet probes nothing until the answer is dropped. A lab that another process keeps up goes on as it was.
    pub fn without_probes(&self) -> WithoutProbes<'_> {
        if let Some(kubelet) = &self.kubelet {
            kubelet.set_quiet(true);
        }
        WithoutProbes(self)
    }

    /// Waits until every pod of the product is ready.
    pub fn await_product(&self) -> Result<()> {
        until(
            Duration::from_mins(5),
            "all pods of the product ready",
            || {
                let set =
                    self.cluster
                        .get(&["-n", OPERATOR_NAMESPACE, "daemonsets,deployments"])?;
                let rows: Vec<(String, i64, i64)> = set["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| {
                        let status = &item["status"];
                        let wanted = status["desiredNumberScheduled"]
                            .as_i64()
                            .or(item["spec"]["replicas"].as_i64());
                        let ready = status["numberReady"]
                            .as_i64()
                            .or(status["readyReplicas"].as_i64());
                        (
                            item["metadata"]["name"].to_string(),
                            wanted.unwrap_or(-1),
                            ready.unwrap_or(0),
                        )
                    })
                    .collect();
                let good = rows.len() == 2
                    && rows
                        .iter()
                        .all(|(_, wanted, ready)| wanted == ready && *wanted > 0);
                Ok(if good { Ok(()) } else { Err(rows) })
            },
        )
    }

    /// Ends everything that [`Lab::up`] started; nothing after [`Lab::attach`].
    pub fn down(self) -> Result<()> {
        match self.kubelet {
            Some(mut kubelet) => {
                kubelet.stop();
                end(&self.state)
            }
            None => Ok(()),
        }
    }

    /// Waits until a condition of an object is `True`; the error tells reason and message.
    pub fn await_true(&self, words: &[&str], type_: &str) -> Result<Value> {
        until(LIMIT, &format!("{type_}=True of {words:?}"), || {
            let object = self.cluster.get(words)?;
            let current =
                object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let found = condition(&object, type_);
            Ok(if found.0 == "True" && current {
                Ok(object)
            } else {
                Err(found)
            })
        })
    }

    /// Waits until a condition of an object is `False` with this reason; returns the message.
    pub fn await_reason(&self, words: &[&str], type_: &str, reason: &str) -> Result<String> {
        self.await_condition(words, type_, "False", reason)
    }

    /// Waits until a condition of an object has this status and reason; returns the message.
    pub fn await_condition(
        &self,
        words: &[&str],
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        until(
            LIMIT,
            &format!("{type_}={status} {reason} of {words:?}"),
            || {
                let object = self.cluster.get(words)?;
                let (seen, found, message) = condition(&object, type_);
                Ok(if seen == status && found == reason {
                    Ok(message)
                } else {
                    Err((seen, found, message))
                })
            },
        )
    }

    /// Waits until a VirtualService is Ready, every node holds what it asks for and some director holds its address;
    /// returns that node.
    pub fn await_serving(&self, namespace: &str, name: &str) -> Result<String> {
        let words = ["-n", namespace, "virtualservices.lvs.dev", name];
        self.await_true(&words, "Programmed")?;
        self.await_true(&words, "Ready")?;
        until(LIMIT, &format!("a master of {namespace}/{name}"), || {
            let object = self.cluster.get(&words)?;
            let master = object["status"]["master"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            Ok(if master.is_empty() {
                Err(master)
            } else {
                Ok(master)
            })
        })
    }

    /// The node in whose kernel an address is now.
    pub fn holders(&self, address: &str) -> Result<Vec<String>> {
        let output = self.guest.run(&format!(
            "for host in lb-a lb-b; do ip -n $host -br address show dev out | grep -qw '{address}' && echo $host; done; true"
        ))?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Waits until exactly one director holds an address; returns it.
    pub fn await_holder(&self, address: &str) -> Result<String> {
        until(LIMIT, &format!("one holder of {address}"), || {
            let holders = self.holders(address)?;
            Ok(match &holders[..] {
                [one] => Ok(one.clone()),
                _ => Err(holders),
            })
        })
    }

    /// IPVS rules of a host as `ipvsadm -Sn` prints them, sorted.
    pub fn ipvs_rules(&self, host: &str) -> Result<Vec<String>> {
        let mut rules: Vec<String> = self
            .guest
            .on(host, "ipvsadm -Sn")?
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        rules.sort();
        Ok(rules)
    }

    /// Name of the controller's Deployment.
    pub fn controller_deployment(&self) -> Result<String> {
        let list = self
            .cluster
            .get(&["-n", OPERATOR_NAMESPACE, "deployments"])?;
        list["items"][0]["metadata"]["name"]
            .as_str()
            .map(str::to_owned)
            .context("no Deployment")
    }

    /// Names of the controller's pods.
    pub fn controller_pods(&self) -> Result<Vec<String>> {
        let list = self.cluster.get(&["-n", OPERATOR_NAMESPACE, "pods"])?;
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["spec"]["hostNetwork"] != true)
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Folder in the guest of the agent's pod on a node.
    pub fn agent_work(&self, node: &str) -> Result<String> {
        let selector = format!("spec.nodeName={node}");
        let pods = self.cluster.get(&[
            "-n",
            OPERATOR_NAMESPACE,
            "pods",
            "--field-selector",
            &selector,
        ])?;
        let uid = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|pod| {
                pod["spec"]["hostNetwork"] == true && pod["metadata"]["deletionTimestamp"].is_null()
            })
            .and_then(|pod| pod["metadata"]["uid"].as_str())
            .with_context(|| format!("no agent pod on {node}"))?;
        Ok(guest_work(uid))
    }

    /// Sends a signal to a node's agent; with `hold` it is not started again until [`Lab::release_agent`].
    pub fn signal_agent(&self, node: &str, signal: &str, hold: bool) -> Result<()> {
        let work = self.agent_work(node)?;
        let hold = if hold {
            format!("touch {work}/hold;")
        } else {
            String::new()
        };
        self.guest
            .run(&format!("{hold} kill -{signal} $(cat {work}/pid)"))?;
        if hold.is_empty() {
            return Ok(());
        }
        until(LIMIT, "the agent ends", || {
            let output = self
                .guest
                .try_run(&format!("[ ! -d /proc/$(cat {work}/pid) ]"))?;
            Ok(if output.status == 0 {
                Ok(())
            } else {
                Err("still there")
            })
        })
    }

    /// Lets a held agent start again.
    pub fn release_agent(&self, node: &str) -> Result<()> {
        let work = self.agent_work(node)?;
        self.guest.run(&format!("rm -f {work}/hold")).map(drop)
    }

    /// A metric of a node's agent, summed over its label sets; 0 when absent.
    pub fn agent_metric(&self, node: &str, name: &str) -> Result<f64> {
        let text = self.guest.on(
            node,
            "curl --silent --show-error --max-time 10 http://127.0.0.1:9650/metrics",
        )?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{')))
            .filter_map(|line| {
                line.rsplit(' ')
                    .next()
                    .and_then(|word| word.parse::<f64>().ok())
            })
            .sum())
    }

    /// Everything of the hosts that the product could change.
    pub fn hosts(&self) -> Result<Hosts> {
        let script = format!(
            "bash {}/e2e/machine/look.sh {}",
            self.repository.display(),
            HOSTS.join(" ")
        );
        let mut hosts = Hosts::new();
        let mut name = String::new();
        for line in self.guest.run(&script)?.lines() {
            if let Some(host) = line.strip_prefix("== ") {
                host.clone_into(&mut name);
                hosts.insert(name.clone(), BTreeSet::new());
            } else if let (Some(text), Some(fact)) = (hosts.get_mut(&name), fact(line)) {
                text.insert(fact);
            }
        }
        Ok(hosts)
    }

    /// Waits until every host is as it was; the error shows the lines that differ.
    pub fn await_hosts(&self, before: &Hosts) -> Result<()> {
        until(LIMIT, "every host as it was before", || {
            let now = self.hosts()?;
            let mut differences = Vec::new();
            for (host, was) in before {
                let is = now.get(host).cloned().unwrap_or_default();
                differences.extend(
                    was.difference(&is)
                        .map(|line| format!("{host} lost: {line}")),
                );
                differences.extend(is.difference(was).map(|line| format!("{host} has: {line}")));
            }
            Ok(if differences.is_empty() {
                Ok(())
            } else {
                Err(differences)
            })
        })
    }
}

/// See [`Lab::without_probes`].
pub struct WithoutProbes<'a>(&'a Lab);

impl Drop for WithoutProbes<'_> {
    fn drop(&mut self) {
        if let Some(kubelet) = &self.0.kubelet {
            kubelet.set_quiet(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fact;

    #[test]
    fn a_fact_is_without_what_changes_by_itself() {
        let of = |line| fact(line).unwrap_or_default();
        assert_eq!(of("7: out@if6: <BROADCAST,UP> mtu 1500 qdisc"), "link out");
        assert_eq!(
            of(
                "7: out    inet 172.16.2.200/32 scope global noprefixroute out\\       valid_lft 2sec preferred_lft 0sec"
            ),
            "out    inet 172.16.2.200/32 scope global noprefixroute out\\"
        );
        assert_eq!(
            of("default via fe80::1 dev out expires 12sec pref medium"),
            "default via fe80::1 dev out pref medium"
        );
        assert_eq!(
            of("32766:\tfrom all lookup main"),
            "32766:\tfrom all lookup main"
        );
        assert_eq!(fact("   "), None);
    }
}
