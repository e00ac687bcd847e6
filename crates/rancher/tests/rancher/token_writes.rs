use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use rancher::Error;
use rancher::token::{self, Change, NewToken, SecretChange, StatusChange};
use serde_json::{Value, json};

use crate::support::{SYSTEM_P, Server, fixture, id, observed, status, token_of, write};

const TOKENS: &str = "/apis/management.cattle.io/v3/namespaces/c-gsrbc/clusterregistrationtokens";
const SECRETS: &str = "/api/v1/namespaces/c-gsrbc/secrets";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn precondition() -> Value {
    json!({ "uid": "7-of-9", "resourceVersion": "42" })
}

#[tokio::test]
async fn a_token_is_created_with_its_value_in_one_shot() {
    let server = Server::new().on(
        "POST",
        &format!("{TOKENS}?fieldManager=kubectl-crt"),
        201,
        &token_of("tokens-plain", "system"),
    );
    let new = NewToken {
        name: "zz-bridge".to_owned(),
        value: Some(Secret::new(SYSTEM_P)),
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
            "metadata": { "name": "zz-bridge", "namespace": "c-gsrbc", "labels": { "example.com/run": "r1" } },
            "spec": { "clusterName": "c-gsrbc" },
            "status": { "token": SYSTEM_P },
        })
    );
}

#[tokio::test]
async fn a_token_that_is_there_already_is_told_from_one_that_has_changed() {
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
    assert_eq!(server.only().body.get("status"), None, "Rancher is to choose the value");
}

#[tokio::test]
async fn in_era_p_another_value_is_one_patch_of_the_status() {
    let server = Server::new().on(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        200,
        &token_of("tokens-plain", "system"),
    );
    let seen = observed("c-gsrbc", "system");
    let after = token::set_plain_value(&server.client(), &seen, &Secret::new("new"), &write())
        .await
        .unwrap();
    assert_eq!(
        after.current(),
        Some(&Secret::new(SYSTEM_P)),
        "what the server says it is now"
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
    let seen = observed("c-gsrbc", "system");
    for blank in ["", " ", "\n"].map(Secret::new) {
        let set = token::set_plain_value(&client, &seen, &blank, &write()).await;
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
            let changed = token::change_secret(&client, &seen, &change, &write()).await;
            assert!(matches!(changed, Err(Error::BlankToken)));
        }
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn in_era_s_all_keys_of_the_secret_change_in_one_write() {
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
async fn removing_keys_leaves_the_others_alone() {
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
async fn the_copies_in_the_status_are_written_and_removed() {
    let target = format!("{TOKENS}/system?fieldManager=kubectl-crt");
    let answer = token_of("tokens-secret", "system");
    let server = Server::new()
        .on("PATCH", &target, 200, &answer)
        .on("PATCH", &target, 200, &answer);
    let client = server.client();
    let seen = observed("c-gsrbc", "system");
    let put = StatusChange {
        grace_ends_at: Change::Set(at("2026-11-29T05:00:00Z")),
        ..StatusChange::default()
    };
    let after = token::change_status(&client, &seen, &put, &write()).await.unwrap();
    assert_eq!(after.status_expires_at, Some(at("2026-12-22T18:21:21Z")));
    let clear = StatusChange {
        expires_at: Change::Remove,
        grace_ends_at: Change::Remove,
        remove_leftover: true,
    };
    token::change_status(&client, &seen, &clear, &write()).await.unwrap();
    let bodies: Vec<Value> = server
        .seen()
        .into_iter()
        .map(|request| request.body["status"].clone())
        .collect();
    assert_eq!(
        bodies,
        [
            json!({ "gracePeriodExpiresAt": "2026-11-29T05:00:00Z" }),
            json!({ "expiresAt": null, "gracePeriodExpiresAt": null, "token": null }),
        ]
    );
}

#[tokio::test]
async fn only_the_object_that_was_seen_is_deleted() {
    let server = Server::new()
        .on(
            "DELETE",
            &format!("{TOKENS}/zz-bridge"),
            200,
            &json!({ "kind": "Status", "status": "Success" }),
        )
        .on(
            "DELETE",
            &format!("{SECRETS}/crt-token-x"),
            200,
            &json!({ "kind": "Status", "status": "Success" }),
        );
    let client = server.client();
    token::delete(&client, &observed("c-gsrbc", "zz-bridge"), &write())
        .await
        .unwrap();
    token::delete_secret(&client, &observed("c-gsrbc", "crt-token-x"), &write().dry_run(true))
        .await
        .unwrap();
    let bodies: Vec<Value> = server.seen().into_iter().map(|request| request.body).collect();
    let preconditions = json!({ "resourceVersion": "42", "uid": "7-of-9" });
    assert_eq!(bodies[0], json!({ "preconditions": preconditions }));
    assert_eq!(bodies[1], json!({ "preconditions": preconditions, "dryRun": ["All"] }));
}

#[tokio::test]
async fn what_is_gone_already_need_not_be_deleted() {
    let server = Server::new().on(
        "DELETE",
        &format!("{TOKENS}/zz-bridge"),
        404,
        &status(404, "NotFound", "no"),
    );
    token::delete(&server.client(), &observed("c-gsrbc", "zz-bridge"), &write())
        .await
        .unwrap();
}

#[tokio::test]
async fn another_object_of_the_same_name_is_not_deleted() {
    let server = Server::new().on(
        "DELETE",
        &format!("{TOKENS}/zz-bridge"),
        409,
        &status(
            409,
            "Conflict",
            "Precondition failed: UID in precondition: 7-of-9, UID in object meta: other",
        ),
    );
    let error = token::delete(&server.client(), &observed("c-gsrbc", "zz-bridge"), &write())
        .await
        .unwrap_err();
    assert!(error.is_conflict());
}

#[tokio::test]
async fn a_server_that_repeats_the_token_in_its_refusal_is_not_quoted() {
    let message = format!(r#"admission webhook "x" denied the request: invalid value "{SYSTEM_P}""#);
    let mut refusal = status(422, "Invalid", &message);
    refusal["details"] = json!({ "causes": [{ "field": "status.token", "message": message }] });
    let server = Server::new().on(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        422,
        &refusal,
    );
    let token = Secret::new(SYSTEM_P);
    let error = token::set_plain_value(&server.client(), &observed("c-gsrbc", "system"), &token, &write())
        .await
        .unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("denied the request") && !said.contains(SYSTEM_P),
        "{said}"
    );
}

#[tokio::test]
async fn a_proxys_page_is_kept_short_and_clean() {
    let page = format!("<html>{SYSTEM_P} {}</html>", "x ".repeat(10_000));
    let server = Server::new().on_text(
        "PATCH",
        &format!("{TOKENS}/system?fieldManager=kubectl-crt"),
        502,
        &[],
        page,
    );
    let token = Secret::new(SYSTEM_P);
    let error = token::set_plain_value(&server.client(), &observed("c-gsrbc", "system"), &token, &write())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(502));
    let said = format!("{error:?}");
    assert!(said.len() < 1500 && !said.contains(SYSTEM_P), "{said}");
}
