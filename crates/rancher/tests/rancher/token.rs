use client::secret::Secret;
use rancher::token::{self, RegistrationToken, Tokens, Unknown};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{SYSTEM_P, SYSTEM_S, Server, fixture, id, list_of, status, token_of};

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
    server.seen();
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
async fn a_token_of_era_p_has_its_value_in_the_status() {
    let server = Server::new().on(
        "GET",
        "/apis/management.cattle.io/v3/namespaces/c-sqqnm/clusterregistrationtokens/system",
        200,
        &token_of("tokens-plain", "system"),
    );
    let token = token::get(&server.client(), &id("c-sqqnm"), token::SYSTEM)
        .await
        .unwrap()
        .unwrap();
    server.only();
    assert_eq!(token.value, Ok(Secret::new(SYSTEM_P)));
    assert_eq!(token.object.uid, "226fc945-df96-4ff0-bfa7-e0879aa64925");
    assert_eq!(token.object.resource_version, "1493");
    assert_eq!(token.created.unwrap().to_string(), "2026-11-22T05:21:06Z");
    assert_eq!(token.labels["cattle.io/creator"], "norman");
    assert_eq!(token.cluster(), Some(id("c-sqqnm")));
    assert_eq!(token.expires_at(), None);
    assert_eq!((&token.secret_name, &token.leftover), (&None, &None));
    assert!(token.has_commands);
    assert_eq!(token.problems, []);
}

#[tokio::test]
async fn a_token_of_era_s_has_its_value_in_its_secret() {
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
    server.seen();
    assert_eq!(token.value, Ok(Secret::new(SYSTEM_S)));
    assert_eq!(token.previous(), None);
    assert_eq!(token.expires_at().unwrap().to_string(), "2026-12-22T18:21:21Z");
    assert_eq!(token.grace_ends_at(), None);
    let secret = token.secret.unwrap();
    assert_eq!(secret.object.uid, "cd9bc9fb-58c1-43d5-84cb-65cd5cf3ebdd");
    assert_eq!(secret.owner.as_deref(), Some(token.object.uid.as_str()));
}

#[tokio::test]
async fn a_token_that_is_not_there_is_none() {
    let server = Server::new().on("GET", &format!("{TOKENS}/system"), 404, &status(404, "NotFound", "no"));
    assert!(
        token::get(&server.client(), &id("c-gsrbc"), token::SYSTEM)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn the_tokens_of_a_cluster_meet_their_secrets_and_an_orphan_is_left_over() {
    let mut orphan = fixture("token-secret");
    orphan["metadata"]["name"] = json!("crt-token-crt-abcde");
    let other =
        json!({ "metadata": { "name": "something-else", "namespace": "c-gsrbc" }, "data": { "token": "eA==" } });
    let found = list(
        &[token_of("tokens-secret", "default-token"), system()],
        &[orphan, fixture("token-secret"), other],
    )
    .await;
    assert_eq!(found.named("system").unwrap().value, Ok(Secret::new(SYSTEM_S)));
    assert_eq!(found.named("default-token").unwrap().value, Err(Unknown::NoSecret));
    assert_eq!(found.orphans.len(), 1);
    assert_eq!(found.orphans[0].token_name(), "crt-abcde");
    assert!(!found.orphans_unknown);
}

#[tokio::test]
async fn in_a_grace_time_there_are_two_values_and_the_status_says_when_it_ends() {
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
async fn a_value_that_was_left_in_the_status_in_era_s_is_told_apart() {
    let mut token = system();
    token["status"]["token"] = json!("set-by-hand");
    let found = list(&[token], &[fixture("token-secret")]).await;
    assert_eq!(found.tokens[0].leftover, Some(Secret::new("set-by-hand")));
    assert_eq!(found.tokens[0].value, Ok(Secret::new(SYSTEM_S)));
}

#[tokio::test]
async fn who_may_read_single_secrets_gets_the_values_but_no_orphans() {
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
    server.seen();
    assert_eq!(found.tokens[0].value, Ok(Secret::new(SYSTEM_S)));
    assert!(found.orphans_unknown);
}

#[tokio::test]
async fn without_any_right_on_secrets_values_are_unknown_and_nothing_fails() {
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
    assert_eq!(found.tokens[0].value, Err(Unknown::NoRight));
    assert_eq!(
        found.tokens[0].expires_at().unwrap().to_string(),
        "2026-12-22T18:21:21Z",
        "from the status' copy"
    );
    assert!(found.orphans_unknown);
}

#[rstest]
#[case::no_status(json!({ "spec": { "clusterName": "c-gsrbc" } }), Unknown::NotYet)]
#[case::null_status(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": null }), Unknown::NotYet)]
#[case::empty_token(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": { "token": "" } }), Unknown::NotYet)]
#[case::number_as_token(json!({ "spec": { "clusterName": "c-gsrbc" }, "status": { "token": 7 } }), Unknown::Malformed)]
#[tokio::test]
async fn a_token_without_a_value_says_why(#[case] mut object: Value, #[case] why: Unknown) {
    object["metadata"] = json!({ "name": "system", "namespace": "c-gsrbc" });
    let found = list(&[object], &[]).await;
    assert_eq!(found.tokens[0].value, Err(why));
    assert_eq!(found.tokens[0].object.name, "system");
}

#[rstest]
#[case::no_data(json!(null), Unknown::NotYet, &[])]
#[case::empty(json!({ "token": "" }), Unknown::NotYet, &[])]
#[case::not_base64(json!({ "token": "***" }), Unknown::Malformed, &["data.token is not base64"])]
#[case::not_text(json!({ "token": "/w==" }), Unknown::Malformed, &["data.token is not text"])]
#[case::not_even_a_string(json!({ "token": { "a": 1 } }), Unknown::Malformed, &["the object has a field of the wrong type"])]
#[tokio::test]
async fn a_secret_that_makes_no_sense_is_said_and_not_repeated(
    #[case] data: Value,
    #[case] why: Unknown,
    #[case] said: &[&str],
) {
    let found = list(&[system()], &[secret(data)]).await;
    assert_eq!(found.tokens[0].value, Err(why));
    assert_eq!(problems(&found.tokens[0]), said);
}

#[tokio::test]
async fn times_that_are_none_are_said() {
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
        "the value is good all the same"
    );
}

#[tokio::test]
async fn a_token_in_the_namespace_of_another_cluster_is_said() {
    let mut token = system();
    token["spec"]["clusterName"] = json!("c-other");
    let found = list(&[token], &[fixture("token-secret")]).await;
    assert_eq!(
        problems(&found.tokens[0]),
        ["spec.clusterName is not the namespace that it stands in"]
    );
}

#[tokio::test]
async fn no_debug_output_shows_a_value() {
    let mut token = system();
    token["status"]["token"] = json!("leftover-in-clear");
    let data = json!({ "token": "bmV3LXRva2Vu", "previousToken": "b2xkLXRva2Vu" });
    let shown = format!("{:?}", list(&[token], &[secret(data)]).await);
    for value in ["new-token", "old-token", "leftover-in-clear", "bmV3LXRva2Vu"] {
        assert!(!shown.contains(value), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_inside_a_token_does_not_repeat_it() {
    let text = format!(r#"{{"metadata":{{"name":"system"}},"status":{{"token":"{SYSTEM_P}"}},"spec":"{SYSTEM_P}"}}"#);
    let server = Server::new().on_text("GET", &format!("{TOKENS}/system"), 200, &[], text);
    let error = token::get(&server.client(), &id("c-gsrbc"), "system")
        .await
        .unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("makes no sense at line 1") && !said.contains(SYSTEM_P),
        "{said}"
    );
}
