//! From plans and roles to the state this node should be in.
//!
//! Total and deterministic: the order of the plans does not matter, and what is wrong in one plan becomes a
//! [`Problem`] of that plan while everything else goes on. Nothing here compares with the kernel; that is `diff`.

mod connection_sync;
mod director;
mod fitness;
mod heartbeat;
mod own_endpoint;
mod passage;
mod real_server;
mod sorry_server;
mod source_nat;
mod sysctl;
mod tunnel;
mod virtual_mac;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{NodePlanSpec, PlanState};
use lvs_crds::value::AddressFamily;

use crate::health::Serving;
use crate::host::{
    AddressKey, DefaultRoute, FouPort, LinkKind, ObservedHost, PacketRules, PolicyRule, SysctlKey,
};
use crate::ipvs::{IpvsTimeouts, ServiceKey, ServiceState, Services};
use crate::journal::Journal;
use crate::object::Object;
use crate::sync_daemon::{SyncDaemon, SyncDaemons};

use fitness::Leaderships;
use own_endpoint::OwnEndpoints;

pub(crate) use director::destination_forwarding;
pub use director::serves_what_it_balances;
pub use fitness::{Fault, Fitness};
pub use heartbeat::HeartbeatInterface;
pub use sysctl::SysctlDemand;
pub(crate) use sysctl::forwarding_switch;
pub use tunnel::tunnel_device_name;
pub use virtual_mac::{virtual_mac, virtual_mac_device_name};

/// A plan as the agent has it, from the API or from its cache.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanInput {
    /// Name of the NodePlan.
    pub name: String,
    /// What is to be done.
    pub spec: NodePlanSpec,
}

/// Role of this node in one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterRole {
    /// Holds the addresses.
    Master,
    /// Does not.
    Backup,
}

/// Roles by name of the router. A router that is not in it has the role Backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(pub BTreeMap<String, RouterRole>);

impl Roles {
    /// Role in a router.
    pub fn of(&self, router: &str) -> RouterRole {
        self.0.get(router).copied().unwrap_or(RouterRole::Backup)
    }
}

/// Something that keeps a plan from being carried out in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the plan.
    pub plan: String,
    /// Reason, as in the condition.
    pub reason: Reason,
    /// What, with values, and what to do where there is something to do.
    pub message: String,
}

/// What the host outside IPVS should hold. Only things of ours: what is not here and not in the journal is foreign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredHost {
    /// Devices of ours, up.
    pub links: BTreeMap<String, LinkKind>,
    /// Addresses on devices of ours.
    pub addresses: BTreeSet<AddressKey>,
    /// Sysctls and what is asked of each.
    pub sysctls: BTreeMap<SysctlKey, SysctlDemand>,
    /// foo-over-udp ports.
    pub fou_ports: BTreeSet<FouPort>,
    /// Default routes in tables of ours.
    pub routes: BTreeSet<DefaultRoute>,
    /// Policy rules.
    pub policy_rules: BTreeSet<PolicyRule>,
    /// Our nftables table; empty = none.
    pub packet_rules: PacketRules,
}

/// The state the node should be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// IPVS services of ours.
    pub services: Services,
    /// IPVS timeouts; `None` = as they were before us.
    pub timeouts: Option<IpvsTimeouts>,
    /// IPVS sync daemons.
    pub sync_daemons: SyncDaemons,
    /// Whether the node must not balance while it listens: it is a real server of what it would balance.
    pub backup_only: bool,
    /// Routers whose connections the sync daemons keep.
    pub synchronized_routers: BTreeSet<String>,
    /// Routers whose directors must send a connection to the same real server without knowing it.
    pub stateless_routers: BTreeSet<String>,
    /// Services of those routers.
    pub stateless_services: BTreeSet<ServiceKey>,
    /// Everything else, director addresses aside.
    pub host: DesiredHost,
    /// Addresses by router that the fence thread may hold while the node is master, each on its device.
    pub director_addresses: BTreeMap<String, BTreeSet<AddressKey>>,
    /// Routers of which this node leaves services out while it does not hold their addresses. When it is to hold them, the
    /// services come first.
    pub incomplete_routers: BTreeSet<String>,
    /// Addresses by router that cannot be held here: no device, or somebody else's address.
    pub unavailable: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What speaks against this node as director, by router; a router that is not in it has nothing against it.
    pub fitness: BTreeMap<String, Fitness>,
    /// The interface of the heartbeats, by router; a router that is not in it has none of its own.
    pub heartbeat_interfaces: BTreeMap<String, HeartbeatInterface>,
    /// Kernel modules that no kernel interface loads by itself, and the plans that need each.
    pub modules: BTreeMap<&'static str, BTreeSet<String>>,
    /// What is wrong, sorted.
    pub problems: Vec<Problem>,
    /// Which plans care about which things, present or absent: a failure there is theirs. A withdrawn plan cares
    /// about what it alone once wanted.
    pub claims: BTreeMap<Object, BTreeSet<String>>,
}

impl DesiredState {
    /// The plan that owns a wanted service.
    pub fn owner(&self, key: &ServiceKey) -> Option<&str> {
        if !self.services.contains_key(key) {
            return None;
        }
        self.claims
            .get(&Object::Service(*key))
            .and_then(|plans| plans.first())
            .map(String::as_str)
    }

    /// Plans that care about a thing.
    pub fn claimants(&self, object: &Object) -> impl Iterator<Item = &str> {
        self.claims
            .get(object)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Sysctls to be read before [`diff`](crate::diff::diff): those demanded, those the kernel weighs against them,
    /// and those in the journal.
    pub fn sysctl_keys(&self, journal: &Journal) -> BTreeSet<SysctlKey> {
        self.host
            .sysctls
            .iter()
            .flat_map(|(key, demand)| [Some(key.clone()), demand.weighed_against(key)])
            .flatten()
            .chain(journal.sysctls.keys().cloned())
            .chain((!self.sync_daemons.is_empty()).then(|| SysctlKey::of_ipvs("backup_only")))
            .collect()
    }
}

/// What the plans ask of this node, given its roles, how services stand, its devices and addresses, and what is ours
/// already.
///
/// `host` need not hold any sysctl yet: see [`DesiredState::sysctl_keys`]. The journal decides only between plans
/// that claim the same service (the one that has it keeps it) and tells our own addresses from foreign ones.
pub fn desired(
    plans: &[PlanInput],
    roles: &Roles,
    serving: &Serving,
    host: &ObservedHost,
    journal: &Journal,
) -> DesiredState {
    let mut ordered: Vec<&PlanInput> = plans.iter().collect();
    ordered.sort_by(|left, right| left.name.cmp(&right.name));
    ordered.dedup_by(|left, right| left.name == right.name);
    let (withdrawn, held): (Vec<&PlanInput>, Vec<&PlanInput>) = ordered
        .into_iter()
        .partition(|plan| plan.spec.state == PlanState::Withdrawn);

    let leaderships = fitness::leaderships(withdrawn.iter().chain(&held).copied());
    let own_endpoints = own_endpoint::own_endpoints(&held, &host.api_endpoints);
    let run = |plans: &[&PlanInput], roles| {
        Builder::run(
            plans,
            roles,
            serving,
            (&leaderships, &own_endpoints),
            host,
            journal,
        )
    };
    let mut state = run(&held, Some(roles));
    state.heartbeat_interfaces = heartbeat::interfaces(&held, plans, host, journal);

    // A withdrawn plan still answers for what only it wanted, until that is gone, and so does one that is left undone.
    let undone = held.iter().copied().filter(|plan| {
        let role = roles.of(&plan.spec.virtual_router_name);
        own_endpoint::is_left_undone(plan, role, &own_endpoints)
    });
    let formerly: Vec<&PlanInput> = withdrawn.iter().copied().chain(undone).collect();
    let former = run(&formerly, None);
    for (object, owners) in former.claims {
        state.claims.entry(object).or_insert(owners);
    }
    virtual_mac::keep_carrying_devices(&mut state, host, journal);
    state
}

/// Collects what plans want.
struct Builder<'a> {
    host: &'a ObservedHost,
    journal: &'a Journal,
    state: DesiredState,
    /// Plan at hand.
    plan: &'a PlanInput,
    /// Its role; `None` = list everything it could ever want.
    role: Option<RouterRole>,
    /// How services stand.
    serving: &'a Serving,
    /// Leadership of each router, and the plan that carries it.
    leaderships: &'a Leaderships<'a>,
    /// Routers through which alone the agent reaches the API server.
    own_endpoints: &'a OwnEndpoints,
    /// The set-up of the sync daemons, once a plan has asked for one.
    sync: Option<SyncDaemon>,
}

impl<'a> Builder<'a> {
    fn run(
        plans: &[&'a PlanInput],
        roles: Option<&Roles>,
        serving: &'a Serving,
        (leaderships, own_endpoints): (&'a Leaderships<'a>, &'a OwnEndpoints),
        host: &'a ObservedHost,
        journal: &'a Journal,
    ) -> DesiredState {
        let Some(first) = plans.first() else {
            return DesiredState::default();
        };
        let mut builder = Self {
            host,
            journal,
            state: DesiredState::default(),
            plan: first,
            role: None,
            serving,
            leaderships,
            own_endpoints,
            sync: None,
        };
        for plan in plans {
            builder.plan = plan;
            builder.role = roles.map(|roles| roles.of(&plan.spec.virtual_router_name));
            if let Some(director) = &plan.spec.director {
                let undone = builder
                    .role
                    .is_some_and(|role| own_endpoint::is_left_undone(plan, role, own_endpoints));
                if builder.role.is_some() {
                    builder.judge_endpoints();
                }
                if !undone {
                    builder.director(director);
                }
            }
            if let Some(real_server) = &plan.spec.real_server {
                builder.real_server(real_server);
            }
        }
        builder.judge_links(plans);
        builder.backup_only(plans, roles);
        builder.stateless_services(plans);
        let mut state = builder.state;
        state.host.packet_rules.normalise();
        state.problems.sort();
        state.problems.dedup();
        state
    }

    fn problem(&mut self, reason: Reason, message: String) {
        self.state.problems.push(Problem {
            plan: self.plan.name.clone(),
            reason,
            message,
        });
    }

    fn claim(&mut self, object: Object) {
        self.state
            .claims
            .entry(object)
            .or_default()
            .insert(self.plan.name.clone());
    }

    /// Whether the kernel can do this address' family; a problem if not.
    fn family_available(&mut self, address: IpAddr) -> bool {
        if address.is_ipv4() || self.host.ipv6 {
            return true;
        }
        self.problem(
            Reason::IPv6Unavailable,
            format!("{address} is IPv6, which the kernel of this node lacks or has disabled"),
        );
        false
    }

    /// Take a service for the plan at hand. A key that two plans claim stays with the plan that has it, else with the
    /// first by name; the other gets a problem.
    fn claim_service(&mut self, key: ServiceKey, service: ServiceState) {
        let object = Object::Service(key);
        let holder = self
            .state
            .services
            .contains_key(&key)
            .then(|| {
                self.state
                    .claims
                    .get(&object)
                    .and_then(|plans| plans.first())
            })
            .flatten()
            .filter(|holder| **holder != self.plan.name)
            .cloned();
        let Some(holder) = holder else {
            self.state.services.insert(key, service);
            self.claim(object);
            return;
        };
        let incumbent = self.journal.services.get(&key) == Some(&self.plan.name);
        let (winner, loser) = if incumbent {
            self.state.services.insert(key, service);
            let own = BTreeSet::from([self.plan.name.clone()]);
            self.state.claims.insert(object, own);
            (self.plan.name.clone(), holder)
        } else {
            (holder, self.plan.name.clone())
        };
        self.state.problems.push(Problem {
            plan: loser,
            reason: Reason::AddressInUse,
            message: format!(
                "service {key} is claimed by plan {winner} on this node too, which keeps it"
            ),
        });
    }

    /// Up devices that are neither loopback nor ours and carry an address of the family (a link-local IPv6 one does not
    /// count: every veth has one), and those for which the journal holds `setting`: an address that comes and goes (DHCP) must not switch it off in between.
    fn neighbour_devices(&self, family: AddressFamily, setting: &str) -> BTreeSet<String> {
        let eligible = |device: &str| {
            !crate::host::is_our_device(device)
                && self
                    .host
                    .links
                    .get(device)
                    .is_some_and(|link| link.up && !link.loopback)
        };
        let carrying = self
            .host
            .addresses
            .iter()
            .filter(|(key, _)| {
                AddressFamily::of(&key.address) == family && !is_link_local(key.address)
            })
            .map(|(key, _)| key.device.as_str());
        let changed = self
            .journal
            .sysctls
            .keys()
            .filter(|key| key.name() == setting)
            .filter_map(SysctlKey::device);
        carrying
            .chain(changed)
            .filter(|device| eligible(device))
            .map(str::to_owned)
            .collect()
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
