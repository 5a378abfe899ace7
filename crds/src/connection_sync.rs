//! How connections survive a takeover: `VirtualRouter.spec.connectionSync` and what a director's plan says of it.

use std::net::IpAddr;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{MulticastAddress, PartName};

/// Whether and how established connections survive a takeover: a union of `type` and the member it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(self.type == 'Daemon') == has(self.daemon)",
    "daemon is required with type Daemon and refused with any other type: set type Daemon together with daemon, or remove daemon"
))]
pub struct ConnectionSync {
    /// None: connections break when another director takes over. Daemon: the kernel's IPVS sync daemons send the master's connections to the backups, by multicast on an interface. Stateless: nothing is sent; every service must use scheduler mh, by which each director finds the same real server for a connection that it has never seen. Default None.
    #[serde(rename = "type", default)]
    pub type_: ConnectionSyncType,
    /// Set-up of the sync daemons. With type Daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<SyncDaemonSettings>,
}

/// Kind of connection sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnectionSyncType {
    /// None.
    #[default]
    None,
    /// The kernel's sync daemons.
    Daemon,
    /// Equal tables on all directors.
    Stateless,
}

/// Set-up of the IPVS sync daemons (ipvsadm --start-daemon). A node has one: where routers disagree the older wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncDaemonSettings {
    /// Name of a logical interface in interfaces, over which the directors reach each other by multicast. Messages are neither authenticated nor encrypted: use a network of the directors alone. Required.
    #[schemars(with = "PartName")]
    pub interface_name: String,
    /// Number by which the directors of one set know their messages, 1..255; different for each set of directors on one network. Required.
    #[serde(rename = "syncID")]
    #[schemars(range(min = 1, max = 255))]
    pub sync_id: u8,
    /// Multicast group, IPv4 or IPv6. Default 224.0.0.81.
    #[serde(default = "SyncDaemonSettings::default_group")]
    #[schemars(with = "MulticastAddress")]
    pub group: String,
    /// UDP port, 1..65535; where sysctl net.ipv4.vs.sync_ports is more than 1 also the ports after it. Default 8848.
    #[serde(default = "SyncDaemonSettings::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Time to live of the messages (hop limit with IPv6), 1..255; 1 stays on the link. Default 1.
    #[serde(default = "SyncDaemonSettings::default_ttl")]
    #[schemars(range(min = 1, max = 255))]
    pub ttl: u8,
    /// Greatest length of a message in bytes without IP and UDP headers, 1024..65487. Default: as the kernel chooses, for an MTU of 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65487))]
    pub maximum_length: Option<u16>,
}

impl SyncDaemonSettings {
    fn default_group() -> String {
        // IP_VS_SYNC_GROUP, net/netfilter/ipvs/ip_vs_sync.c.
        "224.0.0.81".to_owned()
    }
    const fn default_port() -> u16 {
        8848
    }
    const fn default_ttl() -> u8 {
        1
    }
}

/// What a director does so that connections survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.type != 'None' && (self.type == 'Daemon') == has(self.daemon)",
    "type is Daemon with daemon, or Stateless without"
))]
pub struct PlannedConnectionSync {
    /// Daemon or Stateless.
    #[serde(rename = "type")]
    pub type_: ConnectionSyncType,
    /// Set-up of the sync daemons; with type Daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<PlannedSyncDaemon>,
}

/// Set-up of the IPVS sync daemons of a node; leadership decides which of the two runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSyncDaemon {
    /// Device names, the first that exists.
    #[schemars(length(min = 1, max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// Number of the set of directors, 1..255.
    #[serde(rename = "syncID")]
    pub sync_id: u8,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Time to live.
    pub ttl: u8,
    /// Greatest length of a message, bytes; unset = the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_length: Option<u16>,
}
