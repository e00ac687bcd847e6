//! The change of the token: what is sent, once, and how each outcome is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::console::Silent;
use rstest::rstest;
use supervisor::{PutResult, Supervisor, SupervisorKind, TokenValue};

use crate::server::{FakeServer, NEW, OLD, Reply, impatient, options, reply, secret};

async fn put(supervisor: &Supervisor) -> PutResult {
    let value = TokenValue::supplied(&secret(NEW)).unwrap();
    supervisor.put_token(&secret(OLD), &value, || true).await
}

fn name(result: &PutResult) -> &'static str {
    match result {
        PutResult::Accepted => "accepted",
        PutResult::RefusedUnchanged(_) => "refused",
        PutResult::Failed(_) => "failed",
        PutResult::Unanswered(_) => "unanswered",
        PutResult::NotSent(_) => "not sent",
    }
}

#[tokio::test]
async fn the_request_is_the_one_of_k3s_in_one_record() {
    for (kind, path) in [
        (SupervisorKind::K3s, "/v1-k3s/token"),
        (SupervisorKind::Rke2, "/v1-rke2/token"),
    ] {
        let server = FakeServer::start(|_| reply(200, "")).await;
        let supervisor = server.connect_with(kind, options(Arc::new(Silent))).await;
        assert_eq!(name(&put(&supervisor).await), "accepted");
        let [request] = &server.recorded()[..] else {
            panic!("not one request");
        };
        assert_eq!(request.target, format!("PUT {path}"));
        assert_eq!(request.body, format!(r#"{{"newToken":"{NEW}"}}"#));
        // `printf server:old-password-of-the-server | base64`
        let expected = "Basic c2VydmVyOm9sZC1wYXNzd29yZC1vZi10aGUtc2VydmVy";
        assert_eq!(request.headers["authorization"], expected);
        assert_eq!(request.headers["host"], supervisor.address().to_string());
        let agent = request.headers["user-agent"].to_str().unwrap();
        assert!(
            agent.to_lowercase().contains("mozilla") && agent.contains("kubectl-test"),
            "{agent}"
        );
        assert_eq!(server.records(), 1, "head and body are one write");
    }
}

#[rstest]
#[case(reply(200, ""), "accepted")]
#[case(reply(400, "{}"), "refused")]
#[case(reply(401, "{}"), "refused")]
#[case(reply(403, "{}"), "refused")]
#[case(reply(405, "{}"), "refused")]
#[case(reply(500, "{}"), "failed")]
#[case(reply(204, ""), "unanswered")]
#[case(reply(404, ""), "unanswered")]
#[case(reply(502, ""), "unanswered")]
#[case(reply(503, ""), "unanswered")]
#[case(Reply::Response(307, vec![("location", "/v1-k3s/other".into())], String::new()), "unanswered")]
#[case(Reply::Response(503, vec![("retry-after", "0".into())], String::new()), "unanswered")]
#[case(reply(200, "x".repeat(300 << 10)), "unanswered")]
#[case(Reply::Cut, "unanswered")]
#[tokio::test]
async fn each_outcome_is_read_and_nothing_is_sent_again(#[case] answer: Reply, #[case] expected: &str) {
    let server = FakeServer::start(move |_| answer.clone()).await;
    let result = put(&server.connect().await).await;
    assert_eq!(name(&result), expected, "{result:?}");
    assert_eq!(server.recorded().len(), 1);
}

#[tokio::test]
async fn a_stalled_change_is_unanswered_within_its_limit() {
    let server = FakeServer::start(|_| Reply::Stall).await;
    let supervisor = server.connect_with(SupervisorKind::K3s, impatient()).await;
    let began = Instant::now();
    let result = put(&supervisor).await;
    assert_eq!(name(&result), "unanswered", "{result:?}");
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    assert_eq!(server.recorded().len(), 1);
    // Not closed in order: the system would deliver what it still holds.
    assert_eq!(server.end().await, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_change_that_is_abandoned_resets_its_connection() {
    let server = FakeServer::start(|_| Reply::Stall).await;
    let supervisor = server.connect().await;
    let abandoned = tokio::time::timeout(Duration::from_millis(300), put(&supervisor)).await;
    assert!(abandoned.is_err());
    assert_eq!(server.end().await, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_server_that_is_away_was_sent_nothing() {
    let server = FakeServer::start(|_| reply(200, "")).await;
    let supervisor = server.connect().await;
    drop(server);
    let mut result = put(&supervisor).await;
    // The listener is closed as soon as its task has been dropped.
    for _ in 0..100 {
        if matches!(result, PutResult::NotSent(_)) {
            break;
        }
        tokio::task::yield_now().await;
        result = put(&supervisor).await;
    }
    assert_eq!(name(&result), "not sent", "{result:?}");
}

#[tokio::test]
async fn the_lock_is_checked_when_the_server_is_verified_and_nothing_was_sent() {
    let server = FakeServer::start(|_| reply(200, "")).await;
    let supervisor = server.connect().await;
    let value = TokenValue::supplied(&secret(NEW)).unwrap();
    let before = server.connections();
    let result = supervisor
        .put_token(&secret(OLD), &value, || {
            assert_eq!(server.connections(), before + 1, "the connection is not open yet");
            false
        })
        .await;
    assert_eq!(name(&result), "not sent", "{result:?}");
    assert!(server.recorded().is_empty());
}

#[tokio::test]
async fn a_failure_has_the_message_of_the_server() {
    let status =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"token error ID 12345","code":500}"#;
    let server = FakeServer::start(move |_| reply(500, status)).await;
    let PutResult::Failed(error) = put(&server.connect().await).await else {
        panic!("not a failure");
    };
    let expected = format!(
        "supervisor {} answered 500 to PUT /v1-k3s/token: token error ID 12345",
        server.address
    );
    assert_eq!(error.to_string(), expected);
}
