//! Connections that survive a takeover: sync daemons by role, and the sysctls that each way needs.

use std::collections::BTreeMap;

use lvs_crds::condition::Reason;
use lvs_crds::connection_sync::{ConnectionSyncType, PlannedConnectionSync, PlannedSyncDaemon};

use super::director::serves_what_it_balances;
use super::{Builder, PlanInput, Roles, RouterRole, SysctlDemand};
use crate::host::SysctlKey;
use crate::ipvs::ServiceKey;
use crate::object::Object;
use crate::sync_daemon::{REFRESH_SECONDS, SyncDaemon, SyncRole};

/// `sync_threshold` (Documentation/networking/ipvs-sysctl.rst): with a period of 0 and a refresh period, a connection is
/// sent as soon as it is established, and then by refresh alone. The default waits for its third packet of fifty.
const SYNC_THRESHOLD: SysctlDemand = SysctlDemand::ExactlyPair(0, 0);
/// A message that is lost is sent once more within the refresh period.
const SYNC_RETRIES: SysctlDemand = SysctlDemand::Exactly(1);

impl<'a> Builder<'a> {
    pub(super) fn connection_sync(&mut self, planned: &PlannedConnectionSync) {
        match (planned.type_, &planned.daemon) {
            (ConnectionSyncType::None, _) => {}
            (ConnectionSyncType::Stateless, _) => {
                // The packets of a connection that this node has never seen make one, wherever in its life it is.
                for name in ["sloppy_tcp", "sloppy_sctp"] {
                    self.demand(SysctlKey::of_ipvs(name), SysctlDemand::Exactly(1));
                }
                let router = self.plan.spec.virtual_router_name.clone();
                self.state.stateless_routers.insert(router);
            }
            (ConnectionSyncType::Daemon, Some(daemon)) => self.sync_daemon(daemon),
            (ConnectionSyncType::Daemon, None) => self.problem(
                Reason::Invalid,
                "connection sync of type Daemon without a set-up of the daemons".to_owned(),
            ),
        }
    }

    fn sync_daemon(&mut self, planned: &PlannedSyncDaemon) {
        let Some(device) = self.host.first_present(&planned.devices) else {
            self.problem(
                Reason::InterfaceNotFound,
                format!(
                    "none of the devices {} for connection sync is on this node",
                    planned.devices.join(", ")
                ),
            );
            return;
        };
        let wanted = SyncDaemon {
            device: device.to_owned(),
            sync_id: planned.sync_id,
            group: planned.group,
            port: planned.port,
            ttl: planned.ttl,
            maximum_length: planned.maximum_length,
        };
        if let Some(other) = self.sync.as_ref().filter(|other| **other != wanted) {
            let message = format!(
                "IPVS sync daemons {wanted} asked for here, {other} by another router; a node has one set-up"
            );
            self.problem(Reason::NodeSettingConflict, message);
            return;
        }
        for (name, demand) in [
            ("sync_threshold", SYNC_THRESHOLD),
            (
                "sync_refresh_period",
                SysctlDemand::Exactly(REFRESH_SECONDS),
            ),
            ("sync_retries", SYNC_RETRIES),
        ] {
            self.demand(SysctlKey::of_ipvs(name), demand);
        }
        let roles: &[SyncRole] = match self.role {
            Some(RouterRole::Master) => &[SyncRole::Master],
            Some(RouterRole::Backup) => &[SyncRole::Backup],
            None => &SyncRole::ALL,
        };
        for role in roles {
            self.state.sync_daemons.insert(*role, wanted.clone());
            self.claim(Object::SyncDaemon(*role));
        }
        let router = self.plan.spec.virtual_router_name.clone();
        self.state.synchronized_routers.insert(router);
        self.sync = Some(wanted);
    }

    /// A backup that knows the master's connections and is a real server of the same services would forward packets
    /// that are meant for itself, once its table and the master's differ: back and forth until their TTL is used up.
    /// While it listens it balances nothing. That is of the whole node: not where it is master of another router.
    pub(super) fn backup_only(&mut self, plans: &[&'a PlanInput], roles: Option<&Roles>) {
        let Some(roles) = roles.filter(|_| self.sync.is_some()) else {
            return;
        };
        let mut directed = plans.iter().filter(|plan| plan.spec.director.is_some());
        let is_master =
            directed.any(|plan| roles.of(&plan.spec.virtual_router_name) == RouterRole::Master);
        let serving: Vec<&'a PlanInput> = plans
            .iter()
            .copied()
            .filter(|plan| {
                plan.spec
                    .director
                    .as_ref()
                    .is_some_and(|director| serves_what_it_balances(&plan.spec, &director.services))
            })
            .collect();
        if is_master || serving.is_empty() {
            return;
        }
        self.state.backup_only = true;
        for plan in serving {
            self.plan = plan;
            self.demand(SysctlKey::of_ipvs("backup_only"), SysctlDemand::Exactly(1));
        }
    }

    /// Services that the plans of stateless routers own, without those of health checks: marks are a node's own affair.
    pub(super) fn stateless_services(&mut self, plans: &[&PlanInput]) {
        if self.state.stateless_routers.is_empty() {
            return;
        }
        let routers: BTreeMap<&str, &str> = plans
            .iter()
            .map(|plan| (plan.name.as_str(), plan.spec.virtual_router_name.as_str()))
            .collect();
        let is_stateless = |key: &ServiceKey| {
            let router = self.state.owner(key).and_then(|owner| routers.get(owner));
            router.is_some_and(|router| self.state.stateless_routers.contains(*router))
        };
        self.state.stateless_services = self
            .state
            .services
            .keys()
            .filter(|key| is_stateless(key) && !self.serving.passages.contains(key))
            .copied()
            .collect();
    }
}
