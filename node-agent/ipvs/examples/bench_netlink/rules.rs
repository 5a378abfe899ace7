//! The rules that every tool loads: 100 services with 100 real servers each, DR, wlc.

use std::net::{IpAddr, Ipv4Addr};

use lvs_core::desired::DesiredState;
use lvs_core::diff::diff;
use lvs_core::host::ObservedHost;
use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, Service, ServiceFlags, ServiceKey,
    ServiceState, Services,
};
use lvs_core::journal::Journal;
use lvs_core::observed::Observed;
use lvs_core::op::{IpvsOp, Op};
use lvs_crds::value::Protocol;
use lvs_ipvs::Dump;

/// Services.
pub const SERVICES: usize = 100;
/// Real servers of each.
pub const DESTINATIONS: usize = 100;
/// Operations that add all.
pub const RULES: usize = SERVICES * (1 + DESTINATIONS);
/// Weight at first.
pub const WEIGHT: u32 = 10;
/// Port of services and real servers.
pub const PORT: u16 = 80;

/// Address of a service, 0..99.
pub fn service_address(service: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a64_0001 + u32::try_from(service).unwrap_or_default())
}

/// Address of a real server, 0..99, of a service.
pub fn destination_address(service: usize, destination: usize) -> Ipv4Addr {
    let number = (service << 8) + destination + 1;
    Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(number).unwrap_or_default())
}

/// All of them with one weight.
pub fn services(weight: u32) -> Services {
    (0..SERVICES)
        .map(|service| {
            let key = ServiceKey::Address {
                address: IpAddr::V4(service_address(service)),
                protocol: Protocol::TCP,
                port: PORT,
            };
            let destinations = (0..DESTINATIONS)
                .map(|destination| {
                    let address = IpAddr::V4(destination_address(service, destination));
                    let state = Destination {
                        forwarding: DestinationForwarding::DirectRoute,
                        weight,
                        upper_threshold: 0,
                        lower_threshold: 0,
                    };
                    (
                        DestinationKey {
                            address,
                            port: PORT,
                        },
                        state,
                    )
                })
                .collect();
            let service = Service {
                scheduler: "wlc".to_owned(),
                flags: ServiceFlags::default(),
                timeout_seconds: 0,
                prefix_length: 32,
                persistence_engine: None,
            };
            (
                key,
                ServiceState {
                    service,
                    destinations,
                },
            )
        })
        .collect()
}

/// The same rules but for one weight in the middle.
pub fn one_weight_changed(services: &Services) -> Services {
    let mut changed = services.clone();
    if let Some(state) = changed.values_mut().nth(SERVICES / 2)
        && let Some((_, destination)) = state.destinations.get_mut(DESTINATIONS / 2)
    {
        destination.weight += 1;
    }
    changed
}

/// What the agent's core would do about `observed`, were these services all that is wanted and all ours.
pub struct Wanted {
    state: DesiredState,
    journal: Journal,
}

impl Wanted {
    /// Of these services.
    pub fn new(services: &Services) -> Self {
        let journal = Journal {
            services: services
                .keys()
                .map(|key| (*key, "vs-bench".to_owned()))
                .collect(),
            ..Journal::default()
        };
        let state = DesiredState {
            services: services.clone(),
            ..DesiredState::default()
        };
        Self { state, journal }
    }

    /// The operations on IPVS; there are no others.
    pub fn operations(&self, dump: Dump) -> Vec<IpvsOp> {
        let observed = Observed {
            services: dump.services,
            disorder: dump.disorder,
            timeouts: dump.timeouts,
            sync_daemons: dump.sync_daemons,
            host: ObservedHost::default(),
        };
        diff(&self.state, &observed, &self.journal)
            .ops
            .into_iter()
            .filter_map(|op| match op {
                Op::Ipvs(op) => Some(op),
                Op::Host(_) => None,
            })
            .collect()
    }
}
