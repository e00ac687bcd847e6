//! The row of a token in each state.

use argocd::ServerUrl;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::fixtures;

const TOKEN: &str = "token-x7k2p";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn cluster(config: &str) -> ClusterSecret {
    fixtures::cluster("one", config, ObjectMeta::default())
}

fn cluster_with_token() -> ClusterSecret {
    cluster(&fixtures::config(TOKEN))
}

fn annotated(expires: &str, token: &str) -> ClusterSecret {
    let mut cluster = cluster_with_token();
    for (key, value) in [
        (mark::TOKEN, token),
        (mark::TOKEN_USER, "u-me"),
        (mark::TOKEN_EXPIRES, expires),
    ] {
        cluster.annotations.insert(key.into(), value.into());
    }
    cluster
}

fn token(scope: Option<&str>) -> ApiToken {
    ApiToken {
        cluster: scope.map(|scope| scope.parse().unwrap()),
        ..fixtures::api_token(TOKEN, Expiry::At("2026-12-22T12:00:00Z".parse().unwrap()))
    }
}

fn inputs(tokens: Option<&[ApiToken]>) -> RowInputs<'_> {
    RowInputs {
        tokens,
        user: tokens.map(|_| "u-me"),
        duplicates: Vec::new(),
        probed: None,
        unprobed: None,
        connection: None,
        rotation: None,
        now: now(),
    }
}

fn row(cluster: &ClusterSecret, inputs: &RowInputs<'_>) -> Value {
    serde_json::to_value(Row::of(cluster, inputs).unwrap()).unwrap()
}

#[test]
fn the_state_of_an_own_token_depends_on_its_scope() {
    for (scope, state) in [
        (Some("c-abcde"), "current"),
        (None, "unscoped"),
        (Some("c-other"), "wrong-scope"),
    ] {
        let row = row(&cluster_with_token(), &inputs(Some(&[token(scope)])));
        assert_eq!(row["state"], state, "{row:#}");
        assert_eq!(row["scope"], scope.unwrap_or("*"), "{row:#}");
    }
}

#[test]
fn the_state_is_the_worst_one_and_all_reasons_are_listed() {
    let mut token = token(None);
    token.enabled = false;
    token.expired = true;
    let tokens = [token];
    let mut inputs = inputs(Some(&tokens));
    inputs.probed = Some(CallResult::Rejected);
    inputs.duplicates = vec!["Secrets one and two are both for it".into()];
    let row = row(&cluster_with_token(), &inputs);
    assert_eq!(row["state"], "duplicate", "{row:#}");
    assert_eq!(row["reasons"].as_array().unwrap().len(), 5, "{row:#}");
}

#[test]
fn an_unlisted_token_is_unknown_unless_it_was_probed() {
    let mut inputs = inputs(Some(&[]));
    assert_eq!(row(&cluster_with_token(), &inputs)["state"], "unknown");
    for (result, state) in [
        (CallResult::Accepted { kubernetes: None }, "current"),
        (CallResult::AgentOffline, "failing"),
        (CallResult::Unexpected { code: 418 }, "unknown"),
        (CallResult::NotAMember { user: None }, "failing"),
    ] {
        inputs.probed = Some(result);
        assert_eq!(row(&cluster_with_token(), &inputs)["state"], state);
    }
}

#[test]
fn annotations_count_only_for_the_token_that_they_name() {
    let expires = "2026-12-22T12:00:00Z";
    let named = row(&annotated(expires, TOKEN), &inputs(None));
    assert_eq!(
        (&named["owner"], &named["expiresAt"]),
        (&json!("u-me"), &json!(expires))
    );
    let replaced = row(&annotated(expires, "token-older"), &inputs(None));
    assert_eq!(
        (&replaced["owner"], &replaced["expiresAt"]),
        (&Value::Null, &Value::Null)
    );
    let expired = row(&annotated("2026-11-22T11:00:00Z", TOKEN), &inputs(None));
    assert_eq!(expired["state"], "expired");
    let revoked = row(&annotated(expires, TOKEN), &inputs(Some(&[])));
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(row(&annotated("never", TOKEN), &inputs(None))["neverExpires"], true);
}

#[test]
fn an_earlier_token_of_the_rotation_that_was_written_back_is_revoked() {
    let mut stale = annotated("2026-12-22T12:00:00Z", "token-newer");
    let details = json!({
        "user": "u-me", "old": {"name": TOKEN, "value": "0123456789"}, "keepOld": false, "placed": ["token-newer"],
        "usedBefore": null, "placedAt": null,
    });
    let key = "kubectl-rotation.github.io/argocd-rancher-run";
    stale.annotations.insert(key.into(), details.to_string());
    assert_eq!(row(&stale, &inputs(Some(&[])))["state"], "revoked");
    assert_eq!(row(&stale, &inputs(None))["owner"], "u-me");
}

#[test]
fn the_expiry_of_another_users_token_is_unknown() {
    let mut cluster = annotated("unknown", TOKEN);
    cluster.annotations.insert(mark::TOKEN_USER.into(), "unknown".into());
    let row = row(&cluster, &inputs(Some(&[])));
    assert_eq!(
        (&row["owner"], &row["neverExpires"]),
        (&Value::Null, &json!(false)),
        "{row:#}"
    );
}

#[test]
fn a_token_with_a_line_break_is_broken_although_rancher_lists_it() {
    let config = fixtures::config(TOKEN).replace("87\"", "87\\n\"");
    let row = row(&cluster(&config), &inputs(Some(&[token(Some("c-abcde"))])));
    assert_eq!(row["state"], "broken", "{row:#}");
}

#[test]
fn an_unusable_secret_is_broken_and_other_authentication_is_unknown() {
    for (config, state) in [
        ("nonsense", "broken"),
        ("", "broken"),
        (r#"{"bearerToken":"","tlsClientConfig":{"insecure":false}}"#, "broken"),
        (
            r#"{"bearerToken":"token-a:b","tlsClientConfig":{"insecure":true,"caData":"eA=="}}"#,
            "broken",
        ),
        (r#"{"execProviderConfig":{"command":"x"}}"#, "unknown"),
    ] {
        assert_eq!(row(&cluster(config), &inputs(None))["state"], state, "{config}");
    }
}

#[test]
fn a_row_contains_no_value_and_other_clusters_have_no_row() {
    let text = row(&cluster_with_token(), &inputs(None)).to_string();
    assert!(text.contains(TOKEN) && !text.contains("dk6nhzh5"), "{text}");
    let mut other = cluster_with_token();
    other.server = ServerUrl::new("https://10.0.0.1:6443");
    assert!(Row::of(&other, &inputs(None)).is_none());
}
