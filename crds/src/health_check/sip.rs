//! Checks of SIP servers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An OPTIONS request to a SIP server (RFC 3261, 11). It passes if it is answered with a status of 200-299.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SipCheck {
    /// UDP or TCP. Default UDP.
    #[serde(default)]
    pub transport: SipTransport,
}

/// How a SIP server is reached.
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
pub enum SipTransport {
    /// By datagrams.
    #[default]
    UDP,
    /// Over a connection.
    TCP,
}

impl SipTransport {
    /// The word in a Via header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UDP => "UDP",
            Self::TCP => "TCP",
        }
    }
}
