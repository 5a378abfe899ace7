//! The state in words.

use lvs_crds::condition::Reason;

use crate::election::config::{ApiLoss, Intent};
use crate::election::event::{Role, Status};
use crate::election::lease::Identity;
use crate::election::machine::{Machine, State};

impl Machine {
    /// The state in words.
    pub fn status(&self) -> Status {
        let lease = self
            .observation
            .as_ref()
            .map(|observation| &observation.lease);
        let holder = lease.and_then(|lease| lease.holder.clone());
        let lease_epoch = lease.map(|lease| lease.epoch);
        let (role, epoch, until, reason, message) = match self.state {
            State::Start | State::Stopped => (
                Role::Unknown,
                lease_epoch,
                None,
                Reason::Unknown,
                "the Lease has not been read yet".to_owned(),
            ),
            State::Master(tenure) => {
                let (reason, message) = if tenure.refused {
                    (
                        Reason::PermissionDenied,
                        "the API refuses renewals of the Lease".to_owned(),
                    )
                } else if self.absent {
                    (
                        Reason::LeaseNotFound,
                        "the Lease does not exist any more".to_owned(),
                    )
                } else if let Some(waiting) = &self.waiting {
                    (Reason::BecameMaster, waiting.message())
                } else if tenure.unacknowledged {
                    let by = if self.config.alone(&self.me.node) {
                        "as only director"
                    } else if self.config.on_api_loss == ApiLoss::HoldAlways {
                        "as the plan says"
                    } else {
                        "by promises of the others"
                    };
                    (
                        Reason::BecameMaster,
                        format!("epoch {}, held {by} without the API server", tenure.epoch),
                    )
                } else if tenure.offered {
                    (
                        Reason::Leaving,
                        format!("epoch {}, offered to the others", tenure.epoch),
                    )
                } else {
                    (Reason::BecameMaster, format!("epoch {}", tenure.epoch))
                };
                (
                    Role::Master,
                    Some(tenure.epoch),
                    Some(tenure.until),
                    reason,
                    message,
                )
            }
            State::HandedOver { epoch, until, .. } => (
                Role::Master,
                Some(epoch),
                Some(until),
                Reason::Leaving,
                format!("epoch {epoch}, handed over"),
            ),
            State::Backup | State::Acquiring => {
                let (role, reason, message) = self.backup_status(holder.as_ref());
                (role, lease_epoch, None, reason, message)
            }
        };
        Status {
            role,
            epoch,
            holder,
            until,
            reason,
            message,
        }
    }

    fn backup_status(&self, holder: Option<&Identity>) -> (Role, Reason, String) {
        let this_node = holder.is_some_and(|holder| holder.node == self.me.node);
        if self.config.intent == Intent::Withdraw
            && self.write.is_none()
            && (self.absent || self.refused || (self.observation.is_some() && !this_node))
        {
            return (
                Role::Released,
                Reason::Withdrawn,
                "the Lease is released".to_owned(),
            );
        }
        let (reason, message) = if this_node && self.config.intent == Intent::Withdraw {
            (
                Reason::Withdrawn,
                "the addresses are given up; the Lease is not released yet".to_owned(),
            )
        } else if this_node && self.config.intent == Intent::Leave {
            (Reason::Leaving, "the Lease is being released".to_owned())
        } else if self.absent {
            (Reason::LeaseNotFound, "the Lease does not exist".to_owned())
        } else if self.refused && (holder.is_none() || this_node) {
            (
                Reason::PermissionDenied,
                "the API refuses this node's writes to the Lease".to_owned(),
            )
        } else if !self.config.permitted && holder.is_none() {
            (
                Reason::Pending,
                "not yet permitted to acquire the Lease".to_owned(),
            )
        } else {
            match holder {
                Some(holder)
                    if !this_node
                        && self
                            .observation
                            .as_ref()
                            .is_some_and(|seen| self.heartbeat_lost == Some(seen.lease.epoch)) =>
                {
                    (
                        Reason::HeartbeatLost,
                        format!(
                            "{} holds the Lease and renews it, but its heartbeats do not arrive",
                            holder.node
                        ),
                    )
                }
                Some(_) if this_node => (
                    Reason::Fenced,
                    "the time of the last renewal has run out".to_owned(),
                ),
                Some(holder) => (
                    Reason::BecameBackup,
                    format!("{} holds the Lease", holder.node),
                ),
                None => (Reason::NoMaster, "nobody holds the Lease".to_owned()),
            }
        };
        (Role::Backup, reason, message)
    }
}
