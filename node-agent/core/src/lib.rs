//! Pure decisions of the node agent. Nothing here reads a clock, a file, a socket, the environment
//! or randomness, and nothing logs: time comes as an argument, everything else as values.

pub mod apply_failure;
pub mod chronicle;
pub mod desired;
pub mod diff;
pub mod drift;
pub mod election;
pub mod endpoint;
pub mod facts;
pub mod fence;
pub mod health;
pub mod heartbeat;
pub mod host;
pub mod interference;
pub mod ipvs;
pub mod journal;
pub mod model;
pub mod object;
pub mod observed;
pub mod op;
pub mod shown;
pub mod statistics;
pub mod sync_daemon;
pub mod table;
pub mod verdict;
