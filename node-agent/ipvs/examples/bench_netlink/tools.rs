//! The other tools: their input files, and how long they take.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lvs_ipvs::{Client, ClientOptions, DumpError, IpvsKernel};

use crate::rules;

/// Their input.
pub struct Files {
    /// For `ipvsadm -R`: add all.
    pub add: PathBuf,
    /// For `ipvsadm -R`: every weight back to the first one.
    pub edit: PathBuf,
    /// For keepalived.
    pub keepalived: PathBuf,
    /// Where keepalived puts its pid files.
    pub directory: PathBuf,
}

impl Files {
    /// Writes them.
    pub fn write(directory: &Path) -> Result<Self> {
        let (mut add, mut edit, mut keepalived) = (String::new(), String::new(), String::new());
        let (port, weight) = (rules::PORT, rules::WEIGHT);
        keepalived.push_str("global_defs {\n}\n");
        for service in 0..rules::SERVICES {
            let address = rules::service_address(service);
            writeln!(add, "-A -t {address}:{port} -s wlc")?;
            writeln!(
                keepalived,
                "virtual_server {address} {port} {{\n lb_algo wlc\n lb_kind DR\n protocol TCP"
            )?;
            for destination in 0..rules::DESTINATIONS {
                let real = rules::destination_address(service, destination);
                writeln!(
                    add,
                    "-a -t {address}:{port} -r {real}:{port} -g -w {weight}"
                )?;
                writeln!(
                    edit,
                    "-e -t {address}:{port} -r {real}:{port} -g -w {weight}"
                )?;
                writeln!(
                    keepalived,
                    " real_server {real} {port} {{\n  weight {weight}\n }}"
                )?;
            }
            keepalived.push_str("}\n");
        }
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = directory.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            add: write("add", add)?,
            edit: write("edit", edit)?,
            keepalived: write("keepalived.conf", keepalived)?,
            directory: directory.to_owned(),
        })
    }
}

/// Runs a command to its successful end.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "{program} {}: {status}",
        arguments.join(" ")
    );
    Ok(())
}

/// `ipvsadm -R` with a file.
pub fn ipvsadm_restore(file: &Path) -> Result<Duration> {
    let started = Instant::now();
    let status = Command::new("ipvsadm")
        .arg("-R")
        .stdin(File::open(file)?)
        .status()?;
    let elapsed = started.elapsed();
    ensure!(status.success(), "ipvsadm -R <{}: {status}", file.display());
    Ok(elapsed)
}

/// `ipvsadm -Sn` into nothing.
pub fn ipvsadm_save_time() -> Result<Duration> {
    let started = Instant::now();
    let status = Command::new("ipvsadm")
        .arg("-Sn")
        .stdout(Stdio::null())
        .status()?;
    let elapsed = started.elapsed();
    ensure!(status.success(), "ipvsadm -Sn: {status}");
    Ok(elapsed)
}

/// What `ipvsadm -Sn` prints.
pub fn ipvsadm_save() -> Result<String> {
    let output = Command::new("ipvsadm").arg("-Sn").output()?;
    ensure!(output.status.success(), "ipvsadm -Sn: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// From the start of keepalived's checker process, without a single check, until the kernel holds all rules.
pub fn keepalived_load(files: &Files) -> Result<Duration> {
    let mut client = Client::new(ClientOptions::default());
    client.dump()?;
    let pid_file = |name: &str| format!("{}", files.directory.join(name).display());
    let started = Instant::now();
    let mut child = Command::new("keepalived")
        .args([
            "--dont-fork",
            "--check",
            "--dont-respawn",
            "--dont-release-ipvs",
            "--no-syslog",
        ])
        .args(["--use-file", &files.keepalived.display().to_string()])
        .args([
            "--pid",
            &pid_file("keepalived.pid"),
            "--checkers_pid",
            &pid_file("checkers.pid"),
        ])
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run keepalived")?;
    let loaded = await_rules(&mut client, started);
    let stopped = run("kill", &[&child.id().to_string()]).and_then(|()| Ok(child.wait()?));
    let elapsed = loaded?;
    stopped?;
    Ok(elapsed)
}

/// Looks every 20 ms at what costs little, the destinations of the last service, and then at everything.
fn await_rules(client: &mut Client, started: Instant) -> Result<Duration> {
    let desired = rules::services(rules::WEIGHT);
    let last = desired.keys().next_back().copied().context("no services")?;
    loop {
        let seen = match client.destinations(&last) {
            // Not there yet.
            Err(DumpError::Unstable { .. }) => 0,
            destinations => destinations?.len(),
        };
        if seen == rules::DESTINATIONS {
            let elapsed = started.elapsed();
            let services = client.dump()?.services;
            if services == desired {
                return Ok(elapsed);
            }
            let seen: usize = services
                .values()
                .map(|state| state.destinations.len())
                .sum();
            if seen == rules::SERVICES * rules::DESTINATIONS {
                bail!("keepalived made other rules");
            }
        }
        ensure!(
            started.elapsed() < Duration::from_mins(5),
            "keepalived has not loaded its rules in 300 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
