//! Responses exactly as seen on Rancher 2.15.0 and 2.12.0.

use std::time::Duration;

use client::secret::Secret;
use rancher::api_token::bearing;
use rancher::api_token::proof::{CallResult, alone, classify, through_proxy};
use rstest::rstest;
use serde_json::json;

use crate::support::{Server, id, status};

const PATIENCE: Duration = Duration::from_secs(5);

fn proxy_error(user: &str) -> String {
    format!(
        r#"{{"Code":{{"Code":"Forbidden","Status":403}},"Message":"clusters.management.cattle.io \"c-abcde\" is forbidden: User \"{user}\" cannot get resource \"clusters\" in API group \"management.cattle.io\" at the cluster scope","Cause":null,"FieldName":""}}"#
    )
}

#[rstest]
#[case::rejected(403, &proxy_error("system:unauthenticated"), "rejected")]
#[case::rejected_under_v3(
    401,
    r#"{"type":"error","status":"401","message":"Unauthorized 401: must authenticate"}"#,
    "rejected"
)]
#[case::rejected_at_local(
    401,
    r#"{"kind":"Status","status":"Failure","message":"Unauthorized","code":401}"#,
    "rejected"
)]
#[case::not_a_member(403, &proxy_error("u-7h2kc"), "not-a-member")]
#[case::not_a_member_at_local(403, "", "not-a-member")]
#[case::not_a_member_under_v3(
    403,
    r#"{"type":"error","status":403,"code":"PermissionDenied","message":"no"}"#,
    "not-a-member"
)]
#[case::downstream(403, r#"{"kind":"Status","status":"Failure","message":"nodes is forbidden: User \"u-7h2kc\" cannot list","reason":"Forbidden","code":403}"#, "no-downstream-permission")]
#[case::gone(
    404,
    r#"{"Code":{"Code":"NotFound","Status":404},"Message":"clusters.management.cattle.io \"c-x\" not found"}"#,
    "cluster-gone"
)]
#[case::gone_under_v3(
    404,
    r#"{"type":"error","status":404,"code":"NotFound","message":"not found"}"#,
    "cluster-gone"
)]
#[case::offline(500, "error trying to reach service: cluster agent disconnected", "agent-offline")]
#[case::never_connected(
    503,
    r#"{"Code":{"Code":"ClusterUnavailable","Status":503},"Message":"cluster not found"}"#,
    "agent-offline"
)]
#[case::other_failure(500, "unable to create impersonator account", "unavailable")]
#[case::gateway(502, "<html>bad gateway</html>", "unavailable")]
#[case::other_404(404, "404 page not found", "unexpected")]
#[case::other_403(403, "<html>go away</html>", "unexpected")]
#[case::redirect(302, "", "unexpected")]
#[case::accepted(200, r#"{"major":"1","gitVersion":"v1.36.3"}"#, "accepted")]
fn every_response_has_one_result(#[case] code: u16, #[case] body: &str, #[case] expected: &str) {
    let result = classify(code, body.as_bytes());
    assert_eq!(result.word(), expected, "{result:?}");
    assert_eq!(result.is_rejected(), expected == "rejected");
}

#[test]
fn the_owner_is_read_from_the_error() {
    let result = classify(403, proxy_error("u-7h2kc").as_bytes());
    assert_eq!(result.to_string(), "its owner u-7h2kc is not a member of the cluster");
    assert!(result.is_valid());
}

#[test]
fn a_quoted_response_is_redacted() {
    let token = "token-x7k2p:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";
    let quoted = classify(500, format!("what is {token}?").as_bytes()).to_string();
    assert!(!quoted.contains("dk6nhzh5"), "{quoted}");
}

#[tokio::test]
async fn a_token_is_verified_alone_and_through_the_proxy() {
    let server = Server::new()
        .on("GET", "/v3/clusters/c-abcde", 200, &json!({"id": "c-abcde"}))
        .on(
            "GET",
            "/k8s/clusters/c-abcde/version",
            200,
            &json!({"gitVersion": "v1.36.3"}),
        )
        .on("GET", "/k8s/clusters/c-abcde/api", 200, &json!({"kind": "APIVersions"}))
        .on(
            "GET",
            "/k8s/clusters/c-abcde/apis",
            200,
            &json!({"kind": "APIGroupList"}),
        );
    let client = bearing(&server.client(), &Secret::new("token-x7k2p:abc")).unwrap();
    assert!(alone(&client, &id("c-abcde"), PATIENCE).await.is_accepted());
    let through = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(through.to_string(), "a call with it succeeded (Kubernetes v1.36.3)");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer token-x7k2p:abc")
    );
}

/// As Rancher 2.15.0 redirects at its own cluster. The token is scoped to that cluster, or has no scope.
#[rstest]
#[case::rejected_there(401, "redirected")]
#[case::accepted_there(200, "accepted")]
#[tokio::test]
async fn a_redirect_out_of_a_tokens_scope_is_followed(#[case] code: u16, #[case] expected: &str) {
    let to = |place| [("location", place)];
    let server = Server::new()
        .on(
            "GET",
            "/k8s/clusters/local/version",
            200,
            &json!({"gitVersion": "v1.36.3"}),
        )
        .on_text("GET", "/k8s/clusters/local/api", 307, &to("/api/"), "")
        .on("GET", "/api/", code, &json!({}));
    let server = match code {
        200 => server
            .on_text("GET", "/k8s/clusters/local/apis", 307, &to("/apis/"), "")
            .on("GET", "/apis/", code, &json!({})),
        _ => server,
    };
    let result = through_proxy(&server.client(), &id("local"), PATIENCE).await;
    assert_eq!(result.word(), expected, "{result}");
    assert!(result.is_valid(), "the token itself is valid");
    server.requests();
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let elsewhere = [("location", "https://elsewhere.example.com/api/")];
    let server = Server::new()
        .on("GET", "/k8s/clusters/local/version", 200, &json!({}))
        .on_text("GET", "/k8s/clusters/local/api", 307, &elsewhere, "");
    let result = through_proxy(&server.client(), &id("local"), PATIENCE).await;
    assert_eq!(result.word(), "redirected");
    server.requests();
}

#[tokio::test]
async fn a_revoked_token_is_rejected_alone_and_through_the_proxy() {
    let server = Server::new()
        .on(
            "GET",
            "/v3/clusters/c-abcde",
            401,
            &json!({"type": "error", "status": "401", "message": "must authenticate"}),
        )
        .on_text(
            "GET",
            "/k8s/clusters/c-abcde/version",
            403,
            &[],
            proxy_error("system:unauthenticated"),
        );
    let client = server.client();
    assert!(alone(&client, &id("c-abcde"), PATIENCE).await.is_rejected());
    assert!(through_proxy(&client, &id("c-abcde"), PATIENCE).await.is_rejected());
    server.requests();
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_response_times_out() {
    let (service, mut handle) =
        tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
    tokio::spawn(async move {
        let _held = handle.next_request().await;
        std::future::pending::<()>().await;
    });
    let client = kube::Client::new(service, "default");
    let result = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert!(
        matches!(result, CallResult::NoAnswer { within } if within == PATIENCE),
        "{result:?}"
    );
    assert!(!result.is_rejected() && !result.is_valid());
}

#[tokio::test]
async fn an_unreachable_rancher_says_nothing_about_the_token() {
    let server = Server::new().on_cut("GET", "/v3/clusters/c-abcde").on(
        "GET",
        "/k8s/clusters/c-abcde/version",
        403,
        &status(403, "Forbidden", "no"),
    );
    let client = server.client();
    let result = alone(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(result.word(), "unreachable");
    let result = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(result.to_string(), "its owner lacks a permission in the cluster: no");
}
