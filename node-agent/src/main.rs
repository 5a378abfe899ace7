//! lvs-agent: applies NodePlans to the kernel of one node.

use anyhow::Context;
use clap::Parser;
use lvs_agent::args::{Arguments, Command};
use lvs_agent::{run, telemetry};

fn main() -> anyhow::Result<()> {
    let Command::Run(arguments) = Arguments::parse().command;
    telemetry::start(&arguments.log, arguments.log_format).context("--log")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run::run(arguments))
}
