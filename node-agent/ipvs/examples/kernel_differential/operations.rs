//! Sequences of operations that meet each other: few keys, every kind of value, some that the kernel refuses.

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::{SyncDaemon, SyncRole};
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;
use proptest::sample::select;

/// What sync daemons send and receive on.
pub const SYNC_DEVICE: &str = "sync0";

/// One sequence. It begins with the two services that most operations meet on.
pub fn sequence() -> impl Strategy<Value = Vec<IpvsOp>> {
    let first =
        (service(AddressFamily::IPv4), service(AddressFamily::IPv6)).prop_map(|(ipv4, ipv6)| {
            vec![
                IpvsOp::AddService(meeting_point("192.0.2.1"), ipv4),
                IpvsOp::AddService(meeting_point("2001:db8::1"), ipv6),
            ]
        });
    (first, prop::collection::vec(operation(), 1..60)).prop_map(|(mut first, rest)| {
        first.extend(rest);
        first
    })
}

fn meeting_point(address: &str) -> ServiceKey {
    ServiceKey::Address {
        address: parsed(address),
        protocol: Protocol::TCP,
        port: 80,
    }
}

fn operation() -> impl Strategy<Value = IpvsOp> {
    let keyed = || service_key().prop_flat_map(|key| (Just(key), service(key.family())));
    let placed = || service_key().prop_flat_map(|key| (Just(key), destination_key(key.family())));
    prop_oneof![
        4 => keyed().prop_map(|(key, service)| IpvsOp::AddService(key, service)),
        2 => keyed().prop_map(|(key, service)| IpvsOp::EditService(key, service)),
        1 => service_key().prop_map(IpvsOp::DeleteService),
        8 => (placed(), destination())
            .prop_map(|((key, target), state)| IpvsOp::AddDestination(key, target, state)),
        4 => (placed(), destination())
            .prop_map(|((key, target), state)| IpvsOp::EditDestination(key, target, state)),
        2 => placed().prop_map(|(key, target)| IpvsOp::DeleteDestination(key, target)),
        1 => (sync_role(), sync_daemon())
            .prop_map(|(role, daemon)| IpvsOp::StartSyncDaemon(role, daemon)),
        1 => sync_role().prop_map(IpvsOp::StopSyncDaemon),
        1 => [timeout(), timeout(), timeout()].prop_map(|[tcp_seconds, tcp_fin_seconds, udp_seconds]| {
            IpvsOp::SetTimeouts(IpvsTimeouts { tcp_seconds, tcp_fin_seconds, udp_seconds })
        }),
    ]
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    let address = select(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    let protocol = select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
    let port = select(vec![0_u16, 21, 80]);
    let family = select(vec![AddressFamily::IPv4, AddressFamily::IPv6]);
    prop_oneof![
        4 => Just(meeting_point("192.0.2.1")),
        4 => Just(meeting_point("2001:db8::1")),
        1 => (address, protocol, port).prop_map(|(address, protocol, port)| {
            ServiceKey::Address { address: parsed(address), protocol, port }
        }),
        1 => (select(vec![1, 0x8000_0005]), family)
            .prop_map(|(mark, family)| ServiceKey::FirewallMark { mark, family }),
    ]
}

fn parsed(text: &str) -> std::net::IpAddr {
    text.parse()
        .unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

fn service(family: AddressFamily) -> impl Strategy<Value = Service> {
    let schedulers = vec![
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
    ];
    let scheduler = prop_oneof![30 => select(schedulers), 1 => Just("absent")];
    let flags = select(vec![
        0,
        ServiceFlags::PERSISTENT,
        ServiceFlags::ONE_PACKET,
        ServiceFlags::FALLBACK,
        ServiceFlags::PORT,
        ServiceFlags::FALLBACK | ServiceFlags::PORT,
        ServiceFlags::SCHEDULER_3,
        ServiceFlags::OWNED,
    ]);
    let prefix_length = match family {
        AddressFamily::IPv4 => select(vec![0, 8, 24, 31, 32]),
        AddressFamily::IPv6 => select(vec![64, 1, 64, 127, 128, 64, 128, 128, 0]),
    };
    let engine = prop_oneof![30 => Just(None), 4 => Just(Some("sip")), 1 => Just(Some("absent"))];
    (scheduler, flags, timeout(), prefix_length, engine).prop_map(
        |(scheduler, flags, timeout_seconds, prefix_length, engine)| Service {
            scheduler: scheduler.to_owned(),
            flags: ServiceFlags(flags),
            timeout_seconds,
            prefix_length,
            persistence_engine: engine.map(str::to_owned),
        },
    )
}

fn sync_role() -> impl Strategy<Value = SyncRole> {
    select(vec![SyncRole::Master, SyncRole::Backup])
}

/// On a device that every namespace of the differential has.
fn sync_daemon() -> impl Strategy<Value = SyncDaemon> {
    (
        select(vec![0_u8, 1, 255]),
        select(vec!["224.0.0.81", "239.1.2.3", "ff02::81"]),
        select(vec![8848_u16, 8900]),
        select(vec![1_u8, 4]),
        select(vec![
            None,
            Some(1_u16),
            Some(1024),
            Some(1400),
            Some(65_535),
        ]),
    )
        .prop_map(|(sync_id, group, port, ttl, maximum_length)| SyncDaemon {
            device: SYNC_DEVICE.to_owned(),
            sync_id,
            group: parsed(group),
            port,
            ttl,
            maximum_length,
        })
}

fn timeout() -> impl Strategy<Value = u32> {
    select(vec![
        0,
        1,
        360,
        86_400,
        // INT_MAX and 32 bits of ticks, at 250 and at 100 a second.
        8_589_934,
        8_589_935,
        17_179_869,
        17_179_870,
        21_474_836,
        21_474_837,
        42_949_672,
        42_949_673,
        u32::MAX,
    ])
}

fn destination_key(family: AddressFamily) -> impl Strategy<Value = DestinationKey> {
    let ipv4 = vec![
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ];
    let ipv6 = vec![
        "2001:db8::11",
        "2001:db8::12",
        "fd00::1",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:198.51.100.1",
    ];
    let (same, other) = match family {
        AddressFamily::IPv4 => (ipv4, ipv6),
        AddressFamily::IPv6 => (ipv6, ipv4),
    };
    let usual: Vec<&str> = same.iter().take(3).copied().collect();
    let address = prop_oneof![12 => select(usual), 2 => select(same), 1 => select(other)];
    (address, select(vec![80_u16, 80, 0])).prop_map(|(address, port)| DestinationKey {
        address: parsed(address),
        port,
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    let forwarding = prop_oneof![
        Just(DestinationForwarding::Masquerade),
        Just(DestinationForwarding::DirectRoute),
        Just(DestinationForwarding::Tunnel(DestinationTunnel::IpIp)),
        (select(vec![6080, 6081, 65_535, 0_u16]), 0_u16..3).prop_map(|(port, flags)| {
            DestinationForwarding::Tunnel(DestinationTunnel::Gue { port, flags })
        }),
        (0_u16..2)
            .prop_map(|flags| DestinationForwarding::Tunnel(DestinationTunnel::Gre { flags })),
    ];
    let weight = prop_oneof![30 => select(vec![0, 1, 100, 65_535, 2_147_483_647]), 1 => Just(2_147_483_648_u32)];
    let upper = prop_oneof![20 => select(vec![0, 10, 1000, 2_147_483_647]), 1 => Just(u32::MAX)];
    let lower = prop_oneof![9 => Just(0), 1 => select(vec![10, 1000, u32::MAX])];
    (forwarding, weight, upper, lower).prop_map(
        |(forwarding, weight, upper_threshold, lower_threshold)| Destination {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        },
    )
}
