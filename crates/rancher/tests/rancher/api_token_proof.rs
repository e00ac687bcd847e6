//! Answers as seen on Rancher 2.15.0 and 2.12.0, to the letter.

use std::time::Duration;

use client::secret::Secret;
use rancher::api_token::bearing;
use rancher::api_token::proof::{Standing, alone, classify, through_proxy};
use rstest::rstest;
use serde_json::json;

use crate::support::{Server, id, status};

const PATIENCE: Duration = Duration::from_secs(5);

fn proxy_refusal(user: &str) -> String {
    format!(
        r#"{{"Code":{{"Code":"Forbidden","Status":403}},"Message":"clusters.management.cattle.io \"c-abcde\" is forbidden: User \"{user}\" cannot get resource \"clusters\" in API group \"management.cattle.io\" at the cluster scope","Cause":null,"FieldName":""}}"#
    )
}

#[rstest]
#[case::dead(403, &proxy_refusal("system:unauthenticated"), "dead")]
#[case::dead_under_v3(
    401,
    r#"{"type":"error","status":"401","message":"Unauthorized 401: must authenticate"}"#,
    "dead"
)]
#[case::dead_at_local(
    401,
    r#"{"kind":"Status","status":"Failure","message":"Unauthorized","code":401}"#,
    "dead"
)]
#[case::not_a_member(403, &proxy_refusal("u-7h2kc"), "not-a-member")]
#[case::not_a_member_at_local(403, "", "not-a-member")]
#[case::not_a_member_under_v3(
    403,
    r#"{"type":"error","status":403,"code":"PermissionDenied","message":"no"}"#,
    "not-a-member"
)]
#[case::downstream(403, r#"{"kind":"Status","status":"Failure","message":"nodes is forbidden: User \"u-7h2kc\" cannot list","reason":"Forbidden","code":403}"#, "no-downstream-right")]
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
#[case::other_404(404, "404 page not found", "odd")]
#[case::other_403(403, "<html>go away</html>", "odd")]
#[case::redirect(302, "", "odd")]
#[case::works(200, r#"{"major":"1","gitVersion":"v1.36.3"}"#, "works")]
fn each_answer_means_one_thing(#[case] code: u16, #[case] body: &str, #[case] expected: &str) {
    let standing = classify(code, body.as_bytes());
    assert_eq!(standing.word(), expected, "{standing:?}");
    assert_eq!(standing.is_dead(), expected == "dead");
}

#[test]
fn the_owner_is_read_off_the_refusal() {
    let standing = classify(403, proxy_refusal("u-7h2kc").as_bytes());
    assert_eq!(standing.to_string(), "its owner u-7h2kc is not a member of the cluster");
    assert!(standing.is_alive());
}

#[test]
fn an_answer_that_is_quoted_loses_its_credentials() {
    let token = "token-x7k2p:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";
    let shown = classify(500, format!("what is {token}?").as_bytes()).to_string();
    assert!(!shown.contains("dk6nhzh5"), "{shown}");
}

#[tokio::test]
async fn a_token_is_proven_alone_and_through_the_proxy() {
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
    assert!(alone(&client, &id("c-abcde"), PATIENCE).await.works());
    let through = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(through.to_string(), "a call with it was answered (Kubernetes v1.36.3)");
    assert!(
        server
            .seen()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer token-x7k2p:abc")
    );
}

/// As Rancher 2.15.0 redirects at its own cluster; the token is for that cluster alone, or for all.
#[rstest]
#[case::refused_there(401, "redirected")]
#[case::accepted_there(200, "works")]
#[tokio::test]
async fn a_redirect_out_of_the_scope_of_a_token_is_followed(#[case] code: u16, #[case] expected: &str) {
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
    let standing = through_proxy(&server.client(), &id("local"), PATIENCE).await;
    assert_eq!(standing.word(), expected, "{standing}");
    assert!(standing.is_alive(), "nothing is said against the token itself");
    server.seen();
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let away = [("location", "https://elsewhere.example.com/api/")];
    let server = Server::new()
        .on("GET", "/k8s/clusters/local/version", 200, &json!({}))
        .on_text("GET", "/k8s/clusters/local/api", 307, &away, "");
    let standing = through_proxy(&server.client(), &id("local"), PATIENCE).await;
    assert_eq!(standing.word(), "redirected");
    server.seen();
}

#[tokio::test]
async fn a_dead_token_is_dead_alone_and_through_the_proxy() {
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
            proxy_refusal("system:unauthenticated"),
        );
    let client = server.client();
    assert!(alone(&client, &id("c-abcde"), PATIENCE).await.is_dead());
    assert!(through_proxy(&client, &id("c-abcde"), PATIENCE).await.is_dead());
    server.seen();
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_not_waited_for_without_end() {
    let (service, mut handle) =
        tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
    tokio::spawn(async move {
        let _held = handle.next_request().await;
        std::future::pending::<()>().await;
    });
    let client = kube::Client::new(service, "default");
    let standing = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert!(
        matches!(standing, Standing::NoAnswer { within } if within == PATIENCE),
        "{standing:?}"
    );
    assert!(!standing.is_dead() && !standing.is_alive());
}

#[tokio::test]
async fn a_rancher_that_is_away_says_nothing_of_the_token() {
    let server = Server::new().on_cut("GET", "/v3/clusters/c-abcde").on(
        "GET",
        "/k8s/clusters/c-abcde/version",
        403,
        &status(403, "Forbidden", "no"),
    );
    let client = server.client();
    let standing = alone(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(standing.word(), "unreachable");
    let standing = through_proxy(&client, &id("c-abcde"), PATIENCE).await;
    assert_eq!(standing.to_string(), "the cluster refuses its owner: no");
}
