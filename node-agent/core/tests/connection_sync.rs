//! How connections survive a takeover: sync daemons by role, what excludes them, and equal tables.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.
#![allow(clippy::format_collect, clippy::format_push_string)]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use lvs_core::desired::{PlanInput, RouterRole};
use lvs_core::diff::Diff;
use lvs_core::election::Tick;
use lvs_core::host::SysctlKey;
use lvs_core::op::{IpvsOp, Op};
use lvs_core::sync_daemon::{
    Continuity, LINGER, SyncDaemon, SyncDaemons, SyncRole, WARMTH, Warmth,
};
use lvs_core::table::{is_canonical, out_of_order, table_hash};
use lvs_crds::condition::Reason;
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync, PlannedSyncDaemon};
use lvs_crds::node_plan::{
    DirectorPlan, LeadershipPlan, PlannedRealServer, PlannedService, SourceKind,
};
use lvs_crds::value::{ForwardingType, SchedulerName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use world::{World, director_plan, ip, lines, node, plan, real_server, service};

const START: &str =
    "--mcast-interface eth1 --syncid 51 --mcast-group 224.0.0.81 --mcast-port 8848 --mcast-ttl 1";

fn settings(sync_id: u8) -> PlannedConnectionSync {
    PlannedConnectionSync {
        type_: ConnectionSyncType::Daemon,
        daemon: Some(PlannedSyncDaemon {
            devices: vec!["eth9".to_owned(), "eth1".to_owned()],
            sync_id,
            group: ip("224.0.0.81"),
            port: 8848,
            ttl: 1,
            maximum_length: None,
        }),
    }
}

fn stateless() -> PlannedConnectionSync {
    PlannedConnectionSync {
        type_: ConnectionSyncType::Stateless,
        daemon: None,
    }
}

fn router_plan(name: &str, sync: Option<PlannedConnectionSync>) -> PlanInput {
    let mut result = plan(name);
    result.spec.source.kind = SourceKind::VirtualRouter;
    result.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            directors: vec!["node-a".to_owned(), "node-b".to_owned()],
            connection_sync: sync,
            ..world::leadership()
        }),
        ..DirectorPlan::default()
    });
    result
}

fn direct(name: &str, address: &str) -> PlannedRealServer {
    real_server(name, address, 80, 1, ForwardingType::DR)
}

fn mixed_service() -> PlannedService {
    let mut other = real_server("other", "192.0.2.21", 80, 1, ForwardingType::TUN);
    other.forwarding.tunnel = Some(lvs_crds::value::Tunnel::default());
    service("2001:db8::100", 80, SchedulerName::Rr, vec![other])
}

fn running(world: &World) -> Vec<(SyncRole, u8)> {
    let daemons = &world.model.ipvs.sync_daemons;
    daemons
        .iter()
        .map(|(role, daemon)| (*role, daemon.sync_id))
        .collect()
}

fn sysctl(world: &World, name: &str) -> String {
    world.model.host.sysctls[&SysctlKey::of_ipvs(name)].clone()
}

fn reasons(diff: &Diff) -> Vec<(String, Reason)> {
    let problems = diff.problems.iter();
    problems
        .map(|problem| (problem.plan.clone(), problem.reason))
        .collect()
}

#[test]
fn a_backup_listens_and_a_master_sends() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(settings(51)))]);
    world.set_role(RouterRole::Backup);
    let pass = world.pass();
    assert_eq!(
        lines(&pass.diff.ops),
        format!(
            "sysctl net.ipv4.vs.sync_refresh_period=10\nsysctl net.ipv4.vs.sync_retries=1\n\
             sysctl net.ipv4.vs.sync_threshold=0 0\nipvs --start-daemon backup {START}\n"
        )
    );
    assert_eq!(world.diff().ops, vec![]);
    world.set_role(RouterRole::Master);
    assert_eq!(
        lines(&world.pass().diff.ops),
        format!("ipvs --stop-daemon backup\nipvs --start-daemon master {START}\n")
    );
    assert_eq!(running(&world), [(SyncRole::Master, 51)]);
    world.withdraw_all();
    world.pass();
    assert_eq!(world.model, node());
    assert!(world.journal.is_empty(), "{:?}", world.journal);
}

#[test]
fn a_director_of_two_routers_sends_for_one_and_listens_for_the_other() {
    let mut other = router_plan("vr-2", Some(settings(51)));
    other.spec.virtual_router_name = "other".to_owned();
    let mut world = World::new(node(), vec![router_plan("vr-1", Some(settings(51))), other]);
    world.set_role(RouterRole::Master);
    assert_eq!(world.pass().refused, vec![]);
    assert_eq!(
        running(&world),
        [(SyncRole::Master, 51), (SyncRole::Backup, 51)]
    );
}

/// The kernel's own state machine can leave a daemon in another role, or none at all.
#[test]
fn a_role_that_is_not_as_it_should_be_is_put_right() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(settings(51)))]);
    world.set_role(RouterRole::Backup);
    world.pass();
    let daemon = world.model.ipvs.sync_daemons.remove(&SyncRole::Backup);
    world.pass();
    assert_eq!(running(&world), [(SyncRole::Backup, 51)]);
    // A daemon of ours, by the journal, in the role that the node has no more.
    world.model.ipvs.sync_daemons =
        SyncDaemons::from([(SyncRole::Master, daemon.clone().unwrap())]);
    world.journal.sync_daemons = BTreeSet::from([(SyncRole::Master, daemon.unwrap())]);
    world.pass();
    assert_eq!(running(&world), [(SyncRole::Backup, 51)]);
}

#[test]
fn another_set_up_is_a_stop_and_a_start_in_one_pass() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(settings(51)))]);
    world.pass();
    world.plans = vec![router_plan("vr", Some(settings(52)))];
    let pass = world.pass();
    assert_eq!(
        (pass.refused, running(&world)),
        (vec![], vec![(SyncRole::Backup, 52)])
    );
    assert_eq!(world.diff().ops, vec![]);
    // The agent dies between the two.
    world.plans = vec![router_plan("vr", Some(settings(53)))];
    world.crash_after(1);
    assert_eq!(running(&world), []);
    world.pass();
    assert_eq!(running(&world), [(SyncRole::Backup, 53)]);
    // And before the first.
    world.plans = vec![router_plan("vr", Some(settings(54)))];
    world.crash_after(0);
    world.pass();
    assert_eq!(running(&world), [(SyncRole::Backup, 54)]);
}

#[test]
fn a_daemon_of_somebody_else_stays_and_is_told_of() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(settings(51)))]);
    let foreign = SyncDaemon {
        device: "eth0".to_owned(),
        sync_id: 7,
        group: ip("224.0.0.81"),
        port: 8848,
        ttl: 1,
        maximum_length: Some(1472),
    };
    let theirs = SyncDaemons::from([(SyncRole::Backup, foreign)]);
    world.model.ipvs.sync_daemons.clone_from(&theirs);
    let pass = world.pass();
    assert_eq!(
        reasons(&pass.diff),
        [("vr".to_owned(), Reason::ForeignObject)]
    );
    world.withdraw_all();
    world.pass();
    assert_eq!(world.model.ipvs.sync_daemons, theirs);
}

#[test]
fn a_running_daemon_excludes_real_servers_of_the_other_family() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(settings(51)))]);
    world.pass();
    world.plans.push(director_plan("vs", vec![mixed_service()]));
    let pass = world.pass();
    assert_eq!(pass.refused, vec![]);
    assert_eq!(
        reasons(&pass.diff),
        [("vs".to_owned(), Reason::ConnectionSyncExcluded)]
    );
    assert_eq!(running(&world), [(SyncRole::Backup, 51)]);
    // Without the daemon it gets its real server, in the pass that stops the daemon.
    world.plans[0] = router_plan("vr", None);
    let pass = world.pass();
    assert_eq!((pass.refused, world.diff()), (vec![], Diff::default()));
    assert_eq!(running(&world), []);
}

#[test]
fn a_real_server_of_the_other_family_excludes_the_daemon() {
    let mut world = World::new(node(), vec![director_plan("vs", vec![mixed_service()])]);
    world.pass();
    world.plans.push(router_plan("vr", Some(settings(51))));
    let pass = world.pass();
    assert_eq!(pass.refused, vec![]);
    assert_eq!(
        reasons(&pass.diff),
        [("vr".to_owned(), Reason::ConnectionSyncExcluded)]
    );
    assert_eq!(running(&world), []);
    // Once it is gone the daemon starts, in the pass that removes it.
    world.plans.remove(0);
    let pass = world.pass();
    assert_eq!(pass.refused, vec![]);
    assert_eq!(running(&world), [(SyncRole::Backup, 51)]);
}

#[test]
fn no_device_no_daemon() {
    let mut sync = settings(51);
    sync.daemon.as_mut().unwrap().devices = vec!["eth7".to_owned()];
    let world = World::new(node(), vec![router_plan("vr", Some(sync))]);
    let desired = world.desired();
    assert_eq!(desired.problems[0].reason, Reason::InterfaceNotFound);
    assert!(desired.sync_daemons.is_empty() && desired.host.sysctls.is_empty());
}

#[test]
fn a_backup_that_serves_what_it_would_balance_balances_nothing_while_it_listens() {
    let mut web = director_plan(
        "vs",
        vec![service(
            "192.0.2.100",
            80,
            SchedulerName::Rr,
            vec![direct("a", "192.0.2.10"), direct("b", "192.0.2.21")],
        )],
    );
    web.spec.real_server = world::direct_routing_plan("x", &["192.0.2.100"])
        .spec
        .real_server;
    let mut world = World::new(
        node(),
        vec![router_plan("vr", Some(settings(51))), web.clone()],
    );
    world.set_role(RouterRole::Backup);
    world.pass();
    assert_eq!(sysctl(&world, "backup_only"), "1");
    world.set_role(RouterRole::Master);
    world.pass();
    assert_eq!(sysctl(&world, "backup_only"), "0");
    // Where it is master of another router it must balance.
    world.set_role(RouterRole::Backup);
    world.pass();
    let mut other = router_plan("vr-2", None);
    other.spec.virtual_router_name = "other".to_owned();
    world.plans.push(other);
    world.roles.0.insert("other".to_owned(), RouterRole::Master);
    world.pass();
    assert_eq!(sysctl(&world, "backup_only"), "0");
    // And without a daemon it is not asked for.
    world.plans = vec![router_plan("vr", None), web];
    world.roles.0.remove("other");
    world.pass();
    assert_eq!(sysctl(&world, "backup_only"), "0");
}

fn daemons(roles: &[SyncRole]) -> SyncDaemons {
    let daemon = SyncDaemon {
        device: "eth1".to_owned(),
        sync_id: 51,
        group: ip("224.0.0.81"),
        port: 8848,
        ttl: 1,
        maximum_length: None,
    };
    roles.iter().map(|role| (*role, daemon.clone())).collect()
}

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanoseconds(1_000_000_000_000) + Duration::from_millis(milliseconds)
}

const MASTER: &[SyncRole] = &[SyncRole::Master];
const BACKUP: &[SyncRole] = &[SyncRole::Backup];

#[test]
fn after_a_change_of_role_the_former_daemon_stays_until_its_messages_are_out() {
    let mut continuity = Continuity::default();
    let mut pass = |wanted: &[SyncRole], running: &[SyncRole], keeps_backup, milliseconds| {
        let mut wanted = daemons(wanted);
        let left = continuity.linger(
            &mut wanted,
            &daemons(running),
            keeps_backup,
            at(milliseconds),
        );
        (wanted.into_keys().collect::<Vec<_>>(), left)
    };
    assert_eq!(pass(BACKUP, &[], true, 0), (BACKUP.to_vec(), None));
    assert_eq!(
        pass(MASTER, BACKUP, true, 10_000),
        (SyncRole::ALL.to_vec(), Some(LINGER))
    );
    assert_eq!(
        pass(MASTER, &SyncRole::ALL, true, 13_000),
        (
            SyncRole::ALL.to_vec(),
            LINGER.checked_sub(Duration::from_secs(3))
        )
    );
    assert_eq!(
        pass(MASTER, &SyncRole::ALL, true, 14_000),
        (MASTER.to_vec(), None)
    );
    // The master's queue is sent even where the node may not keep a backup daemon.
    assert_eq!(
        pass(BACKUP, MASTER, false, 20_000),
        (SyncRole::ALL.to_vec(), Some(LINGER))
    );
    assert_eq!(
        pass(MASTER, &SyncRole::ALL, false, 21_000),
        (MASTER.to_vec(), None)
    );
    // Nobody wants it any more: it goes at once.
    assert_eq!(pass(&[], MASTER, true, 21_500), (vec![], None));
}

#[test]
fn a_director_is_warm_when_it_has_listened_for_a_refresh() {
    let mut continuity = Continuity::default();
    let mut wanted = daemons(BACKUP);
    let alone = |continuity: &Continuity, now| continuity.is_warm(true, now);
    let warm = |continuity: &Continuity, now| continuity.is_warm(false, now);
    assert_eq!(warm(&continuity, at(0)), Warmth::Cold(WARMTH));
    assert_eq!(alone(&continuity, at(0)), Warmth::Warm);
    continuity.linger(&mut wanted, &daemons(&[]), true, at(0));
    continuity.note(&daemons(&[]), &daemons(BACKUP), at(0));
    let nearly = WARMTH.saturating_sub(Duration::from_millis(1));
    assert_eq!(warm(&continuity, at(1)), Warmth::Cold(nearly));
    assert_eq!(warm(&continuity, at(0) + WARMTH), Warmth::Warm);
    // Across a restart of the agent the daemon went on, and so did what the node knows.
    let mut restarted = Continuity::resume(continuity.informed_since());
    restarted.linger(&mut wanted, &daemons(BACKUP), true, at(5_000));
    restarted.note(&daemons(BACKUP), &daemons(BACKUP), at(5_000));
    assert_eq!(warm(&restarted, at(0) + WARMTH), Warmth::Warm);
    // It takes over and gives up again: it knows what it balanced itself.
    let mut master = daemons(MASTER);
    restarted.linger(&mut master, &daemons(BACKUP), true, at(20_000));
    restarted.note(&daemons(BACKUP), &daemons(&SyncRole::ALL), at(20_000));
    let mut backup = daemons(BACKUP);
    restarted.linger(&mut backup, &daemons(MASTER), true, at(40_000));
    restarted.note(&daemons(MASTER), &daemons(&SyncRole::ALL), at(40_000));
    assert_eq!(warm(&restarted, at(40_000)), Warmth::Warm);
    // Somebody stopped the daemon in between: nobody knows what was missed.
    restarted.linger(&mut backup, &daemons(&[]), true, at(60_000));
    restarted.note(&daemons(&[]), &daemons(BACKUP), at(60_000));
    assert_eq!(warm(&restarted, at(60_000)), Warmth::Cold(WARMTH));
    // And it could not be started again.
    restarted.note(&daemons(BACKUP), &daemons(&[]), at(90_000));
    assert_eq!(warm(&restarted, at(90_000)), Warmth::Cold(WARMTH));
}

/// A node that is stopped leaves its addresses in the kernel for 30 s: a successor is warm before.
#[test]
fn nobody_waits_for_warmth_longer_than_addresses_are_lent() {
    let timing = lvs_core::election::Timing::for_lease_seconds(10).unwrap();
    assert!(WARMTH < timing.lent_duration());
}

#[test]
fn without_state_directors_take_connections_they_have_not_seen() {
    let mut world = World::new(node(), vec![router_plan("vr", Some(stateless()))]);
    world.pass();
    let sloppy = |world: &World| (sysctl(world, "sloppy_tcp"), sysctl(world, "sloppy_sctp"));
    assert_eq!(sloppy(&world), ("1".to_owned(), "1".to_owned()));
    assert_eq!(running(&world), []);
    world.plans = vec![router_plan("vr", None)];
    world.pass();
    assert_eq!(sloppy(&world), ("0".to_owned(), "0".to_owned()));
}

fn hashed(scheduler: SchedulerName, hosts: &[u8]) -> PlanInput {
    let real_servers = hosts.iter().map(|host| {
        let address = format!("192.0.2.{host}");
        direct(&format!("web-{host}"), &address)
    });
    director_plan(
        "vs",
        vec![service(
            "192.0.2.100",
            80,
            scheduler,
            real_servers.collect(),
        )],
    )
}

fn table(world: &World) -> String {
    table_hash(
        world.model.ipvs.services.iter(),
        &world.model.ipvs.disorder(),
    )
}

#[test]
fn a_real_server_in_the_middle_brings_those_above_it_to_the_head_again() {
    let router = router_plan("vr", Some(stateless()));
    let mut world = World::new(
        node(),
        vec![router.clone(), hashed(SchedulerName::Mh, &[21, 22, 24])],
    );
    world.pass();
    world.plans[1] = hashed(SchedulerName::Mh, &[21, 22, 23, 24]);
    let pass = world.pass();
    assert_eq!(
        lines(&pass.diff.ops),
        "ipvs -a -t 192.0.2.100:80 -r 192.0.2.23:80 -g -w 1\n\
         ipvs -d -t 192.0.2.100:80 -r 192.0.2.24:80\n\
         ipvs -a -t 192.0.2.100:80 -r 192.0.2.24:80 -g -w 1\n"
    );
    assert!(world.model.ipvs.disorder().is_empty());
    // Not where the order means nothing, nor where nobody relies on it.
    for plans in [
        [router, hashed(SchedulerName::Wlc, &[21, 24])],
        [
            router_plan("vr", None),
            hashed(SchedulerName::Mh, &[21, 24]),
        ],
    ] {
        let mut world = World::new(node(), plans.to_vec());
        world.pass();
        let scheduler = plans[1].spec.director.as_ref().unwrap().services[0]
            .scheduler
            .name;
        world.plans[1] = hashed(scheduler, &[21, 22, 24]);
        assert_eq!(world.pass().diff.ops.len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was added, removed and disturbed in whatever order: two directors that want the same have the same
    /// table, and it is the one that a director has that has just booted.
    #[test]
    fn equal_wishes_give_equal_tables(
        histories in (histories(), histories()),
        last in prop::collection::btree_set(20_u8..28, 0..7),
        scheduler in select(vec![SchedulerName::Mh, SchedulerName::Sh]),
    ) {
        let last: Vec<u8> = last.into_iter().collect();
        let mut tables = BTreeSet::new();
        for history in [vec![], histories.0, histories.1] {
            let mut world = World::new(node(), vec![router_plan("vr", Some(stateless())), hashed(scheduler, &[])]);
            for (hosts, crash) in history {
                let hosts: Vec<u8> = hosts.into_iter().collect();
                world.plans[1] = hashed(scheduler, &hosts);
                if let Some(operations) = crash {
                    world.crash_after(operations);
                } else {
                    prop_assert_eq!(world.pass().refused, vec![]);
                }
            }
            world.plans[1] = hashed(scheduler, &last);
            prop_assert_eq!(world.pass().refused, vec![]);
            prop_assert_eq!(world.diff().ops, vec![]);
            prop_assert!(world.model.ipvs.disorder().is_empty());
            tables.insert(table(&world));
        }
        prop_assert_eq!(tables.len(), 1);
    }

    /// As few as possible are added again, and then the list is canonical.
    #[test]
    fn order_is_restored_by_the_shortest_tail(listed in Just((20_u8..28).collect::<Vec<_>>()).prop_shuffle(), count in 0..8_usize) {
        let key = |host: u8| lvs_core::ipvs::DestinationKey { address: ip(&format!("192.0.2.{host}")), port: 80 };
        let listed: Vec<_> = listed.into_iter().take(count).map(key).collect();
        let mut wanted = listed.clone();
        wanted.sort();
        let again = out_of_order(&listed, &[], &wanted);
        let apply = |again: &[lvs_core::ipvs::DestinationKey]| {
            let mut list = listed.clone();
            for key in again {
                list.retain(|other| other != key);
                list.insert(0, *key);
            }
            list
        };
        prop_assert!(is_canonical(&apply(&again)));
        if let Some((_, fewer)) = again.split_first() {
            prop_assert!(!is_canonical(&apply(fewer)));
        }
    }

    /// Every history of roles, set-ups and services: the kernel refuses nothing, the next diff has nothing to do, the
    /// daemons are those of the role unless something excludes them, and withdrawing everything leaves no trace.
    #[test]
    fn daemons_follow_their_role(
        rounds in vec((select(vec![RouterRole::Master, RouterRole::Backup]), prop::option::of(51_u8..53), any::<bool>(), prop::option::of(0..12_usize)), 1..8),
    ) {
        let mut world = World::new(node(), Vec::new());
        for (role, sync_id, mixed, crash) in rounds {
            world.set_role(role);
            world.plans = vec![router_plan("vr", sync_id.map(settings))];
            if mixed {
                world.plans.push(director_plan("vs", vec![mixed_service()]));
            }
            if let Some(operations) = crash {
                world.crash_after(operations);
                continue;
            }
            let pass = world.pass();
            prop_assert_eq!(&pass.refused, &[]);
            prop_assert_eq!(world.diff().ops, vec![]);
            for op in &pass.diff.ops {
                if let Op::Ipvs(IpvsOp::StartSyncDaemon(role, daemon)) = op {
                    prop_assert!(pass.written_ahead.sync_daemons.contains(&(*role, daemon.clone())));
                }
            }
            let wanted = pass.desired.sync_daemons.keys().copied().collect::<Vec<_>>();
            let found = running(&world).into_iter().map(|(role, _)| role).collect::<Vec<_>>();
            let excluded = reasons(&pass.diff).iter().any(|(plan, reason)| plan == "vr" && *reason == Reason::ConnectionSyncExcluded);
            let expected = if excluded { Vec::new() } else { wanted };
            prop_assert!(mixed || !excluded);
            prop_assert_eq!(found, expected);
        }
        world.withdraw_all();
        world.pass();
        prop_assert!(world.model == node());
        prop_assert!(world.journal.is_empty(), "{:?}", world.journal);
    }
}

/// Sets of real servers, one after the other, and after how many operations the agent died.
fn histories() -> impl Strategy<Value = Vec<(BTreeSet<u8>, Option<usize>)>> {
    vec(
        (
            prop::collection::btree_set(20_u8..28, 0..7),
            prop::option::weighted(0.3, 0..10_usize),
        ),
        0..5,
    )
}
