//! A node in memory: its kernel, its leadership, and plans for it.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use lvs_agent::book::{PlanEvent, ReceivedPlan};
use lvs_agent::kernel::{HostKernel, KernelError};
use lvs_agent::metrics::Metrics;
use lvs_agent::port::{DirectedRouter, LeadershipPort, LeadershipRole, LeadershipView};
use lvs_agent::sync::{Directories, PassReport, Syncer};
use lvs_core::election::Tick;
use lvs_core::host::{AddressKey, ObservedHost, SysctlKey};
use lvs_core::ipvs::{Service, ServiceFlags, ServiceKey, ServiceState};
use lvs_core::model::HostModel;
use lvs_core::op::HostOp;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    Candidacy, DirectorPlan, LeadershipPlan, NodePlanSpec, NodePlanStatus, PlanSource, PlanState,
    PlannedAddress, PlannedRealServer, PlannedService, RealServerPlan, ServiceAddress, SourceKind,
};
use lvs_crds::traffic_policy::{AdministrativeState, OnFailure};
use lvs_crds::value::{
    Forwarding, ForwardingType, PacketScheduling, Protocol, Scheduler, SchedulerName,
};
use lvs_crds::virtual_router::{Announcement, OnApiServerLoss};
use lvs_ipvs::fake::FakeKernel;
use nix::errno::Errno;
use prometheus_client::registry::Registry;

pub const NODE: &str = "node-a";
pub const ROUTER: &str = "edge";
pub const VIP: &str = "192.0.2.250";

#[derive(Clone)]
pub struct FakeHost {
    pub model: HostModel,
    /// Numbers of the observations, counted from 1, that fail.
    pub unreadable: BTreeSet<usize>,
    pub refusals: BTreeMap<String, Errno>,
    pub carried_out: Vec<HostOp>,
    pub observations: usize,
}

pub fn refused(doing: &str, errno: Errno) -> KernelError {
    KernelError::Refused {
        doing: doing.to_owned(),
        errno,
        sentence: String::new(),
    }
}

impl FakeHost {
    pub fn new() -> Self {
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
pub struct FakeLeadership {
    pub routers: Option<BTreeMap<String, DirectedRouter>>,
    pub addresses: BTreeMap<String, BTreeSet<AddressKey>>,
    pub held_back: BTreeSet<String>,
    pub view: LeadershipView,
    pub missing: BTreeMap<String, BTreeSet<AddressKey>>,
}

impl FakeLeadership {
    /// Does what the fence does with a lease in hand: what was handed over is in the kernel.
    pub fn master(&mut self) {
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
    fn hold_back(&mut self, routers: BTreeSet<String>) {
        self.held_back = routers;
    }
    fn set_addresses(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>) {
        self.addresses.extend(addresses);
    }
    fn missing(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>, _: Tick) {
        self.missing = addresses;
    }
    fn view(&self) -> LeadershipView {
        self.view.clone()
    }
}

pub type Loop = Syncer<FakeKernel, FakeHost, FakeLeadership>;

pub struct Node {
    pub state: tempfile::TempDir,
    pub runtime: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            runtime: tempfile::tempdir().unwrap(),
        }
    }

    pub fn agent(&self, ipvs: FakeKernel, host: FakeHost) -> Loop {
        self.agent_with(ipvs, host, FakeLeadership::default())
    }

    pub fn agent_with(&self, ipvs: FakeKernel, host: FakeHost, leadership: FakeLeadership) -> Loop {
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

    pub fn fresh(&self) -> Loop {
        self.agent(FakeKernel::default(), FakeHost::new())
    }

    /// Ends the process as kill -9 does and starts it again over the same kernel.
    pub fn restart(&self, agent: Loop) -> Loop {
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

pub fn key(device: &str, address: &str, prefix_length: u8) -> AddressKey {
    AddressKey {
        device: device.into(),
        address: address.parse().unwrap(),
        prefix_length,
    }
}

pub fn service_key(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: address.parse().unwrap(),
        protocol: Protocol::TCP,
        port,
    }
}

pub fn spec(kind: SourceKind, name: &str, state: PlanState) -> NodePlanSpec {
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

pub fn service(address: &str, scheduler: SchedulerName, weights: &[u16]) -> PlannedService {
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
                    full_nat: None,
                },
                upper_threshold: 0,
                lower_threshold: 0,
                administrative_state: AdministrativeState::Enabled,
                checks: None,
            })
            .collect(),
        checks: Vec::new(),
        on_failure: OnFailure::Remove,
        quorum: None,
        sorry_server: None,
        drain_timeout_seconds: None,
        slow_start_seconds: 0,
    }
}

pub fn director(address: &str, weights: &[u16], state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        director: Some(DirectorPlan {
            leadership: None,
            addresses: vec![PlannedAddress {
                address: address.parse().unwrap(),
                devices: vec!["eth0".into()],
            }],
            firewall_marks: vec![],
            services: vec![service(address, SchedulerName::Wrr, weights)],
            source_address_pools: Vec::new(),
            certificate_authorities: Vec::new(),
            checks: vec![],
        }),
        ..spec(SourceKind::VirtualService, "web", state)
    }
}

pub fn router(state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        director: Some(DirectorPlan {
            leadership: Some(LeadershipPlan {
                lease_name: "lvs-router-edge".into(),
                priority: 100,
                candidacy: Candidacy::Permitted,
                directors: vec![NODE.into()],
                lease_duration_seconds: 10,
                preemption_delay_seconds: None,
                hand_over_to: None,
                heartbeat: None,
                on_api_server_loss: OnApiServerLoss::Hold,
                takeover: lvs_crds::virtual_router::Takeover::Fast,
                announcement: Announcement::default(),
                timeouts: None,
                virtual_router_id: None,
                tracked_interfaces: Vec::new(),
                tracked_endpoints: Vec::new(),
                tracked_real_servers: None,
                addresses_set_aside: Vec::new(),
                connection_sync: None,
            }),
            ..DirectorPlan::default()
        }),
        ..spec(SourceKind::VirtualRouter, ROUTER, state)
    }
}

pub fn real_server(state: PlanState) -> NodePlanSpec {
    NodePlanSpec {
        real_server: Some(RealServerPlan {
            direct_routing_addresses: vec![VIP.parse().unwrap()],
            ..RealServerPlan::default()
        }),
        ..spec(SourceKind::VirtualService, "web", state)
    }
}

pub fn received(name: &str, generation: i64, spec: Result<NodePlanSpec, &str>) -> ReceivedPlan {
    ReceivedPlan {
        name: name.into(),
        uid: format!("uid-{name}"),
        generation,
        spec: spec.map_err(str::to_owned),
        status: NodePlanStatus::default(),
        trace: None,
    }
}

pub fn list(agent: &mut Loop, plans: Vec<ReceivedPlan>) {
    agent.take(PlanEvent::ListBegins);
    for plan in plans {
        agent.take(PlanEvent::Listed(plan));
    }
    agent.take(PlanEvent::ListEnds);
}

pub fn pass(agent: &mut Loop) -> PassReport {
    let report = agent.pass();
    agent.store_plans();
    report
}

/// An agent that carries out one DR service with two real servers, and its router.
pub fn serving(node: &Node) -> Loop {
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

pub fn reason(report: &PassReport, plan: &str) -> Reason {
    report.plans[plan].programmed.reason
}

pub fn foreign_service() -> ServiceState {
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
