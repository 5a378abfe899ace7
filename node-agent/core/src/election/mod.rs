//! Leader election on one Lease (docs/leadership.md): pure, with time as an argument.
//!
//! [`Machine::handle`] takes what happened and returns what to do; [`Machine::next_deadline`] says when
//! it wants to be called again. The driver sends what it is told, once, and reports how it went.
//! The same machine elects the director of a router and the working replica of the controller.

mod config;
mod event;
mod lease;
mod machine;
mod observation;
mod peers;
mod tick;
mod timing;

pub use config::{ApiLoss, Config, Intent, OnShutdown, Resumption, Takeover, in_order};
pub use event::{DropReason, Effect, Event, Hold, Lifetime, Role, Source, Status};
pub use lease::{
    CHALLENGE_ANNOTATION, Identity, LeaseRecord, LeaseWrite, OFFERED_ANNOTATION, WritePurpose,
};
pub use machine::Machine;
pub use tick::Tick;
pub use timing::{HeartbeatParts, HeartbeatTiming, Timing, TimingError, TimingParts};
