//! Whether anything comes from the API server (leadership.md, rule 8): asked several times a second while this node directs
//! a router with others, as a watch without changes is silent, too.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api_endpoints::ApiEndpoints;

/// From one question to the next.
const QUESTION_INTERVAL: Duration = Duration::from_millis(300);
/// Without any answer for this long the API server counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Pause after a question that failed at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Without an answer for this long another endpoint is looked for, where there is one: soon enough to be answered there
/// before the API server counts as lost.
const DOUBT_AFTER: Duration = Duration::from_millis(250);

/// Reports whether the API server answers, as long as somebody listens. Any answer counts, a refusal too.
///
/// `wanted` says whether anybody asks; while nobody does, no question is sent and the API server counts as reached.
pub(super) async fn run(
    client: Client,
    endpoints: Option<Arc<ApiEndpoints>>,
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
            let question = ask_where_it_answers(&client, endpoints.as_deref());
            let answer = tokio::time::timeout_at(limit, question).await;
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

/// As [`ask`]; when the endpoint in use is silent and another answers, that one is asked.
async fn ask_where_it_answers(client: &Client, endpoints: Option<&ApiEndpoints>) -> bool {
    let Some(endpoints) = endpoints else {
        return ask(client).await;
    };
    let asked_at = Instant::now();
    let mut question = pin!(ask(client));
    let left = async {
        tokio::time::sleep(DOUBT_AFTER).await;
        while !endpoints.doubt(asked_at).await {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        () = left => ask(client).await,
        answered = &mut question => answered,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api_endpoints::played::{PlayedEndpoint, access};

    #[tokio::test]
    async fn the_api_server_is_lost_only_when_no_endpoint_answers() {
        let first = PlayedEndpoint::start("first").await;
        let second = PlayedEndpoint::start("second").await;
        let (client, endpoints) = access(&[&first, &second]);
        let (_wanted, is_wanted) = watch::channel(true);
        let (reached, mut is_reached) = watch::channel(true);
        tokio::spawn(run(
            client,
            Some(Arc::clone(&endpoints)),
            is_wanted,
            reached,
        ));
        let others = |uses: &PlayedEndpoint| {
            let (endpoints, wanted) = (Arc::clone(&endpoints), uses.endpoint.clone());
            async move {
                while endpoints.in_use() != Some(&wanted) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        first.fall_silent();
        tokio::select! {
            lost = is_reached.changed() => panic!("lost though the second answers: {lost:?}"),
            () = others(&second) => {}
        }
        second.fall_silent();
        let lost = tokio::time::timeout(LOST_AFTER * 3, is_reached.wait_for(|reached| !reached));
        lost.await.unwrap().unwrap();
    }
}
