//! lvs-controller: watches the cluster, plans, writes NodePlans, Leases and status.

use std::process::ExitCode;

use clap::Parser;
use lvs_controller::args::{Arguments, Command};
use lvs_controller::{run, uninstall};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = lvs_controller::telemetry::start(&arguments.log) {
        // There is no log to tell it to.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("--log: {error}\n").as_bytes(),
        );
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Run(arguments) => run::run(*arguments).await,
            Command::PrepareUninstall(arguments) => uninstall::prepare(arguments).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
