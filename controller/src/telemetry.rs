//! Logs: one JSON object per line on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging; `filter` is a level or `tracing` filter directives.
pub fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
