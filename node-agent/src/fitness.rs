//! What speaks against this node as director of a router.

use lvs_core::desired::{DesiredState, Fault, Fitness};
use lvs_crds::condition::Reason;
use lvs_crds::tracking::Deduction;

use crate::port::{LeadershipRole, LeadershipView};

/// What the plans and the node say, services that fail here and, while it is master, what the kernel refuses to the fence. A
/// backup's refusals are old: it tries nothing.
pub fn fitness(
    desired: &DesiredState,
    failure: Option<&Deduction>,
    view: &LeadershipView,
    router: &str,
) -> Fitness {
    let mut fitness = desired.fitness.get(router).cloned().unwrap_or_default();
    fitness.deductions.extend(failure.cloned());
    if view.roles.get(router) == Some(&LeadershipRole::Master) {
        let troubles = view.troubles.get(router).into_iter().flatten();
        let refused = troubles.map(|trouble| (trouble.reason, trouble.message.clone()));
        let journal = view.journal_error.clone();
        let journal = journal.map(|error| (Reason::KernelError, error));
        fitness.faults.extend(
            refused
                .chain(journal)
                .map(|(reason, message)| Fault { reason, message }),
        );
    }
    fitness
}
