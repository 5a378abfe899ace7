//! Things on a node that one operation makes, changes or removes: what a failure is about, and what a plan lays claim to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::{AddressKey, DefaultRoute, FouPort, PolicyRule, SysctlKey};
use crate::ipvs::ServiceKey;
use crate::op::{HostOp, IpvsOp, Op};
use crate::sync_daemon::SyncRole;

/// A thing on the node, by identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Object {
    /// An IPVS service with its destinations.
    Service(ServiceKey),
    /// The IPVS timeouts of the network namespace.
    Timeouts,
    /// An IPVS sync daemon.
    SyncDaemon(SyncRole),
    /// A device.
    Link(String),
    /// An address on a device.
    Address(AddressKey),
    /// A sysctl.
    Sysctl(SysctlKey),
    /// A foo-over-udp port.
    FouPort(FouPort),
    /// A route.
    Route(DefaultRoute),
    /// A policy rule.
    PolicyRule(PolicyRule),
    /// Our nftables table.
    PacketRules,
}

impl Object {
    /// Every word of [`Object::kind`].
    pub const KINDS: [&'static str; 10] = [
        "Service",
        "Timeouts",
        "SyncDaemon",
        "Link",
        "Address",
        "Sysctl",
        "FouPort",
        "Route",
        "PolicyRule",
        "PacketRules",
    ];

    /// Word for what kind of thing it is, in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::Timeouts => "Timeouts",
            Self::SyncDaemon(_) => "SyncDaemon",
            Self::Link(_) => "Link",
            Self::Address(_) => "Address",
            Self::Sysctl(_) => "Sysctl",
            Self::FouPort(_) => "FouPort",
            Self::Route(_) => "Route",
            Self::PolicyRule(_) => "PolicyRule",
            Self::PacketRules => "PacketRules",
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(formatter, "IPVS service {key}"),
            Self::Timeouts => formatter.write_str("IPVS timeouts"),
            Self::SyncDaemon(role) => write!(formatter, "IPVS sync daemon {role}"),
            Self::Link(name) => write!(formatter, "device {name}"),
            Self::Address(key) => write!(
                formatter,
                "address {}/{} on {}",
                key.address, key.prefix_length, key.device
            ),
            Self::Sysctl(key) => write!(formatter, "sysctl {key}"),
            Self::FouPort(fou) => write!(formatter, "GUE port {} ({:?})", fou.port, fou.family),
            Self::Route(route) => write!(
                formatter,
                "default route via {} in table {}",
                route.gateway, route.table
            ),
            Self::PolicyRule(rule) => write!(
                formatter,
                "policy rule from {} to table {}",
                rule.source, rule.table
            ),
            Self::PacketRules => formatter.write_str("nftables rules"),
        }
    }
}

impl Op {
    /// The thing this operation is about.
    pub fn object(&self) -> Object {
        match self {
            Self::Ipvs(op) => op.object(),
            Self::Host(op) => op.object(),
        }
    }
}

impl IpvsOp {
    /// The thing this operation is about.
    pub const fn object(&self) -> Object {
        match self {
            Self::AddService(key, _)
            | Self::EditService(key, _)
            | Self::DeleteService(key)
            | Self::AddDestination(key, _, _)
            | Self::EditDestination(key, _, _)
            | Self::DeleteDestination(key, _) => Object::Service(*key),
            Self::SetTimeouts(_) => Object::Timeouts,
            Self::StartSyncDaemon(role, _) | Self::StopSyncDaemon(role) => {
                Object::SyncDaemon(*role)
            }
        }
    }
}

impl HostOp {
    /// The thing this operation is about.
    pub fn object(&self) -> Object {
        match self {
            Self::AddLink { name, .. } | Self::SetLinkUp { name } | Self::DeleteLink { name } => {
                Object::Link(name.clone())
            }
            Self::AddAddress(key) | Self::DeleteAddress(key) => Object::Address(key.clone()),
            Self::SetSysctl { key, .. } => Object::Sysctl(key.clone()),
            Self::AddFouPort(fou) | Self::DeleteFouPort(fou) => Object::FouPort(*fou),
            Self::AddRoute(route) | Self::DeleteRoute(route) => Object::Route(route.clone()),
            Self::AddPolicyRule(rule) | Self::DeletePolicyRule(rule) => {
                Object::PolicyRule(rule.clone())
            }
            Self::ReplacePacketRules(_) | Self::DeletePacketRules => Object::PacketRules,
        }
    }
}

/// Whether `later` must not run because `failed` (earlier in the same list) did not succeed.
/// Everything else continues: one refused service does not stop the others.
pub fn blocked_by(later: &Op, failed: &Op) -> bool {
    let (later, failed) = match (later, failed) {
        (Op::Ipvs(later), Op::Ipvs(failed)) => {
            // Destinations need their service; an edit that was refused stops nothing.
            return matches!(failed, IpvsOp::AddService(key, _) if later.object() == Object::Service(*key));
        }
        // Connections whose source stays the client's would get no answer; without a destination they are refused.
        (
            Op::Ipvs(IpvsOp::AddDestination(service, ..)),
            Op::Host(HostOp::ReplacePacketRules(rules)),
        ) => {
            return rules.translates_for(service);
        }
        // A mark without a service and a service without its mark both leave the packet to the host: neither waits.
        (Op::Ipvs(_), Op::Host(_)) | (Op::Host(_), Op::Ipvs(_)) => return false,
        (Op::Host(later), Op::Host(failed)) => (later, failed),
    };
    match failed {
        // A device's addresses, sysctls and everything else on it need the device.
        HostOp::AddLink { name, .. } | HostOp::SetLinkUp { name } => match later {
            HostOp::AddAddress(key) => key.device == *name,
            HostOp::SetSysctl { key, .. } => key.device() == Some(name),
            HostOp::SetLinkUp { name: other } => other == name,
            _ => false,
        },
        // An address that neighbours would be told of must not appear.
        HostOp::SetSysctl { key, .. } if key.is_arp() => {
            matches!(later, HostOp::AddAddress(address) if address.address.is_ipv4())
        }
        // Forwarding without this would lose the routes learned from router advertisements.
        HostOp::SetSysctl { key, .. } if key.is_accept_ra() => {
            matches!(later, HostOp::SetSysctl { key, .. } if key.is_ipv6_forwarding())
        }
        // While the address is there, ARP stays quiet.
        HostOp::DeleteAddress(address) => match later {
            HostOp::SetSysctl { key, .. } => address.address.is_ipv4() && key.is_arp(),
            HostOp::DeleteLink { name } => *name == address.device,
            _ => false,
        },
        // A device that is replaced by another of its name.
        HostOp::DeleteLink { name } => {
            matches!(later, HostOp::AddLink { name: other, .. } if other == name)
        }
        HostOp::AddRoute(route) => {
            matches!(later, HostOp::AddPolicyRule(rule) if rule.table == route.table)
        }
        HostOp::DeletePolicyRule(rule) => {
            matches!(later, HostOp::DeleteRoute(route) if route.table == rule.table)
        }
        _ => false,
    }
}
