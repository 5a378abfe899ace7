//! How long it takes to program IPVS: this crate against `ipvsadm` and keepalived, on one machine in one run.
//!
//! `bench_netlink ROUNDS [KERNEL]` (the last only to be repeated in the result) needs root and a kernel with IPVS, and works in network namespaces of its own. Started by
//! `e2e/bench/netlink.sh` in a guest. Each round loads the same 100 services with 100 real servers each:
//!
//! - *add all*: into an empty namespace, a fresh one for every tool and round, as the kernel is much slower
//!   when rules come back that were deleted shortly before;
//! - *no change*: dump and difference, against `ipvsadm -Sn`;
//! - *edit weights*: all 10,000;
//! - *edit one weight*: how many writes, and which line of `ipvsadm -Sn` changes.
//!
//! Ours is measured within a running process, as the agent is one; the others from start to exit. The last
//! line is one JSON object. Fails when a ratio is below its aim or when any tool's result is not the
//! same rules.
#![allow(clippy::print_stdout, reason = "a program that prints its figures")]

mod report;
mod rules;
mod tools;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lvs_core::op::IpvsOp;
use lvs_ipvs::{Client, ClientOptions, IpvsKernel};
use nix::sched::{CloneFlags, unshare};

use report::{Figure, Report};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: bench_netlink ROUNDS [KERNEL]";
    let rounds: usize = arguments.next().context(usage)?.parse()?;
    let directory = std::env::temp_dir().join(format!("bench_netlink.{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let result = tools::Files::write(&directory).and_then(|files| run(rounds, &files));
    std::fs::remove_dir_all(&directory)?;
    let mut report = result?;
    report.kernel = arguments.next();
    report.print();
    let missed = report.missed();
    if !missed.is_empty() {
        bail!("below the aim: {}", missed.join("; "));
    }
    Ok(())
}

fn run(rounds: usize, files: &tools::Files) -> Result<Report> {
    let mut report = Report::default();
    for round in 1..=rounds {
        let started = Instant::now();
        in_fresh_namespace(|| ours(&mut report, files))?;
        in_fresh_namespace(|| {
            report.record(Figure::AddIpvsadm, tools::ipvsadm_restore(&files.add)?);
            let mut client = Client::new(ClientOptions::default());
            ensure!(
                client.dump()?.services == rules::services(rules::WEIGHT),
                "ipvsadm -R made other rules"
            );
            Ok(())
        })?;
        in_fresh_namespace(|| {
            report.record(Figure::AddKeepalived, tools::keepalived_load(files)?);
            Ok(())
        })?;
        println!(
            "round {round} of {rounds}: {} ms",
            started.elapsed().as_millis()
        );
    }
    Ok(report)
}

/// Runs in a thread of a new network namespace, which goes with it.
fn in_fresh_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            tools::run("ip", &["link", "set", "lo", "up"])?;
            work()
        });
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of a namespace panicked"))?
    })
}

/// Everything of ours, and what needs the same rules: `ipvsadm -Sn` and its edits.
fn ours(report: &mut Report, files: &tools::Files) -> Result<()> {
    let mut client = Client::new(ClientOptions::default());
    let desired = rules::services(rules::WEIGHT);
    let wanted = rules::Wanted::new(&desired);

    // Add all. The dump before opens the socket, as in an agent that has run before.
    let operations = wanted.operations(client.dump()?);
    ensure!(
        operations.len() == rules::RULES,
        "{} operations to add all",
        operations.len()
    );
    report.record(Figure::Add, apply(&mut client, &operations)?);
    ensure!(client.dump()?.services == desired, "not what was added");

    // No change.
    let started = Instant::now();
    let dump = client.dump()?;
    report.record(Figure::Dump, started.elapsed());
    let operations = wanted.operations(dump);
    report.record(Figure::NoChange, started.elapsed());
    ensure!(
        operations.is_empty(),
        "{} writes without a change",
        operations.len()
    );
    report.no_change_writes = operations.len();
    report.record(Figure::NoChangeIpvsadm, tools::ipvsadm_save_time()?);

    // Edit all weights, and back by ipvsadm.
    let edited = rules::services(rules::WEIGHT + 1);
    let operations = rules::Wanted::new(&edited).operations(client.dump()?);
    let edits = rules::SERVICES * rules::DESTINATIONS;
    ensure!(operations.len() == edits, "{} edits", operations.len());
    report.record(Figure::Edit, apply(&mut client, &operations)?);
    ensure!(client.dump()?.services == edited, "not what was edited");
    report.record(Figure::EditIpvsadm, tools::ipvsadm_restore(&files.edit)?);
    ensure!(
        client.dump()?.services == desired,
        "ipvsadm -R made other edits"
    );

    // One weight.
    let before = tools::ipvsadm_save()?;
    let wanted = rules::Wanted::new(&rules::one_weight_changed(&desired));
    let started = Instant::now();
    let operations = wanted.operations(client.dump()?);
    ensure!(
        matches!(operations.as_slice(), [IpvsOp::EditDestination(..)]),
        "one changed weight is {operations:?}"
    );
    apply(&mut client, &operations)?;
    report.record(Figure::One, started.elapsed());
    let after = tools::ipvsadm_save()?;
    let changed = before
        .lines()
        .zip(after.lines())
        .filter(|(left, right)| left != right)
        .count();
    ensure!(
        before.lines().count() == after.lines().count() && changed == 1,
        "{changed} lines changed"
    );
    report.one_weight_writes = operations.len();
    Ok(())
}

fn apply(client: &mut Client, operations: &[IpvsOp]) -> Result<Duration> {
    let started = Instant::now();
    let results = client.apply(operations);
    let elapsed = started.elapsed();
    for result in results {
        result?;
    }
    Ok(elapsed)
}
