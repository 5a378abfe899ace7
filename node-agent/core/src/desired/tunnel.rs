//! Devices at which tunnels end on a real server.

use std::net::IpAddr;

use lvs_crds::value::{AddressFamily, Tunnel, TunnelChecksum, TunnelType};

use crate::host::{DEVICE_PREFIX, LinkKind};

/// The device that unwraps a packet of `inner` family sent to `local`. GUE is unwrapped by a foo-over-udp port, which
/// hands the inner packet to the same devices as IPIP.
pub(super) fn tunnel_kind(tunnel: &Tunnel, local: IpAddr, inner: AddressFamily) -> LinkKind {
    let checksum = tunnel.checksum != TunnelChecksum::None;
    match (tunnel.type_, local, inner) {
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V4(_), AddressFamily::IPv4) => {
            LinkKind::IpIp(local)
        }
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V4(_), AddressFamily::IPv6) => {
            LinkKind::Sit(local)
        }
        (TunnelType::IPIP | TunnelType::GUE, IpAddr::V6(_), _) => LinkKind::Ip6Tunnel(local),
        (TunnelType::GRE, IpAddr::V4(_), _) if checksum => LinkKind::GreChecksum(local),
        (TunnelType::GRE, IpAddr::V6(_), _) if checksum => LinkKind::Ip6GreChecksum(local),
        (TunnelType::GRE, IpAddr::V4(_), _) => LinkKind::Gre(local),
        (TunnelType::GRE, IpAddr::V6(_), _) => LinkKind::Ip6Gre(local),
    }
}

/// Name of the device of a kind: `lvs-<kind>` and five characters from its local address, 15 at most (`IFNAMSIZ`).
/// The same on every start, so that a restarted agent finds its device.
pub fn tunnel_device_name(kind: LinkKind) -> String {
    let Some(local) = kind.local() else {
        return crate::host::DIRECT_ROUTING_DEVICE.to_owned();
    };
    let hash = match local {
        IpAddr::V4(address) => short_hash(&address.octets()),
        IpAddr::V6(address) => short_hash(&address.octets()),
    };
    format!("{DEVICE_PREFIX}{}{hash:05x}", kind.as_str())
}

/// 20 bits that tell apart what has no room in a device's name. FNV-1a; the name must not change with the version of a
/// hashing library.
pub(super) fn short_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 20) ^ (hash >> 40)) & 0xf_ffff
}
