//! What a collector gets, and what becomes of spans when there is none.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lvs_traces::counts::SpanResult;
use lvs_traces::{Exporting, KeyValue, Origin, TraceArguments, Tracer, context, start};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(20);

fn tracer(endpoint: &str, ratio: f64) -> (Tracer, Exporting) {
    traced(
        &TraceArguments {
            otlp_endpoint: Some(endpoint.parse().unwrap()),
            otlp_certificate: None,
        },
        ratio,
    )
}

fn traced(arguments: &TraceArguments, ratio: f64) -> (Tracer, Exporting) {
    let origin = Origin {
        service: "lvs-test",
        version: "1",
        attributes: vec![KeyValue::new("k8s.node.name", "lb-a")],
    };
    start(arguments, origin, ratio).unwrap()
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let of_resources = request.resource_spans.iter();
    let of_scopes = of_resources.flat_map(|spans| &spans.scope_spans);
    of_scopes.flat_map(|spans| spans.spans.clone()).collect()
}

fn pem(certificate: &Certificate) -> String {
    let text = BASE64_STANDARD.encode(certificate.der());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    refused: i64,
}

impl Collector {
    async fn listen(&self) -> String {
        async fn take(
            State(collector): State<Collector>,
            headers: HeaderMap,
            body: Bytes,
        ) -> (StatusCode, Vec<u8>) {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            collector.requests.lock().unwrap().push(request);
            let partial_success = Some(ExportTracePartialSuccess {
                rejected_spans: collector.refused,
                error_message: String::new(),
            });
            let answer = ExportTraceServiceResponse { partial_success };
            (StatusCode::OK, answer.encode_to_vec())
        }
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }
}

#[tokio::test]
async fn spans_reach_the_collector_with_their_parents_and_times() {
    let collector = Collector::default();
    let (tracer, exporting) = tracer(&collector.listen().await, 1.0);
    let counts = exporting.counts.clone();
    let begun = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let root = tracer.root(
        "change",
        begun,
        vec![KeyValue::new("lvs.generation", 7_i64)],
    );
    let text = context::to_text(root.context()).unwrap();
    // What another process makes of the text.
    let parent = context::from_text(&text).unwrap();
    let mut child = tracer.child("apply", &parent, begun, Vec::new());
    child.fail("KernelRefused");
    child.end(begun + Duration::from_millis(3));
    root.end(begun + Duration::from_millis(5));
    exporting.finish().await;

    let requests = collector.requests.lock().unwrap().clone();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    let resource = format!("{:?}", request.resource_spans[0].resource);
    for word in ["service.name", "lvs-test", "k8s.node.name", "lb-a"] {
        assert!(resource.contains(word), "{resource}");
    }
    let spans = spans(request);
    let [child, root] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (child.name.as_str(), root.name.as_str()),
        ("apply", "change")
    );
    assert_eq!(child.trace_id, root.trace_id);
    assert_eq!(child.parent_span_id, root.span_id);
    assert!(root.parent_span_id.is_empty());
    assert_eq!(
        child.end_time_unix_nano - child.start_time_unix_nano,
        3_000_000
    );
    assert_eq!(child.status.as_ref().unwrap().message, "KernelRefused");
    assert_eq!(counts.get(SpanResult::Exported), 2);
}

#[tokio::test]
async fn what_is_not_sampled_is_neither_exported_nor_handed_on() {
    let collector = Collector::default();
    let (tracer, exporting) = tracer(&collector.listen().await, 0.0);
    let root = tracer.root("change", SystemTime::now(), Vec::new());
    assert_eq!(context::to_text(root.context()), None);
    let child = tracer.child("plan", root.context(), SystemTime::now(), Vec::new());
    child.end(SystemTime::now());
    root.end(SystemTime::now());
    exporting.finish().await;
    assert!(collector.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted_as_lost() {
    let collector = Collector {
        refused: 1,
        ..Collector::default()
    };
    let (tracer, exporting) = tracer(&collector.listen().await, 1.0);
    let counts = exporting.counts.clone();
    for _ in 0..3 {
        tracer.root("change", SystemTime::now(), Vec::new());
    }
    exporting.finish().await;
    assert_eq!(counts.get(SpanResult::Failed), 1);
    assert_eq!(counts.get(SpanResult::Exported), 2);
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_does_not_answer_and_what_is_too_much_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tracer, exporting) = tracer(&format!("http://{}", listener.local_addr().unwrap()), 1.0);
    let counts = exporting.counts.clone();
    let begun = std::time::Instant::now();
    for _ in 0..10_000 {
        tracer.root("change", SystemTime::now(), Vec::new());
    }
    let made = begun.elapsed();
    // Nothing took one of them out of the queue: this thread has not waited once.
    assert_eq!(counts.get(SpanResult::Dropped), 10_000 - 2048);
    assert!(made < Duration::from_secs(5), "{made:?}");
    let begun = std::time::Instant::now();
    exporting.finish().await;
    let finished = begun.elapsed();
    assert!(finished < Duration::from_secs(3), "{finished:?}");
    assert_eq!(counts.get(SpanResult::Exported), 0);
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_its_spans_and_the_next_are_exported_when_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (tracer, exporting) = tracer(&format!("http://{address}"), 1.0);
    let counts = exporting.counts.clone();
    tracer.root("change", SystemTime::now(), Vec::new());
    timeout(LIMIT, async {
        while counts.get(SpanResult::Failed) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();

    let listener = TcpListener::bind(address).await.unwrap();
    let router = Router::new().route("/v1/traces", post(|| async { StatusCode::OK }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    tracer.root("change", SystemTime::now(), Vec::new());
    exporting.finish().await;
    assert_eq!(counts.get(SpanResult::Exported), 1);
}

#[tokio::test]
async fn over_tls_only_a_collector_of_the_given_authorities_is_told() {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = pem(&authority.self_signed(&key).unwrap());
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = vec![0; 512];
            let length = stream.read(&mut head).await.unwrap_or_default();
            head.truncate(length);
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&head).into_owned());
        }
    });

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let arguments = TraceArguments {
        otlp_endpoint: Some(endpoint.parse().unwrap()),
        otlp_certificate: Some(file.clone()),
    };
    let once = |arguments: TraceArguments| async move {
        let (tracer, exporting) = traced(&arguments, 1.0);
        tracer.root("change", SystemTime::now(), Vec::new());
        exporting.finish().await;
    };
    // A file that is missing, one with nothing in it, and another's authority.
    once(arguments.clone()).await;
    std::fs::write(&file, "no certificate").unwrap();
    once(arguments.clone()).await;
    let other = KeyPair::generate().unwrap();
    let mut stranger = CertificateParams::new(Vec::new()).unwrap();
    stranger.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(&file, pem(&stranger.self_signed(&other).unwrap())).unwrap();
    once(arguments.clone()).await;
    assert!(heads.lock().unwrap().is_empty());

    std::fs::write(&file, certificate).unwrap();
    once(arguments).await;
    let heads = heads.lock().unwrap().clone();
    assert!(
        heads.len() == 1 && heads[0].starts_with("POST /v1/traces HTTP/1.1\r\n"),
        "{heads:?}"
    );
}
