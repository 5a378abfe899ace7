//! Other people's programs on the same nodes: the real ones, on their own terms. What they take away is put back, counted and
//! told with the cure; what they make is left alone; with the cure nothing is taken away.

use anyhow::{Context, Result};

use super::Story;
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};

mod kube_proxy;
mod network_manager;
mod network_plugin;
mod systemd_networkd;

pub(super) fn stories() -> Vec<Story> {
    [
        systemd_networkd::stories(),
        kube_proxy::stories(),
        network_manager::stories(),
        network_plugin::stories(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A host's sysctls as they were when this was made, and are again when it is dropped. Services of ours set some: what there was
/// of them at the one moment is to be there at the other.
struct Sysctls<'a> {
    lab: &'a Lab,
    host: String,
    file: String,
}

impl<'a> Sysctls<'a> {
    fn keep(lab: &'a Lab, host: &str) -> Result<Self> {
        let file = lab.guest.on(
            host,
            "file=$(mktemp /run/sysctls.XXXXXX); cd /proc/sys/net\n\
             for path in ipv4/ip_forward netfilter/nf_conntrack_tcp_be_liberal ipv4/vs/* ipv4/conf/*/* ipv6/conf/*/*; do\n\
             { read -r value <$path; } 2>/dev/null && echo $path $value; done >$file\necho $file",
        )?;
        Ok(Self {
            lab,
            host: host.to_owned(),
            file: file.trim().to_owned(),
        })
    }
}

impl Drop for Sysctls<'_> {
    fn drop(&mut self) {
        let script = format!(
            "cd /proc/sys/net; while read -r path value; do [ -e $path ] || continue; read -r now <$path\n\
             [ \"$now\" = \"$value\" ] || echo \"$value\" >$path; done <{0} 2>/dev/null; rm -f {0}",
            self.file
        );
        let _ = self.lab.guest.try_on(&self.host, &script);
    }
}

/// A program of somebody else on one host, in a mount namespace of its own, until it is dropped. The host's sysctls are then as
/// they were before it was started.
struct Foreign<'a> {
    lab: &'a Lab,
    host: String,
    process: String,
    log: String,
    /// What else is to be undone on the host, once it has ended.
    undo: String,
    /// None once it has ended.
    sysctls: Option<Sysctls<'a>>,
}

impl<'a> Foreign<'a> {
    /// Runs a bash script that ends by `exec` of the program. Files of the host are its own as far as the script mounts over them.
    fn start(lab: &'a Lab, host: &str, script: &str) -> Result<Self> {
        Self::run(Sysctls::keep(lab, host)?, script)
    }

    /// As [`start`](Self::start), on a host of which it is known what it was like.
    fn run(sysctls: Sysctls<'a>, script: &str) -> Result<Self> {
        let (lab, host) = (sysctls.lab, sysctls.host.clone());
        let log = lab
            .guest
            .run("mktemp /run/foreign.XXXXXX")?
            .trim()
            .to_owned();
        let script = quote(&format!("set -e\n{script}"));
        let process = lab.guest.on(
            &host,
            &format!("setsid unshare --mount bash -c {script} >>{log} 2>&1 </dev/null & echo $!"),
        )?;
        Ok(Self {
            lab,
            host,
            process: process.trim().to_owned(),
            log,
            undo: String::new(),
            sysctls: Some(sysctls),
        })
    }

    /// What it wrote, output and errors.
    fn log(&self) -> Result<String> {
        self.lab.guest.run(&format!("cat {}", self.log))
    }

    /// Forgets what it wrote.
    fn clear_log(&self) -> Result<()> {
        self.lab.guest.run(&format!(": >{}", self.log)).map(drop)
    }

    /// Waits until it has written something.
    fn await_log(&self, text: &str) -> Result<()> {
        until(LIMIT, &format!("{text:?} in its log"), || {
            let log = self.log()?;
            Ok(if log.contains(text) { Ok(()) } else { Err(log) })
        })
        .with_context(|| format!("on {}", self.host))
    }

    /// Ends it as an administrator would, and leaves the host as it is.
    fn end(mut self) -> Result<Sysctls<'a>> {
        let process = &self.process;
        self.lab.guest.run(&format!(
            "kill {process}; for i in $(seq 200); do\n\
             {{ read -r _ _ state _ </proc/{process}/stat; }} 2>/dev/null || exit 0\n[ $state = Z ] && exit 0; sleep 0.05; done; exit 1"
        ))?;
        self.sysctls.take().context("it had ended before")
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        if self.sysctls.is_some() {
            let script = format!("kill -KILL {} 2>/dev/null\n{}", self.process, self.undo);
            let _ = self.lab.guest.try_on(&self.host, &script);
        }
    }
}

/// Repairs of one kind of thing that a node's agent counted.
fn repaired(lab: &Lab, node: &str, object: &str) -> Result<f64> {
    lab.agent_metric(
        node,
        &format!("lvs_agent_drift_repaired_total{{object=\"{object}\"}}"),
    )
}

/// Waits until it is told of an object in its condition, with these words, and by a warning Event.
fn await_told(lab: &Lab, name: &str, words: &[&str]) -> Result<String> {
    let object = ["-n", super::NAMESPACE, "virtualservices.lvs.dev", name];
    let message = lab.await_condition(&object, "Programmed", "True", "DriftRepaired")?;
    for word in words {
        anyhow::ensure!(message.contains(word), "without {word:?}: {message}");
    }
    until(LIMIT, "an Event that warns", || {
        let events = lab.cluster.get(&[
            "events.events.k8s.io",
            "-n",
            super::NAMESPACE,
            "--field-selector",
            "reason=DriftRepaired",
        ])?;
        let found = events["items"].as_array().is_some_and(|list| {
            list.iter()
                .any(|event| event["type"] == "Warning" && event["regarding"]["name"] == name)
        });
        Ok(if found {
            Ok(())
        } else {
            Err(events.to_string())
        })
    })?;
    Ok(message)
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
