//! Work as director: addresses, IPVS services, marks, timeouts and the sysctls they need.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    DirectorPlan, NodePlanSpec, PlannedAddress, PlannedFirewallMark, PlannedRealServer,
    PlannedService, RealServerPlan,
};
use lvs_crds::value::{
    AddressFamily, Forwarding, ForwardingType, PacketScheduling, PersistenceEngine, Protocol,
    SchedulerName, SchedulerOption, Timeouts, TunnelChecksum, TunnelType,
};

use super::{Builder, RouterRole, SysctlDemand, source_nat};
use crate::health::EffectiveWeight;
use crate::host::{AddressKey, MarkRule, OWNER_PROTOCOL, SysctlKey};
use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey, ServiceState,
};
use crate::object::Object;

/// FTP's control port, `FTPPORT` of net/ipv4/netfilter's IPVS: with NAT its data connections need a helper module.
const FTP_PORT: u16 = 21;
/// The helper.
const FTP_MODULE: &str = "ip_vs_ftp";

/// What the services of a plan ask of the node as a whole.
#[derive(Default)]
pub(super) struct NodeNeeds {
    /// Families with NAT.
    nat: BTreeSet<AddressFamily>,
    /// Families with DR.
    direct: BTreeSet<AddressFamily>,
    /// Whether there is TUN.
    tunnel: bool,
}

impl NodeNeeds {
    /// Something is forwarded like this.
    pub(super) fn note(&mut self, forwarding: DestinationForwarding, family: AddressFamily) {
        match forwarding {
            DestinationForwarding::Masquerade => {
                self.nat.insert(family);
            }
            DestinationForwarding::Tunnel(_) => self.tunnel = true,
            DestinationForwarding::DirectRoute
            | DestinationForwarding::LocalNode
            | DestinationForwarding::Bypass => {
                self.direct.insert(family);
            }
        }
    }
}

impl Builder<'_> {
    pub(super) fn director(&mut self, plan: &DirectorPlan) {
        for address in &plan.addresses {
            self.director_address(address);
        }
        if let Some(timeouts) = plan
            .leadership
            .as_ref()
            .and_then(|leadership| leadership.timeouts.as_ref())
        {
            self.timeouts(timeouts);
        }
        if let Some(sync) = plan
            .leadership
            .as_ref()
            .and_then(|leadership| leadership.connection_sync.as_ref())
        {
            self.connection_sync(sync);
        }
        for marks in &plan.firewall_marks {
            self.mark_rules(marks);
        }
        let mut needs = NodeNeeds::default();
        for service in &plan.services {
            self.service(service, &mut needs);
        }
        self.source_nat(plan);
        self.passages();
        if !plan.services.is_empty() {
            self.director_sysctls(&needs);
        }
    }

    fn director_address(&mut self, planned: &PlannedAddress) {
        let PlannedAddress { address, devices } = planned;
        if !self.family_available(*address) {
            return;
        }
        let device = if devices.is_empty() {
            self.host.home_device(*address)
        } else {
            self.host.first_present(devices)
        };
        let Some(device) = device.map(str::to_owned) else {
            let message = if devices.is_empty() {
                format!(
                    "no device has a subnet with {address}: name one in the VirtualRouter's interfaces"
                )
            } else {
                format!(
                    "none of the devices {} for {address} is on this node",
                    devices.join(", ")
                )
            };
            self.unholdable(*address, Reason::InterfaceNotFound, message);
            return;
        };
        let key = AddressKey {
            device: self.carrying_device(&device, *address),
            address: *address,
            prefix_length: host_prefix(*address),
        };
        self.claim(Object::Address(key.clone()));
        if self.is_foreign_address(&key) {
            let message = format!(
                "{address} is on {} already and was not put there by this agent",
                key.device
            );
            self.unholdable(*address, Reason::ForeignObject, message);
            return;
        }
        let router = self.plan.spec.virtual_router_name.clone();
        let held = self.state.director_addresses.entry(router).or_default();
        let elsewhere = held
            .iter()
            .find(|other| other.address == key.address && other.device != key.device)
            .map(|other| other.device.clone());
        match elsewhere {
            None => {
                held.insert(key);
            }
            Some(other) => self.problem(
                Reason::Invalid,
                format!("{address} is to be on {} by this plan and on {other} by another of the same router", key.device),
            ),
        }
    }

    /// Whether this very address was put on this device by someone else. `IFA_PROTO` tells ours (Linux 5.18); before,
    /// only the journal does.
    fn is_foreign_address(&self, wanted: &AddressKey) -> bool {
        !self.journal.director_addresses.contains(wanted)
            && self
                .host
                .addresses
                .iter()
                .any(|(key, attributes)| key == wanted && attributes.protocol != OWNER_PROTOCOL)
    }

    fn timeouts(&mut self, timeouts: &Timeouts) {
        let wanted = IpvsTimeouts {
            tcp_seconds: timeouts.tcp_seconds,
            tcp_fin_seconds: timeouts.tcp_fin_seconds,
            udp_seconds: timeouts.udp_seconds,
        };
        match self.state.timeouts {
            Some(other) if other != wanted => self.problem(
                Reason::NodeSettingConflict,
                format!(
                    "IPVS timeouts {} {} {} asked for here, {} {} {} by another router; a node has one set",
                    wanted.tcp_seconds,
                    wanted.tcp_fin_seconds,
                    wanted.udp_seconds,
                    other.tcp_seconds,
                    other.tcp_fin_seconds,
                    other.udp_seconds
                ),
            ),
            _ => {
                self.state.timeouts = Some(wanted);
                self.claim(Object::Timeouts);
            }
        }
    }

    fn mark_rules(&mut self, marks: &PlannedFirewallMark) {
        for packets in &marks.matches {
            if !self.family_available(packets.address) {
                continue;
            }
            self.state.host.packet_rules.marks.push(MarkRule {
                packets: packets.clone(),
                mark: marks.mark,
            });
            self.claim(Object::PacketRules);
        }
    }

    fn service(&mut self, planned: &PlannedService, needs: &mut NodeNeeds) {
        let (first, last_offset) = match (&planned.address, &planned.firewall_mark) {
            (Some(address), None) => (
                ServiceKey::Address {
                    address: address.address,
                    protocol: address.protocol,
                    port: address.port,
                },
                if address.port == 0 {
                    0
                } else {
                    address.end_port.saturating_sub(address.port)
                },
            ),
            (None, Some(mark)) => (
                ServiceKey::FirewallMark {
                    mark: mark.mark,
                    family: mark.address_family,
                },
                0,
            ),
            (Some(_), Some(_)) | (None, None) => {
                self.problem(
                    Reason::Invalid,
                    "a planned service has not exactly one of address and firewallMark".to_owned(),
                );
                return;
            }
        };
        let family = first.family();
        if family == AddressFamily::IPv6 && !self.host.ipv6 {
            self.problem(
                Reason::IPv6Unavailable,
                format!(
                    "service {first} is IPv6, which the kernel of this node lacks or has disabled"
                ),
            );
            return;
        }
        let attributes = service_attributes(planned, family);
        let destinations = self.destinations(planned, first, last_offset, needs);
        let serving = self.serving.of(&self.plan.name, planned);
        let hidden = self.would_balance_again(planned);
        if hidden {
            let router = self.plan.spec.virtual_router_name.clone();
            self.state.incomplete_routers.insert(router);
        }
        let nat = destinations
            .iter()
            .any(|(_, destination)| destination.forwarding == DestinationForwarding::Masquerade)
            && forwards_by_nat(planned);
        for offset in 0..=last_offset {
            let key = first.at_offset(offset);
            if let ServiceKey::Address {
                protocol: Protocol::TCP,
                port: FTP_PORT,
                ..
            } = key
                && nat
            {
                self.state
                    .modules
                    .entry(FTP_MODULE)
                    .or_default()
                    .insert(self.plan.name.clone());
            }
            if hidden {
                // Its absence is what this plan wants.
                self.claim(Object::Service(key));
                continue;
            }
            let mut shifted: Vec<(DestinationKey, Destination)> = destinations
                .iter()
                .map(|(key, destination)| (key.at_offset(offset), *destination))
                .collect();
            let leaving = serving.and_then(|serving| serving.leaving.get(&key));
            for one in leaving.into_iter().flatten() {
                needs.note(one.attributes.forwarding, family);
                let place = shifted.binary_search_by(|(found, _)| found.cmp(&one.destination));
                if let Err(place) = place {
                    shifted.insert(place, (one.destination, one.attributes));
                }
            }
            self.claim_service(
                key,
                ServiceState {
                    service: attributes.clone(),
                    destinations: shifted,
                },
            );
        }
    }

    /// Whether the node is a backup and itself a DR or TUN real server of this service: the packets that the master
    /// forwards to it carry the virtual address, and its own IPVS would forward them again, back and forth until their
    /// TTL is used up. Such a node has the service only while it is master.
    fn would_balance_again(&self, planned: &PlannedService) -> bool {
        self.role == Some(RouterRole::Backup)
            && serves_what_it_balances(&self.plan.spec, std::slice::from_ref(planned))
    }

    /// Destinations of the first service of a range, sorted by key.
    fn destinations(
        &mut self,
        planned: &PlannedService,
        service: ServiceKey,
        last_offset: u16,
        needs: &mut NodeNeeds,
    ) -> Vec<(DestinationKey, Destination)> {
        let serving = self.serving.of(&self.plan.name, planned);
        let standing = |index: usize| {
            let known = serving.and_then(|serving| serving.real_servers.get(index));
            known.map(|known| known.weight)
        };
        let real_servers = planned.real_servers.iter().enumerate();
        let mut ordered: Vec<(&PlannedRealServer, Option<EffectiveWeight>)> = real_servers
            .map(|(index, real_server)| (real_server, standing(index)))
            .collect();
        ordered.sort_by(|(left, _), (right, _)| {
            (left.address, left.port, &left.name).cmp(&(right.address, right.port, &right.name))
        });
        let mut destinations: Vec<(DestinationKey, Destination)> =
            Vec::with_capacity(ordered.len());
        for (real_server, weight) in ordered {
            let Some((key, mut destination)) = self.destination(real_server, service, last_offset)
            else {
                continue;
            };
            if destinations.last().is_some_and(|(last, _)| *last == key) {
                self.problem(
                    Reason::DuplicateTarget,
                    format!(
                        "RealServer {} has the destination {key} of service {service} that another has too",
                        real_server.name
                    ),
                );
                continue;
            }
            needs.note(destination.forwarding, service.family());
            // What it needs of the node stays while it is out, so that no sysctl goes up and down with its health.
            match weight {
                Some(EffectiveWeight::Absent) => continue,
                Some(EffectiveWeight::Weight(weight)) => destination.weight = weight.into(),
                None => {}
            }
            destinations.push((key, destination));
        }
        if let Some(sorry_server) = &planned.sorry_server {
            let is_sorry = serving.is_some_and(|serving| serving.is_sorry);
            self.sorry_server(sorry_server, is_sorry, service, needs, &mut destinations);
        }
        destinations
    }

    fn destination(
        &mut self,
        real_server: &PlannedRealServer,
        service: ServiceKey,
        last_offset: u16,
    ) -> Option<(DestinationKey, Destination)> {
        let name = &real_server.name;
        let same_family = AddressFamily::of(&real_server.address) == service.family();
        let type_ = real_server.forwarding.type_;
        if !same_family && type_ != ForwardingType::TUN {
            self.problem(
                Reason::AddressFamilyMismatch,
                format!(
                    "RealServer {name} at {} cannot serve {service} by {type_:?}: only TUN crosses address families",
                    real_server.address
                ),
            );
            return None;
        }
        let service_port = match service {
            ServiceKey::Address { port, .. } => port,
            ServiceKey::FirewallMark { .. } => 0,
        };
        let director = self.plan.spec.director.as_ref();
        if director.is_some_and(|director| {
            source_nat::lacks_source(director, &real_server.forwarding, real_server.address)
        }) {
            self.problem(
                Reason::Invalid,
                format!(
                    "RealServer {name} at {}: FullNAT needs a source address of its family and the plan has none",
                    real_server.address
                ),
            );
            return None;
        }
        if !type_.translates() && real_server.port != service_port {
            self.problem(
                Reason::PortNotPermitted,
                format!(
                    "RealServer {name} has port {} for {service}: {type_:?} cannot change ports",
                    real_server.port
                ),
            );
            return None;
        }
        if real_server.port.checked_add(last_offset).is_none() {
            self.problem(
                Reason::PortNotPermitted,
                format!(
                    "RealServer {name}: a range of {} ports from {} ends above 65535",
                    u32::from(last_offset) + 1,
                    real_server.port
                ),
            );
            return None;
        }
        let Some(forwarding) = destination_forwarding(&real_server.forwarding) else {
            self.problem(
                Reason::Invalid,
                format!("RealServer {name}: a GUE tunnel needs a port"),
            );
            return None;
        };
        Some((
            DestinationKey {
                address: real_server.address,
                port: real_server.port,
            },
            Destination {
                forwarding,
                weight: u32::from(real_server.weight),
                upper_threshold: real_server.upper_threshold,
                lower_threshold: real_server.lower_threshold,
            },
        ))
    }

    fn director_sysctls(&mut self, needs: &NodeNeeds) {
        // A connection whose real server is gone ends with a reset instead of a silence, and a persistence template
        // of a real server with weight 0 is not renewed (Documentation/networking/ipvs-sysctl.rst).
        for name in ["expire_nodest_conn", "expire_quiescent_template"] {
            self.demand(SysctlKey::of_ipvs(name), SysctlDemand::Exactly(1));
        }
        if needs.tunnel {
            // The client learns of the smaller MTU inside the tunnel.
            self.demand(SysctlKey::of_ipvs("pmtu_disc"), SysctlDemand::Exactly(1));
        }
        for family in &needs.nat {
            self.demand_forwarding(*family);
        }
        let ipv4 = AddressFamily::IPv4;
        if needs.nat.contains(&ipv4) || needs.direct.contains(&ipv4) {
            self.demand_no_redirects();
        }
    }
}

/// Whether the node of this plan is itself a DR or TUN real server of one of the services.
pub fn serves_what_it_balances(plan: &NodePlanSpec, services: &[PlannedService]) -> bool {
    plan.real_server
        .as_ref()
        .is_some_and(receives_for_virtual_address)
        && services
            .iter()
            .flat_map(|service| &service.real_servers)
            .any(|real_server| !real_server.forwarding.type_.translates())
}

/// Whether clients' addresses stay where the destination is translated: for FTP the helper then finds its data
/// connections, which come from ports that no rule for source addresses knows.
fn forwards_by_nat(planned: &PlannedService) -> bool {
    let sorry_server = planned.sorry_server.iter();
    let mut forwardings = planned
        .real_servers
        .iter()
        .map(|real_server| &real_server.forwarding)
        .chain(sorry_server.map(|sorry_server| &sorry_server.forwarding));
    forwardings.any(|forwarding| forwarding.type_ == ForwardingType::NAT)
}

/// Whether packets for virtual addresses reach this node as they are.
fn receives_for_virtual_address(plan: &RealServerPlan) -> bool {
    !plan.direct_routing_addresses.is_empty() || !plan.tunnels.is_empty()
}

/// 32 or 128.
pub(super) const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn service_attributes(planned: &PlannedService, family: AddressFamily) -> Service {
    let mut flags = 0;
    let hashing = matches!(
        planned.scheduler.name,
        SchedulerName::Sh | SchedulerName::Mh
    );
    if hashing {
        // Without it the clients of a real server with weight 0 are refused instead of moved.
        flags |= ServiceFlags::FALLBACK;
        let port = planned.scheduler.options.iter().any(|option| {
            matches!(
                (planned.scheduler.name, option),
                (SchedulerName::Sh, SchedulerOption::ShPort)
                    | (SchedulerName::Mh, SchedulerOption::MhPort)
            )
        });
        if port {
            flags |= ServiceFlags::PORT;
        }
    }
    if planned.packet_scheduling == PacketScheduling::OnePacket {
        flags |= ServiceFlags::ONE_PACKET;
    }
    let whole = match family {
        AddressFamily::IPv4 => 32,
        AddressFamily::IPv6 => 128,
    };
    let (timeout_seconds, prefix_length, persistence_engine) = match &planned.persistence {
        None => (0, whole, None),
        Some(persistence) => {
            flags |= ServiceFlags::PERSISTENT;
            (
                persistence.timeout_seconds,
                match family {
                    AddressFamily::IPv4 => persistence.ipv4_prefix_length,
                    AddressFamily::IPv6 => persistence.ipv6_prefix_length,
                },
                persistence
                    .engine
                    .map(|PersistenceEngine::SIP| "sip".to_owned()),
            )
        }
    };
    Service {
        scheduler: planned.scheduler.name.as_str().to_owned(),
        flags: ServiceFlags(flags),
        timeout_seconds,
        prefix_length,
        persistence_engine,
    }
}

/// `None` = GUE without a port.
pub(crate) fn destination_forwarding(forwarding: &Forwarding) -> Option<DestinationForwarding> {
    Some(match forwarding.type_ {
        ForwardingType::NAT | ForwardingType::FullNAT => DestinationForwarding::Masquerade,
        ForwardingType::DR => DestinationForwarding::DirectRoute,
        ForwardingType::TUN => {
            let tunnel = forwarding.tunnel.clone().unwrap_or_default();
            // IP_VS_TUNNEL_ENCAP_FLAG_*, include/uapi/linux/ip_vs.h.
            let flags = match tunnel.checksum {
                TunnelChecksum::None => 0,
                TunnelChecksum::Checksum => 1,
                TunnelChecksum::RemoteChecksum => 2,
            };
            DestinationForwarding::Tunnel(match tunnel.type_ {
                TunnelType::IPIP => DestinationTunnel::IpIp,
                TunnelType::GUE => DestinationTunnel::Gue {
                    port: tunnel.port.filter(|port| *port != 0)?,
                    flags,
                },
                TunnelType::GRE => DestinationTunnel::Gre { flags },
            })
        }
    })
}
