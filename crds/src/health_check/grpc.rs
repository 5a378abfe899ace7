//! Checks of gRPC servers.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::GrpcService;

/// A question by gRPC's own health checking protocol (grpc.health.v1.Health/Check), over HTTP/2. It passes if the server says SERVING.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct GrpcCheck {
    /// Name of the service that is asked about, such as shop.Cart, at most 253 characters. Default: the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<GrpcService>")]
    pub service: Option<String>,
}
