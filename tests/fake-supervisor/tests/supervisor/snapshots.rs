//! Snapshots on demand, and the hash that says which token they need.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NEW, OLD, OTHER, fingerprint, unpinned};

async fn snapshot(cluster: &Cluster, server: &str, body: Value) -> (u16, Value) {
    let login = Some(("server", OLD));
    let response = cluster
        .send(server, Method::POST, "/db/snapshot", login, &body.to_string())
        .await
        .unwrap();
    (response.status, serde_json::from_str(&response.body).unwrap())
}

async fn save(cluster: &Cluster, server: &str, name: &str) -> (String, String) {
    let (status, answer) = snapshot(cluster, server, json!({"operation": "save", "name": [name]})).await;
    assert_eq!(status, 200, "{answer}");
    let name = answer["created"][0].as_str().unwrap().to_owned();
    let (_, list) = snapshot(cluster, server, json!({"operation": "list"})).await;
    let items = list["items"].as_array().unwrap();
    let item = items
        .iter()
        .find(|item| item["spec"]["snapshotName"] == name.as_str())
        .unwrap();
    let hash = &item["metadata"]["annotations"]["etcd.k3s.cattle.io/snapshot-token-hash"];
    (name, hash.as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_is_that_of_the_servers_own_token_file() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(save(&cluster, "s2", "a").await.1, fingerprint(OLD));
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    assert_eq!(save(&cluster, "s1", "a").await.1, fingerprint(NEW));
    assert_eq!(save(&cluster, "s2", "a").await.1, fingerprint(OLD), "not placed");
    assert_eq!(cluster.put("s2", OLD, OTHER).await, 500);
    assert_eq!(save(&cluster, "s2", "a").await.1, fingerprint(OTHER), "poisoned");
    assert_eq!(cluster.put("s2", OLD, NEW).await, 200);
    assert_eq!(save(&cluster, "s2", "a").await.1, fingerprint(NEW), "healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_deleted_by_name_and_pruned_by_the_prefix_of_the_name() {
    let cluster = Cluster::start(unpinned()).await;
    let (first, _) = save(&cluster, "s1", "run").await;
    let (deleted, _) = save(&cluster, "s1", "run").await;
    let (status, answer) = snapshot(&cluster, "s1", json!({"operation": "delete", "name": [deleted]})).await;
    assert_eq!((status, answer), (200, json!({"deleted": [deleted]})));
    for _ in 0..5 {
        save(&cluster, "s1", "run").await;
    }
    let kept = cluster.state().await["datastore"]["snapshots"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(kept.len(), 5);
    assert!(kept.iter().all(|snapshot| snapshot["name"] != first.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operation_is_refused() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(snapshot(&cluster, "s1", json!({"operation": "bogus"})).await.0, 400);
    let anonymous = cluster
        .send("s1", Method::POST, "/db/snapshot", None, r#"{"operation":"list"}"#)
        .await
        .unwrap();
    assert_eq!(anonymous.status, 403);
}
