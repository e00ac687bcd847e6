use rancher::TokenStorage;
use rancher::token::{self, RegistrationToken};
use rancher::token_storage;
use serde_json::{Value, json};

use crate::support::{Server, fixture, id, list_of, status};

const FEATURE: &str = "/apis/management.cattle.io/v3/features/crt-token-ttl-rotation";
const TOKENS: &str = "/apis/management.cattle.io/v3/clusterregistrationtokens?limit=500";

async fn tokens(cluster: &str, tokens: &Value, secrets: &[Value]) -> Vec<RegistrationToken> {
    let server = Server::new()
        .on(
            "GET",
            &format!("/apis/management.cattle.io/v3/namespaces/{cluster}/clusterregistrationtokens?limit=500"),
            200,
            tokens,
        )
        .on(
            "GET",
            &format!("/api/v1/namespaces/{cluster}/secrets?fieldSelector=type%3DOpaque&limit=500"),
            200,
            &list_of(secrets),
        );
    token::list(&server.client(), &id(cluster)).await.unwrap().tokens
}

#[tokio::test]
async fn the_feature_shows_storage_secret() {
    let server = Server::new().on("GET", FEATURE, 200, &fixture("feature"));
    assert_eq!(
        token_storage::detect(&server.client()).await.unwrap(),
        TokenStorage::Secret
    );
    server.only();
}

#[tokio::test]
async fn without_the_feature_the_tokens_decide() {
    for (list, storage) in [
        ("tokens-status", TokenStorage::Status),
        ("tokens-secret", TokenStorage::Secret),
    ] {
        let server = Server::new()
            .on("GET", FEATURE, 404, &status(404, "NotFound", "no"))
            .on("GET", TOKENS, 200, &fixture(list));
        assert_eq!(token_storage::detect(&server.client()).await.unwrap(), storage);
        server.requests();
    }
}

#[tokio::test]
async fn without_permission_to_read_features_the_tokens_decide() {
    let server = Server::new()
        .on("GET", FEATURE, 403, &status(403, "Forbidden", "no"))
        .on("GET", TOKENS, 200, &fixture("tokens-secret"));
    assert_eq!(
        token_storage::detect(&server.client()).await.unwrap(),
        TokenStorage::Secret
    );
}

#[tokio::test]
async fn without_any_permission_detection_fails() {
    let server = Server::new()
        .on("GET", FEATURE, 403, &status(403, "Forbidden", "no"))
        .on_text("GET", TOKENS, 403, &[], "");
    assert!(
        token_storage::detect(&server.client())
            .await
            .unwrap_err()
            .is_forbidden()
    );
}

#[tokio::test]
async fn consistent_tokens_show_their_storage() {
    let status = tokens("c-sqqnm", &fixture("tokens-status"), &[]).await;
    assert_eq!(TokenStorage::of(false, &status), Ok(TokenStorage::Status));
    let secret = tokens("c-gsrbc", &fixture("tokens-secret"), &[fixture("token-secret")]).await;
    assert_eq!(TokenStorage::of(true, &secret), Ok(TokenStorage::Secret));
    assert_eq!(TokenStorage::of(false, &secret), Ok(TokenStorage::Secret));
}

#[tokio::test]
async fn an_unfinished_migration_names_the_tokens_without_a_secret() {
    let mut list = fixture("tokens-secret");
    list["items"][0]["status"] = json!({ "token": "xls894dxbqdgwvkgnnsd79pm9bdxstxb8zwl7ff9hd2f896mf7rbxg" });
    let mixed = tokens("c-gsrbc", &list, &[fixture("token-secret")]).await;
    let error = TokenStorage::of(true, &mixed).unwrap_err();
    assert_eq!(error.without_secret, ["c-gsrbc/default-token"]);
    assert!(!error.to_string().contains("xls894"), "{error}");
}

#[tokio::test]
async fn a_secret_that_its_token_does_not_name_is_an_unfinished_migration() {
    let mut list = fixture("tokens-secret");
    for item in list["items"].as_array_mut().unwrap() {
        item["status"] = json!({});
    }
    let mixed = tokens("c-gsrbc", &list, &[fixture("token-secret")]).await;
    assert_eq!(
        TokenStorage::of(false, &mixed).unwrap_err().without_secret,
        ["c-gsrbc/default-token", "c-gsrbc/system"]
    );
}
