//! Tracking: what a director watches beside its addresses, and what its failure costs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{EndpointUrl, NodeConditionType, PartName};

/// What a director watches beside the devices of its addresses, whose failure is a fault in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracking {
    /// Interfaces whose link is watched, at most 32. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["interfaceName".into()]))]
    pub interfaces: Vec<TrackedInterface>,
    /// Conditions of the director's Node object, at most 16. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into(), "status".into()]))]
    pub node_conditions: Vec<TrackedNodeCondition>,
    /// HTTP endpoints that each director asks by itself, at most 16. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["url".into()]))]
    pub endpoints: Vec<TrackedEndpoint>,
    /// How many real servers of each VirtualService a director must find up by its own health checks. Default: it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_servers: Option<TrackedRealServers>,
}

impl Tracking {
    /// Whether nothing is tracked.
    pub const fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
            && self.node_conditions.is_empty()
            && self.endpoints.is_empty()
            && self.real_servers.is_none()
    }
}

/// How many real servers a director must find up (keepalived: a track_script of one's own).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TrackedRealServers {
    /// Real servers of each port of each VirtualService of the router that must be up, 1..4096; of one that has fewer, all. What was not checked yet counts as up. Default 1.
    #[serde(default = "TrackedRealServers::default_minimum_ready")]
    #[schemars(range(min = 1, max = 4096))]
    pub minimum_ready: u16,
    /// What is added to a director's priority for each VirtualService of which it finds fewer up, -253..0; the sum stays within 1..254. With 0 such a director gives way to any other that is ready. Where all directors find the same nothing moves. Default 0.
    #[serde(default)]
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
}

impl TrackedRealServers {
    const fn default_minimum_ready() -> u16 {
        1
    }
}

/// An interface whose link is watched (keepalived: track_interface).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackedInterface {
    /// Name of a logical interface in interfaces. Required.
    #[schemars(with = "PartName")]
    pub interface_name: String,
    /// What is added to a director's priority while its device of this interface is missing, down or without carrier, -253..0; the sum stays within 1..254. 0 is a fault: such a director does not take the addresses over, and gives them to one without a fault. Default 0.
    #[serde(default)]
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
}

/// A condition in the status of a director's Node object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackedNodeCondition {
    /// Type of the condition, such as Ready or MemoryPressure. Required.
    #[serde(rename = "type")]
    #[schemars(with = "NodeConditionType")]
    pub type_: String,
    /// Status of the condition that counts against the director: True, False or Unknown, in quotation marks. A condition that the Node does not have is Unknown. Required.
    pub status: NodeConditionStatus,
    /// What is added to a director's priority while the condition of its Node has this status, -253..0; the sum stays within 1..254. 0 is a fault: such a director gives way to any other that is ready, as one whose node is cordoned. Default 0.
    #[serde(default)]
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
}

/// Status of a condition, as in the Kubernetes API.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum NodeConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody knows.
    Unknown,
}

impl NodeConditionStatus {
    /// The word in the API. Any other that a Node may have says as little as Unknown.
    pub fn parse(word: &str) -> Self {
        match word {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// An HTTP endpoint that each director asks by itself (instead of keepalived's track_script). Nothing is taken off the priority before the first verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackedEndpoint {
    /// What is asked by GET, from the host's network of each director, as http://127.0.0.1:9/ok. An answer with status 200-299 is a success; a redirect is not followed, a body not read. Required.
    #[schemars(with = "EndpointUrl")]
    pub url: String,
    /// What is added to a director's priority while the endpoint fails for it, -253..0; the sum stays within 1..254. 0 is a fault: such a director does not take the addresses over, and gives them to one without a fault. Default 0.
    #[serde(default)]
    #[schemars(range(min = -253, max = 0))]
    pub priority_delta: i32,
    /// Seconds from the start of a question to the start of the next, 1..3600; where an answer takes longer the next question waits for it. Default 1.
    #[serde(default = "TrackedEndpoint::default_period_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: u16,
    /// Seconds for the answer, connecting included, 1..60. Default 1.
    #[serde(default = "TrackedEndpoint::default_timeout_seconds")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u8,
    /// Failures in a row until the endpoint counts as failing, 1..100. Default 3.
    #[serde(default = "TrackedEndpoint::default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,
    /// Successes in a row until it counts as good again, 1..100. Default 1.
    #[serde(default = "TrackedEndpoint::default_success_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u8,
}

impl TrackedEndpoint {
    const fn default_period_seconds() -> u16 {
        1
    }
    const fn default_timeout_seconds() -> u8 {
        1
    }
    const fn default_failure_threshold() -> u8 {
        3
    }
    const fn default_success_threshold() -> u8 {
        1
    }
}

/// Something that speaks against a director, though its kernel holds what was asked: what it costs, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deduction {
    /// What it adds to the priority, -253..0; 0: the director gives way to any other that is ready.
    pub priority_delta: i32,
    /// Reason word.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Reason in words.
    #[schemars(length(max = 1024))]
    pub message: String,
}
