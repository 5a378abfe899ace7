//! VirtualRouters: their directors, pools and grants, and which VirtualService uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualRouterSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::connection_sync::PlannedConnectionSync;
use lvs_crds::node_plan::PlannedAddress;
use lvs_crds::virtual_router::{Assignment, Grant, NamespacesFrom, PoolPurpose, RealServerNodes};
use lvs_crds::{HAND_OVER_ANNOTATION, IS_DEFAULT_ROUTER_ANNOTATION};

use crate::address_range::{AddressRange, parse_address};
use crate::connection_sync;
use crate::input::{EXCLUDE_LABEL, Inputs, Meta, Node, VirtualServiceObject};
use crate::report::{Verdict, summarise};
use crate::selector;
use crate::virtual_mac;

/// Priority of directors that no entry names (RFC 9568 §5.2.4: the default of a backup).
const DEFAULT_PRIORITY: u8 = 100;
/// Source addresses of a router. Its master holds and announces every one of them; 64 give 4 million connections at once
/// to one port of one real server.
const SOURCE_ADDRESSES_MAXIMUM: usize = 64;

/// A router whose spec can be read.
#[derive(Clone, Debug)]
pub struct Router<'a> {
    /// Identity.
    pub meta: &'a Meta,
    /// Spec.
    pub spec: &'a VirtualRouterSpec,
    /// Nodes that shall direct and their priorities.
    pub directors: BTreeMap<String, u8>,
    /// Nodes that `directors` names and the cluster does not have.
    pub missing_directors: BTreeSet<String>,
    /// Pools with their addresses read.
    pub pools: Vec<Pool>,
    /// Addresses that move with the router by themselves; tenancy may refuse some.
    pub additional_addresses: Vec<PlannedAddress>,
    /// Addresses of pools with purpose SourceNAT, which move with the router, too; tenancy may refuse some.
    pub source_addresses: Vec<PlannedAddress>,
    /// Director that is to get the addresses, once it is ready; none = nobody, or it had them since.
    pub hand_over_to: Option<String>,
    /// VRID whose virtual MAC the addresses get; none when it is not asked for, or an older router has it.
    pub virtual_router_id: Option<u8>,
    /// How connections survive a takeover; `None` = they do not.
    pub connection_sync: Option<PlannedConnectionSync>,
    /// What is wrong with the router.
    pub problems: Vec<Verdict>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// Addresses.
    pub ranges: Vec<AddressRange>,
    /// Devices of its logical interface.
    pub devices: Vec<String>,
    /// Whether addresses are allocated from it.
    pub is_automatic: bool,
    /// What its addresses are for.
    pub purpose: PoolPurpose,
}

impl Pool {
    /// Whether the address lies in the pool.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

/// What a namespace may aim real servers and judges at, through one router.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetGrant {
    /// Networks for hosts that are no nodes.
    pub networks: Vec<AddressRange>,
    /// Whether cluster nodes may be named.
    pub nodes: bool,
    /// Networks of judges that health checks may name.
    pub judges: Vec<AddressRange>,
}

/// Every router.
#[derive(Clone, Debug, Default)]
pub struct Routers<'a> {
    /// Routers that can be read.
    pub decoded: BTreeMap<String, Router<'a>>,
    /// Routers that cannot, or that contradict themselves: everything of theirs stays as it is.
    pub frozen: BTreeMap<String, Verdict>,
    /// The default router.
    pub default: Option<String>,
}

/// Which router a VirtualService uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// This router, which can be read.
    Router(String),
    /// A router that cannot be read: the VirtualService keeps what it has.
    Frozen(String),
    /// None.
    Refused(Verdict),
}

/// Reads every router.
pub fn read(inputs: &Inputs) -> Routers<'_> {
    let mut routers = Routers::default();
    let mut defaults = Vec::new();
    for (name, object) in &inputs.virtual_routers {
        if object.meta.deleting {
            continue;
        }
        match &object.body {
            crate::input::Body::Undecodable(error) => {
                routers.frozen.insert(name.clone(), undecodable(error));
            }
            crate::input::Body::Decoded(spec) => {
                let handed_over_to = object
                    .status
                    .as_ref()
                    .and_then(|status| status.handed_over_to.as_deref());
                match read_one(inputs, &object.meta, spec, handed_over_to) {
                    Ok(router) => routers.decoded.insert(name.clone(), router).map(|_| ()),
                    Err(verdict) => routers.frozen.insert(name.clone(), verdict).map(|_| ()),
                };
            }
        }
        if object
            .meta
            .annotations
            .get(IS_DEFAULT_ROUTER_ANNOTATION)
            .is_some_and(|value| value == "true")
        {
            defaults.push((object.meta.age(), name));
        }
    }
    defaults.sort();
    let mut defaults = defaults.into_iter().map(|(_, name)| name);
    routers.default = defaults.next().cloned();
    for name in defaults {
        if let (Some(router), Some(first)) = (routers.decoded.get_mut(name), &routers.default) {
            router.problems.push(Verdict::bad(
                ConditionType::Accepted,
                Reason::DuplicateDefaultRouter,
                format!(
                    "VirtualRouter {first} is older and already the default; this one serves only VirtualServices that \
                     name it: remove annotation {IS_DEFAULT_ROUTER_ANNOTATION} here or there"
                ),
            ));
        }
    }
    virtual_mac::assign(inputs, &mut routers);
    routers
}

/// The verdict on an object that this version cannot read.
pub fn undecodable(error: &str) -> Verdict {
    Verdict::bad(
        ConditionType::Accepted,
        Reason::Undecodable,
        format!(
            "this version of the controller cannot read the object ({error}); what it had keeps working"
        ),
    )
}

fn read_one<'a>(
    inputs: &Inputs,
    meta: &'a Meta,
    spec: &'a VirtualRouterSpec,
    handed_over_to: Option<&str>,
) -> Result<Router<'a>, Verdict> {
    let mut problems = Vec::new();
    let mut invalid = |message: String| {
        problems.push(Verdict::bad(
            ConditionType::Accepted,
            Reason::Invalid,
            message,
        ));
    };
    let devices = |interface_name: Option<&String>,
                   field: &str,
                   invalid: &mut dyn FnMut(String)| {
        let Some(interface_name) = interface_name else {
            return Some(Vec::new());
        };
        let found = spec
            .interfaces
            .iter()
            .find(|interface| interface.name == *interface_name);
        if found.is_none() {
            invalid(format!(
                "{field}.interfaceName {interface_name:?} is not among spec.interfaces: add it there"
            ));
        }
        found.map(|interface| interface.devices.clone())
    };
    let mut pools = Vec::new();
    for pool in &spec.address_pools {
        let field = format!("spec.addressPools[{}]", pool.name);
        let Some(devices) = devices(pool.interface_name.as_ref(), &field, &mut invalid) else {
            continue;
        };
        let mut ranges = Vec::new();
        for text in &pool.addresses {
            match AddressRange::parse(text) {
                Ok(range) => ranges.push(range),
                Err(error) => invalid(format!("{field}.addresses: {error}")),
            }
        }
        let is_automatic = pool.assignment == Assignment::Automatic;
        pools.push(Pool {
            name: pool.name.clone(),
            ranges,
            devices,
            is_automatic,
            purpose: pool.purpose,
        });
    }
    let source_addresses = source_addresses(&pools).unwrap_or_else(|message| {
        invalid(message);
        Vec::new()
    });
    let mut additional_addresses = Vec::new();
    for additional in &spec.additional_addresses {
        let field = format!("spec.additionalAddresses[{}]", additional.address);
        let Some(devices) = devices(additional.interface_name.as_ref(), &field, &mut invalid)
        else {
            continue;
        };
        match parse_address(&additional.address) {
            Some(address) => additional_addresses.push(PlannedAddress { address, devices }),
            None => invalid(format!(
                "{field}: this is no IP address in its plain spelling"
            )),
        }
    }
    for tracked in &spec.tracking.interfaces {
        let name = &tracked.interface_name;
        devices(Some(name), "spec.tracking.interfaces[]", &mut invalid);
    }
    let over = spec.detection.interface_name.as_ref();
    devices(over, "spec.detection", &mut invalid);
    additional_addresses.sort();
    additional_addresses.dedup_by_key(|planned| planned.address);
    for planned in &additional_addresses {
        let mut source = source_addresses.iter();
        if source.any(|source| source.address == planned.address) {
            invalid(format!(
                "spec.additionalAddresses[{}]: this address is in a pool with purpose SourceNAT, too: remove it here or there",
                planned.address
            ));
        }
    }
    for grant in &spec.grants {
        for text in &grant.real_server_cidrs {
            if let Err(error) = AddressRange::parse(text) {
                invalid(format!("spec.grants[].realServerCIDRs: {error}"));
            }
        }
        for text in &grant.external_check_cidrs {
            if let Err(error) = AddressRange::parse(text) {
                invalid(format!("spec.grants[].externalCheckCIDRs: {error}"));
            }
        }
        for name in &grant.address_pool_names {
            if !spec.address_pools.iter().any(|pool| pool.name == *name) {
                invalid(format!(
                    "spec.grants[].addressPoolNames: {name:?} is not among spec.addressPools"
                ));
            }
        }
    }
    let connection_sync = connection_sync::read(spec).unwrap_or_else(|message| {
        invalid(message);
        None
    });
    if !problems.is_empty() {
        let mut verdict = summarise(ConditionType::Accepted, problems, (Reason::Accepted, ""));
        verdict
            .message
            .push_str("; until then everything of this router stays as it is");
        return Err(verdict);
    }
    let (directors, missing_directors) = directors(inputs, spec);
    let wanted = meta.annotations.get(HAND_OVER_ANNOTATION);
    if let Some(node_name) = wanted.filter(|node_name| !directors.contains_key(*node_name)) {
        problems.push(Verdict::bad(
            ConditionType::Accepted,
            Reason::NodeNotFound,
            format!(
                "annotation {HAND_OVER_ANNOTATION} names {node_name:?}, which is no director of this router; its directors are {}: \
                 name one of them, or remove the annotation",
                directors.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
        ));
    }
    let hand_over_to = wanted
        .filter(|node_name| directors.contains_key(*node_name))
        .filter(|node_name| handed_over_to != Some(node_name.as_str()))
        .cloned();
    Ok(Router {
        meta,
        spec,
        directors,
        missing_directors,
        pools,
        additional_addresses,
        source_addresses,
        hand_over_to,
        virtual_router_id: virtual_mac::asked_for(spec),
        connection_sync,
        problems,
    })
}

/// Every address of pools with purpose SourceNAT, or why they are too many.
fn source_addresses(pools: &[Pool]) -> Result<Vec<PlannedAddress>, String> {
    let is_source = |pool: &&Pool| pool.purpose == PoolPurpose::SourceNAT;
    let of_pool = |pool: &Pool| {
        let (devices, ranges) = (pool.devices.clone(), pool.ranges.clone());
        let addresses = ranges.into_iter().flat_map(|range| range.handed_out());
        addresses.map(move |address| PlannedAddress {
            address,
            devices: devices.clone(),
        })
    };
    let sources = pools.iter().filter(is_source).flat_map(of_pool);
    let mut addresses: Vec<PlannedAddress> = sources.take(SOURCE_ADDRESSES_MAXIMUM + 1).collect();
    if addresses.len() > SOURCE_ADDRESSES_MAXIMUM {
        return Err(format!(
            "spec.addressPools: those with purpose SourceNAT have more than {SOURCE_ADDRESSES_MAXIMUM} addresses, each of \
             which the master holds: name fewer"
        ));
    }
    addresses.sort();
    addresses.dedup_by_key(|planned| planned.address);
    Ok(addresses)
}

/// Nodes that shall direct, and named nodes that are not there. First match wins; without
/// entries, every node with an agent.
fn directors(
    inputs: &Inputs,
    spec: &VirtualRouterSpec,
) -> (BTreeMap<String, u8>, BTreeSet<String>) {
    if spec.directors.is_empty() {
        let with_agent = || inputs.nodes.values().filter(|node| node.has_agent);
        let is_excluded = |node: &Node| node.labels.contains_key(EXCLUDE_LABEL);
        let all_are_excluded = with_agent().all(is_excluded);
        let chosen = with_agent().filter(|node| all_are_excluded || !is_excluded(node));
        return (
            chosen
                .map(|node| (node.name.clone(), DEFAULT_PRIORITY))
                .collect(),
            BTreeSet::new(),
        );
    }
    let mut directors = BTreeMap::new();
    for node in inputs.nodes.values() {
        let entry = spec.directors.iter().find(|director| {
            match (&director.node_name, &director.node_selector) {
                (Some(name), None) => *name == node.name,
                (None, Some(selector)) => selector::matches(selector, &node.labels) == Some(true),
                _ => false,
            }
        });
        if let Some(director) = entry {
            directors.insert(node.name.clone(), director.priority);
        }
    }
    let named = spec
        .directors
        .iter()
        .filter_map(|director| director.node_name.clone());
    let missing = named
        .filter(|name| !inputs.nodes.contains_key(name))
        .collect();
    (directors, missing)
}

impl Router<'_> {
    fn grants_of<'b>(
        &'b self,
        namespace_labels: &'b BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'b Grant> {
        self.spec
            .grants
            .iter()
            .filter(move |grant| match grant.namespaces.from {
                NamespacesFrom::All => true,
                NamespacesFrom::Selector => {
                    grant.namespaces.selector.as_ref().is_some_and(|selector| {
                        selector::matches(selector, namespace_labels) == Some(true)
                    })
                }
            })
    }

    /// Pools for one purpose that a namespace may use, in the router's order.
    pub fn granted_pools(
        &self,
        namespace_labels: &BTreeMap<String, String>,
        purpose: PoolPurpose,
    ) -> Vec<&Pool> {
        let names: BTreeSet<_> = self
            .grants_of(namespace_labels)
            .flat_map(|grant| grant.address_pool_names.iter())
            .collect();
        self.pools
            .iter()
            .filter(|pool| pool.purpose == purpose && names.contains(&pool.name))
            .collect()
    }

    /// What a namespace may aim real servers and judges at.
    pub fn granted_targets(&self, namespace_labels: &BTreeMap<String, String>) -> TargetGrant {
        let mut granted = TargetGrant::default();
        let ranges = |texts: &[String]| -> Vec<AddressRange> {
            let ranges = texts.iter().map(|text| AddressRange::parse(text));
            ranges.filter_map(Result::ok).collect()
        };
        for grant in self.grants_of(namespace_labels) {
            granted.networks.extend(ranges(&grant.real_server_cidrs));
            granted.judges.extend(ranges(&grant.external_check_cidrs));
            granted.nodes |= grant.real_server_nodes == RealServerNodes::All;
        }
        granted
    }
}

impl Routers<'_> {
    /// Which router a VirtualService uses: the one it names; else the one that it is planned on
    /// or was reported on, so that a change of the default moves nobody; else the default.
    pub fn choose(&self, service: &VirtualServiceObject, planned_on: Option<&str>) -> Choice {
        let named = service
            .spec()
            .and_then(|spec| spec.virtual_router_name.as_deref());
        if let Some(name) = named {
            return self.find(name).unwrap_or_else(|| {
                Choice::Refused(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::VirtualRouterNotFound,
                    format!(
                        "spec.virtualRouterName: there is no VirtualRouter {name}; {}",
                        self.known("create it, or make this VirtualService again with one of")
                    ),
                ))
            });
        }
        let reported_on = service
            .status
            .as_ref()
            .and_then(|status| status.virtual_router_name.as_deref());
        let sticky = planned_on.or(reported_on).and_then(|name| self.find(name));
        sticky
            .or_else(|| self.default.as_deref().and_then(|name| self.find(name)))
            .unwrap_or_else(|| {
                Choice::Refused(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::NoDefaultRouter,
                    format!(
                        "spec.virtualRouterName is unset and no VirtualRouter has annotation \
                     {IS_DEFAULT_ROUTER_ANNOTATION}=true; {}",
                        self.known("annotate one, or name one of")
                    ),
                ))
            })
    }

    fn find(&self, name: &str) -> Option<Choice> {
        if self.decoded.contains_key(name) {
            Some(Choice::Router(name.to_owned()))
        } else if self.frozen.contains_key(name) {
            Some(Choice::Frozen(name.to_owned()))
        } else {
            None
        }
    }

    fn known(&self, cure: &str) -> String {
        let mut names: Vec<_> = self
            .decoded
            .keys()
            .chain(self.frozen.keys())
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        if names.is_empty() {
            "there is no VirtualRouter at all: create one".to_owned()
        } else {
            format!("{cure}: {}", names.join(", "))
        }
    }
}
