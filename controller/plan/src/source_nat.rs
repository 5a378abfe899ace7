//! Addresses that real servers see instead of their clients', with forwarding type FullNAT.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{DirectorPlan, PlannedAddress, PlannedService, PlannedSourceAddressPool};
use lvs_crds::value::{AddressFamily, Forwarding, ForwardingType, PacketScheduling};
use lvs_crds::virtual_router::PoolPurpose;
use lvs_crds::virtual_service::{Grouping, Marking};

use crate::report::Verdict;
use crate::router::Router;
use crate::target::{Context, Target};
use crate::tenancy::AcceptedAddress;

/// Source addresses that a namespace may use through its router, by pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources<'a> {
    pools: BTreeMap<&'a str, Vec<IpAddr>>,
}

impl<'a> Sources<'a> {
    /// Of the pools granted to a namespace, the addresses that the router holds.
    pub fn granted(
        router: &'a Router<'_>,
        namespace_labels: &BTreeMap<String, String>,
        held: &[PlannedAddress],
    ) -> Self {
        let pools = router.granted_pools(namespace_labels, PoolPurpose::SourceNAT);
        let of_pool = |pool: &'a crate::router::Pool| {
            let held = held.iter().map(|planned| planned.address);
            let addresses = held.filter(|address| pool.contains(address)).collect();
            (pool.name.as_str(), addresses)
        };
        Self {
            pools: pools.into_iter().map(of_pool).collect(),
        }
    }

    fn of(&self, forwarding: &Forwarding) -> Option<&[IpAddr]> {
        let pool_name = &forwarding.full_nat.as_ref()?.source_address_pool_name;
        self.pools.get(pool_name.as_str()).map(Vec::as_slice)
    }

    fn has(&self, forwarding: &Forwarding, address: IpAddr) -> bool {
        let mut sources = self.of(forwarding).into_iter().flatten();
        sources.any(|source| AddressFamily::of(source) == AddressFamily::of(&address))
    }
}

/// Families that the pool of a FullNAT forwarding has addresses of, or why it cannot be carried out; `None` for every
/// other forwarding. `field` is that of the forwarding.
pub fn families(
    context: &Context<'_>,
    forwarding: &Forwarding,
    field: &str,
) -> Result<Option<BTreeSet<AddressFamily>>, Verdict> {
    if forwarding.type_ != ForwardingType::FullNAT {
        return Ok(None);
    }
    if let Err(why) = suits(context.spec) {
        return Err(Verdict::bad(
            ConditionType::Accepted,
            Reason::PortNotPermitted,
            format!(
                "{field}.type FullNAT: VirtualService {} has {why}",
                context.key.name
            ),
        ));
    }
    let sources = &context.sources;
    match sources.of(forwarding) {
        Some(addresses) => Ok(Some(addresses.iter().map(AddressFamily::of).collect())),
        None => Err(Verdict::bad(
            ConditionType::Accepted,
            Reason::AddressPoolNotPermitted,
            format!(
                "{field}.fullNAT.sourceAddressPoolName: no pool {} with purpose SourceNAT of VirtualRouter {} is granted to \
                 namespace {}; {}",
                pool_name(forwarding),
                context.router_name,
                context.key.namespace,
                sources.granted_are()
            ),
        )),
    }
}

impl Sources<'_> {
    fn granted_are(&self) -> String {
        if self.pools.is_empty() {
            return "no such pool is granted to it: ask the administrator for one in the router's spec.addressPools and \
                    spec.grants"
                .to_owned();
        }
        let names: Vec<&str> = self.pools.keys().copied().collect();
        format!("granted are: {}", names.join(", "))
    }
}

/// Whether a VirtualService can be translated so, or what stands against it.
pub fn suits(spec: &VirtualServiceSpec) -> Result<(), &'static str> {
    if spec.packet_scheduling == PacketScheduling::OnePacket {
        return Err(
            "packetScheduling OnePacket, without connections by which replies find their client: use forwarding type NAT",
        );
    }
    let marking = spec.firewall_mark.as_ref().map(|mark| mark.marking);
    if spec.grouping == Grouping::FirewallMark && marking == Some(Marking::External) {
        return Err(
            "firewallMark.marking External, so that directors do not know which packets are marked: use forwarding type \
             NAT, or marking Managed",
        );
    }
    Ok(())
}

/// That the pool has no address of the family.
pub fn no_address(
    context: &Context<'_>,
    forwarding: &Forwarding,
    field: &str,
    address: &IpAddr,
) -> Verdict {
    let family = AddressFamily::of(address);
    Verdict::bad(
        ConditionType::Accepted,
        Reason::AddressFamilyMismatch,
        format!(
            "{field}.fullNAT.sourceAddressPoolName: pool {} of VirtualRouter {} has no {family:?} address that could stand \
             for the clients of {address}: add one to its spec.addressPools",
            pool_name(forwarding),
            context.router_name
        ),
    )
}

fn pool_name(forwarding: &Forwarding) -> &str {
    let full_nat = forwarding.full_nat.as_ref();
    full_nat.map_or("", |full_nat| full_nat.source_address_pool_name.as_str())
}

/// What stands against the forwarding of a VirtualService itself, for one of its addresses after the other.
pub fn obstacles(context: &Context<'_>, addresses: &[AcceptedAddress]) -> Vec<Verdict> {
    let (forwarding, field) = (&context.spec.forwarding, "spec.forwarding");
    match families(context, forwarding, field) {
        Err(verdict) => vec![verdict],
        Ok(None) => Vec::new(),
        Ok(Some(families)) => {
            let missing = addresses
                .iter()
                .map(|accepted| accepted.address)
                .filter(|address| !families.contains(&AddressFamily::of(address)));
            missing
                .map(|address| no_address(context, forwarding, field, &address))
                .collect()
        }
    }
}

/// Leaves a real server the addresses of those families for which there is a source address, if it needs one.
pub fn restrict(context: &Context<'_>, target: &mut Target) -> Result<(), Verdict> {
    let field = "spec.forwarding";
    let families = match families(context, &target.forwarding, field) {
        Ok(None) => return Ok(()),
        Ok(Some(families)) => families,
        Err(verdict) => {
            target.addresses.clear();
            return Err(verdict);
        }
    };
    let is_possible = |address: &IpAddr| families.contains(&AddressFamily::of(address));
    let first = target
        .addresses
        .iter()
        .find(|address| !is_possible(address));
    let missing = first.map(|address| no_address(context, &target.forwarding, field, address));
    target.addresses.retain(is_possible);
    missing.map_or(Ok(()), Err)
}

/// Adds the source addresses that the services of a plan need, and takes out who would need one that there is not: a
/// real server that cannot be read and is kept may name a pool that is gone.
pub fn add(plan: &mut DirectorPlan, sources: &Sources<'_>) {
    let is_full_nat = |forwarding: &Forwarding| forwarding.type_ == ForwardingType::FullNAT;
    let can = |forwarding: &Forwarding, address: IpAddr| {
        !is_full_nat(forwarding) || sources.has(forwarding, address)
    };
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for service in &mut plan.services {
        service
            .real_servers
            .retain(|real_server| can(&real_server.forwarding, real_server.address));
    }
    for forwarding in plan.services.iter().flat_map(forwardings) {
        if is_full_nat(forwarding) {
            used.insert(pool_name(forwarding));
        }
    }
    let pools = sources.pools.iter();
    let pools = pools.filter(|(name, _)| used.contains(*name));
    let pools: Vec<PlannedSourceAddressPool> = pools
        .map(|(name, addresses)| PlannedSourceAddressPool {
            name: (*name).to_owned(),
            addresses: addresses.clone(),
        })
        .collect();
    plan.source_address_pools = pools;
}

fn forwardings(service: &PlannedService) -> impl Iterator<Item = &Forwarding> {
    let real_servers = service.real_servers.iter();
    let real_servers = real_servers.map(|real_server| &real_server.forwarding);
    let sorry_server = service.sorry_server.iter();
    real_servers.chain(sorry_server.map(|sorry_server| &sorry_server.forwarding))
}
