//! Lines of `/proc/net/ip_vs_conn` (`ip_vs_conn_seq_show` in `net/netfilter/ipvs/ip_vs_conn.c`): the kernel's one list of connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_crds::value::{AddressFamily, Protocol};
use serde::{Deserialize, Serialize};

use super::ShownOwner;
use super::owner::Owners;
use crate::ipvs::{DestinationKey, ServiceKey, SocketText};

/// The kernel's word for the protocol of templates by mark (`IPPROTO_IP`).
const TEMPLATE_BY_MARK: &str = "IP";
/// Services of this port have templates without one (`FTPPORT` in `include/net/ip_vs.h`).
const FTP_PORT: u16 = 21;

/// `lvs-agent show connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownConnections {
    /// Version of the agent.
    pub agent_version: String,
    /// Whether the kernel has more of them than were asked for.
    pub is_cut: bool,
    /// Whether the journal could be read. If not, no connection has names.
    pub ownership_known: bool,
    /// What could not be read, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Connections and persistence templates, in the kernel's order.
    #[serde(default)]
    pub connections: Vec<ShownConnection>,
}

/// A connection, or a persistence template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownConnection {
    /// The kernel's word: TCP, UDP, SCTP; IP of a template by mark.
    pub protocol: String,
    /// Client.
    pub client_address: IpAddr,
    /// Its port; 0 of a template.
    pub client_port: u16,
    /// Virtual address; of a template by mark the mark.
    pub virtual_address: IpAddr,
    /// Virtual port.
    pub virtual_port: u16,
    /// Real server.
    pub real_server_address: IpAddr,
    /// Its port.
    pub real_server_port: u16,
    /// The kernel's word, such as ESTABLISHED.
    pub state: String,
    /// Seconds until it is forgotten unless another packet comes.
    pub expires_seconds: u32,
    /// Persistence engine and its data, such as sip and a Call-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_data: Option<String>,
    /// Namespace and name of the VirtualService; unset where it is nobody's of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<String>,
    /// The RealServer, or `sorryServer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<String>,
}

/// A line that is not as the kernel writes them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection of IPVS: {line:?}")]
pub struct LineError {
    line: String,
}

impl ShownConnection {
    /// Reads a line; the heading is no connection.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        Self::parts(line).ok_or_else(|| LineError {
            line: line.chars().take(200).collect(),
        })
    }

    fn parts(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let protocol = words.next()?.to_owned();
        let mut socket = || {
            let address = address(words.next()?)?;
            Some((address, hexadecimal(words.next()?)?))
        };
        let (client_address, client_port) = socket()?;
        let (virtual_address, virtual_port) = socket()?;
        let (real_server_address, real_server_port) = socket()?;
        let state = words.next()?.to_owned();
        let expires_seconds = words.next()?.parse().ok()?;
        let engine: Vec<&str> = words.collect();
        Some(Self {
            protocol,
            client_address,
            client_port,
            virtual_address,
            virtual_port,
            real_server_address,
            real_server_port,
            state,
            expires_seconds,
            engine_data: (!engine.is_empty()).then(|| engine.join(" ")),
            virtual_service: None,
            real_server: None,
        })
    }

    /// With the names that plans give to what it joins, and whose it is.
    #[must_use]
    pub fn named(mut self, owners: &Owners<'_>) -> (Self, Option<ShownOwner>) {
        let Some(key) = self.service(owners) else {
            return (self, None);
        };
        let owner = owners.of(&key);
        self.virtual_service = owner.as_ref().map(ShownOwner::text);
        let exact = DestinationKey {
            address: self.real_server_address,
            port: self.real_server_port,
        };
        // In services by mark, and of all ports, destinations have no port of their own.
        let any_port = DestinationKey { port: 0, ..exact };
        self.real_server = owners
            .real_server(&key, exact)
            .filter(|name| name != crate::statistics::SORRY_SERVER)
            .or_else(|| owners.real_server(&key, any_port))
            .or_else(|| {
                let has_port = self.real_server_port != 0;
                let address = (!has_port).then_some(self.real_server_address)?;
                owners.real_server_of_address(&key, address)
            });
        (self, owner)
    }

    /// The service of ours that it belongs to. Templates are not what their clients sent (`ip_vs_sched_persist` in
    /// `net/netfilter/ipvs/ip_vs_core.c`): those of a service by mark have the mark as virtual address and no protocol, those of
    /// FTP no port.
    fn service(&self, owners: &Owners<'_>) -> Option<ServiceKey> {
        if self.protocol == TEMPLATE_BY_MARK {
            return owners.known(self.mark());
        }
        let protocol = [Protocol::TCP, Protocol::UDP, Protocol::SCTP]
            .into_iter()
            .find(|known| known.to_string() == self.protocol)?;
        let of_port = |port| owners.service_of(protocol, self.virtual_address, port);
        let is_template = self.client_port == 0 && self.virtual_port == 0;
        of_port(self.virtual_port)
            .or_else(|| of_port(FTP_PORT).filter(|_| is_template))
            .or_else(|| {
                owners.service_marked_by_others(self.virtual_address, self.real_server_address)
            })
    }

    /// The service whose mark is written as the virtual address.
    fn mark(&self) -> ServiceKey {
        let mark = match self.virtual_address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let [first, second, ..] = address.segments();
                u32::from(first) << 16 | u32::from(second)
            }
        };
        ServiceKey::FirewallMark {
            mark,
            family: AddressFamily::of(&self.virtual_address),
        }
    }

    /// Client, virtual socket and real server, as ipvsadm writes them.
    pub fn sockets(&self) -> [String; 3] {
        [
            (self.client_address, self.client_port),
            (self.virtual_address, self.virtual_port),
            (self.real_server_address, self.real_server_port),
        ]
        .map(|(address, port)| SocketText(address, port).to_string())
    }
}

fn address(word: &str) -> Option<IpAddr> {
    if word.contains(':') {
        return Some(IpAddr::V6(word.parse::<Ipv6Addr>().ok()?));
    }
    if word.len() != 8 {
        return None;
    }
    u32::from_str_radix(word, 16)
        .ok()
        .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
}

fn hexadecimal(word: &str) -> Option<u16> {
    u16::from_str_radix(word, 16).ok()
}
