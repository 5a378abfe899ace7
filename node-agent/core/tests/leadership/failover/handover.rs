//! Handovers that people ask for, by annotation, priority or preemption.

use std::time::Duration;

use lvs_core::election::Config;

use super::{HANDOVER, world};
use crate::simulation::scenario::{NAMES, master, seconds, settled, story};
use crate::simulation::{Fault, World};

/// Every node gets its configuration changed alike.
fn configure(world: &mut World, at: Duration, change: impl Fn(usize, &mut Config)) {
    for node in 0..world.nodes.len() {
        let mut config = world.nodes[node].config.clone();
        change(node, &mut config);
        let config = Box::new(config);
        world.at(at, Fault::Configure { node, config });
    }
}

fn assert_handed_over(seed: u64, world: &World, acquisitions: usize) {
    assert_eq!(
        world.store.history.len(),
        acquisitions,
        "{}",
        story(seed, world)
    );
    assert_eq!(world.longest_gap, Duration::ZERO, "{}", story(seed, world));
    assert!(
        world.overlaps.voluntary <= HANDOVER,
        "{:?} {}",
        world.overlaps,
        story(seed, world)
    );
    assert_eq!(
        world.overlaps.involuntary,
        Duration::ZERO,
        "{}",
        story(seed, world)
    );
}

#[test]
fn a_holder_hands_over_to_whom_people_want() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 50, 150]);
        let node = settled(&mut world);
        let wanted = usize::try_from(seed % 3).unwrap();
        configure(&mut world, seconds(20), |_, config| {
            config.hand_over_to = Some(NAMES[wanted].to_owned());
        });
        world.run_until(seconds(22));
        assert_eq!(master(&world), wanted, "{}", story(seed, &world));
        world.run_until(seconds(60));
        assert_handed_over(seed, &world, if wanted == node { 1 } else { 2 });
    }
}

#[test]
fn nobody_who_is_not_ready_is_handed_anything() {
    for seed in 0..50 {
        let mut world = world(seed, &[100, 100]);
        let node = settled(&mut world);
        let other = 1 - node;
        configure(&mut world, seconds(20), |this, config| {
            config.hand_over_to = Some(NAMES[other].to_owned());
            config.verified = this == node;
        });
        world.run_until(seconds(40));
        assert_eq!(master(&world), node, "{}", story(seed, &world));
        configure(&mut world, seconds(40), |_, config| config.verified = true);
        world.run_until(seconds(41));
        configure(&mut world, seconds(41), |_, config| {
            config.hand_over_to = Some(NAMES[other].to_owned());
            config.verified = true;
        });
        world.run_until(seconds(43));
        assert_eq!(master(&world), other, "{}", story(seed, &world));
    }
}

#[test]
fn the_higher_priority_preempts_after_its_delay_and_only_where_that_is_wanted() {
    for seed in 0..100 {
        let mut world = world(seed, &[250, 10, 100]);
        let node = settled(&mut world);
        assert_eq!(node, 0);
        world.at(seconds(20), Fault::Reboot { node });
        world.run_until(seconds(30));
        assert_eq!(master(&world), 2);
        world.at(seconds(30), Fault::Start { node });
        world.run_until(seconds(60));
        assert_eq!(master(&world), 2, "no preemption unless it is wanted");
        world.measure_from = seconds(60);
        world.longest_gap = Duration::ZERO;
        configure(&mut world, seconds(60), |_, config| {
            config.preemption_delay = Some(seconds(50));
        });
        // It has been ready for thirty seconds.
        world.run_until(seconds(75));
        assert_eq!(master(&world), 2, "{}", story(seed, &world));
        world.run_until(seconds(90));
        assert_eq!(master(&world), 0, "{}", story(seed, &world));
        world.run_until(seconds(150));
        assert_handed_over(seed, &world, 3);
    }
}

#[test]
fn a_director_of_priority_0_gives_way_and_takes_over_when_nobody_else_can() {
    for seed in 0..100 {
        let mut world = world(seed, &[100, 100]);
        let node = settled(&mut world);
        let other = 1 - node;
        configure(&mut world, seconds(20), |this, config| {
            config.priority = if this == node { 0 } else { 100 };
        });
        world.run_until(seconds(22));
        assert_eq!(master(&world), other, "{}", story(seed, &world));
        world.run_until(seconds(40));
        assert_handed_over(seed, &world, 2);
        world.at(seconds(40), Fault::Reboot { node: other });
        world.run_until(seconds(42));
        assert_eq!(master(&world), node, "{}", story(seed, &world));
    }
}
