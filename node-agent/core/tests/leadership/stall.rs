//! Rule 11: a process that stood still for as long as a takeover takes refreshes nothing before it knows that nobody has
//! taken over, though its Lease has time left.

use std::time::Duration;

use super::simulation::scenario::{
    DEFAULT, FAST, QUIET, hearing, master, milliseconds, seconds, settled, story,
};
use super::simulation::{Api, Fault};

#[test]
fn a_process_that_stood_still_for_less_than_its_lease_writes_no_address_of_its_successor() {
    for seed in 0..400 {
        let heartbeat = if seed % 2 == 0 { DEFAULT } else { FAST };
        let mut world = hearing(seed, &[100, 100, 100], QUIET, heartbeat);
        let node = settled(&mut world);
        let at = seconds(20) + milliseconds(seed * 13 % 2_000);
        let length = milliseconds(300 + seed * 17 % 6_000);
        world.at(at, Fault::Freeze { node, length });
        world.run_until(seconds(40));
        assert_eq!(
            world.overlaps.superseded_writes,
            0,
            "{}",
            story(seed, &world)
        );
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, &world));
    }
}

#[test]
fn one_that_nobody_succeeded_renews_and_goes_on_without_a_gap() {
    for seed in 0..200 {
        // The others are deaf to each other but not to the API server, and cannot become ready.
        let mut world = hearing(seed, &[100, 100], QUIET, DEFAULT);
        let node = settled(&mut world);
        let other = 1 - node;
        let config = lvs_core::election::Config {
            verified: false,
            ..world.nodes[other].config.clone()
        };
        let config = Box::new(config);
        world.at(
            seconds(20),
            Fault::Configure {
                node: other,
                config,
            },
        );
        let at = seconds(21) + milliseconds(seed * 11 % 2_000);
        let length = milliseconds(700 + seed * 3 % 600);
        world.at(at, Fault::Freeze { node, length });
        world.run_until(seconds(40));
        assert_eq!(master(&world), node, "{}", story(seed, &world));
        assert_eq!(world.store.history.len(), 1, "{}", story(seed, &world));
        // The address lives for two seconds less 20 ms from its last refresh, half a second before at most.
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, &world));
    }
}

#[test]
fn a_slow_api_server_is_no_doubt() {
    for seed in 0..100 {
        let api = Api {
            write_delay: 2_000,
            ..QUIET
        };
        let mut world = hearing(seed, &[100, 100], api, DEFAULT);
        let node = settled(&mut world);
        world.run_until(seconds(60));
        assert_eq!(master(&world), node, "{}", story(seed, &world));
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, &world));
    }
}

#[test]
fn while_all_have_lost_the_api_promises_settle_the_doubt() {
    for seed in 0..100 {
        let mut world = hearing(seed, &[100, 100, 100], QUIET, DEFAULT);
        let node = settled(&mut world);
        for other in 0..3 {
            world.at(
                seconds(21),
                Fault::Unreachable {
                    node: other,
                    silent: true,
                },
            );
        }
        let at = seconds(25) + milliseconds(seed * 11 % 2_000);
        let length = milliseconds(700 + seed * 3 % 300);
        world.at(at, Fault::Freeze { node, length });
        world.run_until(seconds(60));
        assert_eq!(world.carriers(), [node], "{}", story(seed, &world));
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, &world));
    }
}
