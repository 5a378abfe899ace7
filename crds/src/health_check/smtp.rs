//! Checks of mail servers.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::HelloName;

/// A conversation with a mail server: it greets with 220, answers EHLO with 250, and is told QUIT.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SmtpCheck {
    /// Name that the director gives itself in EHLO, at most 253 characters. Default: the address that it asks from, in brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<HelloName>")]
    pub hello_name: Option<String>,
}
