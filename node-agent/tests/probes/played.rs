//! Real servers that are played: each connection is handled by what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lvs_agent::health::credentials::CredentialFiles;
use lvs_agent::health::probe::{Answer, Way, ask};
use lvs_core::health::Means;
use lvs_crds::health_check::{HealthCheck, HealthCheckType, HttpBody, HttpBodyType, HttpCheck};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Seconds that a check has which is to be answered, also by a machine that has other things to do.
pub const PATIENCE_SECONDS: u16 = 20;
/// How much later than its time limit a question may end, there.
const LATENESS: Duration = Duration::from_secs(4);

/// A server that listens.
pub struct Played {
    /// Where.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
}

impl Played {
    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server on `address` that gives each connection to `serve`.
pub async fn serve_on<Serve, Served>(address: &str, serve: Serve) -> std::io::Result<Played>
where
    Serve: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    Ok(Played {
        address,
        connections,
    })
}

/// The same on a free port of 127.0.0.1.
pub async fn serve<Serve, Served>(serve: Serve) -> Played
where
    Serve: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    serve_on("127.0.0.1:0", serve).await.unwrap()
}

/// A server that answers every request with these bytes and then waits until the other side ends the connection.
pub async fn answers(answer: &'static str) -> Played {
    serve(move |mut stream| async move {
        head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        ended(stream).await;
    })
    .await
}

/// A server that says these texts, each after the line before it, and tells the lines that it was told.
pub async fn says(texts: &'static [&'static str]) -> (Played, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = serve(move |stream| {
        let tell = tell.clone();
        async move { talk(BufReader::new(stream), texts, &tell).await }
    });
    (server.await, told)
}

/// What [`says`] does with one connection.
pub async fn talk<S>(mut stream: BufReader<S>, texts: &[&str], tell: &mpsc::UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for text in texts {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut line = String::new();
        // It is over where the verdict is made.
        if stream.read_line(&mut line).await.is_err() {
            return;
        }
        tell.send(line).unwrap();
    }
}

/// Reads the head of a request.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Writes these bytes over and over, with pauses between, until the other side ends the connection. How many it was.
pub async fn endlessly(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> usize {
    let mut sent = 0;
    while let Ok(written) = stream.write(bytes).await {
        sent += written;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    sent
}

/// Waits until the other side has ended the connection.
pub async fn ended(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
}

/// The check with one second, to be used up.
pub fn hasty(check: HealthCheck) -> HealthCheck {
    HealthCheck {
        timeout_seconds: 1,
        ..check
    }
}

/// A check of HTTP.
pub fn http(check: HttpCheck) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        http: Some(check),
        ..HealthCheck::new("page".to_owned(), HealthCheckType::HTTP)
    }
}

/// A check of HTTP that wants this of the body.
pub fn body(type_: HttpBodyType, value: &str) -> HealthCheck {
    let value = value.to_owned();
    http(HttpCheck {
        body: Some(HttpBody { type_, value }),
        ..HttpCheck::default()
    })
}

/// Namespace whose credentials [`log_in`] uses.
pub const NAMESPACE: &str = "shop";

/// What the question comes to, which is in time.
pub async fn verdict(target: SocketAddr, check: &HealthCheck) -> Result<(), String> {
    log_in(target, check, &[]).await
}

/// What a judge at `target` says of `subject`.
pub async fn judgement(
    target: SocketAddr,
    subject: &str,
    check: &HealthCheck,
    credentials: &[(&str, &str)],
) -> Result<(), String> {
    let way = Way {
        subject: Some(subject.parse().unwrap()),
        ..target.into()
    };
    log_in(way, check, credentials).await
}

/// The same, with the certificate.
pub async fn answer(target: SocketAddr, check: &HealthCheck) -> Answer {
    answer_to(target, check, &[]).await
}

/// The same with these credentials, each by the name of its key without the namespace.
pub async fn log_in(
    target: impl Into<Way>,
    check: &HealthCheck,
    credentials: &[(&str, &str)],
) -> Result<(), String> {
    answer_to(target, check, credentials).await.verdict
}

async fn answer_to(
    target: impl Into<Way>,
    check: &HealthCheck,
    credentials: &[(&str, &str)],
) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    for (key, text) in credentials {
        let path = directory.path().join(format!("{NAMESPACE}.{key}"));
        std::fs::write(path, text).unwrap();
    }
    let files = CredentialFiles::new(directory.path().to_owned(), "checks".to_owned());
    let means = Means {
        authorities: None,
        namespace: NAMESPACE.to_owned(),
    };
    let begin = Instant::now();
    let answer = Box::pin(ask(target, check, &means, &files)).await;
    let elapsed = begin.elapsed();
    let latest = Duration::from_secs(check.timeout_seconds.into()) + LATENESS;
    assert!(elapsed < latest, "{answer:?} after {elapsed:?}");
    answer
}

/// Why it fails.
pub async fn failure(target: SocketAddr, check: &HealthCheck) -> String {
    verdict(target, check).await.expect_err("it does not pass")
}
