//! Directors that share nothing but the Lease: so it is where heartbeats are not heard.

mod leaving;
mod storms;

use std::time::Duration;

use super::simulation::scenario::{self, NAMES, QUIET, master, seconds, settled};
use super::simulation::{Api, Fault, World};
use lvs_core::election::Config;

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
