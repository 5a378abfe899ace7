//! Is a request answered over HTTP/1.1 as expected, in plain text or over TLS?

use std::error::Error;
use std::io;
use std::io::ErrorKind;
use std::pin::pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lvs_crds::health_check::HttpCheck;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::BodySearch;
use super::target::Target;
use super::tls::{self, Security, Terms};
use super::{AGENT, NOT_ASKED, TimeLimit, quoted, tcp, words};
use crate::health::credentials::Login;
use crate::limits::ANSWER_HEAD_BYTES;

/// Asks once, on a connection of its own, as `login` if there is one, over TLS if there are `terms`. An error is why the answer
/// is not as expected, in words.
pub async fn ask(
    target: Target,
    check: &HttpCheck,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<(), String> {
    let question = Question::new(target, check, login)?;
    let host = check.host.as_deref();
    let security = terms.map(|terms| Security::new(terms, host, target, Some("http/1.1")));
    let security = security.transpose()?;
    let stream = tcp::connect(target, limit).await?;
    match security {
        Some(security) => {
            let stream = security.over(stream, limit).await?;
            question.ask(stream, limit).await
        }
        None => question.ask(stream, limit).await,
    }
}

/// What is sent, and what is expected.
struct Question<'a> {
    check: &'a HttpCheck,
    request: Request<String>,
    search: Option<BodySearch>,
}

impl<'a> Question<'a> {
    /// An error is what of the check itself cannot be asked, in words.
    fn new(target: Target, check: &'a HttpCheck, login: Option<&Login>) -> Result<Self, String> {
        let maximum_bytes = usize::try_from(check.maximum_body_bytes).unwrap_or(usize::MAX);
        let search = check.body.as_ref();
        let search = search.map(|body| BodySearch::new(body, maximum_bytes));
        Ok(Self {
            check,
            request: request(target, check, login)?,
            search: search.transpose()?,
        })
    }

    /// Asks over a connection that stands.
    async fn ask<S>(self, stream: S, limit: TimeLimit) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_HEAD_BYTES)
            // Names of headers have no case, but there are old servers that do not know.
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unanswered(&error))?;
        let Self {
            check,
            request,
            search,
        } = self;
        let mut conversation = pin!(async {
            let answer = limit.within("no answer within", sender.send_request(request));
            let answer = answer.await?.map_err(|error| unanswered(&error))?;
            if !check.admits(answer.status().as_u16()) {
                return Err(unexpected(&answer, check));
            }
            match search {
                Some(search) => search.read(answer.into_body(), limit).await,
                None => Ok(()),
            }
        });
        tokio::select! {
            biased;
            verdict = &mut conversation => verdict,
            // Whatever came before the connection ended is there to be read, and so is why it ended.
            _ = connection => conversation.await,
        }
    }
}

fn request(
    target: Target,
    check: &HttpCheck,
    login: Option<&Login>,
) -> Result<Request<String>, String> {
    let host = check.host.clone().unwrap_or_else(|| target.to_string());
    let mut request = Request::builder()
        .method(check.method.as_str())
        .uri(&check.path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| format!("{NOT_ASKED}{error}"))?;
    let headers = request.headers_mut();
    for header in &check.headers {
        let name = HeaderName::try_from(&header.name);
        let value = HeaderValue::try_from(&header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            let name = quoted(&header.name);
            return Err(format!("not asked: header {name} cannot be sent"));
        };
        headers.append(name, value);
    }
    if let Some(login) = login {
        headers.insert(AUTHORIZATION, basic(login)?);
    }
    for (name, value) in [(ACCEPT, "*/*"), (USER_AGENT, AGENT)] {
        headers
            .entry(name)
            .or_insert_with(|| HeaderValue::from_static(value));
    }
    Ok(request)
}

/// User and password as RFC 7617 has them.
fn basic(login: &Login) -> Result<HeaderValue, String> {
    let Login { username, password } = login;
    if username.contains(':') {
        return Err(format!(
            "{NOT_ASKED}the user name has a colon, which HTTP cannot carry"
        ));
    }
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    let value = HeaderValue::try_from(format!("Basic {encoded}"));
    let mut value = value.map_err(|_| format!("{NOT_ASKED}the credentials cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A status that is not expected, and where a redirect leads.
fn unexpected(answer: &Response<Incoming>, check: &HttpCheck) -> String {
    let status = answer.status();
    let expected = check.status_codes.join(", ");
    if check.credentials_name.is_some() {
        // What else stands in the answer may be what was sent.
        let refused = if status == StatusCode::UNAUTHORIZED {
            "log-in refused: "
        } else {
            ""
        };
        return format!("{refused}status {}, expected {expected}", status.as_u16());
    }
    let location = answer.headers().get(LOCATION);
    let place = location.filter(|_| status.is_redirection()).map(|place| {
        let place = String::from_utf8_lossy(place.as_bytes());
        format!(" to {}", quoted(&place))
    });
    let place = place.unwrap_or_default();
    format!("status {}{place}, expected {expected}", status.as_u16())
}

/// Why no answer came, or none of HTTP.
fn unanswered(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return format!("head of the answer exceeds {ANSWER_HEAD_BYTES} bytes or 100 headers");
    }
    if error.is_parse() {
        return format!("answer is no HTTP/1: {error}");
    }
    // The request was given up because of something that is neither an error of the socket nor its end.
    let cause = cause(error);
    let cause = cause.downcast_ref::<hyper::Error>();
    if error.is_canceled()
        && cause.is_some_and(|cause| !cause.is_canceled() && !cause.is_incomplete_message())
    {
        return "answer is no HTTP/1: it came before the request".to_owned();
    }
    format!("{} before an answer", broken(error))
}

/// What broke a connection.
pub(super) fn broken(error: &hyper::Error) -> String {
    let cause = cause(error);
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return tls::refusal(error);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_owned(),
            ErrorKind::UnexpectedEof => "connection closed".to_owned(),
            _ => words(error),
        };
    }
    match cause.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_incomplete_message() => "connection closed".to_owned(),
        _ => cause.to_string(),
    }
}

/// The first in a chain of errors.
fn cause(error: &hyper::Error) -> &(dyn Error + 'static) {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
