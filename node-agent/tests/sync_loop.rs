//! The sync loop over a kernel in memory: each test is named for the incident it keeps from coming back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use lvs_agent::book::{PlanEvent, ReceivedPlan};
use lvs_agent::kernel::{HostKernel, KernelError};
use lvs_agent::metrics::Metrics;
use lvs_agent::port::{DirectedRouter, LeadershipPort, LeadershipRole, LeadershipView};
use lvs_agent::sync::{Directories, PassReport, Syncer};
use lvs_core::host::{AddressKey, ObservedHost, SysctlKey};
use lvs_core::ipvs::{
    DestinationKey, IpvsTimeouts, Service, ServiceFlags, ServiceKey, ServiceState,
};
use lvs_core::model::HostModel;
use lvs_core::op::{HostOp, IpvsOp};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    AddressState, Candidacy, DirectorPlan, LeadershipPlan, NodePlanSpec, NodePlanStatus,
    PlanSource, PlanState, PlannedAddress, PlannedRealServer, PlannedService, RealServerPlan,
    ServiceAddress, SourceKind,
};
use lvs_crds::value::{
    Forwarding, ForwardingType, PacketScheduling, Protocol, Scheduler, SchedulerName,
};
use lvs_crds::virtual_router::Announcement;
use lvs_ipvs::fake::{FakeKernel, Fault};
use lvs_ipvs::{DumpError, TransportError};
use nix::errno::Errno;
use prometheus_client::registry::Registry;

const NODE: &str = "node-a";
const ROUTER: &str = "edge";
const VIP: &str = "192.0.2.250";

// ---- the world in memory ----

#[derive(Clone)]
struct FakeHost {
    model: HostModel,
    /// Numbers of the observations, counted from 1, that fail.
    unreadable: BTreeSet<usize>,
    refusals: BTreeMap<String, Errno>,
    carried_out: Vec<HostOp>,
    observations: usize,
}

fn refused(doing: &str, errno: Errno) -> KernelError {
    KernelError::Refused {
        doing: doing.to_owned(),
        errno,
        sentence: String::new(),
    }
}

impl FakeHost {
    fn new() -> Self {
        let mut model = HostModel::new(true);
        model.add_foreign_link("lo", true, true);
        model.add_foreign_link("eth0", false, true);
        model.add_foreign_address(key("eth0", "192.0.2.2", 24));
        Self {
            model,
            unreadable: BTreeSet::new(),
            refusals: BTreeMap::new(),
            carried_out: Vec::new(),
            observations: 0,
        }
    }
}

impl HostKernel for FakeHost {
    fn observe(&mut self) -> Result<ObservedHost, KernelError> {
        self.observations += 1;
        if self.unreadable.contains(&self.observations) {
            return Err(refused("reading devices", Errno::ENOBUFS));
        }
        Ok(self.model.state().clone())
    }

    fn read_sysctls(
        &mut self,
        keys: &BTreeSet<SysctlKey>,
    ) -> Result<BTreeMap<SysctlKey, Option<String>>, KernelError> {
        Ok(self.model.observe(keys).sysctls)
    }

    fn apply(&mut self, op: &HostOp) -> Result<(), KernelError> {
        if let Some(errno) = self.refusals.get(&op.to_string()) {
            return Err(refused(&op.to_string(), *errno));
        }
        self.model
            .apply(op)
            .map_err(|errno| refused(&op.to_string(), Errno::from_raw(errno.code())))?;
        self.carried_out.push(op.clone());
        Ok(())
    }

    fn has_module(&self, _: &str) -> bool {
        true
    }
}

#[derive(Clone, Default)]
struct FakeLeadership {
    routers: Option<BTreeMap<String, DirectedRouter>>,
    addresses: BTreeMap<String, BTreeSet<AddressKey>>,
    view: LeadershipView,
}

impl FakeLeadership {
    /// Does what the fence does with a lease in hand: what was handed over is in the kernel.
    fn master(&mut self) {
        self.view
            .roles
            .insert(ROUTER.into(), LeadershipRole::Master);
        self.view.held.clone_from(&self.addresses);
    }
}

impl LeadershipPort for FakeLeadership {
    fn set_routers(&mut self, routers: BTreeMap<String, DirectedRouter>) {
        self.routers = Some(routers);
    }
    fn set_addresses(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>) {
        self.addresses.extend(addresses);
    }
    fn view(&self) -> LeadershipView {
        self.view.clone()
    }
}

type Loop = Syncer<FakeKernel, FakeHost, FakeLeadership>;

struct Node {
    state: tempfile::TempDir,
    runtime: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            runtime: tempfile::tempdir().unwrap(),
        }
    }

    fn agent(&self, ipvs: FakeKernel, host: FakeHost) -> Loop {
        self.agent_with(ipvs, host, FakeLeadership::default())
    }

    fn agent_with(&self, ipvs: FakeKernel, host: FakeHost, leadership: FakeLeadership) -> Loop {
        let directories = Directories {
            state: self.state.path(),
            runtime: self.runtime.path(),
        };
        let metrics = Metrics::new(&mut Registry::default());
        Syncer::open(
            (ipvs, host, leadership),
            NODE,
            "boot-1",
            &directories,
            metrics,
        )
        .unwrap()
    }

    fn fresh(&self) -> Loop {
        self.agent(FakeKernel::default(), FakeHost::new())
    }

    /// Ends the process as kill -9 does and starts it again over the same kernel.
    fn restart(&self, agent: Loop) -> Loop {
        let Syncer {
            mut ipvs,
            mut host,
            leadership,
            ..
        } = agent;
        ipvs.carried_out.clear();
        host.carried_out.clear();
        let view = leadership.view();
        self.agent_with(
            ipvs,
            host,
            FakeLeadership {
                view,
                ..FakeLeadership::default()
            },
        )
    }
}

// ---- plans ----

fn key(device: &str, address: &str, prefix_length: u8) -> AddressKey {
    AddressKey {
        device: device.into(),
        address: address.parse().unwrap(),
        prefix_length,
    }
}

fn service_key(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: address.parse().unwrap(),
        protocol: Protocol::TCP,
        port,
    }
}

fn spec(kind: SourceKind, name: &str, state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        node_name: NODE.into(),
        state,
        source: PlanSource {
            kind,
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            generation: 1,
        },
        virtual_router_name: ROUTER.into(),
        director: None,
        real_server: None,
    }
}

fn service(address: &str, scheduler: SchedulerName, weights: &[u16]) -> PlannedService {
    PlannedService {
        address: Some(ServiceAddress {
            address: address.parse().unwrap(),
            protocol: Protocol::TCP,
            port: 80,
            end_port: 80,
        }),
        firewall_mark: None,
        port_name: None,
        scheduler: Scheduler {
            name: scheduler,
            options: vec![],
        },
        persistence: None,
        packet_scheduling: PacketScheduling::PerConnection,
        real_servers: weights
            .iter()
            .enumerate()
            .map(|(index, weight)| PlannedRealServer {
                name: format!("web-{index}"),
                address: format!("192.0.2.{}", 10 + index).parse().unwrap(),
                port: 80,
                weight: *weight,
                forwarding: Forwarding {
                    type_: ForwardingType::DR,
                    tunnel: None,
                },
                upper_threshold: 0,
                lower_threshold: 0,
            })
            .collect(),
    }
}

fn director(address: &str, weights: &[u16], state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        director: Some(DirectorPlan {
            leadership: None,
            addresses: vec![PlannedAddress {
                address: address.parse().unwrap(),
                devices: vec!["eth0".into()],
            }],
            firewall_marks: vec![],
            services: vec![service(address, SchedulerName::Wrr, weights)],
        }),
        ..spec(SourceKind::VirtualService, "web", state)
    }
}

fn router(state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        director: Some(DirectorPlan {
            leadership: Some(LeadershipPlan {
                lease_name: "lvs-router-edge".into(),
                priority: 100,
                candidacy: Candidacy::Permitted,
                directors: vec![NODE.into()],
                lease_duration_seconds: 10,
                announcement: Announcement::default(),
                timeouts: None,
            }),
            ..DirectorPlan::default()
        }),
        ..spec(SourceKind::VirtualRouter, ROUTER, state)
    }
}

fn real_server(state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        real_server: Some(RealServerPlan {
            direct_routing_addresses: vec![VIP.parse().unwrap()],
            ..RealServerPlan::default()
        }),
        ..spec(SourceKind::VirtualService, "web", state)
    }
}

fn received(name: &str, generation: i64, spec: Result<NodePlanSpec, &str>) -> ReceivedPlan {
    ReceivedPlan {
        name: name.into(),
        uid: format!("uid-{name}"),
        generation,
        spec: spec.map_err(str::to_owned),
        status: NodePlanStatus::default(),
    }
}

fn list(agent: &mut Loop, plans: Vec<ReceivedPlan>) {
    agent.take(PlanEvent::ListBegins);
    for plan in plans {
        agent.take(PlanEvent::Listed(plan));
    }
    agent.take(PlanEvent::ListEnds);
}

fn pass(agent: &mut Loop) -> PassReport {
    let report = agent.pass();
    agent.store_plans();
    report
}

/// An agent that carries out one DR service with two real servers, and its router.
fn serving(node: &Node) -> Loop {
    let mut agent = node.fresh();
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 1, Ok(director(VIP, &[2, 1], PlanState::Active))),
        ],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed, "{report:?}");
    agent.leadership.master();
    agent.ipvs.carried_out.clear();
    agent.host.carried_out.clear();
    agent
}

fn reason(report: &PassReport, plan: &str) -> Reason {
    report.plans[plan].programmed.reason
}

fn foreign_service() -> ServiceState {
    ServiceState {
        service: Service {
            scheduler: "rr".into(),
            flags: ServiceFlags(0),
            timeout_seconds: 0,
            prefix_length: 32,
            persistence_engine: None,
        },
        destinations: vec![],
    }
}

// ---- the incidents ----

#[test]
fn a_plan_reaches_the_kernel_and_its_address_is_handed_over() {
    let node = Node::new();
    let agent = serving(&node);
    let state = &agent.ipvs.model.services[&service_key(VIP, 80)];
    assert_eq!(state.service.scheduler, "wrr");
    assert_eq!(
        state
            .destinations
            .iter()
            .map(|(_, found)| found.weight)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(
        agent
            .leadership
            .routers
            .as_ref()
            .unwrap()
            .contains_key(ROUTER)
    );
}

#[test]
fn no_change_means_no_write_and_one_reading() {
    let node = Node::new();
    let mut agent = serving(&node);
    let (dumps, observations) = (agent.ipvs.dumps, agent.host.observations);
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(
        (
            agent.ipvs.dumps - dumps,
            agent.host.observations - observations
        ),
        (1, 1)
    );
}

#[test]
fn killed_with_9_and_restarted_from_the_cache_writes_nothing() {
    let node = Node::new();
    let mut agent = node.restart(serving(&node));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    // The address that the kernel still holds is handed over again, and the router is told.
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(
        agent
            .leadership
            .routers
            .as_ref()
            .unwrap()
            .contains_key(ROUTER)
    );
    // Also when the API is back.
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 1, Ok(director(VIP, &[2, 1], PlanState::Active))),
        ],
    );
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
}

#[test]
fn killed_between_journal_and_kernel_the_service_is_still_ours() {
    let node = Node::new();
    let mut agent = node.fresh();
    let plan = director(VIP, &[1], PlanState::Active);
    list(&mut agent, vec![received("vs-1", 1, Ok(plan.clone()))]);
    // The answer to the first write is lost and the kernel is not read again: nobody told us that the service exists.
    let first = IpvsOp::AddService(
        service_key(VIP, 80),
        Service {
            scheduler: "wrr".into(),
            ..foreign_service().service
        },
    );
    let lost = TransportError::Receive { errno: Errno::EIO };
    agent.ipvs.faults.push((first, Fault::AnswerLost(lost)));
    agent.host.unreadable.insert(2);
    assert!(pass(&mut agent).blindness.is_some());
    assert!(
        agent
            .ipvs
            .model
            .services
            .contains_key(&service_key(VIP, 80))
    );
    let mut agent = node.restart(agent);
    list(&mut agent, vec![received("vs-1", 1, Ok(plan))]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed, "{report:?}");
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        1
    );
}

#[test]
fn a_restarted_master_that_is_a_real_server_too_turns_nothing_over() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut both = director(VIP, &[1], PlanState::Active);
    both.real_server = real_server(PlanState::Active).real_server;
    let plans = || {
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 1, Ok(both.clone())),
        ]
    };
    list(&mut agent, plans());
    pass(&mut agent);
    agent.leadership.master();
    agent.host.model.add_director_address(key("eth0", VIP, 32));
    pass(&mut agent);
    let mut agent = node.restart(agent);
    // Leadership has not read the Lease yet.
    agent.leadership.view = LeadershipView::default();
    pass(&mut agent);
    assert!(
        agent.host.carried_out.is_empty(),
        "{:?}",
        agent.host.carried_out
    );
    assert!(agent.ipvs.carried_out.is_empty());
    agent
        .leadership
        .view
        .roles
        .insert(ROUTER.into(), LeadershipRole::Backup);
    agent.host.model.remove_address(&key("eth0", VIP, 32));
    pass(&mut agent);
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("lvs-dr", VIP, 32))
    );
}

#[test]
fn one_changed_weight_is_one_edit() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 5], PlanState::Active)),
    )));
    let report = pass(&mut agent);
    assert!(
        matches!(agent.ipvs.carried_out.as_slice(), [IpvsOp::EditDestination(_, _, found)] if found.weight == 5),
        "{:?}",
        agent.ipvs.carried_out
    );
    assert!(agent.host.carried_out.is_empty());
    assert_eq!(report.plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn an_undecodable_plan_freezes_what_it_had() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Err("unknown variant `quantum`"),
    )));
    let report = pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::PlanUndecodable)
    );
    assert!(told.programmed.message.contains("quantum"), "{told:?}");
    assert_eq!(
        (told.observed_generation, told.programmed.generation),
        (Some(1), Some(2))
    );
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
    // Drift is still repaired.
    agent.ipvs.model.services.clear();
    pass(&mut agent);
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        2
    );
}

#[test]
fn a_vanished_plan_is_kept_as_orphaned() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Deleted {
        name: "vs-1".into(),
        uid: "uid-vs-1".into(),
    });
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::OrphanedPlan);
    assert!(agent.ipvs.carried_out.is_empty());
    // Also over a restart, and when every plan is gone from the list.
    let mut agent = node.restart(agent);
    list(&mut agent, vec![]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::OrphanedPlan);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
    assert!(
        agent
            .leadership
            .routers
            .as_ref()
            .unwrap()
            .contains_key(ROUTER)
    );
}

#[test]
fn a_kernel_that_cannot_be_read_is_not_written_to() {
    let node = Node::new();
    let mut agent = serving(&node);
    let handed = agent.leadership.addresses.clone();
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[9, 9], PlanState::Active)),
    )));
    agent.host.unreadable.insert(agent.host.observations + 1);
    let report = pass(&mut agent);
    assert!(report.retry && report.blindness.is_some());
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("Unknown", Reason::ObservationFailed)
    );
    assert_eq!(
        told.observed_generation,
        Some(1),
        "the new generation is not dealt with"
    );
    let broken = DumpError::Transport {
        what: "the IPVS services".into(),
        source: TransportError::Overflow,
    };
    agent.ipvs.dump_failures.push_back(broken);
    let report = pass(&mut agent);
    assert!(report.blindness.is_some());
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert_eq!(agent.leadership.addresses, handed);
    assert_eq!(pass(&mut agent).plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn what_is_not_ours_survives_everything() {
    let node = Node::new();
    let mut agent = serving(&node);
    let foreign = service_key("198.51.100.1", 443);
    agent.ipvs.model.services.insert(foreign, foreign_service());
    pass(&mut agent);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[], PlanState::Withdrawn)),
    )));
    pass(&mut agent);
    assert_eq!(
        agent.ipvs.model.services.keys().collect::<Vec<_>>(),
        [&foreign]
    );
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("eth0", "192.0.2.2", 24))
    );
}

#[test]
fn a_foreign_service_in_the_way_is_left_alone_and_told() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent
        .ipvs
        .model
        .services
        .insert(service_key(VIP, 80), foreign_service());
    list(
        &mut agent,
        vec![received(
            "vs-1",
            1,
            Ok(director(VIP, &[1], PlanState::Active)),
        )],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::ForeignObject);
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)],
        foreign_service()
    );
    assert!(
        agent.leadership.addresses[ROUTER].is_empty(),
        "no address without its service"
    );
}

#[test]
fn a_service_of_others_that_appears_between_look_and_write_gets_no_destination() {
    let node = Node::new();
    let mut agent = node.fresh();
    list(
        &mut agent,
        vec![received(
            "vs-1",
            1,
            Ok(director(VIP, &[1], PlanState::Active)),
        )],
    );
    let add = IpvsOp::AddService(
        service_key(VIP, 80),
        Service {
            scheduler: "wrr".into(),
            ..foreign_service().service
        },
    );
    agent.ipvs.faults.push((add, Fault::Refused(Errno::EEXIST)));
    agent.ipvs.faults.push((
        IpvsOp::AddService(
            service_key(VIP, 80),
            Service {
                scheduler: "wrr".into(),
                ..foreign_service().service
            },
        ),
        Fault::Refused(Errno::EEXIST),
    ));
    agent.ipvs.faults.push((
        IpvsOp::AddService(
            service_key(VIP, 80),
            Service {
                scheduler: "wrr".into(),
                ..foreign_service().service
            },
        ),
        Fault::Refused(Errno::EEXIST),
    ));
    let report = pass(&mut agent);
    assert!(
        agent.ipvs.carried_out.is_empty(),
        "{:?}",
        agent.ipvs.carried_out
    );
    assert_ne!(reason(&report, "vs-1"), Reason::Programmed);
}

#[test]
fn a_lost_journal_takes_nothing_away() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::remove_file(node.runtime.path().join("journal.json")).unwrap();
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![
            received("vr-1", 1, Ok(router(PlanState::Active))),
            received("vs-1", 2, Ok(director(VIP, &[7], PlanState::Withdrawn))),
        ],
    );
    pass(&mut agent);
    assert!(
        agent
            .ipvs
            .model
            .services
            .contains_key(&service_key(VIP, 80))
    );
}

#[test]
fn a_damaged_journal_stops_every_write() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::write(node.runtime.path().join("journal.json"), "{\"vers").unwrap();
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![received(
            "vs-1",
            2,
            Ok(director(VIP, &[7], PlanState::Withdrawn)),
        )],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::ObservationFailed);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert!(
        report.plans["vs-1"]
            .programmed
            .message
            .contains("journal.json")
    );
}

#[test]
fn a_damaged_cache_removes_nothing_and_new_plans_go_on() {
    let node = Node::new();
    let agent = serving(&node);
    std::fs::write(node.state.path().join("plans/vs-1.json"), "{\"ver").unwrap();
    let mut agent = node.restart(agent);
    let other = "192.0.2.251";
    agent.take(PlanEvent::Applied(received(
        "vs-2",
        1,
        Ok(director(other, &[1], PlanState::Active)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::PlanUndecodable);
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
    assert_eq!(
        agent.ipvs.model.services.keys().collect::<BTreeSet<_>>(),
        BTreeSet::from([&service_key(VIP, 80), &service_key(other, 80)])
    );
    // The address of the unknown plan stays with the fence.
    assert!(agent.leadership.addresses[ROUTER].contains(&key("eth0", VIP, 32)));
}

#[test]
fn before_the_first_list_nothing_is_removed() {
    let node = Node::new();
    let agent = serving(&node);
    // The cache lost a file while the agent was down.
    std::fs::remove_file(node.state.path().join("plans/vs-1.json")).unwrap();
    let mut agent = node.restart(agent);
    pass(&mut agent);
    assert!(agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty());
    assert!(agent.leadership.addresses[ROUTER].contains(&key("eth0", VIP, 32)));
}

#[test]
fn an_agent_that_knows_nothing_says_so() {
    let node = Node::new();
    let mut agent = node.fresh();
    assert!(agent.knows_nothing());
    list(&mut agent, vec![]);
    assert!(!agent.knows_nothing());
}

#[test]
fn drift_is_repaired_and_only_drift() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.ipvs.model.services.clear();
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert_eq!(
        agent.ipvs.model.services[&service_key(VIP, 80)]
            .destinations
            .len(),
        2
    );
    assert_eq!(agent.ipvs.carried_out.len(), 3);
}

#[test]
fn a_withdrawn_plan_is_acknowledged_only_when_nothing_is_left() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 1], PlanState::Withdrawn)),
    )));
    let report = pass(&mut agent);
    assert!(agent.ipvs.model.services.is_empty());
    assert!(agent.leadership.addresses[ROUTER].is_empty());
    // The fence has not let go yet.
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::Pending)
    );
    assert_eq!(told.addresses[0].state, AddressState::Held);
    agent.leadership.view.held.clear();
    let report = pass(&mut agent);
    let told = &report.plans["vs-1"];
    assert_eq!(
        (told.programmed.status, told.programmed.reason),
        ("False", Reason::Withdrawn)
    );
    assert_eq!(
        (told.observed_generation, told.programmed.generation),
        (Some(2), Some(2))
    );
    assert_eq!(told.addresses[0].state, AddressState::Released);
    agent.take(PlanEvent::Deleted {
        name: "vs-1".into(),
        uid: "uid-vs-1".into(),
    });
    let report = pass(&mut agent);
    assert!(!report.plans.contains_key("vs-1"));
    assert!(!node.state.path().join("plans/vs-1.json").exists());
}

#[test]
fn a_withdrawn_router_is_acknowledged_only_when_released() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[], PlanState::Withdrawn)),
    )));
    agent.take(PlanEvent::Applied(received(
        "vr-1",
        2,
        Ok(router(PlanState::Withdrawn)),
    )));
    agent.leadership.view.held.clear();
    assert_eq!(reason(&pass(&mut agent), "vr-1"), Reason::Pending);
    agent
        .leadership
        .view
        .roles
        .insert(ROUTER.into(), LeadershipRole::Released);
    assert_eq!(reason(&pass(&mut agent), "vr-1"), Reason::Withdrawn);
}

#[test]
fn retention_is_acknowledged_only_when_the_addresses_no_longer_expire() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.host.model.add_director_address(key("eth0", VIP, 32));
    let lifetime = |agent: &mut Loop, valid_seconds| {
        let addresses = &mut agent.host.model.state_mut().addresses;
        for (_, attributes) in addresses
            .iter_mut()
            .filter(|(found, _)| *found == key("eth0", VIP, 32))
        {
            attributes.valid_seconds = valid_seconds;
        }
    };
    lifetime(&mut agent, Some(2));
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2, 1], PlanState::Retained)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Pending);
    assert_eq!(report.plans["vs-1"].observed_generation, Some(1));
    assert!(report.retry);
    lifetime(&mut agent, None);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::Programmed);
    assert_eq!(report.plans["vs-1"].observed_generation, Some(2));
}

#[test]
fn what_cannot_be_removed_is_not_acknowledged() {
    let node = Node::new();
    let mut agent = node.fresh();
    list(
        &mut agent,
        vec![received("vs-1", 1, Ok(real_server(PlanState::Active)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Programmed);
    agent
        .host
        .refusals
        .insert("link delete lvs-dr".into(), Errno::EBUSY);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(real_server(PlanState::Withdrawn)),
    )));
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::KernelError, "{report:?}");
    agent.host.refusals.clear();
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Withdrawn);
}

#[test]
fn a_real_server_is_prepared_and_restored() {
    let node = Node::new();
    let mut agent = node.fresh();
    let before = agent.host.model.clone();
    list(
        &mut agent,
        vec![received("vs-1", 1, Ok(real_server(PlanState::Active)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Programmed);
    let ignored = SysctlKey("net/ipv4/conf/eth0/arp_ignore".into());
    assert_eq!(agent.host.model.sysctls[&ignored], "1");
    assert!(
        agent
            .host
            .model
            .state()
            .addresses
            .iter()
            .any(|(found, _)| *found == key("lvs-dr", VIP, 32))
    );
    let mut agent = node.restart(agent);
    list(
        &mut agent,
        vec![received("vs-1", 2, Ok(real_server(PlanState::Withdrawn)))],
    );
    assert_eq!(reason(&pass(&mut agent), "vs-1"), Reason::Withdrawn);
    assert_eq!(agent.host.model.state().addresses, before.state().addresses);
    assert_eq!(
        agent.host.model.state().links.keys().collect::<Vec<_>>(),
        before.state().links.keys().collect::<Vec<_>>()
    );
    assert_eq!(agent.host.model.sysctls[&ignored], "0");
}

#[test]
fn one_refused_service_does_not_stop_the_others() {
    let node = Node::new();
    let mut agent = node.fresh();
    agent.ipvs.model.schedulers.remove("mh");
    let mut broken = director("192.0.2.251", &[1], PlanState::Active);
    broken.director.as_mut().unwrap().services[0].scheduler.name = SchedulerName::Mh;
    list(
        &mut agent,
        vec![
            received("vs-1", 1, Ok(broken)),
            received("vs-2", 1, Ok(director(VIP, &[1], PlanState::Active))),
        ],
    );
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-1"), Reason::KernelModuleMissing);
    assert!(
        report.plans["vs-1"].programmed.message.contains("ip_vs_mh"),
        "{report:?}"
    );
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
    assert_eq!(
        agent.leadership.addresses[ROUTER],
        BTreeSet::from([key("eth0", VIP, 32)])
    );
    assert!(report.retry);
}

#[test]
fn a_service_that_fails_later_does_not_take_its_address_along() {
    let node = Node::new();
    let mut agent = serving(&node);
    let mut changed = director(VIP, &[2, 1], PlanState::Active);
    changed.director.as_mut().unwrap().services[0]
        .scheduler
        .name = SchedulerName::Mh;
    agent.ipvs.model.schedulers.remove("mh");
    agent.take(PlanEvent::Applied(received("vs-1", 2, Ok(changed))));
    assert_eq!(
        reason(&pass(&mut agent), "vs-1"),
        Reason::KernelModuleMissing
    );
    assert_eq!(agent.leadership.addresses[ROUTER].len(), 1);
}

#[test]
fn a_kernel_without_ipvs_is_told_on_its_plans_and_real_servers_go_on() {
    let node = Node::new();
    let mut agent = node.fresh();
    let missing = || DumpError::Transport {
        what: "x".into(),
        source: TransportError::FamilyMissing,
    };
    agent.ipvs.dump_failures.extend([missing(), missing()]);
    let mut plan = real_server(PlanState::Active);
    plan.source.name = "other".into();
    list(&mut agent, vec![received("vs-2", 1, Ok(plan))]);
    let report = pass(&mut agent);
    assert_eq!(reason(&report, "vs-2"), Reason::Programmed);
}

#[test]
fn a_change_of_mind_about_timeouts_is_put_back() {
    let node = Node::new();
    let mut agent = node.fresh();
    let mut plan = router(PlanState::Active);
    plan.director
        .as_mut()
        .unwrap()
        .leadership
        .as_mut()
        .unwrap()
        .timeouts = Some(lvs_crds::value::Timeouts {
        tcp_seconds: 60,
        tcp_fin_seconds: 10,
        udp_seconds: 30,
    });
    list(&mut agent, vec![received("vr-1", 1, Ok(plan))]);
    pass(&mut agent);
    let set = IpvsTimeouts {
        tcp_seconds: 60,
        tcp_fin_seconds: 10,
        udp_seconds: 30,
    };
    assert_eq!(agent.ipvs.model.timeouts, set);
    agent.take(PlanEvent::Applied(received(
        "vr-1",
        2,
        Ok(router(PlanState::Active)),
    )));
    pass(&mut agent);
    assert_eq!(agent.ipvs.model.timeouts.tcp_seconds, 900);
}

#[test]
fn a_removed_real_server_leaves_the_kernel() {
    let node = Node::new();
    let mut agent = serving(&node);
    agent.take(PlanEvent::Applied(received(
        "vs-1",
        2,
        Ok(director(VIP, &[2], PlanState::Active)),
    )));
    pass(&mut agent);
    let gone = DestinationKey {
        address: "192.0.2.11".parse().unwrap(),
        port: 80,
    };
    assert_eq!(
        agent.ipvs.carried_out,
        [IpvsOp::DeleteDestination(service_key(VIP, 80), gone)]
    );
}
