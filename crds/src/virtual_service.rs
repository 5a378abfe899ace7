//! VirtualService: what is balanced, how, and to which real servers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{
    AddressFamily, Forwarding, PacketScheduling, Persistence, Protocol, Scheduler,
};

/// What is balanced, how, and to which real servers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    plural = "virtualservices",
    shortname = "lvsvs",
    category = "lvs",
    namespaced,
    status = "VirtualServiceStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceSpec {
    /// VirtualRouter whose directors hold the addresses. Unset: the one annotated lvs.dev/is-default-router=true. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_router_name: Option<String>,
    /// Virtual addresses, IPv4 and IPv6, at most 16. Unset: one per family is allocated from a pool and shown in status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Families to allocate when addresses is unset. Default [IPv4].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_families: Vec<AddressFamily>,
    /// Pool to allocate from when addresses is unset. Default: the first automatic pool granted to the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_pool_name: Option<String>,
    /// Ports of the service, 1..64, unique by protocol and port.
    pub ports: Vec<ServicePort>,
    /// PerPort: each port is its own IPVS service (ipvsadm -t, -u). FirewallMark: all ports are one (ipvsadm -f). Default PerPort.
    #[serde(default)]
    pub grouping: Grouping,
    /// The mark, only with grouping FirewallMark. Unset: managed and allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<FirewallMark>,
    /// How packets reach the real servers.
    pub forwarding: Forwarding,
    /// How a real server is chosen. Default wlc.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Keep a client on its real server. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Unit that is scheduled. Default PerConnection.
    #[serde(default)]
    pub packet_scheduling: PacketScheduling,
    /// RealServers of this namespace that serve, by label; {} selects all.
    pub real_server_selector: LabelSelector,
}

/// One port, or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name by which real servers refer to the port; required when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP. Default TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port number, 1..65535, or 0 for all ports (needs persistence).
    pub port: u16,
    /// Last port of a range that begins at port. With NAT a range keeps its offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// Port on the real servers, 1..65535, NAT only. Default: the same port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server_port: Option<u16>,
}

/// How ports form IPVS services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Grouping {
    /// Each address and port is one IPVS service.
    #[default]
    PerPort,
    /// All ports of a family are one IPVS service, matched by firewall mark.
    FirewallMark,
}

/// A firewall mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirewallMark {
    /// Who marks the packets. Default Managed.
    #[serde(default)]
    pub marking: Marking,
    /// The whole 32-bit mark, 1..4294967295. Required with External; else allocated when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u32>,
}

/// Who sets the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Marking {
    /// The agent, with nftables rules for the addresses and ports.
    #[default]
    Managed,
    /// Rules of the administrator.
    External,
}

/// Observed state of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Router in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_router_name: Option<String>,
    /// Addresses in use and the pool each comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AssignedAddress>,
    /// Firewall mark in use, with grouping FirewallMark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<u32>,
    /// Node that holds the addresses; `kubectl get lvsvr` is authoritative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Count of real servers.
    #[serde(default)]
    pub real_servers: RealServerCount,
    /// Short texts for the table.
    #[serde(default)]
    pub summary: VirtualServiceSummary,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedAddress {
    /// The address.
    pub address: String,
    /// Pool of the router it lies in.
    pub address_pool_name: String,
}

/// Count of real servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerCount {
    /// Matched by the selector and accepted.
    pub selected: u32,
    /// Programmed and able to serve.
    pub ready: u32,
}

/// Short texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceSummary {
    /// Addresses, separated by commas.
    #[serde(default)]
    pub addresses: String,
    /// Ports as 80/TCP, separated by commas.
    #[serde(default)]
    pub ports: String,
    /// ready/selected.
    #[serde(default)]
    pub real_servers: String,
}
