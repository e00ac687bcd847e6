//! The parts of the fake supervisor that need a real API server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use test_cluster::{ControlPlane, FakeSupervisor, FakeSupervisorOptions, Shape, TestEnvironment};

const OLD: &str = "old-0123456789abcdef";
const NEW: &str = "new-0123456789abcdef";

/// A client of one server's own API port.
async fn client(cluster: &FakeSupervisor, server: &str) -> Result<kube::Client> {
    let file: Kubeconfig = serde_json::from_value(serde_json::to_value(cluster.kubeconfig().current(server))?)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

async fn put(cluster: &FakeSupervisor, server: &str, old: &str, new: &str) -> Result<u16> {
    let login = STANDARD.encode(format!("server:{old}"));
    let request = http::Request::put("/v1-k3s/token")
        .header("authorization", format!("Basic {login}"))
        .body(kube::client::Body::from(
            json!({"newToken": new}).to_string().into_bytes(),
        ))?;
    let mut config = kube::Config::new(format!("https://{}:6443", cluster.address(server)?).parse()?);
    config.accept_invalid_certs = true;
    Ok(kube::Client::try_from(config)?.send(request).await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_snapshots_and_bootstrap_tokens_are_in_the_real_api_server() -> Result<()> {
    let environment = TestEnvironment::shared().await?;
    let dir = environment.dir().join("k3s");
    let plane = ControlPlane::start(environment.programs(), &dir, "k3s", Shape::WithoutNodes).await?;
    let mut cluster = FakeSupervisor::start(FakeSupervisorOptions {
        plane: &plane,
        dir: &environment.dir().join("fake-supervisor"),
        cluster: json!({"token": OLD, "servers": [
            {"name": "s1", "pin": "nowhere"}, {"name": "s2", "pin": "config"}, {"name": "s3", "pin": "env"},
        ]}),
    })
    .await?;
    let api = client(&cluster, "s1").await?;
    let nodes: Api<Node> = Api::all(api.clone());

    // The configuration of the last start is in the annotations, masked.
    for (name, arguments, environment) in [("s1", false, false), ("s2", true, false), ("s3", false, true)] {
        let node = nodes.get(name).await?;
        let annotation = |key: &str| {
            node.metadata
                .annotations
                .iter()
                .flatten()
                .find(|(k, _)| *k == key)
                .map(|(_, v)| v.clone())
        };
        let (args, env) = (annotation("k3s.io/node-args"), annotation("k3s.io/node-env"));
        let (args, env) = (args.context("no node-args")?, env.context("no node-env")?);
        assert_eq!(args.contains(r#""--token","********""#), arguments, "{args}");
        assert_eq!(env.contains(r#""K3S_TOKEN":"********""#), environment, "{env}");
        let status = node.status.context("no status")?;
        for condition in ["Ready", "EtcdIsVoter"] {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == condition);
            assert_eq!(found.map(|c| c.status.as_str()), Some("True"), "{name} {condition}");
        }
        let addresses = status.addresses.unwrap_or_default();
        assert!(
            addresses
                .iter()
                .any(|a| a.type_ == "InternalIP" && a.address == cluster.address(name).unwrap())
        );
    }

    // Each server has its own API port, which is away with it.
    let second = client(&cluster, "s2").await?;
    second.apiserver_version().await?;
    cluster.stop_server("s2").await?;
    assert!(second.apiserver_version().await.is_err());
    api.apiserver_version().await?;
    assert!(cluster.start_server("s2").await?);
    second.apiserver_version().await?;

    // A snapshot is an object with the hash of the server's file.
    assert_eq!(put(&cluster, "s1", OLD, NEW).await?, 200);
    let login = STANDARD.encode(format!("server:{OLD}"));
    let request = http::Request::post("/db/snapshot")
        .header("authorization", format!("Basic {login}"))
        .body(kube::client::Body::from(
            br#"{"operation":"save","name":["run"]}"#.to_vec(),
        ))?;
    let mut config = kube::Config::new(format!("https://{}:6443", cluster.address("s1")?).parse()?);
    config.accept_invalid_certs = true;
    let response = kube::Client::try_from(config)?.send(request).await?;
    assert_eq!(response.status(), 200);
    let list = FakeSupervisor::snapshot_files(api.clone())
        .list(&ListParams::default())
        .await?;
    let hashes: Vec<_> = list
        .iter()
        .map(|s| s.metadata.annotations.clone().unwrap_or_default())
        .collect();
    let state = cluster.state().await?;
    let fingerprint = state["servers"]["s1"]["files"]["token"]["fingerprint"]
        .as_str()
        .context("no token")?;
    assert_eq!(hashes.len(), 1);
    assert_eq!(
        hashes[0]
            .get("etcd.k3s.cattle.io/snapshot-token-hash")
            .map(String::as_str),
        Some(fingerprint)
    );

    // A bootstrap token joins an agent while its Secret exists.
    let secrets: Api<Secret> = Api::namespaced(api.clone(), "kube-system");
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"},
    }))?;
    secrets.create(&PostParams::default(), &secret).await?;
    cluster
        .wait_for("s1 to be ready", |state| state["servers"]["s1"]["phase"] == "ready")
        .await?;
    assert_eq!(cluster.join_agent("a1", "abcdef.0123456789abcdef").await?, None);
    assert!(nodes.get_opt("a1").await?.is_some());
    secrets
        .delete("bootstrap-token-abcdef", &DeleteParams::default())
        .await?;
    let revoked = async {
        while cluster.join_agent("a1", "abcdef.0123456789abcdef").await?.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), revoked).await??;

    // A member leaves when its Node is deleted.
    assert_eq!(put(&cluster, "s2", OLD, NEW).await?, 200);
    assert_eq!(put(&cluster, "s3", OLD, NEW).await?, 200);
    assert!(!cluster.add_server("s4", OLD).await?, "it exits when it saves");
    cluster.stop_server("s4").await?;
    let members = |state: &serde_json::Value| state["datastore"]["members"].as_array().map_or(0, Vec::len);
    assert_eq!(members(&cluster.state().await?), 4);
    nodes.delete("s4", &DeleteParams::default()).await?;
    cluster
        .wait_for("the member to leave", |state| members(state) == 3)
        .await?;

    // A server that stays away is NotReady.
    cluster.stop_server("s3").await?;
    let lost = async {
        loop {
            let status = nodes.get("s3").await?.status.unwrap_or_default();
            let ready = status.conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
            if ready.is_some_and(|ready| ready.status == "Unknown") {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), lost).await??;
    Ok(())
}
