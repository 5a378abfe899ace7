//! Checks of type ExternalHTTP: what a judge is asked, and which of his answers count.

use lvs_agent::health::probe::NOT_ASKED;
use lvs_crds::health_check::{ExternalHttpCheck, HealthCheck, HealthCheckType};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::played::{PATIENCE_SECONDS, answers, ended, head, judgement, serve};

const REAL_SERVER: &str = "192.0.2.21:8080";

fn check(url: &str) -> HealthCheck {
    HealthCheck {
        timeout_seconds: PATIENCE_SECONDS,
        external_http: Some(ExternalHttpCheck {
            url: url.to_owned(),
            credentials_name: None,
        }),
        ..HealthCheck::new("judge".to_owned(), HealthCheckType::ExternalHTTP)
    }
}

#[tokio::test]
async fn a_judge_is_asked_about_the_real_server() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let judge = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            tell.send(head(&mut stream).await).unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
            ended(stream).await;
        }
    })
    .await;
    // Whom the name stands for is for the controller to say.
    let named = check("http://judge.example:8080/ask?depth=2");
    let verdict = judgement(judge.address, REAL_SERVER, &named, &[]).await;
    assert_eq!(verdict, Ok(()));
    let asked = told.recv().await.unwrap();
    let expected =
        "GET /ask?depth=2&address=192.0.2.21&port=8080 HTTP/1.1\r\nHost: judge.example:8080\r\n";
    assert!(asked.starts_with(expected), "{asked}");
    assert!(!asked.contains("Authorization"), "{asked}");

    let with_credentials = HealthCheck {
        external_http: Some(ExternalHttpCheck {
            url: "http://judge.example/".to_owned(),
            credentials_name: Some("judge".to_owned()),
        }),
        ..check("")
    };
    let credentials = [("judge.username", "lvs"), ("judge.password", "secret")];
    let verdict = judgement(judge.address, REAL_SERVER, &with_credentials, &credentials).await;
    assert_eq!(verdict, Ok(()));
    let asked = told.recv().await.unwrap();
    assert!(
        asked.contains("Authorization: Basic bHZzOnNlY3JldA==\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn only_what_a_judge_says_for_certain_counts() {
    let url = check("http://judge.example/");
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 299 Well\r\n\r\n", None),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            Some("says no: status 503"),
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\n\r\n",
            Some("not asked: judge {}: status 500, expected 200-299 for yes or 503 for no"),
        ),
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            Some("not asked: judge {}: status 404"),
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
            Some("not asked: judge {}: status 302"),
        ),
        (
            "SSH-2.0-judge\r\n",
            Some("not asked: judge {}: answer is no HTTP/1"),
        ),
    ] {
        let judge = answers(answer).await;
        let verdict = judgement(judge.address, REAL_SERVER, &url, &[]).await;
        match expected {
            None => assert_eq!(verdict, Ok(()), "{answer}"),
            Some(expected) => {
                let words = verdict.unwrap_err();
                let expected = expected.replace("{}", &judge.address.to_string());
                assert!(words.contains(&expected), "{answer}: {words}");
                let is_certain = answer.contains(" 503 ");
                assert_eq!(words.starts_with(NOT_ASKED), !is_certain, "{words}");
            }
        }
    }
}

#[tokio::test]
async fn a_judge_who_is_not_there_says_nothing() {
    let judge = answers("").await;
    let address = judge.address;
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let url = check("http://judge.example/");
    let refused = judgement(nobody, REAL_SERVER, &url, &[]).await.unwrap_err();
    assert_eq!(
        refused,
        format!("not asked: judge {nobody}: connect refused")
    );
    let silent = serve(ended).await;
    let hasty = HealthCheck {
        timeout_seconds: 1,
        ..url.clone()
    };
    let late = judgement(silent.address, REAL_SERVER, &hasty, &[])
        .await
        .unwrap_err();
    assert_eq!(
        late,
        format!("not asked: judge {}: no answer within 1 s", silent.address)
    );
    let unknown = "0.0.0.0:80".parse().unwrap();
    let unknown = judgement(unknown, REAL_SERVER, &url, &[])
        .await
        .unwrap_err();
    assert!(
        unknown.starts_with("not asked: where judge \"http://judge.example/\" is"),
        "{unknown}"
    );
    let over_tls = check("https://judge.example/");
    let in_plain_text = judgement(address, REAL_SERVER, &over_tls, &[])
        .await
        .unwrap_err();
    assert!(in_plain_text.starts_with(NOT_ASKED), "{in_plain_text}");
}
