//! Nodes that stay prepared while connections to them drain: a real server that has left is still sent packets until the
//! director that holds the addresses has let go of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::lease_name;
use lvs_crds::node_plan::{DirectorPlan, SourceKind};

use crate::input::{Inputs, VirtualServiceObject};
use crate::name::plan_name;

/// A destination: the name of its port, its address and its port there.
type Slot<'a> = (Option<&'a str>, IpAddr, u16);

/// Whether real servers of a VirtualService may have left and still drain on the director that holds its addresses, given
/// its director part as it shall be. It has not answered for that, or says that it still drains some.
pub fn is_under_way(
    inputs: &Inputs,
    object: &VirtualServiceObject,
    spec: &VirtualServiceSpec,
    router_name: &str,
    wanted: &DirectorPlan,
) -> bool {
    if spec.drain.is_none() {
        return false;
    }
    let lease = inputs.leases.get(&lease_name(router_name));
    let Some(holder) = lease.and_then(|lease| lease.holder_node.as_deref()) else {
        return false;
    };
    let name = plan_name(SourceKind::VirtualService, holder, &object.meta.uid);
    let Some(plan) = inputs.node_plans.get(&name) else {
        return false;
    };
    let Some(stored) = plan.object.spec().and_then(|spec| spec.director.as_ref()) else {
        return false;
    };
    let (before, after) = (destinations(stored), destinations(wanted));
    let status = plan.object.status.iter();
    let mut seen = status.flat_map(|status| &status.real_servers);
    !plan.is_acknowledged()
        || !before.is_subset(&after)
        || seen.any(|one| !before.contains(&(one.port_name.as_deref(), one.address, one.port)))
}

fn destinations(director: &DirectorPlan) -> BTreeSet<Slot<'_>> {
    let services = director.services.iter();
    services
        .flat_map(|service| {
            let real_servers = service.real_servers.iter();
            real_servers.map(|one| (service.port_name.as_deref(), one.address, one.port))
        })
        .collect()
}
