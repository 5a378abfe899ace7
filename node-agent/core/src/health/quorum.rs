//! Whether enough real servers of a service are up.

use lvs_crds::traffic_policy::Quorum;

/// Whether `live`, the weight of real servers that are up, is enough, given whether it was before: reached at
/// `minimum_weight` and `hysteresis` together, lost below their difference. At first it must be reached, and nothing at
/// all is never enough.
pub const fn is_quorum_met(quorum: &Quorum, live: u32, was_met: bool) -> bool {
    let needed = if was_met {
        quorum.minimum_weight.saturating_sub(quorum.hysteresis)
    } else {
        quorum.minimum_weight.saturating_add(quorum.hysteresis)
    };
    live > 0 && live >= needed
}
