//! What a row says of a token, for each thing that may be known of it.

use std::collections::BTreeMap;

use argocd::{ClusterConfig, ClusterSecret, ServerUrl};
use client::secret::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use rancher::Observed;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{ApiToken, Expiry};
use serde_json::{Value, json};

use super::*;
use crate::mark;

const VALUE: &str = "token-x7k2p:dk6nhzh5vr9ks8c2kkdss2c6snr5dw42b8k6zhwprjh598fbclkk87";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn cluster(config: &str) -> ClusterSecret {
    ClusterSecret {
        object: Observed {
            namespace: "argocd".into(),
            name: "one".into(),
            uid: "u".into(),
            resource_version: "1".into(),
        },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: None,
        deleting: false,
        immutable: false,
        name: "one".into(),
        server: ServerUrl::new("https://r.example.com/k8s/clusters/c-abcde"),
        config: ClusterConfig::parse(&Secret::new(config)),
        namespaces: Vec::new(),
        cluster_resources: false,
        project: None,
        shard: None,
        problems: Vec::new(),
        metadata: ObjectMeta::default(),
    }
}

fn bearing() -> ClusterSecret {
    cluster(&format!(
        r#"{{"bearerToken":"{VALUE}","tlsClientConfig":{{"insecure":false}}}}"#
    ))
}

fn noted(expires: &str, token: &str) -> ClusterSecret {
    let mut cluster = bearing();
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
        name: "token-x7k2p".parse().unwrap(),
        user: "u-me".into(),
        description: String::new(),
        cluster: scope.map(|scope| scope.parse().unwrap()),
        expiry: Expiry::At("2026-12-22T12:00:00Z".parse().unwrap()),
        expired: false,
        enabled: true,
        last_used: None,
        derived: true,
        current: false,
    }
}

fn scene(tokens: Option<&[ApiToken]>) -> Scene<'_> {
    Scene {
        tokens,
        me: tokens.map(|_| "u-me"),
        duplicates: Vec::new(),
        probed: None,
        view: None,
        rotation: None,
        now: now(),
    }
}

fn row(cluster: &ClusterSecret, scene: &Scene<'_>) -> Value {
    serde_json::to_value(Row::of(cluster, scene).unwrap()).unwrap()
}

#[test]
fn a_token_of_ours_is_judged_by_its_scope() {
    for (scope, state) in [
        (Some("c-abcde"), "current"),
        (None, "unscoped"),
        (Some("c-other"), "wrong-scope"),
    ] {
        let row = row(&bearing(), &scene(Some(&[token(scope)])));
        assert_eq!(row["state"], state, "{row:#}");
        assert_eq!(row["scope"], scope.unwrap_or("*"), "{row:#}");
    }
}

#[test]
fn the_worst_comes_first_and_nothing_is_left_out() {
    let mut token = token(None);
    token.enabled = false;
    token.expired = true;
    let tokens = [token];
    let mut scene = scene(Some(&tokens));
    scene.probed = Some(CallResult::Rejected);
    scene.duplicates = vec!["Secrets one and two are both for it".into()];
    let row = row(&bearing(), &scene);
    assert_eq!(row["state"], "duplicate", "{row:#}");
    assert_eq!(row["reasons"].as_array().unwrap().len(), 5, "{row:#}");
}

#[test]
fn a_token_that_rancher_tells_us_nothing_of_is_unknown_unless_a_call_showed_more() {
    let mut scene = scene(Some(&[]));
    assert_eq!(row(&bearing(), &scene)["state"], "unknown");
    scene.probed = Some(CallResult::Accepted { kubernetes: None });
    assert_eq!(row(&bearing(), &scene)["state"], "current");
    scene.probed = Some(CallResult::AgentOffline);
    assert_eq!(row(&bearing(), &scene)["state"], "unknown");
    scene.probed = Some(CallResult::NotAMember { user: None });
    assert_eq!(row(&bearing(), &scene)["state"], "failing");
}

#[test]
fn notes_tell_of_the_token_that_they_were_made_with_and_of_no_other() {
    let ends = "2026-12-22T12:00:00Z";
    let told = row(&noted(ends, "token-x7k2p"), &scene(None));
    assert_eq!((&told["owner"], &told["expiresAt"]), (&json!("u-me"), &json!(ends)));
    let replaced = row(&noted(ends, "token-older"), &scene(None));
    assert_eq!(
        (&replaced["owner"], &replaced["expiresAt"]),
        (&Value::Null, &Value::Null)
    );
    let over = row(&noted("2026-11-22T11:00:00Z", "token-x7k2p"), &scene(None));
    assert_eq!(over["state"], "expired");
    let gone = row(&noted(ends, "token-x7k2p"), &scene(Some(&[])));
    assert_eq!(gone["state"], "revoked");
    assert_eq!(row(&noted("never", "token-x7k2p"), &scene(None))["neverExpires"], true);
}

#[test]
fn what_argo_cd_cannot_use_is_broken_and_other_logins_are_not_judged() {
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
        assert_eq!(row(&cluster(config), &scene(None))["state"], state, "{config}");
    }
}

#[test]
fn a_row_shows_no_value_and_other_clusters_have_none() {
    let shown = row(&bearing(), &scene(None)).to_string();
    assert!(shown.contains("token-x7k2p") && !shown.contains("dk6nhzh5"), "{shown}");
    let mut other = bearing();
    other.server = ServerUrl::new("https://10.0.0.1:6443");
    assert!(Row::of(&other, &scene(None)).is_none());
}
