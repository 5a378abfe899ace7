//! Checks by datagram.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::HexadecimalBytes;

/// A datagram and what is expected of its reply. Without a reply the check fails: silence does not tell a server that works from a host that is off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UdpCheck {
    /// Bytes of the datagram as pairs of hexadecimal digits, at most 512 of them; an empty text is an empty datagram. Required.
    #[schemars(with = "HexadecimalBytes")]
    pub payload: String,
    /// Bytes that the reply must begin with, as pairs of hexadecimal digits, at most 512 of them. Default: any reply is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<HexadecimalBytes>")]
    pub reply_prefix: Option<String>,
}
