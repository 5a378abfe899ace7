//! The bounds of docs/leadership.md as the simulation has them: the worst of many schedules of every event, in one table
//! that the document quotes.

use std::fmt::Write as _;
use std::time::Duration;

use lvs_core::election::{Config, HeartbeatParts, Intent, Takeover};

use super::simulation::scenario::{
    DEFAULT, FAST, QUIET, hearing, milliseconds, seconds, settled, story,
};
use super::simulation::{Api, Fault, World};

const SCHEDULES: u64 = 200;

/// What may befall the holder at a time, and what a row of the table says of it.
struct Row {
    event: &'static str,
    heartbeat: HeartbeatParts,
    api: Api,
    strike: fn(&mut World, Duration, usize),
}

/// Answers within 10 ms each way: W is 20 ms at most.
const NEAR: Api = Api {
    latency: 8,
    ..QUIET
};
const SLOW_STORE: Api = Api {
    write_delay: 2_000,
    ..QUIET
};

fn rows() -> Vec<Row> {
    let row = |event, strike| Row {
        event,
        heartbeat: DEFAULT,
        api: QUIET,
        strike,
    };
    let dies = |world: &mut World, at, node| world.at(at, Fault::Reboot { node });
    vec![
        row("node dies", dies),
        Row {
            heartbeat: FAST,
            api: NEAR,
            ..row("node dies, profile Fast", dies)
        },
        Row {
            api: SLOW_STORE,
            ..row("node dies, writes take 2 s", dies)
        },
        row("node dies, takeover Strict", |world, at, node| {
            for other in 0..world.nodes.len() {
                let config = Config {
                    takeover: Takeover::Strict,
                    ..world.nodes[other].config.clone()
                };
                configure(world, at.saturating_sub(seconds(1)), other, config);
            }
            world.at(at, Fault::Reboot { node });
        }),
        row("agent killed", |world, at, node| {
            world.at(at, Fault::Kill { node });
        }),
        row("agent stopped for 30 s", |world, at, node| {
            let length = seconds(30);
            world.at(at, Fault::Freeze { node, length });
        }),
        row("agent stopped for 2 s", |world, at, node| {
            let length = seconds(2);
            world.at(at, Fault::Freeze { node, length });
        }),
        row("machine frozen for 20 s", |world, at, node| {
            let length = seconds(20);
            world.at(at, Fault::Suspend { node, length });
        }),
        row("SIGTERM", |world, at, node| {
            world.at(at, Fault::Shutdown { node });
        }),
        row("leaving, or a fault", |world, at, node| {
            let config = Config {
                intent: Intent::Leave,
                ..world.nodes[node].config.clone()
            };
            configure(world, at, node, config);
        }),
        row("handed over by request", |world, at, node| {
            let wanted = world.nodes[(node + 1) % world.nodes.len()].name.clone();
            for other in 0..world.nodes.len() {
                let config = Config {
                    hand_over_to: Some(wanted.clone()),
                    ..world.nodes[other].config.clone()
                };
                configure(world, at, other, config);
            }
        }),
        row("API server lost to the holder", |world, at, node| {
            let silent = false;
            world.at(at, Fault::Unreachable { node, silent });
        }),
        row("holder isolated", |world, at, node| {
            world.at(at, Fault::Unreachable { node, silent: true });
            for other in (0..world.nodes.len()).filter(|other| *other != node) {
                for (from, to) in [(node, other), (other, node)] {
                    world.at(at, Fault::Deafen { from, to });
                }
            }
        }),
        row("directors deaf to each other", |world, at, _| {
            for from in 0..world.nodes.len() {
                for to in (0..world.nodes.len()).filter(|to| *to != from) {
                    world.at(at, Fault::Deafen { from, to });
                }
            }
        }),
        row("API server lost to all for 60 s", |world, at, _| {
            for node in 0..world.nodes.len() {
                world.at(at, Fault::Unreachable { node, silent: true });
                world.at(at + seconds(60), Fault::Reachable { node });
            }
        }),
        Row {
            api: SLOW_STORE,
            ..row("every write takes 2 s", |_, _, _| ())
        },
    ]
}

fn configure(world: &mut World, at: Duration, node: usize, config: Config) {
    let config = Box::new(config);
    world.at(at, Fault::Configure { node, config });
}

/// The worst of all schedules as one line.
fn line(row: &Row) -> String {
    let (mut gap, mut both, mut moves) = (Duration::ZERO, Duration::ZERO, (usize::MAX, 0));
    for seed in 0..SCHEDULES {
        let priorities: &[u8] = if seed % 2 == 0 {
            &[100, 100]
        } else {
            &[100, 90, 110]
        };
        let mut world = hearing(seed, priorities, row.api, row.heartbeat);
        world.tracing = false;
        let node = settled(&mut world);
        let before = world.store.history.len();
        let at = seconds(21) + milliseconds(seed * 13 % 2_000);
        (row.strike)(&mut world, at, node);
        world.run_until(seconds(100));
        assert_eq!(world.carriers().len(), 1, "{}", story(seed, &world));
        gap = gap.max(world.longest_gap);
        both = both
            .max(world.overlaps.voluntary)
            .max(world.overlaps.involuntary);
        let count = world.store.history.len() - before;
        moves = (moves.0.min(count), moves.1.max(count));
    }
    let moves = if moves.0 == moves.1 {
        moves.0.to_string()
    } else {
        format!("{}–{}", moves.0, moves.1)
    };
    format!(
        "{:<34} gap {:>5.2} s   both {:>5.2} s   moves {moves}\n",
        row.event,
        gap.as_secs_f64(),
        both.as_secs_f64(),
    )
}

#[test]
fn the_worst_of_every_event_is_what_the_document_says() {
    let mut table = String::new();
    for row in rows() {
        let _ = write!(table, "{}", line(&row));
    }
    let wanted = include_str!("bounds.txt");
    assert_eq!(table, wanted, "the table is now:\n{table}");
}
