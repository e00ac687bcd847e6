//! The answers of the supervisor's routes by login, and while a server starts.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NEW, OLD, servers, sha256};

const SERVER: Option<(&str, &str)> = Some(("server", OLD));
const NODE: Option<(&str, &str)> = Some(("node", OLD));
const WRONG: Option<(&str, &str)> = Some(("server", "wrong"));

#[tokio::test(flavor = "multi_thread")]
async fn each_route_answers_by_login() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let rows = [
        ("token", SERVER, 405),
        ("token", WRONG, 401),
        ("token", None, 403),
        ("token", NODE, 403),
        ("encrypt/status", SERVER, 200),
        ("encrypt/status", WRONG, 401),
        ("encrypt/status", None, 403),
        ("server-bootstrap", SERVER, 200),
        ("server-bootstrap", WRONG, 401),
        ("server-bootstrap", None, 403),
        ("readyz", NODE, 200),
        ("config", NODE, 200),
        ("readyz", Some(("node", "wrong")), 401),
        ("readyz", None, 403),
        ("readyz", SERVER, 403),
        ("token", Some(("admin", OLD)), 401),
    ];
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    for (route, login, status) in rows {
        let path = format!("/v1-k3s/{route}");
        assert_eq!(cluster.get("s1", &path, login).await, status, "{route} {login:?}");
    }
    for (method, login, status) in [
        (Method::POST, SERVER, 405),
        (Method::PUT, NODE, 403),
        (Method::PUT, None, 403),
        (Method::PUT, WRONG, 401),
    ] {
        let sent = cluster
            .send("s1", method.clone(), "/v1-k3s/token", login, "{}")
            .await
            .unwrap();
        assert_eq!(sent.status, status, "{method} {login:?}");
    }
    let ca = cluster.send("s1", Method::GET, "/cacerts", None, "").await.unwrap();
    assert_eq!((ca.status, ca.body), (200, cluster.ca_pem()));
    assert_eq!(cluster.get("s1", "/ping", None).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_a_status_on_one_line_and_its_reason_is_in_the_log() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let rejected = cluster
        .send("s1", Method::GET, "/v1-k3s/token", WRONG, "")
        .await
        .unwrap();
    assert_eq!(rejected.body.trim_end().lines().count(), 1);
    let status: Value = serde_json::from_str(&rejected.body).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["message"], "not authorized");
    let body = json!({"newToken": "K10foo"}).to_string();
    let failed = cluster
        .send("s1", Method::PUT, "/v1-k3s/token", SERVER, &body)
        .await
        .unwrap();
    let message = serde_json::from_str::<Value>(&failed.body).unwrap()["message"].clone();
    let message = message.as_str().unwrap();
    assert!(
        message.starts_with("token error ID ") && !message.contains("normalize"),
        "{message}"
    );
    assert!(
        cluster
            .log("s1")
            .contains(&format!("{message}: failed to normalize server token"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starting_server_is_503_then_accepts_logins_but_a_new_value_poisons_it() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let hold = async |phase: Value| {
        cluster.faults("s1", json!({"hold": phase})).await;
    };
    let reached = async |phase: &str| {
        cluster.until(|state| state["servers"]["s1"]["phase"] == phase).await;
    };
    hold(json!("unavailable")).await;
    cluster.post("/nodes/s1/restart", json!({"wait": false})).await;
    reached("unavailable").await;
    for login in [SERVER, WRONG, None] {
        assert_eq!(cluster.get("s1", "/v1-k3s/token", login).await, 503, "{login:?}");
    }
    hold(json!("login")).await;
    reached("login").await;
    assert_eq!(
        (cluster.probe("s1", OLD).await, cluster.probe("s1", NEW).await),
        (405, 401)
    );
    assert_eq!(cluster.get("s1", "/v1-k3s/readyz", NODE).await, 503);
    assert_eq!(cluster.get("s1", "/v1-k3s/encrypt/status", SERVER).await, 500);
    assert_eq!(cluster.get("s1", "/readyz", None).await, 503);
    assert_eq!(cluster.put("s1", OLD, NEW).await, 500);
    hold(json!(null)).await;
    reached("ready").await;
    // Both files have the new value, the datastore has not.
    assert_eq!(cluster.put("s1", OLD, NEW).await, 500);
    assert_eq!(cluster.put("s1", OLD, OLD).await, 200);
    cluster.starts("s1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_last_until_the_restart() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    assert_eq!(
        (cluster.probe("s1", OLD).await, cluster.probe("s1", NEW).await),
        (405, 401)
    );
    cluster.starts("s1").await;
    assert_eq!(
        (cluster.probe("s1", OLD).await, cluster.probe("s1", NEW).await),
        (401, 405)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_no_snapshots_and_fails_with_the_old_token() {
    let mut config = servers("config", 1);
    config["datastore"] = json!("sqlite");
    let cluster = Cluster::start(config).await;
    let snapshot = cluster
        .send("s1", Method::POST, "/db/snapshot", SERVER, r#"{"operation":"save"}"#)
        .await
        .unwrap();
    assert_eq!(snapshot.status, 400);
    assert!(snapshot.body.contains("etcd datastore disabled"));
    assert_eq!(cluster.get("s1", "/v1-k3s/server-bootstrap", SERVER).await, 400);
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster
        .fails("s1", "failed to bootstrap cluster data: bootstrap data already found")
        .await;
    cluster.pin("s1", "nowhere", None).await;
    cluster.starts("s1").await;
    assert_eq!(cluster.probe("s1", NEW).await, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_a_bundle_is_that_of_its_root() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    for shape in ["single", "bundle"] {
        let mut config = servers("config", 1);
        config["ca"] = json!(shape);
        let cluster = Cluster::start(config).await;
        let pem = cluster.ca_pem();
        let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(Result::unwrap)
            .collect();
        let hash = match all.as_slice() {
            [_] => sha256(pem.as_bytes()),
            all => sha256(all.last().unwrap()),
        };
        assert_eq!(all.len(), if shape == "single" { 1 } else { 2 });
        let token = std::fs::read_to_string(cluster.file("s1", "token")).unwrap();
        assert_eq!(token.trim(), format!("K10{hash}::server:{OLD}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rke2_has_its_own_port_and_prefix() {
    let mut config = servers("config", 1);
    config["distribution"] = json!("rke2");
    let cluster = Cluster::start(config).await;
    assert_eq!(cluster.get("s1", "/v1-rke2/token", SERVER).await, 405);
    assert_eq!(cluster.get("s1", "/v1-k3s/token", SERVER).await, 404);
}
