//! `make bench-failover`: what clients see when a director fails, ours and Debian's keepalived in one machine and one
//! run. Tier 2; the table is the worst of all rounds, the last line the same as one JSON object.
//!
//! A miss is printed, not an error. An error is what kept something from being measured.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lvs_e2e::failover::etcd::SlowEtcd;
use lvs_e2e::failover::events::{self, Among, Event, Stage};
use lvs_e2e::failover::keepalived::{self, Vrrp};
use lvs_e2e::failover::measurement::Round;
use lvs_e2e::failover::operator::{self, Echo, Setting};
use lvs_e2e::failover::probe::Probe;
use lvs_e2e::failover::subject::Subject;
use lvs_e2e::failover::table::{self, Aim, Row};
use lvs_e2e::lab::{Lab, Machine};

const NAMESPACE: &str = "bench";

/// What clients see of a failover.
#[derive(Parser)]
struct Arguments {
    /// Only events whose name contains one of these.
    events: Vec<String>,
    /// Rounds of each event; the table has the worst.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only subjects whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Folder for state and logs.
    #[arg(long, default_value = "e2e/.run/bench-failover")]
    state: PathBuf,
    /// Name the events and end.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let events: Vec<Event> = events::all()
        .into_iter()
        .filter(|event| {
            let words = &arguments.events;
            words.is_empty() || words.iter().any(|word| event.name.contains(word.as_str()))
        })
        .collect();
    if arguments.list {
        for event in &events {
            println!("{:<20} {}", event.name, event.title);
        }
        return Ok(());
    }
    ensure!(
        !events.is_empty(),
        "no event's name contains any of {:?}; --list names them",
        arguments.events
    );
    ensure!(arguments.rounds > 0, "no rounds");
    let started = Instant::now();
    let lab = Lab::up(&arguments.state, Machine::Whole)?;
    let measured = measure(&lab, &arguments, &events, started);
    let ended = lab.down();
    let rows = measured?;
    ended?;
    println!(
        "\nworst of all rounds; gap: between answers to new connections, one every 10 ms; W: median/worst API write"
    );
    println!("{}", table::text(&rows));
    for row in &rows {
        for failure in &row.failures {
            println!("not measured: {} of {}: {failure}", row.event, row.subject);
        }
    }
    println!("{}", table::json(&rows));
    Ok(())
}

fn measure(
    lab: &Lab,
    arguments: &Arguments,
    events: &[Event],
    started: Instant,
) -> Result<Vec<Row>> {
    let kubeconfig = lab.state.join("probe.kubeconfig");
    lab.cluster.guest_kubeconfig(&kubeconfig)?;
    let _echo = Echo::start(lab)?;
    let probe = Probe::start(lab)?;
    let is_chosen = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|word| name.contains(word.as_str()))
    };
    let mut rows = Vec::new();
    let mut stage = Stage {
        lab,
        probe: &probe,
        etcd: None,
        kubeconfig: &kubeconfig,
    };
    let mut all = |stage: &Stage<'_>, subject: &Subject, setting: Option<Setting>| {
        for event in events {
            let is_told = match setting {
                Some(setting) => setting.tells(event),
                None => event.among == Among::All,
            };
            if is_told {
                let aim = setting.map(|setting| setting.aim(event));
                rows.push(rounds(
                    stage,
                    subject,
                    event,
                    aim,
                    arguments.rounds,
                    started,
                ));
            }
        }
    };
    let settings: Vec<Setting> = [
        Setting::AsInstalled,
        Setting::Stateless,
        Setting::Daemon,
        Setting::Fast,
    ]
    .into_iter()
    .filter(|setting| is_chosen(setting.name()))
    .collect();
    if !settings.is_empty() {
        lab.cluster.namespace(NAMESPACE)?;
        if events.iter().any(|event| event.name == "slow-etcd") {
            let relay = SlowEtcd::start(lab.cluster.etcd_port)?;
            lab.cluster.etcd_through(relay.port)?;
            stage.etcd = Some(relay);
        }
        for setting in settings {
            let subject = operator::subject(lab, NAMESPACE, setting)?;
            all(&stage, &subject, Some(setting));
        }
    }
    if is_chosen("keepalived") {
        keepalived::prepare(lab)?;
        for vrrp in [Vrrp::V2EverySecond, Vrrp::V3EveryTenth] {
            let subject = keepalived::start(lab, vrrp)?;
            all(&stage, &subject, None);
            keepalived::stop(lab, &subject)?;
        }
    }
    // Subjects were measured one after another; the table has them beside each other.
    let place = |row: &Row| events.iter().position(|event| event.name == row.event);
    rows.sort_by_key(place);
    Ok(rows)
}

/// All rounds of one event at one subject, with one line of progress each.
fn rounds(
    stage: &Stage<'_>,
    subject: &Subject,
    event: &Event,
    aim: Option<Aim>,
    count: usize,
    started: Instant,
) -> Row {
    let mut row = Row {
        event: event.name,
        title: event.title,
        subject: subject.name.clone(),
        held: 0,
        rounds: Vec::new(),
        failures: Vec::new(),
        aim,
    };
    for number in 1..=count {
        let begun = Instant::now();
        let told = events::tell(stage, subject, event);
        print!(
            "[{:>5.0} s] {:<22} {:<18} {number}/{count}  {:>5.1} s  ",
            started.elapsed().as_secs_f64(),
            subject.name,
            event.name,
            begun.elapsed().as_secs_f64()
        );
        if let Ok(round) = &told
            && let Err(error) = keep(
                stage.lab,
                &format!("{}-{}-{number}", subject.name, event.name),
                round,
            )
        {
            eprintln!("{error:#}");
        }
        match told.map(|round| (round.held, round.figures())) {
            Ok((held, Some(figures))) => {
                println!(
                    "gap {:.3} s, lost {}, held {}/{held}, both {:.3} s{}",
                    microseconds(figures.gap.microseconds),
                    figures.lost.values().sum::<usize>(),
                    figures.held_alive,
                    microseconds(figures.both.microseconds),
                    if figures.late > 20_000 {
                        format!("; the machine stood still for {} ms", figures.late / 1000)
                    } else {
                        String::new()
                    }
                );
                row.held = held;
                row.rounds.push(figures);
            }
            Ok((_, None)) => row.failures.push("no summary".to_owned()),
            Err(error) => {
                println!("not measured: {error:#}");
                row.failures.push(format!("{error:#}"));
            }
        }
    }
    row
}

/// Every line of a round, for those who ask why a figure is what it is.
fn keep(lab: &Lab, name: &str, round: &Round) -> Result<()> {
    let folder = lab.state.join("rounds");
    std::fs::create_dir_all(&folder)?;
    let mut text = format!(
        "{}\n",
        serde_json::json!({"struck": round.struck, "old": round.old})
    );
    for line in &round.lines {
        text += &serde_json::to_string(line)?;
        text.push('\n');
    }
    let path = folder.join(format!("{}.jsonl", name.replace(' ', "-")));
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

#[expect(clippy::cast_precision_loss, reason = "minutes at most")]
fn microseconds(count: i64) -> f64 {
    count as f64 / 1e6
}
