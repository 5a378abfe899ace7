//! Checks of name servers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{QueryName, RecordText};

/// A question to a name server, over UDP. It passes if it is answered with NOERROR and at least one record, among them those of answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.answers) || self.recordType != 'A' || self.answers.all(text, isIP(text) && ip(text).family() == 4)",
    "dns.answers must be IPv4 addresses with recordType A: correct them, or set another recordType"
))]
#[x_kube(validation = (
    "!has(self.answers) || self.recordType != 'AAAA' || self.answers.all(text, isIP(text) && ip(text).family() == 6)",
    "dns.answers must be IPv6 addresses with recordType AAAA: correct them, or set another recordType"
))]
pub struct DnsCheck {
    /// Name that is asked for, such as www.example.org, or . for the root, at most 253 characters. Required.
    #[schemars(with = "QueryName")]
    pub name: String,
    /// Type of record that is asked for: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT. Default A.
    #[serde(default)]
    pub record_type: DnsRecordType,
    /// Records of that type that must be among the answers, at most 16, each as in a master file: 192.0.2.1, 10 mail.example.org, v=spf1 -all. Names are compared without regard to case and to a dot at their end, a text (TXT) as it is. Default: any record will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<RecordText>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub answers: Vec<String>,
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
