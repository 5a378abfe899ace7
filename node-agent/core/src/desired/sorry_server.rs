//! Who serves new connections of a service whose real servers are too few.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_crds::condition::Reason;
use lvs_crds::traffic_policy::PlannedSorryServer;
use lvs_crds::value::{AddressFamily, ForwardingType};

use super::director::{NodeNeeds, destination_forwarding};
use super::{Builder, source_nat};
use crate::host::OWNER_PROTOCOL;
use crate::ipvs::{Destination, DestinationKey, ServiceKey};

impl Builder<'_> {
    /// Adds the sorry server to a service's destinations while it serves. What it needs of the node it needs before.
    pub(super) fn sorry_server(
        &mut self,
        planned: &PlannedSorryServer,
        is_sorry: bool,
        service: ServiceKey,
        needs: &mut NodeNeeds,
        destinations: &mut Vec<(DestinationKey, Destination)>,
    ) {
        let family = service.family();
        let address = match planned.address {
            // IPVS hands the packets of the one that holds the address to itself.
            None if planned.forwarding.type_ != ForwardingType::NAT => Some(loopback(family)),
            // The kernel does not translate to a loopback address (`ip_vs_nat_xmit`, ip_vs_xmit.c).
            None => self.own_address(family),
            Some(address) => Some(address).filter(|address| AddressFamily::of(address) == family),
        };
        let Some(address) = address else {
            if planned.address.is_none() {
                self.problem(
                    Reason::InterfaceNotFound,
                    format!("sorryServer of {service}: this node has no {family:?} address of its own to which another port could be translated: remove sorryServer.port"),
                );
            }
            return;
        };
        let Some(forwarding) = destination_forwarding(&planned.forwarding) else {
            self.problem(
                Reason::Invalid,
                format!("sorryServer of {service}: a GUE tunnel needs a port"),
            );
            return;
        };
        let director = self.plan.spec.director.as_ref();
        if planned.address.is_some()
            && director.is_some_and(|director| {
                source_nat::lacks_source(director, &planned.forwarding, address)
            })
        {
            self.problem(
                Reason::Invalid,
                format!(
                    "sorryServer of {service} at {address}: FullNAT needs a source address of its family and the plan has none"
                ),
            );
            return;
        }
        if planned.address.is_some() {
            needs.note(forwarding, family);
        }
        if !is_sorry {
            return;
        }
        let key = DestinationKey {
            address,
            port: planned.port,
        };
        let destination = Destination {
            forwarding,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        match destinations.binary_search_by(|(found, _)| found.cmp(&key)) {
            // A real server that is sorry server too: as such it serves.
            Ok(index) => {
                if let Some(found) = destinations.get_mut(index) {
                    *found = (key, destination);
                }
            }
            Err(index) => destinations.insert(index, (key, destination)),
        }
    }

    /// The first address of this node that is neither loopback, link-local, nor ours.
    fn own_address(&self, family: AddressFamily) -> Option<IpAddr> {
        let ours = |address: IpAddr| {
            let mut held = self.state.director_addresses.values().flatten();
            held.any(|key| key.address == address)
                || self
                    .journal
                    .director_addresses
                    .iter()
                    .any(|key| key.address == address)
        };
        let mut addresses = self.host.addresses.iter();
        addresses
            .find(|(key, attributes)| {
                AddressFamily::of(&key.address) == family
                    && !key.address.is_loopback()
                    && !super::is_link_local(key.address)
                    && attributes.protocol != OWNER_PROTOCOL
                    && !crate::host::is_our_device(&key.device)
                    && !ours(key.address)
            })
            .map(|(key, _)| key.address)
    }
}

const fn loopback(family: AddressFamily) -> IpAddr {
    match family {
        AddressFamily::IPv4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        AddressFamily::IPv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
