//! Ownership as data: what this node's agents made since boot, and what was there before.
//!
//! IPVS services, devices and sysctls carry no owner tag, so what is ours is what the journal says. It is written
//! **before** the operations run ([`Journal::before`]) and trimmed only after the kernel was read again
//! ([`Journal::after`]); a crash in between therefore leaves too much in it, never too little. It lives in the host's
//! /run and holds for one boot.
//!
//! Policy rules, routes (`protocol 76`) and our nftables table (by name) carry their owner themselves and are not here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::desired::DesiredState;
use crate::diff::Diff;
use crate::host::{AddressKey, FouPort, LinkKind, SysctlKey};
use crate::ipvs::{IpvsTimeouts, ServiceKey};
use crate::observed::Observed;
use crate::op::{HostOp, IpvsOp, Op};
use crate::sync_daemon::{SyncDaemon, SyncDaemons, SyncRole};

/// Version of the text form.
pub const JOURNAL_VERSION: u32 = 1;

/// A sysctl that we changed, or that the kernel changes as a side effect of one that we changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRecord {
    /// Value before us.
    pub original: String,
    /// Value we wrote; `None` = not written by us, only to be put back as it was (see
    /// [`SysctlDemand::Preserve`](crate::desired::SysctlDemand::Preserve)).
    pub written: Option<String>,
}

/// The IPVS timeouts before us and as we set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsRecord {
    /// Before us.
    pub original: IpvsTimeouts,
    /// As we set them.
    pub written: IpvsTimeouts,
}

/// What is ours on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// `/proc/sys/kernel/random/boot_id` of the boot this speaks of.
    pub boot_id: String,
    /// IPVS services and the plan that owns each.
    #[serde(with = "pairs")]
    pub services: BTreeMap<ServiceKey, String>,
    /// Devices we made.
    pub links: BTreeMap<String, LinkKind>,
    /// Addresses we put on devices of ours.
    pub addresses: BTreeSet<AddressKey>,
    /// foo-over-udp ports we opened.
    pub fou_ports: BTreeSet<FouPort>,
    /// Sysctls we changed.
    pub sysctls: BTreeMap<SysctlKey, SysctlRecord>,
    /// IPVS timeouts, if we changed them.
    pub timeouts: Option<TimeoutsRecord>,
    /// IPVS sync daemons we started, each with its set-up: of two of one role the older is about to be stopped.
    #[serde(default)]
    pub sync_daemons: BTreeSet<(SyncRole, SyncDaemon)>,
    /// Since when this node has known of new connections without a gap, in nanoseconds of `CLOCK_BOOTTIME`. See
    /// [`Continuity`](crate::sync_daemon::Continuity).
    #[serde(default)]
    pub informed_since_nanoseconds: Option<u64>,
    /// Addresses that the fence thread may have added as director.
    pub director_addresses: BTreeSet<AddressKey>,
}

/// The journal could not be understood. Never to be read as "nothing is ours".
#[derive(Debug, Error)]
pub enum JournalError {
    /// Not JSON, or not of this shape.
    #[error("cannot read the ownership journal")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error("the ownership journal has version {found}, this agent reads {JOURNAL_VERSION}")]
    UnknownVersion {
        /// Version in the text.
        found: u32,
    },
}

#[derive(Serialize)]
struct WrittenText<'a> {
    version: u32,
    #[serde(flatten)]
    journal: &'a Journal,
}

#[derive(Deserialize)]
struct VersionText {
    version: u32,
}

impl Journal {
    /// A journal that owns nothing, for this boot.
    pub fn new(boot_id: &str) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            ..Self::default()
        }
    }

    /// Read the text form. A journal of another boot is void: the kernel forgot everything it speaks of.
    pub fn from_text(text: &str, boot_id: &str) -> Result<Self, JournalError> {
        let VersionText { version } = serde_json::from_str(text)?;
        if version != JOURNAL_VERSION {
            return Err(JournalError::UnknownVersion { found: version });
        }
        let journal: Self = serde_json::from_str(text)?;
        Ok(if journal.boot_id == boot_id {
            journal
        } else {
            Self::new(boot_id)
        })
    }

    /// The text form.
    pub fn to_text(&self) -> Result<String, JournalError> {
        Ok(serde_json::to_string(&WrittenText {
            version: JOURNAL_VERSION,
            journal: self,
        })?)
    }

    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::new(&self.boot_id)
    }

    /// Of the daemons that were read, those that are ours.
    pub fn sync_daemons_of_ours(&self, observed: &SyncDaemons) -> SyncDaemons {
        let is_ours = |role: SyncRole, found: &SyncDaemon| {
            self.sync_daemons
                .iter()
                .any(|(known, daemon)| *known == role && daemon.is_met_by(found))
        };
        observed
            .iter()
            .filter(|(role, found)| is_ours(**role, found))
            .map(|(role, found)| (*role, found.clone()))
            .collect()
    }

    /// The journal to be on disk before `diff.ops` run and before the fence thread gets the addresses of `desired`:
    /// this one plus everything that may come to exist.
    #[must_use]
    pub fn before(&self, desired: &DesiredState, observed: &Observed, diff: &Diff) -> Self {
        let mut next = self.clone();
        for op in &diff.ops {
            match op {
                Op::Ipvs(IpvsOp::AddService(key, _)) => {
                    let owner = desired.owner(key).unwrap_or_default().to_owned();
                    next.services.insert(*key, owner);
                }
                Op::Ipvs(IpvsOp::SetTimeouts(timeouts)) if desired.timeouts == Some(*timeouts) => {
                    next.timeouts = Some(TimeoutsRecord {
                        original: self
                            .timeouts
                            .map_or(observed.timeouts, |record| record.original),
                        written: *timeouts,
                    });
                }
                Op::Ipvs(IpvsOp::StartSyncDaemon(role, daemon)) => {
                    next.sync_daemons.insert((*role, daemon.clone()));
                }
                Op::Host(HostOp::AddLink { name, kind }) => {
                    next.links.insert(name.clone(), *kind);
                }
                Op::Host(HostOp::AddAddress(key)) => {
                    next.addresses.insert(key.clone());
                }
                Op::Host(HostOp::AddFouPort(fou)) => {
                    next.fou_ports.insert(*fou);
                }
                _ => {}
            }
        }
        for (key, owner) in &mut next.services {
            if let Some(claimant) = desired.owner(key) {
                owner.clear();
                owner.push_str(claimant);
            }
        }
        for (key, record) in &diff.sysctl_records {
            next.sysctls
                .entry(key.clone())
                .and_modify(|known| known.written.clone_from(&record.written))
                .or_insert_with(|| record.clone());
        }
        next.director_addresses
            .extend(desired.director_addresses.values().flatten().cloned());
        next
    }

    /// The journal after the operations, from a fresh reading of the kernel. `refused` are operations that the kernel
    /// answered with an error: a creation it refused is not ours, even if such a thing exists now.
    ///
    /// Kept is what exists, what is still wanted as director address (the fence thread may add it at any time), and
    /// every original that has not been put back.
    #[must_use]
    pub fn after<'a>(
        &self,
        desired: &DesiredState,
        observed: &Observed,
        refused: impl IntoIterator<Item = &'a Op>,
    ) -> Self {
        let mut next = self.clone();
        for op in refused {
            match op {
                Op::Ipvs(IpvsOp::AddService(key, _)) => {
                    next.services.remove(key);
                }
                Op::Ipvs(IpvsOp::StartSyncDaemon(role, daemon)) => {
                    next.sync_daemons.remove(&(*role, daemon.clone()));
                }
                Op::Host(HostOp::AddLink { name, .. }) => {
                    next.links.remove(name);
                }
                Op::Host(HostOp::AddAddress(key)) => {
                    next.addresses.remove(key);
                }
                Op::Host(HostOp::AddFouPort(fou)) => {
                    next.fou_ports.remove(fou);
                }
                _ => {}
            }
        }
        next.sync_daemons.retain(|(role, daemon)| {
            let found = observed.sync_daemons.get(role);
            found.is_some_and(|found| daemon.is_met_by(found))
        });
        let host = &observed.host;
        let present: BTreeSet<&AddressKey> = host.addresses.iter().map(|(key, _)| key).collect();
        next.services
            .retain(|key, _| observed.services.contains_key(key));
        next.links.retain(|name, _| host.links.contains_key(name));
        next.addresses.retain(|key| present.contains(key));
        next.fou_ports.retain(|fou| host.fou_ports.contains(fou));
        let wanted: BTreeSet<&AddressKey> = desired.director_addresses.values().flatten().collect();
        next.director_addresses
            .retain(|key| present.contains(key) || wanted.contains(key));
        next.sysctls.retain(|key, record| {
            let demanded = desired.host.sysctls.contains_key(key);
            // Gone with its device, put back, or taken over by someone else: no longer our affair.
            match (host.sysctls.get(key), &record.written) {
                // Still demanded: the original stays, whatever the value is; only a refused write leaves no trace.
                (Some(Some(value)), Some(written)) if demanded => {
                    value != &record.original || value == written
                }
                (Some(Some(_)), None) if demanded => true,
                (Some(Some(value)), Some(written)) => value == written && *value != record.original,
                (Some(Some(value)), None) => *value != record.original,
                (Some(None), _) => false,
                (None, _) => true,
            }
        });
        next.timeouts = next.timeouts.filter(|record| {
            desired.timeouts.is_some()
                || (observed.timeouts == record.written && observed.timeouts != record.original)
        });
        next
    }
}

/// Maps whose keys are not text, as lists of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}
