//! Arbitrary rules and operations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::{SyncDaemon, SyncRole};
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
    ]
}

/// Any key.
pub fn service_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![
        Just(Protocol::TCP),
        Just(Protocol::UDP),
        Just(Protocol::SCTP)
    ];
    let family = prop_oneof![Just(AddressFamily::IPv4), Just(AddressFamily::IPv6)];
    prop_oneof![
        (address(), protocol, any::<u16>()).prop_map(|(address, protocol, port)| {
            ServiceKey::Address {
                address,
                protocol,
                port,
            }
        }),
        (1_u32.., family).prop_map(|(mark, family)| ServiceKey::FirewallMark { mark, family }),
    ]
}

/// Any service that fits the family.
pub fn service(family: AddressFamily) -> impl Strategy<Value = Service> {
    let prefix_length = match family {
        AddressFamily::IPv4 => 0_u8..=32,
        AddressFamily::IPv6 => 1_u8..=128,
    };
    let engine = prop_oneof![Just(None), Just(Some("sip".to_owned()))];
    (
        "[a-z]{1,15}",
        any::<u32>(),
        any::<u32>(),
        prefix_length,
        engine,
    )
        .prop_map(
            |(scheduler, flags, timeout_seconds, prefix_length, persistence_engine)| Service {
                scheduler,
                flags: ServiceFlags(flags & ServiceFlags::OWNED),
                timeout_seconds,
                prefix_length,
                persistence_engine,
            },
        )
}

/// Any destination key.
pub fn destination_key() -> impl Strategy<Value = DestinationKey> {
    (address(), any::<u16>()).prop_map(|(address, port)| DestinationKey { address, port })
}

/// Any destination.
pub fn destination() -> impl Strategy<Value = Destination> {
    let forwarding = prop_oneof![
        Just(DestinationForwarding::Masquerade),
        Just(DestinationForwarding::LocalNode),
        Just(DestinationForwarding::DirectRoute),
        Just(DestinationForwarding::Bypass),
        Just(DestinationForwarding::Tunnel(DestinationTunnel::IpIp)),
        (any::<u16>(), any::<u16>()).prop_map(|(port, flags)| {
            DestinationForwarding::Tunnel(DestinationTunnel::Gue { port, flags })
        }),
        any::<u16>()
            .prop_map(|flags| { DestinationForwarding::Tunnel(DestinationTunnel::Gre { flags }) }),
    ];
    (forwarding, any::<[u32; 3]>()).prop_map(
        |(forwarding, [weight, upper_threshold, lower_threshold])| Destination {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        },
    )
}

/// Either daemon.
pub fn sync_role() -> impl Strategy<Value = SyncRole> {
    prop_oneof![Just(SyncRole::Master), Just(SyncRole::Backup)]
}

/// Any set-up of a daemon.
pub fn sync_daemon() -> impl Strategy<Value = SyncDaemon> {
    (
        "[a-z0-9.]{1,15}",
        any::<u8>(),
        address(),
        any::<u16>(),
        any::<u8>(),
        prop::option::of(any::<u16>()),
    )
        .prop_map(
            |(device, sync_id, group, port, ttl, maximum_length)| SyncDaemon {
                device,
                sync_id,
                group,
                port,
                ttl,
                maximum_length,
            },
        )
}

/// Any operation.
pub fn operation() -> impl Strategy<Value = IpvsOp> {
    let keyed = || service_key().prop_flat_map(|key| (Just(key), service(key.family())));
    prop_oneof![
        keyed().prop_map(|(key, service)| IpvsOp::AddService(key, service)),
        keyed().prop_map(|(key, service)| IpvsOp::EditService(key, service)),
        service_key().prop_map(IpvsOp::DeleteService),
        (service_key(), destination_key(), destination())
            .prop_map(|(key, target, state)| IpvsOp::AddDestination(key, target, state)),
        (service_key(), destination_key(), destination())
            .prop_map(|(key, target, state)| IpvsOp::EditDestination(key, target, state)),
        (service_key(), destination_key())
            .prop_map(|(key, target)| IpvsOp::DeleteDestination(key, target)),
        (sync_role(), sync_daemon())
            .prop_map(|(role, daemon)| IpvsOp::StartSyncDaemon(role, daemon)),
        sync_role().prop_map(IpvsOp::StopSyncDaemon),
        any::<[u32; 3]>().prop_map(|[tcp_seconds, tcp_fin_seconds, udp_seconds]| {
            IpvsOp::SetTimeouts(IpvsTimeouts {
                tcp_seconds,
                tcp_fin_seconds,
                udp_seconds,
            })
        }),
    ]
}
