//! Tier 2: everything up, in order, and what stories share.

mod hosts;
mod product;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::await_condition::until;
use crate::cluster::{Cluster, condition};
use crate::guest::Guest;
use crate::kubelet::{Images, Kubelet, NodeSpec};

pub use hosts::{HOSTS, Hosts};

/// Namespace of the product.
pub const OPERATOR_NAMESPACE: &str = "lvs-system";
/// Limit for anything that should take a second, under load.
pub const LIMIT: Duration = Duration::from_mins(1);

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
