//! IPVS services and their destinations.

use std::net::IpAddr;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::traffic_policy::{AdministrativeState, OnFailure, PlannedSorryServer, Quorum};
use crate::value::{AddressFamily, Forwarding, PacketScheduling, Persistence, Protocol, Scheduler};

/// One IPVS service, or one per port of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.address) != has(self.firewallMark)",
    "exactly one of address and firewallMark is required"
))]
pub struct PlannedService {
    /// What packets the service takes: exactly one of address and firewallMark is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ServiceAddress>,
    /// What packets the service takes, by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<ServiceFirewallMark>,
    /// Port name of the VirtualService; unset for a sole port or a firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port_name: Option<String>,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Unit that is scheduled.
    pub packet_scheduling: PacketScheduling,
    /// Destinations in canonical order (address, port).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub real_servers: Vec<PlannedRealServer>,
    /// What is asked of every real server that does not say otherwise; it is up while all of it succeeds. Empty = nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub checks: Vec<CheckReference>,
    /// What becomes of a real server that is down.
    #[serde(default, skip_serializing_if = "OnFailure::is_remove")]
    pub on_failure: OnFailure,
    /// How much must be up; unset = one real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// Who serves without a quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<PlannedSorryServer>,
    /// Seconds after which a real server that drains is taken out, and for which one that leaves the plan drains; unset = the first without end, the second at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub drain_timeout_seconds: Option<u32>,
    /// Seconds in which a real server that came up gets more and more of its weight; 0 = all of it at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_start_seconds: u32,
}

impl PlannedService {
    /// What is asked of one of its real servers.
    pub fn checks_of<'a>(&'a self, real_server: &'a PlannedRealServer) -> &'a [CheckReference] {
        real_server.checks.as_deref().unwrap_or(&self.checks)
    }

    /// Whether anything is asked of any of its real servers, those to come included.
    pub fn has_checks(&self) -> bool {
        let mut real_servers = self.real_servers.iter();
        !self.checks.is_empty() || real_servers.any(|one| !self.checks_of(one).is_empty())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A check of the plan, and the port that it asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckReference {
    /// Name of the check in the plan.
    #[schemars(length(max = 63))]
    pub check_name: String,
    /// Port on the real server; unset = the port that serves, of a range the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A service by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAddress {
    /// Virtual address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// First port; 0 = all ports.
    pub port: u16,
    /// Last port; equals port for a single one. A range becomes one IPVS service per port.
    pub end_port: u16,
}

/// A service by firewall mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFirewallMark {
    /// The whole mark.
    pub mark: u32,
    /// Family: IPVS keeps one service per mark and family.
    pub address_family: AddressFamily,
}

/// One IPVS destination, or one per port of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRealServer {
    /// RealServer it comes from.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Address of the host.
    pub address: IpAddr,
    /// Port on the host for the first port of the service; a range keeps its offsets. 0 for all-ports and marks.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Upper threshold of connections, 0 = none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower threshold of connections, 0 = three quarters of upper.
    #[serde(default)]
    pub lower_threshold: u32,
    /// Whether it is to serve.
    #[serde(default, skip_serializing_if = "AdministrativeState::is_enabled")]
    pub administrative_state: AdministrativeState,
    /// What is asked of it; empty = nothing, unset = what its service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub checks: Option<Vec<CheckReference>>,
}
