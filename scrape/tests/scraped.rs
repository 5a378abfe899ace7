//! Scrapes against an API server that is played, and over real TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::middleware::from_fn_with_state;
use axum::response::Response as AxumResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use lvs_scrape::judge::{Judge, guard};
use lvs_scrape::server::serve_over_tls;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower::ServiceExt;

const NAME: &str = "metrics.example";
const GROUPS: [&str; 2] = ["system:serviceaccounts", "system:authenticated"];

/// The played API server: it knows the tokens `prometheus` and `stranger`, and lets the first get /metrics.
#[derive(Clone, Default)]
struct Stage {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// Answer to everything instead.
    broken: Arc<Mutex<Option<StatusCode>>>,
    /// Whether the right of `prometheus` was taken away.
    revoked: Arc<Mutex<bool>>,
}

impl Stage {
    fn judge(&self) -> Judge {
        let stage = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let stage = stage.clone();
            async move { Ok::<_, Infallible>(stage.answer(request).await) }
        });
        Judge::new(Client::new(service, "default"))
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut object: Value =
            serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
        let path = parts.uri.path().to_owned();
        self.asked
            .lock()
            .unwrap()
            .push((path.clone(), object.clone()));
        if let Some(status) = *self.broken.lock().unwrap() {
            let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": "no", "reason": "Forbidden", "code": status.as_u16()});
            let body = Body::from(failure.to_string().into_bytes());
            return Response::builder().status(status).body(body).unwrap();
        }
        object["status"] = match path.as_str() {
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                let token = object["spec"]["token"].as_str().unwrap();
                match token {
                    "prometheus" | "stranger" => json!({"authenticated": true, "user": {
                        "username": token, "uid": "7", "groups": GROUPS,
                        "extra": {"authentication.kubernetes.io/pod-name": ["p"]}}}),
                    _ => {
                        json!({"authenticated": false, "user": {}, "error": "invalid bearer token"})
                    }
                }
            }
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                let spec = &object["spec"];
                assert_eq!(
                    spec["nonResourceAttributes"],
                    json!({"path": "/metrics", "verb": "get"})
                );
                assert_eq!(spec["groups"], json!(GROUPS));
                assert_eq!(spec["uid"], "7");
                assert_eq!(
                    spec["extra"]["authentication.kubernetes.io/pod-name"],
                    json!(["p"])
                );
                let allowed = spec["user"] == "prometheus" && !*self.revoked.lock().unwrap();
                json!({"allowed": allowed})
            }
            other => panic!("{other} was asked"),
        };
        Response::builder()
            .status(StatusCode::CREATED)
            .body(Body::from(object.to_string().into_bytes()))
            .unwrap()
    }

    fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn metrics() -> Router {
    Router::new().route("/metrics", get(|| async { "lvs_story 1\n# EOF\n" }))
}

/// One request without a network.
async fn ask(judge: &Judge, authorization: &[&str]) -> AxumResponse {
    let mut request = Request::get("/metrics");
    for header in authorization {
        request = request.header("authorization", *header);
    }
    let router = metrics().route_layer(from_fn_with_state(judge.clone(), guard));
    router
        .oneshot(request.body(AxumBody::empty()).unwrap())
        .await
        .unwrap()
}

async fn status(judge: &Judge, token: &str) -> u16 {
    ask(judge, &[&format!("Bearer {token}")])
        .await
        .status()
        .as_u16()
}

#[tokio::test(start_paused = true)]
async fn who_may_is_answered_and_nobody_else() {
    let stage = Stage::default();
    let judge = stage.judge();
    assert_eq!(status(&judge, "prometheus").await, 200);
    assert_eq!(status(&judge, "stranger").await, 403);
    let answer = ask(&judge, &["Bearer nonsense"]).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.headers()["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
    let asked = stage.times();
    assert_eq!(
        asked, 5,
        "two questions for each whom it knows, one for who is nobody"
    );
    for refused in [
        vec![],
        vec!["Bearer "],
        vec!["Bearer"],
        vec!["Basic cHJvbWV0aGV1cw=="],
        vec!["prometheus"],
        vec!["Bearer prometheus prometheus"],
        vec!["Bearer prometheus", "Bearer stranger"],
        vec![&*format!("Bearer {}", "x".repeat(16 * 1024 + 1))],
    ] {
        let answer = ask(&judge, &refused).await;
        assert_eq!(answer.status(), 401, "{refused:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    assert_eq!(stage.times(), asked, "what is no token is not asked for");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_asked_for_once_in_its_time_and_a_right_that_was_taken_away_counts_after_it() {
    let stage = Stage::default();
    let judge = stage.judge();
    for _ in 0..59 {
        assert_eq!(status(&judge, "prometheus").await, 200);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(stage.times(), 2);
    *stage.revoked.lock().unwrap() = true;
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(&judge, "prometheus").await, 403);
    *stage.revoked.lock().unwrap() = false;
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(status(&judge, "prometheus").await, 403);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(&judge, "prometheus").await, 200);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_while_the_api_server_does_not_say_so() {
    let stage = Stage::default();
    let judge = stage.judge();
    assert_eq!(status(&judge, "prometheus").await, 200);
    // The rights of the chart are missing, or the server is ill.
    for broken in [StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR] {
        *stage.broken.lock().unwrap() = Some(broken);
        assert_eq!(
            status(&judge, "prometheus").await,
            200,
            "the verdict still holds"
        );
        assert_eq!(status(&judge, "another").await, 503);
    }
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(
        status(&judge, "prometheus").await,
        503,
        "it does not any more"
    );
    *stage.broken.lock().unwrap() = None;
    assert_eq!(
        status(&judge, "prometheus").await,
        200,
        "a failure is not remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_asks_the_api_server_ten_times_a_second() {
    let stage = Stage::default();
    let judge = stage.judge();
    let start = Instant::now();
    let flood: Vec<_> = (0..60)
        .map(|turn| {
            let judge = judge.clone();
            tokio::spawn(async move { status(&judge, &format!("nonsense{turn}")).await })
        })
        .collect();
    for one in flood {
        assert_eq!(one.await.unwrap(), 401);
    }
    assert_eq!(stage.times(), 60);
    assert!(
        start.elapsed() >= Duration::from_millis(5900),
        "{:?}",
        start.elapsed()
    );
    // Those who ask for the same wait for one answer.
    let same: Vec<_> = (0..60)
        .map(|_| {
            let judge = judge.clone();
            tokio::spawn(async move { status(&judge, "prometheus").await })
        })
        .collect();
    for one in same {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(stage.times(), 62);
}

/// Certificate files in a directory, and what trusts them.
fn certify(directory: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = made.signing_key.serialize_der();
    for (file, kind, der) in [
        ("tls.crt", "CERTIFICATE", &made.cert.der()[..]),
        ("tls.key", "PRIVATE KEY", &key),
    ] {
        let text = STANDARD.encode(der);
        let pem = format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n");
        std::fs::write(directory.join(file), pem).unwrap();
    }
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let settings = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(settings))
}

/// One GET over TLS: the first line of the answer, and its body.
async fn scrape(
    port: u16,
    connector: &TlsConnector,
    path: &str,
    more: &str,
) -> std::io::Result<(String, String)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = connector.connect(name, stream).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Ok((head.lines().next().unwrap().to_owned(), body.to_owned()))
}

#[tokio::test]
async fn metrics_are_over_tls_and_for_the_token_that_may() {
    let directory = tempfile::tempdir().unwrap();
    let connector = certify(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let judge = Stage::default().judge();
    let place = directory.path().to_owned();
    let server = tokio::spawn(serve_over_tls(listener, place, Some(judge), metrics()));

    // Who connects and says nothing, or something else, keeps nobody waiting.
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("lvs_story"),
        "by plain HTTP: {answer:?}"
    );

    let of = |path, more| scrape(port, &connector, path, more);
    let (line, body) = of("/metrics", "authorization: Bearer prometheus\r\n")
        .await
        .unwrap();
    assert_eq!(
        (line.as_str(), body.as_str()),
        ("HTTP/1.1 200 OK", "lvs_story 1\n# EOF\n")
    );
    for (more, wanted) in [
        ("", "HTTP/1.1 401 Unauthorized"),
        (
            "authorization: Bearer stranger\r\n",
            "HTTP/1.1 403 Forbidden",
        ),
    ] {
        let (line, body) = of("/metrics", more).await.unwrap();
        assert_eq!(line, wanted);
        assert!(!body.contains("lvs_story"), "{body}");
    }
    let (line, _) = of("/livez", "authorization: Bearer prometheus\r\n")
        .await
        .unwrap();
    assert_eq!(line, "HTTP/1.1 404 Not Found", "there is nothing else here");
    // Somebody else's certificate would be refused by the one who scrapes.
    let stranger = certify(tempfile::tempdir().unwrap().path());
    assert!(scrape(port, &stranger, "/metrics", "").await.is_err());
    drop(silent);
    server.abort();
}

#[tokio::test]
async fn without_a_certificate_nobody_is_answered_until_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let connector = certify(elsewhere.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(serve_over_tls(
        listener,
        directory.path().to_owned(),
        None,
        metrics(),
    ));
    assert!(scrape(port, &connector, "/metrics", "").await.is_err());
    for file in ["tls.crt", "tls.key"] {
        std::fs::copy(elsewhere.path().join(file), directory.path().join(file)).unwrap();
    }
    let limit = Instant::now() + Duration::from_secs(30);
    let (line, _) = loop {
        match scrape(port, &connector, "/metrics", "").await {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < limit, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // Without a judge the certificate is all there is.
    assert_eq!(line, "HTTP/1.1 200 OK");
    server.abort();
}
