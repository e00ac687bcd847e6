//! What is read from the Kubernetes API, and the readiness of one API server.

use client::connection::{Connection, ConnectionOptions, Environment};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use supervisor::ready::{ApiReadiness, api_ready};
use supervisor::{SupervisorKind, node, snapshot};

use crate::server::{FakeServer, Identity, Reply, reply};

/// An API server that answers one path with this, and 404 to any other.
fn api(path: &'static str, body: Value) -> kube::Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (code, body) = if request.uri().path() == path {
                (200, body.to_string())
            } else {
                (404, String::new())
            };
            send.send_response(
                Response::builder()
                    .status(code)
                    .body(Body::from(body.into_bytes()))
                    .unwrap(),
            );
        }
    });
    kube::Client::new(service, "default")
}

const SNAPSHOTS: &str = "/apis/k3s.cattle.io/v1/etcdsnapshotfiles";

#[tokio::test]
async fn snapshots_show_the_hash_of_their_token() {
    let file = |name: &str, annotations: Value| {
        json!({
            "metadata": { "name": name, "annotations": annotations },
            "spec": { "snapshotName": format!("{name}-s1-1700000000"), "nodeName": "s1" },
            "status": { "readyToUse": true, "creationTime": "2026-01-01T00:00:00Z", "error": null },
        })
    };
    let items = json!([
        file("a", json!({ "etcd.k3s.cattle.io/snapshot-token-hash": "f52fbd32b2b3" })),
        file("b", json!({ "etcd.rke2.cattle.io/snapshot-token-hash": "f52fbd32b2b3" })),
        file("c", json!({ "etcd.k3s.cattle.io/snapshot-token-hash": "?" })),
        { "metadata": { "name": "d" }, "spec": 7 },
    ]);
    let client = api(SNAPSHOTS, json!({ "items": items }));
    let list = |kind| snapshot::list(&client, kind);
    let hashes = |files: Vec<snapshot::SnapshotFile>| -> Vec<Option<String>> {
        files
            .iter()
            .map(|file| file.token_hash.map(|hash| hash.to_string()))
            .collect()
    };
    let (k3s, rke2) = (
        list(SupervisorKind::K3s).await.unwrap(),
        list(SupervisorKind::Rke2).await.unwrap(),
    );
    assert_eq!((k3s[0].name.as_str(), k3s[0].node.as_str()), ("a-s1-1700000000", "s1"));
    assert!(k3s[0].is_ready && !k3s[3].is_ready);
    let hash = Some("f52fbd32b2b3".to_owned());
    assert_eq!(hashes(k3s), [hash.clone(), None, None, None]);
    assert_eq!(hashes(rke2), [None, hash, None, None]);
}

#[tokio::test]
async fn without_the_kind_there_are_no_snapshots() {
    assert_eq!(
        snapshot::list(&api("/none", json!({})), SupervisorKind::K3s)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn nodes_are_listed_and_harvester_is_recognized() {
    let items =
        json!([{ "metadata": { "name": "s1" }, "status": { "nodeInfo": { "kubeletVersion": "v1.36.3+k3s1" } } }]);
    let nodes = node::list(&api("/api/v1/nodes", json!({ "items": items })))
        .await
        .unwrap();
    assert_eq!(
        (nodes[0].name.as_str(), nodes[0].version.as_str()),
        ("s1", "v1.36.3+k3s1")
    );
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/settings.harvesterhci.io";
    let definition = json!({ "metadata": { "name": "settings.harvesterhci.io" } });
    assert!(node::is_harvester(&api(path, definition)).await.unwrap());
    assert!(!node::is_harvester(&api("/none", json!({}))).await.unwrap());
}

/// A kubeconfig for another server, with this CA.
fn kubeconfig(ca: &str, more: &str) -> Connection {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    std::fs::write(directory.path().join("ca.crt"), ca).unwrap();
    let trust = if ca.is_empty() {
        ""
    } else {
        ", certificate-authority: ca.crt"
    };
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://192.0.2.1:6443'{trust}{more}}}}}]\n\
         users: [{{name: u, user: {{token: kubeconfig-token}}}}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let options = ConnectionOptions {
        kubeconfig: Some(file),
        ..ConnectionOptions::default()
    };
    options.load(&Environment::silent()).unwrap()
}

fn kind(readiness: &ApiReadiness) -> &'static str {
    match readiness {
        ApiReadiness::Ready => "ready",
        ApiReadiness::NotReady(_) => "not ready",
        ApiReadiness::NotUsable(_) => "not usable",
    }
}

#[tokio::test]
async fn readiness_is_asked_of_each_server_with_the_kubeconfig() {
    for (answer, expected) in [
        (reply(200, "ok"), "ready"),
        (reply(500, "[-]etcd failed"), "not ready"),
        (reply(401, ""), "not usable"),
        (reply(403, ""), "not usable"),
        (reply(404, ""), "not usable"),
    ] {
        let server = FakeServer::start(move |_| answer.clone()).await;
        let readiness = api_ready(&kubeconfig(&server.ca(), ""), &server.address).await;
        assert_eq!(kind(&readiness), expected, "{readiness:?}");
        let request = &server.recorded()[0];
        assert_eq!(
            (request.target.as_str(), &request.headers["authorization"]),
            ("GET /readyz", &"Bearer kubeconfig-token".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn the_kubeconfig_is_not_shown_to_a_server_that_its_ca_has_not_signed() {
    let server = FakeServer::start(|_| -> Reply { reply(200, "ok") }).await;
    let other = Identity::new().ca;
    let insecure = kubeconfig("", ", insecure-skip-tls-verify: true");
    for kubeconfig in [kubeconfig(&other, ""), kubeconfig("", ""), insecure] {
        let readiness = api_ready(&kubeconfig, &server.address).await;
        assert_eq!(kind(&readiness), "not usable", "{readiness:?}");
    }
    assert!(server.all().is_empty());
}
