//! Sync daemons: started, stopped, and kept apart from what excludes them.
//!
//! The protocol of the daemons has no room for a real server whose address family is not its service's. The kernel
//! refuses a daemon where there is such a real server (`ip_vs_genl_new_daemon`, net/netfilter/ipvs/ip_vs_ctl.c), and
//! such a real server where there is a daemon (`ip_vs_genl_set_cmd`), both with EINVAL. What is there already stays.

use lvs_crds::condition::Reason;
use lvs_crds::value::AddressFamily;

use super::Walk;
use super::services::ServiceOps;
use crate::ipvs::{DestinationKey, ServiceKey, Services};
use crate::object::Object;
use crate::op::{IpvsOp, Op};

/// Operations on sync daemons.
#[derive(Default)]
pub(super) struct SyncDaemonOps {
    /// Those that nobody wants any more, or not with this set-up.
    pub stop: Vec<Op>,
    /// Those that are wanted.
    pub start: Vec<Op>,
}

impl Walk<'_> {
    /// Takes from `services` what a daemon that stays excludes.
    pub(super) fn sync_daemons(&mut self, services: &mut ServiceOps) -> SyncDaemonOps {
        let mut ops = SyncDaemonOps::default();
        let observed = &self.observed.sync_daemons;
        let ours = self.journal.sync_daemons_of_ours(observed);
        for (role, found) in &ours {
            let wanted = self.desired.sync_daemons.get(role);
            if !wanted.is_some_and(|wanted| wanted.is_met_by(found)) {
                ops.stop.push(Op::Ipvs(IpvsOp::StopSyncDaemon(*role)));
            }
        }
        let is_foreign = observed.len() > ours.len();
        // One that is started anew with another set-up, or in the other role, is one that stays.
        let stays = is_foreign || (!ours.is_empty() && !self.desired.sync_daemons.is_empty());
        if stays {
            self.exclude_destinations(services);
        }
        let excluded = if stays || self.desired.sync_daemons.is_empty() {
            None
        } else {
            self.excluded_by()
        };
        for (role, wanted) in &self.desired.sync_daemons {
            let object = Object::SyncDaemon(*role);
            match (observed.get(role), ours.contains_key(role)) {
                (Some(_), false) => self.foreign(
                    &object,
                    "stop it (ipvsadm --stop-daemon), or set connectionSync of the VirtualRouter to type None",
                ),
                (Some(found), true) if wanted.is_met_by(found) => {}
                (Some(_), true) | (None, _) => match &excluded {
                    None => ops.start.push(Op::Ipvs(IpvsOp::StartSyncDaemon(*role, wanted.clone()))),
                    Some((service, destination)) => {
                        let message = format!(
                            "{object} cannot run while service {service} has real server {destination} of another \
                             address family: use real servers of the service's family, or connectionSync type Stateless"
                        );
                        self.problem(&object, Reason::ConnectionSyncExcluded, &message);
                    }
                },
            }
        }
        ops
    }

    /// Real servers of another family are not added while a daemon runs.
    fn exclude_destinations(&mut self, services: &mut ServiceOps) {
        let mut refused = Vec::new();
        services.destinations.retain(|op| match op {
            Op::Ipvs(
                IpvsOp::AddDestination(service, destination, _)
                | IpvsOp::EditDestination(service, destination, _),
            ) if is_mixed(*service, *destination) => {
                refused.push((*service, *destination));
                false
            }
            _ => true,
        });
        for (service, destination) in refused {
            let message = format!(
                "real server {destination} has another address family than service {service}, which the kernel excludes \
                 while an IPVS sync daemon runs: use real servers of the service's family, or directors of a \
                 VirtualRouter without connectionSync type Daemon"
            );
            self.problem(
                &Object::Service(service),
                Reason::ConnectionSyncExcluded,
                &message,
            );
        }
    }

    /// A real server that keeps daemons from running: one that is wanted, or one that is there and stays.
    fn excluded_by(&self) -> Option<(ServiceKey, DestinationKey)> {
        // Of services of ours only what is wanted stays.
        let foreign = |service: &ServiceKey| !self.journal.services.contains_key(service);
        let foreign = mixed(&self.observed.services).find(|(service, _)| foreign(service));
        mixed(&self.desired.services).next().or(foreign)
    }
}

fn is_mixed(service: ServiceKey, destination: DestinationKey) -> bool {
    AddressFamily::of(&destination.address) != service.family()
}

fn mixed(services: &Services) -> impl Iterator<Item = (ServiceKey, DestinationKey)> {
    services.iter().flat_map(|(service, state)| {
        let destinations = state
            .destinations
            .iter()
            .map(|(destination, _)| *destination);
        destinations
            .filter(|destination| is_mixed(*service, *destination))
            .map(|destination| (*service, destination))
    })
}
