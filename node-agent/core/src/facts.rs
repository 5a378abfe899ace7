//! Facts of a node that only the node itself knows, for people who look before they install or when something does not work:
//! what `lvs-agent show facts` writes in JSON and `kubectl lvs check` judges.
//!
//! The two programs may be of different versions: a field that is new has a default, a field that is not known is passed over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Kernel modules of which it is told whether they are loaded.
pub const MODULES: [&str; 12] = [
    "fou",
    "ip6_gre",
    "ip6_tunnel",
    "ip_gre",
    "ip_vs",
    "ip_vs_ftp",
    "ipip",
    "macvlan",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "sit",
];

/// Sysctls that are read, as paths below /proc/sys.
pub const SYSCTLS: [&str; 12] = [
    "net/ipv4/conf/all/arp_announce",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/ip_forward",
    "net/ipv4/vs/backup_only",
    "net/ipv4/vs/conntrack",
    "net/ipv4/vs/expire_nodest_conn",
    "net/ipv4/vs/sloppy_tcp",
    "net/ipv4/vs/sync_threshold",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
];

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Release of the kernel, as `uname -r` says it.
    #[serde(default)]
    pub kernel_release: String,
    /// Those of [`MODULES`] that are loaded or built in.
    #[serde(default)]
    pub modules: BTreeSet<String>,
    /// [`SYSCTLS`] by path, such as net/ipv4/ip_forward; a path that the kernel does not have is missing.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Names of all devices of the node.
    #[serde(default)]
    pub devices: BTreeSet<String>,
    /// What could not be read, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
