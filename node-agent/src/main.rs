//! lvs-agent: applies NodePlans to the kernel of one node.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lvs_agent::args::{Arguments, Command, RunArguments};
use lvs_agent::{run, telemetry};

fn main() -> ExitCode {
    let Command::Run(arguments) = Arguments::parse().command;
    if let Err(error) = telemetry::start(&arguments.log, arguments.log_format) {
        // There is no log to tell it to.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("--log: {error}\n").as_bytes(),
        );
        return ExitCode::from(2);
    }
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: RunArguments) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run::run(arguments))
}
