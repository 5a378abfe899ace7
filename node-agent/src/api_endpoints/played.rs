//! Endpoints played on loopback, for tests: a byte each way stands for the TLS handshake, and each request is answered with
//! the name of the endpoint.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use http::Request;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{ApiEndpoint, ApiEndpoints, Dial, Duplex, client};

/// The path of requests that are never answered.
pub(crate) const SLOW: &str = "/slow";

/// One endpoint.
pub(crate) struct PlayedEndpoint {
    pub(crate) endpoint: ApiEndpoint,
    mute: Arc<AtomicBool>,
    /// Ends with this, and the connections with it.
    tasks: JoinSet<()>,
}

impl PlayedEndpoint {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mute = Arc::new(AtomicBool::new(false));
        let is_mute = Arc::clone(&mute);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, name, Arc::clone(&is_mute)).map(drop));
            }
        });
        Self {
            endpoint: format!("https://{address}").parse().unwrap(),
            mute,
            tasks,
        }
    }

    /// From now on it takes everything and answers nothing, as a machine behind a cut wire or a process that stands still.
    pub(crate) fn fall_silent(&self) {
        self.mute.store(true, Ordering::SeqCst);
    }

    /// Its process dies: connections end, and the port is closed.
    pub(crate) async fn die(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(mut stream: TcpStream, name: &str, mute: Arc<AtomicBool>) -> std::io::Result<()> {
    let answers = || !mute.load(Ordering::SeqCst);
    let mut hello = [0];
    stream.read_exact(&mut hello).await?;
    if answers() {
        stream.write_all(&hello).await?;
    }
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if request.ends_with(b"\r\n\r\n") {
            let slow = request.starts_with(format!("GET {SLOW} ").as_bytes());
            request.clear();
            if answers() && !slow {
                let length = name.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }
}

/// A client that chooses among these endpoints.
pub(crate) fn access(played: &[&PlayedEndpoint]) -> (Client, Arc<ApiEndpoints>) {
    let dial: Dial = Box::new(|uri| {
        async move {
            let mut stream = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            let mut hello = [b'h'];
            stream.write_all(&hello).await?;
            stream.read_exact(&mut hello).await?;
            Ok(Box::new(TokioIo::new(stream)) as Box<dyn Duplex>)
        }
        .boxed()
    });
    let list = played.iter().map(|one| one.endpoint.clone()).collect();
    let endpoints = Arc::new(ApiEndpoints::new(list, dial));
    let config = Config::new("http://api.invalid".parse().unwrap());
    (client(&config, &endpoints).unwrap(), endpoints)
}

/// The answer to one request.
pub(crate) async fn ask(client: &Client, path: &str) -> Result<String, kube::Error> {
    let request = Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await
}
