//! What a node does as director.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LeadershipPlan, PlannedService};
use crate::health_check::HealthCheck;
use crate::value::Protocol;

/// Work as director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorPlan {
    /// Leadership of the router; exactly in plans whose source is a VirtualRouter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leadership: Option<LeadershipPlan>,
    /// Addresses the node holds while it is master of the router.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub addresses: Vec<PlannedAddress>,
    /// Packets to mark before IPVS sees them (nftables).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub firewall_marks: Vec<PlannedFirewallMark>,
    /// IPVS services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub services: Vec<PlannedService>,
    /// Addresses for real servers with forwarding FullNAT, by pool, sorted by name. The router's plan holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub source_address_pools: Vec<PlannedSourceAddressPool>,
    /// Checks to which services and real servers refer by name, sorted; which port each asks is said there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub checks: Vec<HealthCheck>,
    /// Certificate authorities that checks name as tls.caConfigMapName, sorted by name. One that a check names and that is not here is not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub certificate_authorities: Vec<PlannedAuthorities>,
}

/// Most ConfigMaps of one plan.
pub const PLANNED_AUTHORITIES_MAXIMUM: usize = 8;
/// Longest text of [`PlannedAuthorities`], in bytes.
pub const PLANNED_AUTHORITIES_BYTES: usize = 65_536;

/// Certificate authorities of one ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAuthorities {
    /// Name of the ConfigMap, in the namespace of the source.
    #[schemars(length(max = 253))]
    pub config_map_name: String,
    /// Certificates in PEM.
    #[schemars(length(min = 1, max = 65_536))]
    pub certificates: String,
}

/// An address that moves with the router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAddress {
    /// The address; programmed as /32 or /128.
    pub address: IpAddr,
    /// Device names, the first that exists; empty = the device whose connected subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
}

/// Addresses that real servers see as clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSourceAddressPool {
    /// Name of the pool in the VirtualRouter.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Addresses, sorted.
    #[schemars(length(max = 64))]
    pub addresses: Vec<IpAddr>,
}

/// A mark and the packets that get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedFirewallMark {
    /// The whole mark.
    pub mark: u32,
    /// Packets that get it.
    #[schemars(length(max = 2048))]
    pub matches: Vec<MarkMatch>,
}

/// Packets by destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MarkMatch {
    /// Destination address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port; 0 = all ports.
    pub port: u16,
    /// Last port; equals port for a single one.
    pub end_port: u16,
}
