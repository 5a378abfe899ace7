//! What the API server says of a token: whose it is (TokenReview), and whether he may get /metrics (SubjectAccessReview), as
//! other components of the field ask it.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::verdict::Verdict;

/// What is asked for.
pub const PATH: &str = "/metrics";
const VERB: &str = "get";

/// Asks. An error is why there was no answer, in words: nothing is known of the token then.
pub async fn review(client: &Client, token: &str) -> Result<Verdict, String> {
    let question = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            // None: those of the API server, for which the tokens of ServiceAccounts are.
            audiences: None,
        },
        ..TokenReview::default()
    };
    let answer = Api::<TokenReview>::all(client.clone())
        .create(&PostParams::default(), &question)
        .await
        .map_err(|error| format!("TokenReview: {error}"))?;
    let status = answer.status.unwrap_or_default();
    let user = match status.user {
        Some(user) if status.authenticated == Some(true) => user,
        _ => return Ok(Verdict::Unknown),
    };
    let name = user.username.clone().unwrap_or_default();
    let answer = Api::<SubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &access(user))
        .await
        .map_err(|error| format!("SubjectAccessReview: {error}"))?;
    let status = answer.status.unwrap_or_default();
    if status.allowed && status.denied != Some(true) {
        return Ok(Verdict::Allowed);
    }
    tracing::info!("a scrape by {name} is refused: no role lets him {VERB} {PATH}");
    Ok(Verdict::Forbidden)
}

fn access(user: UserInfo) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(PATH.to_owned()),
                verb: Some(VERB.to_owned()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    }
}
