//! kubectl-lvs, the plugin behind `kubectl lvs`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{CommandFactory, Parser};
use kubectl_lvs::arguments::{
    Arguments, Command, ImportArguments, Output, RealServerScriptArguments, ReportFormat,
};
use kubectl_lvs::import::{self, Imported, LocalFiles, Source};
use kubectl_lvs::kubectl::Kubectl;
use kubectl_lvs::live::kernel::{self, Columns};
use kubectl_lvs::live::{Outcome, command};
use kubectl_lvs::manifest::Objects;
use kubectl_lvs::real_server_script::Request;
use kubectl_lvs::shadow::{self, From};
use kubectl_lvs::{bundle, plan, preflight};
use kubectl_lvs::{dictionary, yaml};
use serde_json::json;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // As below. Clap's own code for this is 2, which says something else here.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is there to be told that it could not be told.
            let _ = writeln!(std::io::stderr(), "kubectl lvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let kubectl = Kubectl::new(std::env::var_os("KUBECTL"), &arguments.access);
    let outcome = match &arguments.command {
        Command::Bundle(arguments) => return Ok(bundle::run(&kubectl, arguments)),
        Command::Check(arguments) => return Ok(preflight::run(&kubectl, arguments)),
        Command::Plan(arguments) => return Ok(plan::run(&kubectl, arguments)),
        Command::Get(arguments) => command::get(&kubectl, arguments),
        Command::Services(arguments) => command::services(&kubectl, arguments, Columns::Rules),
        Command::Stats(arguments) => command::services(&kubectl, arguments, Columns::Statistics),
        Command::Rates(arguments) => command::services(&kubectl, arguments, Columns::Rates),
        Command::Connections(arguments) => command::connections(&kubectl, arguments),
        Command::Timeouts(arguments) => command::settings(&kubectl, arguments, kernel::timeouts),
        Command::Daemon(arguments) => command::settings(&kubectl, arguments, kernel::daemons),
        Command::Zero(arguments) => command::zero(&kubectl, arguments),
        Command::Explain(arguments) => command::explain(&kubectl, arguments),
        Command::HandOver(arguments) => command::hand_over(&kubectl, arguments),
        Command::Drain(arguments) => command::drain(&kubectl, arguments),
        Command::Import(arguments) => match &arguments.shadow {
            Some(table) => return Ok(compare(&kubectl, arguments, table)),
            None => complete(import(arguments)),
        },
        Command::RealserverScript(arguments) => complete(real_server_script(arguments)),
        Command::ExplainKeyword { keyword } => {
            let text = dictionary::explain(keyword);
            ensure!(
                !text.is_empty(),
                "no tool has the keyword {keyword}; docs/dictionary.md lists those that are known"
            );
            complete(print(&text))
        }
        Command::Completion { shell } => {
            let mut words = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "kubectl-lvs", &mut words);
            complete(print(&String::from_utf8_lossy(&words)))
        }
        Command::Dictionary => complete(print(&dictionary::markdown())),
    }?;
    Ok(ExitCode::from(outcome.exit_code()))
}

/// What asks nobody has all that it needs.
fn complete(done: anyhow::Result<()>) -> anyhow::Result<Outcome> {
    done.map(|()| Outcome::Complete)
}

fn import(arguments: &ImportArguments) -> anyhow::Result<()> {
    let imported = imported(arguments)?;
    let text = report(arguments, &imported)?;
    match &arguments.report_file {
        Some(path) => write_report(path, text)?,
        None => std::io::stderr()
            .write_all(text.as_bytes())
            .context("write the report")?,
    }
    match arguments.output {
        None | Some(Output::Yaml) => print(&yaml::stream(&imported.objects)?),
        Some(Output::Json) => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": imported.objects});
            print(&format!("{list:#}\n"))
        }
    }
}

/// Compares a table with what the files would give, or without files the objects of the cluster.
fn compare(kubectl: &Kubectl, arguments: &ImportArguments, table: &Path) -> ExitCode {
    if let Some(flag) = arguments.of_no_file() {
        return shadow::failed(&format!(
            "{flag} says something of files, and none is named: name them, or leave it out to compare with all objects of the cluster"
        ));
    }
    if arguments.files.is_empty() {
        return shadow::run(&From::Cluster(kubectl), table, arguments.output);
    }
    let told = imported(arguments).and_then(|imported| {
        if let Some(path) = &arguments.report_file {
            write_report(path, report(arguments, &imported)?)?;
        }
        Ok(imported)
    });
    match told {
        Ok(imported) => {
            let from = From::Import(&imported.objects, arguments.namespace());
            shadow::run(&from, table, arguments.output)
        }
        Err(error) => shadow::failed(&format!("{error:#}")),
    }
}

fn imported(arguments: &ImportArguments) -> anyhow::Result<Imported> {
    for (name, count) in [
        ("--node-name", arguments.node_name.len()),
        ("--config-id", arguments.config_id.len()),
    ] {
        ensure!(
            count == 0 || count == arguments.files.len(),
            "{name} is given {count} times for {} files: give it once for each",
            arguments.files.len()
        );
    }
    let mut sources = Vec::new();
    for (index, path) in arguments.files.iter().enumerate() {
        let text = import::read(path).map_err(anyhow::Error::msg)?;
        let node_name = arguments.node_name.get(index).cloned();
        let short_name = || {
            node_name
                .as_deref()
                .and_then(|name| name.split('.').next())
                .unwrap_or_default()
                .to_owned()
        };
        let config_id = arguments
            .config_id
            .get(index)
            .cloned()
            .unwrap_or_else(short_name);
        sources.push(Source {
            path: path.clone(),
            text,
            node_name,
            config_id,
        });
    }
    let tool = match arguments.from {
        Some(tool) => tool,
        None => match sources
            .iter()
            .find_map(|source| import::guess(&source.path, &source.text))
        {
            Some(tool) => tool,
            None => bail!("whose configuration it is cannot be told: give --from"),
        },
    };
    Ok(import::import(
        tool,
        &sources,
        arguments.namespace(),
        &LocalFiles,
    ))
}

fn real_server_script(arguments: &RealServerScriptArguments) -> anyhow::Result<()> {
    let mut objects = Objects::default();
    for path in &arguments.filenames {
        objects.read(path).map_err(anyhow::Error::msg)?;
    }
    let service = objects
        .service(arguments.virtual_service.as_deref())
        .map_err(anyhow::Error::msg)?;
    let real_server = arguments
        .real_server
        .as_deref()
        .map(|name| objects.real_server(name))
        .transpose()
        .map_err(anyhow::Error::msg)?;
    let request = Request {
        service,
        real_server,
        addresses: &arguments.addresses,
        gateways: &arguments.gateways,
    };
    print(&request.script().map_err(anyhow::Error::msg)?)
}

fn report(arguments: &ImportArguments, imported: &Imported) -> anyhow::Result<String> {
    Ok(match arguments.report {
        ReportFormat::Text => imported.report.text(),
        ReportFormat::Json => format!("{:#}\n", serde_json::to_value(&imported.report)?),
    })
}

fn write_report(path: &Path, text: String) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}
