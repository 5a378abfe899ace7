//! IPVS as in net/netfilter/ipvs/ip_vs_ctl.c: `ip_vs_genl_set_cmd` and what it calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::value::AddressFamily;

use super::Errno;
use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, Idle, IpvsTimeouts,
    Service, ServiceFlags, ServiceKey, ServiceState, Services,
};
use crate::op::IpvsOp;
use crate::sync_daemon::{SyncDaemon, SyncDaemons, SyncRole};
use crate::table::{Disorder, depends_on_order, is_canonical};

/// IPVS of one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsModel {
    /// Services with destinations.
    pub services: Services,
    /// Destinations of each service as the kernel lists them: the newest first. A service that is not here lists its
    /// destinations canonically.
    pub listed: BTreeMap<ServiceKey, Vec<DestinationKey>>,
    /// Destinations that have connections, whatever their weight. Nothing in here makes or ends any.
    pub connected: BTreeSet<(ServiceKey, DestinationKey)>,
    /// Timeouts.
    pub timeouts: IpvsTimeouts,
    /// Sync daemons.
    pub sync_daemons: SyncDaemons,
    /// Schedulers that are there or can be loaded.
    pub schedulers: BTreeSet<String>,
    /// Persistence engines that are there or can be loaded.
    pub engines: BTreeSet<String>,
    /// Whether the kernel has IPv6.
    pub ipv6: bool,
    /// Ticks per second (`CONFIG_HZ`): timeouts are counted in them, so it decides which are too long.
    pub ticks_per_second: u32,
}

impl Default for IpvsModel {
    /// An empty namespace of a kernel as Debian's: 250 ticks, every scheduler but `twos`.
    fn default() -> Self {
        let schedulers = [
            "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
        ];
        Self {
            services: Services::new(),
            listed: BTreeMap::new(),
            connected: BTreeSet::new(),
            timeouts: IpvsTimeouts {
                tcp_seconds: 900,
                tcp_fin_seconds: 120,
                udp_seconds: 300,
            },
            sync_daemons: SyncDaemons::new(),
            schedulers: schedulers.map(str::to_owned).into(),
            engines: BTreeSet::from(["sip".to_owned()]),
            ipv6: true,
            ticks_per_second: 250,
        }
    }
}

impl IpvsModel {
    /// Carry out one operation, or refuse it and change nothing.
    pub fn apply(&mut self, op: &IpvsOp) -> Result<(), Errno> {
        match op {
            IpvsOp::AddService(key, service) => self.add_service(*key, service),
            IpvsOp::EditService(key, service) => {
                self.check_family(*key)?;
                let service = self.checked(*key, service, true)?;
                self.service(*key)?.service = service;
                Ok(())
            }
            IpvsOp::DeleteService(key) => {
                self.check_family(*key)?;
                self.listed.remove(key);
                self.services.remove(key).map(drop).ok_or(Errno::ESRCH)
            }
            IpvsOp::AddDestination(key, destination, attributes) => {
                let state = self.with_destination(*key, *destination, attributes)?;
                match position(state, *destination) {
                    Ok(_) => Err(Errno::EEXIST),
                    Err(_) if !is_unicast(destination.address) => Err(Errno::EINVAL),
                    Err(index) => {
                        state
                            .destinations
                            .insert(index, (*destination, *attributes));
                        self.listed_mut(*key).insert(0, *destination);
                        Ok(())
                    }
                }
            }
            IpvsOp::EditDestination(key, destination, attributes) => {
                let state = self.with_destination(*key, *destination, attributes)?;
                let index = position(state, *destination).map_err(|_| Errno::ENOENT)?;
                if let Some((_, found)) = state.destinations.get_mut(index) {
                    *found = *attributes;
                }
                Ok(())
            }
            IpvsOp::DeleteDestination(key, destination) => {
                self.check_family(*key)?;
                let state = self.service(*key)?;
                let index = position(state, *destination).map_err(|_| Errno::ENOENT)?;
                state.destinations.remove(index);
                self.listed_mut(*key).retain(|listed| listed != destination);
                Ok(())
            }
            IpvsOp::SetTimeouts(timeouts) => self.set_timeouts(*timeouts),
            IpvsOp::StartSyncDaemon(role, daemon) => self.start_sync_daemon(*role, daemon),
            IpvsOp::StopSyncDaemon(role) => {
                self.sync_daemons.remove(role).map(drop).ok_or(Errno::ESRCH)
            }
        }
    }

    /// The list of a service's destinations as it was before the last change to them.
    fn listed_mut(&mut self, key: ServiceKey) -> &mut Vec<DestinationKey> {
        self.listed.entry(key).or_default()
    }

    /// Services whose scheduler minds the order and whose list is not canonical.
    pub fn disorder(&self) -> Disorder {
        self.listed
            .iter()
            .filter(|(key, listed)| {
                let state = self.services.get(key);
                state.is_some_and(|state| depends_on_order(&state.service)) && !is_canonical(listed)
            })
            .map(|(key, listed)| (*key, listed.clone()))
            .collect()
    }

    /// Destinations with weight 0 that have no connection.
    pub fn idle(&self) -> Idle {
        let each = self.services.iter().flat_map(|(key, state)| {
            let quiet = state
                .destinations
                .iter()
                .filter(|(_, attributes)| attributes.weight == 0);
            quiet.map(|(destination, _)| (*key, *destination))
        });
        each.filter(|one| !self.connected.contains(one)).collect()
    }

    fn check_family(&self, key: ServiceKey) -> Result<(), Errno> {
        if key.family() == AddressFamily::IPv6 && !self.ipv6 {
            return Err(Errno::EAFNOSUPPORT);
        }
        Ok(())
    }

    fn service(&mut self, key: ServiceKey) -> Result<&mut ServiceState, Errno> {
        self.services.get_mut(&key).ok_or(Errno::ESRCH)
    }

    fn add_service(&mut self, key: ServiceKey, service: &Service) -> Result<(), Errno> {
        self.check_family(key)?;
        if self.services.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let service = self.checked(key, service, false)?;
        self.listed.remove(&key);
        self.services.insert(
            key,
            ServiceState {
                service,
                destinations: Vec::new(),
            },
        );
        Ok(())
    }

    /// The attributes as the kernel keeps them.
    fn checked(
        &self,
        key: ServiceKey,
        service: &Service,
        must_exist: bool,
    ) -> Result<Service, Errno> {
        if must_exist && !self.services.contains_key(&key) {
            return Err(Errno::ESRCH);
        }
        if !self.schedulers.contains(&service.scheduler) {
            return Err(Errno::ENOENT);
        }
        if let Some(engine) = &service.persistence_engine
            && !self.engines.contains(engine)
        {
            return Err(Errno::ENOENT);
        }
        if key.family() == AddressFamily::IPv6 && !(1..=128).contains(&service.prefix_length) {
            return Err(Errno::EINVAL);
        }
        let mut kept = service.clone();
        kept.flags = ServiceFlags(service.flags.0 & ServiceFlags::OWNED);
        // `svc->timeout = u->timeout * HZ` in 32 bits: a timeout that is too long comes back as another one.
        kept.timeout_seconds =
            service.timeout_seconds.wrapping_mul(self.ticks_per_second) / self.ticks_per_second;
        Ok(kept)
    }

    /// The service, after the checks that adding and editing a destination share, in the kernel's order.
    fn with_destination(
        &mut self,
        key: ServiceKey,
        destination: DestinationKey,
        attributes: &Destination,
    ) -> Result<&mut ServiceState, Errno> {
        self.check_family(key)?;
        if destination.address.is_ipv6() && !self.ipv6 {
            return Err(Errno::EAFNOSUPPORT);
        }
        let has_daemon = !self.sync_daemons.is_empty();
        let state = self.service(key)?;
        let tunnel = matches!(attributes.forwarding, DestinationForwarding::Tunnel(_));
        let mixed = AddressFamily::of(&destination.address) != key.family();
        if mixed && (has_daemon || !tunnel) {
            return Err(Errno::EINVAL);
        }
        if attributes.weight > i32::MAX.unsigned_abs()
            || attributes.lower_threshold > attributes.upper_threshold
        {
            return Err(Errno::ERANGE);
        }
        // Newer kernels, stable ones included: the number of connections it is compared with is an `int`.
        if attributes.upper_threshold > i32::MAX.unsigned_abs() {
            return Err(Errno::EINVAL);
        }
        if let DestinationForwarding::Tunnel(DestinationTunnel::Gue { port: 0, .. }) =
            attributes.forwarding
        {
            return Err(Errno::EINVAL);
        }
        Ok(state)
    }

    /// `ip_vs_genl_new_daemon` and `start_sync_thread`. That the device exists and has an address is not modelled.
    fn start_sync_daemon(&mut self, role: SyncRole, daemon: &SyncDaemon) -> Result<(), Errno> {
        let mixed = self.services.iter().any(|(key, state)| {
            let mut destinations = state.destinations.iter();
            destinations.any(|(found, _)| AddressFamily::of(&found.address) != key.family())
        });
        if mixed {
            return Err(Errno::EINVAL);
        }
        if self.sync_daemons.contains_key(&role) {
            return Err(Errno::EEXIST);
        }
        let headers = if daemon.group.is_ipv4() { 28 } else { 48 };
        let least = if role == SyncRole::Backup { 1024 } else { 1 };
        let length = daemon
            .maximum_length
            .filter(|length| *length != 0)
            .map_or(1500 - headers, |length| {
                length.clamp(least, u16::MAX - headers)
            });
        let kept = SyncDaemon {
            maximum_length: Some(length),
            // Zero means the default: IP_VS_SYNC_PORT and 1.
            port: if daemon.port == 0 { 8848 } else { daemon.port },
            ttl: daemon.ttl.max(1),
            ..daemon.clone()
        };
        self.sync_daemons.insert(role, kept);
        Ok(())
    }

    fn set_timeouts(&mut self, timeouts: IpvsTimeouts) -> Result<(), Errno> {
        let IpvsTimeouts {
            tcp_seconds,
            tcp_fin_seconds,
            udp_seconds,
        } = timeouts;
        // `ip_vs_set_timeout`: its tick counts are `int`.
        let maximum_seconds = i32::MAX.unsigned_abs() / self.ticks_per_second;
        if [tcp_seconds, tcp_fin_seconds, udp_seconds]
            .iter()
            .any(|seconds| *seconds > maximum_seconds)
        {
            return Err(Errno::EINVAL);
        }
        // Zero means "keep".
        for (kept, wanted) in [
            (&mut self.timeouts.tcp_seconds, tcp_seconds),
            (&mut self.timeouts.tcp_fin_seconds, tcp_fin_seconds),
            (&mut self.timeouts.udp_seconds, udp_seconds),
        ] {
            if wanted != 0 {
                *kept = wanted;
            }
        }
        Ok(())
    }
}

fn position(state: &ServiceState, key: DestinationKey) -> Result<usize, usize> {
    state
        .destinations
        .binary_search_by(|(found, _)| found.cmp(&key))
}

/// `ip_vs_new_dest`: IPv6 unicast (`ipv6_addr_type`, to which mapped IPv4 is not) and not link-local, IPv4 unicast or
/// local (`inet_addr_type`). Broadcast addresses of connected subnets, which the kernel refuses too, are not modelled.
const fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some())
        }
    }
}
