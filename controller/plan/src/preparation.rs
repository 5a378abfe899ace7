//! No packets for a node that is not prepared yet: without the address, or without the way back,
//! it would refuse or lose them.
//!
//! A destination on a cluster node begins with weight 0 on every director and gets its own weight
//! once the node has programmed its real-server part. From then on it keeps it: later
//! edits, a silent agent and a failed repair are no reason to take a working real server out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::node_plan::{
    DirectorPlan, NodePlanSpec, RealServerPlan, ServiceAddress, ServiceFirewallMark, SourceKind,
};

use crate::input::{Inputs, VirtualServiceObject};
use crate::name::plan_name;
use crate::report;
use crate::service;
use crate::target::Targets;

/// A destination: its service, and its address and port there.
type Slot<'a> = (
    Option<&'a ServiceAddress>,
    Option<&'a ServiceFirewallMark>,
    IpAddr,
    u16,
);

/// What decides about the preparation of one VirtualService's real servers.
pub struct Work<'a> {
    /// The cluster.
    pub inputs: &'a Inputs,
    /// The VirtualService.
    pub object: &'a VirtualServiceObject,
    /// Its real servers.
    pub targets: &'a Targets,
    /// Its real-server parts as they shall be, by node.
    pub real_servers: &'a BTreeMap<String, RealServerPlan>,
    /// Its plans as stored.
    pub stored: &'a [&'a NodePlanSpec],
}

/// Sets weight 0 for destinations of nodes that have not yet programmed what `real_servers` asks.
pub fn withhold(director: &mut DirectorPlan, work: &Work<'_>) {
    let unprepared = work.unprepared();
    if unprepared.is_empty() || work.has_lost_its_plans() {
        return;
    }
    let in_use = work.in_use();
    for service in &mut director.services {
        let (address, mark) = (service.address.as_ref(), service.firewall_mark.as_ref());
        for destination in &mut service.real_servers {
            let slot = (address, mark, destination.address, destination.port);
            if unprepared.contains(destination.name.as_str()) && !in_use.contains(&slot) {
                destination.weight = 0;
            }
        }
    }
}

impl<'a> Work<'a> {
    /// Real servers, by name, whose nodes are not prepared.
    fn unprepared(&self) -> BTreeSet<&'a str> {
        let parts = self.real_servers.iter();
        let nodes: BTreeSet<&str> = parts
            .filter(|(node, wanted)| !self.is_prepared(node, wanted))
            .map(|(node, _)| node.as_str())
            .collect();
        let targets = self.targets.targets.iter();
        targets
            .filter(|target| {
                let node = target.node_name.as_deref();
                node.is_some_and(|node| nodes.contains(node))
            })
            .map(|target| target.name.as_str())
            .collect()
    }

    fn is_prepared(&self, node: &str, wanted: &RealServerPlan) -> bool {
        let name = plan_name(SourceKind::VirtualService, node, &self.object.meta.uid);
        let holds = |spec: &NodePlanSpec| spec.real_server.as_ref() == Some(wanted);
        let plan = self.inputs.node_plans.get(&name);
        plan.is_some_and(|plan| plan.object.spec().is_some_and(holds) && plan.is_programmed())
    }

    /// Destinations that some director was told to send to.
    fn in_use(&self) -> BTreeSet<Slot<'a>> {
        service::stored_services(self.stored)
            .flat_map(|service| {
                let weighted = service.real_servers.iter().filter(|d| d.weight > 0);
                weighted.map(|d| {
                    let (address, mark) = (&service.address, &service.firewall_mark);
                    (address.as_ref(), mark.as_ref(), d.address, d.port)
                })
            })
            .collect()
    }

    /// The service worked, yet no director has a plan of it: somebody deleted them. The agents
    /// still hold what they held, so their real servers count as prepared.
    fn has_lost_its_plans(&self) -> bool {
        let status = self.object.status.iter();
        service::stored_services(self.stored).next().is_none()
            && report::is_programmed(status.flat_map(|status| &status.conditions))
    }
}
