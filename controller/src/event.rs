//! Events, on transitions only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use lvs_crds::condition::{ConditionType, Reason};

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
        if is_same || !is_news || is_told || (!is_ready && new.status == "True") {
            continue;
        }
        events.push(Event {
            type_: if new.status == "True" {
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
    fn waiting_is_no_news() {
        assert!(transitions(&[], &[condition("Ready", "False", "Pending")]).is_empty());
    }
}
