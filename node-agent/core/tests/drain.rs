//! Who drains: how long, what of it survives a restart, and that nothing lingers.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.

mod world;

use std::time::Duration;

use lvs_core::desired::RouterRole;
use lvs_core::election::Tick;
use lvs_core::health::{Check, Policy, remembered};
use lvs_core::ipvs::{Destination, DestinationForwarding, DestinationKey};
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync};
use lvs_crds::node_plan::{
    DirectorPlan, LeadershipPlan, PlanState, PlannedRealServer, PlannedService,
};
use lvs_crds::real_server::RealServerState;
use lvs_crds::traffic_policy::{AdministrativeState, PlannedSorryServer};
use lvs_crds::value::ForwardingType;
use proptest::prelude::*;
use world::story::{ALL, HOSTS, Story, down, service_key, web};
use world::{forwarding, ip};

const TIMEOUT_SECONDS: u64 = 300;

/// The three hosts, all up and in the kernel, with 300 s to drain.
fn serving() -> Story {
    let mut story = Story::of_healthy(PlannedService {
        drain_timeout_seconds: Some(300),
        ..web()
    });
    assert_eq!(story.pass(), ALL);
    story
}

fn destination(host: &str, port: u16) -> DestinationKey {
    DestinationKey {
        address: ip(host),
        port,
    }
}

/// The host has connections from now on.
fn connect(story: &mut Story, host: &str) {
    let connected = (service_key(80), destination(host, 8080));
    story.world.model.ipvs.connected.insert(connected);
}

/// The first host leaves the plan.
fn leave(story: &mut Story) -> PlannedRealServer {
    story.planned().real_servers.remove(0)
}

fn set(story: &mut Story, index: usize, state: AdministrativeState) {
    story.planned().real_servers[index].administrative_state = state;
}

/// Whether the kernel holds the first host with weight 0 (`Some(0)`), with another weight, or not at all.
fn first(lines: &[String]) -> Option<u16> {
    let line = lines.iter().find(|line| line.starts_with(HOSTS[0]))?;
    line.split(' ').next_back()?.parse().ok()
}

/// Another process over the same kernel and journal.
fn restart(story: &mut Story) {
    story.policy = Policy::default();
}

fn milliseconds_before(tick: Tick) -> Tick {
    tick - Duration::from_millis(1)
}

#[test]
fn who_is_told_to_drain_is_out_exactly_at_the_deadline() {
    let mut story = serving();
    set(&mut story, 0, AdministrativeState::Draining);
    let deadline = story.now + Duration::from_secs(TIMEOUT_SECONDS);
    for now in [story.now, milliseconds_before(deadline)] {
        story.now = now;
        assert_eq!(story.pass(), ["10.0.0.21:8080 0", ALL[1], ALL[2]]);
        assert_eq!(story.next_step, Some(deadline), "the loop wakes by then");
        let stands = &story.standing().real_servers[0];
        assert_eq!(stands.state, RealServerState::Draining);
        assert_eq!(stands.message, "draining, at most 300 s");
    }
    story.now = deadline;
    assert_eq!(story.pass(), ALL[1..]);
    let stands = &story.standing().real_servers[0];
    assert_eq!(stands.state, RealServerState::Disabled);
    assert_eq!(stands.message, "drained for 300 s");
    assert_eq!(story.next_step, None);
    // It stays out, whatever its checks and a longer time say.
    story.set(HOSTS[0], down());
    story.planned().drain_timeout_seconds = Some(3600);
    assert_eq!(story.pass(), ALL[1..]);
    assert_eq!(story.states()[0], RealServerState::Disabled);
    story.set(HOSTS[0], lvs_core::health::Health::Up);
    set(&mut story, 0, AdministrativeState::Enabled);
    assert_eq!(story.pass(), ALL, "it serves again at once");
}

#[test]
fn without_a_time_draining_has_no_end_and_who_leaves_goes_at_once() {
    let mut story = serving();
    story.planned().drain_timeout_seconds = None;
    set(&mut story, 1, AdministrativeState::Draining);
    connect(&mut story, HOSTS[0]);
    leave(&mut story);
    for _ in 0..3 {
        assert_eq!(story.pass(), ["10.0.0.22:8080 0", ALL[2]]);
        assert_eq!(story.standing().real_servers[0].message, "");
        assert_eq!(story.next_step, None);
        story.wait(86_400);
    }
}

/// A pod that ends closes its listener first, and serves the connections that it has.
#[test]
fn who_drains_and_takes_no_new_connections_keeps_those_it_has() {
    for timeout in [Some(300), None] {
        let mut story = serving();
        story.planned().drain_timeout_seconds = timeout;
        set(&mut story, 0, AdministrativeState::Draining);
        let deadline = story.now + Duration::from_secs(TIMEOUT_SECONDS);
        assert_eq!(first(&story.pass()), Some(0));
        story.set(HOSTS[0], down());
        for _ in 0..2 {
            assert_eq!(story.pass(), ["10.0.0.21:8080 0", ALL[1], ALL[2]]);
            let stands = &story.standing().real_servers[0];
            assert_eq!(stands.state, RealServerState::Draining);
            let told = timeout.map_or(
                "connect refused",
                |_| "draining, at most 300 s; connect refused",
            );
            assert_eq!(stands.message, told);
            restart(&mut story);
        }
        // It ends when its time is over, or when its plan has it no longer.
        if timeout.is_some() {
            story.now = deadline;
            restart(&mut story);
            story.pass();
            story.wait(TIMEOUT_SECONDS);
        } else {
            leave(&mut story);
        }
        assert_eq!(story.pass(), ALL[1..]);
    }
}

/// There is nothing to be kept.
#[test]
fn who_was_out_already_does_not_come_back_to_drain() {
    let mut story = serving();
    story.set(HOSTS[0], down());
    assert_eq!(story.pass(), ALL[1..]);
    set(&mut story, 0, AdministrativeState::Draining);
    for _ in 0..2 {
        assert_eq!(story.pass(), ALL[1..]);
        assert_eq!(story.states()[0], RealServerState::Down);
        assert_eq!(story.standing().real_servers[0].message, "connect refused");
        story.wait(TIMEOUT_SECONDS / 3);
    }
    set(&mut story, 0, AdministrativeState::Enabled);
    story.set(HOSTS[0], lvs_core::health::Health::Up);
    assert_eq!(story.pass(), ALL);
}

#[test]
fn a_time_of_nothing_takes_out_at_once() {
    let mut story = serving();
    story.planned().drain_timeout_seconds = Some(0);
    set(&mut story, 1, AdministrativeState::Draining);
    connect(&mut story, HOSTS[0]);
    leave(&mut story);
    assert_eq!(story.pass(), [ALL[2]]);
}

#[test]
fn who_leaves_the_plan_drains_until_exactly_the_deadline() {
    let mut story = serving();
    let sysctls = story.world.model.host.sysctls.clone();
    for host in HOSTS {
        connect(&mut story, host);
    }
    let begun = story.now;
    leave(&mut story);
    assert_eq!(story.pass(), ["10.0.0.21:8080 0", ALL[1], ALL[2]]);
    let leaving = story.standing().leaving[&service_key(80)][0].clone();
    assert_eq!(leaving.name, "rs-10.0.0.21");
    assert_eq!(
        leaving.message,
        "it has left the VirtualService: draining, at most 300 s"
    );
    assert_eq!(
        story.standing().real_servers.len(),
        2,
        "it counts for nothing"
    );
    // Time runs for each by itself; what they need of the node stays though nobody is planned any more.
    story.wait(100);
    story.planned().real_servers.clear();
    let all_quiet = ["10.0.0.21:8080 0", "10.0.0.22:8080 0", "10.0.0.23:8080 0"];
    assert_eq!(story.pass(), all_quiet);
    assert_eq!(story.world.model.host.sysctls, sysctls);
    let deadline = begun + Duration::from_secs(TIMEOUT_SECONDS);
    assert_eq!(story.next_step, Some(deadline));
    story.now = milliseconds_before(deadline);
    assert_eq!(story.pass(), all_quiet);
    story.now = deadline;
    assert_eq!(story.pass(), all_quiet[1..]);
    story.wait(100);
    assert_eq!(story.pass(), Vec::<String>::new());
    assert_eq!(story.next_step, None);
}

#[test]
fn who_drains_already_when_it_leaves_gets_no_more_time() {
    let mut story = serving();
    connect(&mut story, HOSTS[0]);
    set(&mut story, 0, AdministrativeState::Draining);
    story.pass();
    story.wait(200);
    let drained = story.now + Duration::from_secs(100);
    leave(&mut story);
    story.pass();
    assert_eq!(story.next_step, Some(drained));
    story.now = drained;
    assert_eq!(story.pass(), ALL[1..]);
}

/// Whoever put it back.
#[test]
fn who_has_drained_does_not_begin_again_by_leaving() {
    let mut story = serving();
    set(&mut story, 0, AdministrativeState::Draining);
    story.pass();
    let in_kernel = story.world.model.ipvs.services.clone();
    story.wait(TIMEOUT_SECONDS);
    assert_eq!(story.pass(), ALL[1..]);
    story.world.model.ipvs.services = in_kernel;
    leave(&mut story);
    assert_eq!(story.pass(), ALL[1..]);
}

/// A router without state, of this node.
fn stateless() -> lvs_core::desired::PlanInput {
    let mut router = world::plan("vr-edge");
    router.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            connection_sync: Some(PlannedConnectionSync {
                type_: ConnectionSyncType::Stateless,
                daemon: None,
            }),
            ..world::leadership()
        }),
        ..DirectorPlan::default()
    });
    router
}

#[test]
fn who_leaves_goes_with_its_last_connection_where_the_kernel_knows_of_all() {
    let quiet = ["10.0.0.21:8080 0", ALL[1], ALL[2]];
    for (role, is_stateless, goes) in [
        (RouterRole::Master, false, true),
        (RouterRole::Backup, false, false),
        (RouterRole::Master, true, false),
    ] {
        let mut story = serving();
        story.world.set_role(role);
        if is_stateless {
            story.world.plans.push(stateless());
        }
        leave(&mut story);
        connect(&mut story, HOSTS[0]);
        assert_eq!(story.pass(), quiet);
        story.wait(1);
        assert_eq!(story.pass(), quiet, "a connection is left");
        story.world.model.ipvs.connected.clear();
        story.wait(1);
        let left = story.pass();
        if goes {
            assert_eq!(left, ALL[1..]);
        } else {
            assert_eq!(left, quiet, "{role:?} stateless: {is_stateless}");
        }
    }
}

/// Before it has weight 0, a count of no connections says nothing: the next may be on its way.
#[test]
fn who_leaves_without_a_connection_has_weight_0_for_a_pass() {
    let mut story = serving();
    story.world.set_role(RouterRole::Master);
    leave(&mut story);
    assert_eq!(first(&story.pass()), Some(0));
    assert_eq!(first(&story.pass()), None);
}

#[test]
fn who_comes_back_serves_again_at_once() {
    let mut story = serving();
    connect(&mut story, HOSTS[0]);
    let planned = leave(&mut story);
    story.pass();
    story.wait(TIMEOUT_SECONDS - 1);
    story.pass();
    story.planned().real_servers.insert(0, planned);
    // Nobody has asked it meanwhile, and a check that is new is not passed: but it was up when it left.
    let known = |story: &Story| {
        remembered(
            &story.world.plans,
            &story.world.model.ipvs.services,
            &story.world.journal,
            &story.policy,
        )
    };
    let is_known = |check: &Check| check.target.ip() == ip(HOSTS[0]);
    assert!(known(&story).iter().any(is_known));
    assert_eq!(story.pass(), ALL);
    // One that was down when it left is asked first.
    let mut story = Story::of_healthy(PlannedService {
        drain_timeout_seconds: Some(300),
        on_failure: lvs_crds::traffic_policy::OnFailure::Quiesce,
        ..web()
    });
    story.set(HOSTS[0], down());
    connect(&mut story, HOSTS[0]);
    story.pass();
    let planned = leave(&mut story);
    assert_eq!(first(&story.pass()), Some(0));
    story.planned().real_servers.insert(0, planned);
    assert!(!known(&story).iter().any(is_known));
}

#[test]
fn a_restart_begins_anew_and_brings_nothing_back() {
    let mut story = serving();
    connect(&mut story, HOSTS[0]);
    connect(&mut story, HOSTS[1]);
    set(&mut story, 1, AdministrativeState::Draining);
    set(&mut story, 2, AdministrativeState::Draining);
    leave(&mut story);
    let quiet = ["10.0.0.21:8080 0", "10.0.0.22:8080 0", "10.0.0.23:8080 0"];
    assert_eq!(story.pass().len(), 3);
    story.wait(200);
    restart(&mut story);
    let known = remembered(
        &story.world.plans,
        &story.world.model.ipvs.services,
        &story.world.journal,
        &story.policy,
    );
    assert_eq!(
        known.len(),
        2,
        "who drains counts as up, or its connections would end: {known:?}"
    );
    assert_eq!(story.pass(), quiet);
    let leaving = story.standing().leaving[&service_key(80)][0].clone();
    assert_eq!(leaving.name, "", "nobody knows any more");
    story.wait(TIMEOUT_SECONDS - 1);
    assert_eq!(story.pass(), quiet);
    story.wait(1);
    assert_eq!(story.pass(), Vec::<String>::new());
    // Who has drained does not come back with weight 0.
    restart(&mut story);
    assert_eq!(story.pass(), Vec::<String>::new());
    assert_eq!(story.states(), [RealServerState::Disabled; 2]);
    assert_eq!(
        story.standing().real_servers[0].message,
        "drained for 300 s"
    );
}

/// A node that has booted holds no service yet. Connections that a peer sends it belong to destinations.
#[test]
fn on_a_new_node_who_is_told_to_drain_is_there() {
    let mut story = Story::of_healthy(PlannedService {
        drain_timeout_seconds: Some(300),
        ..web()
    });
    set(&mut story, 0, AdministrativeState::Draining);
    assert_eq!(story.pass(), ["10.0.0.21:8080 0", ALL[1], ALL[2]]);
}

#[test]
fn nothing_lingers_of_what_was_withdrawn() {
    let mut story = serving();
    connect(&mut story, HOSTS[0]);
    leave(&mut story);
    story.pass();
    let mut other = web();
    other.drain_timeout_seconds = Some(300);
    other.address.as_mut().unwrap().port = 81;
    other.address.as_mut().unwrap().end_port = 81;
    *story.planned() = other;
    let idle = story.world.model.ipvs.idle();
    let view = story.world.view(&idle);
    let decided = story.policy.decide(
        &story.world.plans,
        &view,
        |_| lvs_core::health::Health::Up,
        story.now,
    );
    story.world.serving = decided.0;
    story.world.pass();
    let services = &story.world.model.ipvs.services;
    assert!(!services.contains_key(&service_key(80)), "its port is gone");
    assert_eq!(story.destinations(81), ALL, "the other has all of its own");

    let mut story = serving();
    connect(&mut story, HOSTS[0]);
    leave(&mut story);
    story.pass();
    story.world.plans[0].spec.state = PlanState::Withdrawn;
    let idle = story.world.model.ipvs.idle();
    let view = story.world.view(&idle);
    let (serving, next_step) = story.policy.decide(
        &story.world.plans,
        &view,
        |_| lvs_core::health::Health::Up,
        story.now,
    );
    assert_eq!(next_step, None);
    story.world.serving = serving;
    story.world.pass();
    assert!(story.world.model.ipvs.services.is_empty());
    assert!(story.world.journal.services.is_empty());
}

#[test]
fn what_somebody_else_put_there_goes_at_once() {
    let mut story = serving();
    let foreign = Destination {
        forwarding: DestinationForwarding::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let services = &mut story.world.model.ipvs.services;
    let state = services.get_mut(&service_key(80)).unwrap();
    let key = destination("10.0.0.99", 8080);
    state.destinations.push((key, foreign));
    assert_eq!(story.pass(), ALL);
}

#[test]
fn a_sorry_server_goes_at_once_when_real_servers_are_back() {
    let mut story = Story::of(PlannedService {
        drain_timeout_seconds: Some(300),
        sorry_server: Some(PlannedSorryServer {
            address: None,
            port: 8081,
            forwarding: forwarding(ForwardingType::NAT),
        }),
        ..web()
    });
    let sorry = ["192.0.2.10:8081 1"];
    assert_eq!(story.pass(), sorry);
    for host in HOSTS {
        story.set(host, lvs_core::health::Health::Up);
    }
    assert_eq!(story.pass(), ALL);
    // Nor does another process take it for a real server that has left.
    for host in HOSTS {
        story.set(host, down());
    }
    assert_eq!(story.pass(), sorry);
    restart(&mut story);
    for host in HOSTS {
        story.set(host, lvs_core::health::Health::Up);
    }
    assert_eq!(story.pass(), ALL);
}

#[test]
fn in_a_range_every_port_drains() {
    let mut service = web();
    service.drain_timeout_seconds = Some(300);
    service.address.as_mut().unwrap().end_port = 81;
    let mut story = Story::of_healthy(service);
    story.pass();
    connect(&mut story, HOSTS[0]);
    story.world.set_role(RouterRole::Master);
    leave(&mut story);
    story.pass();
    assert_eq!(first(&story.destinations(80)), Some(0));
    assert_eq!(
        story.destinations(81),
        ["10.0.0.21:8081 0", "10.0.0.22:8081 2", "10.0.0.23:8081 1"]
    );
    story.pass();
    assert_eq!(first(&story.destinations(80)), Some(0));
    assert_eq!(
        first(&story.destinations(81)),
        None,
        "nobody was connected to this one"
    );
}

/// What happens to one host before a pass.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Serve,
    Drain,
    Leave,
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![Just(Wish::Serve), Just(Wish::Drain), Just(Wish::Leave)]
}

/// What is to be seen of one host, said once more in other words.
#[derive(Clone, Copy, Debug)]
struct Expected {
    wish: Wish,
    /// When it began to drain.
    begun: Tick,
    is_there: bool,
}

impl Expected {
    fn next(self, wish: Wish, now: Tick) -> Self {
        let begun = match (self.wish, wish) {
            (_, Wish::Serve) | (Wish::Serve, _) | (Wish::Leave, Wish::Drain) => now,
            (Wish::Drain | Wish::Leave, _) => self.begun,
        };
        let is_in_time = now.since(begun) < Duration::from_secs(TIMEOUT_SECONDS);
        let is_there = match wish {
            Wish::Serve => true,
            Wish::Drain => is_in_time,
            Wish::Leave => self.is_there && is_in_time,
        };
        Self {
            wish,
            begun,
            is_there,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is wished of whom and when: who serves has its weight, who drains has none until its own time is over, and
    /// nobody comes into the kernel by leaving.
    #[test]
    fn time_runs_for_each_by_itself(
        history in proptest::collection::vec(([wish(), wish(), wish()], 0..200_u64), 1..16),
    ) {
        let mut story = serving();
        let all = story.planned().real_servers.clone();
        let mut expected = [Expected { wish: Wish::Serve, begun: story.now, is_there: true }; 3];
        for (wishes, seconds) in history {
            story.wait(seconds);
            let mut planned = Vec::new();
            let mut lines = Vec::new();
            for ((real_server, wish), expected) in all.iter().zip(wishes).zip(&mut expected) {
                *expected = expected.next(wish, story.now);
                let administrative_state = match wish {
                    Wish::Serve => AdministrativeState::Enabled,
                    Wish::Drain | Wish::Leave => AdministrativeState::Draining,
                };
                if !matches!(wish, Wish::Leave) {
                    planned.push(PlannedRealServer { administrative_state, ..real_server.clone() });
                }
                let weight = if matches!(wish, Wish::Serve) { real_server.weight } else { 0 };
                if expected.is_there {
                    lines.push(format!("{}:8080 {weight}", real_server.address));
                }
            }
            story.planned().real_servers = planned;
            prop_assert_eq!(story.pass(), lines);
        }
    }
}
