//! The kernel model of the agent's core against the kernel itself.
//!
//! `kernel_differential CASES [SEED]` needs root and a kernel with IPVS; started by `e2e/bench/differential.sh` in a
//! guest. Each case is a random sequence of operations in a network namespace of its own. After it, three must
//! agree: the result of every operation with the model's, our dump with the model's state, and our dump with what
//! `ipvsadm -Sn` prints. A sequence that fails is shrunk to a small one.
#![allow(clippy::print_stdout, reason = "a program that prints its figures")]

#[path = "../../tests/support/ipvsadm.rs"]
mod ipvsadm;
mod operations;

use std::cell::Cell;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lvs_core::model::{Errno, IpvsModel};
use lvs_core::op::IpvsOp;
use lvs_ipvs::{Client, IpvsKernel, OpFailure};
use nix::sched::{CloneFlags, unshare};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let cases: u32 = arguments
        .next()
        .context("usage: kernel_differential CASES [SEED [TICKS_PER_SECOND]]")?
        .parse()?;
    let seed: u8 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let ticks_per_second: u32 = arguments.next().map_or(Ok(250), |text| text.parse())?;
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let (tried, refused) = (Cell::new(0_usize), Cell::new(0_usize));
    TestRunner::new_with_rng(config, random)
        .run(&operations::sequence(), |operations| {
            let counts = in_fresh_namespace(|| compare(&operations, ticks_per_second));
            let (operations, refusals) =
                counts.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            tried.set(tried.get() + operations);
            refused.set(refused.get() + refusals);
            Ok(())
        })
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    println!(
        "{{\"differential\":\"ipvs\",\"seed\":{seed},\"cases\":{cases},\"operations\":{},\"refused\":{}}}",
        tried.get(),
        refused.get()
    );
    Ok(())
}

/// Runs in a thread of a new network namespace, which goes with it.
fn in_fresh_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            // Without a local routing table the kernel takes every address for a broadcast address.
            let device = operations::SYNC_DEVICE;
            for command in [
                "link set lo up".to_owned(),
                format!("link add {device} type dummy"),
                format!("address add 203.0.113.1/24 dev {device}"),
                format!("address add 2001:db8:51::1/64 dev {device} nodad"),
                format!("link set {device} up"),
            ] {
                let status = Command::new("ip").args(command.split(' ')).status()?;
                anyhow::ensure!(status.success(), "ip {command}: {status}");
            }
            work()
        });
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of a namespace panicked"))?
    })
}

/// How many operations there were, and how many of them the kernel refused.
fn compare(operations: &[IpvsOp], ticks_per_second: u32) -> Result<(usize, usize)> {
    let mut client = Client::default();
    let mut model = IpvsModel {
        ticks_per_second,
        ..IpvsModel::default()
    };
    let mut refusals = 0;
    for (operation, result) in operations.iter().zip(client.apply(operations)) {
        let expected = model.apply(operation).map_err(Errno::code);
        let mut said = String::new();
        let found = match result {
            Ok(()) => Ok(()),
            Err(error) => match &error.failure {
                OpFailure::Refused { errno, .. } => {
                    said = format!(" ({error})");
                    Err(*errno as i32)
                }
                _ => bail!("{error}"),
            },
        };
        refusals += usize::from(found.is_err());
        if found != expected {
            bail!("{operation}: the kernel says {found:?}, the model {expected:?}{said}");
        }
    }
    let dump = client.dump()?;
    if dump.services != model.services {
        bail!(
            "the kernel holds\n{:#?}\nthe model\n{:#?}",
            dump.services,
            model.services
        );
    }
    if dump.sync_daemons != model.sync_daemons {
        bail!(
            "the kernel runs {:#?}, the model {:#?}",
            dump.sync_daemons,
            model.sync_daemons
        );
    }
    if dump.disorder != model.disorder() {
        bail!(
            "the kernel lists {:#?}, the model {:#?}",
            dump.disorder,
            model.disorder()
        );
    }
    if dump.timeouts != model.timeouts {
        bail!(
            "the kernel has {:?}, the model {:?}",
            dump.timeouts,
            model.timeouts
        );
    }
    let output = Command::new("ipvsadm").arg("-Sn").output()?;
    anyhow::ensure!(output.status.success(), "ipvsadm -Sn: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut printed: Vec<&str> = text.lines().collect();
    printed.sort_unstable();
    let ours = ipvsadm::saved(&dump.services);
    if ours != printed {
        bail!(
            "ipvsadm prints\n{}\nwe\n{}",
            printed.join("\n"),
            ours.join("\n")
        );
    }
    Ok((operations.len(), refusals))
}
