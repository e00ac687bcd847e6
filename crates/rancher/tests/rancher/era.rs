use rancher::Era;
use rancher::era;
use rancher::token::{self, RegistrationToken};
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
async fn the_feature_makes_it_era_s() {
    let server = Server::new().on("GET", FEATURE, 200, &fixture("feature"));
    assert_eq!(era::detect(&server.client()).await.unwrap(), Era::Secret);
    server.only();
}

#[tokio::test]
async fn without_the_feature_the_tokens_decide() {
    for (list, era) in [("tokens-plain", Era::Plain), ("tokens-secret", Era::Secret)] {
        let server = Server::new()
            .on("GET", FEATURE, 404, &status(404, "NotFound", "no"))
            .on("GET", TOKENS, 200, &fixture(list));
        assert_eq!(era::detect(&server.client()).await.unwrap(), era);
        server.seen();
    }
}

#[tokio::test]
async fn who_may_not_read_features_still_learns_the_era() {
    let server = Server::new()
        .on("GET", FEATURE, 403, &status(403, "Forbidden", "no"))
        .on("GET", TOKENS, 200, &fixture("tokens-secret"));
    assert_eq!(era::detect(&server.client()).await.unwrap(), Era::Secret);
}

#[tokio::test]
async fn who_may_read_nothing_is_told_so() {
    let server = Server::new()
        .on("GET", FEATURE, 403, &status(403, "Forbidden", "no"))
        .on_text("GET", TOKENS, 403, &[], "");
    assert!(era::detect(&server.client()).await.unwrap_err().is_forbidden());
}

#[tokio::test]
async fn tokens_of_one_era_agree() {
    let plain = tokens("c-sqqnm", &fixture("tokens-plain"), &[]).await;
    assert_eq!(Era::of(false, &plain), Ok(Era::Plain));
    let secret = tokens("c-gsrbc", &fixture("tokens-secret"), &[fixture("token-secret")]).await;
    assert_eq!(Era::of(true, &secret), Ok(Era::Secret));
    assert_eq!(Era::of(false, &secret), Ok(Era::Secret));
}

#[tokio::test]
async fn a_half_done_migration_names_what_is_left() {
    let mut list = fixture("tokens-secret");
    list["items"][0]["status"] = json!({ "token": "xls894dxbqdgwvkgnnsd79pm9bdxstxb8zwl7ff9hd2f896mf7rbxg" });
    let mixed = tokens("c-gsrbc", &list, &[fixture("token-secret")]).await;
    let error = Era::of(true, &mixed).unwrap_err();
    assert_eq!(error.plain, ["c-gsrbc/default-token"]);
    assert!(!error.to_string().contains("xls894"), "{error}");
}

#[tokio::test]
async fn a_secret_beside_a_token_that_does_not_name_it_is_a_half_done_migration_too() {
    let mut list = fixture("tokens-secret");
    for item in list["items"].as_array_mut().unwrap() {
        item["status"] = json!({});
    }
    let mixed = tokens("c-gsrbc", &list, &[fixture("token-secret")]).await;
    assert_eq!(
        Era::of(false, &mixed).unwrap_err().plain,
        ["c-gsrbc/default-token", "c-gsrbc/system"]
    );
}
