//! Takeover Strict: never two.

use std::time::Duration;

use lvs_core::election::{Config, Intent, Takeover};

use super::simulation::random::Random;
use super::simulation::scenario::{
    self, DEFAULT, FENCE, QUIET, hearing, master, milliseconds, seconds, settled, story,
};
use super::simulation::{Fault, World};

fn world(seed: u64, priorities: &[u8]) -> World {
    let mut world = hearing(seed, priorities, QUIET, DEFAULT);
    for node in &mut world.nodes {
        node.config.takeover = Takeover::Strict;
    }
    world
}

/// The longest gap of some schedules, in which no two carry the address.
fn worst(schedules: u64, strike: impl Fn(&mut World, u64, usize)) -> Duration {
    let mut worst = Duration::ZERO;
    for seed in 0..schedules {
        let mut world = world(seed, &[100, 100, 100]);
        let node = settled(&mut world);
        strike(&mut world, seed, node);
        world.run_until(seconds(50));
        assert_eq!(world.overlaps.most, 1, "{}", story(seed, &world));
        assert_ne!(master(&world), node, "{}", story(seed, &world));
        worst = worst.max(world.longest_gap);
    }
    worst
}

#[test]
fn after_a_crash_the_addresses_come_back_after_the_fence_time() {
    let gap = worst(100, |world, seed, node| {
        world.at(seconds(20) + milliseconds(seed * 7), Fault::Reboot { node });
    });
    assert!(
        gap > seconds(3) && gap <= seconds(1) + FENCE,
        "F and the takeover: {gap:?}"
    );
}

#[test]
fn an_agent_that_is_killed_never_shares_its_address() {
    let gap = worst(200, |world, seed, node| {
        world.at(seconds(20) + milliseconds(seed * 7), Fault::Kill { node });
    });
    assert!(gap <= seconds(3), "its kernel still answered: {gap:?}");
}

#[test]
fn a_process_that_stops_never_shares_its_address() {
    worst(200, |world, seed, node| {
        let length = milliseconds(1_200 + seed * 97 % 10_000);
        world.at(
            seconds(20) + milliseconds(seed * 7),
            Fault::Freeze { node, length },
        );
    });
}

#[test]
fn a_handover_costs_a_heartbeat() {
    let gap = worst(200, |world, seed, node| {
        let at = seconds(20) + milliseconds(seed * 7);
        if seed % 2 == 0 {
            world.at(at, Fault::Shutdown { node });
        } else {
            let config = Config {
                intent: Intent::Leave,
                ..world.nodes[node].config.clone()
            };
            let config = Box::new(config);
            world.at(at, Fault::Configure { node, config });
        }
    });
    assert!(gap <= milliseconds(250), "{gap:?}");
}

#[test]
fn an_isolated_holder_never_shares_its_address() {
    worst(200, |world, seed, node| {
        let at = seconds(20) + milliseconds(seed * 7);
        let silent = seed % 2 == 0;
        world.at(at, Fault::Unreachable { node, silent });
        for other in (0..3).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                world.at(at, Fault::Deafen { from, to });
            }
        }
    });
}

/// Crashes, cuts and stops at random, one after another.
#[test]
fn storms_never_have_two() {
    for seed in 0..600 {
        let mut random = Random::new(seed ^ 0x57c7);
        let priorities = scenario::priorities(&mut random);
        let nodes = priorities.len();
        let mut world = world(seed, &priorities);
        world.tracing = false;
        for _ in 0..=random.below(5) {
            let node = scenario::any_node(nodes, &mut random);
            let other = scenario::any_node(nodes, &mut random);
            let at = random.milliseconds(1_000..16_000);
            let length = random.milliseconds(50..9_000);
            match random.below(5) {
                0 => {
                    world.at(at, Fault::Unreachable { node, silent: true });
                    world.at(at + length, Fault::Reachable { node });
                }
                1 => world.at(at, Fault::Freeze { node, length }),
                2 => {
                    world.at(at, Fault::Reboot { node });
                    world.at(at + length, Fault::Start { node });
                }
                3 => {
                    world.at(at, Fault::Kill { node });
                    world.at(at + length, Fault::Start { node });
                }
                _ => {
                    let (from, to) = (node, other);
                    world.at(at, Fault::Deafen { from, to });
                    world.at(at + length, Fault::Undeafen { from, to });
                }
            }
        }
        world.run_until(seconds(25));
        assert!(world.overlaps.most <= 1, "seed {seed}");
        world.assert_one_holder_per_epoch();
    }
}
