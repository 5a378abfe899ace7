//! Tracking: what a director watches beside its addresses, and what its failure costs.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::PartName;

/// What a director watches beside the devices of its addresses, whose failure is a fault in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracking {
    /// Interfaces whose link is watched, at most 32. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["interfaceName".into()]))]
    pub interfaces: Vec<TrackedInterface>,
}

impl Tracking {
    /// Whether nothing is tracked.
    pub const fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
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
