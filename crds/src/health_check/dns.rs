//! Checks of name servers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::QueryName;

/// A question to a name server, over UDP. It passes if it is answered with NOERROR and at least one record; what the records say is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsCheck {
    /// Name that is asked for, such as www.example.org, or . for the root, at most 253 characters. Required.
    #[schemars(with = "QueryName")]
    pub name: String,
    /// Type of record that is asked for: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT. Default A.
    #[serde(default)]
    pub record_type: DnsRecordType,
}

/// Type of a record.
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
pub enum DnsRecordType {
    /// IPv4 address.
    #[default]
    A,
    /// IPv6 address.
    AAAA,
    /// Canonical name.
    CNAME,
    /// Mail server.
    MX,
    /// Name server.
    NS,
    /// Name of an address.
    PTR,
    /// Start of a zone.
    SOA,
    /// Place of a service.
    SRV,
    /// Text.
    TXT,
}

impl DnsRecordType {
    /// The word of master files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::AAAA => "AAAA",
            Self::CNAME => "CNAME",
            Self::MX => "MX",
            Self::NS => "NS",
            Self::PTR => "PTR",
            Self::SOA => "SOA",
            Self::SRV => "SRV",
            Self::TXT => "TXT",
        }
    }

    /// The number in messages (RFC 1035, RFC 3596, RFC 2782).
    pub const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::NS => 2,
            Self::CNAME => 5,
            Self::SOA => 6,
            Self::PTR => 12,
            Self::MX => 15,
            Self::TXT => 16,
            Self::AAAA => 28,
            Self::SRV => 33,
        }
    }
}
