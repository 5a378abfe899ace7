//! What does a judge say of a real server?
//!
//! Only what he says for certain counts: that he knows nothing of a real server, cannot be reached or is broken himself is no
//! fault of the real server.

use std::net::SocketAddr;

use ::http::StatusCode;
use lvs_crds::health_check::{ExternalHttpCheck, HealthCheck, HttpCheck};

use super::target::Target;
use super::tls::Terms;
use super::{NOT_ASKED, TimeLimit, http, quoted};
use crate::health::credentials::Login;

/// Every status there is.
const ANY_STATUS: &str = "100-999";

/// Who is asked.
pub struct Judge<'a> {
    /// Where he is.
    pub target: Target,
    /// What a user says of him.
    pub external: &'a ExternalHttpCheck,
}

/// Whether a check asks a judge, and over TLS.
pub fn is_encrypted(check: &HealthCheck) -> bool {
    let judge = check.external_http.as_ref();
    let judge = judge.and_then(ExternalHttpCheck::judge);
    judge.is_some_and(|judge| judge.is_encrypted)
}

impl Judge<'_> {
    /// Asks about `subject`, as `login` if there is one, over TLS if there are `terms`. An error is that he says no, or that he
    /// could not be asked, in words.
    pub async fn ask(
        &self,
        subject: SocketAddr,
        login: Option<&Login>,
        terms: Option<&Terms<'_>>,
        limit: TimeLimit,
    ) -> Result<(), String> {
        let url = quoted(&self.external.url);
        let Some(judge) = self.external.judge() else {
            return Err(format!("{NOT_ASKED}{url} is no URL of HTTP"));
        };
        if self.target.address.ip().is_unspecified() {
            return Err(format!(
                "{NOT_ASKED}where judge {url} is, or that he may be asked, is not known: see the conditions of the VirtualService"
            ));
        }
        let request = HttpCheck {
            path: path(&judge.path, subject),
            host: Some(judge.authority),
            credentials_name: self.external.credentials_name.clone(),
            status_codes: vec![ANY_STATUS.to_owned()],
            ..HttpCheck::default()
        };
        let status = http::ask(self.target, &request, login, terms, limit).await;
        let status = status.map_err(|words| {
            let words = words.strip_prefix(NOT_ASKED).unwrap_or(&words);
            format!("{NOT_ASKED}judge {}: {words}", self.target)
        })?;
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(format!("judge {} says no: status 503", self.target))
            }
            status => Err(format!(
                "{NOT_ASKED}judge {}: status {}, expected 200-299 for yes or 503 for no",
                self.target,
                status.as_u16()
            )),
        }
    }
}

/// Path and query, with the real server in it.
fn path(path: &str, subject: SocketAddr) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!(
        "{path}{separator}address={}&port={}",
        subject.ip(),
        subject.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_is_told_of_whom_he_is_asked() {
        let subject = |text: &str| text.parse().unwrap();
        for (url, of, expected) in [
            ("/", "192.0.2.1:80", "/?address=192.0.2.1&port=80"),
            (
                "/ask?depth=2",
                "192.0.2.1:80",
                "/ask?depth=2&address=192.0.2.1&port=80",
            ),
            (
                "/ask",
                "[2001:db8::1]:443",
                "/ask?address=2001:db8::1&port=443",
            ),
        ] {
            assert_eq!(path(url, subject(of)), expected);
        }
    }
}
