//! Probes, encryption, clock and snapshots.

use rstest::rstest;
use supervisor::{Credential, EncryptionStatus, ProbeResult, UnknownReason};

use crate::server::{FakeServer, OLD, Recorded, Reply, reply, secret};

/// A supervisor that answers by the login, as K3s does.
fn k3s(request: &Recorded) -> Reply {
    let login = request
        .headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    // `printf server:old-password-of-the-server | base64`, and the same for `node:`.
    let is_server = login.as_deref() == Some("Basic c2VydmVyOm9sZC1wYXNzd29yZC1vZi10aGUtc2VydmVy");
    let is_node = login.as_deref() == Some("Basic bm9kZTpvbGQtcGFzc3dvcmQtb2YtdGhlLXNlcnZlcg==");
    let is_bootstrap = login.as_deref() == Some("Bearer abcdef.0123456789abcdef");
    reply(
        match (request.target.as_str(), &login) {
            (_, None) => 403,
            ("GET /v1-k3s/token", _) if is_server => 405,
            ("GET /v1-k3s/readyz", _) if is_node || is_bootstrap => 200,
            _ if is_server || is_node || is_bootstrap => 403,
            _ => 401,
        },
        "{}",
    )
}

#[tokio::test]
async fn each_credential_is_probed_where_it_counts() {
    let server = FakeServer::start(k3s).await;
    let supervisor = server.connect().await;
    let (old, other) = (secret(OLD), secret("other-password"));
    let bootstrap = (secret("abcdef.0123456789abcdef"), secret("abcdef.aaaaaaaaaaaaaaaa"));
    for (credential, expected) in [
        (Credential::Server(&old), ProbeResult::Accepted),
        (Credential::Server(&other), ProbeResult::Rejected),
        (Credential::Node(&old), ProbeResult::Accepted),
        (Credential::Node(&other), ProbeResult::Rejected),
        (Credential::BootstrapToken(&bootstrap.0), ProbeResult::Accepted),
        (Credential::BootstrapToken(&bootstrap.1), ProbeResult::Rejected),
    ] {
        assert_eq!(supervisor.probe(credential).await, expected, "{credential:?}");
    }
    assert!(supervisor.probe_ready(&old).await.unwrap());
    assert_eq!(supervisor.probe_ready(&other).await.unwrap_err().code(), Some(401));
    assert_eq!(server.recorded().len(), 8);
}

#[rstest]
#[case(reply(503, ""), UnknownReason::Starting)]
#[case(reply(500, "{}"), UnknownReason::Unexpected(500))]
#[case(reply(403, "{}"), UnknownReason::Unexpected(403))]
#[case(reply(404, ""), UnknownReason::Unexpected(404))]
#[case(reply(200, "<html>"), UnknownReason::Unexpected(200))]
#[case(Reply::Response(302, vec![("location", "/login".into())], String::new()), UnknownReason::Unexpected(302))]
#[tokio::test]
async fn anything_else_proves_nothing(#[case] answer: Reply, #[case] expected: UnknownReason) {
    let server = FakeServer::start(move |_| answer.clone()).await;
    let result = server.connect().await.probe(Credential::Server(&secret(OLD))).await;
    assert_eq!(result, ProbeResult::Unknown(expected));
    assert_eq!(server.recorded().len(), 1, "no retry and no redirect");
}

#[tokio::test]
async fn a_cut_connection_proves_nothing() {
    let server = FakeServer::start(|_| Reply::Cut).await;
    let result = server.connect().await.probe(Credential::Server(&secret(OLD))).await;
    assert!(
        matches!(result, ProbeResult::Unknown(UnknownReason::NoResponse(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn the_encryption_status_is_parsed() {
    let server = FakeServer::start(|_| {
        reply(
            200,
            r#"{"stage":"start","activekey":"AES-CBC k","enable":true,"hashmatch":true}"#,
        )
    });
    let server = server.await;
    let status = server.connect().await.encryption(&secret(OLD)).await.unwrap();
    assert_eq!(
        (status.stage.as_str(), status.enable, status.hash_match),
        ("start", Some(true), true)
    );
    assert_eq!(EncryptionStatus::safe_for_round([("s1", &status)]), Ok(()));
    assert_eq!(server.recorded()[0].target, "GET /v1-k3s/encrypt/status");
}

#[rstest]
#[case(reply(500, "{}"), "answered 500 to GET /v1-k3s/encrypt/status")]
#[case(
    reply(200, r#"{"stage":"secret-in-a-body""#),
    "sent a malformed response to GET /v1-k3s/encrypt/status"
)]
#[case(reply(200, "{}"), "sent a malformed response to GET /v1-k3s/encrypt/status")]
#[case(
    reply(200, r#"{"stage":7}"#),
    "sent a malformed response to GET /v1-k3s/encrypt/status"
)]
#[case(reply(200, format!(r#"{{"stage":"{}"}}"#, "x".repeat(300 << 10))), "the response is longer than 256 KiB")]
#[tokio::test]
async fn a_malformed_or_long_response_is_an_error_that_does_not_quote_it(
    #[case] answer: Reply,
    #[case] expected: &str,
) {
    let server = FakeServer::start(move |_| answer.clone()).await;
    let error = server
        .connect()
        .await
        .encryption(&secret(OLD))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(expected) && !error.contains("secret-in-a-body"),
        "{error}"
    );
}

#[tokio::test]
async fn the_clock_is_read_without_a_credential() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let server = FakeServer::start(move |_| Reply::Response(200, vec![("date", date.into())], "pong".into())).await;
    let supervisor = server.connect().await;
    let (one, other) = (supervisor.clock().await.unwrap(), supervisor.clock().await.unwrap());
    assert!(one.ahead().as_hours() < -200_000, "{one:?}");
    assert!(one.difference(&other).0.is_zero());
    let requests = server.recorded();
    assert!(
        requests
            .iter()
            .all(|request| request.target == "GET /ping" && !request.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn snapshots_are_saved_and_deleted_by_name() {
    let server = FakeServer::start(|request| {
        let field = if request.body.contains("save") {
            "created"
        } else {
            "deleted"
        };
        reply(200, format!(r#"{{"{field}":["run-1-s1-1700000000"]}}"#))
    })
    .await;
    let supervisor = server.connect().await;
    let created = supervisor.save_snapshot(&secret(OLD), "run-1").await.unwrap();
    assert_eq!(created, ["run-1-s1-1700000000"]);
    assert_eq!(
        supervisor.delete_snapshots(&secret(OLD), &[&created[0]]).await.unwrap(),
        created
    );
    let bodies: Vec<_> = server
        .recorded()
        .into_iter()
        .map(|request| (request.target, request.body))
        .collect();
    let body = |text: &str| ("POST /db/snapshot".to_owned(), text.to_owned());
    assert_eq!(
        bodies,
        [
            body(r#"{"name":["run-1"],"operation":"save"}"#),
            body(r#"{"name":["run-1-s1-1700000000"],"operation":"delete"}"#)
        ]
    );
}

#[tokio::test]
async fn without_etcd_a_snapshot_is_refused() {
    let status = r#"{"kind":"Status","message":"etcd datastore disabled","code":400}"#;
    let server = FakeServer::start(move |_| reply(400, status)).await;
    let error = server
        .connect()
        .await
        .save_snapshot(&secret(OLD), "run-1")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(400));
    assert!(error.to_string().ends_with(": etcd datastore disabled"), "{error}");
}
