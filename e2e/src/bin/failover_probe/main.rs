//! Runs in the machine: new and long-lived connections to an address, who carries it, and how long an API write takes.
//!
//! `failover-probe LISTEN`: one conversation at a time, as `lvs_e2e::failover::record` has it: an [`Order`] as one line
//! of JSON, then [`Line`]s from here until a line or the end from there, then the rest and the summary.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod lease;
mod load;
mod monitor;
mod source;

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::channel;

use anyhow::{Context, Result, bail, ensure};
use lease::write_leases;
use load::load;
use lvs_e2e::failover::record::{Line, Microseconds, Order};
use lvs_e2e::namespace::enter;
use monitor::monitor;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::LocalSet;

fn main() -> Result<()> {
    let listen = std::env::args()
        .nth(1)
        .context("usage: failover-probe LISTEN")?;
    let listener = TcpListener::bind(&listen).with_context(|| format!("listening on {listen}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        if let Err(error) = converse(&stream) {
            let what = format!("{error:#}");
            let _ = writeln!(&stream, "{}", json!({"kind": "failed", "what": what}));
        }
    }
    Ok(())
}

fn now() -> Microseconds {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}

fn converse(stream: &std::net::TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(()); // somebody looked whether we are here
    }
    let order: Order = serde_json::from_str(&line).with_context(|| format!("order {line:?}"))?;
    let (lines, told) = channel::<Line>();
    let (stop, stopped) = watch::channel(false);
    let mut monitor = monitor(&order.carriers, order.address, &lines)?;
    let mut threads = Vec::new();
    if let Some(writer) = order.writer.clone() {
        let (lines, stopped) = (lines.clone(), stopped.clone());
        let work = move || in_namespace(&writer.host.clone(), write_leases(writer, lines, stopped));
        threads.push(
            std::thread::Builder::new()
                .name("writer".into())
                .spawn(work)?,
        );
    }
    let work = {
        let order = order.clone();
        move || in_namespace(&order.client.clone(), load(order, lines, stopped))
    };
    threads.push(
        std::thread::Builder::new()
            .name("load".into())
            .spawn(work)?,
    );
    std::thread::scope(|scope| -> Result<()> {
        // The lines end when every thread that writes them has ended.
        let writing = scope.spawn(move || -> Result<()> {
            let mut stream = stream;
            for line in told {
                let mut text = serde_json::to_string(&line)?;
                text.push('\n');
                stream.write_all(text.as_bytes())?;
            }
            Ok(())
        });
        line.clear();
        let _ = reader.read_line(&mut line);
        let _ = stop.send(true);
        let mut failures = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{error:#}")),
                Err(_) => failures.push("a thread panicked".to_owned()),
            }
        }
        monitor.kill()?;
        monitor.wait()?;
        match writing.join() {
            Ok(written) => written?,
            Err(_) => bail!("the thread that writes lines panicked"),
        }
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    })
}

/// Runs a future on this thread, inside a network namespace.
fn in_namespace(host: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    enter(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}

fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).output().context("ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
