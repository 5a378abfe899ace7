//! Storms: many faults at once, whatever the seed says.

use std::time::Duration;

use super::world;
use crate::simulation::random::Random;
use crate::simulation::scenario::{self, QUIET, seconds};
use crate::simulation::{Api, Fault, World};

/// Everything at once, for as many seeds as there is time.
fn storm(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let priorities = scenario::priorities(&mut random);
    let nodes = priorities.len();
    let api = Api {
        latency: 1 + random.below(900),
        loss: random.below(5),
        ..QUIET
    };
    let mut world = world(seed, &priorities, api);
    let storm_ends = 60_000;
    for _ in 0..random.below(14) {
        let node = scenario::any_node(nodes, &mut random);
        let at = random.milliseconds(2_000..storm_ends - 20_000);
        let length = random.milliseconds(100..18_000);
        match random.below(8) {
            0 | 1 => {
                let silent = random.chance(50);
                world.at(at, Fault::Unreachable { node, silent });
                world.at(at + length, Fault::Reachable { node });
            }
            2 => {
                for node in 0..nodes {
                    world.at(
                        at,
                        Fault::Unreachable {
                            node,
                            silent: false,
                        },
                    );
                    world.at(at + length, Fault::Reachable { node });
                }
            }
            3 => world.at(at, Fault::Freeze { node, length }),
            4 => world.at(at, Fault::FreezeAtWrite { node, length }),
            5 => {
                let kill = if random.chance(50) {
                    Fault::Kill { node }
                } else {
                    Fault::Reboot { node }
                };
                world.at(at, kill);
                world.at(at + length, Fault::Start { node });
            }
            6 => {
                world.at(at, Fault::Shutdown { node });
                world.at(at + length, Fault::Kill { node });
                world.at(at + length, Fault::Start { node });
            }
            _ => world.at(at, Fault::Annotate),
        }
    }
    world.run_until(Duration::from_millis(storm_ends));
    world
}

#[test]
fn storms_keep_the_invariants_and_calm_returns() {
    weather_storms(0..400);
}

#[test]
#[ignore = "ten minutes; the seeds beyond those of every run"]
fn many_storms_keep_the_invariants_and_calm_returns() {
    weather_storms(400..20_000);
}

fn weather_storms(seeds: std::ops::Range<u64>) {
    let mut worst_voluntary = Duration::ZERO;
    for seed in seeds {
        let mut world = storm(seed);
        // All is healed: wait out a Lease that was lent, then nothing may move any more.
        for node in 0..world.nodes.len() {
            world.at(world.now, Fault::Reachable { node });
            world.at(world.now, Fault::Start { node });
        }
        world.api = QUIET;
        world.run_until(seconds(105));
        let story = |world: &World| format!("seed {seed}\n{}", world.trace.join("\n"));
        let holder = world.carriers();
        assert_eq!(
            holder.len(),
            1,
            "nobody or two hold after healing: {}",
            story(&world)
        );
        let acquisitions = world.store.history.len();
        world.measure_from = world.now;
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(150));
        assert_eq!(world.carriers(), holder, "flapping: {}", story(&world));
        assert_eq!(
            world.store.history.len(),
            acquisitions,
            "flapping: {}",
            story(&world)
        );
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(&world));
        world.assert_one_holder_per_epoch();
        assert!(world.overlaps.most <= 2, "{}", story(&world));
        assert_eq!(
            world.overlaps.involuntary,
            Duration::ZERO,
            "{}",
            story(&world)
        );
        // F on the slowest clock.
        assert!(
            world.overlaps.voluntary <= Duration::from_millis(3_320),
            "{}",
            story(&world)
        );
        worst_voluntary = worst_voluntary.max(world.overlaps.voluntary);
    }
    // Some storms must have driven a handover into trouble, or they blow too gently to show anything.
    assert!(
        worst_voluntary > Duration::from_millis(500),
        "{worst_voluntary:?}"
    );
}
