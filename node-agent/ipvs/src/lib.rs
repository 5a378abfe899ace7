//! The kernel's IPVS tables over generic netlink: codec, client and a stateful fake.
//!
//! Nothing outside this crate knows an attribute or a command number. What goes in and out are the
//! values of [`lvs_core::ipvs`] and [`lvs_core::op`]; the two verbs are those of [`IpvsKernel`].
//!
//! The kernel's side is `net/netfilter/ipvs/ip_vs_ctl.c`; the numbers are those of
//! `include/uapi/linux/ip_vs.h`. Three facts shape the client:
//!
//! - There is no transaction. Messages of one send are handled one by one, a refused one does not stop the
//!   next, and only refusals are answered unless an acknowledgement is asked for.
//! - The kernel announces no change. What it holds is known only by dumping.
//! - Destinations are dumped per service, one dump at a time and socket.

pub mod attribute;
pub mod client;
pub mod decode;
pub mod encode;
pub mod error;
pub mod fake;
pub mod message;
pub mod socket;
pub mod uapi;

use lvs_core::ipvs::{Idle, IpvsTimeouts, Services};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::SyncDaemons;
use lvs_core::table::Disorder;

pub use client::{Client, ClientOptions, Wanted};
pub use error::{DumpError, OpError, OpFailure, TransportError};
pub use fake::FakeKernel;

/// Everything IPVS holds in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Every service with its destinations, foreign ones included.
    pub services: Services,
    /// Where the order of destinations matters and is not the canonical one: as the kernel lists them.
    pub disorder: Disorder,
    /// Destinations with weight 0 that have no connection.
    pub idle: Idle,
    /// Timeouts of connections.
    pub timeouts: IpvsTimeouts,
    /// Sync daemons.
    pub sync_daemons: SyncDaemons,
    /// Services that [`lvs_core::ipvs::ServiceKey`] cannot name (a protocol other than TCP, UDP and SCTP), one
    /// line each. They are foreign: we cannot have made them, and no key of ours can collide with them.
    pub unnameable: Vec<String>,
}

/// What the agent asks of IPVS.
pub trait IpvsKernel {
    /// Reads everything. All or nothing: a part that could not be read makes the whole an error.
    fn dump(&mut self) -> Result<Dump, DumpError>;

    /// Applies operations in order, each on its own: a refused one does not stop the next. The result has one
    /// entry per operation, in order. When the fate of some is not known ([`OpFailure::Unknown`]), those
    /// after them are not sent ([`OpFailure::NotSent`]) and only a new dump says what the kernel holds.
    fn apply(&mut self, operations: &[IpvsOp]) -> Vec<Result<(), OpError>>;
}
