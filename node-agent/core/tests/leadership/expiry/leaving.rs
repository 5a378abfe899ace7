//! Directors that are told to leave: by the end of their agent, a fault, their plan or an uninstallation.

use std::time::Duration;

use lvs_core::election::{Config, Intent, Role};

use super::{config, world};
use crate::simulation::scenario::{QUIET, master, seconds, settled};
use crate::simulation::{Fault, World};

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
