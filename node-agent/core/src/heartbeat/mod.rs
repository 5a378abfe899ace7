//! Heartbeats: what the directors of a router tell one another, several times a second (docs/leadership.md).
//!
//! A heartbeat never decides who holds the addresses: the Lease does. It permits a *challenge* of a holder that is
//! silent, it carries the consent of a holder that goes, and the promises of peers that have lost the API server too.
//!
//! [`Message`] is one datagram's content, without its authentication. [`Exchange`] says what is sent when, and which of
//! what arrives is fresh.

mod exchange;
mod message;

pub use exchange::{Exchange, Heard, Ignored};
pub use message::{Carriage, Echo, Message, MessageError, Promise, Standing};
