//! Is a request answered over HTTP/1.1 or HTTP/2 as expected, in plain text or over TLS?

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::io::ErrorKind;
use std::pin::{Pin, pin};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::client::SendRequest;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lvs_crds::health_check::{HttpCheck, HttpVersion};

use super::body::{BodySearch, Pieces};
use super::http2;
use super::target::Target;
use super::tls::{self, Connection, Security, Terms};
use super::{AGENT, NOT_ASKED, TimeLimit, quoted, tcp, words};
use crate::health::credentials::Login;
use crate::limits::ANSWER_HEAD_BYTES;

/// Asks once, on a connection of its own, as `login` if there is one, over TLS if there are `terms`, and gives the status, which is
/// one that is expected. An error is why the answer is not as expected, in words.
pub async fn ask(
    target: Target,
    check: &HttpCheck,
    login: Option<&Login>,
    terms: Option<&Terms<'_>>,
    limit: TimeLimit,
) -> Result<StatusCode, String> {
    let scheme = if terms.is_some() { "https" } else { "http" };
    let question = Question::new(target, check, login, scheme)?;
    let host = check.host.as_deref();
    let protocol = match check.version {
        HttpVersion::HTTP1 => "http/1.1",
        HttpVersion::HTTP2 => http2::PROTOCOL,
    };
    let security = Security::of(terms, host, target, Some(protocol))?;
    let stream = tcp::connect(target, limit).await?;
    match security {
        // On the heap: a question without TLS would be as large.
        Some(security) => {
            Box::pin(async move {
                let stream = security.over(stream, limit).await?;
                // Servers that know nothing of ALPN speak HTTP/1.1.
                if check.version == HttpVersion::HTTP2 && !tls::is_agreed(&stream, protocol) {
                    return Err(tls::OTHER_PROTOCOLS.to_owned());
                }
                question.ask(stream, limit).await
            })
            .await
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
    fn new(
        target: Target,
        check: &'a HttpCheck,
        login: Option<&Login>,
        scheme: &str,
    ) -> Result<Self, String> {
        let maximum_bytes = usize::try_from(check.maximum_body_bytes).unwrap_or(usize::MAX);
        let search = check.body.as_ref();
        let search = search.map(|body| BodySearch::new(body, maximum_bytes));
        Ok(Self {
            check,
            request: request(target, check, login, scheme)?,
            search: search.transpose()?,
        })
    }

    /// Asks over a connection that stands.
    async fn ask(self, stream: impl Connection, limit: TimeLimit) -> Result<StatusCode, String> {
        match self.check.version {
            HttpVersion::HTTP1 => self.ask_first(stream, limit).await,
            HttpVersion::HTTP2 => {
                let exchange = |sender| self.exchange(sender, limit);
                http2::converse(stream, limit, exchange).await
            }
        }
    }

    /// The same by HTTP/2.
    async fn exchange(
        self,
        sender: SendRequest<Bytes>,
        limit: TimeLimit,
    ) -> Result<StatusCode, String> {
        let request = self.request.map(drop);
        let answer = limit.within("no answer within", async {
            let mut sender = sender.ready().await?;
            let (answer, _) = sender.send_request(request, true)?;
            answer.await
        });
        let answer = answer.await?.map_err(|error| http2::unanswered(&error))?;
        let status = answer.status();
        if !self.check.admits(status.as_u16()) {
            return Err(unexpected(&answer, self.check));
        }
        if let Some(search) = self.search {
            search.read(http2::Body::of(answer), limit).await?;
        }
        Ok(status)
    }

    /// The same by HTTP/1.1.
    async fn ask_first(
        self,
        stream: impl Connection,
        limit: TimeLimit,
    ) -> Result<StatusCode, String> {
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
            let status = answer.status();
            if !check.admits(status.as_u16()) {
                return Err(unexpected(&answer, check));
            }
            if let Some(search) = search {
                search.read(answer.into_body(), limit).await?;
            }
            Ok(status)
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
    scheme: &str,
) -> Result<Request<String>, String> {
    let host = check.host.clone().unwrap_or_else(|| target.to_string());
    let request = Request::builder().method(check.method.as_str());
    let request = match check.version {
        HttpVersion::HTTP1 => request
            .uri(&check.path)
            .header(HOST, host)
            .header(CONNECTION, "close"),
        HttpVersion::HTTP2 => request.uri(format!("{scheme}://{host}{}", check.path)),
    };
    let mut request = request
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
fn unexpected<T>(answer: &Response<T>, check: &HttpCheck) -> String {
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

impl Pieces for Incoming {
    fn least_bytes(&self) -> u64 {
        self.size_hint().lower()
    }

    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await?;
            // What is not data are trailers, which say nothing here.
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(broken(&error))),
            }
        }
    }
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
fn broken(error: &hyper::Error) -> String {
    let cause = cause(error);
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
