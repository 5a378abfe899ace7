//! What a node does as real server.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{Protocol, Tunnel};

/// Work as real server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPlan {
    /// Virtual addresses the node answers as, without telling neighbours (DR).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub direct_routing_addresses: Vec<IpAddr>,
    /// Tunnels that end here (TUN).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tunnels: Vec<TunnelEndpoint>,
    /// Replies that go back through the director (NAT).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub return_paths: Vec<ReturnPath>,
}

/// End of a tunnel on a real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelEndpoint {
    /// Address of this node to which directors send tunnel packets.
    pub local_address: IpAddr,
    /// Encapsulation.
    pub tunnel: Tunnel,
    /// Virtual addresses inside the tunnel.
    #[schemars(length(max = 1024))]
    pub virtual_addresses: Vec<IpAddr>,
}

/// A policy route for replies of a NAT real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnPath {
    /// Address of this node that serves.
    pub source_address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port that serves.
    pub port: u16,
    /// Last port that serves.
    pub end_port: u16,
    /// Addresses of the director side, in order of preference; the first on a connected subnet is used.
    #[schemars(length(max = 64))]
    pub gateways: Vec<IpAddr>,
}
