//! What was read from the kernel in one pass. Reading is all or nothing: there is no value for "unknown" here, so a
//! part that could not be read never looks like an empty one.

use serde::{Deserialize, Serialize};

use crate::host::ObservedHost;
use crate::ipvs::{IpvsTimeouts, Services};
use crate::sync_daemon::SyncDaemons;
use crate::table::Disorder;

/// Everything `diff` compares with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Every IPVS service of the network namespace, foreign ones included.
    pub services: Services,
    /// Services whose scheduler minds the order of destinations, where that is not the canonical one.
    pub disorder: Disorder,
    /// IPVS timeouts.
    pub timeouts: IpvsTimeouts,
    /// IPVS sync daemons, foreign ones included.
    pub sync_daemons: SyncDaemons,
    /// The rest of the host.
    pub host: ObservedHost,
}
