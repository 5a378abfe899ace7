//! The sync loop and connections that survive a takeover: who is warm, and what is due by time alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod node_in_memory;

use std::time::Duration;

use lvs_agent::port::LeadershipRole;
use lvs_core::desired::virtual_mac_device_name;
use lvs_core::host::SysctlKey;
use lvs_core::sync_daemon::{LINGER, SyncRole, WARMTH};
use lvs_crds::condition::Reason;
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync, PlannedSyncDaemon};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, PlannedAddress};
use lvs_crds::value::{AddressFamily, SchedulerName};
use lvs_ipvs::fake::FakeKernel;
use nix::errno::Errno;

use node_in_memory::{
    FakeHost, Loop, NODE, Node, ROUTER, VIP, director, key, list, pass, reason, received, router,
};

fn synchronized(directors: &[&str]) -> NodePlanSpec {
    with(
        directors,
        PlannedConnectionSync {
            type_: ConnectionSyncType::Daemon,
            daemon: Some(PlannedSyncDaemon {
                devices: vec!["eth0".into()],
                sync_id: 51,
                group: "224.0.0.81".parse().unwrap(),
                port: 8848,
                ttl: 1,
                maximum_length: None,
            }),
        },
    )
}

fn with(directors: &[&str], sync: PlannedConnectionSync) -> NodePlanSpec {
    let mut plan = router(PlanState::Active);
    let leadership = plan.director.as_mut().unwrap().leadership.as_mut().unwrap();
    leadership.directors = directors.iter().map(|name| (*name).to_owned()).collect();
    leadership.connection_sync = Some(sync);
    plan
}

fn start(node: &Node, plan: NodePlanSpec) -> Loop {
    let mut agent = node.fresh();
    let service = director(VIP, &[1], PlanState::Active);
    let plans = vec![
        received("vr-1", 1, Ok(plan)),
        received("vs-1", 1, Ok(service)),
    ];
    list(&mut agent, plans);
    agent
}

fn is_verified(agent: &Loop) -> bool {
    agent.leadership.routers.as_ref().unwrap()[ROUTER].verified
}

fn roles(agent: &Loop) -> Vec<SyncRole> {
    agent.ipvs.model.sync_daemons.keys().copied().collect()
}

#[test]
fn a_director_that_begins_to_listen_lets_others_go_first_until_it_has_heard_a_refresh() {
    let node = Node::new();
    let mut agent = start(&node, synchronized(&[NODE, "node-b"]));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
    assert_eq!(roles(&agent), [SyncRole::Backup]);
    assert!(!is_verified(&agent));
    let due = report.due.unwrap();
    assert!(
        due <= WARMTH && due + Duration::from_secs(5) > WARMTH,
        "{due:?}"
    );

    // Restarted after that time: the daemon went on, and the journal says since when.
    let path = node.runtime.path().join("journal.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut journal: serde_json::Value = serde_json::from_str(&text).unwrap();
    let since = journal["informed_since_nanoseconds"].as_u64().unwrap();
    let earlier = since - u64::try_from(WARMTH.as_nanos()).unwrap();
    journal["informed_since_nanoseconds"] = earlier.into();
    std::fs::write(&path, journal.to_string()).unwrap();
    let mut agent = node.restart(agent);
    let report = pass(&mut agent);
    assert!(is_verified(&agent));
    assert_eq!(report.due, None);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());

    // The kernel lost the daemon meanwhile: it begins anew.
    agent.ipvs.model.sync_daemons.clear();
    let mut agent = node.restart(agent);
    pass(&mut agent);
    assert_eq!(roles(&agent), [SyncRole::Backup]);
    assert!(!is_verified(&agent));
}

#[test]
fn a_sole_director_and_a_holder_wait_for_nobody() {
    let node = Node::new();
    let mut agent = start(&node, synchronized(&[NODE]));
    pass(&mut agent);
    assert!(is_verified(&agent));
    let node = Node::new();
    let mut agent = start(&node, synchronized(&[NODE, "node-b"]));
    let role = (ROUTER.into(), LeadershipRole::Master);
    agent.leadership.view.roles.extend([role]);
    pass(&mut agent);
    assert!(is_verified(&agent));
    assert_eq!(roles(&agent), [SyncRole::Master]);
}

#[test]
fn after_a_takeover_both_daemons_run_for_a_moment() {
    let node = Node::new();
    let mut agent = start(&node, synchronized(&[NODE, "node-b"]));
    pass(&mut agent);
    agent.leadership.master();
    let report = pass(&mut agent);
    assert_eq!(roles(&agent), SyncRole::ALL);
    assert!(report.due.unwrap() <= LINGER);
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
    // One that must not balance while it listens stops listening at once.
    let mut host = FakeHost::new();
    let key = SysctlKey::of_ipvs("backup_only");
    host.model.sysctls.insert(key, "1".to_owned());
    let node = Node::new();
    let mut agent = node.agent(FakeKernel::default(), host);
    let plan = synchronized(&[NODE, "node-b"]);
    list(&mut agent, vec![received("vr-1", 1, Ok(plan))]);
    pass(&mut agent);
    agent.leadership.master();
    pass(&mut agent);
    assert_eq!(roles(&agent), [SyncRole::Master]);
}

/// The router's own address, as `additionalAddresses` gives it.
const GATEWAY: &str = "192.0.2.251";

fn with_gateway(mut plan: NodePlanSpec, virtual_router_id: Option<u8>) -> NodePlanSpec {
    let director = plan.director.as_mut().unwrap();
    director.leadership.as_mut().unwrap().virtual_router_id = virtual_router_id;
    director.addresses = vec![PlannedAddress {
        address: GATEWAY.parse().unwrap(),
        devices: vec!["eth0".into()],
    }];
    plan
}

#[test]
fn a_router_that_cannot_have_its_daemons_has_its_addresses_all_the_same() {
    let node = Node::new();
    let mut plan = with_gateway(synchronized(&[NODE, "node-b"]), None);
    let leadership = plan.director.as_mut().unwrap().leadership.as_mut().unwrap();
    let sync = leadership.connection_sync.as_mut().unwrap();
    sync.daemon.as_mut().unwrap().devices = vec!["eth9".into()];
    let mut agent = start(&node, plan);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vr-1"), Reason::InterfaceNotFound);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    // A holder with the service's address alone would leave its real servers without their gateway.
    let both = [VIP, GATEWAY].map(|address| key("eth0", address, 32));
    assert_eq!(agent.leadership.addresses[ROUTER], both.into());
    assert!(!is_verified(&agent), "others go first");
}

#[test]
fn a_routers_own_address_waits_for_its_device() {
    let device = virtual_mac_device_name(51, AddressFamily::IPv4, "eth0");
    let mut host = FakeHost::new();
    let links = &mut host.model.state_mut().links;
    let ethernet = links.get_mut("eth0").unwrap();
    ethernet.hardware_address = vec![2, 0, 0, 0, 0, 1];
    let index = ethernet.index;
    let refused = format!(
        "link add {device} type macvlan mode private link if{index} address 00:00:5e:00:01:33"
    );
    host.refusals.insert(refused, Errno::EPERM);
    let node = Node::new();
    let mut agent = node.agent(FakeKernel::default(), host);
    let plan = with_gateway(router(PlanState::Active), Some(51));
    list(&mut agent, vec![received("vr-1", 1, Ok(plan))]);
    let report = pass(&mut agent);
    assert_ne!(reason(&report, "vr-1"), Reason::Programmed);
    assert_eq!(agent.leadership.addresses[ROUTER], [].into());
    agent.host.refusals.clear();
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vr-1"), Reason::Programmed);
    let there = [key(&device, GATEWAY, 32)];
    assert_eq!(agent.leadership.addresses[ROUTER], there.into());
}

#[test]
fn tables_are_reported_where_all_directors_must_have_the_same() {
    let sync = PlannedConnectionSync {
        type_: ConnectionSyncType::Stateless,
        daemon: None,
    };
    let hash = |weights: &[u16]| {
        let node = Node::new();
        let mut agent = start(&node, with(&[NODE, "node-b"], sync.clone()));
        let mut service = director(VIP, weights, PlanState::Active);
        let services = &mut service.director.as_mut().unwrap().services;
        services[0].scheduler.name = SchedulerName::Mh;
        list(
            &mut agent,
            vec![
                received("vr-1", 1, Ok(with(&[NODE, "node-b"], sync.clone()))),
                received("vs-1", 2, Ok(service)),
            ],
        );
        let report = pass(&mut agent);
        assert_eq!(report.plans["vr-1"].table_hash, None);
        report.plans["vs-1"].table_hash.clone().unwrap()
    };
    assert_eq!(hash(&[1, 2]), hash(&[1, 2]));
    assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
    let node = Node::new();
    let mut agent = start(&node, synchronized(&[NODE]));
    assert_eq!(pass(&mut agent).plans["vs-1"].table_hash, None);
}
