//! How a node takes part in the leadership of one router.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection_sync::PlannedConnectionSync;
use crate::tracking::{TrackedEndpoint, TrackedRealServers};
use crate::value::Timeouts;
use crate::virtual_router::{Announcement, OnApiServerLoss, Takeover};

/// Leadership of one router on this node. Lease: same namespace as the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeadershipPlan {
    /// Name of the Lease that the controller made.
    #[schemars(length(max = 253))]
    pub lease_name: String,
    /// VRRP priority of this node, 1..254; 0: it gives way to any other director that is ready.
    pub priority: u8,
    /// Seconds for which a director with a higher priority must be ready before the holder gives way to it; unset = it never
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_delay_seconds: Option<u32>,
    /// Director to which the holder is to hand over once that one is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hand_over_to: Option<String>,
    /// Whether this node may acquire the Lease.
    pub candidacy: Candidacy,
    /// Nodes of all directors, this one included, sorted.
    #[schemars(length(max = 5000), inner(length(max = 253)))]
    pub directors: Vec<String>,
    /// Lease duration, seconds.
    pub lease_duration_seconds: u32,
    /// Heartbeats between the directors; unset = none, and a holder that dies is noticed when its Lease has run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatPlan>,
    /// What the holder does without the API server.
    #[serde(default, rename = "onAPIServerLoss")]
    pub on_api_server_loss: OnApiServerLoss,
    /// When a director that has taken over adds the addresses.
    #[serde(default, skip_serializing_if = "Takeover::is_fast")]
    pub takeover: Takeover,
    /// How addresses are announced.
    pub announcement: Announcement,
    /// IPVS timeouts of the node; unset = left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// How connections survive a takeover; unset = they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_sync: Option<PlannedConnectionSync>,
    /// VRID whose virtual MAC the addresses have; unset = that of their device.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "virtualRouterID"
    )]
    #[schemars(range(min = 1, max = 255))]
    pub virtual_router_id: Option<u8>,
    /// Interfaces whose link counts for candidacy beside those of the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tracked_interfaces: Vec<PlannedTrackedInterface>,
    /// HTTP endpoints that the node asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tracked_endpoints: Vec<TrackedEndpoint>,
    /// How many real servers of each VirtualService must be up; unset = it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked_real_servers: Option<TrackedRealServers>,
    /// Addresses of VirtualServices that every director reports as Unavailable: they are no fault of one
    /// director. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub addresses_set_aside: Vec<IpAddr>,
}

/// An interface whose link is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedTrackedInterface {
    /// Name of the logical interface.
    #[schemars(length(max = 63))]
    pub interface_name: String,
    /// Device names, the first that exists.
    #[schemars(length(min = 1, max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// Added to the priority while the link is down; 0 = fault.
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
}

/// Heartbeats of one router (leadership.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatPlan {
    /// i: milliseconds between heartbeats.
    pub interval_milliseconds: u16,
    /// k: missed heartbeats after which a director is silent.
    pub missed: u8,
    /// c: milliseconds a challenged holder has to answer.
    pub challenge_window_milliseconds: u16,
    /// Device names of the interface over which heartbeats go, the first that exists on the node; empty = by whatever way the routes say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 15)))]
    pub devices: Vec<String>,
    /// Where directors are reached, this one included, sorted by node; those without an address are left out.
    #[schemars(length(max = 5000))]
    pub peers: Vec<HeartbeatPeer>,
}

/// One director's address for heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatPeer {
    /// Node.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Its address.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
}

/// Whether a director may acquire the Lease (leadership.md rule 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Candidacy {
    /// It may.
    Permitted,
    /// Not before every older director has acknowledged the new set of directors.
    Pending,
}
