//! One question to one port of a real server: is it as a health check says?
//!
//! Each question is a connection of its own, so that it also tells whether new connections are taken. Whatever the other
//! side does, it ends within the check's time, holds little memory, and, where the answer is not the right one, says in
//! words for people how far it came, what was found and what was expected.
//!
//! Connections end with a reset, not with an orderly close. An orderly close by the one who asks leaves a socket in
//! TIME_WAIT for a minute, and an entry for two in the connection tracking of the node: with 2,000 questions in 5 s that is
//! 24,000 sockets and 48,000 entries, in tables that a director has for its clients. Real servers lose nothing by it: by then
//! the verdict is made, and a reset frees their side at once, also of a program that forgets connections that were closed.
//! A reset that gets lost is not repeated; then the connection lives on in the server until its idle timeout.

mod body;
mod certificate;
mod conversation;
mod dns;
mod greeting;
mod grpc;
mod http;
mod http2;
mod judge;
mod ldap;
mod message;
mod mysql;
mod pattern;
mod ping;
mod postgresql;
mod radius;
mod redis;
mod scram;
mod shown;
mod sip;
mod target;
mod tcp;
mod tls;
mod trust;
mod udp;

use std::io;
use std::time::Duration;

use greeting::Dialect;
use lvs_core::health::{Means, UnixSeconds};
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use nix::errno::Errno;
use target::Target;
use tls::{ShownExpiry, Terms};
use tokio::time::{Instant, timeout_at};

use super::credentials::CredentialFiles;
use crate::limits::LEAVE;

pub use target::Way;

/// How the words begin where this node could not ask, which says nothing of the real server.
pub const NOT_ASKED: &str = "not asked: ";
/// Who asks, for servers that want to know.
const AGENT: &str = concat!("lvs-operator-agent/", env!("CARGO_PKG_VERSION"));

/// What one question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// An error is why the real server does not pass, in words, in which nothing stands of any credentials.
    pub verdict: Result<(), String>,
    /// The last second in which the certificate is valid that it showed, if it showed one that can be read, trusted or not.
    pub certificate_expiry: Option<UnixSeconds>,
}

/// Asks who is at the end of `way` once what `check` says, with `means` and the credentials that they lead to in `files`.
///
/// Ends within `check.timeout_seconds`. Which address and port that is, is the caller's to say; `check.address`,
/// `check.port_name` and `check.port` are not looked at. A check of type None passes without a question.
pub async fn ask(
    way: impl Into<Way>,
    check: &HealthCheck,
    means: &Means,
    files: &CredentialFiles,
) -> Answer {
    let shown = ShownExpiry::new();
    let verdict = asked(way.into(), check, means, files, &shown).await;
    Answer {
        verdict,
        certificate_expiry: shown.into_inner(),
    }
}

async fn asked(
    way: Way,
    check: &HealthCheck,
    means: &Means,
    files: &CredentialFiles,
    shown_expiry: &ShownExpiry,
) -> Result<(), String> {
    let limit = TimeLimit::from_now(check.timeout_seconds);
    let target = Target::of(way, check)?;
    let credentials = |name| files.of(&means.namespace, name);
    let tls = match check.type_ {
        HealthCheckType::HTTPS => Some(check.tls.clone().unwrap_or_default()),
        HealthCheckType::ExternalHTTP if judge::is_encrypted(check) => {
            Some(check.tls.clone().unwrap_or_default())
        }
        _ => check.tls.clone(),
    };
    let tls = tls.as_ref().map(|tls| {
        let shown = tls.credentials_name.as_deref().map(credentials);
        Terms::new(tls, means.authorities.as_deref(), shown, shown_expiry)
    });
    let tls = tls.transpose()?;
    let tls = tls.as_ref();
    // Of RADIUS the user is optional.
    let login = check
        .credentials_name
        .as_deref()
        .filter(|_| check.type_ != HealthCheckType::RADIUS && check.type_ != HealthCheckType::Redis)
        .map(|name| credentials(name).login());
    let login = login.transpose()?;
    let login = login.as_ref();
    // On the heap, but for the one that is asked most: every question would be as large as the largest.
    match check.type_ {
        HealthCheckType::None => Ok(()),
        HealthCheckType::TCP => tcp::connect(target, limit).await.map(drop),
        HealthCheckType::HTTP | HealthCheckType::HTTPS => {
            let http = check.http.clone().unwrap_or_default();
            let login = http.credentials_name.as_deref();
            let login = login.map(|name| credentials(name).login()).transpose()?;
            let answered = Box::pin(http::ask(target, &http, login.as_ref(), tls, limit)).await;
            answered.map(drop)
        }
        HealthCheckType::ExternalHTTP => {
            let external = check.external_http.as_ref();
            let external = external.ok_or("not asked: the check has no member externalHTTP")?;
            let login = external.credentials_name.as_deref();
            let login = login.map(|name| credentials(name).login()).transpose()?;
            let subject = way
                .subject
                .ok_or("not asked: there is no real server to ask about")?;
            let judge = judge::Judge { target, external };
            Box::pin(judge.ask(subject, login.as_ref(), tls, limit)).await
        }
        HealthCheckType::SMTP => {
            let smtp = check.smtp.clone().unwrap_or_default();
            Box::pin(greeting::ask(
                target,
                Dialect::Smtp(smtp.hello_name),
                None,
                tls,
                limit,
            ))
            .await
        }
        HealthCheckType::FTP => {
            Box::pin(greeting::ask(target, Dialect::Ftp, login, tls, limit)).await
        }
        HealthCheckType::IMAP => {
            Box::pin(greeting::ask(target, Dialect::Imap, login, tls, limit)).await
        }
        HealthCheckType::POP3 => {
            Box::pin(greeting::ask(target, Dialect::Pop3, login, tls, limit)).await
        }
        HealthCheckType::GRPC => {
            let grpc = check.grpc.clone().unwrap_or_default();
            Box::pin(grpc::ask(target, &grpc, tls, limit)).await
        }
        HealthCheckType::LDAP => Box::pin(ldap::ask(target, login, tls, limit)).await,
        HealthCheckType::MySQL => {
            let mysql = check.mysql.clone().unwrap_or_default();
            Box::pin(mysql::ask(target, &mysql, login, tls, limit)).await
        }
        HealthCheckType::PostgreSQL => {
            let postgresql = check.postgresql.clone().unwrap_or_default();
            Box::pin(postgresql::ask(target, &postgresql, login, tls, limit)).await
        }
        HealthCheckType::Redis => {
            let credentials = check.credentials_name.as_deref().map(credentials);
            Box::pin(redis::ask(target, credentials, tls, limit)).await
        }
        HealthCheckType::RADIUS => match check.credentials_name.as_deref() {
            Some(name) => Box::pin(radius::ask(target, credentials(name), limit)).await,
            None => Err(format!("{NOT_ASKED}the check names no credentials")),
        },
        HealthCheckType::SIP => {
            let sip = check.sip.clone().unwrap_or_default();
            Box::pin(sip::ask(target, &sip, limit)).await
        }
        HealthCheckType::DNS => match &check.dns {
            Some(dns) => Box::pin(dns::ask(target, dns, limit)).await,
            None => Err("not asked: the check has no member dns".to_owned()),
        },
        HealthCheckType::Ping => Box::pin(ping::ask(target, limit)).await,
        HealthCheckType::UDP => match &check.udp {
            Some(udp) => Box::pin(udp::ask(target, udp, limit)).await,
            None => Err("not asked: the check has no member udp".to_owned()),
        },
    }
}

/// The time that one question has, all of its stages together.
#[derive(Clone, Copy, Debug)]
struct TimeLimit {
    end: Instant,
    seconds: u16,
}

impl TimeLimit {
    fn from_now(seconds: u16) -> Self {
        Self {
            end: Instant::now() + Duration::from_secs(seconds.into()),
            seconds,
        }
    }

    /// What is left for taking leave, when the verdict is made: a server that does not care holds up nothing.
    fn for_leave(self) -> Self {
        Self {
            end: self.end.min(Instant::now() + LEAVE),
            ..self
        }
    }

    /// What `stage` comes to, unless the time ends before it; then `late` and the limit, as "no answer within 3 s".
    async fn within<T>(self, late: &str, stage: impl Future<Output = T>) -> Result<T, String> {
        let seconds = self.seconds;
        timeout_at(self.end, stage)
            .await
            .map_err(|_| format!("{late} {seconds} s"))
    }
}

/// What the kernel says of a connection, without the number of the error, or TLS does that is spoken over it.
fn words(error: &io::Error) -> String {
    if let Some(error) = tls::error_of(error) {
        return tls::refusal(error);
    }
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| Errno::from_raw(number).desc().to_lowercase(),
    )
}

/// A text of a user or of a real server in quotation marks, on one line and not longer than people read.
fn quoted(text: &str) -> String {
    const CHARACTERS: usize = 64;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Bytes as pairs of hexadecimal digits.
fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
