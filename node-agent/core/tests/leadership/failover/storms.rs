//! Storms: many faults at once, whatever the seed says.

use std::time::Duration;

use crate::simulation::random::Random;
use crate::simulation::scenario::{
    self, DEFAULT, FAST, FENCE, QUIET, hearing, milliseconds, seconds, story,
};
use crate::simulation::{Api, Fault, Network, World};

/// Whether machines stand still in the storm of this seed. One that goes on with an address that it had a minute ago, while
/// its successor hands over to a third, is the one way for three kernels to have it.
fn suspends(seed: u64) -> bool {
    seed.is_multiple_of(4)
}

/// Everything at once.
fn storm(seed: u64, tracing: bool) -> World {
    let mut random = Random::new(seed ^ 0xbeef);
    let priorities = scenario::priorities(&mut random);
    let nodes = priorities.len();
    let api = Api {
        latency: 1 + random.below(400),
        loss: random.below(5),
        write_delay: if random.chance(10) {
            random.below(1_500)
        } else {
            0
        },
    };
    let heartbeat = if random.chance(30) { FAST } else { DEFAULT };
    let mut world = hearing(seed, &priorities, api, heartbeat);
    world.tracing = tracing;
    world.network = Network {
        latency: random.below(40),
        loss: random.below(15),
    };
    // Some last as long as it takes a Lease to run out.
    let ends = if seed.is_multiple_of(8) {
        25_000
    } else {
        14_000
    };
    let stands_still = suspends(seed);
    for _ in 0..=random.below(8) {
        let node = scenario::any_node(nodes, &mut random);
        let other = scenario::any_node(nodes, &mut random);
        let at = random.milliseconds(1_000..ends - 5_000);
        let length = random.milliseconds(50..ends * 3 / 5);
        match random.below(13) {
            0 | 1 => {
                let silent = random.chance(50);
                world.at(at, Fault::Unreachable { node, silent });
                world.at(at + length, Fault::Reachable { node });
            }
            2 | 3 => {
                for node in 0..nodes {
                    let silent = random.chance(50);
                    world.at(at, Fault::Unreachable { node, silent });
                    let back = at + length + random.milliseconds(0..500);
                    world.at(back, Fault::Reachable { node });
                }
            }
            4 => world.at(at, Fault::Freeze { node, length }),
            5 => world.at(at, Fault::FreezeAtWrite { node, length }),
            6 => {
                let kill = if random.chance(50) {
                    Fault::Kill { node }
                } else {
                    Fault::Reboot { node }
                };
                world.at(at, kill);
                world.at(at + length, Fault::Start { node });
            }
            7 => {
                world.at(at, Fault::Shutdown { node });
                world.at(at + length, Fault::Kill { node });
                world.at(at + length, Fault::Start { node });
            }
            8 if stands_still => world.at(at, Fault::Suspend { node, length }),
            9 => {
                world.at(
                    at,
                    Fault::Deafen {
                        from: node,
                        to: other,
                    },
                );
                world.at(
                    at + length,
                    Fault::Undeafen {
                        from: node,
                        to: other,
                    },
                );
            }
            10 => {
                for other in 0..nodes {
                    for (from, to) in [(node, other), (other, node)] {
                        world.at(at, Fault::Deafen { from, to });
                        world.at(at + length, Fault::Undeafen { from, to });
                    }
                }
            }
            11 => {
                world.at(at, Fault::Watch { node, alive: false });
                world.at(at + length, Fault::Watch { node, alive: true });
            }
            _ => {
                world.at(at, Fault::Key { node, right: false });
                world.at(at + length, Fault::Key { node, right: true });
            }
        }
    }
    world.run_until(milliseconds(ends));
    world
}

/// What the invariants say of a storm, and of the calm after some of them.
fn judge(seed: u64, world: &mut World) -> Result<(), String> {
    let demand = |truth: bool, what: &str| if truth { Ok(()) } else { Err(what.to_owned()) };
    world.assert_one_holder_per_epoch();
    // A process that was stopped between its look at the time and its write is the other way for three.
    let most = if suspends(seed) || world.wrote_late {
        3
    } else {
        2
    };
    demand(world.overlaps.most <= most, "too many carry the address")?;
    let longest = world.overlaps.involuntary.max(world.overlaps.voluntary);
    demand(longest <= FENCE, &format!("shared for {longest:?}"))?;
    // Two seconds of refreshes every half second, by one that has lost the API server and waits for promises. Where a watch
    // died that nobody knew of: until a read, or a renewal, is given up as lost, and the next one answered.
    let writes = world.overlaps.superseded_writes;
    let bound = if world.lost_watch { 10 } else { 5 };
    demand(
        writes <= bound,
        &format!("{writes} refreshes by the superseded"),
    )?;
    if !seed.is_multiple_of(16) {
        return Ok(());
    }
    // All is healed: wait out a Lease that was lent, then nothing may move any more.
    let healed = seconds(42);
    for node in 0..world.nodes.len() {
        world.at(healed, Fault::Reachable { node });
        world.at(healed, Fault::Key { node, right: true });
        world.at(healed, Fault::Watch { node, alive: true });
        world.at(healed, Fault::Start { node });
        for to in 0..world.nodes.len() {
            world.at(healed, Fault::Undeafen { from: node, to });
        }
    }
    world.api = QUIET;
    world.network.loss = 0;
    world.run_until(seconds(85));
    let holder = world.carriers();
    demand(holder.len() == 1, "nobody or two hold after healing")?;
    let acquisitions = world.store.history.len();
    world.measure_from = world.now;
    world.longest_gap = Duration::ZERO;
    world.run_until(seconds(110));
    demand(world.carriers() == holder, "flapping")?;
    demand(world.store.history.len() == acquisitions, "flapping")?;
    demand(world.longest_gap.is_zero(), "a gap in the calm")
}

/// The longest time for which two kernels had the address against the old holder's will.
fn weather_storms(seeds: std::ops::Range<u64>) -> Duration {
    let mut worst = Duration::ZERO;
    for seed in seeds {
        let mut world = storm(seed, false);
        if let Err(why) = judge(seed, &mut world) {
            let mut again = storm(seed, true);
            let _ = judge(seed, &mut again);
            panic!("{why}: {}", story(seed, &again));
        }
        worst = worst.max(world.overlaps.involuntary);
    }
    worst
}

/// Storms of `cargo test`, a minute on two processors; `LVS_STORMS` sets another number (`make test` 100,000, `make soak` more).
const STORMS: u64 = 12_000;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test may use every processor, and be told how long to go on"
)]
fn storms_keep_the_invariants_and_calm_returns() {
    let storms = std::env::var("LVS_STORMS").map_or(STORMS, |count| count.parse().unwrap());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let worst = std::thread::scope(|scope| {
        let share = storms.div_ceil(threads);
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    weather_storms(worker * share..((worker + 1) * share).min(storms))
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .max()
    });
    // The storms must have driven some director into trouble, or they blow too gently to show anything.
    assert!(worst > Some(seconds(2)), "{worst:?}");
}
