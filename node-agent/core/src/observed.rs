//! What was read from the kernel in one pass. Reading is all or nothing: there is no value for "unknown" here, so a
//! part that could not be read never looks like an empty one.

use serde::{Deserialize, Serialize};

use crate::host::ObservedHost;
use crate::ipvs::{IpvsTimeouts, Services};

/// Everything `diff` compares with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Every IPVS service of the network namespace, foreign ones included.
    pub services: Services,
    /// IPVS timeouts.
    pub timeouts: IpvsTimeouts,
    /// The rest of the host.
    pub host: ObservedHost,
}
