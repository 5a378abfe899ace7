//! What the agent of a node would do: its decisions, on a modelled kernel that holds what the present plans ask for.
//!
//! The API server does not know the devices of a node. All of its subnets are therefore on one device, whose name is what
//! a usage text would print.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::desired::{DesiredState, PlanInput, Roles, RouterRole, desired};
use lvs_core::diff::diff;
use lvs_core::election::Tick;
use lvs_core::health::{Health, NodeView, Policy, Serving};
use lvs_core::host::{AddressKey, LinkKind};
use lvs_core::ipvs::Idle;
use lvs_core::journal::Journal;
use lvs_core::model::{HostModel, IpvsModel, Model};
use lvs_core::op::{HostOp, Op};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{NodePlanStatus, PlannedRealServer, PlannedService};
use lvs_crds::real_server::RealServerState;
use lvs_plan::Inputs;

/// Stands for whichever device of a node is meant.
pub const DEVICE: &str = "DEVICE";

/// Most passes of an agent until its kernel is as wanted.
const PASSES_MAXIMUM: usize = 8;

/// A node under its plans.
pub struct NodeUnderPlans {
    model: Model,
    journal: Journal,
    /// What it should hold.
    pub desired: DesiredState,
    /// Who is master of what.
    pub roles: Roles,
}

/// What changes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// Operations, each one line.
    pub operations: Vec<String>,
    /// Problems that are new.
    pub problems: Vec<String>,
}

/// Plans of a node, and who is master there.
fn plans_of(inputs: &Inputs, node: &str) -> (Vec<PlanInput>, Roles) {
    let mut plans = Vec::new();
    let mut roles = BTreeMap::new();
    for (name, plan) in &inputs.node_plans {
        let Some(spec) = plan.object.spec().filter(|spec| spec.node_name == node) else {
            continue;
        };
        let lease = inputs.leases.get(&lease_name(&spec.virtual_router_name));
        let holder = lease.and_then(|lease| lease.holder_node.as_deref());
        let role = if holder == Some(node) {
            RouterRole::Master
        } else {
            RouterRole::Backup
        };
        roles.insert(spec.virtual_router_name.clone(), role);
        plans.push(PlanInput {
            name: name.clone(),
            spec: spec.clone(),
        });
    }
    (plans, Roles(roles))
}

/// Devices that plans name, of each list the first: which of them a node has only the node knows.
fn named_devices(plans: &[PlanInput]) -> BTreeSet<&str> {
    let mut devices = BTreeSet::new();
    for director in plans.iter().filter_map(|plan| plan.spec.director.as_ref()) {
        let addresses = director.addresses.iter();
        devices.extend(addresses.filter_map(|address| address.devices.first()));
        if let Some(leadership) = &director.leadership {
            let tracked = leadership.tracked_interfaces.iter();
            devices.extend(tracked.filter_map(|tracked| tracked.devices.first()));
            let heartbeat = leadership.heartbeat.iter();
            devices.extend(heartbeat.filter_map(|heartbeat| heartbeat.devices.first()));
            let sync = leadership.connection_sync.iter();
            let daemons = sync.filter_map(|sync| sync.daemon.as_ref());
            devices.extend(daemons.filter_map(|daemon| daemon.devices.first()));
        }
    }
    devices.into_iter().map(String::as_str).collect()
}

/// A node before anybody has done anything there.
fn bare(inputs: &Inputs, node: &str, devices: &BTreeSet<&str>) -> Model {
    let mut host = HostModel::new(true);
    for name in [DEVICE].iter().chain(devices) {
        host.add_foreign_link(name, false, true);
    }
    let addresses = inputs.nodes.get(node).into_iter();
    for address in addresses.flat_map(|node| &node.internal_addresses) {
        host.add_foreign_address(AddressKey {
            device: DEVICE.to_owned(),
            address: *address,
            prefix_length: 0,
        });
    }
    Model {
        ipvs: IpvsModel::default(),
        host,
    }
}

/// What an agent reports of a real server; of whom nothing is reported is taken to be up.
fn reported(status: Option<&NodePlanStatus>, one: &PlannedRealServer) -> Health {
    let known = status.into_iter().flat_map(|status| &status.real_servers);
    let mut known = known.filter(|known| (known.address, known.port) == (one.address, one.port));
    let state = known.find_map(|known| match known.state {
        RealServerState::Down => Some(Health::Down(known.message.clone())),
        RealServerState::Unknown => Some(Health::Unknown),
        RealServerState::Up | RealServerState::Draining | RealServerState::Disabled => None,
    });
    state.unwrap_or(Health::Up)
}

fn serving(inputs: &Inputs, plans: &[PlanInput], roles: &Roles) -> Serving {
    let (idle, journal, bare) = (Idle::new(), Journal::new(""), HostModel::new(true));
    let view = NodeView {
        services: &BTreeMap::new(),
        idle: &idle,
        journal: &journal,
        host: bare.state(),
        roles,
    };
    let health = |plan: &str, _: &PlannedService, one: &PlannedRealServer| {
        let plan = inputs.node_plans.get(plan);
        reported(plan.and_then(|plan| plan.object.status.as_ref()), one)
    };
    Policy::default().decide_of_real_servers(plans, &view, health, Tick::default())
}

impl NodeUnderPlans {
    /// A node that holds what its plans ask for now. `later` are the plans that it will have: their devices are there too.
    pub fn settled(now: &Inputs, later: &Inputs, node: &str) -> Self {
        let (plans, roles) = plans_of(now, node);
        let (plans_later, _) = plans_of(later, node);
        let mut devices = named_devices(&plans);
        devices.extend(named_devices(&plans_later));
        let known = if now.nodes.contains_key(node) {
            now
        } else {
            later
        };
        let mut this = Self {
            model: bare(known, node, &devices),
            journal: Journal::new(""),
            desired: DesiredState::default(),
            roles: roles.clone(),
        };
        this.carry_out(now, &plans, roles);
        this
    }

    /// Goes over to the plans of `later`, and says what that takes.
    pub fn go_over_to(&mut self, later: &Inputs, node: &str) -> NodeChange {
        let (plans, roles) = plans_of(later, node);
        let problems_before = problems(&self.desired);
        let held_before = self.held();
        let mut operations = self.carry_out(later, &plans, roles);
        let held = self.held();
        // The fence thread's own: after all is ready for them, and before anything is taken away.
        let come = held.difference(&held_before).cloned();
        operations.extend(come.map(|key| HostOp::AddAddress(key).to_string()));
        let go = held_before.difference(&held).cloned();
        operations.splice(0..0, go.map(|key| HostOp::DeleteAddress(key).to_string()));
        let problems = problems(&self.desired);
        NodeChange {
            operations,
            problems: problems.difference(&problems_before).cloned().collect(),
        }
    }

    /// Addresses that the node holds as master.
    fn held(&self) -> BTreeSet<AddressKey> {
        let addresses = self.desired.director_addresses.iter();
        let own = addresses.filter(|(router, _)| self.roles.of(router) == RouterRole::Master);
        own.flat_map(|(_, keys)| keys).cloned().collect()
    }

    fn carry_out(&mut self, inputs: &Inputs, plans: &[PlanInput], roles: Roles) -> Vec<String> {
        let serving = serving(inputs, plans, &roles);
        let mut operations = Vec::new();
        for _ in 0..PASSES_MAXIMUM {
            let wanted = desired(
                plans,
                &roles,
                &serving,
                self.model.host.state(),
                &self.journal,
            );
            let observed = self.model.observe_for(&wanted, &self.journal);
            let difference = diff(&wanted, &observed, &self.journal);
            let ahead = self.journal.before(&wanted, &observed, &difference);
            let mut refused = Vec::new();
            for operation in &difference.ops {
                let line = self.line(operation);
                if self.model.apply(operation).is_ok() {
                    operations.push(line);
                } else {
                    refused.push(operation.clone());
                }
            }
            let after = self.model.observe_for(&wanted, &ahead);
            self.journal = ahead.after(&wanted, &after, refused.iter());
            self.desired = wanted;
            if difference.ops.len() == refused.len() {
                break;
            }
        }
        self.roles = roles;
        operations
    }

    /// The line of an operation. Where it speaks of a device by its index, that of the model means nothing.
    fn line(&self, operation: &Op) -> String {
        let line = operation.to_string();
        let Op::Host(HostOp::AddLink {
            kind: LinkKind::Macvlan { parent, .. },
            ..
        }) = operation
        else {
            return line;
        };
        let mut links = self.model.host.state().links.iter();
        let name = links.find(|(_, link)| link.index == *parent);
        let name = name.map_or(DEVICE, |(name, _)| name.as_str());
        line.replace(&format!(" link if{parent} "), &format!(" link {name} "))
    }
}

fn problems(desired: &DesiredState) -> BTreeSet<String> {
    let problems = desired.problems.iter();
    problems
        .map(|problem| format!("{}: {}", problem.reason, problem.message))
        .collect()
}
