//! Why addresses are taken, and why they are left to a successor.

use std::fmt;
use std::time::Duration;

use super::seconds;

/// Why this node takes the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The holder was silent and let a challenge pass.
    Unanswered {
        /// From its last heartbeat to the challenge; none when none was ever heard.
        silence: Option<Duration>,
        /// From the challenge to the takeover.
        waited: Duration,
    },
    /// The holder gave it away.
    Offered,
    /// The Lease ran out.
    Expired {
        /// How long it was seen unchanged.
        unchanged: Duration,
    },
    /// Nobody held the Lease.
    Vacant,
    /// The Lease named this node, from an earlier process.
    Resumed,
    /// This node holds, but the Lease was made anew.
    Reclaimed,
}

impl Cause {
    /// The word for a metric; none when nobody was without a holder.
    pub(super) const fn label(self) -> Option<&'static str> {
        match self {
            Self::Unanswered { .. } => Some("unanswered"),
            Self::Offered => Some("offered"),
            Self::Expired { .. } => Some("expired"),
            Self::Vacant => Some("vacant"),
            Self::Resumed | Self::Reclaimed => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered {
                silence: Some(silence),
                waited,
            } => write!(
                formatter,
                "no heartbeat for {}, no answer to a challenge in {}",
                seconds(*silence),
                seconds(*waited)
            ),
            Self::Unanswered {
                silence: None,
                waited,
            } => write!(
                formatter,
                "no heartbeat was ever heard, no answer to a challenge in {}",
                seconds(*waited)
            ),
            Self::Offered => formatter.write_str("they were offered"),
            Self::Expired { unchanged } => write!(
                formatter,
                "the Lease was not renewed for {}",
                seconds(*unchanged)
            ),
            Self::Vacant => formatter.write_str("nobody held the Lease"),
            Self::Resumed => {
                formatter.write_str("the Lease named this node, from before its agent started")
            }
            Self::Reclaimed => formatter.write_str("the Lease was made anew"),
        }
    }
}

/// Why a node is to leave a router to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It is no longer selected as a director.
    NotSelected,
    /// It cannot direct: what stands against it, in words.
    Fault(String),
}

impl fmt::Display for Departure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSelected => formatter.write_str("it is no longer a director"),
            Self::Fault(what) => formatter.write_str(what),
        }
    }
}

/// What speaks for a successor at the moment from which one is welcome.
#[derive(Clone, Debug)]
pub(super) struct Giving {
    pub(super) is_ending: bool,
    pub(super) departure: Option<Departure>,
    /// Who is to have it by the wish of people.
    pub(super) wanted: Option<String>,
    pub(super) has_lost_api: bool,
    pub(super) priority: u8,
    pub(super) is_preemptible: bool,
}

impl Giving {
    /// Why `successor`, of this priority, has it now.
    pub(super) fn why(&self, successor: Option<&str>, priority: Option<u8>) -> String {
        let is_wanted = self.wanted.is_some() && self.wanted.as_deref() == successor;
        if self.is_ending {
            "its agent ends".to_owned()
        } else if let Some(departure) = &self.departure {
            departure.to_string()
        } else if is_wanted {
            format!("annotation {} asks for it", lvs_crds::HAND_OVER_ANNOTATION)
        } else if self.has_lost_api {
            "it cannot reach the API server".to_owned()
        } else if self.priority == 0 {
            "its node is cordoned".to_owned()
        } else if let Some(priority) = priority.filter(|priority| *priority > self.priority)
            && self.is_preemptible
        {
            format!("preempted by priority {priority}, above {}", self.priority)
        } else {
            "its renewals were not acknowledged in time".to_owned()
        }
    }
}
