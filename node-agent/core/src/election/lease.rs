//! A Lease as the protocol sees it, and what a machine writes to it.

use std::fmt;
use std::time::Duration;

/// Annotation of a Lease whose holder would hand over at once: any permitted, verified candidate may
/// take it over by compare-and-swap without waiting for its expiry. Value: the offered epoch.
pub const OFFERED_ANNOTATION: &str = "lvs.dev/offered";

/// Annotation of a Lease whose holder is silent to a candidate: the holder answers by renewing. Value: the epoch and the
/// identity of the candidate, `<epoch>/<node>/<incarnation>`.
pub const CHALLENGE_ANNOTATION: &str = "lvs.dev/challenge";

/// Who holds a Lease: a node (or pod) and the incarnation of the process there, since a restarted
/// process must not take its predecessor's writes for its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Name of the node or pod.
    pub node: String,
    /// Differs at every start of the process.
    pub incarnation: String,
}

impl Identity {
    /// Reads `holderIdentity`; none when it is empty. Text without `/` is a node without incarnation,
    /// which equals no process of ours.
    pub fn parse(holder_identity: &str) -> Option<Self> {
        if holder_identity.is_empty() {
            return None;
        }
        let (node, incarnation) = holder_identity
            .split_once('/')
            .unwrap_or((holder_identity, ""));
        Some(Self {
            node: node.to_owned(),
            incarnation: incarnation.to_owned(),
        })
    }
}

impl fmt::Display for Identity {
    /// As in `holderIdentity`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.node, self.incarnation)
    }
}

/// One version of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `metadata.resourceVersion`, opaque.
    pub resource_version: String,
    /// `spec.holderIdentity`; none when unset or empty, which means released.
    pub holder: Option<Identity>,
    /// `spec.leaseTransitions`, 0 when unset.
    pub epoch: u64,
    /// `spec.leaseDurationSeconds`, zero when unset.
    pub lease_duration: Duration,
    /// `spec.renewTime` as text. Never compared with a clock: a change of it is proof of life.
    pub renewed: String,
    /// Whether the holder offers it ([`OFFERED_ANNOTATION`] names the present epoch).
    pub offered: bool,
    /// Who challenges the holder of the present epoch ([`CHALLENGE_ANNOTATION`]).
    pub challenger: Option<Identity>,
}

impl LeaseRecord {
    /// Whether both versions stem from the same write of a holder. Annotations that others write
    /// change the version, and prove nothing about the holder.
    pub(crate) fn same_life(&self, other: &Self) -> bool {
        self.holder == other.holder && self.epoch == other.epoch && self.renewed == other.renewed
    }
}

/// Why a Lease is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WritePurpose {
    /// Become holder under a new epoch.
    Acquire,
    /// Go on as holder of the same epoch after a restart in the same boot.
    Adopt,
    /// Stay holder.
    Renew,
    /// Stay holder for longer than usual, without an agent.
    Lend,
    /// Leave it without holder.
    Release,
    /// Ask a silent holder for a sign of life: an annotation, and nothing else changes.
    Challenge,
}

impl fmt::Display for WritePurpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Acquire => "acquire",
            Self::Adopt => "adopt",
            Self::Renew => "renew",
            Self::Lend => "lend",
            Self::Release => "release",
            Self::Challenge => "challenge",
        })
    }
}

/// A compare-and-swap: to be sent with exactly this `resourceVersion`, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// Why.
    pub purpose: WritePurpose,
    /// `metadata.resourceVersion` that must still be current.
    pub resource_version: String,
    /// New `spec.holderIdentity`; none = empty.
    pub holder: Option<Identity>,
    /// New `spec.leaseTransitions`.
    pub epoch: u64,
    /// New `spec.leaseDurationSeconds`.
    pub lease_duration: Duration,
    /// Whether [`OFFERED_ANNOTATION`] is set to the epoch, or removed.
    pub offered: bool,
    /// Whom [`CHALLENGE_ANNOTATION`] names; none = it is removed.
    pub challenger: Option<Identity>,
}

impl fmt::Display for LeaseWrite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} epoch {} for ", self.purpose, self.epoch)?;
        match &self.holder {
            Some(holder) => write!(formatter, "{holder}")?,
            None => formatter.write_str("nobody")?,
        }
        write!(
            formatter,
            ", {} s, at version {}{}",
            self.lease_duration.as_secs(),
            self.resource_version,
            if self.offered { ", offered" } else { "" }
        )
    }
}
