//! Elections and fences of several directors under everything that may happen to them: the invariants and bounds of
//! docs/leadership.md, in its words. Every schedule is fixed by its seed; a failure prints seed and story.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bounds;
mod expiry;
mod failover;
mod restart;
mod simulation;
mod stall;
mod strict;
