//! lvs-agent: applies NodePlans to the kernel of one node.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lvs_agent::args::{Arguments, Command, RunArguments};
use lvs_agent::{run, show, telemetry, zero};

fn main() -> ExitCode {
    let arguments = match Arguments::parse().command {
        Command::Run(arguments) => *arguments,
        Command::Show(arguments) => return answer(show::show(&arguments)),
        Command::Zero(arguments) => return answer(zero::zero(&arguments)),
    };
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

/// Writes an answer, or why there is none, for whoever started this beside the agent that runs.
fn answer(text: anyhow::Result<String>) -> ExitCode {
    let written = text.and_then(|text| {
        std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())
            .context("writing the answer")
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("lvs-agent: {error:#}\n").as_bytes(),
            );
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
