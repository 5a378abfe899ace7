//! `QuorumMet`, of a VirtualService that asks for a quorum.

use lvs_crds::condition::{ConditionType, Reason};

use super::{Progress, Reporter};
use crate::input::VirtualServiceObject;
use crate::report::{Truth, Verdict};

const CONDITION: ConditionType = ConditionType::QuorumMet;

impl Reporter<'_> {
    /// As the director says that has the addresses. While nobody says anything it stays what it was, so that a takeover is no
    /// news of the real servers.
    pub(super) fn quorum(
        &self,
        object: &VirtualServiceObject,
        master: Option<&str>,
    ) -> Option<Verdict> {
        let quorum = object.spec()?.quorum.as_ref()?;
        let without = master.and_then(|master| self.without_quorum(&object.meta.uid, master));
        let Some(without) = without else {
            return Some(known(object).unwrap_or_else(|| {
                let message = "no director has reported it yet";
                Verdict::unknown(CONDITION, Reason::Pending, message)
            }));
        };
        let minimum = quorum.minimum_weight;
        Some(if without.is_empty() {
            let lost = minimum.saturating_sub(quorum.hysteresis);
            let message = format!(
                "the weights of real servers that are up come to {minimum} or more, or did and have not fallen below {lost}"
            );
            Verdict::good(CONDITION, Reason::QuorumMet, message)
        } else {
            let needed = minimum.saturating_add(quorum.hysteresis);
            let services = without.join(", ");
            let message = format!(
                "{services}: the weights of real servers that are up come to less than the quorum, which is met again at {needed}"
            );
            Verdict::bad(CONDITION, Reason::QuorumLost, message)
        })
    }

    /// What the master says has no quorum, once it has programmed the newest plan.
    fn without_quorum(&self, uid: &str, master: &str) -> Option<&[String]> {
        let mut plans = self.standing(uid);
        let (name, planned) = plans.find(|(_, planned)| {
            planned.spec.node_name == master && planned.spec.director.is_some()
        })?;
        if self.progress(name, planned) != Progress::Programmed {
            return None;
        }
        let stored = self.decisions.inputs.node_plans.get(name)?;
        let status = stored.object.status.as_ref()?;
        Some(&status.services_without_quorum)
    }
}

/// What the VirtualService has been told before.
fn known(object: &VirtualServiceObject) -> Option<Verdict> {
    let conditions = &object.status.as_ref()?.conditions;
    let known = conditions
        .iter()
        .find(|condition| condition.type_ == CONDITION.as_str())?;
    let truth = match known.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => return None,
    };
    Some(Verdict {
        condition: CONDITION,
        truth,
        reason: Reason::parse(&known.reason)?,
        message: known.message.clone(),
    })
}
