//! Questions of health checks to real listeners on loopback, friendly and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod calls;
mod certificates;
mod database_log_ins;
mod databases;
mod datagrams;
mod directories;
mod greetings;
mod grpcs;
mod heads;
mod http2s;
mod https;
mod judges;
mod log_ins;
mod mail;
mod pings;
mod played;
mod tcp;
