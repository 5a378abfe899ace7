//! Runs the stories in tier 2's machine.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use lvs_e2e::lab::{self, Lab};
use lvs_e2e::stories;

/// Stories with real packets, in one virtual machine.
#[derive(Parser)]
struct Arguments {
    /// Run only stories whose name contains one of these.
    filter: Vec<String>,
    /// Leave the lab up afterwards and say how to look around.
    #[arg(long, env = "KEEP")]
    keep: bool,
    /// Use the lab that another run keeps up in the same folder.
    #[arg(long)]
    attach: bool,
    /// Folder for state and logs.
    #[arg(long, default_value = "e2e/.run/machine")]
    state: PathBuf,
    /// Name the stories and end.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<_> = stories::all()
        .into_iter()
        .filter(|story| {
            arguments.filter.is_empty()
                || arguments
                    .filter
                    .iter()
                    .any(|part| story.name.contains(part.as_str()))
        })
        .collect();
    if arguments.list {
        for story in &chosen {
            println!("{:<44} {}", story.name, story.tells);
        }
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        println!(
            "no story's name contains any of {:?}; --list names them",
            arguments.filter
        );
        println!("0 passed, 1 failed");
        return ExitCode::FAILURE;
    }
    match run(&arguments, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!(
                "the lab failed: {error:#}\nlogs: {}",
                arguments.state.display()
            );
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, chosen: &[stories::Story]) -> Result<bool> {
    let start = Instant::now();
    let lab = if arguments.attach {
        Lab::attach(&arguments.state)?
    } else {
        println!("bringing up the lab (about 1 min)");
        Lab::up(&arguments.state)?
    };
    println!(
        "lab up after {:.0} s; {} stories",
        start.elapsed().as_secs_f64(),
        chosen.len()
    );
    let mut failed = Vec::new();
    let mut hosts = None;
    for story in chosen {
        let start = Instant::now();
        let result = stories::tell(&lab, story, &mut hosts);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("  ok     {:<44} {seconds:>6.1} s", story.name),
            Err(error) => {
                println!(
                    "  FAILED {:<44} {seconds:>6.1} s\n    {error:#}",
                    story.name
                );
                failed.push(story.name);
            }
        }
    }
    println!(
        "{} passed, {} failed",
        chosen.len() - failed.len(),
        failed.len()
    );
    if !failed.is_empty() {
        println!(
            "failed: {}; logs: {}",
            failed.join(", "),
            arguments.state.display()
        );
    }
    if arguments.keep {
        println!(
            "left up: KUBECONFIG={}; end it with Ctrl-C",
            lab.cluster.kubeconfig().display()
        );
        println!("hosts: {}", lab::HOSTS.join(" "));
        loop {
            std::thread::park();
        }
    }
    lab.down()?;
    Ok(failed.is_empty())
}
