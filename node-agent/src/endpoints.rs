//! Asks the HTTP endpoints that routers track. When, and what the answers come to, is decided by `lvs_core::endpoint`.
//!
//! Each question is a connection of its own, so that it also tells whether new connections are taken. All questions are in
//! one task, which never waits for one of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lvs_core::endpoint::{Answer, EndpointCheck, EndpointKey, EndpointState};
use lvs_crds::tracking::TrackedEndpoint;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::api_endpoints::host_address;
use crate::leadership::clock;
use crate::limits::ANSWER_HEAD_BYTES;

/// What is known of endpoints.
pub type EndpointStates = BTreeMap<EndpointKey, EndpointState>;

/// The port of URLs that name none.
const HTTP_PORT: u16 = 80;

/// What the sync loop and the one who asks tell each other. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct EndpointExchange {
    wanted: watch::Sender<BTreeMap<EndpointKey, TrackedEndpoint>>,
    states: watch::Sender<EndpointStates>,
}

/// An endpoint that is asked.
struct Asked {
    check: EndpointCheck,
    /// Tells it from one of the same name that was asked before.
    serial: u64,
}

impl EndpointExchange {
    /// The endpoints that are to be asked, all of them.
    pub fn want(&self, endpoints: BTreeMap<EndpointKey, TrackedEndpoint>) {
        self.wanted.send_if_modified(|before| {
            let differs = *before != endpoints;
            *before = endpoints;
            differs
        });
    }

    /// The endpoints that are to be asked.
    pub fn wanted(&self) -> BTreeMap<EndpointKey, TrackedEndpoint> {
        self.wanted.borrow().clone()
    }

    /// What is known now. Of an endpoint that is missing nothing is.
    pub fn states(&self) -> EndpointStates {
        self.states.borrow().clone()
    }

    /// Wakes when that changes.
    pub fn bell(&self) -> watch::Receiver<EndpointStates> {
        self.states.subscribe()
    }

    /// Makes known what is known.
    pub fn tell(&self, states: EndpointStates) {
        self.states.send_if_modified(|before| {
            let differs = *before != states;
            *before = states;
            differs
        });
    }

    /// What is known of the endpoints, for Prometheus.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(EndpointMetrics(self.states.subscribe()))
    }

    /// Asks until the process ends.
    pub async fn ask(self) -> anyhow::Result<()> {
        let mut wanted = self.wanted.subscribe();
        wanted.mark_changed();
        let mut asked: BTreeMap<EndpointKey, Asked> = BTreeMap::new();
        let mut questions = FuturesUnordered::new();
        let mut serial = 0;
        loop {
            let now = clock::now();
            let mut next = None;
            for (key, Asked { check, serial }) in &mut asked {
                match check.due() {
                    Some(due) if due <= now => {
                        let timeout = check.begin(now);
                        questions.push(question(key.clone(), *serial, timeout));
                    }
                    due => next = [next, due].into_iter().flatten().min(),
                }
            }
            let pause = next.map_or(Duration::MAX, |next| next.since(now));
            tokio::select! {
                changed = wanted.changed() => {
                    changed?;
                    let wanted = wanted.borrow_and_update();
                    asked.retain(|key, _| wanted.contains_key(key));
                    for (key, settings) in wanted.iter() {
                        if let Some(known) = asked.get_mut(key) {
                            known.check.configure(settings.clone());
                        } else {
                            serial += 1;
                            let check = EndpointCheck::new(settings.clone());
                            asked.insert(key.clone(), Asked { check, serial });
                        }
                    }
                }
                Some((key, serial, answer)) = questions.next() => {
                    if let Some(known) = asked.get_mut(&key)
                        && known.serial == serial
                    {
                        let before = known.check.state().clone();
                        known.check.finish(&answer);
                        note(&key, &before, known.check.state());
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            let states = asked
                .iter()
                .map(|(key, asked)| (key.clone(), asked.check.state().clone()));
            self.tell(states.collect());
        }
    }
}

#[derive(Debug)]
struct EndpointMetrics(watch::Receiver<EndpointStates>);

impl Collector for EndpointMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "lvs_agent_tracked_endpoint_good",
            "1 while a tracked endpoint succeeds, 0 while it fails; none while that is not known",
            None,
            MetricType::Gauge,
        )?;
        for (EndpointKey { router, url }, state) in self.0.borrow().iter() {
            let value = match state {
                EndpointState::Unknown => continue,
                EndpointState::Good => 1.0,
                EndpointState::Failing(_) => 0.0,
            };
            let labels = [("router", router.as_str()), ("url", url.as_str())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn note(key: &EndpointKey, before: &EndpointState, after: &EndpointState) {
    if before == after {
        return;
    }
    let EndpointKey { router, url } = key;
    match after {
        EndpointState::Failing(why) => {
            tracing::warn!(router, url, "tracked endpoint fails: {why}");
        }
        EndpointState::Good | EndpointState::Unknown => {
            tracing::info!(router, url, "tracked endpoint succeeds");
        }
    }
}

async fn question(key: EndpointKey, serial: u64, timeout: Duration) -> (EndpointKey, u64, Answer) {
    let answer = match tokio::time::timeout(timeout, status(&key.url)).await {
        Ok(Ok(status)) => Answer::Status(status),
        Ok(Err(why)) => Answer::Failed(why),
        Err(_) => Answer::TimedOut,
    };
    (key, serial, answer)
}

/// The status with which a GET is answered, or why there is none, in words. The body is left where it is.
async fn status(url: &str) -> Result<u16, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let authority = uri.authority().map(ToString::to_string);
    let authority = authority.ok_or_else(|| format!("{url:?} names no host"))?;
    let host = uri.host().unwrap_or_default();
    let address = host_address(host).ok_or_else(|| format!("{host:?} is no address"))?;
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let request = Request::get(target)
        .header(HOST, authority)
        .header(
            USER_AGENT,
            concat!("lvs-operator-agent/", env!("CARGO_PKG_VERSION")),
        )
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| format!("{url:?} cannot be asked: {error}"))?;
    let stream = TcpStream::connect((address, port)).await;
    let stream = stream.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => "connect refused".to_owned(),
        _ => format!("connect failed: {error}"),
    })?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unanswered(&error))?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What ended the connection has been told to the one who waits for the answer.
        _ = connection => answer.await,
    };
    let answer = answer.map_err(|error| unanswered(&error))?;
    Ok(answer.status().as_u16())
}

fn unanswered(error: &hyper::Error) -> String {
    let mut words = format!("no HTTP answer: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn endpoints_are_shown_to_prometheus_once_something_is_known_of_them() {
        let exchange = EndpointExchange::default();
        let mut registry = Registry::default();
        registry.register_collector(exchange.collector());
        let states = [
            ("http://127.0.0.1:1/", EndpointState::Good),
            (
                "http://127.0.0.1:2/",
                EndpointState::Failing("refused".into()),
            ),
            ("http://127.0.0.1:3/", EndpointState::Unknown),
        ];
        exchange.tell(
            states
                .into_iter()
                .map(|(url, state)| (key(url), state))
                .collect(),
        );
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "lvs_agent_tracked_endpoint_good{router=\"edge\",url=\"http://127.0.0.1:1/\"} 1.0",
                "lvs_agent_tracked_endpoint_good{router=\"edge\",url=\"http://127.0.0.1:2/\"} 0.0",
            ]
        );
    }

    /// Answers every connection with these bytes, after the head of the question has come, and keeps it open. Says where,
    /// and counts connections.
    async fn server(answer: &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ok?deep", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                assert!(head.starts_with("GET /ok?deep HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("host: 127.0.0.1:"), "{head}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                open.push(stream);
            }
        });
        (url, count)
    }

    fn key(url: &str) -> EndpointKey {
        EndpointKey {
            router: "edge".to_owned(),
            url: url.to_owned(),
        }
    }

    fn tracked(url: &str) -> TrackedEndpoint {
        TrackedEndpoint {
            url: url.to_owned(),
            priority_delta: -20,
            period_seconds: 1,
            timeout_seconds: 1,
            failure_threshold: 2,
            success_threshold: 1,
        }
    }

    async fn one(url: &str) -> Answer {
        let timeout = Duration::from_secs(1);
        question(key(url), 1, timeout).await.2
    }

    #[tokio::test]
    async fn an_answer_is_its_status_and_its_body_is_not_awaited() {
        // A body is promised that never comes.
        let (url, _) = server("HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n").await;
        assert_eq!(one(&url).await, Answer::Status(503));
        let (url, _) = server("HTTP/1.0 204 Nothing\r\n\r\n").await;
        assert_eq!(one(&url).await, Answer::Status(204));
        let (url, _) = server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n").await;
        assert_eq!(one(&url).await, Answer::Status(302), "it is not followed");
    }

    #[tokio::test]
    async fn no_answer_is_told_in_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let refused = Answer::Failed("connect refused".to_owned());
        assert_eq!(one(&url).await, refused);
        let (url, _) = server("").await;
        assert_eq!(one(&url).await, Answer::TimedOut);
        let endless: &'static str =
            Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000)).into_boxed_str());
        for (text, words) in [
            (
                "SSH-2.0-OpenSSH\r\n",
                "no HTTP answer: invalid HTTP version",
            ),
            (endless, "no HTTP answer: message head is too large"),
        ] {
            let (url, _) = server(text).await;
            let answer = one(&url).await;
            let Answer::Failed(why) = &answer else {
                panic!("{answer:?}")
            };
            assert!(why.starts_with(words), "{why}");
        }
    }

    #[tokio::test]
    async fn endpoints_are_asked_each_for_itself_until_they_are_not_wanted() {
        let exchange = EndpointExchange::default();
        let (good, _) = server("HTTP/1.1 200 OK\r\n\r\n").await;
        let (hanging, hangs) = server("").await;
        let mut bell = exchange.bell();
        let asker = tokio::spawn(exchange.clone().ask());
        let wanted = [&good, &hanging].map(|url| (key(url), tracked(url)));
        exchange.want(wanted.into());
        let limit = Duration::from_secs(30);
        let wait = tokio::time::timeout(
            limit,
            bell.wait_for(|states| states.get(&key(&good)) == Some(&EndpointState::Good)),
        );
        let states = wait.await.unwrap().unwrap().clone();
        // The one that hangs has not had its time yet, which is nothing to the other.
        assert_eq!(states[&key(&hanging)], EndpointState::Unknown);
        let failing = EndpointState::Failing("timed out after 1 s".to_owned());
        let wait = tokio::time::timeout(
            limit,
            bell.wait_for(|states| states.get(&key(&hanging)) == Some(&failing)),
        );
        assert_eq!(
            wait.await.unwrap().unwrap()[&key(&good)],
            EndpointState::Good
        );
        assert_eq!(
            hangs.load(Ordering::Relaxed),
            2,
            "one question at a time, each with a connection of its own"
        );
        exchange.want([(key(&good), tracked(&good))].into());
        let wait = tokio::time::timeout(limit, bell.wait_for(|states| states.len() == 1));
        assert!(wait.await.unwrap().unwrap().contains_key(&key(&good)));
        asker.abort();
    }
}
