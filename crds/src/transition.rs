//! How a director last came to hold a router's addresses, or ceased to: what the agent reports of it, and the sentence
//! that people read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Reason;

/// What happened.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum TransitionKind {
    /// The director took the addresses.
    BecameMaster,
    /// It left them to a successor, by its own will.
    HandedOver,
    /// It gave them up since its authority had ended.
    Fenced,
}

impl TransitionKind {
    /// The word for Event and metric.
    pub const fn reason(self) -> Reason {
        match self {
            Self::BecameMaster => Reason::BecameMaster,
            Self::HandedOver => Reason::HandedOver,
            Self::Fenced => Reason::Fenced,
        }
    }
}

/// How a director last came to hold a router's addresses, or ceased to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// BecameMaster: it took the addresses. HandedOver: it left them to a successor. Fenced: it gave them up since its authority had ended.
    pub reason: TransitionKind,
    /// BecameMaster, HandedOver: the epoch that began. Fenced: the epoch that was given up.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// The director that held the addresses before, or holds them now; unset = nobody, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub peer_node_name: Option<String>,
    /// What led to it, with values.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When, by the clock of the director's node.
    pub time: Time,
}

impl Transition {
    /// Who, from whom, in which epoch and why, of the director `node_name`.
    pub fn sentence(&self, node_name: &str) -> String {
        let Self {
            epoch,
            message: why,
            ..
        } = self;
        match (self.reason, self.peer_node_name.as_deref()) {
            (TransitionKind::BecameMaster, Some(peer)) => {
                format!("{node_name} took over from {peer} in epoch {epoch}: {why}")
            }
            (TransitionKind::BecameMaster, None) => {
                format!("{node_name} became master in epoch {epoch}: {why}")
            }
            (TransitionKind::HandedOver, Some(peer)) => {
                format!("{node_name} handed over to {peer} in epoch {epoch}: {why}")
            }
            (TransitionKind::HandedOver, None) => {
                format!("{node_name} handed over in epoch {epoch}: {why}")
            }
            (TransitionKind::Fenced, _) => {
                format!("{node_name} gave up the addresses of epoch {epoch}: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_reads_as_a_sentence_and_its_word_is_in_the_list_of_reasons() {
        let transition = |reason, peer: Option<&str>| Transition {
            reason,
            epoch: 7,
            peer_node_name: peer.map(str::to_owned),
            message: "why".to_owned(),
            time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        };
        for (reason, peer, sentence) in [
            (
                TransitionKind::BecameMaster,
                Some("lb-a"),
                "lb-b took over from lb-a in epoch 7: why",
            ),
            (
                TransitionKind::BecameMaster,
                None,
                "lb-b became master in epoch 7: why",
            ),
            (
                TransitionKind::HandedOver,
                Some("lb-a"),
                "lb-b handed over to lb-a in epoch 7: why",
            ),
            (
                TransitionKind::HandedOver,
                None,
                "lb-b handed over in epoch 7: why",
            ),
            (
                TransitionKind::Fenced,
                Some("lb-a"),
                "lb-b gave up the addresses of epoch 7: why",
            ),
        ] {
            let transition = transition(reason, peer);
            assert_eq!(transition.sentence("lb-b"), sentence);
            let word = serde_json::to_value(&transition).unwrap()["reason"].clone();
            assert_eq!(
                Reason::parse(word.as_str().unwrap()),
                Some(reason.reason()),
                "{word}"
            );
        }
    }
}
