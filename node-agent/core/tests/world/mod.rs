//! A node to test with: the kernel model, a journal, plans and roles, and the pass an agent makes over them.
#![allow(dead_code)] // Each test file uses its part.

pub mod generate;
pub mod story;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::desired::{DesiredState, PlanInput, Roles, RouterRole, desired};
use lvs_core::diff::{Diff, diff};
use lvs_core::health::{NodeView, Serving};
use lvs_core::host::AddressKey;
use lvs_core::ipvs::Idle;
use lvs_core::journal::Journal;
use lvs_core::model::{Errno, HostModel, IpvsModel, Model};
use lvs_core::observed::Observed;
use lvs_core::op::Op;
use lvs_crds::node_plan::{
    Candidacy, DirectorPlan, LeadershipPlan, NodePlanSpec, PlanSource, PlanState, PlannedAddress,
    PlannedRealServer, PlannedService, PlannedSourceAddressPool, RealServerPlan, ServiceAddress,
    SourceKind,
};
use lvs_crds::traffic_policy::{AdministrativeState, OnFailure};
use lvs_crds::value::{
    Forwarding, ForwardingType, FullNat, PacketScheduling, Protocol, Scheduler, SchedulerName,
    Tunnel,
};
use lvs_crds::virtual_router::{Announcement, OnApiServerLoss, Takeover};

pub const ROUTER: &str = "edge";
pub const BOOT: &str = "6f9c1c1e-1111-4222-8333-000000000001";

/// A node with `lo`, `eth0` (192.0.2.10/24, 2001:db8::10/64) and `eth1` (10.0.0.10/24).
pub fn node() -> Model {
    let mut host = HostModel::new(true);
    for (name, loopback) in [("lo", true), ("eth0", false), ("eth1", false)] {
        host.add_foreign_link(name, loopback, true);
    }
    for (device, address, prefix_length) in [
        ("lo", "127.0.0.1", 8),
        ("lo", "::1", 128),
        ("eth0", "192.0.2.10", 24),
        ("eth0", "2001:db8::10", 64),
        ("eth0", "fe80::10", 64),
        ("eth1", "10.0.0.10", 24),
    ] {
        host.add_foreign_address(key(device, address, prefix_length));
    }
    Model {
        ipvs: IpvsModel::default(),
        host,
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn key(device: &str, address: &str, prefix_length: u8) -> AddressKey {
    AddressKey {
        device: device.to_owned(),
        address: ip(address),
        prefix_length,
    }
}

pub fn plan(name: &str) -> PlanInput {
    PlanInput {
        name: name.to_owned(),
        spec: NodePlanSpec {
            node_name: "node-a".to_owned(),
            state: PlanState::Active,
            source: PlanSource {
                kind: SourceKind::VirtualService,
                namespace: "default".to_owned(),
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                generation: 1,
            },
            virtual_router_name: ROUTER.to_owned(),
            director: None,
            real_server: None,
        },
    }
}

pub fn forwarding(type_: ForwardingType) -> Forwarding {
    Forwarding {
        type_,
        tunnel: (type_ == ForwardingType::TUN).then(Tunnel::default),
        full_nat: (type_ == ForwardingType::FullNAT).then(|| FullNat {
            source_address_pool_name: "snat".to_owned(),
        }),
    }
}

pub fn real_server(
    name: &str,
    address: &str,
    port: u16,
    weight: u16,
    type_: ForwardingType,
) -> PlannedRealServer {
    PlannedRealServer {
        name: name.to_owned(),
        address: ip(address),
        port,
        weight,
        forwarding: forwarding(type_),
        upper_threshold: 0,
        lower_threshold: 0,
        administrative_state: AdministrativeState::Enabled,
        checks: None,
    }
}

pub fn service(
    address: &str,
    port: u16,
    scheduler: SchedulerName,
    real_servers: Vec<PlannedRealServer>,
) -> PlannedService {
    PlannedService {
        address: Some(ServiceAddress {
            address: ip(address),
            protocol: Protocol::TCP,
            port,
            end_port: port,
        }),
        firewall_mark: None,
        port_name: None,
        scheduler: Scheduler {
            name: scheduler,
            options: Vec::new(),
        },
        persistence: None,
        packet_scheduling: PacketScheduling::PerConnection,
        real_servers,
        checks: Vec::new(),
        on_failure: OnFailure::Remove,
        quorum: None,
        sorry_server: None,
        drain_timeout_seconds: None,
        slow_start_seconds: 0,
    }
}

/// A director's plan for services, with the addresses of the services.
pub fn director_plan(name: &str, services: Vec<PlannedService>) -> PlanInput {
    let mut result = plan(name);
    let mut addresses: Vec<PlannedAddress> = services
        .iter()
        .filter_map(|service| service.address.as_ref())
        .map(|address| PlannedAddress {
            address: address.address,
            devices: Vec::new(),
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    result.spec.director = Some(DirectorPlan {
        leadership: None,
        addresses,
        firewall_marks: Vec::new(),
        services,
        source_address_pools: Vec::new(),
        certificate_authorities: Vec::new(),
        checks: Vec::new(),
    });
    result
}

/// The same with source addresses for real servers with forwarding FullNAT, of both families.
pub fn with_sources(mut plan: PlanInput) -> PlanInput {
    let director = plan.spec.director.as_mut().unwrap();
    director.source_address_pools = vec![PlannedSourceAddressPool {
        name: "snat".to_owned(),
        addresses: ["10.0.0.240", "10.0.0.241", "2001:db8::240"]
            .map(ip)
            .to_vec(),
    }];
    plan
}

/// Leadership of a router of this node alone, with nothing that is optional.
pub fn leadership() -> LeadershipPlan {
    LeadershipPlan {
        lease_name: "lvs-router-edge".to_owned(),
        priority: 100,
        preemption_delay_seconds: None,
        hand_over_to: None,
        candidacy: Candidacy::Permitted,
        directors: vec!["node-a".to_owned()],
        lease_duration_seconds: 10,
        heartbeat: None,
        on_api_server_loss: OnApiServerLoss::Hold,
        takeover: Takeover::Fast,
        announcement: Announcement::default(),
        timeouts: None,
        connection_sync: None,
        virtual_router_id: None,
        tracked_interfaces: Vec::new(),
        tracked_endpoints: Vec::new(),
        tracked_real_servers: None,
        addresses_set_aside: Vec::new(),
    }
}

pub fn direct_routing_plan(name: &str, addresses: &[&str]) -> PlanInput {
    let mut result = plan(name);
    result.spec.real_server = Some(RealServerPlan {
        direct_routing_addresses: addresses.iter().map(|text| ip(text)).collect(),
        ..RealServerPlan::default()
    });
    result
}

/// What one pass did.
pub struct Pass {
    pub desired: DesiredState,
    pub before: Observed,
    pub diff: Diff,
    /// Journal on disk while the operations ran.
    pub written_ahead: Journal,
    pub after: Observed,
    /// Operations the model refused.
    pub refused: Vec<(Op, Errno)>,
}

/// A node and all its agent knows.
#[derive(Clone)]
pub struct World {
    pub model: Model,
    pub journal: Journal,
    pub plans: Vec<PlanInput>,
    pub roles: Roles,
    pub serving: Serving,
}

impl World {
    pub fn new(model: Model, plans: Vec<PlanInput>) -> Self {
        Self {
            model,
            journal: Journal::new(BOOT),
            plans,
            roles: Roles::default(),
            serving: Serving::default(),
        }
    }

    pub fn set_role(&mut self, role: RouterRole) {
        self.roles = Roles(BTreeMap::from([(ROUTER.to_owned(), role)]));
    }

    /// The node as a pass reads it.
    pub fn view<'a>(&'a self, idle: &'a Idle) -> NodeView<'a> {
        NodeView {
            services: &self.model.ipvs.services,
            idle,
            journal: &self.journal,
            host: self.model.host.state(),
            roles: &self.roles,
        }
    }

    pub fn desired(&self) -> DesiredState {
        desired(
            &self.plans,
            &self.roles,
            &self.serving,
            self.model.host.state(),
            &self.journal,
        )
    }

    pub fn diff(&self) -> Diff {
        let desired = self.desired();
        let observed = self.model.observe_for(&desired, &self.journal);
        diff(&desired, &observed, &self.journal)
    }

    /// One pass; `watch` sees the model after every operation.
    pub fn pass_watched(&mut self, mut watch: impl FnMut(&Model, &Op)) -> Pass {
        let desired = self.desired();
        let before = self.model.observe_for(&desired, &self.journal);
        let diff = diff(&desired, &before, &self.journal);
        let written_ahead = self.journal.before(&desired, &before, &diff);
        let mut refused = Vec::new();
        for op in &diff.ops {
            if let Err(errno) = self.model.apply(op) {
                refused.push((op.clone(), errno));
            }
            watch(&self.model, op);
        }
        let after = self.model.observe_for(&desired, &written_ahead);
        self.journal = written_ahead.after(&desired, &after, refused.iter().map(|(op, _)| op));
        Pass {
            desired,
            before,
            diff,
            written_ahead,
            after,
            refused,
        }
    }

    pub fn pass(&mut self) -> Pass {
        self.pass_watched(|_, _| {})
    }

    /// The agent dies after `operations` of its pass; what is left is the kernel and the journal on disk.
    pub fn crash_after(&mut self, operations: usize) {
        let desired = self.desired();
        let before = self.model.observe_for(&desired, &self.journal);
        let diff = diff(&desired, &before, &self.journal);
        self.journal = self.journal.before(&desired, &before, &diff);
        for op in diff.ops.iter().take(operations) {
            self.model.apply(op).unwrap();
        }
    }

    pub fn withdraw_all(&mut self) {
        for plan in &mut self.plans {
            plan.spec.state = PlanState::Withdrawn;
        }
    }
}

/// One operation per line, as in a dry run.
pub fn lines(ops: &[Op]) -> String {
    let lines: Vec<String> = ops.iter().map(ToString::to_string).collect();
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}
