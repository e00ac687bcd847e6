use client::secret::Secret;
use rancher::token::{self, RegistrationToken, Tokens, ValueError};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{SECRET_TOKEN, STATUS_TOKEN, Server, fixture, id, list_of, status, token_of};

const TOKENS: &str = "/apis/management.cattle.io/v3/namespaces/c-gsrbc/clusterregistrationtokens";
const SECRETS: &str = "/api/v1/namespaces/c-gsrbc/secrets";

fn all(path: &str) -> String {
    match path {
        TOKENS => format!("{TOKENS}?limit=500"),
        _ => format!("{SECRETS}?fieldSelector=type%3DOpaque&limit=500"),
    }
}

async fn list(tokens: &[Value], secrets: &[Value]) -> Tokens {
    let server =
        Server::new()
            .on("GET", &all(TOKENS), 200, &list_of(tokens))
            .on("GET", &all(SECRETS), 200, &list_of(secrets));
    let found = token::list(&server.client(), &id("c-gsrbc")).await.unwrap();
    server.requests();
    found
}

fn problems(token: &RegistrationToken) -> Vec<String> {
    token.problems.iter().map(ToString::to_string).collect()
}

/// The Secret of the token `system`, with other data.
fn secret(data: Value) -> Value {
    let mut secret = fixture("token-secret");
    secret["data"] = data;
    secret
}

fn system() -> Value {
    token_of("tokens-secret", "system")
}

#[tokio::test]
async fn with_storage_status_the_value_is_in_the_status() {
    let server = Server::new().on(
        "GET",
        "/apis/management.cattle.io/v3/namespaces/c-sqqnm/clusterregistrationtokens/system",
        200,
        &token_of("tokens-status", "system"),
    );
    let token = token::get(&server.client(), &id("c-sqqnm"), token::SYSTEM)
        .await
        .unwrap()
        .unwrap();
    server.only();
    assert_eq!(token.value, Ok(Secret::new(STATUS_TOKEN)));
    assert_eq!(token.object.uid, "226fc945-df96-4ff0-bfa7-e0879aa64925");
    assert_eq!(token.object.resource_version, "1493");
    assert_eq!(token.created.unwrap().to_string(), "2026-11-22T05:21:06Z");
    assert_eq!(token.labels["cattle.io/creator"], "norman");
    assert_eq!(token.expires_at(), None);
    assert_eq!(token.secret_name, None);
    assert_eq!(token.problems, []);
}

#[tokio::test]
async fn with_storage_secret_the_value_is_in_the_secret() {
    let server = Server::new().on("GET", &format!("{TOKENS}/system"), 200, &system()).on(
        "GET",
        &format!("{SECRETS}/crt-token-system"),
        200,
        &fixture("token-secret"),
    );
    let token = token::get(&server.client(), &id("c-gsrbc"), token::SYSTEM)
        .await
        .unwrap()
        .unwrap();
    server.requests();
    assert_eq!(token.value, Ok(Secret::new(SECRET_TOKEN)));
    assert_eq!(token.previous(), None);
    assert_eq!(token.expires_at().unwrap().to_string(), "2026-12-22T18:21:21Z");
    assert_eq!(token.grace_ends_at(), None);
    assert_eq!(token.secret.unwrap().object.uid, "cd9bc9fb-58c1-43d5-84cb-65cd5cf3ebdd");
}

#[tokio::test]
async fn a_missing_token_is_none() {
    let server = Server::new().on("GET", &format!("{TOKENS}/system"), 404, &status(404, "NotFound", "no"));
    assert!(
        token::get(&server.client(), &id("c-gsrbc"), token::SYSTEM)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn tokens_are_joined_with_their_secrets_and_orphans_remain() {
    let mut orphan = fixture("token-secret");
    orphan["metadata"]["name"] = json!("crt-token-crt-abcde");
    let other =
        json!({ "metadata": { "name": "something-else", "namespace": "c-gsrbc" }, "data": { "token": "eA==" } });
    let found = list(
        &[token_of("tokens-secret", "default-token"), system()],
        &[orphan, fixture("token-secret"), other],
    )
    .await;
    assert_eq!(found.named("system").unwrap().value, Ok(Secret::new(SECRET_TOKEN)));
    assert_eq!(found.named("default-token").unwrap().value, Err(ValueError::NoSecret));
    assert_eq!(found.orphans.len(), 1);
    assert_eq!(found.orphans[0].object.name, "crt-token-crt-abcde");
    assert!(!found.orphans_unknown);
}

#[tokio::test]
async fn during_a_grace_period_there_are_two_values() {
    let mut token = system();
    token["status"]["gracePeriodExpiresAt"] = json!("2026-11-22T09:00:00Z");
    let data = json!({
        "token": "bmV3LXRva2Vu",
        "previousToken": "b2xkLXRva2Vu",
        "gracePeriodExpiresAt": "MjAyNi0xMS0yMlQwODowMDowMFo=",
    });
    let found = list(&[token], &[secret(data)]).await;
    let token = &found.tokens[0];
    assert_eq!(token.current(), Some(&Secret::new("new-token")));
    assert_eq!(token.previous(), Some(&Secret::new("old-token")));
    assert_eq!(
        token.secret.as_ref().unwrap().grace_ends_at.unwrap().to_string(),
        "2026-11-22T08:00:00Z"
    );
    assert_eq!(token.grace_ends_at().unwrap().to_string(), "2026-11-22T09:00:00Z");
}

#[tokio::test]
async fn with_storage_secret_a_value_in_the_status_is_ignored() {
    let mut token = system();
    token["status"]["token"] = json!("set-by-hand");
    let found = list(&[token], &[fixture("token-secret")]).await;
    assert_eq!(found.tokens[0].value, Ok(Secret::new(SECRET_TOKEN)));
}

#[tokio::test]
async fn with_permission_to_read_single_secrets_values_are_known_and_orphans_are_not() {
    let server = Server::new()
        .on("GET", &all(TOKENS), 200, &list_of(&[system()]))
        .on(
            "GET",
            &all(SECRETS),
            403,
            &status(403, "Forbidden", "secrets is forbidden"),
        )
        .on(
            "GET",
            &format!("{SECRETS}/crt-token-system"),
            200,
            &fixture("token-secret"),
        );
    let found = token::list(&server.client(), &id("c-gsrbc")).await.unwrap();
    server.requests();
    assert_eq!(found.tokens[0].value, Ok(Secret::new(SECRET_TOKEN)));
    assert!(found.orphans_unknown);
}

#[tokio::test]
async fn without_permission_to_read_secrets_values_are_unknown() {
    let server = Server::new()
        .on("GET", &all(TOKENS), 200, &list_of(&[system()]))
        .on(
            "GET",
            &all(SECRETS),
            403,
            &status(403, "Forbidden", "secrets is forbidden"),
        )
        .on_text("GET", &format!("{SECRETS}/crt-token-system"), 403, &[], "");
    let found = token::list(&server.client(), &id("c-gsrbc")).await.unwrap();
    assert_eq!(found.tokens[0].value, Err(ValueError::NoPermission));
    assert_eq!(
        found.tokens[0].expires_at().unwrap().to_string(),
        "2026-12-22T18:21:21Z",
        "from the status' copy"
    );
    assert!(found.orphans_unknown);
}

#[rstest]
#[case::no_status(json!({ "spec": { "clusterName": "c-gsrbc" } }), ValueError::NotYet)]
#[case::null_status(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": null }), ValueError::NotYet)]
#[case::empty_token(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": { "token": "" } }), ValueError::NotYet)]
#[case::number_as_token(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": { "token": 7 } }), ValueError::Malformed)]
#[tokio::test]
async fn a_token_without_a_value_has_a_reason(#[case] mut object: Value, #[case] why: ValueError) {
    object["metadata"] = json!({ "name": "system", "namespace": "c-gsrbc" });
    let found = list(&[object], &[]).await;
    assert_eq!(found.tokens[0].value, Err(why));
    assert_eq!(found.tokens[0].object.name, "system");
}

#[rstest]
#[case::no_data(json!(null), ValueError::NotYet, &[])]
#[case::empty(json!({ "token": "" }), ValueError::NotYet, &[])]
#[case::not_base64(json!({ "token": "***" }), ValueError::Malformed, &["data.token is not base64"])]
#[case::not_text(json!({ "token": "/w==" }), ValueError::Malformed, &["data.token is not text"])]
#[case::not_even_a_string(json!({ "token": { "a": 1 } }), ValueError::Malformed, &["the object has a field of the wrong type"])]
#[tokio::test]
async fn a_malformed_secret_is_reported_and_not_quoted(
    #[case] data: Value,
    #[case] why: ValueError,
    #[case] reported: &[&str],
) {
    let found = list(&[system()], &[secret(data)]).await;
    assert_eq!(found.tokens[0].value, Err(why));
    assert_eq!(problems(&found.tokens[0]), reported);
}

#[tokio::test]
async fn malformed_times_are_reported() {
    let mut token = system();
    token["status"]["expiresAt"] = json!("in a month");
    token["status"]["gracePeriodExpiresAt"] = json!("2026-13-01T00:00:00Z");
    let data = json!({ "token": "eA==", "expiresAt": "c29vbg==" });
    let found = list(&[token], &[secret(data)]).await;
    assert_eq!(found.tokens[0].expires_at(), None);
    assert_eq!(
        problems(&found.tokens[0]),
        [
            "status.expiresAt is not an RFC 3339 time",
            "status.gracePeriodExpiresAt is not an RFC 3339 time",
            "data.expiresAt is not an RFC 3339 time",
        ]
    );
    assert_eq!(
        found.tokens[0].current(),
        Some(&Secret::new("x")),
        "the value is valid all the same"
    );
}

#[tokio::test]
async fn a_token_in_another_clusters_namespace_is_reported() {
    let mut token = system();
    token["spec"]["clusterName"] = json!("c-other");
    let found = list(&[token], &[fixture("token-secret")]).await;
    assert_eq!(
        problems(&found.tokens[0]),
        ["spec.clusterName differs from the namespace"]
    );
}

#[tokio::test]
async fn debug_output_contains_no_value() {
    let mut token = system();
    token["status"]["token"] = json!("leftover-in-clear");
    let data = json!({ "token": "bmV3LXRva2Vu", "previousToken": "b2xkLXRva2Vu" });
    let debug = format!("{:?}", list(&[token], &[secret(data)]).await);
    for value in ["new-token", "old-token", "leftover-in-clear", "bmV3LXRva2Vu"] {
        assert!(!debug.contains(value), "{debug}");
    }
}

#[tokio::test]
async fn a_malformed_response_is_not_quoted() {
    let text =
        format!(r#"{{"metadata":{{"name":"system"}},"status":{{"token":"{STATUS_TOKEN}"}},"spec":"{STATUS_TOKEN}"}}"#);
    let server = Server::new().on_text("GET", &format!("{TOKENS}/system"), 200, &[], text);
    let error = token::get(&server.client(), &id("c-gsrbc"), "system")
        .await
        .unwrap_err();
    let printed = format!("{error} {error:?}");
    assert!(
        printed.contains("malformed response at line 1") && !printed.contains(STATUS_TOKEN),
        "{printed}"
    );
}
