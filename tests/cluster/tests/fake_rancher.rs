//! Tests of the fake Rancher, and of the end of all processes.

#[path = "fake_rancher/lost_agents.rs"]
mod lost_agents;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use test_cluster::{
    AnotherWriter, Authority, FakeRancher, Registered, Registration, TestEnvironment, TokenStorage, User,
};

/// As Rancher's annotation and the log show a token.
fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token);
    let first: [u8; 8] = digest[..8].try_into().unwrap_or_default();
    format!("{:010x}", u64::from_be_bytes(first) >> 24)
}

/// How long a test waits for a condition.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn clusters_register_and_connect_with_both_token_storages() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    for storage in TokenStorage::ALL {
        let begin = Instant::now();
        let rancher = environment.rancher(storage).await?;
        println!("{storage:?}: up after {:?}", begin.elapsed());
        let begin = Instant::now();
        let cluster = rancher.register("berlin").await?;
        println!("{storage:?}: registered after {:?}", begin.elapsed());
        let report = rancher.report(&cluster).await?;
        assert!(report.connected_since.is_some(), "{report:?}");
        assert_eq!(report.fingerprints().len(), 1, "one token for both tunnels: {report:?}");
        assert!(
            report
                .accepted
                .iter()
                .any(|accepted| accepted == report.fingerprints()[0]),
            "{report:?}"
        );
        assert!(
            rancher
                .log_of(&cluster)?
                .iter()
                .any(|line| line["kind"] == "tunnel-open")
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_separate_rancher_is_upgraded_with_a_connected_cluster() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let (_management, rancher) = environment
        .separate_rancher("upgraded", TokenStorage::Status, json!({}))
        .await?;
    let cluster = rancher.register_as(&Registration::imported("riga").quick()).await?;
    let before = rancher.report(&cluster).await?;
    rancher.upgrade().await?;
    let after = rancher.report(&cluster).await?;
    assert!(
        after
            .accepted
            .iter()
            .any(|accepted| accepted == before.fingerprints()[0]),
        "{before:?} {after:?}"
    );
    Ok(())
}

/// Sends a request with this bearer token, or without one. Returns the status and the body.
async fn ask(
    rancher: &FakeRancher,
    method: &str,
    path: &str,
    value: Option<&str>,
    body: &str,
) -> Result<(u16, String)> {
    let user = value.map(|value| User {
        name: String::new(),
        token: value.to_owned(),
        groups: Vec::new(),
    });
    let client = rancher.client("", user.as_ref())?;
    let request = http::Request::builder().method(method).uri(path);
    let answer = client.send(request.body(body.as_bytes().to_vec().into())?).await?;
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect_bytes().await?;
    Ok((code, String::from_utf8(bytes.to_vec())?))
}

/// Issues a token for the admin. Returns its name and its value.
async fn issued(rancher: &FakeRancher, cluster: &str, ttl: i64) -> Result<(String, String)> {
    let body = json!({"type": "token", "clusterId": cluster, "ttl": ttl}).to_string();
    let (code, answer) = ask(rancher, "POST", "/v3/tokens", Some(&User::admin().token), &body).await?;
    assert_eq!(code, 201, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    assert_eq!(answer["expiresAt"], "", "{answer}");
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    Ok((text("name"), text("token")))
}

#[tokio::test(flavor = "multi_thread")]
async fn api_tokens_get_the_responses_of_rancher() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let cluster = rancher.register_as(&Registration::imported("lund").quick()).await?;
    let (admin, id) = (User::admin().token, cluster.id.as_str());
    let (name, scoped) = issued(rancher, id, 0).await?;
    let (_, expired) = issued(rancher, id, -1).await?;
    let (_, elsewhere) = issued(rancher, "c-other", 60_000).await?;
    let (_, at_local) = issued(rancher, "local", 60_000).await?;
    let (one, version) = (format!("/v3/clusters/{id}"), format!("/k8s/clusters/{id}/version"));
    let local = "/k8s/clusters/local/version";
    let unauthenticated = "User \\\"system:unauthenticated\\\" cannot get resource \\\"clusters\\\"";
    let denied = "Unauthorized 401: must authenticate";
    let unseen = "User \\\"u-viewer\\\" cannot get resource \\\"clusters\\\"";
    let viewer = User::viewer().token;
    for (value, path, code, says) in [
        (scoped.as_str(), version.as_str(), 200, "gitVersion"),
        (&scoped, &one, 200, id),
        (&scoped, local, 401, "\"kind\":\"Status\""),
        (&scoped, "/v3/tokens", 401, denied),
        (&scoped, "/version", 401, "\"kind\":\"Status\""),
        (&at_local, local, 200, "gitVersion"),
        (&elsewhere, &version, 403, unauthenticated),
        (&expired, &version, 403, unauthenticated),
        (&expired, &one, 401, denied),
        ("token-x:y", &version, 403, unauthenticated),
        (&viewer, &version, 403, unseen),
        (&viewer, "/k8s/clusters/local/api/v1/nodes", 403, ""),
        (&admin, "/k8s/clusters/c-nowhere/version", 404, "\"Code\":\"NotFound\""),
        (&admin, "/v3/tokens/token-none", 404, "NotFound"),
    ] {
        let (seen, body) = ask(rancher, "GET", path, Some(value), "").await?;
        assert!(seen == code && body.contains(says), "{path}: {seen} {body}");
    }
    let path = format!("/v3/tokens/{name}");
    let (_, shown) = ask(rancher, "GET", &path, Some(&admin), "").await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    // 90 days, because 0 means the maximum.
    assert_eq!(shown["ttl"], 7_776_000_000_i64, "{shown}");
    assert!(
        shown["lastUsedAt"].is_string() && shown.get("token").is_none(),
        "{shown}"
    );
    for code in [204, 404] {
        assert_eq!(ask(rancher, "DELETE", &path, Some(&admin), "").await?.0, code);
    }
    assert_eq!(ask(rancher, "GET", &version, Some(&scoped), "").await?.0, 403);
    let session = ask(rancher, "DELETE", "/v3/tokens/token-admin", Some(&admin), "").await?;
    assert_eq!(session.0, 400, "{session:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_is_redirected_for_local_by_2_15_only() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    for (storage, code) in [(TokenStorage::Secret, 307), (TokenStorage::Status, 200)] {
        let rancher = environment.rancher(storage).await?;
        let cluster = rancher.register_as(&Registration::imported("turku").quick()).await?;
        let (_, local) = issued(rancher, "local", 60_000).await?;
        let (_, scoped) = issued(rancher, &cluster.id, 60_000).await?;
        let (_, unscoped) = issued(rancher, "", 60_000).await?;
        let status = async |path: String, token: &str| {
            Ok::<_, anyhow::Error>(ask(rancher, "GET", &path, Some(token), "").await?.0)
        };
        for root in ["api", "apis"] {
            for token in [&local, &unscoped] {
                let path = format!("/k8s/clusters/local/{root}");
                assert_eq!(status(path.clone(), token).await?, code, "{path}");
                assert_eq!(status(format!("{path}/"), token).await?, 200, "{path}/");
            }
            // The target of the redirect.
            assert_eq!(status(format!("/{root}/"), &local).await?, 401);
            assert_eq!(status(format!("/{root}/"), &unscoped).await?, 200);
            assert_eq!(
                status(format!("/k8s/clusters/{}/{root}", cluster.id), &scoped).await?,
                200
            );
        }
        for path in ["/api/v1", "/apis/apps/v1", "/version"] {
            assert_eq!(
                status(format!("/k8s/clusters/local{path}"), &local).await?,
                200,
                "{path}"
            );
        }
    }
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let client = rancher.client("", Some(&User::admin()))?;
    let answer = client
        .send(http::Request::get("/k8s/clusters/local/apis?timeout=32s").body(Vec::new().into())?)
        .await?;
    assert_eq!(answer.headers()["location"], "/apis/?timeout=32s");
    Ok(())
}

/// The uid of the namespace kube-system and the published CA, for a client with this path.
async fn identity(rancher: &FakeRancher, path: &str) -> Result<(String, String)> {
    let client = rancher.client(path, Some(&User::admin()))?;
    let namespace = Api::<Namespace>::all(client.clone()).get("kube-system").await?;
    let map = Api::<ConfigMap>::namespaced(client, "kube-system")
        .get("kube-root-ca.crt")
        .await?;
    let ca = map.data.unwrap_or_default().remove("ca.crt").context("no CA")?;
    Ok((namespace.metadata.uid.context("no uid")?, ca))
}

/// `status.caCert` of the Cluster, decoded.
async fn ca_cert(rancher: &FakeRancher, cluster: &Registered) -> Result<String> {
    let path = format!("/apis/management.cattle.io/v3/clusters/{}", cluster.id);
    let (_, body) = ask(rancher, "GET", &path, Some(&User::admin().token), "").await?;
    let body: serde_json::Value = serde_json::from_str(&body)?;
    let encoded = body["status"]["caCert"].as_str().context("no caCert")?;
    Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cluster_has_its_own_identity_through_every_context() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let (first, second) = (
        Registration::imported("lund").quick(),
        Registration::imported("bergen").quick(),
    );
    let (first, second) = tokio::try_join!(rancher.register_as(&first), rancher.register_as(&second))?;
    let (mut uids, mut cas) = (BTreeSet::new(), BTreeSet::new());
    for cluster in [&first, &second] {
        let tunnel = identity(rancher, &format!("/k8s/clusters/{}", cluster.id)).await?;
        assert_eq!(tunnel, identity(rancher, &format!("/direct/{}", cluster.id)).await?);
        assert_eq!(tunnel.1, ca_cert(rancher, cluster).await?);
        // It is the same in lists and watches of namespaces.
        let client = rancher.client(&format!("/k8s/clusters/{}", cluster.id), Some(&User::admin()))?;
        let namespaces = Api::<Namespace>::all(client);
        let uid = |namespace: &Namespace| {
            (namespace.metadata.name.as_deref() == Some("kube-system"))
                .then(|| namespace.metadata.uid.clone())
                .flatten()
        };
        let listed = namespaces
            .list(&ListParams::default())
            .await?
            .items
            .iter()
            .find_map(uid);
        let mut watch = namespaces.watch(&WatchParams::default(), "0").await?.boxed();
        let watched = loop {
            if let Some(WatchEvent::Added(namespace)) = watch.try_next().await?
                && let Some(uid) = uid(&namespace)
            {
                break uid;
            }
        };
        assert_eq!((listed.as_ref(), &watched), (Some(&tunnel.0), &tunnel.0));
        uids.insert(tunnel.0);
        cas.insert(tunnel.1);
    }
    let local = identity(rancher, "/k8s/clusters/local").await?;
    let management = Api::<Namespace>::all(environment.management(TokenStorage::Secret).await?.client().await?);
    assert_eq!(
        Some(&local.0),
        management.get("kube-system").await?.metadata.uid.as_ref()
    );
    uids.insert(local.0);
    cas.insert(local.1);
    assert_eq!((uids.len(), cas.len()), (3, 3), "{uids:#?} {cas:#?}");

    rancher.stale_ca_cert(&first, true).await?;
    let own = identity(rancher, &format!("/direct/{}", first.id)).await?.1;
    assert_ne!(ca_cert(rancher, &first).await?, own);
    // The agent reports its CA when it connects.
    rancher.drop_tunnels(&first, true).await?;
    let begin = Instant::now();
    while ca_cert(rancher, &first).await? != own {
        assert!(begin.elapsed() < PATIENCE, "it stays stale");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The steps of the deployments requested with `force.deploy`.
fn forced(rancher: &FakeRancher, cluster: &Registered) -> Result<Vec<String>> {
    let lines = rancher.log_of(cluster)?;
    let steps = lines
        .iter()
        .filter(|line| line["kind"] == "redeploy" && line["reason"] == "forced");
    Ok(steps
        .filter_map(|line| Some(line["step"].as_str()?.to_owned()))
        .collect())
}

async fn until_forced(rancher: &FakeRancher, cluster: &Registered, wanted: &[&str]) -> Result<()> {
    let begin = Instant::now();
    while forced(rancher, cluster)? != wanted {
        let seen = forced(rancher, cluster)?;
        ensure!(begin.elapsed() < PATIENCE, "{seen:?} is not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_restarts_when_the_cluster_changes_before_its_end() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    for storage in TokenStorage::ALL {
        let rancher = environment.rancher(storage).await?;
        let cluster = rancher.register_as(&Registration::imported("kiel").quick()).await?;
        rancher.redeploy_takes(&cluster, Duration::from_secs(3)).await?;
        let change = async {
            until_forced(rancher, &cluster, &["rendered", "applied"]).await?;
            rancher.cluster_event(&cluster).await?;
            until_forced(rancher, &cluster, &["rendered", "applied", "conflict"]).await
        };
        let (begin, twice) = (Instant::now(), Duration::from_secs(6));
        tokio::try_join!(rancher.redeploy(&cluster), change)?;
        assert!(begin.elapsed() >= twice, "{:?}", begin.elapsed());
        let all = ["rendered", "applied", "conflict", "rendered", "applied", "noted"];
        until_forced(rancher, &cluster, &all).await?;
    }
    Ok(())
}

/// The Deployment of a cluster's agent, read from the cluster itself.
async fn deployment(environment: &TestEnvironment, cluster: &Registered) -> Result<Deployment> {
    let api = Api::<Deployment>::namespaced(
        environment.downstream().await?.client().await?,
        &cluster.agent_namespace(),
    );
    Ok(api.get("cattle-cluster-agent").await?)
}

/// A variable of the agent, and the name of its mounted Secret.
fn rendered(deployment: &Deployment, variable: &str) -> Result<(String, String)> {
    let spec = serde_json::to_value(&deployment.spec)?;
    let pod = &spec["template"]["spec"];
    let env = pod["containers"][0]["env"].as_array().context("no variables")?;
    let value = env
        .iter()
        .find(|entry| entry["name"] == variable)
        .context("no such variable")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&value["value"]), text(&pod["volumes"][0]["secret"]["secretName"])))
}

/// A value of a Secret in the agent's namespace.
async fn secret(environment: &TestEnvironment, cluster: &Registered, name: &str, key: &str) -> Result<String> {
    let api = Api::<Secret>::namespaced(
        environment.downstream().await?.client().await?,
        &cluster.agent_namespace(),
    );
    let data = api.get(name).await?.data.unwrap_or_default();
    Ok(String::from_utf8(data.get(key).context("no such key")?.0.clone())?)
}

/// Waits for this log entry of the cluster.
async fn until_logged(rancher: &FakeRancher, cluster: &Registered, kind: &str, why: &str) -> Result<()> {
    let begin = Instant::now();
    let is =
        |line: &serde_json::Value| line["kind"] == kind && line["why"].as_str().is_some_and(|said| said.contains(why));
    while !rancher.log_of(cluster)?.iter().any(is) {
        ensure!(begin.elapsed() < PATIENCE, "no {kind} with {why:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The registration tokens of a cluster.
fn registration_tokens(rancher: &FakeRancher, cluster: &Registered) -> Result<Api<DynamicObject>> {
    let kind = GroupVersionKind::gvk("management.cattle.io", "v3", "ClusterRegistrationToken");
    let client = rancher.client("/k8s/clusters/local", Some(&User::admin()))?;
    Ok(Api::namespaced_with(client, &cluster.id, &ApiResource::from_gvk(&kind)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_a_token_that_is_created_again_keeps_its_owner() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let cluster = rancher.register_as(&Registration::imported("malmo").quick()).await?;
    let tokens = registration_tokens(rancher, &cluster)?;
    let client = environment.management(TokenStorage::Secret).await?.client().await?;
    let secrets = Api::<Secret>::namespaced(client, &cluster.id);
    // In place of the former token: an owner that exists, so that the garbage collector leaves the Secret alone.
    let mut left = secrets.get("crt-token-system").await?;
    let owner = left.metadata.owner_references.take().context("no owner")?;
    left.metadata = ObjectMeta {
        name: Some("crt-token-again".to_owned()),
        owner_references: Some(owner.clone()),
        ..ObjectMeta::default()
    };
    let value = left.data.clone().context("no data")?["token"].clone();
    secrets.create(&PostParams::default(), &left).await?;
    let again = json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "metadata": {"name": "again"}, "spec": {"clusterName": cluster.id},
    });
    tokens
        .create(&PostParams::default(), &serde_json::from_value(again)?)
        .await?;
    let begin = Instant::now();
    while tokens.get("again").await?.data["status"]["tokenSecretName"] != "crt-token-again" {
        ensure!(begin.elapsed() < PATIENCE, "it has no Secret");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = secrets.get("crt-token-again").await?;
    assert_eq!(kept.metadata.owner_references, Some(owner));
    assert_eq!(kept.data.context("no data")?["token"], value);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_address_is_pushed_with_the_next_deployment_only() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let (_management, rancher) = environment
        .separate_rancher("moved", TokenStorage::Secret, json!({}))
        .await?;
    let cluster = rancher
        .register_as(&Registration::imported("trondheim").quick())
        .await?;
    let (old, new) = (rancher.url().to_owned(), rancher.other_url());
    let before = deployment(environment, &cluster).await?;
    rancher.change_server_url(&new, true).await?;
    rancher.cluster_event(&cluster).await?;
    // An event of the Cluster renews the commands of its tokens.
    let commands = registration_tokens(&rancher, &cluster)?;
    let begin = Instant::now();
    while !commands.get("system").await?.data["status"]["manifestUrl"]
        .to_string()
        .contains(&new)
    {
        ensure!(begin.elapsed() < PATIENCE, "the commands still name the old address");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(deployment(environment, &cluster).await?.spec, before.spec);
    assert_eq!(
        secret(environment, &cluster, "stv-aggregation", "CATTLE_SERVER").await?,
        old
    );

    rancher.redeploy(&cluster).await?;
    let after = deployment(environment, &cluster).await?;
    let (server, name) = rendered(&after, "CATTLE_SERVER")?;
    assert_eq!(server, new);
    assert_ne!(name, rendered(&before, "CATTLE_SERVER")?.1);
    assert_eq!(secret(environment, &cluster, &name, "url").await?, new);
    let begin = Instant::now();
    while secret(environment, &cluster, "stv-aggregation", "url").await? != format!("{new}/v3/connect") {
        ensure!(begin.elapsed() < PATIENCE, "no agent has connected to the new address");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        secret(environment, &cluster, "stv-aggregation", "CATTLE_SERVER").await?,
        new
    );
    let begin = Instant::now();
    while rancher.report(&cluster).await?.sessions.len() != 2 {
        ensure!(begin.elapsed() < PATIENCE, "the old agent has not gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Agents with the new address do not need the old one.
    rancher.reachable(&old, false).await?;
    let report = rancher.report(&cluster).await?;
    assert!(
        report.connected_since.is_some() && report.without.valid_token.is_empty(),
        "{report:#?}"
    );
    assert!(report.without.restart_safety.is_empty(), "{report:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_an_unreachable_address_disconnects() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let (_management, rancher) = environment
        .separate_rancher("away", TokenStorage::Status, json!({}))
        .await?;
    let cluster = rancher.register_as(&Registration::imported("bodo").quick()).await?;
    let new = "https://rancher.invalid";
    rancher.change_server_url(new, false).await?;
    assert!(rancher.report(&cluster).await?.connected_since.is_some());
    rancher.request_redeploy(&cluster).await?;
    until_logged(&rancher, &cluster, "agent-exited", "ping is not accessible").await?;
    // Its pod was Ready, so the Deployment removed the connected one.
    let begin = Instant::now();
    while rancher.report(&cluster).await?.connected_since.is_some() {
        ensure!(begin.elapsed() < PATIENCE, "the old agent is still connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = rancher.report(&cluster).await?;
    assert!(
        !report.without.valid_token.is_empty() && !report.without.restart_safety.is_empty(),
        "{report:#?}"
    );
    assert_eq!(
        secret(environment, &cluster, "stv-aggregation", "CATTLE_SERVER").await?,
        rancher.url()
    );
    // Only the address itself lets it reconnect.
    rancher.change_server_url(rancher.url(), true).await?;
    rancher.reachable(new, true).await?;
    let begin = Instant::now();
    while rancher.report(&cluster).await?.connected_since.is_none() {
        ensure!(begin.elapsed() < PATIENCE, "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // An agent writes it after it has connected.
    while secret(environment, &cluster, "stv-aggregation", "CATTLE_SERVER").await? != new {
        ensure!(begin.elapsed() < PATIENCE, "it does not write the address");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_only_with_the_checksum_of_the_published_ca() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let (_management, rancher) = environment
        .separate_rancher("another-ca", TokenStorage::Secret, json!({}))
        .await?;
    let cluster = rancher.register_as(&Registration::imported("narvik").quick()).await?;
    let before = rendered(&deployment(environment, &cluster).await?, "CATTLE_CA_CHECKSUM")?;
    assert_eq!(
        secret(environment, &cluster, "stv-aggregation", "CATTLE_CA_CHECKSUM").await?,
        before.0
    );
    let other = Authority::new("another CA")?.ca_pem().trim().to_owned();
    let bundle = format!("{}\n{other}", rancher.ca_pem().trim());
    rancher.change_cacerts(&bundle).await?;
    // A running agent is not affected, even when it reconnects. An agent that starts with the old checksum exits.
    rancher.drop_tunnels(&cluster, true).await?;
    let begin = Instant::now();
    while rancher.report(&cluster).await?.sessions.len() != 2 {
        ensure!(begin.elapsed() < PATIENCE, "the running agent does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = rancher.report(&cluster).await?;
    assert!(
        report.without.valid_token.is_empty() && !report.without.restart_safety.is_empty(),
        "{report:#?}"
    );
    let pods = Api::<Pod>::namespaced(
        environment.downstream().await?.client().await?,
        &cluster.agent_namespace(),
    );
    pods.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    until_logged(&rancher, &cluster, "agent-exited", "does not match given --ca-checksum").await?;

    // With the CA that its pod names, it reconnects.
    rancher.change_cacerts(rancher.ca_pem().trim()).await?;
    let begin = Instant::now();
    while rancher.report(&cluster).await?.sessions.len() != 2 {
        ensure!(begin.elapsed() < PATIENCE, "the old CA does not bring it back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rancher.change_cacerts(&bundle).await?;
    rancher.redeploy(&cluster).await?;
    let after = rendered(&deployment(environment, &cluster).await?, "CATTLE_CA_CHECKSUM")?;
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, before.1, "the name of the Secret does not depend on the CA");
    let begin = Instant::now();
    while secret(environment, &cluster, "stv-aggregation", "CATTLE_CA_CHECKSUM").await? != after.0 {
        ensure!(begin.elapsed() < PATIENCE, "no agent has connected with the bundle");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A CA that has not signed Rancher's certificate.
    rancher.change_cacerts(&other).await?;
    rancher.request_redeploy(&cluster).await?;
    until_logged(&rancher, &cluster, "tunnel-refused", "x509").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_restores_its_saved_state() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let plane = environment.management(TokenStorage::Status).await?;
    let (client, namespace) = (plane.client().await?, plane.namespace("written").await?);
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let object = |name: &str| Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("token".to_owned(), ByteString(b"old".to_vec()))].into()),
        ..Secret::default()
    };
    let value = async |name: &str| -> Result<Vec<u8>> {
        let data = secrets.get(name).await?.data.unwrap_or_default();
        Ok(data.get("token").context("no token")?.0.clone())
    };
    let change = Patch::Merge(json!({ "stringData": { "token": "new" } }));
    for (name, watching, applying) in [
        ("by-time-applied", false, true),
        ("by-time-replaced", false, false),
        ("healed-applied", true, true),
        ("healed-replaced", true, false),
    ] {
        let saved = secrets.create(&PostParams::default(), &object(name)).await?;
        let mut writer = AnotherWriter::of(client.clone(), &saved)?.manager("gitops").times(2);
        if !applying {
            writer = writer.replace_data();
        }
        writer = if watching {
            writer.watching()
        } else {
            writer.every(Duration::from_millis(100))
        };
        secrets.patch(name, &PatchParams::default(), &change).await?;
        let writing = writer.start();
        writing.restored(1).await?;
        assert_eq!(value(name).await?, b"old", "{name}");
        let managers = secrets.get(name).await?.metadata.managed_fields.unwrap_or_default();
        let is_named = managers.iter().any(|entry| entry.manager.as_deref() == Some("gitops"));
        assert!(is_named, "{name}: {managers:#?}");
        if watching {
            // The other writers write even if nothing has changed.
            assert_eq!((writing.written(), writing.undone()), (1, 1), "{name}");
            secrets.patch(name, &PatchParams::default(), &change).await?;
        }
        writing.wrote(2).await?;
        assert_eq!(writing.stop().await?, 2, "{name}");
        // That was its last write.
        secrets.patch(name, &PatchParams::default(), &change).await?;
        assert_eq!(value(name).await?, b"new", "{name}");
    }

    // A writer that applies creates a deleted object again.
    let saved = secrets.get("healed-applied").await?;
    let writing = AnotherWriter::of(client.clone(), &saved)?.watching().start();
    secrets.delete("healed-applied", &DeleteParams::default()).await?;
    writing.restored(1).await?;
    assert_eq!(value("healed-applied").await?, b"new");
    writing.stop().await?;
    Ok(())
}

/// Set for the process that the next test kills.
const VICTIM: &str = "TESTBED_TEST_VICTIM";

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_test_process_ends_everything() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        println!("\nstarted: {}", everything().await?);
        return std::future::pending().await;
    }
    // Built before, so that the time limit covers only its start.
    TestEnvironment::shared().await?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "killing_the_test_process_ends_everything", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("no output")?).lines();
    let started = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("started: ").map(str::to_owned));
    victim.kill()?;
    victim.wait()?;
    let (dir, pids): (String, Vec<u32>) = serde_json::from_str(&started.context("it did not come up")?)?;
    assert!(pids.len() >= 9, "{pids:?}");
    let left = || {
        let runs = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        (pids.iter().filter(runs).count(), Path::new(&dir).exists())
    };
    let killed = Instant::now();
    while left() != (0, false) {
        assert!(
            killed.elapsed() < Duration::from_secs(20),
            "still there (processes, directory): {:?}",
            left()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("everything gone after {:?}", killed.elapsed());
    Ok(())
}

/// Starts all parts, and prints the directory and the process ids.
async fn everything() -> Result<serde_json::Value> {
    let environment = TestEnvironment::shared().await?;
    let rancher = environment.rancher(TokenStorage::Secret).await?;
    let mut pids = vec![rancher.process().pid()];
    pids.extend(environment.management(TokenStorage::Secret).await?.pids().await);
    pids.extend(environment.downstream().await?.pids().await);
    Ok(json!([environment.dir(), pids]))
}
