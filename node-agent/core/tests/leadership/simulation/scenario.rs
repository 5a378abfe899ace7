//! Worlds to begin with.

use std::time::Duration;

use lvs_core::election::{ApiLoss, Config, HeartbeatParts, Intent, OnShutdown, Takeover, Timing};

use super::random::Random;
use super::{Api, Fault, Network, World};

pub const NAMES: [&str; 4] = ["lb-a", "lb-b", "lb-c", "lb-d"];
/// F, as long as it takes on a clock that is two percent slow.
pub const FENCE: Duration = Duration::from_millis(3_320);
pub const QUIET: Api = Api {
    latency: 20,
    loss: 0,
    write_delay: 0,
};
/// Profile Default of `spec.detection`.
pub const DEFAULT: HeartbeatParts = HeartbeatParts {
    interval: Duration::from_millis(150),
    missed: 3,
    challenge_window: Duration::from_millis(200),
};
/// Profile Fast.
pub const FAST: HeartbeatParts = HeartbeatParts {
    interval: Duration::from_millis(50),
    missed: 3,
    challenge_window: Duration::from_millis(100),
};

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn config(nodes: usize, priority: u8, heartbeat: Option<HeartbeatParts>) -> Config {
    Config {
        timing: Timing::for_detection(10, heartbeat).unwrap(),
        priority,
        preemption_delay: None,
        hand_over_to: None,
        permitted: true,
        directors: NAMES[..nodes]
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        intent: Intent::Hold,
        verified: true,
        on_shutdown: OnShutdown::HandOver,
        on_api_loss: ApiLoss::Hold,
        takeover: Takeover::Fast,
    }
}

/// As many nodes as priorities, all of them started.
pub fn world(seed: u64, priorities: &[u8], api: Api, heartbeat: Option<HeartbeatParts>) -> World {
    let configs = priorities.iter().enumerate().map(|(node, priority)| {
        let config = config(priorities.len(), *priority, heartbeat);
        (NAMES[node].to_owned(), config)
    });
    let mut world = World::new(seed, configs.collect(), api, 2);
    for node in 0..priorities.len() {
        world.at(Duration::ZERO, Fault::Start { node });
    }
    world
}

/// As above, and they hear each other.
pub fn hearing(seed: u64, priorities: &[u8], api: Api, heartbeat: HeartbeatParts) -> World {
    let mut world = world(seed, priorities, api, Some(heartbeat));
    world.network = Network {
        latency: 5,
        loss: 0,
    };
    world
}

/// What is to be read when a schedule fails.
pub fn story(seed: u64, world: &World) -> String {
    format!("seed {seed}\n{}", world.trace.join("\n"))
}

/// Priorities of two to four nodes, alike in half of the draws.
pub fn priorities(random: &mut Random) -> Vec<u8> {
    let nodes = 2 + random.below(3);
    let equal = random.chance(50);
    (0..nodes)
        .map(|_| {
            if equal {
                100
            } else {
                u8::try_from(1 + random.below(254)).unwrap()
            }
        })
        .collect()
}

/// One of so many nodes.
pub fn any_node(nodes: usize, random: &mut Random) -> usize {
    usize::try_from(random.below(u64::try_from(nodes).unwrap())).unwrap()
}

/// Runs for twenty seconds and begins to measure gaps. Returns who carries the address then.
pub fn settled(world: &mut World) -> usize {
    world.run_until(seconds(20));
    let node = master(world);
    world.measure_from = seconds(20);
    world.longest_gap = Duration::ZERO;
    node
}

/// The one that carries the address.
pub fn master(world: &World) -> usize {
    let carriers = world.carriers();
    assert_eq!(carriers.len(), 1, "{}", world.trace.join("\n"));
    carriers[0]
}
