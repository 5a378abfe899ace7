//! Rule 10 while nobody reaches the API server: an agent that is started again goes on by promises of the others.

use std::time::Duration;

use super::simulation::scenario::{
    DEFAULT, QUIET, hearing, master, milliseconds, seconds, settled, story,
};
use super::simulation::{Fault, World};

fn world(seed: u64) -> World {
    hearing(seed, &[100, 100, 100], QUIET, DEFAULT)
}

fn cut_all(world: &mut World, at: Duration) {
    for node in 0..world.nodes.len() {
        world.at(at, Fault::Unreachable { node, silent: true });
    }
}

#[test]
fn a_holder_killed_and_restarted_without_the_api_carries_on_by_promises() {
    for seed in 0..200 {
        let mut world = world(seed);
        let node = settled(&mut world);
        cut_all(&mut world, seconds(21));
        world.at(seconds(30), Fault::Kill { node });
        world.at(seconds(31), Fault::Start { node });
        world.run_until(seconds(50));
        assert_eq!(world.carriers(), [node], "{}", story(seed, &world));
        // It starts after a second, and learns of the loss within another; the address had a second left.
        assert!(
            world.longest_gap <= milliseconds(2_000),
            "{:?}\n{}",
            world.longest_gap,
            story(seed, &world)
        );
        for other in 0..3 {
            world.at(seconds(50), Fault::Reachable { node: other });
        }
        world.measure_from = world.now;
        world.longest_gap = Duration::ZERO;
        world.run_until(seconds(80));
        assert_eq!(master(&world), node, "{}", story(seed, &world));
        assert_eq!(world.store.history.len(), 1, "{}", story(seed, &world));
        assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, &world));
        assert_eq!(world.overlaps.most, 1, "{}", story(seed, &world));
    }
}

#[test]
fn without_the_promise_of_every_director_a_restarted_holder_carries_nothing() {
    for seed in 0..100 {
        let mut world = world(seed);
        let node = settled(&mut world);
        cut_all(&mut world, seconds(21));
        let dead = (node + 1) % 3;
        world.at(seconds(30), Fault::Kill { node: dead });
        world.at(seconds(30), Fault::Kill { node });
        world.at(seconds(31), Fault::Start { node });
        world.run_until(seconds(36));
        assert!(world.carriers().is_empty(), "{}", story(seed, &world));
        world.run_until(seconds(60));
        assert!(world.carriers().is_empty(), "{}", story(seed, &world));
    }
}

#[test]
fn one_that_was_superseded_before_the_api_was_lost_is_promised_nothing() {
    for seed in 0..100 {
        let mut world = world(seed);
        let node = settled(&mut world);
        world.at(seconds(20), Fault::Kill { node });
        cut_all(&mut world, seconds(25));
        world.at(seconds(30), Fault::Start { node });
        world.run_until(seconds(60));
        let successor = world
            .store
            .history
            .last()
            .and_then(|last| last.holder.as_ref())
            .unwrap();
        let carriers = world.carriers();
        assert!(
            carriers
                .iter()
                .all(|carrier| world.nodes[*carrier].name == successor.node),
            "{}",
            story(seed, &world)
        );
        assert!(!carriers.contains(&node), "{}", story(seed, &world));
    }
}
