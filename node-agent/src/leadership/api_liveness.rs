//! Whether anything comes from the API server (leadership.md, rule 8): asked several times a second while this node directs
//! a router with others, as a watch without changes is silent, too.

use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;

/// From one question to the next.
const QUESTION_INTERVAL: Duration = Duration::from_millis(300);
/// Without any answer for this long the API server counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Pause after a question that failed at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Reports whether the API server answers, as long as somebody listens. Any answer counts, a refusal too.
///
/// `wanted` says whether anybody asks; while nobody does, no question is sent and the API server counts as reached.
pub(super) async fn run(
    client: Client,
    mut wanted: watch::Receiver<bool>,
    reached: watch::Sender<bool>,
) {
    loop {
        if !*wanted.borrow_and_update() {
            reached.send_if_modified(|reached| !std::mem::replace(reached, true));
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = reached.closed() => return,
            }
        }
        let mut answered_at = Instant::now();
        while *wanted.borrow() && !reached.is_closed() {
            let asked_at = Instant::now();
            let limit = (answered_at + LOST_AFTER).max(asked_at + RETRY_INTERVAL);
            let limit = if *reached.borrow() {
                limit
            } else {
                asked_at + LOST_AFTER
            };
            let answer = tokio::time::timeout_at(limit, ask(&client)).await;
            let now = Instant::now();
            if answer == Ok(true) {
                answered_at = now;
                reached.send_if_modified(|reached| !std::mem::replace(reached, true));
                tokio::time::sleep_until(asked_at + QUESTION_INTERVAL).await;
            } else {
                if now >= answered_at + LOST_AFTER {
                    reached.send_if_modified(|reached| std::mem::replace(reached, false));
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        if reached.is_closed() {
            return;
        }
    }
}

/// Whether an answer came, whatever it says.
async fn ask(client: &Client) -> bool {
    let Ok(request) = Request::get("/livez/ping").body(Vec::new()) else {
        return false;
    };
    match client.request_text(request).await {
        Ok(_) | Err(kube::Error::Api(_)) => true,
        Err(_) => false,
    }
}
