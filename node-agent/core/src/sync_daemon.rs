//! The kernel's IPVS sync daemons: which of them a node runs, and whether what they keep has reached it.
//!
//! A network namespace has at most one master daemon, which sends the connections that this node balances, and one
//! backup daemon, which receives those of others (`net/netfilter/ipvs/ip_vs_sync.c`). They are things like any other:
//! wanted, read back, compared. Two facts shape what is wanted at a change of role:
//!
//! - The master daemon sends a message that is not full only after two seconds, and stopping it throws away what it
//!   has not sent. So it stays for [`LINGER`] after the node has become a backup.
//! - What the former master sends in that time is news to its successor, whose backup daemon therefore stays as long.
//!
//! Nothing sends everything anew: a backup learns of a connection when the master next has a reason to speak of it,
//! which the refresh period bounds. Until it has passed, a director that begins to listen knows less than it should
//! ([`Continuity::is_warm`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::election::Tick;

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SyncRole {
    /// Sends (`IP_VS_STATE_MASTER`).
    Master,
    /// Receives (`IP_VS_STATE_BACKUP`).
    Backup,
}

impl SyncRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Master, Self::Backup];

    /// ipvsadm's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for SyncRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Set-up of a daemon. It cannot be edited: another one needs a stop and a start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// Device that sends or receives.
    pub device: String,
    /// Number that a backup accepts, 0..255; 0 = every one.
    pub sync_id: u8,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Time to live.
    pub ttl: u8,
    /// Greatest length of a message in bytes; `None` = whatever the kernel chooses. Never `None` in a dump.
    pub maximum_length: Option<u16>,
}

impl SyncDaemon {
    /// Whether a daemon that was read is the one that is wanted.
    pub fn is_met_by(&self, found: &Self) -> bool {
        let length = self.maximum_length.or(found.maximum_length);
        Self {
            maximum_length: length,
            ..self.clone()
        } == *found
    }
}

/// ipvsadm's arguments.
impl fmt::Display for SyncDaemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "--mcast-interface {} --syncid {}",
            self.device, self.sync_id
        )?;
        if let Some(length) = self.maximum_length {
            write!(formatter, " --sync-maxlen {length}")?;
        }
        write!(
            formatter,
            " --mcast-group {} --mcast-port {} --mcast-ttl {}",
            self.group, self.port, self.ttl
        )
    }
}

/// Daemons of a network namespace.
pub type SyncDaemons = BTreeMap<SyncRole, SyncDaemon>;

/// Seconds after which a connection that goes on is sent again (sysctl `sync_refresh_period`).
pub const REFRESH_SECONDS: u32 = 10;
/// Longest time that a message waits in the master: two seconds until it is due (`IPVS_SYNC_FLUSH_TIME`), at most one
/// until the daemon looks (`IPVS_SYNC_CHECK_PERIOD`), and one for the way.
pub const LINGER: Duration = Duration::from_secs(4);
/// How long a director must have listened before it counts as informed: a refresh and the longest wait of a message.
/// Less than the 30 s for which a node that is stopped leaves its addresses in the kernel, so that no rolling update
/// waits for it in vain.
pub const WARMTH: Duration = Duration::from_secs(REFRESH_SECONDS as u64 + LINGER.as_secs());

/// What must be known from one pass to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuity {
    /// Since when this node has known of new connections without a gap: it balanced them itself, or listened.
    informed_since: Option<Tick>,
    /// What was wanted in the last pass, without what lingers.
    wanted: SyncDaemons,
    /// When that changed last.
    changed_at: Option<Tick>,
}

impl Continuity {
    /// After a restart of the agent: since when the journal says that the node has been informed.
    pub fn resume(informed_since: Option<Tick>) -> Self {
        Self {
            informed_since,
            ..Self::default()
        }
    }

    /// Since when the node has been informed, for the journal.
    pub const fn informed_since(&self) -> Option<Tick> {
        self.informed_since
    }

    /// What is to run now: what is wanted, and for a moment after a change what ran and is wanted no more, if its
    /// set-up is still the one in force. `running` are daemons of ours; a node that must not balance while it
    /// listens (`backup_only`) keeps no backup daemon.
    ///
    /// Returns how long until something that lingers is to go.
    pub fn linger(
        &mut self,
        wanted: &mut SyncDaemons,
        running: &SyncDaemons,
        keeps_backup: bool,
        now: Tick,
    ) -> Option<Duration> {
        if self.wanted != *wanted {
            self.wanted.clone_from(wanted);
            self.changed_at = Some(now);
        }
        let left = self
            .changed_at
            .map(|changed| (changed + LINGER).since(now))
            .filter(|left| !left.is_zero())?;
        let set_up = wanted.values().next()?.clone();
        let mut lingers = false;
        for role in SyncRole::ALL {
            let stays = running
                .get(&role)
                .is_some_and(|found| set_up.is_met_by(found));
            if stays && !wanted.contains_key(&role) && (role == SyncRole::Master || keeps_backup) {
                wanted.insert(role, set_up.clone());
                lingers = true;
            }
        }
        lingers.then_some(left)
    }

    /// Takes what a pass found before and after its operations (daemons of ours). Without either daemon before them
    /// there was a gap, whatever the journal says.
    pub fn note(&mut self, before: &SyncDaemons, after: &SyncDaemons, now: Tick) {
        let set_up = self.wanted.values().next();
        let went_on = before
            .values()
            .any(|found| set_up.is_some_and(|set_up| set_up.is_met_by(found)));
        if !went_on {
            self.informed_since = None;
        }
        self.informed_since =
            is_informed(&self.wanted, after).then(|| self.informed_since.unwrap_or(now).min(now));
    }

    /// Whether the node may take part in leadership as one that knows the connections, or how long until then.
    /// One that is alone has nobody to learn from.
    pub fn is_warm(&self, is_alone: bool, now: Tick) -> Warmth {
        if is_alone {
            return Warmth::Warm;
        }
        match self.informed_since {
            None => Warmth::Cold(WARMTH),
            Some(since) => match (since + WARMTH).since(now) {
                left if left.is_zero() => Warmth::Warm,
                left => Warmth::Cold(left),
            },
        }
    }
}

/// Whether a director knows the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmth {
    /// It does.
    Warm,
    /// Not before this has passed.
    Cold(Duration),
}

/// Whether a node knows of the connections it is to know of: what it runs is what its roles want, or it balances
/// them itself. `wanted` is without what lingers; `running` are daemons of ours.
fn is_informed(wanted: &SyncDaemons, running: &SyncDaemons) -> bool {
    let runs = |role: SyncRole| {
        let daemon = wanted.get(&role)?;
        Some(
            running
                .get(&role)
                .is_some_and(|found| daemon.is_met_by(found)),
        )
    };
    match (
        runs(SyncRole::Backup),
        wanted.contains_key(&SyncRole::Master),
    ) {
        (Some(listens), _) => listens,
        (None, balances) => balances,
    }
}
