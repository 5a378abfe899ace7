//! Checks of database servers.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::text::DatabaseName;

/// A log-in to MySQL or MariaDB with an empty password. A server that refuses the user passes, as it answers; one that says it has too many connections, or has blocked the director, does not. The user needs not exist; the log-in is made because a server blocks hosts that connect and say nothing.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct MySqlCheck {
    /// User that is named, at most 63 characters. Default lvs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DatabaseName>")]
    pub user: Option<String>,
}

/// The beginning of a log-in to PostgreSQL, up to where the server asks for a password or refuses the user: it passes then, as it answers. One that is starting, shutting down or full does not (as pg_isready).
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct PostgreSqlCheck {
    /// User that is named, at most 63 characters. Default lvs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DatabaseName>")]
    pub user: Option<String>,
    /// Database that is named, at most 63 characters. Default postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DatabaseName>")]
    pub database: Option<String>,
}
