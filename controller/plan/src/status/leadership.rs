//! What is seen of leadership: who hears the holder, and what happened since the status before.

use std::collections::BTreeMap;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::transition::{Transition, TransitionKind};
use lvs_crds::virtual_router::{Candidate, CandidateState, VirtualRouterStatus};

use super::Reporter;
use crate::report::Verdict;

/// Something that happened to a router, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The word of the Event.
    pub reason: Reason,
    /// Who, from whom, in which epoch and why.
    pub note: String,
    /// The director that it happened to.
    pub node_name: String,
    /// Whether somebody should look after it.
    pub is_warning: bool,
}

/// What the agents have reported that the status before did not know yet, in the order of epochs.
///
/// Of several transitions of one director between two statuses the last is told: the others are not known. One of a
/// director that had none so far is news unless the status before knew a newer epoch: it may come from a plan of long ago.
pub fn news(before: &VirtualRouterStatus, after: &VirtualRouterStatus) -> Vec<News> {
    let known: BTreeMap<&str, &Transition> = before
        .candidates
        .iter()
        .filter_map(|candidate| {
            Some((
                candidate.node_name.as_str(),
                candidate.last_transition.as_ref()?,
            ))
        })
        .collect();
    let newest_epoch = known
        .values()
        .map(|transition| transition.epoch)
        .chain(before.master.as_ref().map(|master| master.epoch))
        .max();
    let mut told: Vec<(&Transition, &Candidate)> = after
        .candidates
        .iter()
        .filter_map(|candidate| Some((candidate.last_transition.as_ref()?, candidate)))
        .filter(
            |(transition, candidate)| match known.get(candidate.node_name.as_str()) {
                Some(known) => known != transition,
                None => newest_epoch.is_none_or(|newest| transition.epoch >= newest),
            },
        )
        .collect();
    // Who handed over did so before the successor's report, though both name the epoch that began.
    let order = |kind| match kind {
        TransitionKind::HandedOver => 0,
        TransitionKind::BecameMaster => 1,
        TransitionKind::Fenced => 2,
    };
    told.sort_by_key(|(transition, _)| (transition.epoch, order(transition.reason)));
    told.into_iter()
        .map(|(transition, candidate)| News {
            reason: transition.reason.reason(),
            note: transition.sentence(&candidate.node_name),
            node_name: candidate.node_name.clone(),
            is_warning: transition.reason == TransitionKind::Fenced,
        })
        .collect()
}

impl Reporter<'_> {
    /// The holder that a director does not hear. What it said of another holder is out of date.
    pub(super) fn unheard_holder(&self, router: &str, plan: &str) -> Option<&str> {
        let stored = self.decisions.inputs.node_plans.get(plan)?;
        let unheard = stored
            .object
            .status
            .as_ref()?
            .heartbeat_lost_from
            .as_deref();
        unheard.filter(|unheard| self.master(router) == Some(*unheard))
    }

    /// How the director last came to hold the addresses, or ceased to: as its agent says, or as was known before its plan was
    /// made anew.
    pub(super) fn last_transition(
        &self,
        router: &str,
        node_name: &str,
        plan: &str,
    ) -> Option<Transition> {
        let inputs = self.decisions.inputs;
        let stored = inputs.node_plans.get(plan);
        let reported = stored
            .and_then(|stored| stored.object.status.as_ref())
            .and_then(|status| status.last_transition.clone());
        reported.or_else(|| {
            let status = inputs.virtual_routers.get(router)?.status.as_ref()?;
            let mut before = status.candidates.iter();
            before
                .find(|candidate| candidate.node_name == node_name)?
                .last_transition
                .clone()
        })
    }
}

/// Why a director that is ready to take over would take longer than it should.
pub(super) fn unheard(node_name: &str, holder: &str) -> (Reason, String) {
    let message = format!(
        "{node_name} does not hear {holder}, which holds the addresses and renews its Lease: while that is so, {node_name} takes \
         over only when the Lease has run out; let UDP of the heartbeats pass between them, and give both the same key"
    );
    (Reason::HeartbeatLost, message)
}

/// `HeartbeatsHeard`, of a router with several directors.
pub(super) fn heartbeats(candidates: &[Candidate]) -> Option<Verdict> {
    if candidates.len() < 2 {
        return None;
    }
    let mut states = candidates.iter().map(|candidate| candidate.state);
    if !states.any(|state| state == CandidateState::Master) {
        return Some(Verdict::unknown(
            ConditionType::HeartbeatsHeard,
            Reason::Pending,
            "no director holds the addresses",
        ));
    }
    let lost: Vec<&str> = candidates
        .iter()
        .filter(|candidate| candidate.reason.as_deref() == Some(Reason::HeartbeatLost.as_str()))
        .filter_map(|candidate| candidate.message.as_deref())
        .collect();
    Some(if lost.is_empty() {
        Verdict::good(
            ConditionType::HeartbeatsHeard,
            Reason::HeartbeatsHeard,
            "no director misses heartbeats of the one that holds the addresses",
        )
    } else {
        Verdict::bad(
            ConditionType::HeartbeatsHeard,
            Reason::HeartbeatLost,
            lost.join("; "),
        )
    })
}
