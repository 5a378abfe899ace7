//! The port: connections over TLS, bounded in number and time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::args::ScrapeArguments;
use crate::certificate::CertificateFiles;
use crate::judge::{Judge, guard};
use crate::limits::{
    ACCEPT_RETRY, CONNECTION_GRACE, CONNECTION_LIFETIME, CONNECTIONS, HANDSHAKE_TIMEOUT,
    HEAD_BYTES, IDLE,
};

/// Serves `health` by plain HTTP at `address`, as kubelets want it, and `metrics` beside it or, as the arguments say, over TLS
/// at an address of its own, until the process ends. `client` asks about tokens.
pub async fn serve(
    address: SocketAddr,
    health: Router,
    metrics: Router,
    arguments: &ScrapeArguments,
    client: Client,
) -> anyhow::Result<()> {
    let Some((own, directory)) = arguments.apart() else {
        return serve_plainly(address, health.merge(metrics)).await;
    };
    let judge = arguments.metrics_authentication.then(|| Judge::new(client));
    let listener = listen(own).await?;
    tokio::try_join!(
        serve_plainly(address, health),
        serve_over_tls(listener, directory, judge, metrics)
    )?;
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("listening on {address}"))
}

async fn serve_plainly(address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener = listen(address).await?;
    axum::serve(listener, router).await.context("serving HTTP")
}

/// Serves `metrics` over TLS with the certificate in `directory`, to those whom `judge` lets through, or to everybody, until
/// the process ends. A certificate that is missing keeps metrics away and nothing else from work.
pub async fn serve_over_tls(
    listener: TcpListener,
    directory: PathBuf,
    judge: Option<Judge>,
    metrics: Router,
) -> anyhow::Result<()> {
    let router = match judge {
        Some(judge) => metrics.route_layer(from_fn_with_state(judge, guard)),
        None => metrics,
    };
    let certificate = CertificateFiles::new(directory);
    // Tells at the beginning what is wrong with it, not at the first scrape.
    let _ = certificate.settings(Instant::now());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.context("waiting for a place")?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accepting a connection for /metrics: {error}");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(settings) = certificate.settings(Instant::now()) else {
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection(stream, settings, router).await {
                tracing::debug!("a connection for /metrics: {error:#}");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    settings: Arc<ServerConfig>,
    router: Router,
) -> anyhow::Result<()> {
    let handshake = TlsAcceptor::from(settings).accept(stream);
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let mut answers = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        ended = answers.as_mut() => return Ok(ended?),
        () = sleep(CONNECTION_LIFETIME) => answers.as_mut().graceful_shutdown(),
    }
    Ok(timeout(CONNECTION_GRACE, answers).await??)
}
