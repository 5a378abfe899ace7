//! Requests: from operations and keys to bytes.

use std::net::IpAddr;

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, Service, ServiceFlags,
    ServiceKey,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::{SyncDaemon, SyncRole};
use lvs_crds::value::AddressFamily;

use crate::attribute::AttributeWriter;
use crate::message::{Envelope, write_message};
use crate::uapi::{
    AF_INET, AF_INET6, command, daemon, destination, forwarding, service, top, tunnel,
};

/// Appends the message of one operation.
pub fn operation(buffer: &mut Vec<u8>, envelope: Envelope, operation: &IpvsOp) {
    match operation {
        IpvsOp::AddService(key, state) => {
            whole_service(buffer, envelope, command::NEW_SERVICE, key, state);
        }
        IpvsOp::EditService(key, state) => {
            whole_service(buffer, envelope, command::SET_SERVICE, key, state);
        }
        IpvsOp::DeleteService(key) => service_only(buffer, envelope, command::DEL_SERVICE, key),
        IpvsOp::AddDestination(key, target, state) => {
            whole_destination(buffer, envelope, command::NEW_DEST, key, target, state);
        }
        IpvsOp::EditDestination(key, target, state) => {
            whole_destination(buffer, envelope, command::SET_DEST, key, target, state);
        }
        IpvsOp::DeleteDestination(key, target) => {
            write_message(buffer, envelope, command::DEL_DEST, |message| {
                message.nested(top::SERVICE, |nest| service_key(nest, key));
                message.nested(top::DEST, |nest| destination_key(nest, target));
            });
        }
        IpvsOp::SetTimeouts(timeouts) => {
            write_message(buffer, envelope, command::SET_CONFIG, |message| {
                message.u32(top::TIMEOUT_TCP, timeouts.tcp_seconds);
                message.u32(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin_seconds);
                message.u32(top::TIMEOUT_UDP, timeouts.udp_seconds);
            });
        }
        IpvsOp::StartSyncDaemon(role, state) => {
            write_message(buffer, envelope, command::NEW_DAEMON, |message| {
                message.nested(top::DAEMON, |nest| sync_daemon(nest, *role, state));
            });
        }
        IpvsOp::StopSyncDaemon(role) => {
            write_message(buffer, envelope, command::DEL_DAEMON, |message| {
                message.nested(top::DAEMON, |nest| {
                    nest.u32(daemon::STATE, sync_state(*role));
                });
            });
        }
    }
}

/// Appends a request without attributes: a dump of all services, `GET_CONFIG`, `GET_INFO`.
pub fn bare(buffer: &mut Vec<u8>, envelope: Envelope, command: u8) {
    write_message(buffer, envelope, command, |_| {});
}

/// Appends a request about one service: `GET_SERVICE`, or `GET_DEST` with `NLM_F_DUMP`.
pub fn service_only(buffer: &mut Vec<u8>, envelope: Envelope, command: u8, key: &ServiceKey) {
    write_message(buffer, envelope, command, |message| {
        message.nested(top::SERVICE, |nest| service_key(nest, key));
    });
}

fn whole_service(
    buffer: &mut Vec<u8>,
    envelope: Envelope,
    command: u8,
    key: &ServiceKey,
    state: &Service,
) {
    write_message(buffer, envelope, command, |message| {
        message.nested(top::SERVICE, |nest| {
            service_key(nest, key);
            service_state(nest, key.family(), state);
        });
    });
}

fn whole_destination(
    buffer: &mut Vec<u8>,
    envelope: Envelope,
    command: u8,
    key: &ServiceKey,
    target: &DestinationKey,
    state: &Destination,
) {
    write_message(buffer, envelope, command, |message| {
        message.nested(top::SERVICE, |nest| service_key(nest, key));
        message.nested(top::DEST, |nest| {
            destination_key(nest, target);
            destination_state(nest, state);
        });
    });
}

const fn family_number(family: AddressFamily) -> u16 {
    match family {
        AddressFamily::IPv4 => AF_INET,
        AddressFamily::IPv6 => AF_INET6,
    }
}

fn service_key(nest: &mut AttributeWriter<'_>, key: &ServiceKey) {
    nest.u16(service::AF, family_number(key.family()));
    match key {
        ServiceKey::FirewallMark { mark, .. } => nest.u32(service::FWMARK, *mark),
        ServiceKey::Address {
            address,
            protocol,
            port,
        } => {
            nest.u16(service::PROTOCOL, u16::from(protocol.number()));
            nest.address(service::ADDR, *address);
            nest.be16(service::PORT, *port);
        }
    }
}

fn service_state(nest: &mut AttributeWriter<'_>, family: AddressFamily, state: &Service) {
    nest.string(service::SCHED_NAME, &state.scheduler);
    if let Some(engine) = &state.persistence_engine {
        nest.string(service::PE_NAME, engine);
    }
    // The mask leaves alone what the kernel owns (IP_VS_SVC_F_HASHED) and flags of a later kernel.
    nest.u32_pair(
        service::FLAGS,
        state.flags.0 & ServiceFlags::OWNED,
        ServiceFlags::OWNED,
    );
    nest.u32(service::TIMEOUT, state.timeout_seconds);
    match family {
        AddressFamily::IPv4 => nest.be32(service::NETMASK, ipv4_netmask(state.prefix_length)),
        AddressFamily::IPv6 => nest.u32(service::NETMASK, u32::from(state.prefix_length)),
    }
}

/// The mask of a prefix; lengths above 32 give the whole mask.
pub fn ipv4_netmask(prefix_length: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(u32::from(prefix_length)))
        .unwrap_or(0)
}

fn destination_key(nest: &mut AttributeWriter<'_>, target: &DestinationKey) {
    nest.address(destination::ADDR, target.address);
    nest.be16(destination::PORT, target.port);
    nest.u16(
        destination::ADDR_FAMILY,
        family_number(AddressFamily::of(&target.address)),
    );
}

fn destination_state(nest: &mut AttributeWriter<'_>, state: &Destination) {
    let (method, tunnel) = match state.forwarding {
        DestinationForwarding::Masquerade => (forwarding::MASQUERADE, None),
        DestinationForwarding::LocalNode => (forwarding::LOCAL_NODE, None),
        DestinationForwarding::Tunnel(tunnel) => (forwarding::TUNNEL, Some(tunnel)),
        DestinationForwarding::DirectRoute => (forwarding::DIRECT_ROUTE, None),
        DestinationForwarding::Bypass => (forwarding::BYPASS, None),
    };
    nest.u32(destination::FWD_METHOD, method);
    nest.u32(destination::WEIGHT, state.weight);
    nest.u32(destination::U_THRESH, state.upper_threshold);
    nest.u32(destination::L_THRESH, state.lower_threshold);
    // An edit without these sets the tunnel back to IPIP, port 0, no flags: right for every other method.
    match tunnel {
        None => {}
        Some(DestinationTunnel::IpIp) => nest.u8(destination::TUN_TYPE, tunnel::IPIP),
        Some(DestinationTunnel::Gue { port, flags }) => {
            nest.u8(destination::TUN_TYPE, tunnel::GUE);
            nest.be16(destination::TUN_PORT, port);
            nest.u16(destination::TUN_FLAGS, flags);
        }
        Some(DestinationTunnel::Gre { flags }) => {
            nest.u8(destination::TUN_TYPE, tunnel::GRE);
            nest.u16(destination::TUN_FLAGS, flags);
        }
    }
}

const fn sync_state(role: SyncRole) -> u32 {
    match role {
        SyncRole::Master => daemon::STATE_MASTER,
        SyncRole::Backup => daemon::STATE_BACKUP,
    }
}

fn sync_daemon(nest: &mut AttributeWriter<'_>, role: SyncRole, state: &SyncDaemon) {
    nest.u32(daemon::STATE, sync_state(role));
    nest.string(daemon::MCAST_IFN, &state.device);
    nest.u32(daemon::SYNC_ID, u32::from(state.sync_id));
    if let Some(length) = state.maximum_length {
        nest.u16(daemon::SYNC_MAXLEN, length);
    }
    match state.group {
        IpAddr::V4(group) => nest.be32(daemon::MCAST_GROUP, group.to_bits()),
        // Sixteen bytes, as every address here.
        IpAddr::V6(_) => nest.address(daemon::MCAST_GROUP6, state.group),
    }
    nest.u16(daemon::MCAST_PORT, state.port);
    nest.u8(daemon::MCAST_TTL, state.ttl);
}
