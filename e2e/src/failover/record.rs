//! The conversation with the program in the guest: one order, then lines until it is told to end.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Time of the guest's kernel in microseconds since 1970 (CLOCK_REALTIME, which nobody sets there). Every host of
/// tier 2 has the same kernel, so times of different hosts compare.
pub type Microseconds = i64;

/// What the program is to do; the first line of a connection, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Network namespace from which the connections are opened.
    pub client: String,
    /// Device of the client that gets an address for this measurement alone, of tier 2's segment `out`; none: the
    /// connections come from the client's own address.
    pub source_device: Option<String>,
    /// Where new connections go: a web server that answers `GET /` with 200 and closes.
    pub web: SocketAddr,
    /// Where long-lived connections go: a server that sends back what it gets.
    pub echo: SocketAddr,
    /// A new connection begins this often.
    pub rhythm_milliseconds: u64,
    /// Number of long-lived connections.
    pub held: usize,
    /// How long they exist before [`Line::Steady`].
    pub held_before_milliseconds: u64,
    /// The address whose carriers are watched.
    pub address: IpAddr,
    /// Network namespaces that may carry it.
    pub carriers: Vec<String>,
    /// Who renews a Lease of its own meanwhile, for the duration of one API write.
    pub writer: Option<Writer>,
}

/// A client of the API server in the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Writer {
    /// Network namespace it runs in.
    pub host: String,
    /// Path of its kubeconfig, as the guest sees it.
    pub kubeconfig: String,
    /// A renewal begins this often; never two at a time.
    pub rhythm_milliseconds: u64,
}

/// What the program reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Line {
    /// The long-lived connections have existed for long enough, all of them answer, and so do new ones.
    Steady {
        /// When.
        at: Microseconds,
    },
    /// Two answers to new connections came later after each other than the rhythm and 2 ms.
    Gap {
        /// The earlier answer.
        from: Microseconds,
        /// The later answer.
        to: Microseconds,
    },
    /// A new connection was refused, reset, or not answered within [`ANSWER_LIMIT_MILLISECONDS`].
    Lost {
        /// When it began.
        at: Microseconds,
        /// What happened to it.
        reason: String,
    },
    /// A long-lived connection ended.
    HeldLost {
        /// When.
        at: Microseconds,
        /// How.
        reason: String,
    },
    /// The kernel of a host has got the address (or keeps it longer), or has lost it; or has it when the watch begins.
    Carried {
        /// The host.
        host: String,
        /// When, as `ip -ts monitor address` tells.
        at: Microseconds,
        /// Whether it is there from now on.
        present: bool,
    },
    /// A renewal of the writer's Lease ended.
    Write {
        /// When it began.
        at: Microseconds,
        /// How long it took.
        microseconds: i64,
        /// Why it failed, empty if it did not.
        error: String,
    },
    /// The program itself came too late to begin a connection: the machine stood still.
    Late {
        /// When it should have begun.
        at: Microseconds,
        /// By how much.
        microseconds: i64,
    },
    /// The last line.
    Summary {
        /// The program was told to end.
        at: Microseconds,
        /// New connections that were answered.
        answered: u64,
        /// The last of those answers.
        last_answer: Microseconds,
        /// Long-lived connections that still answered after the program was told to end.
        held_alive: usize,
        /// Longest time a long-lived connection waited for its byte.
        longest_echo_microseconds: i64,
    },
    /// The program cannot do what it was ordered.
    Failed {
        /// What.
        what: String,
    },
}

/// A new connection that has no answer by now counts as lost: its first segment was (TCP sends it again after 1 s).
pub const ANSWER_LIMIT_MILLISECONDS: u64 = 950;
/// What a long-lived connection does: one byte there and back, then a pause of this length.
pub const ECHO_PAUSE_MILLISECONDS: u64 = 250;
/// Long-lived connections have this long for their last byte: TCP may be waiting to send it again.
pub const ECHO_LIMIT_SECONDS: u64 = 15;
/// Answers further apart than the rhythm and this much are reported.
pub const GAP_FLOOR_MICROSECONDS: Microseconds = 2_000;
