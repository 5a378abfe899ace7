//! Random plans, nodes and damage. The ranges are small so that plans collide, share and change each other's things.

use std::net::IpAddr;

use lvs_core::desired::{PlanInput, RouterRole};
use lvs_core::host::SysctlKey;
use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, Service, ServiceFlags, ServiceKey,
    ServiceState,
};
use lvs_core::model::Model;
use lvs_crds::node_plan::{
    DirectorPlan, MarkMatch, PlanState, PlannedAddress, PlannedFirewallMark, PlannedRealServer,
    PlannedService, PlannedSourceAddressPool, RealServerPlan, ReturnPath, ServiceAddress,
    ServiceFirewallMark, TunnelEndpoint,
};
use lvs_crds::traffic_policy::{AdministrativeState, OnFailure};
use lvs_crds::value::{
    AddressFamily, Forwarding, ForwardingType, FullNat, PacketScheduling, Persistence,
    PersistenceEngine, Protocol, Scheduler, SchedulerName, SchedulerOption, Tunnel, TunnelChecksum,
    TunnelType,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{ip, key, node, plan};

pub fn virtual_address() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "192.0.2.100",
        "192.0.2.101",
        "10.0.0.100",
        "2001:db8::100",
        // On no subnet of the node.
        "203.0.113.1",
    ])
    .prop_map(ip)
}

fn host_address() -> impl Strategy<Value = IpAddr> {
    select(vec![
        "192.0.2.10",
        "192.0.2.21",
        "192.0.2.22",
        "10.0.0.21",
        "10.0.0.22",
        "198.51.100.21",
        "2001:db8::21",
        "2001:db8::22",
    ])
    .prop_map(ip)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP])
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    (
        select(vec![TunnelType::IPIP, TunnelType::GUE, TunnelType::GRE]),
        select(vec![TunnelChecksum::None, TunnelChecksum::Checksum]),
        select(vec![None, Some(6080), Some(6081)]),
    )
        .prop_map(|(type_, checksum, port)| Tunnel {
            type_,
            port,
            checksum,
        })
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    (
        select(vec![
            ForwardingType::NAT,
            ForwardingType::DR,
            ForwardingType::TUN,
            ForwardingType::FullNAT,
        ]),
        tunnel(),
        select(vec!["snat", "narrow"]),
    )
        .prop_map(|(type_, tunnel, pool)| Forwarding {
            type_,
            tunnel: (type_ == ForwardingType::TUN).then_some(tunnel),
            full_nat: (type_ == ForwardingType::FullNAT).then(|| FullNat {
                source_address_pool_name: pool.to_owned(),
            }),
        })
}

/// Of one pool one family is missing, or the other pool is.
fn source_address_pools() -> impl Strategy<Value = Vec<PlannedSourceAddressPool>> {
    let pool = |name: &str, addresses: &[&str]| PlannedSourceAddressPool {
        name: name.to_owned(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
    };
    let narrow = pool("narrow", &["192.0.2.240"]);
    let snat = pool("snat", &["192.0.2.240", "192.0.2.241", "2001:db8::240"]);
    select(vec![
        vec![snat.clone()],
        vec![narrow.clone(), snat],
        vec![narrow],
    ])
}

fn planned_real_server() -> impl Strategy<Value = PlannedRealServer> {
    (
        host_address(),
        select(vec![0_u16, 80, 81, 8080, 65535]),
        0..4_u16,
        forwarding(),
        select(vec![(0, 0), (10, 5), (10, 0)]),
    )
        .prop_map(
            |(address, port, weight, forwarding, (upper_threshold, lower_threshold))| {
                PlannedRealServer {
                    name: format!("rs-{address}"),
                    address,
                    port,
                    weight,
                    forwarding,
                    upper_threshold,
                    lower_threshold,
                    administrative_state: AdministrativeState::Enabled,
                    checks: None,
                }
            },
        )
}

fn scheduler() -> impl Strategy<Value = Scheduler> {
    select(vec![
        (SchedulerName::Rr, None),
        (SchedulerName::Wlc, None),
        (SchedulerName::Sh, None),
        (SchedulerName::Sh, Some(SchedulerOption::ShPort)),
        (SchedulerName::Mh, Some(SchedulerOption::MhPort)),
    ])
    .prop_map(|(name, option)| Scheduler {
        name,
        options: option.into_iter().collect(),
    })
}

fn persistence() -> impl Strategy<Value = Persistence> {
    (
        select(vec![50_u32, 300]),
        select(vec![24_u8, 32]),
        select(vec![64_u8, 128]),
        option::of(Just(PersistenceEngine::SIP)),
    )
        .prop_map(
            |(timeout_seconds, ipv4_prefix_length, ipv6_prefix_length, engine)| Persistence {
                timeout_seconds,
                ipv4_prefix_length,
                ipv6_prefix_length,
                engine,
            },
        )
}

type Packets = (Option<ServiceAddress>, Option<ServiceFirewallMark>);

fn packets() -> impl Strategy<Value = Packets> {
    prop_oneof![
        4 => (virtual_address(), protocol(), select(vec![0_u16, 21, 80, 81]), 0..3_u16).prop_map(
            |(address, protocol, port, more)| {
                let end_port = if port == 0 { 0 } else { port + more };
                (Some(ServiceAddress { address, protocol, port, end_port }), None)
            }
        ),
        1 => (1..3_u32, select(vec![AddressFamily::IPv4, AddressFamily::IPv6])).prop_map(
            |(mark, address_family)| (None, Some(ServiceFirewallMark { mark, address_family }))
        ),
    ]
}

fn planned_service() -> impl Strategy<Value = PlannedService> {
    (
        packets(),
        scheduler(),
        option::of(persistence()),
        select(vec![
            PacketScheduling::PerConnection,
            PacketScheduling::OnePacket,
        ]),
        vec(planned_real_server(), 0..5),
    )
        .prop_map(
            |(
                (address, firewall_mark),
                scheduler,
                persistence,
                packet_scheduling,
                mut real_servers,
            )| {
                // As often as not a port that DR and TUN can serve.
                let port = address.as_ref().map_or(0, |address| address.port);
                for (index, real_server) in real_servers.iter_mut().enumerate() {
                    if index % 4 != 3 {
                        real_server.port = port;
                    }
                }
                PlannedService {
                    address,
                    firewall_mark,
                    port_name: None,
                    scheduler,
                    persistence,
                    packet_scheduling,
                    real_servers,
                    checks: Vec::new(),
                    on_failure: OnFailure::Remove,
                    quorum: None,
                    sorry_server: None,
                    drain_timeout_seconds: None,
                    slow_start_seconds: 0,
                }
            },
        )
}

fn planned_mark() -> impl Strategy<Value = PlannedFirewallMark> {
    (
        1..3_u32,
        vec(
            (virtual_address(), protocol(), select(vec![0_u16, 80, 443])).prop_map(
                |(address, protocol, port)| MarkMatch {
                    address,
                    protocol,
                    port,
                    end_port: port,
                },
            ),
            1..3,
        ),
    )
        .prop_map(|(mark, matches)| PlannedFirewallMark { mark, matches })
}

fn director() -> impl Strategy<Value = DirectorPlan> {
    (
        vec(
            (
                virtual_address(),
                select(vec![vec![], vec!["eth9".to_owned(), "eth0".to_owned()]]),
            )
                .prop_map(|(address, devices)| PlannedAddress { address, devices }),
            0..3,
        ),
        vec(planned_mark(), 0..2),
        vec(planned_service(), 0..4),
        source_address_pools(),
    )
        .prop_map(
            |(addresses, firewall_marks, services, source_address_pools)| DirectorPlan {
                source_address_pools,
                leadership: None,
                addresses,
                firewall_marks,
                services,
                certificate_authorities: Vec::new(),
                checks: Vec::new(),
            },
        )
}

fn endpoint() -> impl Strategy<Value = TunnelEndpoint> {
    (
        select(vec!["192.0.2.10", "10.0.0.10", "2001:db8::10"]),
        tunnel(),
        vec(virtual_address(), 0..3),
    )
        .prop_map(|(local, tunnel, virtual_addresses)| TunnelEndpoint {
            local_address: ip(local),
            tunnel,
            virtual_addresses,
        })
}

fn return_path() -> impl Strategy<Value = ReturnPath> {
    (
        select(vec!["192.0.2.10", "10.0.0.10", "2001:db8::10"]),
        protocol(),
        select(vec![0_u16, 80, 82]),
        vec(
            select(vec![
                "10.0.0.1",
                "10.0.0.2",
                "10.0.0.10",
                "192.0.2.1",
                "2001:db8::1",
                "172.16.0.1",
            ]),
            0..3,
        ),
    )
        .prop_map(|(source, protocol, port, gateways)| ReturnPath {
            source_address: ip(source),
            protocol,
            port,
            end_port: port,
            gateways: gateways.into_iter().map(ip).collect(),
        })
}

fn planned_as_real_server() -> impl Strategy<Value = RealServerPlan> {
    (
        vec(virtual_address(), 0..3),
        vec(endpoint(), 0..3),
        vec(return_path(), 0..3),
    )
        .prop_map(
            |(direct_routing_addresses, tunnels, return_paths)| RealServerPlan {
                direct_routing_addresses,
                tunnels,
                return_paths,
            },
        )
}

fn state() -> impl Strategy<Value = PlanState> {
    prop_oneof![
        6 => Just(PlanState::Active),
        1 => Just(PlanState::Leaving),
        1 => Just(PlanState::Retained),
        2 => Just(PlanState::Withdrawn),
    ]
}

/// Up to four plans with different names.
pub fn plans() -> impl Strategy<Value = Vec<PlanInput>> {
    vec(
        option::weighted(
            0.7,
            (
                state(),
                option::weighted(0.7, director()),
                option::weighted(0.5, planned_as_real_server()),
            ),
        ),
        4,
    )
    .prop_map(|list| {
        list.into_iter()
            .enumerate()
            .filter_map(|(index, content)| {
                let (state, director, real_server) = content?;
                let mut result = plan(&format!("vs-{index}"));
                result.spec.state = state;
                result.spec.director = director;
                result.spec.real_server = real_server;
                Some(result)
            })
            .collect()
    })
}

pub fn role() -> impl Strategy<Value = RouterRole> {
    select(vec![RouterRole::Master, RouterRole::Backup])
}

/// A node whose administrator has set this and that, and runs IPVS services of their own beside ours.
pub fn any_node() -> impl Strategy<Value = Model> {
    let settings = vec(
        (
            select(vec![
                "net/ipv4/ip_forward",
                "net/ipv4/conf/all/arp_ignore",
                "net/ipv4/conf/all/arp_announce",
                "net/ipv4/conf/eth0/arp_ignore",
                "net/ipv4/conf/eth0/arp_announce",
                "net/ipv4/conf/eth1/forwarding",
                "net/ipv4/conf/all/accept_redirects",
                "net/ipv4/conf/eth0/send_redirects",
                "net/ipv6/conf/all/forwarding",
                "net/ipv6/conf/eth0/accept_ra",
                "net/ipv6/conf/eth1/forwarding",
                "net/ipv4/vs/expire_nodest_conn",
            ]),
            select(vec!["0", "1"]),
        ),
        0..6,
    );
    (settings, foreign_services()).prop_map(|(settings, services)| {
        let mut model = node();
        for (name, value) in settings {
            // As an administrator would, side effects included.
            let op = lvs_core::op::HostOp::SetSysctl {
                key: SysctlKey(name.to_owned()),
                value: value.to_owned(),
            };
            model.host.apply(&op).unwrap();
        }
        model.host.add_foreign_link("lvs-other", false, true);
        model
            .host
            .add_foreign_address(key("lvs-other", "192.0.2.200", 32));
        model.ipvs.services = services;
        model
    })
}

/// Services that are not ours, some at keys that plans want.
fn foreign_services() -> impl Strategy<Value = lvs_core::ipvs::Services> {
    vec(
        (virtual_address(), protocol(), select(vec![80_u16, 9000])),
        0..3,
    )
    .prop_map(|keys| {
        keys.into_iter()
            .map(|(address, protocol, port)| {
                (
                    ServiceKey::Address {
                        address,
                        protocol,
                        port,
                    },
                    ServiceState {
                        service: Service {
                            scheduler: "lc".to_owned(),
                            flags: ServiceFlags(0),
                            timeout_seconds: 0,
                            prefix_length: if address.is_ipv4() { 32 } else { 128 },
                            persistence_engine: None,
                        },
                        destinations: vec![(
                            DestinationKey {
                                address: ip("198.51.100.99"),
                                port,
                            },
                            Destination {
                                forwarding: DestinationForwarding::Tunnel(
                                    lvs_core::ipvs::DestinationTunnel::IpIp,
                                ),
                                weight: 7,
                                upper_threshold: 0,
                                lower_threshold: 0,
                            },
                        )],
                    },
                )
            })
            .collect()
    })
}
