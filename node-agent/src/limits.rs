//! Every time limit, interval and bound of the agent in one place.

use std::time::Duration;

/// Longest answer of the kernel to one request.
pub const KERNEL_ANSWER: Duration = Duration::from_secs(10);
/// After a wake-up, how long others are waited for so that one pass serves them all.
pub const COALESCE: Duration = Duration::from_millis(2);
/// First wait after a pass that could not read the kernel or was refused something; doubles up to the resync interval.
pub const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Passes one after another when the kernel's state moved under one.
pub const IMMEDIATE_PASSES: u32 = 3;
/// Plan events that wait for the sync loop. The watch pauses when it is full.
pub const PLAN_EVENTS: usize = 256;
/// How long one watch call lasts, in seconds; a silently dead connection is noticed five seconds later.
pub const WATCH_SECONDS: u32 = 45;
/// Objects per page of a list: bounds memory while starting.
pub const LIST_PAGE: u32 = 50;
/// What share of kube's waits (0.8 to 30 s and jitter) a broken watch waits before it is tried again: 0.13 to 5 s.
pub const WATCH_RETRY_SHARE: u32 = 6;
/// First and longest wait before a status is written again.
pub const STATUS_RETRY: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(30));
/// Longest time for one status write.
pub const STATUS_WRITE: Duration = Duration::from_secs(10);
/// Longest time for the last status writes of a process that is to end.
pub const LAST_STATUS_WRITE: Duration = Duration::from_secs(1);
/// Status writes under way at once.
pub const STATUS_WRITES: usize = 4;
/// Passes of which a trace of a change tells, while the change is not in force.
pub const TRACED_PASSES: u32 = 5;
/// Operations of one pass that get a line each at the usual log level.
pub const OPERATIONS_LOGGED: usize = 20;
/// Largest program that a regular expression of a health check is compiled to, in bytes.
pub const PATTERN_BYTES: usize = 64 * 1024;
/// Memory of one search for a regular expression, in bytes; few need more than a hundredth of it.
pub const AUTOMATON_BYTES: usize = 256 * 1024;
/// How often that memory may be used up in one search: bounds its time.
pub const AUTOMATON_REBUILDS: usize = 4;
/// Regular expressions that are kept compiled.
pub const PATTERNS: usize = 128;
/// Longest head of the answer of an endpoint or a real server, in bytes.
pub const ANSWER_HEAD_BYTES: usize = 16 * 1024;
/// Longest datagram that answers a health check, in bytes; of a longer one the rest is cut off.
pub const DATAGRAM_BYTES: usize = 4096;
/// How long the real server is waited for when a health check says good-bye.
pub const LEAVE: Duration = Duration::from_millis(500);
/// How long certificate authorities are taken as they were read.
pub const AUTHORITIES_KEPT: Duration = Duration::from_mins(10);
/// ConfigMaps with certificate authorities whose content is kept ready.
pub const BUNDLES_KEPT: usize = 64;
/// Health checks under way at once. More wait until others have ended.
pub const QUESTIONS: usize = 16_384;
/// Health checks begun one after another before answers are looked at.
pub const QUESTIONS_AT_ONCE: usize = 64;
/// Series of IPVS services and real servers that are shown to Prometheus; of more the rest is counted.
pub const SERIES: usize = 20_000;
/// How long the statistics of IPVS are shown as they were read.
pub const STATISTICS_KEPT: Duration = Duration::from_secs(1);
/// Longest answer of the kernel to one question for statistics: less than the patience of a Prometheus, 10 s.
pub const STATISTICS_ANSWER: Duration = Duration::from_secs(3);
/// Longest message of a condition, in bytes.
pub const MESSAGE_BYTES: usize = 1024;
/// A pass older than this many resync intervals makes the agent unready.
pub const READY_INTERVALS: u32 = 3;
/// A loop that has not turned for this long makes the agent not alive.
pub const STALLED: Duration = Duration::from_secs(90);
/// How long the lock of an agent that is just ending is waited for, and how often it is tried.
pub const LOCK: Duration = Duration::from_secs(15);
/// See [`LOCK`].
pub const LOCK_RETRY: Duration = Duration::from_millis(20);
