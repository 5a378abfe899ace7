//! Replies, and for tests requests, from bytes to values.
//!
//! Nothing here indexes or trusts a length: bytes that are not as expected are an error with the attribute named.

mod statistics;

use std::net::IpAddr;

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, IpvsTimeouts, Service,
    ServiceFlags, ServiceKey,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::{SyncDaemon, SyncRole};
use lvs_crds::value::{AddressFamily, Protocol};

use crate::attribute::{Attribute, AttributeError, Attributes};
use crate::uapi::{
    AF_INET, AF_INET6, command, daemon, destination, forwarding, info, service, top, tunnel,
};

pub use statistics::{
    destination_reading, destination_statistics, service_reading, service_statistics,
};

/// Prefix length given to an IPv4 netmask that is no prefix (`ipvsadm -M 255.0.255.0`): equal to none we write.
pub const NOT_A_PREFIX: u8 = u8::MAX;

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An attribute is malformed.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// An attribute that must be there is not.
    #[error("attribute {name} is missing")]
    Missing {
        /// Name in `ip_vs.h`.
        name: &'static str,
    },
    /// A number outside what `ip_vs.h` knows.
    #[error("{name} is {value}, which this version does not know")]
    Unknown {
        /// Name in `ip_vs.h`.
        name: &'static str,
        /// The number.
        value: u32,
    },
}

/// A service as dumped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpedService {
    /// One that a key can name.
    Named(ServiceKey, Service),
    /// One that no key can name, in one line.
    Unnameable(String),
}

/// A destination as dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpedDestination {
    /// Which.
    pub key: DestinationKey,
    /// Its attributes.
    pub state: Destination,
    /// Connections that it has, active and inactive; `None` where the message does not say.
    pub connections: Option<u32>,
}

impl DumpedDestination {
    /// Whether it has weight 0 and, for certain, no connection.
    pub fn is_idle(&self) -> bool {
        self.state.weight == 0 && self.connections == Some(0)
    }
}

const fn missing(name: &'static str) -> DecodeError {
    DecodeError::Missing { name }
}

fn find<'bytes>(
    attributes: &'bytes [u8],
    kind: u16,
    name: &'static str,
) -> Result<Attribute<'bytes>, DecodeError> {
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(attribute);
        }
    }
    Err(missing(name))
}

fn family(number: u16) -> Result<AddressFamily, DecodeError> {
    match number {
        AF_INET => Ok(AddressFamily::IPv4),
        AF_INET6 => Ok(AddressFamily::IPv6),
        _ => Err(DecodeError::Unknown {
            name: "address family",
            value: u32::from(number),
        }),
    }
}

fn address(attribute: &Attribute<'_>, family: AddressFamily) -> Result<IpAddr, AttributeError> {
    match family {
        AddressFamily::IPv4 => attribute.ipv4().map(IpAddr::V4),
        AddressFamily::IPv6 => attribute.ipv6().map(IpAddr::V6),
    }
}

/// What the nested attribute of a service can hold; which of it must be there depends on the message.
#[derive(Clone, Copy, Default)]
struct ServiceAttributes<'bytes> {
    af: Option<u16>,
    protocol: Option<u16>,
    address: Option<Attribute<'bytes>>,
    port: Option<u16>,
    mark: Option<u32>,
    scheduler: Option<&'bytes str>,
    flags: Option<u32>,
    timeout: Option<u32>,
    netmask: Option<Attribute<'bytes>>,
    engine: Option<&'bytes str>,
}

impl<'bytes> ServiceAttributes<'bytes> {
    fn read(nest: &Attribute<'bytes>) -> Result<Self, AttributeError> {
        let mut found = Self::default();
        for attribute in nest.nested() {
            let attribute = attribute?;
            match attribute.kind {
                service::AF => found.af = Some(attribute.u16()?),
                service::PROTOCOL => found.protocol = Some(attribute.u16()?),
                service::ADDR => found.address = Some(attribute),
                service::PORT => found.port = Some(attribute.be16()?),
                service::FWMARK => found.mark = Some(attribute.u32()?),
                service::SCHED_NAME => found.scheduler = Some(attribute.string()?),
                // struct ip_vs_flags: the flags come first.
                service::FLAGS => found.flags = Some(attribute.u32()?),
                service::TIMEOUT => found.timeout = Some(attribute.u32()?),
                service::NETMASK => found.netmask = Some(attribute),
                service::PE_NAME => found.engine = Some(attribute.string()?),
                _ => {}
            }
        }
        Ok(found)
    }

    fn family(&self) -> Result<AddressFamily, DecodeError> {
        family(self.af.ok_or(missing("IPVS_SVC_ATTR_AF"))?)
    }

    /// `Err` inside: no key can name it; its line.
    fn key(&self) -> Result<Result<ServiceKey, String>, DecodeError> {
        let family = self.family()?;
        if let Some(mark) = self.mark {
            return Ok(Ok(ServiceKey::FirewallMark { mark, family }));
        }
        let address = self.address.ok_or(missing("IPVS_SVC_ATTR_ADDR"))?;
        let address = address_of(&address, family)?;
        let port = self.port.ok_or(missing("IPVS_SVC_ATTR_PORT"))?;
        let number = self.protocol.ok_or(missing("IPVS_SVC_ATTR_PROTOCOL"))?;
        let protocol = [Protocol::TCP, Protocol::UDP, Protocol::SCTP]
            .into_iter()
            .find(|p| u16::from(p.number()) == number);
        Ok(match protocol {
            Some(protocol) => Ok(ServiceKey::Address {
                address,
                protocol,
                port,
            }),
            None => Err(format!(
                "protocol {number} {}",
                lvs_core::ipvs::SocketText(address, port)
            )),
        })
    }

    fn state(&self) -> Result<Service, DecodeError> {
        let netmask = self.netmask.ok_or(missing("IPVS_SVC_ATTR_NETMASK"))?;
        let prefix_length = match self.family()? {
            AddressFamily::IPv4 => ipv4_prefix_length(netmask.be32()?),
            AddressFamily::IPv6 => u8::try_from(netmask.u32()?).unwrap_or(NOT_A_PREFIX),
        };
        let flags = self.flags.ok_or(missing("IPVS_SVC_ATTR_FLAGS"))?;
        Ok(Service {
            scheduler: self
                .scheduler
                .ok_or(missing("IPVS_SVC_ATTR_SCHED_NAME"))?
                .to_owned(),
            flags: ServiceFlags(flags & ServiceFlags::OWNED),
            timeout_seconds: self.timeout.ok_or(missing("IPVS_SVC_ATTR_TIMEOUT"))?,
            prefix_length,
            persistence_engine: self.engine.map(str::to_owned),
        })
    }
}

fn address_of(attribute: &Attribute<'_>, family: AddressFamily) -> Result<IpAddr, DecodeError> {
    Ok(address(attribute, family)?)
}

/// The length of a mask that is a prefix, else [`NOT_A_PREFIX`].
pub fn ipv4_prefix_length(netmask: u32) -> u8 {
    let ones = netmask.leading_ones();
    if netmask.count_ones() == ones {
        u8::try_from(ones).unwrap_or(NOT_A_PREFIX)
    } else {
        NOT_A_PREFIX
    }
}

/// A message of a service dump.
pub fn service(attributes: &[u8]) -> Result<DumpedService, DecodeError> {
    let nest = find(attributes, top::SERVICE, "IPVS_CMD_ATTR_SERVICE")?;
    let found = ServiceAttributes::read(&nest)?;
    Ok(match found.key()? {
        Ok(key) => DumpedService::Named(key, found.state()?),
        Err(line) => DumpedService::Unnameable(line),
    })
}

/// A message of a destination dump. `service_family` is that of its service, for kernels that do not say the
/// destination's own.
pub fn destination(
    attributes: &[u8],
    service_family: AddressFamily,
) -> Result<DumpedDestination, DecodeError> {
    let nest = find(attributes, top::DEST, "IPVS_CMD_ATTR_DEST")?;
    let found = DestinationAttributes::read(&nest)?;
    Ok(DumpedDestination {
        key: found.key(service_family)?,
        state: found.state()?,
        connections: found.connections(),
    })
}

#[derive(Clone, Copy, Default)]
struct DestinationAttributes<'bytes> {
    address: Option<Attribute<'bytes>>,
    port: Option<u16>,
    family: Option<u16>,
    method: Option<u32>,
    weight: Option<u32>,
    upper_threshold: Option<u32>,
    lower_threshold: Option<u32>,
    active_connections: Option<u32>,
    inactive_connections: Option<u32>,
    tunnel_type: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
}

impl<'bytes> DestinationAttributes<'bytes> {
    #[inline]
    fn read(nest: &Attribute<'bytes>) -> Result<Self, AttributeError> {
        let mut found = Self::default();
        for attribute in nest.nested() {
            let attribute = attribute?;
            match attribute.kind {
                destination::ADDR => found.address = Some(attribute),
                destination::PORT => found.port = Some(attribute.be16()?),
                destination::FWD_METHOD => found.method = Some(attribute.u32()?),
                destination::WEIGHT => found.weight = Some(attribute.u32()?),
                destination::U_THRESH => found.upper_threshold = Some(attribute.u32()?),
                destination::L_THRESH => found.lower_threshold = Some(attribute.u32()?),
                destination::ACTIVE_CONNS => found.active_connections = Some(attribute.u32()?),
                destination::INACT_CONNS => found.inactive_connections = Some(attribute.u32()?),
                destination::ADDR_FAMILY => found.family = Some(attribute.u16()?),
                destination::TUN_TYPE => found.tunnel_type = attribute.u8()?,
                destination::TUN_PORT => found.tunnel_port = attribute.be16()?,
                destination::TUN_FLAGS => found.tunnel_flags = attribute.u16()?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn key(&self, service_family: AddressFamily) -> Result<DestinationKey, DecodeError> {
        let family = self.family.map_or(Ok(service_family), family)?;
        let address = self.address.ok_or(missing("IPVS_DEST_ATTR_ADDR"))?;
        Ok(DestinationKey {
            address: address_of(&address, family)?,
            port: self.port.ok_or(missing("IPVS_DEST_ATTR_PORT"))?,
        })
    }

    fn state(&self) -> Result<Destination, DecodeError> {
        let method = self.method.ok_or(missing("IPVS_DEST_ATTR_FWD_METHOD"))?;
        let forwarding = match method & forwarding::MASK {
            forwarding::MASQUERADE => DestinationForwarding::Masquerade,
            forwarding::LOCAL_NODE => DestinationForwarding::LocalNode,
            forwarding::TUNNEL => DestinationForwarding::Tunnel(self.tunnel()?),
            forwarding::DIRECT_ROUTE => DestinationForwarding::DirectRoute,
            forwarding::BYPASS => DestinationForwarding::Bypass,
            value => {
                return Err(DecodeError::Unknown {
                    name: "IPVS_DEST_ATTR_FWD_METHOD",
                    value,
                });
            }
        };
        Ok(Destination {
            forwarding,
            weight: self.weight.ok_or(missing("IPVS_DEST_ATTR_WEIGHT"))?,
            upper_threshold: self
                .upper_threshold
                .ok_or(missing("IPVS_DEST_ATTR_U_THRESH"))?,
            lower_threshold: self
                .lower_threshold
                .ok_or(missing("IPVS_DEST_ATTR_L_THRESH"))?,
        })
    }

    fn connections(&self) -> Option<u32> {
        let inactive = self.inactive_connections?;
        Some(self.active_connections?.saturating_add(inactive))
    }

    fn tunnel(&self) -> Result<DestinationTunnel, DecodeError> {
        let flags = self.tunnel_flags;
        match self.tunnel_type {
            tunnel::IPIP => Ok(DestinationTunnel::IpIp),
            tunnel::GUE => Ok(DestinationTunnel::Gue {
                port: self.tunnel_port,
                flags,
            }),
            tunnel::GRE => Ok(DestinationTunnel::Gre { flags }),
            value => Err(DecodeError::Unknown {
                name: "IPVS_DEST_ATTR_TUN_TYPE",
                value: u32::from(value),
            }),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct SyncDaemonAttributes<'bytes> {
    state: Option<u32>,
    device: Option<&'bytes str>,
    sync_id: Option<u32>,
    maximum_length: Option<u16>,
    group: Option<IpAddr>,
    port: u16,
    ttl: u8,
}

impl<'bytes> SyncDaemonAttributes<'bytes> {
    fn read(nest: &Attribute<'bytes>) -> Result<Self, AttributeError> {
        let mut found = Self::default();
        for attribute in nest.nested() {
            let attribute = attribute?;
            match attribute.kind {
                daemon::STATE => found.state = Some(attribute.u32()?),
                daemon::MCAST_IFN => found.device = Some(attribute.string()?),
                daemon::SYNC_ID => found.sync_id = Some(attribute.u32()?),
                daemon::SYNC_MAXLEN => found.maximum_length = Some(attribute.u16()?),
                daemon::MCAST_GROUP => found.group = Some(IpAddr::V4(attribute.ipv4()?)),
                daemon::MCAST_GROUP6 => found.group = Some(IpAddr::V6(attribute.ipv6()?)),
                daemon::MCAST_PORT => found.port = attribute.u16()?,
                daemon::MCAST_TTL => found.ttl = attribute.u8()?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn role(&self) -> Result<SyncRole, DecodeError> {
        match self.state.ok_or(missing("IPVS_DAEMON_ATTR_STATE"))? {
            daemon::STATE_MASTER => Ok(SyncRole::Master),
            daemon::STATE_BACKUP => Ok(SyncRole::Backup),
            value => Err(DecodeError::Unknown {
                name: "IPVS_DAEMON_ATTR_STATE",
                value,
            }),
        }
    }

    fn set_up(&self) -> Result<SyncDaemon, DecodeError> {
        let sync_id = self.sync_id.ok_or(missing("IPVS_DAEMON_ATTR_SYNC_ID"))?;
        Ok(SyncDaemon {
            device: self
                .device
                .ok_or(missing("IPVS_DAEMON_ATTR_MCAST_IFN"))?
                .to_owned(),
            sync_id: u8::try_from(sync_id).map_err(|_| DecodeError::Unknown {
                name: "IPVS_DAEMON_ATTR_SYNC_ID",
                value: sync_id,
            })?,
            group: self.group.ok_or(missing("IPVS_DAEMON_ATTR_MCAST_GROUP"))?,
            port: self.port,
            ttl: self.ttl,
            maximum_length: self.maximum_length,
        })
    }
}

/// A message of a dump of the sync daemons.
pub fn sync_daemon(attributes: &[u8]) -> Result<(SyncRole, SyncDaemon), DecodeError> {
    let nest = find(attributes, top::DAEMON, "IPVS_CMD_ATTR_DAEMON")?;
    let found = SyncDaemonAttributes::read(&nest)?;
    Ok((found.role()?, found.set_up()?))
}

/// Timeouts: the reply to `GET_CONFIG`, or a `SET_CONFIG`.
pub fn timeouts(attributes: &[u8]) -> Result<IpvsTimeouts, DecodeError> {
    Ok(IpvsTimeouts {
        tcp_seconds: find(attributes, top::TIMEOUT_TCP, "IPVS_CMD_ATTR_TIMEOUT_TCP")?.u32()?,
        tcp_fin_seconds: find(
            attributes,
            top::TIMEOUT_TCP_FIN,
            "IPVS_CMD_ATTR_TIMEOUT_TCP_FIN",
        )?
        .u32()?,
        udp_seconds: find(attributes, top::TIMEOUT_UDP, "IPVS_CMD_ATTR_TIMEOUT_UDP")?.u32()?,
    })
}

/// IPVS in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Major, minor and patch version of IPVS (not of the kernel).
    pub version: (u8, u8, u8),
    /// Buckets of the connection table.
    pub connection_table_size: u32,
}

/// The reply to `GET_INFO`.
pub fn info(attributes: &[u8]) -> Result<Info, DecodeError> {
    let version = find(attributes, info::VERSION, "IPVS_INFO_ATTR_VERSION")?.u32()?;
    let [_, major, minor, patch] = version.to_be_bytes();
    Ok(Info {
        version: (major, minor, patch),
        connection_table_size: find(
            attributes,
            info::CONN_TAB_SIZE,
            "IPVS_INFO_ATTR_CONN_TAB_SIZE",
        )?
        .u32()?,
    })
}

/// The operation a request asks for: what [`crate::encode::operation`] writes, or another program.
pub fn operation(command: u8, attributes: &[u8]) -> Result<IpvsOp, DecodeError> {
    if command == command::SET_CONFIG {
        return timeouts(attributes).map(IpvsOp::SetTimeouts);
    }
    if command == command::NEW_DAEMON {
        return sync_daemon(attributes).map(|(role, daemon)| IpvsOp::StartSyncDaemon(role, daemon));
    }
    if command == command::DEL_DAEMON {
        let nest = find(attributes, top::DAEMON, "IPVS_CMD_ATTR_DAEMON")?;
        return Ok(IpvsOp::StopSyncDaemon(
            SyncDaemonAttributes::read(&nest)?.role()?,
        ));
    }
    let nest = find(attributes, top::SERVICE, "IPVS_CMD_ATTR_SERVICE")?;
    let found = ServiceAttributes::read(&nest)?;
    let unnameable = DecodeError::Unknown {
        name: "IPVS_SVC_ATTR_PROTOCOL",
        value: u32::from(found.protocol.unwrap_or_default()),
    };
    let key = found.key()?.map_err(|_| unnameable)?;
    let target = || find(attributes, top::DEST, "IPVS_CMD_ATTR_DEST");
    let destination = || destination(attributes, key.family());
    match command {
        command::NEW_SERVICE => Ok(IpvsOp::AddService(key, found.state()?)),
        command::SET_SERVICE => Ok(IpvsOp::EditService(key, found.state()?)),
        command::DEL_SERVICE => Ok(IpvsOp::DeleteService(key)),
        command::NEW_DEST => {
            destination().map(|found| IpvsOp::AddDestination(key, found.key, found.state))
        }
        command::SET_DEST => {
            destination().map(|found| IpvsOp::EditDestination(key, found.key, found.state))
        }
        command::DEL_DEST => {
            let target = DestinationAttributes::read(&target()?)?.key(key.family())?;
            Ok(IpvsOp::DeleteDestination(key, target))
        }
        value => Err(DecodeError::Unknown {
            name: "command",
            value: u32::from(value),
        }),
    }
}
