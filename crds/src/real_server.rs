//! RealServer: who serves: a host, a node, the endpoints of a Service, or the addresses of a name.

// Printer columns repeat keys within one attribute, which the lint takes for duplicates.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health_check::HealthCheck;
use crate::text::{Address, DomainName, ObjectName, PartName};
use crate::traffic_policy::AdministrativeState;
use crate::value::Forwarding;

/// A host, a cluster node, the endpoints of a Service or the addresses of a name that serve; selected by VirtualServices of its namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    plural = "realservers",
    shortname = "lvsrs",
    category = "lvs",
    namespaced,
    status = "RealServerStatus",
    derive = "PartialEq",
    doc = "A RealServer is a host, a cluster node, all endpoints of a Service, or all addresses of a name in the DNS, that serves. VirtualServices of its namespace select it by its labels.",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.summary.target",
        description = "Addresses, node, Service or name"
    ),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        json_path = ".spec.weight",
        description = "Share of new connections"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.summary.state",
        description = "Worst state over all uses"
    ),
    printcolumn(
        name = "Used-By",
        type_ = "string",
        json_path = ".status.summary.usedBy",
        description = "VirtualServices that use it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.port) || !has(self.ports) || size(self.ports) == 0",
    "port and ports exclude each other: keep port for a VirtualService with one port, ports for one with several"
))]
#[x_kube(validation = (
    "!has(self.forwarding) || self.forwarding.type in ['NAT', 'FullNAT'] || (!has(self.port) && (!has(self.ports) || size(self.ports) == 0))",
    "port and ports need forwarding type NAT or FullNAT, as DR and TUN do not change packets: remove port and ports, or set forwarding type NAT or FullNAT"
))]
pub struct RealServerSpec {
    /// Who serves: a host by its addresses, a node of the cluster, the endpoints of a Service, or the addresses of a name. Required, immutable.
    #[x_kube(validation = (
        "self == oldSelf",
        "target is immutable: delete the RealServer and create it anew, or create another for the new host"
    ))]
    pub target: Target,
    /// Share of new connections relative to the other real servers, 0..65535; 0 takes no new connections and keeps those it has. Default 1.
    #[serde(default = "RealServerSpec::default_weight")]
    pub weight: u16,
    /// Port on this host, 1..65535, only with forwarding type NAT or FullNAT and for VirtualServices with one port. Excludes ports. Default: the VirtualService's realServerPort; else, with target type Service and forwarding type NAT or FullNAT, the Service's port on its endpoints; else the VirtualService's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Ports on this host by the port names of the VirtualService, at most 64, only with forwarding type NAT or FullNAT. Excludes port. Default: as for port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<RealServerPort>,
    /// Overrides the whole forwarding of the VirtualService for this host. Default: as in the VirtualService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Limits of connections to this host, counted by each director for each port (ipvsadm -x, -y). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_thresholds: Option<ConnectionThresholds>,
    /// What directors ask of this host instead of what VirtualServices say, at most 8: each replaces the whole check of the same name, which without checks of the VirtualService is tcp; type None switches that check off. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub health_checks: Vec<HealthCheck>,
    /// Whether it is to serve. Enabled: it is. Draining: it gets no new connections and keeps those it has, until drain.timeoutSeconds of the VirtualService have passed where that is set. Disabled: it is taken out of the kernel. Default Enabled.
    #[serde(default, skip_serializing_if = "AdministrativeState::is_enabled")]
    pub administrative_state: AdministrativeState,
}

impl RealServerSpec {
    const fn default_weight() -> u16 {
        1
    }
}

/// Who is behind a RealServer: a union of `type` and the member of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(self.type == 'Addresses') == (has(self.addresses) && size(self.addresses) > 0)",
    "addresses is required with target type Addresses and refused otherwise: set type Addresses with at least one address, or use target.node.addresses for a node"
))]
#[x_kube(validation = (
    "(self.type == 'Node') == has(self.node)",
    "node is required with target type Node and refused otherwise: set type Node with node.name, or remove node"
))]
#[x_kube(validation = (
    "(self.type == 'Service') == has(self.service)",
    "service is required with target type Service and refused otherwise: set type Service with service.name, or remove service"
))]
#[x_kube(validation = (
    "(self.type == 'DNSName') == has(self.dnsName)",
    "dnsName is required with target type DNSName and refused otherwise: set type DNSName with dnsName.name, or remove dnsName"
))]
pub struct Target {
    /// Addresses: a host outside the cluster, prepared by its owner. Node: a node of the cluster, prepared by its agent. Service: every endpoint of a Service, prepared by its owner. DNSName: every address of a name in the DNS, prepared by its owner. Required.
    #[serde(rename = "type")]
    pub type_: TargetType,
    /// Addresses of the host, at most one IPv4 and one IPv6; with type Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Address>", length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "size(self) < 2 || !self.all(address, isIP(address)) || ip(self[0]).family() != ip(self[1]).family()",
        "addresses may hold one address per family, as a RealServer is one host: create a RealServer for each other host"
    ))]
    pub addresses: Vec<String>,
    /// A node of the cluster; with type Node. Its agent prepares it and restores it afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeTarget>,
    /// A Service of this namespace; with type Service. Each of its endpoints is a real server with the weight, ports and limits of this RealServer; at most 256 are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A name in the DNS; with type DNSName. Each of its addresses (A, AAAA) is a real server with the weight, ports and limits of this RealServer; at most 32 of a family are used. It is asked for again when its TTL, taken as 5 to 300 s, is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<DnsNameTarget>,
}

/// Kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetType {
    /// Explicit addresses of a host outside the cluster.
    Addresses,
    /// A node of the cluster, by name.
    Node,
    /// The endpoints of a Service.
    Service,
    /// The addresses of a name in the DNS.
    DNSName,
}

/// A cluster node as target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget {
    /// Name of the Node. Required.
    #[schemars(with = "ObjectName")]
    pub name: String,
    /// Addresses of the node to use, at most one IPv4 and one IPv6. Default: its InternalIPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Address>", length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "size(self) < 2 || !self.all(address, isIP(address)) || ip(self[0]).family() != ip(self[1]).family()",
        "addresses may hold one address per family: keep one IPv4 and one IPv6 address of the node"
    ))]
    pub addresses: Vec<String>,
}

/// A Service as target: the addresses in its EndpointSlices (discovery.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTarget {
    /// Name of the Service, at most 63 characters. Required.
    #[schemars(with = "PartName")]
    pub name: String,
}

/// A name in the DNS as target: the addresses in its A and AAAA records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsNameTarget {
    /// The whole name with its domain, such as db.example or web.team.svc.cluster.local, at most 253 characters: no search domain is appended. Required.
    #[schemars(with = "DomainName")]
    pub name: String,
}

/// Port of one named service port on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPort {
    /// Name of a port of the VirtualService. Required.
    #[schemars(with = "PartName")]
    pub name: String,
    /// Port on this host, 1..65535; of a range the first port. Required.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// Limits of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.lower <= self.upper",
    "lower must not be greater than upper: raise upper or lower lower"
))]
pub struct ConnectionThresholds {
    /// Connections, active and inactive, at which the host gets no new ones, 0..2147483647; 0 = no limit. Default 0.
    #[serde(default)]
    #[schemars(range(max = 2_147_483_647))]
    pub upper: u32,
    /// Connections below which the host gets new ones again, 0..upper; 0 = three quarters of upper. Default 0.
    #[serde(default)]
    #[schemars(range(max = 2_147_483_647))]
    pub lower: u32,
}

/// Observed state of a RealServer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// Generation of spec that the rest of status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// VirtualServices that use this RealServer, at most 32 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub virtual_services: Vec<RealServerUse>,
    /// Short texts for the table.
    #[serde(default)]
    pub summary: RealServerSummary,
}

/// Use of a RealServer by one VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerUse {
    /// The VirtualService.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Whether every port is programmed and up; of a Service or a name, those of at least one address.
    pub ready: bool,
    /// Each port, of a Service or a name of each address; at most 1024 of a RealServer are listed, and of more those that are not up first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048))]
    pub ports: Vec<RealServerPortState>,
}

/// State of one port of one RealServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerPortState {
    /// Port name of the VirtualService, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub name: Option<String>,
    /// Address that serves.
    #[schemars(length(max = 45))]
    pub address: String,
    /// Port on the host.
    pub port: u16,
    /// Up, Down, Draining, Disabled or Unknown.
    pub state: RealServerState,
    /// Weight in the kernel of the director that holds the addresses; 0 also where it is not in the kernel.
    pub effective_weight: u16,
    /// Since when it has this state; unset where nothing is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why, in words, where there is something to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// End of the certificate that it shows, once it is as near as expiryWarningDays of the check; of several checks the first end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expiry_time: Option<Time>,
}

/// State of a real server's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RealServerState {
    /// It passes its checks, or has none, and is in the kernel with a weight above 0.
    Up,
    /// It fails a check.
    Down,
    /// It gets no new connections, as administrativeState says, or as its node is cordoned, it is on its way out, or an endpoint that is about to end.
    Draining,
    /// It gets no new connections, as its weight is 0, or has none at all, as administrativeState says or it has drained.
    Disabled,
    /// Not, or not yet, checked or reported as programmed.
    Unknown,
}

/// Short texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSummary {
    /// Addresses, node name, service/ and the name of a Service, or the name in the DNS.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub target: String,
    /// Worst state over all uses.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub state: String,
    /// VirtualServices that use it: up to three names, separated by commas, and how many more there are (`api,mail,web,+12`).
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub used_by: String,
}
