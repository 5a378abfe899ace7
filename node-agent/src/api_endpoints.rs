//! Several direct endpoints of the API server behind one client: one is used as long as it answers.
//!
//! A connection is dialled to the endpoint in use, a moment later also to the next, and so on; the first that has completed
//! its TLS handshake, under the name by which the endpoint was configured, is the endpoint in use from then on. Nobody
//! goes back by himself: an endpoint that answers is as good as another.
//!
//! An endpoint that falls silent under connections it has breaks none of them by itself. Three things do: TCP, when what was
//! sent is not acknowledged for [`UNACKNOWLEDGED`]; the loss of the endpoint in use, when a new connection finds another;
//! and [`ApiEndpoints::doubt`], by which one that notices silence has the others dialled. Connections of an endpoint that
//! was left are broken if nothing came from it meanwhile, so that no request waits for it.

#[cfg(test)]
pub(crate) mod played;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::retry::RetryLayer;
use tower::{Service, ServiceBuilder, ServiceExt};

/// After this long without a connection to one endpoint the next is dialled, too.
const NEXT_AFTER: Duration = Duration::from_millis(200);
/// Longest time for a connection and its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// How long a segment may go unacknowledged before TCP breaks its connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED: Duration = Duration::from_millis(800);
/// How long a connection may be silent before TCP asks whether the other side is there, and how often it asks then.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// One endpoint: `https://` and an address, with a port where it is not 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiEndpoint {
    uri: Uri,
    address: IpAddr,
}

impl ApiEndpoint {
    /// Its address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for ApiEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map_or("", |part| part.as_str());
        write!(formatter, "https://{authority}")
    }
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "API endpoint {0:?} must be https:// with an address and, if it is not 443, a port, such as https://192.0.2.1:6443; \
     names are refused, as an agent that needs a name server does not outlive it"
)]
pub struct NoApiEndpoint(String);

impl FromStr for ApiEndpoint {
    type Err = NoApiEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NoApiEndpoint(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let address = uri.host().and_then(host_address).ok_or_else(refused)?;
        let bare = uri.path() == "/" && uri.query().is_none();
        let plain = uri
            .authority()
            .is_some_and(|part| !part.as_str().contains('@'));
        if uri.scheme_str() != Some("https") || !bare || !plain || uri.port_u16() == Some(0) {
            return Err(refused());
        }
        Ok(Self { uri, address })
    }
}

/// The address that stands as host of a URI, if it is none by name.
pub(crate) fn host_address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// The client of the API server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ApiClientError {
    /// There is neither a configuration of the cluster nor a kubeconfig.
    #[error("finding the API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// Certificates or tokens cannot be used.
    #[error("preparing the client of the API server: {0}")]
    Client(#[from] kube::Error),
}

/// A client, and what is known of the ways it goes.
#[derive(Clone)]
pub struct ApiAccess {
    /// The client.
    pub client: Client,
    /// The endpoints to choose from; none where the cluster's configuration alone says how the API server is reached.
    pub endpoints: Option<Arc<ApiEndpoints>>,
    /// Addresses at which the API server is reached; empty where only a name is known.
    pub addresses: BTreeSet<IpAddr>,
}

/// Makes the client: by `endpoints`, or where there are none as the cluster's configuration says. Token and certificates
/// are the cluster's in any case.
pub async fn connect(endpoints: Vec<ApiEndpoint>) -> Result<ApiAccess, ApiClientError> {
    let mut config = Config::infer().await?;
    let Some(first) = endpoints.first() else {
        let addresses = config.cluster_url.host().and_then(host_address);
        return Ok(ApiAccess {
            addresses: addresses.into_iter().collect(),
            client: Client::try_from(config)?,
            endpoints: None,
        });
    };
    config.cluster_url = first.uri.clone();
    // Each endpoint is known by its own name.
    config.tls_server_name = None;
    let addresses = endpoints.iter().map(ApiEndpoint::address).collect();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector.set_keepalive(Some(KEEPALIVE.0));
    connector.set_keepalive_interval(Some(KEEPALIVE.1));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let dial: Dial = Box::new(move |uri| {
        let connector = connector.clone();
        async move {
            let stream = connector.oneshot(uri).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    });
    let endpoints = Arc::new(ApiEndpoints::new(endpoints, dial));
    Ok(ApiAccess {
        client: client(&config, &endpoints)?,
        endpoints: Some(endpoints),
        addresses,
    })
}

/// kube's own layers around a client whose connections come from `endpoints`.
fn client(config: &Config, endpoints: &Arc<ApiEndpoints>) -> Result<Client, kube::Error> {
    let connector = Connector(Arc::clone(endpoints));
    let client: legacy::Client<Connector, Body> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(Into::<tower::BoxError>::into)
        .service(client);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// Both directions of a connection.
trait Duplex: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Duplex for T {}

/// Connects to an endpoint, TLS included.
type Dial = Box<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>;

/// The endpoints, and which of them is in use.
pub struct ApiEndpoints {
    list: Vec<Endpoint>,
    in_use: AtomicUsize,
    dial: Dial,
}

struct Endpoint {
    endpoint: ApiEndpoint,
    state: Mutex<EndpointState>,
}

struct EndpointState {
    /// When the last byte came from it.
    heard_at: Option<Instant>,
    /// Breaks its connections.
    left: CancellationToken,
}

impl Endpoint {
    fn with<T>(&self, look: impl FnOnce(&mut EndpointState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ApiEndpoints {
    fn new(endpoints: Vec<ApiEndpoint>, dial: Dial) -> Self {
        let list = endpoints.into_iter().map(|endpoint| Endpoint {
            endpoint,
            state: Mutex::new(EndpointState {
                heard_at: None,
                left: CancellationToken::new(),
            }),
        });
        Self {
            list: list.collect(),
            in_use: AtomicUsize::new(0),
            dial,
        }
    }

    /// The endpoint in use.
    pub fn in_use(&self) -> Option<&ApiEndpoint> {
        let endpoint = self.list.get(self.in_use.load(Ordering::Relaxed))?;
        Some(&endpoint.endpoint)
    }

    /// The endpoint in use owes an answer since `since`: if nothing came from it, the others are dialled, and the first that
    /// answers is used instead. Returns whether there is another now. Whoever calls this may stop waiting at any time.
    pub async fn doubt(&self, since: Instant) -> bool {
        let doubted = self.in_use.load(Ordering::Relaxed);
        if self.is_heard(doubted, since) {
            return false;
        }
        let others = self.order(doubted).skip(1);
        match self.first_of(others).await {
            // It may have answered after all.
            Ok((index, _)) if !self.is_heard(doubted, since) => {
                self.use_instead(doubted, index, since);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn is_heard(&self, index: usize, since: Instant) -> bool {
        let heard_at = self
            .list
            .get(index)
            .and_then(|one| one.with(|state| state.heard_at));
        heard_at.is_some_and(|heard_at| heard_at >= since)
    }

    /// Every endpoint once, from this one on.
    fn order(&self, first: usize) -> impl Iterator<Item = usize> + Send + use<> {
        let count = self.list.len();
        (0..count).map(move |step| (first + step) % count)
    }

    /// A connection, to the endpoint in use if it answers.
    async fn connection(self: Arc<Self>) -> io::Result<EndpointStream> {
        let begun = Instant::now();
        let before = self.in_use.load(Ordering::Relaxed);
        let (index, stream) = self.first_of(self.order(before)).await?;
        if index != before {
            self.use_instead(before, index, begun);
        }
        let Some(left) = self
            .list
            .get(index)
            .map(|one| one.with(|state| state.left.clone()))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok(EndpointStream {
            stream,
            left: Box::pin(left.cancelled_owned()),
            index,
            endpoints: self,
        })
    }

    /// Dials these endpoints one after another until one has answered.
    async fn first_of(
        &self,
        candidates: impl Iterator<Item = usize> + Send,
    ) -> io::Result<(usize, Box<dyn Duplex>)> {
        let mut candidates =
            candidates.filter_map(|index| Some((index, &self.list.get(index)?.endpoint)));
        let mut attempts = FuturesUnordered::new();
        let mut refusals: Vec<String> = Vec::new();
        loop {
            let next = candidates.next();
            if let Some((index, endpoint)) = next {
                let dialled = tokio::time::timeout(HANDSHAKE, (self.dial)(endpoint.uri.clone()));
                attempts.push(dialled.map(move |outcome| (index, endpoint, outcome)));
            }
            let pause = tokio::time::sleep(NEXT_AFTER);
            let outcome = tokio::select! {
                outcome = attempts.next() => outcome,
                () = pause, if next.is_some() => continue,
            };
            match outcome {
                Some((index, _, Ok(Ok(stream)))) => {
                    self.note_heard(index);
                    return Ok((index, stream));
                }
                Some((_, endpoint, Ok(Err(error)))) => {
                    refusals.push(format!("{endpoint}: {error}"));
                }
                Some((_, endpoint, Err(_))) => {
                    refusals.push(format!("{endpoint}: no answer within {HANDSHAKE:?}"));
                }
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotConnected,
                        format!("no API endpoint answers: {}", refusals.join("; ")),
                    ));
                }
            }
        }
    }

    fn note_heard(&self, index: usize) {
        if let Some(endpoint) = self.list.get(index) {
            endpoint.with(|state| state.heard_at = Some(Instant::now()));
        }
    }

    /// From now on another endpoint is used. The connections of the one that was are broken when nothing came from it since
    /// `since`: they would only be waited for.
    fn use_instead(&self, before: usize, now: usize, since: Instant) {
        let changed =
            self.in_use
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed);
        let (Ok(_), Some(left), Some(used)) = (changed, self.list.get(before), self.list.get(now))
        else {
            // Somebody else was faster.
            return;
        };
        tracing::warn!(
            "API endpoint {} does not answer; {} is used from now on",
            left.endpoint,
            used.endpoint
        );
        if !self.is_heard(before, since) {
            left.with(|state| {
                std::mem::replace(&mut state.left, CancellationToken::new()).cancel();
            });
        }
    }
}

/// Gives hyper its connections. Which endpoint a URI names does not count: all are the same API server.
#[derive(Clone)]
struct Connector(Arc<ApiEndpoints>);

impl Service<Uri> for Connector {
    type Response = EndpointStream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<EndpointStream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Arc::clone(&self.0).connection().boxed()
    }
}

/// A connection to one endpoint, which ends when the endpoint is left.
struct EndpointStream {
    stream: Box<dyn Duplex>,
    left: Pin<Box<WaitForCancellationFutureOwned>>,
    index: usize,
    endpoints: Arc<ApiEndpoints>,
}

impl EndpointStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.left.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the API endpoint was left for another, as it did not answer",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl Read for EndpointStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.endpoints.note_heard(self.index);
        }
        outcome
    }
}

impl Write for EndpointStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for EndpointStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::played::{PlayedEndpoint, SLOW, access, ask};
    use super::*;

    /// Less than the 2.2 s after which a renewal counts as failed.
    const SOON: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn an_endpoint_whose_port_is_closed_is_left_for_the_next_and_not_taken_up_again() {
        let mut first = PlayedEndpoint::start("first").await;
        let second = PlayedEndpoint::start("second").await;
        let (client, endpoints) = access(&[&first, &second]);
        assert_eq!(ask(&client, "/").await.unwrap(), "first");
        first.die().await;
        let soon = tokio::time::timeout(SOON, async {
            // The request that meets the end of its connection may fail; the one after it does not.
            let met = ask(&client, "/").await;
            let next = ask(&client, "/").await;
            assert!(met.is_err() || met.unwrap() == "second");
            assert_eq!(next.unwrap(), "second");
        });
        soon.await.unwrap();
        assert_eq!(endpoints.in_use(), Some(&second.endpoint));
        assert_eq!(ask(&client, "/").await.unwrap(), "second");
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_an_endpoint_that_fell_silent() {
        let first = PlayedEndpoint::start("first").await;
        let second = PlayedEndpoint::start("second").await;
        let (client, endpoints) = access(&[&first, &second]);
        assert_eq!(ask(&client, "/").await.unwrap(), "first");
        first.fall_silent();
        let since = Instant::now();
        let (waiting, left) = tokio::join!(
            tokio::time::timeout(SOON, ask(&client, "/")),
            tokio::time::timeout(SOON, async {
                while !endpoints.doubt(since).await {
                    tokio::task::yield_now().await;
                }
            })
        );
        assert!(waiting.unwrap().is_err(), "its connection is broken");
        left.unwrap();
        let next = tokio::time::timeout(SOON, ask(&client, "/")).await;
        assert_eq!(next.unwrap().unwrap(), "second");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_silent_from_the_beginning_is_passed_over() {
        let first = PlayedEndpoint::start("first").await;
        let second = PlayedEndpoint::start("second").await;
        first.fall_silent();
        let (client, endpoints) = access(&[&first, &second]);
        let answer = tokio::time::timeout(SOON, ask(&client, "/")).await;
        assert_eq!(answer.unwrap().unwrap(), "second");
        assert_eq!(endpoints.in_use(), Some(&second.endpoint));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_slow_with_one_answer_is_not_left() {
        let first = PlayedEndpoint::start("first").await;
        let second = PlayedEndpoint::start("second").await;
        let (client, endpoints) = access(&[&first, &second]);
        assert_eq!(ask(&client, "/").await.unwrap(), "first");
        let slow = tokio::spawn({
            let client = client.clone();
            async move { ask(&client, SLOW).await }
        });
        let since = Instant::now();
        assert_eq!(ask(&client, "/").await.unwrap(), "first");
        assert!(!endpoints.doubt(since).await, "bytes came since");
        assert!(!slow.is_finished(), "a write that takes its time goes on");
        slow.abort();
        // Nobody else answers: there is nowhere to go.
        let mut second = second;
        second.die().await;
        assert!(!endpoints.doubt(Instant::now()).await);
        assert_eq!(endpoints.in_use(), Some(&first.endpoint));
    }

    #[tokio::test]
    async fn nobody_at_all_is_told_by_endpoint() {
        let mut first = PlayedEndpoint::start("first").await;
        first.die().await;
        let (_, endpoints) = access(&[&first]);
        let error = endpoints.connection().await.err().unwrap().to_string();
        assert!(error.contains(&first.endpoint.to_string()), "{error}");
    }
}
