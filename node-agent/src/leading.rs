//! Leadership behind the seam of the sync loop.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::election::{Role, Tick};
use lvs_core::fence::{DirectorAddress, RouterAddresses, Trouble};
use lvs_core::host::AddressKey;
use lvs_crds::condition::Reason;
use tokio::sync::watch;

use crate::leadership::fence::FenceReport;
use crate::leadership::{Leadership, RoleState, RouterConfig, RouterName};
use crate::port::{AddressTrouble, DirectedRouter, LeadershipPort, LeadershipRole, LeadershipView};

/// The real leadership. Must be used inside the runtime.
pub struct Leading {
    leadership: Leadership,
    roles: watch::Receiver<BTreeMap<RouterName, RoleState>>,
    addresses: watch::Receiver<FenceReport>,
}

impl Leading {
    /// Puts leadership behind the seam.
    pub fn new(leadership: Leadership) -> Self {
        Self {
            roles: leadership.roles(),
            addresses: leadership.addresses(),
            leadership,
        }
    }

    /// A receiver that changes whenever roles or addresses do.
    pub fn bell(&self) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0_u64);
        let (mut roles, mut addresses) = (self.roles.clone(), self.addresses.clone());
        tokio::spawn(async move {
            loop {
                let changed = tokio::select! {
                    changed = roles.changed() => changed,
                    changed = addresses.changed() => changed,
                    () = sender.closed() => return,
                };
                if changed.is_err() {
                    return;
                }
                sender.send_modify(|rings| *rings = rings.wrapping_add(1));
            }
        });
        receiver
    }

    /// Hands over or lends, as the process is to end. Returns what came of it.
    pub async fn shutdown(self) -> LeadershipView {
        self.leadership.shutdown().await;
        view(&self.roles.borrow(), &self.addresses.borrow())
    }
}

fn key(address: &DirectorAddress) -> AddressKey {
    AddressKey {
        device: address.device.clone(),
        address: address.address,
        prefix_length: if address.address.is_ipv4() { 32 } else { 128 },
    }
}

fn director_addresses(
    addresses: BTreeMap<String, BTreeSet<AddressKey>>,
) -> BTreeMap<RouterName, BTreeSet<DirectorAddress>> {
    let addresses = addresses.into_iter().map(|(router, keys)| {
        let keys = keys.into_iter().map(|key| DirectorAddress {
            address: key.address,
            device: key.device,
        });
        (router, keys.collect())
    });
    addresses.collect()
}

fn conflicts(state: &RouterAddresses) -> Vec<AddressTrouble> {
    let conflicts = state.conflicts.iter();
    conflicts
        .map(|(address, hardware_address)| AddressTrouble {
            address: address.address,
            reason: Reason::ConflictDetected,
            message: format!(
                "{address} is held here, and {hardware_address} claims it too: find the host with this hardware address \
                 and take the address away from it"
            ),
        })
        .collect()
}

impl LeadershipPort for Leading {
    fn set_routers(&mut self, routers: BTreeMap<String, DirectedRouter>) {
        let routers = routers.into_iter().map(|(name, router)| {
            let DirectedRouter {
                plan,
                state,
                verified,
                fitness,
                heartbeat_interface,
            } = router;
            (
                name,
                RouterConfig {
                    plan,
                    state,
                    verified,
                    fitness,
                    heartbeat_interface,
                },
            )
        });
        self.leadership.set_routers(routers.collect());
    }

    fn hold_back(&mut self, routers: BTreeSet<String>) {
        self.leadership.hold_back(routers);
    }

    fn set_addresses(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>) {
        self.leadership.set_addresses(director_addresses(addresses));
    }

    fn missing(&mut self, addresses: BTreeMap<String, BTreeSet<AddressKey>>, looked_at: Tick) {
        self.leadership
            .missing(director_addresses(addresses), looked_at);
    }

    fn view(&self) -> LeadershipView {
        view(&self.roles.borrow(), &self.addresses.borrow())
    }
}

fn view(roles: &BTreeMap<RouterName, RoleState>, report: &FenceReport) -> LeadershipView {
    LeadershipView {
        roles: roles
            .iter()
            .map(|(router, state)| {
                let role = match state.role {
                    Role::Unknown => LeadershipRole::Unknown,
                    Role::Backup => LeadershipRole::Backup,
                    Role::Master => LeadershipRole::Master,
                    Role::Released => LeadershipRole::Released,
                };
                (router.clone(), role)
            })
            .collect(),
        held: report
            .routers
            .iter()
            .map(|(router, state)| (router.clone(), state.present.iter().map(key).collect()))
            .collect(),
        troubles: report
            .routers
            .iter()
            .map(|(router, state)| {
                let troubles = state
                    .troubles
                    .iter()
                    .map(|(address, trouble)| AddressTrouble {
                        address: address.address,
                        reason: match trouble {
                            Trouble::Foreign => Reason::ForeignObject,
                            Trouble::NoDevice => Reason::InterfaceNotFound,
                            Trouble::Failed(_) => Reason::KernelError,
                        },
                        message: format!("{address}: {trouble}"),
                    });
                (router.clone(), troubles.collect())
            })
            .collect(),
        conflicts: report
            .routers
            .iter()
            .filter(|(_, state)| !state.conflicts.is_empty())
            .map(|(router, state)| (router.clone(), conflicts(state)))
            .collect(),
        restored: report
            .routers
            .iter()
            .filter(|(_, state)| !state.restored.is_empty())
            .map(|(router, state)| {
                let restored = state.restored.iter();
                let restored = restored.map(|(address, count)| (key(address), *count));
                (router.clone(), restored.collect())
            })
            .collect(),
        transitions: roles
            .iter()
            .filter_map(|(router, state)| Some((router.clone(), state.last_transition.clone()?)))
            .collect(),
        heartbeats_lost: roles
            .iter()
            .filter_map(|(router, state)| {
                Some((router.clone(), state.heartbeat_lost_from.clone()?))
            })
            .collect(),
        journal_error: report.journal_error.clone(),
        address_writes: report.counts.additions + report.counts.refreshes + report.counts.deletions,
    }
}
