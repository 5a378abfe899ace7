//! Directors that share nothing but the Lease: so it is where heartbeats are not heard.

use std::time::Duration;

use super::simulation::random::Random;
use super::simulation::scenario::{self, NAMES, QUIET, master, seconds, settled};
use super::simulation::{Api, Fault, World};
use lvs_core::election::{Config, Intent, Role};

fn config(nodes: usize, priority: u8) -> Config {
    scenario::config(nodes, priority, None)
}

fn world(seed: u64, priorities: &[u8], api: Api) -> World {
    scenario::world(seed, priorities, api, None)
}

#[test]
fn a_quiet_world_elects_once_and_stays() {
    for seed in 0..50 {
        let mut world = world(seed, &[100, 100, 100], QUIET);
        world.run_until(seconds(5));
        let first = master(&world);
        world.measure_from = seconds(5);
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(300));
        assert_eq!(master(&world), first);
        assert_eq!(world.store.history.len(), 1, "{}", world.trace.join("\n"));
        assert_eq!(world.longest_gap, Duration::ZERO);
        assert_eq!(world.overlaps.most, 1);
    }
}

#[test]
fn the_highest_priority_goes_first_and_equals_are_decided_by_name() {
    // Answers within a quarter of a VRRP step, so that the order is the candidates' own.
    let instant = Api {
        latency: 0,
        ..QUIET
    };
    for seed in 0..50 {
        let mut unequal = world(seed, &[10, 200, 100], instant);
        unequal.run_until(seconds(5));
        assert_eq!(master(&unequal), 1, "{}", unequal.trace.join("\n"));
    }
    // The name decides within a step of priority; the candidates see the Lease up to 4 ms apart, so only the
    // decision itself is asserted: whoever wins, all agree.
    for seed in 0..50 {
        let mut equal = world(seed, &[100, 100, 100], instant);
        equal.run_until(seconds(5));
        let winner = master(&equal);
        for node in &equal.nodes {
            let status = node.agent.as_ref().unwrap().machine.status();
            assert_eq!(status.holder.unwrap().node, NAMES[winner]);
        }
    }
}

#[test]
fn a_dead_holder_is_replaced_after_the_lease_and_never_shares_the_address() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 90, 80], QUIET);
        world.run_until(seconds(20));
        let dead = master(&world);
        world.at(seconds(20), Fault::Reboot { node: dead });
        world.run_until(seconds(40));
        assert_ne!(master(&world), dead);
        assert_eq!(world.overlaps.most, 1, "{}", world.trace.join("\n"));
        // 1.05 L on a slow clock, the skew of the lowest priority, and the writes.
        world.measure_from = seconds(20);
        assert!(
            world.longest_gap < Duration::from_millis(12_500),
            "{:?}",
            world.longest_gap
        );
    }
}

#[test]
fn an_agent_that_is_killed_and_restarted_keeps_its_epoch_and_address() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100], QUIET);
        let node = settled(&mut world);
        world.at(seconds(20), Fault::Kill { node });
        world.at(seconds(21), Fault::Start { node });
        world.run_until(seconds(60));
        assert_eq!(master(&world), node);
        assert_eq!(world.store.history.len(), 1, "{}", world.trace.join("\n"));
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
    }
}

#[test]
fn a_stopped_agent_writes_no_address_after_it_goes_on() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        let fault = if seed % 2 == 0 {
            Fault::Freeze {
                node,
                length: seconds(30),
            }
        } else {
            Fault::FreezeAtWrite {
                node,
                length: seconds(30),
            }
        };
        world.at(seconds(20), fault);
        world.run_until(seconds(80));
        assert_ne!(master(&world), node);
        assert_eq!(world.store.history.len(), 2, "{}", world.trace.join("\n"));
        // What was on its way to the kernel is deleted in the same breath.
        assert_eq!(
            world.overlaps.involuntary,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
    }
}

#[test]
fn an_isolated_holder_drops_in_time() {
    for seed in 0..200 {
        let mut world = world(seed, &[100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        world.at(
            seconds(20),
            Fault::Unreachable {
                node,
                silent: seed % 2 == 0,
            },
        );
        world.at(seconds(50), Fault::Reachable { node });
        world.run_until(seconds(60));
        assert_ne!(master(&world), node, "{}", world.trace.join("\n"));
        assert_eq!(world.overlaps.most, 1, "{}", world.trace.join("\n"));
        assert_eq!(
            world.store.history.len(),
            2,
            "the old master's return moves nothing"
        );
    }
}

#[test]
fn an_api_outage_shorter_than_the_holders_time_moves_nothing() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100, 100], QUIET);
        let node = settled(&mut world);
        for node in 0..3 {
            world.at(
                seconds(20),
                Fault::Unreachable {
                    node,
                    silent: false,
                },
            );
            world.at(seconds(23), Fault::Reachable { node });
        }
        world.run_until(seconds(60));
        assert_eq!(master(&world), node);
        assert_eq!(world.store.history.len(), 1, "{}", world.trace.join("\n"));
        assert_eq!(world.longest_gap, Duration::ZERO);
    }
}

#[test]
fn a_long_api_outage_ends_with_the_holder_that_was() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        for node in 0..3 {
            world.at(
                seconds(20),
                Fault::Unreachable {
                    node,
                    silent: false,
                },
            );
            world.at(seconds(80), Fault::Reachable { node });
        }
        world.run_until(seconds(100));
        // A full Lease starts with the first fresh read; the old holder needs to wait for nobody.
        assert_eq!(master(&world), node, "{}", world.trace.join("\n"));
        assert_eq!(world.overlaps.most, 1);
        world.assert_one_holder_per_epoch();
    }
}

#[test]
fn the_only_director_holds_without_the_api_and_after_a_restart() {
    for seed in 0..100 {
        let mut world = world(seed, &[100], QUIET);
        world.run_until(seconds(5));
        assert_eq!(master(&world), 0);
        world.measure_from = seconds(5);
        world.longest_gap = Duration::ZERO;
        world.at(
            seconds(10),
            Fault::Unreachable {
                node: 0,
                silent: seed % 2 == 0,
            },
        );
        world.run_until(seconds(300));
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        world.at(seconds(300), Fault::Kill { node: 0 });
        world.at(seconds(301), Fault::Start { node: 0 });
        world.run_until(seconds(400));
        assert_eq!(master(&world), 0);
        // The first read takes up to its timeout to fail.
        assert!(world.longest_gap < seconds(2), "{:?}", world.longest_gap);
        world.at(seconds(400), Fault::Reachable { node: 0 });
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(420));
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        assert_eq!(world.store.history.len(), 1, "{}", world.trace.join("\n"));

        // A new boot knows nothing: without the API, no address.
        world.at(
            seconds(420),
            Fault::Unreachable {
                node: 0,
                silent: false,
            },
        );
        world.at(seconds(421), Fault::Reboot { node: 0 });
        world.at(seconds(422), Fault::Start { node: 0 });
        world.run_until(seconds(500));
        assert!(world.carriers().is_empty());
    }
}

#[test]
fn a_shutdown_hands_over_without_a_gap() {
    for seed in 0..200 {
        let mut world = world(seed, &[100, 100, 100], QUIET);
        let node = settled(&mut world);
        world.at(seconds(20), Fault::Shutdown { node });
        world.run_until(seconds(25));
        assert_ne!(master(&world), node);
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        assert!(
            world.overlaps.voluntary <= Duration::from_millis(500),
            "{:?}",
            world.overlaps
        );
        assert_eq!(world.overlaps.involuntary, Duration::ZERO);
        world.at(seconds(25), Fault::Start { node });
        world.run_until(seconds(60));
        assert_ne!(master(&world), node, "no preemption");
    }
}

#[test]
fn a_shutdown_without_a_successor_lends() {
    for seed in 0..100 {
        let alone = seed % 2 == 0;
        let mut world = world(seed, if alone { &[100] } else { &[100, 100] }, QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        if !alone {
            let cold = Config {
                verified: false,
                ..config(2, 100)
            };
            world.at(
                seconds(20),
                Fault::Configure {
                    node: 1 - node,
                    config: Box::new(cold),
                },
            );
        }
        world.measure_from = seconds(20);
        world.longest_gap = Duration::ZERO;
        world.at(seconds(21), Fault::Shutdown { node });
        world.at(seconds(40), Fault::Start { node });
        world.run_until(seconds(100));
        assert_eq!(master(&world), node);
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        assert_eq!(world.store.history.len(), 1, "{}", world.trace.join("\n"));
    }
}

/// A director with a fault (a lost link, an address that it cannot hold) is told to leave, and to hold again when it is
/// cured: docs/leadership.md, sync group.
#[test]
fn a_fault_moves_the_addresses_to_a_fit_director_within_a_second_and_nowhere_else() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 80], QUIET);
        world.run_until(seconds(20));
        let first = master(&world);
        let second = 1 - first;
        let tell = |world: &mut World, at, node: usize, intent| {
            let priority = [100, 80][node];
            let config = Box::new(Config {
                intent,
                ..config(2, priority)
            });
            world.at(at, Fault::Configure { node, config });
        };
        world.measure_from = seconds(20);
        world.longest_gap = Duration::ZERO;
        tell(&mut world, seconds(20), first, Intent::Leave);
        world.run_until(seconds(21));
        assert_eq!(master(&world), second, "{}", world.trace.join("\n"));
        // Both have one: nobody would do better.
        tell(&mut world, seconds(30), second, Intent::Leave);
        world.run_until(seconds(50));
        assert_eq!(master(&world), second, "{}", world.trace.join("\n"));
        tell(&mut world, seconds(50), first, Intent::Hold);
        world.run_until(seconds(51));
        assert_eq!(master(&world), first, "{}", world.trace.join("\n"));
        // Cured, it takes nothing back.
        tell(&mut world, seconds(60), second, Intent::Hold);
        world.run_until(seconds(80));
        assert_eq!(master(&world), first, "{}", world.trace.join("\n"));
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        assert!(
            world.overlaps.voluntary <= Duration::from_millis(500),
            "{:?}",
            world.overlaps
        );
    }
}

#[test]
fn a_leaving_director_gives_up_only_to_another_and_a_withdrawn_one_at_once() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        let other = 1 - node;
        let pending = Config {
            permitted: false,
            ..config(2, 100)
        };
        world.at(
            seconds(20),
            Fault::Configure {
                node: other,
                config: Box::new(pending),
            },
        );
        let leaving = Config {
            intent: Intent::Leave,
            ..config(2, 100)
        };
        world.at(
            seconds(21),
            Fault::Configure {
                node,
                config: Box::new(leaving),
            },
        );
        world.measure_from = seconds(20);
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(60));
        assert_eq!(
            master(&world),
            node,
            "a candidate that is pending acquires nothing"
        );
        world.at(
            seconds(60),
            Fault::Configure {
                node: other,
                config: Box::new(config(2, 100)),
            },
        );
        world.run_until(seconds(63));
        assert_eq!(master(&world), other, "{}", world.trace.join("\n"));
        assert_eq!(world.longest_gap, Duration::ZERO);
        assert!(
            world.overlaps.voluntary <= Duration::from_millis(500),
            "{:?}",
            world.overlaps
        );

        let withdrawn = Config {
            intent: Intent::Withdraw,
            ..config(2, 100)
        };
        let at = seconds(63);
        for node in 0..2 {
            world.at(
                at,
                Fault::Configure {
                    node,
                    config: Box::new(withdrawn.clone()),
                },
            );
        }
        world.run_until(at + Duration::from_millis(1));
        assert!(world.carriers().is_empty(), "deleted at once");
        world.run_until(seconds(65));
        assert!(world.store.lease.as_ref().unwrap().holder.is_none());
        for node in &world.nodes {
            assert_eq!(
                node.agent.as_ref().unwrap().machine.status().role,
                Role::Released
            );
        }
    }
}

#[test]
fn retained_addresses_outlive_agents_and_are_adopted_by_the_next() {
    for seed in 0..50 {
        let mut world = world(seed, &[100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        let retained = Config {
            intent: Intent::Retain,
            ..config(2, 100)
        };
        for node in 0..2 {
            world.at(
                seconds(20),
                Fault::Configure {
                    node,
                    config: Box::new(retained.clone()),
                },
            );
            // Uninstalling takes the agents' rights before it takes the agents.
            world.at(
                seconds(25),
                Fault::Unreachable {
                    node,
                    silent: false,
                },
            );
            world.at(seconds(45), Fault::Shutdown { node });
        }
        world.measure_from = seconds(20);
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(1000));
        assert_eq!(master(&world), node, "{}", world.trace.join("\n"));
        for node in 0..2 {
            world.at(seconds(1000), Fault::Reachable { node });
            world.at(
                seconds(1000),
                Fault::Configure {
                    node,
                    config: Box::new(config(2, 100)),
                },
            );
            world.at(seconds(1001), Fault::Start { node });
        }
        world.run_until(seconds(1020));
        assert_eq!(master(&world), node, "{}", world.trace.join("\n"));
        assert_eq!(
            world.longest_gap,
            Duration::ZERO,
            "{}",
            world.trace.join("\n")
        );
        world.at(seconds(1020), Fault::Kill { node });
        world.run_until(seconds(1024));
        assert!(
            !world.carriers().contains(&node),
            "the address has a lifetime again"
        );
    }
}

#[test]
fn annotations_by_others_are_no_sign_of_life_and_no_loss() {
    for seed in 0..50 {
        let mut world = world(seed, &[100, 100], QUIET);
        for at in 0..60 {
            world.at(
                seconds(10) + Duration::from_millis(at * 500),
                Fault::Annotate,
            );
        }
        world.run_until(seconds(20));
        let node = master(&world);
        world.at(seconds(20), Fault::Reboot { node });
        world.run_until(seconds(36));
        assert_ne!(master(&world), node, "{}", world.trace.join("\n"));
        assert_eq!(world.store.history.len(), 2);
    }
}

#[test]
fn a_lease_made_anew_is_held_again_without_sharing() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100, 100], QUIET);
        world.run_until(seconds(20));
        let node = master(&world);
        world.at(seconds(20), Fault::DeleteLease);
        world.at(seconds(20 + seed % 12), Fault::CreateLease);
        world.run_until(seconds(60));
        assert_eq!(master(&world), node, "{}", world.trace.join("\n"));
        assert_eq!(world.overlaps.most, 1, "{}", world.trace.join("\n"));
        assert!(
            world.store.lease.as_ref().unwrap().epoch >= 2,
            "a new epoch at every acquisition"
        );
    }
}

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
