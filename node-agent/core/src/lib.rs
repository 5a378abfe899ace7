//! Pure decisions of the node agent. Nothing here reads a clock, a file, a socket, the environment
//! or randomness, and nothing logs: time comes as an argument, everything else as values.

pub mod host;
pub mod ipvs;
pub mod op;
