//! Who holds which address and port, and what one who asks for one gets or is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, SourceKind};
use lvs_crds::value::Protocol;
use lvs_crds::virtual_router::PoolPurpose;
use lvs_crds::virtual_service::Grouping;

use super::allocation::remembered;
use super::{AcceptedAddress, Claimant, Tenure};
use crate::address_range::parse_address;
use crate::input::{Inputs, ObjectKey};
use crate::report::Verdict;
use crate::router::{Pool, Router};

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

/// What has been taken so far.
pub(super) struct Claims<'a> {
    inputs: &'a Inputs,
    /// Real servers of plans that stay as they are, with whose they are: as virtual addresses they would contradict those plans.
    frozen_real_servers: BTreeMap<IpAddr, ObjectKey>,
    owners: BTreeMap<IpAddr, Owner>,
    ports: BTreeMap<IpAddr, Vec<PortClaim>>,
}

impl<'a> Claims<'a> {
    /// Nobody has anything yet.
    pub(super) const fn new(inputs: &'a Inputs) -> Self {
        Self {
            inputs,
            frozen_real_servers: BTreeMap::new(),
            owners: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Every address that somebody has.
    pub(super) fn into_addresses(self) -> BTreeSet<IpAddr> {
        self.owners.into_keys().collect()
    }

    /// Whether an address may be given to one who asks for any.
    pub(super) fn is_free(&self, address: &IpAddr) -> bool {
        !self.owners.contains_key(address) && self.reserved(address).is_none()
    }

    /// What a stored plan holds, without asking.
    pub(super) fn take_frozen(&mut self, plan: &NodePlanSpec) {
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

    pub(super) fn take_additional(&mut self, router: &Router<'_>) -> BTreeMap<IpAddr, Verdict> {
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
    pub(super) fn take_known(&mut self, claimant: &Claimant<'_>) -> Tenure {
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
    pub(super) fn take(&mut self, claimant: &Claimant<'_>, address: IpAddr, tenure: &mut Tenure) {
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
}

/// Pools of virtual addresses that a VirtualService may use.
pub(super) fn granted_pools<'b>(claimant: &'b Claimant<'_>) -> Vec<&'b Pool> {
    let labels = claimant.namespace_labels;
    claimant
        .router
        .granted_pools(labels, PoolPurpose::VirtualAddress)
}

pub(super) fn granted(pools: &[&Pool]) -> String {
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
