//! Traffic policy: what becomes of clients when real servers fail, drain or are too few.

use std::net::IpAddr;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::UnicastAddress;
use crate::value::Forwarding;

/// What becomes of a real server that is down. Remove: it is taken out of the kernel and its connections end, unless it drains. Quiesce: it stays with weight 0, gets no new connections and keeps those it has. Default Remove.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum OnFailure {
    /// Taken out (ldirectord: quiescent=no).
    #[default]
    Remove,
    /// Weight 0 (ldirectord: quiescent=yes, keepalived: inhibit_on_failure).
    Quiesce,
}

impl OnFailure {
    /// Whether this is the default.
    pub const fn is_remove(&self) -> bool {
        matches!(self, Self::Remove)
    }
}

/// Whether a real server is to serve. Enabled: it is. Draining: it gets no new connections and keeps those it has, until drain.timeoutSeconds of the VirtualService have passed where that is set. Disabled: it is taken out of the kernel. Default Enabled.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum AdministrativeState {
    /// It serves.
    #[default]
    Enabled,
    /// No new connections; taken out when the time to drain has passed, if there is one.
    Draining,
    /// Taken out.
    Disabled,
}

impl AdministrativeState {
    /// Whether this is the default.
    pub const fn is_enabled(&self) -> bool {
        matches!(self, Self::Enabled)
    }
}

/// How much must be up, and what happens below that (keepalived: quorum, hysteresis).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.hysteresis < self.minimumWeight",
    "hysteresis must be less than minimumWeight, or a quorum that is met could never be lost: lower hysteresis or raise minimumWeight"
))]
pub struct Quorum {
    /// Weight of real servers that are up which is enough, 1..268431360, counted for each port. Default 1: one real server.
    #[serde(default = "Quorum::default_minimum_weight")]
    #[schemars(range(min = 1, max = 268_431_360))]
    pub minimum_weight: u32,
    /// A quorum is met again at minimumWeight plus this, and lost below minimumWeight less this; less than minimumWeight. Default 0.
    #[serde(default)]
    #[schemars(range(max = 268_431_360))]
    pub hysteresis: u32,
    /// What happens without a quorum. SorryServer: new connections go to sorryServer, which is then required. KeepAll: every real server gets its weight, up or not. KeepNone: new connections are refused. WithdrawAddress: as KeepNone, and no director has the address while no port of any VirtualService on it has a quorum. Default: SorryServer if one is set, else KeepNone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnQuorumLoss>,
}

impl Quorum {
    const fn default_minimum_weight() -> u32 {
        1
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self {
            minimum_weight: Self::default_minimum_weight(),
            hysteresis: 0,
            on_loss: None,
        }
    }
}

/// What happens without a quorum. SorryServer: new connections go to sorryServer, which is then required. KeepAll: every real server gets its weight, up or not. KeepNone: new connections are refused. WithdrawAddress: as KeepNone, and no director has the address while no port of any VirtualService on it has a quorum. Default: SorryServer if one is set, else KeepNone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum OnQuorumLoss {
    /// New connections go to the sorry server.
    SorryServer,
    /// As though all were up.
    KeepAll,
    /// New connections are refused; IPVS answers that the port is unreachable.
    KeepNone,
    /// The same; and the address is on no director, unless another service on it has a quorum (keepalived: quorum_down that
    /// takes the address away).
    WithdrawAddress,
}

/// Who serves new connections without a quorum (keepalived: sorry_server, ldirectord: fallback).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(self.type == 'Address') == has(self.address)",
    "address is required with sorryServer type Address and refused otherwise: set type Address with address.address, or remove address"
))]
#[x_kube(validation = (
    "self.type == 'Director' || !has(self.port)",
    "port is only for sorryServer type Director: use address.port"
))]
pub struct SorryServer {
    /// Director: a program on the director that holds the addresses, which listens on them. Address: another host. Required.
    #[serde(rename = "type")]
    pub type_: SorryServerType,
    /// Port on the director, 1..65535, only with type Director. Default: that of the service; with another one the program sees the director's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The host, only with type Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SorryAddress>,
}

/// Where a sorry server is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum SorryServerType {
    /// On the director itself.
    Director,
    /// On another host.
    Address,
}

/// A sorry server on a host of its own, which must lie in realServerCIDRs of a grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.port) || !has(self.forwarding) || self.forwarding.type in ['NAT', 'FullNAT']",
    "port needs forwarding type NAT or FullNAT, as DR and TUN do not change packets: remove port, or set forwarding type NAT or FullNAT"
))]
pub struct SorryAddress {
    /// Its address; services of the other family have no sorry server. Required.
    #[schemars(with = "UnicastAddress")]
    pub address: String,
    /// Port, 1..65535, only with forwarding type NAT or FullNAT. Default: that of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// How packets reach it. Default: as in the VirtualService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}

/// More and more of its weight for a real server that came up, so that a cold one is not overrun.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// Seconds until it has its whole weight, 0..3600; 0 = at once. It begins with weight 1 and grows once a second. Required.
    #[schemars(range(max = 3600))]
    pub duration_seconds: u32,
}

/// How long a real server that is to go keeps its connections: one that drains, one that is deleted or no longer selected, and one whose node is cordoned. It gets no new ones meanwhile.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Seconds until it is taken out of the kernel and the connections that are left end, 0..86400; 0 = at once. One that is deleted or no longer selected goes sooner, once no connection is left. Required.
    #[schemars(range(max = 86_400))]
    pub timeout_seconds: u32,
}

/// A sorry server in a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSorryServer {
    /// Its address; unset = the director itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 45))]
    pub address: Option<IpAddr>,
    /// Its port for the first port of the service; a range keeps its offsets. 0 for all-ports and marks.
    pub port: u16,
    /// How packets reach it.
    pub forwarding: Forwarding,
}
