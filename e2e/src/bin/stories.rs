//! Runs the stories in tier 2's machine.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use lvs_e2e::lab::{self, Lab, Machine};
use lvs_e2e::stories::{self, Story};

/// Stories with real packets, in one guest.
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
    let chosen =
        [Machine::Whole, Machine::Bare].map(|machine| (machine, choose(&arguments, machine)));
    if arguments.list {
        for story in chosen.iter().flat_map(|(_, stories)| stories) {
            println!("{:<44} {}", story.name, story.tells);
        }
        return ExitCode::SUCCESS;
    }
    let mut score = Score::default();
    for (machine, stories) in chosen.iter().filter(|(_, stories)| !stories.is_empty()) {
        if let Err(error) = run(&arguments, *machine, stories, &mut score) {
            println!(
                "the lab failed: {error:#}\nlogs: {}",
                arguments.state.display()
            );
            score.failed.push("the lab");
            break;
        }
    }
    if score.passed == 0 && score.failed.is_empty() {
        println!(
            "no story's name contains any of {:?}; --list names them",
            arguments.filter
        );
        score.failed.push("the choice of stories");
    }
    println!("{} passed, {} failed", score.passed, score.failed.len());
    if score.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "failed: {}; logs: {}",
        score.failed.join(", "),
        arguments.state.display()
    );
    ExitCode::FAILURE
}

/// How the stories went.
#[derive(Default)]
struct Score {
    passed: usize,
    failed: Vec<&'static str>,
}

fn choose(arguments: &Arguments, machine: Machine) -> Vec<Story> {
    let is_chosen = |story: &Story| {
        let filter = &arguments.filter;
        filter.is_empty() || filter.iter().any(|part| story.name.contains(part.as_str()))
    };
    stories::all(machine)
        .into_iter()
        .filter(is_chosen)
        .collect()
}

/// Tells the stories of one machine.
fn run(arguments: &Arguments, machine: Machine, chosen: &[Story], score: &mut Score) -> Result<()> {
    let start = Instant::now();
    let lab = if arguments.attach {
        Lab::attach(&arguments.state)?
    } else {
        println!("bringing up the lab, {machine:?} (usually 20 s)");
        Lab::up(&arguments.state, machine)?
    };
    println!(
        "lab up after {:.0} s; {} stories",
        start.elapsed().as_secs_f64(),
        chosen.len()
    );
    let mut hosts = None;
    for story in chosen {
        let start = Instant::now();
        let result = stories::tell(&lab, story, &mut hosts);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("  ok     {:<44} {seconds:>6.1} s", story.name);
                score.passed += 1;
            }
            Err(error) => {
                println!(
                    "  FAILED {:<44} {seconds:>6.1} s\n    {error:#}",
                    story.name
                );
                score.failed.push(story.name);
            }
        }
    }
    if arguments.keep {
        println!("{} passed, {} failed", score.passed, score.failed.len());
        println!(
            "left up: KUBECONFIG={}; end it with Ctrl-C",
            lab.cluster.kubeconfig().display()
        );
        println!("hosts: {}", lab::HOSTS.join(" "));
        loop {
            std::thread::park();
        }
    }
    lab.down()
}
