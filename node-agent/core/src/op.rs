//! Operations as data. The Display of each is one line: dry run, log, golden file and Event show the same text.

use std::fmt;
use std::net::Ipv4Addr;

use lvs_crds::value::AddressFamily;
use serde::{Deserialize, Serialize};

use crate::fence::claim::HardwareAddress;
use crate::host::{
    AddressKey, DefaultRoute, FouPort, LinkKind, PacketRules, PolicyRule, SysctlKey,
};
use crate::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey,
};
use crate::sync_daemon::{SyncDaemon, SyncRole};

/// An IPVS operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpvsOp {
    /// ipvsadm -A.
    AddService(ServiceKey, Service),
    /// ipvsadm -E.
    EditService(ServiceKey, Service),
    /// ipvsadm -D.
    DeleteService(ServiceKey),
    /// ipvsadm -a.
    AddDestination(ServiceKey, DestinationKey, Destination),
    /// ipvsadm -e.
    EditDestination(ServiceKey, DestinationKey, Destination),
    /// ipvsadm -d.
    DeleteDestination(ServiceKey, DestinationKey),
    /// ipvsadm --set.
    SetTimeouts(IpvsTimeouts),
    /// ipvsadm --start-daemon.
    StartSyncDaemon(SyncRole, SyncDaemon),
    /// ipvsadm --stop-daemon.
    StopSyncDaemon(SyncRole),
}

/// An operation on the rest of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostOp {
    /// Make a device, up.
    AddLink {
        /// Name.
        name: String,
        /// Kind.
        kind: LinkKind,
    },
    /// Set a device of ours up.
    SetLinkUp {
        /// Name.
        name: String,
    },
    /// Remove a device of ours.
    DeleteLink {
        /// Name.
        name: String,
    },
    /// Add a permanent address on a device of ours (nodad, noprefixroute; IPv6 deprecated).
    AddAddress(AddressKey),
    /// Remove an address from a device of ours.
    DeleteAddress(AddressKey),
    /// Write a sysctl.
    SetSysctl {
        /// Which.
        key: SysctlKey,
        /// New value.
        value: String,
    },
    /// ip fou add port N gue.
    AddFouPort(FouPort),
    /// ip fou del port N.
    DeleteFouPort(FouPort),
    /// ip route add default.
    AddRoute(DefaultRoute),
    /// ip route del default.
    DeleteRoute(DefaultRoute),
    /// ip rule add.
    AddPolicyRule(PolicyRule),
    /// ip rule del.
    DeletePolicyRule(PolicyRule),
    /// Write our nftables table anew, in one transaction.
    ReplacePacketRules(PacketRules),
    /// Delete our nftables table.
    DeletePacketRules,
}

/// Any operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// On IPVS.
    Ipvs(IpvsOp),
    /// On the rest of the host.
    Host(HostOp),
}

struct ServiceText<'a>(&'a ServiceKey, &'a Service);

impl fmt::Display for ServiceText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service {
            scheduler,
            flags,
            timeout_seconds,
            prefix_length,
            persistence_engine,
        } = self.1;
        write!(formatter, "-s {scheduler}")?;
        let ServiceFlags(bits) = flags;
        if bits & ServiceFlags::PERSISTENT != 0 {
            write!(formatter, " -p {timeout_seconds}")?;
            match self.0.family() {
                AddressFamily::IPv4 if *prefix_length != 32 => {
                    let mask = u32::MAX
                        .checked_shl(32_u32.saturating_sub(u32::from(*prefix_length)))
                        .unwrap_or(0);
                    write!(formatter, " -M {}", Ipv4Addr::from_bits(mask))?;
                }
                AddressFamily::IPv6 if *prefix_length != 128 => {
                    write!(formatter, " -M {prefix_length}")?;
                }
                _ => {}
            }
        }
        if let Some(engine) = persistence_engine {
            write!(formatter, " --pe {engine}")?;
        }
        if bits & ServiceFlags::ONE_PACKET != 0 {
            formatter.write_str(" -o")?;
        }
        let names = flags.scheduler_words(scheduler);
        if !names.is_empty() {
            write!(formatter, " -b {}", names.join(","))?;
        }
        Ok(())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.forwarding {
            DestinationForwarding::Masquerade => "-m",
            DestinationForwarding::DirectRoute => "-g",
            DestinationForwarding::LocalNode => "(local)",
            DestinationForwarding::Bypass => "(bypass)",
            DestinationForwarding::Tunnel(_) => "-i",
        })?;
        write!(formatter, " -w {}", self.weight)?;
        if self.upper_threshold != 0 {
            write!(formatter, " -x {}", self.upper_threshold)?;
        }
        if self.lower_threshold != 0 {
            write!(formatter, " -y {}", self.lower_threshold)?;
        }
        let flags = match self.forwarding {
            DestinationForwarding::Tunnel(DestinationTunnel::Gue { port, flags }) => {
                write!(formatter, " --tun-type gue --tun-port {port}")?;
                flags
            }
            DestinationForwarding::Tunnel(DestinationTunnel::Gre { flags }) => {
                formatter.write_str(" --tun-type gre")?;
                flags
            }
            _ => return Ok(()),
        };
        match flags {
            0 => formatter.write_str(" --tun-nocsum"),
            1 => formatter.write_str(" --tun-csum"),
            2 => formatter.write_str(" --tun-remcsum"),
            other => write!(formatter, " (tunnel flags {other:#x})"),
        }
    }
}

/// ipvsadm's own words: what its `-R` reads and its `-Sn` prints.
impl fmt::Display for IpvsOp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(key, service) => {
                write!(formatter, "-A {key} {}", ServiceText(key, service))
            }
            Self::EditService(key, service) => {
                write!(formatter, "-E {key} {}", ServiceText(key, service))
            }
            Self::DeleteService(key) => write!(formatter, "-D {key}"),
            Self::AddDestination(key, destination, state) => {
                write!(formatter, "-a {key} -r {destination} {state}")
            }
            Self::EditDestination(key, destination, state) => {
                write!(formatter, "-e {key} -r {destination} {state}")
            }
            Self::DeleteDestination(key, destination) => {
                write!(formatter, "-d {key} -r {destination}")
            }
            Self::SetTimeouts(timeouts) => write!(
                formatter,
                "--set {} {} {}",
                timeouts.tcp_seconds, timeouts.tcp_fin_seconds, timeouts.udp_seconds
            ),
            Self::StartSyncDaemon(role, daemon) => {
                write!(formatter, "--start-daemon {role} {daemon}")
            }
            Self::StopSyncDaemon(role) => write!(formatter, "--stop-daemon {role}"),
        }
    }
}

impl fmt::Display for HostOp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink { name, kind } => {
                write!(formatter, "link add {name} type {}", kind.as_str())?;
                if let Some(local) = kind.local() {
                    write!(formatter, " local {local}")?;
                }
                if kind.expects_checksum() {
                    formatter.write_str(" icsum")?;
                }
                if let LinkKind::Macvlan {
                    parent,
                    hardware_address,
                } = kind
                {
                    let address = HardwareAddress(*hardware_address);
                    write!(formatter, " mode private link if{parent} address {address}")?;
                }
                Ok(())
            }
            Self::SetLinkUp { name } => write!(formatter, "link set {name} up"),
            Self::DeleteLink { name } => write!(formatter, "link delete {name}"),
            Self::AddAddress(key) => {
                write!(
                    formatter,
                    "addr add {}/{} dev {}",
                    key.address, key.prefix_length, key.device
                )
            }
            Self::DeleteAddress(key) => {
                write!(
                    formatter,
                    "addr del {}/{} dev {}",
                    key.address, key.prefix_length, key.device
                )
            }
            Self::SetSysctl { key, value } => write!(formatter, "sysctl {key}={value}"),
            Self::AddFouPort(fou) => {
                write!(formatter, "fou add port {} gue {:?}", fou.port, fou.family)
            }
            Self::DeleteFouPort(fou) => {
                write!(formatter, "fou del port {} {:?}", fou.port, fou.family)
            }
            Self::AddRoute(route) => write!(
                formatter,
                "route add default via {} dev {} table {}",
                route.gateway, route.device, route.table
            ),
            Self::DeleteRoute(route) => write!(
                formatter,
                "route del default via {} dev {} table {}",
                route.gateway, route.device, route.table
            ),
            Self::AddPolicyRule(rule) => write!(formatter, "rule add {}", RuleText(rule)),
            Self::DeletePolicyRule(rule) => write!(formatter, "rule del {}", RuleText(rule)),
            Self::ReplacePacketRules(rules) => {
                let PacketRules { marks, source_nat } = rules;
                write!(
                    formatter,
                    "nft replace {} mark rules, {} source NAT rules",
                    marks.len(),
                    source_nat.len()
                )
            }
            Self::DeletePacketRules => formatter.write_str("nft delete table"),
        }
    }
}

struct RuleText<'a>(&'a PolicyRule);

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(
            formatter,
            "priority {} from {} ipproto {} sport {}-{} lookup {}",
            rule.priority,
            rule.source,
            rule.protocol.to_string().to_lowercase(),
            rule.port,
            rule.end_port,
            rule.table
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipvs(op) => write!(formatter, "ipvs {op}"),
            Self::Host(op) => op.fmt(formatter),
        }
    }
}
