//! A director over three hosts: what it knows of them, and its clock.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::desired::PlanInput;
use lvs_core::election::Tick;
use lvs_core::health::{Check, Health, Policy, ServiceServing};
use lvs_core::ipvs::ServiceKey;
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use lvs_crds::node_plan::{CheckReference, PlannedService};
use lvs_crds::real_server::RealServerState;
use lvs_crds::value::{ForwardingType, Protocol, SchedulerName};

use super::{World, director_plan, ip, node, real_server, service};

pub const VIRTUAL: &str = "192.0.2.100";
pub const HOSTS: [&str; 3] = ["10.0.0.21", "10.0.0.22", "10.0.0.23"];

/// All three with their weights.
pub const ALL: [&str; 3] = ["10.0.0.21:8080 3", "10.0.0.22:8080 2", "10.0.0.23:8080 1"];

/// A service by NAT on port 80 over three hosts on port 8080 with weights 3, 2 and 1, and one TCP check.
pub fn web() -> PlannedService {
    let real_servers = HOSTS.iter().zip([3, 2, 1]).map(|(host, weight)| {
        real_server(
            &format!("rs-{host}"),
            host,
            8080,
            weight,
            ForwardingType::NAT,
        )
    });
    let mut web = service(VIRTUAL, 80, SchedulerName::Wrr, real_servers.collect());
    web.checks = vec![CheckReference {
        check_name: "tcp".to_owned(),
        port: None,
    }];
    web
}

pub fn plan(web: PlannedService) -> PlanInput {
    let mut plan = director_plan("vs-web", vec![web]);
    plan.spec.director.as_mut().unwrap().checks =
        vec![HealthCheck::new("tcp".to_owned(), HealthCheckType::TCP)];
    plan
}

/// A service of the kernel on the virtual address.
pub fn service_key(port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: ip(VIRTUAL),
        protocol: Protocol::TCP,
        port,
    }
}

pub fn down() -> Health {
    Health::Down("connect refused".to_owned())
}

/// A node and what it knows of the three hosts.
pub struct Story {
    pub world: World,
    pub policy: Policy,
    pub known: BTreeMap<&'static str, Health>,
    pub now: Tick,
    /// When the last pass wants another by time alone.
    pub next_step: Option<Tick>,
}

impl Story {
    pub fn of(web: PlannedService) -> Self {
        Self {
            world: World::new(node(), vec![plan(web)]),
            policy: Policy::default(),
            known: BTreeMap::new(),
            now: Tick::default() + Duration::from_secs(100),
            next_step: None,
        }
    }

    /// The same where all three are up.
    pub fn of_healthy(web: PlannedService) -> Self {
        let mut story = Self::of(web);
        for host in HOSTS {
            story.set(host, Health::Up);
        }
        story
    }

    pub fn set(&mut self, host: &'static str, health: Health) {
        self.known.insert(host, health);
    }

    /// The service as planned.
    pub fn planned(&mut self) -> &mut PlannedService {
        let director = self.world.plans[0].spec.director.as_mut().unwrap();
        &mut director.services[0]
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// Decides and passes; the destinations of the service as `address:port weight`.
    pub fn pass(&mut self) -> Vec<String> {
        let known = &self.known;
        let health = |check: &Check| {
            let host = check.target.ip().to_string();
            known.get(host.as_str()).cloned().unwrap_or_default()
        };
        let idle = self.world.model.ipvs.idle();
        let view = self.world.view(&idle);
        let decided = self
            .policy
            .decide(&self.world.plans, &view, health, self.now);
        (self.world.serving, self.next_step) = decided;
        let pass = self.world.pass();
        assert_eq!(pass.refused, vec![], "the kernel takes all of it");
        self.destinations(80)
    }

    /// What the kernel holds of the service on a port.
    pub fn destinations(&self, port: u16) -> Vec<String> {
        let state = &self.world.model.ipvs.services[&service_key(port)];
        let each = state.destinations.iter();
        each.map(|(key, destination)| {
            format!("{}:{} {}", key.address, key.port, destination.weight)
        })
        .collect()
    }

    /// How the service stands.
    pub fn standing(&self) -> &ServiceServing {
        let plan = &self.world.plans[0];
        let service = &plan.spec.director.as_ref().unwrap().services[0];
        self.world.serving.of(&plan.name, service).unwrap()
    }

    pub fn states(&self) -> Vec<RealServerState> {
        let real_servers = self.standing().real_servers.iter();
        real_servers.map(|one| one.state).collect()
    }
}
