//! What a machine is told, and what it says.

use std::fmt;

use lvs_crds::condition::Reason;

use crate::election::config::Config;
use crate::election::lease::{Identity, LeaseRecord, LeaseWrite};
use crate::election::tick::Tick;
use crate::fence::HolderUntil;
use crate::heartbeat::{Heard, Standing};

/// How a version of the Lease came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// By a watch: in order, but perhaps late.
    Watch,
    /// By a quorum read that was begun after everything this machine sent before.
    Read,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A version of the Lease was seen.
    Seen(LeaseRecord, Source),
    /// The Lease does not exist.
    Absent(Source),
    /// The read that was asked for failed or timed out.
    ReadFailed,
    /// The watch broke: versions may have been missed.
    WatchLost,
    /// The write was accepted; the Lease is now this.
    Acknowledged(LeaseRecord),
    /// The write was refused since the version is no longer current (409).
    Conflict,
    /// The write was refused since the Lease does not exist (404).
    LeaseGone,
    /// Nobody knows whether the write was applied: no answer, or a server error.
    WriteFailed,
    /// The write was refused for good (403, 422): another attempt would be, too.
    WriteRefused,
    /// Something about this candidate changed.
    Configured(Config),
    /// A heartbeat of another director was heard.
    Heard(Heard),
    /// For a second nothing came from any API server.
    ApiLost,
    /// Something came from an API server again.
    ApiBack,
    /// The fence thread stood still for so long that another may have taken over since: nothing is refreshed before the
    /// Lease, or promises, prove from this moment on that nobody has.
    Doubted(Tick),
    /// The process is to end.
    ShutdownRequested,
    /// [`Machine::next_deadline`] was reached.
    Deadline,
}

/// How long addresses live in the kernel without being refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// This many seconds (`valid_lft`).
    Seconds(u32),
    /// For ever.
    Permanent,
}

/// Permission to carry the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Epoch that this node's own compare-and-swap created.
    pub epoch: u64,
    /// t0: when the write was sent that this rests on.
    pub sent_at: Tick,
    /// Last moment for a refresh.
    pub until: HolderUntil,
    /// Lifetime of the addresses.
    pub lifetime: Lifetime,
    /// When the election said so.
    pub decided_at: Tick,
    /// Last moment at which nobody can have had a higher epoch; none = nobody else can get one while this lasts.
    pub confirmed_at: Option<Tick>,
}

/// Why addresses are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// No renewal was acknowledged in time.
    Expired,
    /// The API server cannot be heard, and another director that has not promised to wait may take over at any moment.
    Isolated,
    /// Another node holds a higher epoch, or the Lease itself.
    Superseded,
    /// The successor has it, and had time to take over.
    HandedOver,
    /// The plan is withdrawn.
    Withdrawn,
    /// The process ends and has nothing that could be handed over.
    ShutDown,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the Lease with quorum; report `Seen(_, Read)`, `Absent(Read)` or `ReadFailed`.
    Read,
    /// Send this once; report its outcome within the write timeout.
    Write(LeaseWrite),
    /// Carry the addresses.
    Hold(Hold),
    /// A successor carries the addresses too, and announces them: carry them on for the moment, and announce them no more.
    Yield,
    /// Delete the addresses now.
    Drop(DropReason),
    /// Say this in heartbeats from now on.
    Say(Standing),
    /// Nothing more will come of this machine. What is held stays for its lifetime.
    Stop,
}

/// Role in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nothing is known yet, or no longer.
    Unknown,
    /// Another node holds, or nobody.
    Backup,
    /// This node holds.
    Master,
    /// The plan is withdrawn, and the Lease names this node no longer.
    Released,
}

/// The state in words users know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role.
    pub role: Role,
    /// Epoch: one's own as master, else that of the Lease.
    pub epoch: Option<u64>,
    /// Holder by the Lease.
    pub holder: Option<Identity>,
    /// Until when addresses may be refreshed, as master.
    pub until: Option<Tick>,
    /// Why it is so.
    pub reason: Reason,
    /// The reason in words.
    pub message: String,
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => formatter.write_str("read the Lease"),
            Self::Write(write) => write.fmt(formatter),
            Self::Hold(hold) => write!(formatter, "hold epoch {} until {}", hold.epoch, hold.until),
            Self::Yield => formatter.write_str("announce the addresses no more"),
            Self::Drop(reason) => write!(formatter, "drop the addresses: {reason:?}"),
            Self::Say(standing) => write!(formatter, "say {standing:?}"),
            Self::Stop => formatter.write_str("stop"),
        }
    }
}
