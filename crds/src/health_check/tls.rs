//! TLS of checks.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{ObjectName, PartName, ServerName};

/// How a check speaks TLS 1.2 or 1.3, and whom it trusts.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.caConfigMapName) || self.verification == 'Full'",
    "caConfigMapName needs verification Full: remove one of them"
))]
pub struct TlsCheck {
    /// What is verified of the real server's certificate. Full: that it is valid now, for the name that is asked, and of an authority that is known (caConfigMapName). None: nothing (as keepalived and ldirectord). Default Full.
    #[serde(default)]
    pub verification: TlsVerification,
    /// Name that the real server is told (SNI) and that its certificate must be for: a host name or an address, at most 253 characters. Default: the host of the request without port, else the address that is asked, of which the real server is told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ServerName>")]
    pub server_name: Option<String>,
    /// ConfigMap of the VirtualService's namespace, with label lvs.dev/ca-bundle=true, whose key ca.crt has the only certificate authorities that are trusted: in PEM, at most 65536 bytes. Edits count at once; while it is missing or wrong the check stays as it was. Only with verification Full. Default: those that agents are given (the chart's agent.certificateAuthorities).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub ca_config_map_name: Option<String>,
    /// Certificate that the director shows: a DNS label NAME, for keys NAMESPACE.NAME.tls.crt and .tls.key in PEM, as with credentialsName of the check. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PartName>")]
    pub credentials_name: Option<String>,
    /// Days before the end of the certificate, of the real server or the judge, from which on the real server's status warns of it, with an Event, also with verification None; nobody is taken out for that. From 1 to 365. Default: no warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 365))]
    pub expiry_warning_days: Option<u16>,
    /// When TLS begins. Immediately: with the first byte (imaps, pops, ldaps). StartTLS: after a command in plain text, only with type SMTP, FTP, IMAP or POP3, and always with MySQL or PostgreSQL. Default Immediately.
    #[serde(default)]
    pub start: TlsStart,
}

/// What is verified of a certificate.
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
pub enum TlsVerification {
    /// Time, name and authority.
    #[default]
    Full,
    /// Nothing.
    None,
}

/// When TLS begins.
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
pub enum TlsStart {
    /// With the first byte.
    #[default]
    Immediately,
    /// After a command: STARTTLS, STLS or AUTH TLS.
    StartTLS,
}
