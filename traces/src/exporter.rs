//! The task that sends spans to the collector. It works for itself: whoever makes spans never waits for it, and what it cannot
//! send is lost, counted and told in measure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::args::{Collector, TraceArguments};
use crate::counts::{SpanCounts, SpanResult};
use crate::limits::{
    ANSWER_BYTES, EXPORT_TIMEOUT, IDLE, LAST_EXPORT_TIMEOUT, LINGER, SPANS_PER_REQUEST,
    TELLING_INTERVAL,
};
use crate::span::Tracer;

/// Who makes the spans.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the program: `service.name`.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Where it runs.
    pub attributes: Vec<KeyValue>,
}

/// The exporter at work.
#[derive(Debug)]
pub struct Exporting {
    /// What became of spans.
    pub counts: SpanCounts,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what is queued, for a second at most, and ends.
    pub async fn finish(self) {
        // Both fail only when the task is gone.
        let _ = self.stop.send(());
        let _ = timeout(LAST_EXPORT_TIMEOUT, self.task).await;
    }
}

/// Starts the exporter in the runtime at hand, if there is a collector; `sampling_ratio` of the traces that begin here, 0 to 1,
/// are exported, and of those that others began what they have sampled.
pub fn start(
    arguments: &TraceArguments,
    origin: Origin,
    sampling_ratio: f64,
) -> Option<(Tracer, Exporting)> {
    let collector = arguments.otlp_endpoint.clone()?;
    tracing::info!("traces of changes go to {}", collector.traces());
    let counts = SpanCounts::default();
    let resource = Resource::builder()
        .with_service_name(origin.service)
        .with_attribute(KeyValue::new("service.version", origin.version))
        .with_attributes(origin.attributes)
        .build();
    let attributes = ResourceAttributesWithSchema::from(&resource);
    let (tracer, queue) = Tracer::open(origin.service, resource, sampling_ratio, counts.clone());
    let exporter = Exporter {
        queue,
        resource: attributes,
        collector,
        certificate: arguments.otlp_certificate.clone(),
        client: None,
        counts: counts.clone(),
        telling: Telling::default(),
    };
    let (stop, stopped) = oneshot::channel();
    let exporting = Exporting {
        counts,
        stop,
        task: tokio::spawn(exporter.run(stopped)),
    };
    Some((tracer, exporting))
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

struct Exporter {
    queue: mpsc::Receiver<SpanData>,
    resource: ResourceAttributesWithSchema,
    collector: Collector,
    certificate: Option<PathBuf>,
    /// Made anew after a failure: authorities may have been renewed.
    client: Option<HttpClient>,
    counts: SpanCounts,
    telling: Telling,
}

impl Exporter {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                count = self.queue.recv_many(&mut batch, SPANS_PER_REQUEST) => if count == 0 {
                    // Nobody makes spans any more.
                    return;
                },
            }
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = sleep(LINGER) => {}
            }
            self.fill(&mut batch);
            self.export(std::mem::take(&mut batch)).await;
        }
        self.fill(&mut batch);
        while !batch.is_empty() {
            self.export(std::mem::take(&mut batch)).await;
            self.fill(&mut batch);
        }
    }

    fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < SPANS_PER_REQUEST {
            let Ok(span) = self.queue.try_recv() else {
                return;
            };
            batch.push(span);
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        let answer = timeout(EXPORT_TIMEOUT, self.send(batch)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "no answer in {} s",
                EXPORT_TIMEOUT.as_secs()
            ))
        });
        let refused = match answer {
            Ok(refused) => refused.min(count),
            Err(error) => {
                self.client = None;
                if let Some(lost) = self.telling.failed(count, Instant::now()) {
                    let to = self.collector.traces();
                    tracing::warn!("exporting traces to {to}: {error:#}; {lost} spans are lost");
                }
                count
            }
        };
        if refused < count && self.telling.succeeded() {
            tracing::info!("traces are exported to {} again", self.collector.traces());
        }
        self.counts.add(SpanResult::Failed, refused);
        self.counts.add(SpanResult::Exported, count - refused);
    }

    /// Sends them; returns how many the collector refused of what it took.
    async fn send(&mut self, batch: Vec<SpanData>) -> anyhow::Result<usize> {
        let message = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let request = Request::post(self.collector.traces())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(message.encode_to_vec())))?;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(self.connect()?),
        };
        let answer = client.request(request).await.context("asking")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES);
        let body = body.collect().await.map_err(anyhow::Error::from_boxed);
        ensure!(status.is_success(), "the collector says {status}");
        let answer = ExportTraceServiceResponse::decode(body?.to_bytes());
        // Some collectors answer in JSON whatever they were asked in; what they took they took.
        let partial = answer.ok().and_then(|answer| answer.partial_success);
        let refused = partial.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(refused).unwrap_or_default())
    }

    fn connect(&self) -> anyhow::Result<HttpClient> {
        let roots = if self.collector.is_over_tls() {
            authorities(self.certificate.as_deref())?
        } else {
            RootCertStore::empty()
        };
        let settings = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(settings)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector))
    }
}

fn authorities(file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        ensure!(
            !roots.is_empty(),
            "no certificate authority is known here: name a file of them as --otlp-certificate"
        );
        return Ok(roots);
    };
    let found = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("reading --otlp-certificate {}", file.display()))?;
    roots.add_parsable_certificates(found.filter_map(Result::ok));
    if roots.is_empty() {
        let file = file.display();
        bail!("--otlp-certificate {file} has no certificate that can be read");
    }
    Ok(roots)
}

/// When failures are told: the first, then once in a while with what was lost since.
#[derive(Debug, Default)]
struct Telling {
    told: Option<Instant>,
    lost: usize,
}

impl Telling {
    /// So many were lost now; returns how many to tell of, if it is time.
    fn failed(&mut self, count: usize, now: Instant) -> Option<usize> {
        self.lost += count;
        let is_due = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TELLING_INTERVAL);
        is_due.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.lost)
        })
    }

    /// Returns whether that is news.
    fn succeeded(&mut self) -> bool {
        self.lost = 0;
        self.told.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_keeps_failing_is_told_once_a_minute_with_all_that_was_lost() {
        let mut telling = Telling::default();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert!(!telling.succeeded());
        assert_eq!(telling.failed(3, at(0)), Some(3));
        assert_eq!(telling.failed(4, at(10)), None);
        assert_eq!(telling.failed(5, at(60)), Some(9));
        assert!(telling.succeeded());
        assert!(!telling.succeeded());
        assert_eq!(telling.failed(1, at(61)), Some(1));
    }
}
