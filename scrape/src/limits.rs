//! Bounds, all of them.

use std::time::Duration;

/// How long it stays so that a token may: as long as somebody may whose right or token was taken away.
pub const ALLOWED: Duration = Duration::from_mins(1);
/// How long it stays so that a token may not: as long as somebody waits who was just given the right.
pub const REFUSED: Duration = Duration::from_secs(10);
/// Tokens whose verdict is remembered. Those that are refused come no faster than [`REVIEW_INTERVAL`] and stay for
/// [`REFUSED`], so that they are 100 at most and push out none that is allowed.
pub const VERDICTS: usize = 256;
/// Between the beginnings of two reviews: what the API server is asked by one process, however many tokens are shown.
pub const REVIEW_INTERVAL: Duration = Duration::from_millis(100);
/// For both questions of one review.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// For a verdict, the wait for the reviews of others included. Prometheus waits 10 s unless it is told otherwise.
pub const VERDICT_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest token, in bytes. Those of ServiceAccounts have 1 to 2 KiB.
pub const TOKEN_BYTES: usize = 16 * 1024;
/// Longest head of a request that is read, in bytes.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Connections at a time. More wait in the kernel.
pub const CONNECTIONS: usize = 64;
/// For the handshake of TLS.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of one answer to the end of the head of the next request: more than usual between scrapes.
pub const IDLE: Duration = Duration::from_secs(75);
/// A connection is ended after this time, between two answers: a new certificate reaches everybody, and who does not read
/// his answer holds no place for ever.
pub const CONNECTION_LIFETIME: Duration = Duration::from_mins(10);
/// For an answer that is under way then.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(10);
/// How often the files of the certificate are looked at, when anybody connects.
pub const CERTIFICATE_KEPT: Duration = Duration::from_secs(5);
/// After a connection could not be accepted.
pub const ACCEPT_RETRY: Duration = Duration::from_secs(1);
