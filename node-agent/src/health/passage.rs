//! Ways through IPVS to real servers, as far as they are in the kernel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::health::{Check, Passage};
use tokio::sync::watch;

use super::probe::{NOT_ASKED, Way};

/// What a pass has found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Laid {
    /// These, with their marks.
    Ways(BTreeMap<Passage, u32>),
    /// IPVS forwards nothing here: the node is a real server too, and balances nothing while it listens (`backup_only`).
    /// Until it holds the addresses it asks real servers straight, or it would know nothing of them when it takes over.
    Nothing,
}

impl Default for Laid {
    fn default() -> Self {
        Self::Ways(BTreeMap::new())
    }
}

impl Laid {
    /// Where a check is sent that takes this passage.
    fn way(&self, check: &Check, passage: Passage) -> Option<Way> {
        match self {
            Self::Ways(marks) => marks.get(&passage).map(|mark| Way {
                address: check.target,
                passage: Some((*mark, passage)),
                subject: None,
            }),
            Self::Nothing => Some(SocketAddr::new(passage.real_server, check.target.port()).into()),
        }
    }
}

/// Where a check is sent, once the way there is in the kernel; an error is why it is not, in words.
pub(super) async fn way(
    check: &Check,
    mut laid: watch::Receiver<Laid>,
    timeout: Duration,
) -> Result<Way, String> {
    let Some(passage) = check.passage else {
        return Ok(Way {
            subject: check.subject,
            ..check.target.into()
        });
    };
    let known = laid.wait_for(|laid| laid.way(check, passage).is_some());
    let known = tokio::time::timeout(timeout, known).await;
    let way = known
        .ok()
        .and_then(Result::ok)
        .and_then(|laid| laid.way(check, passage));
    way.ok_or_else(|| {
        format!(
            "{NOT_ASKED}the way through {} is not in the kernel, see condition Programmed of the NodePlan",
            check.target.ip()
        )
    })
}
