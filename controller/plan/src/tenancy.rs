//! Whose address is it? One namespace per address, the oldest claimant wins; inside a namespace
//! an address is shared by port. Allocation repeats what plans and status say before it takes
//! something new from a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, SourceKind};
use lvs_crds::value::{AddressFamily, Protocol};
use lvs_crds::virtual_router::PoolPurpose;
use lvs_crds::virtual_service::{AssignedAddress, Grouping, ServicePort};

use crate::address_range::parse_address;
use crate::input::{Inputs, ObjectKey, VirtualServiceObject};
use crate::report::Verdict;
use crate::router::{Pool, Router, Routers};

/// Who owns an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// A router, as additional address.
    Router(String),
    /// A namespace, through this router.
    Namespace {
        namespace: String,
        router: String,
        /// The first claimant, for messages.
        first: ObjectKey,
    },
}

/// Ports of one protocol that a VirtualService takes on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortClaim {
    claimant: ObjectKey,
    protocol: Protocol,
    port: u16,
    end_port: u16,
    by_mark: bool,
}

impl PortClaim {
    /// Whether both would take the same packets. IPVS looks for the exact port before the
    /// catch-all port 0 (net/netfilter/ipvs/ip_vs_ctl.c, `ip_vs_service_find`), so those two live
    /// together; a firewall mark is looked at before both, so a marked catch-all takes all.
    fn overlaps(&self, other: &Self) -> bool {
        if self.protocol != other.protocol {
            return false;
        }
        match (self.port == 0, other.port == 0) {
            (true, true) => true,
            (true, false) => self.by_mark,
            (false, true) => other.by_mark,
            (false, false) => self.port <= other.end_port && other.port <= self.end_port,
        }
    }
}

/// An address a VirtualService may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedAddress {
    /// The address.
    pub address: IpAddr,
    /// Pool it lies in.
    pub pool_name: String,
    /// Devices of the pool.
    pub devices: Vec<String>,
    /// Indices into `spec.ports` that it serves there.
    pub ports: BTreeSet<usize>,
}

/// What one VirtualService gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// Addresses in order.
    pub addresses: Vec<AcceptedAddress>,
    /// What was refused.
    pub problems: Vec<Verdict>,
}

impl Tenure {
    /// For status.
    pub fn assigned(&self) -> Vec<AssignedAddress> {
        self.addresses
            .iter()
            .map(|accepted| AssignedAddress {
                address: accepted.address.to_string(),
                address_pool_name: accepted.pool_name.clone(),
            })
            .collect()
    }
}

/// The result for the whole cluster.
#[derive(Clone, Debug, Default)]
pub struct Tenancy {
    /// By VirtualService; exactly those that were asked for.
    pub services: BTreeMap<ObjectKey, Tenure>,
    /// Additional and source addresses that a router may not have, by router.
    pub refused_additional: BTreeMap<String, BTreeMap<IpAddr, Verdict>>,
    /// Every address in use, frozen ones included.
    pub virtual_addresses: BTreeSet<IpAddr>,
}

/// A VirtualService that takes part, its router and its namespace's labels.
pub struct Claimant<'a> {
    /// The object; its spec can be read.
    pub service: &'a VirtualServiceObject,
    /// Ports of its spec.
    pub ports: &'a [ServicePort],
    /// Its router.
    pub router: &'a Router<'a>,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Plans stored for it.
    pub plans: Vec<&'a NodePlanSpec>,
}

struct Claims<'a> {
    inputs: &'a Inputs,
    /// Real servers of plans that stay as they are, with whose they are: as virtual addresses they would contradict those plans.
    frozen_real_servers: BTreeMap<IpAddr, ObjectKey>,
    owners: BTreeMap<IpAddr, Owner>,
    ports: BTreeMap<IpAddr, Vec<PortClaim>>,
}

/// One that claims addresses, in the order of age.
enum Turn<'b, 'a> {
    Router(&'b Router<'b>),
    Service(&'b Claimant<'a>),
}

/// Decides every claim. `frozen` are stored plans that stay as they are whatever happens: what
/// they hold is taken first.
pub fn decide<'a>(
    inputs: &'a Inputs,
    routers: &Routers<'_>,
    claimants: &[Claimant<'a>],
    frozen: &[&NodePlanSpec],
) -> Tenancy {
    let mut claims = Claims {
        inputs,
        frozen_real_servers: BTreeMap::new(),
        owners: BTreeMap::new(),
        ports: BTreeMap::new(),
    };
    for plan in frozen {
        claims.take_frozen(plan);
    }
    let mut tenancy = Tenancy::default();

    let mut turns: Vec<_> = routers
        .decoded
        .values()
        .map(|router| (router.meta.age(), Turn::Router(router)))
        .collect();
    turns.extend(
        claimants
            .iter()
            .map(|claimant| (claimant.service.meta.age(), Turn::Service(claimant))),
    );
    turns.sort_by_key(|(age, _)| *age);

    for (_, turn) in &turns {
        match turn {
            Turn::Router(router) => {
                let refused = claims.take_additional(router);
                tenancy
                    .refused_additional
                    .insert(router.meta.key.name.clone(), refused);
            }
            Turn::Service(claimant) => {
                let tenure = claims.take_known(claimant);
                tenancy
                    .services
                    .insert(claimant.service.meta.key.clone(), tenure);
            }
        }
    }
    for (_, turn) in &turns {
        let Turn::Service(claimant) = turn else {
            continue;
        };
        if let Some(tenure) = tenancy.services.get_mut(&claimant.service.meta.key) {
            claims.allocate_missing(claimant, tenure);
        }
    }
    tenancy.virtual_addresses = claims.owners.into_keys().collect();
    tenancy
}

impl Claims<'_> {
    /// What a stored plan holds, without asking.
    fn take_frozen(&mut self, plan: &NodePlanSpec) {
        let Some(director) = plan
            .director
            .as_ref()
            .filter(|_| plan.state != PlanState::Withdrawn)
        else {
            return;
        };
        let source = ObjectKey::new(plan.source.namespace.clone(), plan.source.name.clone());
        for real_server in director
            .services
            .iter()
            .flat_map(|service| &service.real_servers)
        {
            self.frozen_real_servers
                .entry(real_server.address)
                .or_insert_with(|| source.clone());
        }
        for planned in &director.addresses {
            let owner = match plan.source.kind {
                SourceKind::VirtualRouter => Owner::Router(plan.source.name.clone()),
                SourceKind::VirtualService => Owner::Namespace {
                    namespace: plan.source.namespace.clone(),
                    router: plan.virtual_router_name.clone(),
                    first: source.clone(),
                },
            };
            self.owners.entry(planned.address).or_insert(owner);
        }
        let by_address = director
            .services
            .iter()
            .filter_map(|service| service.address.as_ref())
            .map(|served| {
                (
                    served.address,
                    served.protocol,
                    served.port,
                    served.end_port,
                    false,
                )
            });
        let by_mark = director
            .firewall_marks
            .iter()
            .flat_map(|mark| &mark.matches)
            .map(|matched| {
                (
                    matched.address,
                    matched.protocol,
                    matched.port,
                    matched.end_port,
                    true,
                )
            });
        for (address, protocol, port, end_port, by_mark) in by_address.chain(by_mark) {
            let claim = PortClaim {
                claimant: source.clone(),
                protocol,
                port,
                end_port,
                by_mark,
            };
            let claims = self.ports.entry(address).or_default();
            if !claims.contains(&claim) {
                claims.push(claim);
            }
        }
    }

    fn take_additional(&mut self, router: &Router<'_>) -> BTreeMap<IpAddr, Verdict> {
        let name = &router.meta.key.name;
        let mut refused = BTreeMap::new();
        let additional = router.additional_addresses.iter();
        let additional = additional.map(|planned| (planned, "additionalAddresses"));
        let source = router.source_addresses.iter();
        let source = source.map(|planned| (planned, "addressPools, purpose SourceNAT"));
        for (planned, list) in additional.chain(source) {
            let field = format!("spec.{list}[{}]", planned.address);
            if let Some(why) = self.reserved(&planned.address) {
                refused.insert(
                    planned.address,
                    not_permitted(&format!("{field}: {why}: use another address")),
                );
                continue;
            }
            match self.owners.get(&planned.address) {
                None => {
                    self.owners
                        .insert(planned.address, Owner::Router(name.clone()));
                }
                Some(Owner::Router(owner)) if owner == name => {}
                Some(owner) => {
                    let holder = match owner {
                        Owner::Router(owner) => format!("VirtualRouter {owner}"),
                        Owner::Namespace { first, .. } => format!("VirtualService {first}"),
                    };
                    let message =
                        format!("{field}: {holder} is older and holds it: use another address");
                    refused.insert(planned.address, in_use(message));
                }
            }
        }
        refused
    }

    /// Explicit addresses, or those that plans or status remember.
    fn take_known(&mut self, claimant: &Claimant<'_>) -> Tenure {
        let mut tenure = Tenure::default();
        let Some(spec) = claimant.service.spec() else {
            return tenure;
        };
        if spec.addresses.is_empty() {
            for address in remembered(claimant) {
                // What was allocated once and is no longer permitted, or lost to an older claim,
                // is given up silently: another one is allocated.
                if self
                    .pool_of(claimant, &address, spec.address_pool_name.as_deref())
                    .is_ok()
                {
                    let mut attempt = Tenure::default();
                    self.take(claimant, address, &mut attempt);
                    if !attempt.addresses.is_empty() {
                        tenure.addresses.append(&mut attempt.addresses);
                        tenure.problems.append(&mut attempt.problems);
                    }
                }
            }
            return tenure;
        }
        let explicit: BTreeSet<_> = spec
            .addresses
            .iter()
            .filter_map(|text| parse_address(text))
            .collect();
        for address in explicit {
            self.take(claimant, address, &mut tenure);
        }
        tenure
    }

    /// One address for one VirtualService: permission, then ownership, then ports.
    fn take(&mut self, claimant: &Claimant<'_>, address: IpAddr, tenure: &mut Tenure) {
        let key = &claimant.service.meta.key;
        let router_name = &claimant.router.meta.key.name;
        let pool = match self.pool_of(claimant, &address, None) {
            Ok(pool) => pool,
            Err(verdict) => return tenure.problems.push(verdict),
        };
        match self.owners.get(&address) {
            None => {}
            Some(Owner::Namespace {
                namespace, router, ..
            }) if *namespace == key.namespace && router == router_name => {}
            Some(owner) => {
                let message = match owner {
                    Owner::Router(name) => {
                        format!("VirtualRouter {name} holds it as additional or source address")
                    }
                    // Another tenant's names are not this tenant's business.
                    Owner::Namespace { namespace, .. } if *namespace != key.namespace => {
                        "an older VirtualService of another namespace holds it".to_owned()
                    }
                    Owner::Namespace { router, first, .. } => {
                        format!(
                            "the older VirtualService {first} holds it through VirtualRouter {router}"
                        )
                    }
                };
                return tenure.problems.push(in_use(format!(
                    "address {address}: {message}: use another address"
                )));
            }
        }
        let by_mark = claimant
            .service
            .spec()
            .is_some_and(|spec| spec.grouping == Grouping::FirewallMark);
        let held = self.ports.entry(address).or_default();
        let mut ports = BTreeSet::new();
        for (index, port) in claimant.ports.iter().enumerate() {
            let claim = PortClaim {
                claimant: key.clone(),
                protocol: port.protocol,
                port: port.port,
                end_port: port.end_port.unwrap_or(port.port),
                by_mark,
            };
            if let Some(older) = held.iter().find(|held| held.overlaps(&claim)) {
                let holder = if older.claimant == *key {
                    "this VirtualService already has it by another entry of spec.ports".to_owned()
                } else {
                    format!("the older VirtualService {} has it", older.claimant)
                };
                let port = crate::status::port_text(port);
                tenure.problems.push(in_use(format!(
                    "address {address}, port {port}: {holder}: use another address or port"
                )));
            } else {
                held.push(claim);
                ports.insert(index);
            }
        }
        if ports.is_empty() {
            return;
        }
        self.owners
            .entry(address)
            .or_insert_with(|| Owner::Namespace {
                namespace: key.namespace.clone(),
                router: router_name.clone(),
                first: key.clone(),
            });
        tenure.addresses.push(AcceptedAddress {
            address,
            pool_name: pool.name.clone(),
            devices: pool.devices.clone(),
            ports,
        });
    }

    /// The granted pool that holds the address.
    fn pool_of<'b>(
        &self,
        claimant: &'b Claimant<'_>,
        address: &IpAddr,
        only: Option<&str>,
    ) -> Result<&'b Pool, Verdict> {
        if let Some(why) = self.reserved(address) {
            return Err(not_permitted(&format!(
                "spec.addresses: {address} {why}: use another address"
            )));
        }
        let pools = granted_pools(claimant);
        let named = pools
            .iter()
            .filter(|pool| only.is_none_or(|only| only == pool.name));
        named.into_iter().find(|pool| pool.contains(address)).copied().ok_or_else(|| {
            not_permitted(&format!(
                "spec.addresses: {address} lies in no pool of VirtualRouter {} granted to namespace {}; {}",
                claimant.router.meta.key.name,
                claimant.service.meta.key.namespace,
                granted(&pools)
            ))
        })
    }

    /// Why nobody may have the address.
    fn reserved(&self, address: &IpAddr) -> Option<String> {
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Some("is a loopback, unspecified or multicast address".to_owned());
        }
        if let Some(node) = self
            .inputs
            .nodes
            .values()
            .find(|node| node.addresses.contains(address))
        {
            return Some(format!("is an address of node {}", node.name));
        }
        if let Some(source) = self.frozen_real_servers.get(address) {
            return Some(format!(
                "is a real server of VirtualService {source}, which stays as it is for the time being"
            ));
        }
        if self.inputs.api_endpoints.contains(address) {
            return Some("is an address of an API server".to_owned());
        }
        let in_services = self
            .inputs
            .service_cidrs
            .iter()
            .any(|range| range.contains(address));
        in_services.then(|| "lies in the cluster's network of Services".to_owned())
    }

    /// Fresh addresses for the families that have none.
    fn allocate_missing(&mut self, claimant: &Claimant<'_>, tenure: &mut Tenure) {
        let Some(spec) = claimant
            .service
            .spec()
            .filter(|spec| spec.addresses.is_empty())
        else {
            return;
        };
        for family in families(&spec.address_families) {
            if tenure
                .addresses
                .iter()
                .any(|accepted| AddressFamily::of(&accepted.address) == family)
            {
                continue;
            }
            let granted_pools = granted_pools(claimant);
            let candidates: Vec<_> = match spec.address_pool_name.as_deref() {
                Some(name) => granted_pools
                    .iter()
                    .copied()
                    .filter(|pool| pool.name == name)
                    .collect(),
                None => granted_pools
                    .iter()
                    .copied()
                    .filter(|pool| pool.is_automatic)
                    .collect(),
            };
            if candidates.is_empty() {
                let wanted = spec.address_pool_name.as_ref().map_or_else(
                    || "spec.addresses is unset and no pool with assignment Automatic".to_owned(),
                    |name| format!("spec.addressPoolName: no pool {name}"),
                );
                tenure.problems.push(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::AddressPoolNotPermitted,
                    format!(
                        "{wanted} of VirtualRouter {} is granted to namespace {}; {}",
                        claimant.router.meta.key.name,
                        claimant.service.meta.key.namespace,
                        granted(&granted_pools)
                    ),
                ));
                continue;
            }
            let is_free = |address: &IpAddr| {
                !self.owners.contains_key(address) && self.reserved(address).is_none()
            };
            let found = candidates.iter().find_map(|pool| {
                let ranges = pool.ranges.iter().filter(|range| range.family() == family);
                ranges
                    .into_iter()
                    .find_map(|range| range.first_free(is_free))
            });
            match found {
                Some(address) => self.take(claimant, address, tenure),
                None => tenure.problems.push(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::AddressPoolExhausted,
                    format!(
                        "no free {family:?} address is left in {} of VirtualRouter {}: enlarge a pool or delete a \
                         VirtualService",
                        names(&candidates),
                        claimant.router.meta.key.name
                    ),
                )),
            }
        }
        tenure.addresses.sort_by_key(|accepted| accepted.address);
    }
}

/// Pools of virtual addresses that a VirtualService may use.
fn granted_pools<'b>(claimant: &'b Claimant<'_>) -> Vec<&'b Pool> {
    let labels = claimant.namespace_labels;
    claimant
        .router
        .granted_pools(labels, PoolPurpose::VirtualAddress)
}

/// One address per wanted family that the VirtualService had before.
fn remembered(claimant: &Claimant<'_>) -> Vec<IpAddr> {
    let planned = claimant.plans.iter().flat_map(|plan| {
        plan.director
            .iter()
            .flat_map(|director| &director.addresses)
    });
    let planned: BTreeSet<_> = planned.map(|planned| planned.address).collect();
    let status = claimant
        .service
        .status
        .iter()
        .flat_map(|status| &status.addresses);
    let reported: BTreeSet<_> = status
        .filter_map(|assigned| parse_address(&assigned.address))
        .collect();
    let wanted = claimant
        .service
        .spec()
        .map(|spec| families(&spec.address_families))
        .unwrap_or_default();
    let first = |family| {
        let of_family = |address: &&IpAddr| AddressFamily::of(address) == family;
        planned
            .iter()
            .find(of_family)
            .or_else(|| reported.iter().find(of_family))
            .copied()
    };
    wanted.into_iter().filter_map(first).collect()
}

fn families(wanted: &[AddressFamily]) -> BTreeSet<AddressFamily> {
    if wanted.is_empty() {
        BTreeSet::from([AddressFamily::IPv4])
    } else {
        wanted.iter().copied().collect()
    }
}

fn names(pools: &[&Pool]) -> String {
    let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
    format!("pool {}", names.join(", "))
}

fn granted(pools: &[&Pool]) -> String {
    if pools.is_empty() {
        "no pool is granted to it: ask the administrator for an entry in the router's spec.grants"
            .to_owned()
    } else {
        let texts: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
        format!("granted are: {}", texts.join(", "))
    }
}

fn not_permitted(message: &str) -> Verdict {
    Verdict::bad(
        ConditionType::Accepted,
        Reason::AddressNotPermitted,
        message,
    )
}

fn in_use(message: String) -> Verdict {
    Verdict::bad(ConditionType::Accepted, Reason::AddressInUse, message)
}
