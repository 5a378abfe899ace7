//! Connections whose real servers see an address of this node instead of the client's (FullNAT).
//!
//! IPVS translates the destination and keeps the connection in conntrack, as `net.ipv4.vs.conntrack` says; nftables then
//! translates the source, by what conntrack remembers of the client's packet (net/netfilter/ipvs/ip_vs_nfct.c).

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::node_plan::{DirectorPlan, MarkMatch, PlannedService};
use lvs_crds::value::{AddressFamily, Forwarding, ForwardingType};

use super::{Builder, SysctlDemand};
use crate::host::{RealServerPorts, SourceNatRule, SysctlKey};
use crate::object::Object;

/// Somebody to whom a service forwards.
struct Receiver<'a> {
    /// `None` = this node.
    address: Option<IpAddr>,
    port: u16,
    forwarding: &'a Forwarding,
}

impl Builder<'_> {
    /// What the services of a plan need so that connections get other source addresses.
    pub(super) fn source_nat(&mut self, plan: &DirectorPlan) {
        let mut is_used = false;
        for service in &plan.services {
            for packets in client_packets(plan, service) {
                if packets.address.is_ipv6() && !self.host.ipv6 {
                    // The service has said so.
                    continue;
                }
                for rule in source_nat_rules(plan, service, &packets) {
                    self.state.host.packet_rules.source_nat.push(rule);
                    is_used = true;
                }
            }
        }
        if is_used {
            self.claim(Object::PacketRules);
            self.demand(SysctlKey::of_ipvs("conntrack"), SysctlDemand::Exactly(1));
        }
    }
}

/// What clients send to a service.
fn client_packets(plan: &DirectorPlan, service: &PlannedService) -> Vec<MarkMatch> {
    match (&service.address, &service.firewall_mark) {
        (Some(served), _) => vec![MarkMatch {
            address: served.address,
            protocol: served.protocol,
            port: served.port,
            end_port: served.end_port,
        }],
        (None, Some(wanted)) => {
            let of_mark = plan.firewall_marks.iter();
            let of_mark = of_mark.filter(|marks| marks.mark == wanted.mark);
            of_mark
                .flat_map(|marks| &marks.matches)
                .filter(|packets| AddressFamily::of(&packets.address) == wanted.address_family)
                .cloned()
                .collect()
        }
        (None, None) => Vec::new(),
    }
}

/// One rule for all real servers where that is possible, so that their coming and going changes none; else one for each.
fn source_nat_rules(
    plan: &DirectorPlan,
    service: &PlannedService,
    packets: &MarkMatch,
) -> Vec<SourceNatRule> {
    let family = AddressFamily::of(&packets.address);
    let receivers: Vec<Receiver<'_>> = receivers(service).collect();
    let translated: Vec<(&Receiver<'_>, Vec<IpAddr>)> = receivers
        .iter()
        .filter_map(|receiver| Some((receiver, source_addresses(plan, receiver, family)?)))
        .collect();
    let Some((_, first)) = translated.first() else {
        return Vec::new();
    };
    // Packets that IPVS does not translate still go to the virtual address, which no rule takes; those for this node
    // itself do not leave it.
    let is_alike = translated.iter().all(|(_, sources)| sources == first)
        && receivers.iter().all(|receiver| {
            receiver.forwarding.type_ != ForwardingType::NAT || receiver.address.is_none()
        });
    if is_alike {
        return vec![SourceNatRule {
            packets: packets.clone(),
            real_server: None,
            source_addresses: first.clone(),
        }];
    }
    let length = packets.end_port.saturating_sub(packets.port);
    let mut seen = BTreeSet::new();
    translated
        .into_iter()
        .filter_map(|(receiver, source_addresses)| {
            // A mark keeps every port.
            let first = match service.firewall_mark {
                Some(_) => packets.port,
                None => receiver.port,
            };
            let real_server = RealServerPorts {
                address: receiver.address?,
                port: first,
                end_port: first.saturating_add(length),
            };
            seen.insert(real_server).then(|| SourceNatRule {
                packets: packets.clone(),
                real_server: Some(real_server),
                source_addresses,
            })
        })
        .collect()
}

fn receivers(service: &PlannedService) -> impl Iterator<Item = Receiver<'_>> {
    let real_servers = service.real_servers.iter().map(|real_server| Receiver {
        address: Some(real_server.address),
        port: real_server.port,
        forwarding: &real_server.forwarding,
    });
    let sorry_server = service.sorry_server.iter().map(|sorry_server| Receiver {
        address: sorry_server.address,
        port: sorry_server.port,
        forwarding: &sorry_server.forwarding,
    });
    real_servers.chain(sorry_server)
}

/// Source addresses of the family, sorted; `None` where the source stays the client's.
fn source_addresses(
    plan: &DirectorPlan,
    receiver: &Receiver<'_>,
    family: AddressFamily,
) -> Option<Vec<IpAddr>> {
    if receiver.forwarding.type_ != ForwardingType::FullNAT {
        return None;
    }
    let pool_name = &receiver
        .forwarding
        .full_nat
        .as_ref()?
        .source_address_pool_name;
    let mut pools = plan.source_address_pools.iter();
    let pool = pools.find(|pool| pool.name == *pool_name)?;
    let of_family = pool.addresses.iter().copied();
    let mut addresses: Vec<IpAddr> = of_family
        .filter(|address| AddressFamily::of(address) == family)
        .collect();
    addresses.sort();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
}

/// Whether a forwarding needs a source address that the plan does not have.
pub(super) fn lacks_source(plan: &DirectorPlan, forwarding: &Forwarding, address: IpAddr) -> bool {
    let receiver = Receiver {
        address: Some(address),
        port: 0,
        forwarding,
    };
    forwarding.type_ == ForwardingType::FullNAT
        && source_addresses(plan, &receiver, AddressFamily::of(&address)).is_none()
}
