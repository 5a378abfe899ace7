//! Logs: one JSON object per line on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// kube reports every failed request as an error of its own; whoever asked says so too, with what it was for.
const QUIET: &str = "kube_client::client::builder=off";

/// Starts logging; `filter` is a level or `tracing` filter directives.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))?;
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
