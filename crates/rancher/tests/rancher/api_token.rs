use std::time::Duration;

use client::request;
use client::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use rancher::Error;
use rancher::api_token::{self, Credential, Expiry, Lifetime, Mark, NewToken, TokenName};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Server, id};

/// A throw-away value.
const VALUE: &str = "token-x7k2p:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";

fn name(text: &str) -> TokenName {
    text.parse().unwrap()
}

fn days(days: u64) -> Lifetime {
    Duration::from_hours(24 * days).try_into().unwrap()
}

/// A token as Rancher 2.15.0 writes it in a list.
fn token(name: &str, with: &Value) -> Value {
    let mut token = json!({
        "authProvider": "local", "baseType": "token", "clusterId": "c-abcde", "created": "2026-11-22T10:00:00Z",
        "createdTS": 1_795_341_600_000_i64, "current": false, "description": "", "enabled": true, "expired": false,
        "expiresAt": "", "id": name, "isDerived": true, "lastUsedAt": null, "name": name, "ttl": 2_592_000_000_i64,
        "type": "token", "userId": "u-7h2kc", "userPrincipal": "map[displayName:Argo CD]",
    });
    token.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    token
}

fn error(status: &Value, code: &str, message: &str) -> Value {
    json!({"type": "error", "status": status, "code": code, "message": message})
}

#[tokio::test]
async fn issue_sends_scope_lifetime_and_mark_and_reads_the_granted_lifetime() {
    // 365 days are requested; the 90 days of the setting are granted without an error.
    let response = token(
        "token-x7k2p",
        &json!({"token": VALUE, "ttl": 7_776_000_000_i64, "description": "kubectl-argocd-rancher run=b2c4d for=argocd/one"}),
    );
    let server = Server::new().on("POST", "/v3/tokens", 201, &response);
    let new = NewToken {
        cluster: Some(id("c-abcde")),
        lifetime: days(365),
        mark: Mark::new("kubectl-argocd-rancher", "b2c4d", "argocd/one"),
    };
    let issued = api_token::issue(&server.client(), &new).await.unwrap();
    assert_eq!(
        server.only().body,
        json!({
            "type": "token", "description": "kubectl-argocd-rancher run=b2c4d for=argocd/one",
            "ttl": 31_536_000_000_i64, "clusterId": "c-abcde",
        })
    );
    assert_eq!(issued.value, Secret::new(VALUE));
    assert_eq!(issued.token.cluster, Some(id("c-abcde")));
    assert_eq!(issued.token.expiry, Expiry::At("2027-02-20T10:00:00Z".parse().unwrap()));
    assert_eq!(Mark::read(&issued.token.description), Some(new.mark));
    assert!(!format!("{issued:?}").contains("dk6nhzh5"), "{issued:?}");
}

#[tokio::test]
async fn issue_without_a_value_in_the_response_is_an_error() {
    let server = Server::new().on("POST", "/v3/tokens", 201, &token("token-x7k2p", &json!({})));
    let new = NewToken {
        cluster: None,
        lifetime: days(1),
        mark: Mark::new("kubectl-argocd-rancher", "b2c4d", "argocd/one"),
    };
    let error = api_token::issue(&server.client(), &new).await.unwrap_err();
    assert!(
        matches!(error, Error::Request(request::Error::Unreadable { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn tokens_are_listed_with_scope_expiry_and_last_use() {
    let list = json!({"type": "collection", "data": [
        token("token-aaaaa", &json!({"lastUsedAt": "2026-11-22T11:00:00Z", "token": "$3:1:hashed"})),
        token("token-bbbbb", &json!({"clusterId": null, "ttl": 0})),
        token("token-ccccc", &json!({"clusterId": "", "ttl": -1, "expired": true})),
        token("token-ddddd", &json!({"enabled": false})),
        token("NOT A NAME", &json!({})),
    ]});
    let server = Server::new().on("GET", "/v3/tokens?limit=-1", 200, &list);
    let tokens = api_token::list(&server.client()).await.unwrap();
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let listed: Vec<_> = tokens
        .iter()
        .map(|token| {
            (
                token.name.as_str(),
                token.expiry.at().map(|at| at.to_string()),
                token.is_valid(now),
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            ("token-aaaaa", Some("2026-12-22T10:00:00Z".to_owned()), true),
            ("token-bbbbb", None, true),
            ("token-ccccc", Some("2026-11-22T10:00:00Z".to_owned()), false),
            ("token-ddddd", Some("2026-12-22T10:00:00Z".to_owned()), false),
        ]
    );
    assert_eq!(tokens[0].last_used, Some("2026-11-22T11:00:00Z".parse().unwrap()));
    assert_eq!(tokens[1].cluster, None);
    assert_eq!(tokens[2].cluster, None);
    server.requests();
}

#[tokio::test]
async fn a_token_of_another_user_is_not_found() {
    let gone = error(&json!(404), "NotFound", "not found");
    let server = Server::new()
        .on("GET", "/v3/tokens/token-aaaaa", 404, &gone)
        .on("DELETE", "/v3/tokens/token-aaaaa", 404, &gone)
        .on_text("DELETE", "/v3/tokens/token-bbbbb", 204, &[], "");
    let client = server.client();
    assert_eq!(api_token::get(&client, &name("token-aaaaa")).await.unwrap(), None);
    assert!(!api_token::delete(&client, &name("token-aaaaa")).await.unwrap());
    assert!(api_token::delete(&client, &name("token-bbbbb")).await.unwrap());
    server.requests();
}

#[tokio::test]
async fn errors_of_ranchers_own_api_keep_their_reason() {
    let server = Server::new()
        .on(
            "GET",
            "/v3/tokens?limit=-1",
            401,
            &error(&json!("401"), "", "Unauthorized 401: must authenticate"),
        )
        .on(
            "DELETE",
            "/v3/tokens/token-aaaaa",
            400,
            &error(
                &json!(400),
                "InvalidAction",
                "Cannot delete token for current session. Use logout instead",
            ),
        );
    let client = server.client();
    let error: client::error::Error = api_token::list(&client).await.unwrap_err().into();
    assert_eq!(
        error.to_string(),
        "error: cannot list API tokens: You must be logged in to the server (Unauthorized 401: must authenticate)"
    );
    let error = api_token::delete(&client, &name("token-aaaaa")).await.unwrap_err();
    let error = error.on("Rancher").to_string();
    assert!(
        error.contains("cannot delete API token token-aaaaa on Rancher")
            && error.contains("Cannot delete token for current session"),
        "{error}"
    );
}

#[tokio::test]
async fn caller_and_longest_lifetime_are_read_from_rancher() {
    let me = json!({"type": "collection", "data": [{"id": "u-7h2kc", "username": "service-argo"}]});
    let setting = |value: &str| json!({"type": "setting", "id": "auth-token-max-ttl-minutes", "value": value, "default": "129600"});
    let path = "/v3/settings/auth-token-max-ttl-minutes";
    let server = Server::new()
        .on("GET", "/v3/users?me=true&limit=-1", 200, &me)
        .on("GET", path, 200, &setting(""))
        .on("GET", path, 200, &setting("60"))
        .on("GET", path, 200, &setting("0"))
        .on("GET", path, 404, &error(&json!(404), "NotFound", "not found"));
    let client = server.client();
    assert_eq!(api_token::whoami(&client).await.unwrap().id, "u-7h2kc");
    let mut limits = Vec::new();
    for _ in 0..4 {
        limits.push(api_token::max_ttl(&client).await.unwrap());
    }
    let (hours, hour) = (Duration::from_hours(90 * 24), Duration::from_hours(1));
    assert_eq!(limits, [Some(hours), Some(hour), None, None]);
    server.requests();
}

#[tokio::test]
async fn a_cluster_is_found_by_id_or_unique_name() {
    let cluster = |id: &str, name: &str| json!({"id": id, "name": name, "state": "active", "type": "cluster"});
    let list = json!({"data": [
        cluster("c-aaaaa", "staging"), cluster("c-bbbbb", "prod"), cluster("c-ccccc", "prod"), cluster("local", "local"),
    ]});
    let find = async |asked: &str| {
        let server = Server::new().on("GET", "/v3/clusters?limit=-1", 200, &list);
        api_token::find_cluster(&server.client(), asked).await
    };
    assert_eq!(find("staging").await.unwrap().id, id("c-aaaaa"));
    assert_eq!(find("c-ccccc").await.unwrap().name, "prod");
    let error = find("prod").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "2 clusters have the name \"prod\": c-bbbbb (prod), c-ccccc (prod)"
    );
    let error: client::error::Error = find("stag").await.unwrap_err().into();
    assert_eq!(error.to_string(), "error: cluster \"stag\" not found");
    assert_eq!(error.hints, ["did you mean \"staging\"?"]);
}

#[rstest]
#[case::api(VALUE, Credential::Api(name("token-x7k2p")))]
#[case::kubeconfig("kubeconfig-u-7h2kc:abc", Credential::Api(name("kubeconfig-u-7h2kc")))]
#[case::ext("ext/token-x7k2p:abc", Credential::Ext(name("token-x7k2p")))]
#[case::jwt("eyJhbGciOi.eyJpc3MiOi.c2ln", Credential::ServiceAccount)]
#[case::name_only("token-x7k2p", Credential::Unknown)]
#[case::no_key("token-x7k2p:", Credential::Unknown)]
#[case::empty("", Credential::Unknown)]
#[case::blank_name(":abc", Credential::Unknown)]
#[case::path("../tokens:abc", Credential::Unknown)]
fn a_value_shows_the_kind_of_credential(#[case] value: &str, #[case] expected: Credential) {
    assert_eq!(Credential::of(&Secret::new(value)), expected);
}

#[test]
fn a_lifetime_has_limits() {
    for invalid in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert!(Lifetime::try_from(invalid).is_err(), "{invalid:?}");
    }
    assert_eq!(days(365).granted(Some(Duration::from_hours(24))), days(1));
    assert_eq!(days(1).granted(Some(Duration::from_hours(48))), days(1));
    assert_eq!(days(365).granted(None), days(365));
}

#[tokio::test]
async fn a_bearing_client_sends_the_token_and_hides_it_from_logs() {
    let server = Server::new().on("GET", "/v3/tokens?limit=-1", 200, &json!({"data": []}));
    let client = api_token::bearing(&server.client(), &Secret::new(VALUE)).unwrap();
    api_token::list(&client).await.unwrap();
    let header = server.only().headers["authorization"].clone();
    assert_eq!(header, format!("Bearer {VALUE}").as_str());
    assert!(header.is_sensitive());
    assert!(api_token::bearing(&server.client(), &Secret::new("a\nb")).is_none());
}

proptest! {
    #[test]
    fn a_token_name_stays_in_its_path_segment(text in "\\PC{0,20}") {
        if let Ok(name) = text.parse::<TokenName>() {
            prop_assert!(!name.as_str().contains(['/', '?', '#', '%']) && name.as_str() != "..");
        }
    }

    #[test]
    fn marks_round_trip(by in "[a-z-]{1,12}", run in "[a-z0-9]{1,8}", subject in "[a-z]{1,8}/[a-z.-]{1,20}") {
        let mark = Mark::new(&by, &run, &subject);
        prop_assert_eq!(Mark::read(&mark.to_string()), Some(mark));
    }

    #[test]
    fn reading_a_mark_never_panics(text in "\\PC{0,40}") {
        let _ = Mark::read(&text);
    }
}
