//! Nodes that join as agents.

use serde_json::{Value, json};

use crate::cluster::{Cluster, NEW, OLD, unpinned};

async fn join(cluster: &Cluster, token: &str) -> Value {
    let body = json!({"name": "a1", "token": token});
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    cluster.post("/agents", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_joins_with_what_its_server_accepts_and_the_hash_of_its_ca() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(join(&cluster, OLD).await["joined"], true);
    let full = std::fs::read_to_string(cluster.file("s1", "token")).unwrap();
    assert_eq!(join(&cluster, full.trim()).await["joined"], true);
    let wrong_hash = format!("K10{}::server:{OLD}", "a".repeat(64));
    let error = join(&cluster, &wrong_hash).await["error"].to_string();
    assert!(
        error.contains("token CA hash does not match the Cluster CA certificate hash"),
        "{error}"
    );
    let short = join(&cluster, &format!("K10ab::server:{OLD}")).await["error"].to_string();
    assert!(short.contains("invalid token CA hash length"), "{short}");
    assert_eq!(join(&cluster, NEW).await["status"], 401);
    // No Secret: there is no API server.
    assert_eq!(join(&cluster, "abcdef.0123456789abcdef").await["status"], 401);
}
