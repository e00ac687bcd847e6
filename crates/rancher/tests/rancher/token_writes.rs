use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::Error;
use rancher::token::{self, Change, NewToken, SecretChange};
use serde_json::{Value, json};

use crate::support::{STATUS_TOKEN, Server, fixture, id, observed, status, token_of, write};

const TOKENS: &str = "/apis/management.cattle.io/v3/namespaces/c-gsrbc/clusterregistrationtokens";
const SECRETS: &str = "/api/v1/namespaces/c-gsrbc/secrets";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn precondition() -> Value {
    json!({ "uid": "7-of-9", "resourceVersion": "42" })
}

#[tokio::test]
async fn a_token_is_created_with_its_value() {
    let server = Server::new().on(
        "POST",
        &format!("{TOKENS}?fieldManager=kubectl-crt"),
        201,
        &token_of("tokens-status", "system"),
    );
    let new = NewToken {
        name: "zz-temporary".to_owned(),
        value: Some(Secret::new(STATUS_TOKEN)),
        labels: [("example.com/run".to_owned(), "r1".to_owned())].into(),
        ..NewToken::default()
    };
    token::create(&server.client(), &id("c-gsrbc"), &new, &write())
        .await
        .unwrap();
    assert_eq!(
        server.only().body,
        json!({
            "apiVersion": "management.cattle.io/v3",
            "kind": "ClusterRegistrationToken",
            "metadata": { "name": "zz-temporary", "namespace": "c-gsrbc", "labels": { "example.com/run": "r1" } },
            "spec": { "clusterName": "c-gsrbc" },
            "status": { "token": STATUS_TOKEN },
        })
    );
}

#[tokio::test]
async fn an_existing_token_is_recognized() {
    let server = Server::new().on(
        "POST",
        &format!("{TOKENS}?dryRun=All&fieldManager=kubectl-crt"),
        409,
        &status(409, "AlreadyExists", "exists"),
    );
    let new = NewToken {
        name: "system".to_owned(),
        ..NewToken::default()
    };
    let error = token::create(&server.client(), &id("c-gsrbc"), &new, &write().dry_run(true))
        .await
        .unwrap_err();
    assert!(error.is_already_exists());
    assert_eq!(server.only().body.get("status"), None, "Rancher chooses the value");
}

#[tokio::test]
async fn with_storage_status_a_value_is_set_in_the_status() {
    let server = Server::new().on(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        200,
        &token_of("tokens-status", "system"),
    );
    let observed = observed("c-gsrbc", "system");
    let after = token::set_status_value(&server.client(), &observed, &Secret::new("new"), &write())
        .await
        .unwrap();
    assert_eq!(
        after.current(),
        Some(&Secret::new(STATUS_TOKEN)),
        "the value of the response"
    );
    let request = server.only();
    assert_eq!(request.headers["content-type"], "application/merge-patch+json");
    assert_eq!(
        request.body,
        json!({ "metadata": precondition(), "status": { "token": "new" } })
    );
}

#[tokio::test]
async fn a_blank_token_is_never_sent() {
    let server = Server::new();
    let client = server.client();
    let observed = observed("c-gsrbc", "system");
    for blank in ["", " ", "\n"].map(Secret::new) {
        let set = token::set_status_value(&client, &observed, &blank, &write()).await;
        let new = NewToken {
            name: "x".to_owned(),
            value: Some(blank.clone()),
            ..NewToken::default()
        };
        let created = token::create(&client, &id("c-gsrbc"), &new, &write()).await;
        assert!(matches!(
            (set, created),
            (Err(Error::BlankToken), Err(Error::BlankToken))
        ));
        for change in [
            SecretChange {
                current: Some(blank.clone()),
                ..SecretChange::default()
            },
            SecretChange {
                previous: Change::Set(blank),
                ..SecretChange::default()
            },
        ] {
            let changed = token::change_secret(&client, &observed, &change, &write()).await;
            assert!(matches!(changed, Err(Error::BlankToken)));
        }
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn with_storage_secret_all_keys_change_in_one_write() {
    let server = Server::new().on(
        "PATCH",
        &format!("{SECRETS}/crt-token-system?fieldManager=kubectl-crt"),
        200,
        &fixture("token-secret"),
    );
    let change = SecretChange {
        current: Some(Secret::new("new")),
        previous: Change::Set(Secret::new("old")),
        expires_at: Change::Set(at("2026-12-22T18:21:21.987Z")),
        grace_ends_at: Change::Set(at("2026-11-29T05:00:00Z")),
    };
    token::change_secret(
        &server.client(),
        &observed("c-gsrbc", "crt-token-system"),
        &change,
        &write(),
    )
    .await
    .unwrap();
    assert_eq!(
        server.only().body,
        json!({
            "metadata": precondition(),
            "data": {
                "token": "bmV3",
                "previousToken": "b2xk",
                "expiresAt": "MjAyNi0xMi0yMlQxODoyMToyMVo=",
                "gracePeriodExpiresAt": "MjAyNi0xMS0yOVQwNTowMDowMFo=",
            },
        })
    );
}

#[tokio::test]
async fn removing_keys_keeps_the_others() {
    let server = Server::new().on(
        "PATCH",
        &format!("{SECRETS}/crt-token-system?dryRun=All&fieldManager=kubectl-crt"),
        200,
        &fixture("token-secret"),
    );
    let change = SecretChange {
        previous: Change::Remove,
        grace_ends_at: Change::Remove,
        ..SecretChange::default()
    };
    let secret = observed("c-gsrbc", "crt-token-system");
    token::change_secret(&server.client(), &secret, &change, &write().dry_run(true))
        .await
        .unwrap();
    assert_eq!(
        server.only().body["data"],
        json!({ "previousToken": null, "gracePeriodExpiresAt": null })
    );
}

#[tokio::test]
async fn the_grace_period_in_the_status_is_set_and_removed() {
    let target = format!("{TOKENS}/system?fieldManager=kubectl-crt");
    let response = token_of("tokens-secret", "system");
    let server = Server::new()
        .on("PATCH", &target, 200, &response)
        .on("PATCH", &target, 200, &response);
    let client = server.client();
    let observed = observed("c-gsrbc", "system");
    for change in [Change::Set(at("2026-11-29T05:00:00Z")), Change::Remove] {
        let after = token::change_status_grace(&client, &observed, &change, &write()).await;
        assert_eq!(after.unwrap().status_expires_at, Some(at("2026-12-22T18:21:21Z")));
    }
    let bodies: Vec<Value> = server
        .requests()
        .into_iter()
        .map(|request| request.body["status"].clone())
        .collect();
    assert_eq!(
        bodies,
        [
            json!({ "gracePeriodExpiresAt": "2026-11-29T05:00:00Z" }),
            json!({ "gracePeriodExpiresAt": null }),
        ]
    );
}

#[tokio::test]
async fn a_token_is_deleted_with_a_precondition() {
    let server = Server::new().on(
        "DELETE",
        &format!("{TOKENS}/zz-temporary"),
        200,
        &json!({ "kind": "Status", "status": "Success" }),
    );
    let write = write().dry_run(true);
    token::delete(&server.client(), &observed("c-gsrbc", "zz-temporary"), &write)
        .await
        .unwrap();
    assert_eq!(
        server.only().body,
        json!({ "preconditions": { "resourceVersion": "42", "uid": "7-of-9" }, "dryRun": ["All"] })
    );
}

#[tokio::test]
async fn deleting_a_missing_token_succeeds() {
    let server = Server::new().on(
        "DELETE",
        &format!("{TOKENS}/zz-temporary"),
        404,
        &status(404, "NotFound", "no"),
    );
    token::delete(&server.client(), &observed("c-gsrbc", "zz-temporary"), &write())
        .await
        .unwrap();
}

#[tokio::test]
async fn another_token_of_the_same_name_is_not_deleted() {
    let server = Server::new().on(
        "DELETE",
        &format!("{TOKENS}/zz-temporary"),
        409,
        &status(
            409,
            "Conflict",
            "Precondition failed: UID in precondition: 7-of-9, UID in object meta: other",
        ),
    );
    let error = token::delete(&server.client(), &observed("c-gsrbc", "zz-temporary"), &write())
        .await
        .unwrap_err();
    assert!(error.is_conflict());
}

#[tokio::test]
async fn an_error_that_quotes_the_token_is_redacted() {
    let message = format!(r#"admission webhook "x" denied the request: invalid value "{STATUS_TOKEN}""#);
    let mut error = status(422, "Invalid", &message);
    error["details"] = json!({ "causes": [{ "field": "status.token", "message": message }] });
    let server = Server::new().on(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        422,
        &error,
    );
    let token = Secret::new(STATUS_TOKEN);
    let error = token::set_status_value(&server.client(), &observed("c-gsrbc", "system"), &token, &write())
        .await
        .unwrap_err();
    let printed = format!("{error} {error:?}");
    assert!(
        printed.contains("denied the request") && !printed.contains(STATUS_TOKEN),
        "{printed}"
    );
}

#[tokio::test]
async fn an_error_page_is_shortened_and_redacted() {
    let page = format!("<html>{STATUS_TOKEN} {}</html>", "x ".repeat(10_000));
    let server = Server::new().on_text(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        502,
        &[],
        page,
    );
    let token = Secret::new(STATUS_TOKEN);
    let error = token::set_status_value(&server.client(), &observed("c-gsrbc", "system"), &token, &write())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(502));
    let printed = format!("{error:?}");
    assert!(printed.len() < 1500 && !printed.contains(STATUS_TOKEN), "{printed}");
}
