//! Secrets-encryption files, which every PUT saves.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NEW, OLD, TRAP, unpinned};

async fn status(cluster: &Cluster, server: &str) -> Value {
    let login = Some(("server", OLD));
    let response = cluster
        .send(server, Method::GET, "/v1-k3s/encrypt/status", login, "")
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    serde_json::from_str(&response.body).unwrap()
}

async fn encrypted() -> Cluster {
    let mut config = unpinned();
    config["encryption"] = json!(true);
    let cluster = Cluster::start(config).await;
    cluster
        .until(|state| (1..=3).all(|n| state["servers"][format!("s{n}")]["phase"] == "ready"))
        .await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_stage_keys_and_whether_the_servers_agree() {
    let cluster = encrypted().await;
    let healthy = json!({"stage": "start", "activekey": "AES-CBC aescbckey", "enable": true, "hashmatch": true});
    for server in ["s1", "s2", "s3"] {
        assert_eq!(status(&cluster, server).await, healthy, "{server}");
    }
    cluster.post("/nodes/s1/encryption", json!({"stage": "prepare"})).await;
    let (first, second) = (status(&cluster, "s1").await, status(&cluster, "s2").await);
    assert_eq!(
        (&first["stage"], &second["stage"]),
        (&json!("prepare"), &json!("start"))
    );
    assert!(
        first["inactivekeys"].is_array() && first["hashmatch"].is_null(),
        "{first}"
    );
    assert_eq!(second["hasherror"], "hash does not match between s1 and s2");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_the_status_is_empty() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    assert_eq!(status(&cluster, "s1").await, json!({"stage": "", "activekey": ""}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_after_prepare_makes_the_next_start_fatal() {
    let cluster = encrypted().await;
    cluster.post("/nodes/s1/encryption", json!({"stage": "prepare"})).await;
    cluster.round(OLD, NEW).await;
    cluster.fails("s1", TRAP).await;
    let log = cluster.log("s1");
    let line = log.lines().rfind(|line| line.contains(TRAP)).unwrap();
    assert!(
        line.contains("encryption-config.json, ") && line.contains("encryption-state.json "),
        "{line}"
    );
    assert!(!line.contains("passwd"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_the_files_after_rotate_keys_loses_every_secret() {
    let cluster = encrypted().await;
    cluster
        .post("/nodes/s1/encryption", json!({"stage": "rotate_keys"}))
        .await;
    assert_eq!(status(&cluster, "s1").await["stage"], "reencrypt_finished");
    cluster.round(OLD, NEW).await;
    cluster.fails("s1", TRAP).await;
    for name in ["cred/encryption-config.json", "cred/encryption-state.json"] {
        std::fs::remove_file(cluster.file("s1", name)).unwrap();
    }
    cluster.post("/nodes/s1/start", json!({"wait": false})).await;
    cluster.until(|state| state["servers"]["s1"]["phase"] == "etcd").await;
    for _ in 0..100 {
        if cluster
            .log("s1")
            .contains("no matching key was found for the provided AES transformer")
        {
            assert_ne!(cluster.get("s1", "/readyz", None).await, 200);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{}", cluster.log("s1"));
}
