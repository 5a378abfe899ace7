//! Bounds, all of them.

use std::time::Duration;

/// Spans that wait to be exported; of more the newest are dropped. A change makes five and three for each node.
pub const QUEUED_SPANS: usize = 2048;
/// Spans of one request.
pub const SPANS_PER_REQUEST: usize = 512;
/// How long a span waits for others to share its request.
pub const LINGER: Duration = Duration::from_secs(1);
/// For one request, connecting included: what OTLP has by default.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// For everything that is still queued when the process ends.
pub const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two messages about exports that keep failing.
pub const TELLING_INTERVAL: Duration = Duration::from_mins(1);
/// A connection that nobody used for this long is closed.
pub const IDLE: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes.
pub const ANSWER_BYTES: usize = 64 * 1024;
/// Length of a context of version 00 (W3C Trace Context, section 3.2.2), in bytes.
pub const CONTEXT_BYTES: usize = 55;
