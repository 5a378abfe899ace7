//! Events, on transitions only, each once: by comparing a status with the one stored before.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType};
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::{RealServer, VirtualRouterStatus};
use lvs_plan::status::leadership::news;
use lvs_plan::status::rationed::Telling;

/// Longest note that the API takes (events.k8s.io/v1, `note`).
const NOTE_BYTES_MAXIMUM: usize = 1024;

/// Events for what changed between two lists of conditions: every change of Ready, and what began to
/// stand against the object. Waiting is no news.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for new in after {
        let old = before.iter().find(|old| old.type_ == new.type_);
        let is_same = old.is_some_and(|old| old.status == new.status && old.reason == new.reason);
        let is_news = new.reason != Reason::Pending.as_str();
        let is_ready = new.type_ == ConditionType::Ready.as_str();
        let is_told = events.iter().any(|event| event.reason == new.reason);
        // That heartbeats are heard again, or a quorum is met again, says nothing else.
        let ends = [ConditionType::HeartbeatsHeard, ConditionType::QuorumMet];
        let is_end = ends.iter().any(|type_| new.type_ == type_.as_str())
            && old.is_some_and(|old| old.status == "False");
        let is_told = is_told || is_by_checks(old, new);
        // What works, and would work better if somebody else were told.
        let is_repaired = new.reason == Reason::DriftRepaired.as_str();
        let is_worth_it = is_ready || is_end || is_repaired || new.status != "True";
        if is_same || !is_news || is_told || !is_worth_it {
            continue;
        }
        events.push(Event {
            type_: if new.status == "True" && !is_repaired {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: new.reason.clone(),
            note: Some(shorten(&new.message)),
            action: "Plan".to_owned(),
            secondary: None,
        });
    }
    events
}

/// Events for what happened between two statuses of a router. Related is the Node of the director: the recorder counts
/// repetitions of one reason, within six minutes, per director.
pub fn leadership(before: &VirtualRouterStatus, after: &VirtualRouterStatus) -> Vec<Event> {
    let news = news(before, after).into_iter();
    news.map(|news| Event {
        type_: if news.is_warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: news.reason.as_str().to_owned(),
        note: Some(shorten(&news.note)),
        action: "Lead".to_owned(),
        secondary: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(news.node_name),
            ..ObjectReference::default()
        }),
    })
    .collect()
}

/// The Event of what happened to real servers of a VirtualService. Related is the RealServer: the recorder counts
/// repetitions of one reason, within six minutes, per RealServer.
pub fn real_server(telling: &Telling) -> Event {
    let namespace = &telling.virtual_service.namespace;
    Event {
        type_: if telling.reason == Reason::RealServerUp {
            EventType::Normal
        } else {
            EventType::Warning
        },
        reason: telling.reason.as_str().to_owned(),
        note: Some(shorten(&telling.note)),
        action: "Check".to_owned(),
        secondary: telling.real_server.clone().map(|name| ObjectReference {
            api_version: Some(RealServer::api_version(&()).into_owned()),
            kind: Some(RealServer::kind(&()).into_owned()),
            name: Some(name),
            namespace: Some(namespace.clone()),
            ..ObjectReference::default()
        }),
    }
}

/// Whether a condition of a RealServer changed by its checks alone, which is told of its VirtualServices, in measure.
fn is_by_checks(old: Option<&Condition>, new: &Condition) -> bool {
    let failed = Reason::ChecksFailed.as_str();
    new.reason == failed || old.is_some_and(|old| old.reason == failed && new.status == "True")
}

fn shorten(message: &str) -> String {
    let mut end = message.len().min(NOTE_BYTES_MAXIMUM);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "ä".repeat(600),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn only_transitions_are_told_and_each_once() {
        let refused = [
            condition("Accepted", "False", "AddressInUse"),
            condition("Ready", "False", "AddressInUse"),
        ];
        let ready = [
            condition("Accepted", "True", "Accepted"),
            condition("Ready", "True", "Ready"),
        ];
        let events = transitions(&[], &refused);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].type_, EventType::Warning);
        assert!(events[0].note.as_ref().unwrap().len() <= 1024);
        assert!(transitions(&refused, &refused).is_empty());
        let events = transitions(&refused, &ready);
        assert_eq!((events.len(), events[0].type_), (1, EventType::Normal));
    }

    #[test]
    fn failing_checks_are_told_of_the_virtual_service() {
        let failed = [condition("Ready", "False", "ChecksFailed")];
        let ready = [condition("Ready", "True", "Ready")];
        assert!(transitions(&ready, &failed).is_empty());
        assert!(transitions(&failed, &ready).is_empty());
        assert_eq!(
            transitions(&failed, &[condition("Ready", "False", "Invalid")]).len(),
            1
        );
    }

    #[test]
    fn what_others_remove_is_told_though_it_was_put_back() {
        let programmed = [condition("Programmed", "True", "Programmed")];
        let repaired = [condition("Programmed", "True", "DriftRepaired")];
        let events = transitions(&programmed, &repaired);
        assert_eq!((events.len(), events[0].type_), (1, EventType::Warning));
        assert!(transitions(&repaired, &repaired).is_empty());
        assert!(transitions(&repaired, &programmed).is_empty());
    }

    #[test]
    fn waiting_is_no_news() {
        assert!(transitions(&[], &[condition("Ready", "False", "Pending")]).is_empty());
    }
}
