//! Who is answered: the bearer of a token that the API server knows and permits to get /metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kube::Client;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{REVIEW_INTERVAL, REVIEW_TIMEOUT, TOKEN_BYTES, VERDICT_TIMEOUT, VERDICTS};
use crate::review::review;
use crate::verdict::{TokenDigest, Verdict, Verdicts};

/// Judges requests. Cloning shares what is remembered.
#[derive(Clone)]
pub struct Judge(Arc<Inner>);

struct Inner {
    client: Client,
    verdicts: Mutex<Verdicts>,
    /// When the last review began. Whoever holds it asks; the others wait for their turn.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    NoToken,
    Verdict(Verdict),
    /// Nothing is known, in words.
    Unanswered(String),
}

impl Judge {
    /// Who asks the API server by this client.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Inner {
            client,
            verdicts: Mutex::new(Verdicts::new(VERDICTS)),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    async fn judge(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = bearer_token(headers).ok_or(Refusal::NoToken)?;
        let verdict = timeout(VERDICT_TIMEOUT, self.verdict(token)).await;
        let verdict = verdict.unwrap_or_else(|_| Err(no_answer_within(VERDICT_TIMEOUT)));
        match verdict {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(verdict) => Err(Refusal::Verdict(verdict)),
            Err(why) => Err(Refusal::Unanswered(why)),
        }
    }

    async fn verdict(&self, token: &str) -> Result<Verdict, String> {
        let digest = TokenDigest::of(token);
        if let Some(verdict) = self.remembered(&digest) {
            return Ok(verdict);
        }
        let mut turn = self.0.turn.lock().await;
        // Somebody before us may have asked the same.
        if let Some(verdict) = self.remembered(&digest) {
            return Ok(verdict);
        }
        if let Some(last) = *turn {
            sleep_until(last + REVIEW_INTERVAL).await;
        }
        *turn = Some(Instant::now());
        let verdict = timeout(REVIEW_TIMEOUT, review(&self.0.client, token))
            .await
            .unwrap_or_else(|_| Err(no_answer_within(REVIEW_TIMEOUT)))?;
        let now = Instant::now().into_std();
        self.with(|verdicts| verdicts.remember(digest, verdict, now));
        Ok(verdict)
    }

    fn remembered(&self, digest: &TokenDigest) -> Option<Verdict> {
        let now = Instant::now().into_std();
        self.with(|verdicts| verdicts.of(digest, now))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Verdicts) -> T) -> T {
        let verdicts = self.0.verdicts.lock();
        look(&mut verdicts.unwrap_or_else(PoisonError::into_inner))
    }
}

fn no_answer_within(time: Duration) -> String {
    format!("no answer of the API server within {} s", time.as_secs())
}

/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1), where there is exactly one such header.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("Bearer")
        && (1..=TOKEN_BYTES).contains(&token.len())
        && !token.contains(' ');
    is_token.then_some(token)
}

/// Lets through who may.
pub async fn guard(State(judge): State<Judge>, request: Request, next: Next) -> Response {
    let refusal = match judge.judge(request.headers()).await {
        Ok(()) => return next.run(request).await,
        Err(refusal) => refusal,
    };
    // RFC 6750, section 3.
    let challenge = |challenge: &'static str| [(header::WWW_AUTHENTICATE, challenge)];
    match refusal {
        Refusal::NoToken => (
            StatusCode::UNAUTHORIZED,
            challenge("Bearer"),
            "show a bearer token in the header Authorization\n",
        )
            .into_response(),
        Refusal::Verdict(Verdict::Forbidden) => (
            StatusCode::FORBIDDEN,
            "this token's user may not get /metrics: bind him to a ClusterRole with nonResourceURLs [/metrics] and verbs [get]\n",
        )
            .into_response(),
        Refusal::Verdict(_) => (
            StatusCode::UNAUTHORIZED,
            challenge("Bearer error=\"invalid_token\""),
            "the API server does not know this token\n",
        )
            .into_response(),
        Refusal::Unanswered(why) => {
            tracing::warn!("a scrape is refused, as its token cannot be judged: {why}");
            // Not to whom nobody knows.
            (StatusCode::SERVICE_UNAVAILABLE, "the token cannot be judged now\n").into_response()
        }
    }
}
