//! Why each thing was or was not done, in the words of conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lvs_crds::condition::{ConditionType, Reason};

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// The good state.
    True,
    /// Not so.
    False,
    /// Nobody can say yet.
    Unknown,
}

impl Truth {
    /// The word in `status.conditions[].status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition without its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verdict {
    /// Condition type.
    pub condition: ConditionType,
    /// Its status.
    pub truth: Truth,
    /// Why.
    pub reason: Reason,
    /// Why in words, naming the field and the cure.
    pub message: String,
}

impl Verdict {
    /// The good state.
    pub fn good(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::True,
            reason,
            message: message.into(),
        }
    }

    /// Something stands against it.
    pub fn bad(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::False,
            reason,
            message: message.into(),
        }
    }

    /// Not known yet.
    pub fn unknown(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::Unknown,
            reason,
            message: message.into(),
        }
    }
}

/// Longest message of a condition that the API server takes (apimachinery, `Condition.message`).
const MESSAGE_BYTES_MAXIMUM: usize = 32_768;
/// Longest list of reasons in one message; the rest is counted.
const REASONS_SHOWN_MAXIMUM: usize = 8;

/// Sums up what stands against one condition: the reason of the first problem, the messages of
/// all. Without a problem, `good`.
pub fn summarise(
    condition: ConditionType,
    mut problems: Vec<Verdict>,
    good: (Reason, &str),
) -> Verdict {
    problems.retain(|problem| problem.condition == condition);
    let Some(first) = problems.first().cloned() else {
        return Verdict::good(condition, good.0, good.1);
    };
    let mut messages: Vec<&str> = Vec::new();
    for problem in &problems {
        if !messages.contains(&problem.message.as_str()) {
            messages.push(&problem.message);
        }
    }
    let hidden = messages.len().saturating_sub(REASONS_SHOWN_MAXIMUM);
    messages.truncate(REASONS_SHOWN_MAXIMUM);
    let rest = (hidden > 0).then(|| format!("and {hidden} more"));
    messages.extend(rest.as_deref());
    let message = messages.join("; ");
    Verdict { message, ..first }
}

/// `Accepted`, over everything that stands against an object.
pub fn accepted(problems: &[Verdict]) -> Verdict {
    summarise(
        ConditionType::Accepted,
        problems.to_vec(),
        (Reason::Accepted, "nothing stands against it"),
    )
}

/// `ResolvedRefs`, over every reference that leads nowhere.
pub fn resolved(problems: &[Verdict]) -> Verdict {
    summarise(
        ConditionType::ResolvedRefs,
        problems.to_vec(),
        (Reason::Resolved, "every reference was found"),
    )
}

/// Whether `Programmed` is among the conditions of an object as stored, and true.
pub fn is_programmed<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> bool {
    conditions.into_iter().any(|condition| {
        condition.type_ == ConditionType::Programmed.as_str() && condition.status == "True"
    })
}

/// Conditions to store: a time of transition is kept where the status did not change.
pub fn stamp(
    previous: &[Condition],
    verdicts: &[Verdict],
    generation: i64,
    now: &Time,
) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let (type_, status) = (verdict.condition.as_str(), verdict.truth.as_str());
            let unchanged = previous
                .iter()
                .find(|old| old.type_ == type_ && old.status == status);
            let mut message = verdict.message.clone();
            let mut end = message.len().min(MESSAGE_BYTES_MAXIMUM);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message,
                observed_generation: Some(generation),
                last_transition_time: unchanged
                    .map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn the_time_of_a_transition_stays_while_the_status_stays() {
        let first = stamp(
            &[],
            &[Verdict::good(ConditionType::Ready, Reason::Ready, "a")],
            1,
            &time(10),
        );
        let second = stamp(
            &first,
            &[Verdict::good(
                ConditionType::Ready,
                Reason::PartiallyReady,
                "b",
            )],
            2,
            &time(20),
        );
        assert_eq!(second[0].last_transition_time, time(10));
        assert_eq!(second[0].reason, "PartiallyReady");
        let third = stamp(
            &second,
            &[Verdict::bad(ConditionType::Ready, Reason::NoMaster, "c")],
            2,
            &time(30),
        );
        assert_eq!(third[0].last_transition_time, time(30));
    }

    #[test]
    fn a_summary_takes_the_first_reason_and_says_each_thing_once() {
        let bad = |reason, message: &str| Verdict::bad(ConditionType::Accepted, reason, message);
        let problems = vec![
            bad(Reason::AddressInUse, "x"),
            bad(Reason::AddressInUse, "x"),
            bad(Reason::AddressNotPermitted, "y"),
            Verdict::bad(ConditionType::ResolvedRefs, Reason::NodeNotFound, "z"),
        ];
        let sum = summarise(ConditionType::Accepted, problems, (Reason::Accepted, ""));
        assert_eq!(
            (sum.reason, sum.message.as_str()),
            (Reason::AddressInUse, "x; y")
        );
        let many = (0..20)
            .map(|i| bad(Reason::AddressInUse, &i.to_string()))
            .collect();
        assert!(
            summarise(ConditionType::Accepted, many, (Reason::Accepted, ""))
                .message
                .ends_with("and 12 more")
        );
    }
}
