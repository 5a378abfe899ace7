//! Which replica works.

use tokio::sync::watch;

/// Until there is an election, this replica works.
pub async fn run(is_leader: watch::Sender<bool>) -> anyhow::Result<()> {
    is_leader.send_replace(true);
    std::future::pending().await
}
