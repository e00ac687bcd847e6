//! Node access, and the faults of the network and of time.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, NEW, OLD, fingerprint, servers, unpinned};

#[tokio::test(flavor = "multi_thread")]
async fn a_script_on_a_node_finds_its_unit_and_restarts_it() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let (code, out) = cluster
        .exec(
            "s1",
            "systemctl is-active k3s && systemctl show -p FragmentPath --value k3s",
        )
        .await;
    assert_eq!(code, 0);
    let unit = out.lines().nth(1).unwrap();
    assert!(
        out.starts_with("active\n") && std::fs::read_to_string(unit).unwrap().contains("ExecStart="),
        "{out}"
    );
    let (code, out) = cluster.exec("s1", "systemctl show -p ExecStart,MainPID k3s").await;
    let config = cluster.root("s1").join("etc/rancher/k3s/config.yaml");
    assert!(
        code == 0 && out.contains(&format!("--config {}", config.display())) && out.contains("MainPID="),
        "{out}"
    );
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    let script = "sed -i '/^token:/d' \"$(systemctl show -p ExecStart k3s | sed 's/.*--config \\([^ ]*\\).*/\\1/')\"; \
                  systemctl restart k3s; echo $?";
    assert_eq!(cluster.exec("s1", script).await, (0, "0\n".to_owned()));
    assert_eq!(cluster.probe("s1", NEW).await, 405);
    let (code, out) = cluster.exec("s1", "journalctl -u k3s --no-pager").await;
    assert!(code == 0 && out.contains("Bootstrap key already exists"), "{out}");
    assert_eq!(cluster.exec("s1", "systemctl restart nginx").await.0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_returns_when_it_is_ready_or_has_failed_and_at_once_without_blocking() {
    let cluster = Cluster::start(servers("config", 1)).await;
    cluster.faults("s1", json!({"hold": "login"})).await;
    assert_eq!(
        cluster.exec("s1", "systemctl stop k3s; systemctl is-active k3s").await,
        (3, "inactive\n".to_owned())
    );
    assert_eq!(
        cluster
            .exec("s1", "systemctl --no-block start k3s; systemctl is-active k3s")
            .await
            .1,
        "activating\n"
    );
    cluster.faults("s1", json!({"hold": null})).await;
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    assert_eq!(cluster.exec("s1", "systemctl restart k3s").await.0, 1);
    // Restart=always: it keeps failing.
    cluster
        .until(|state| state["servers"]["s1"]["unit"]["failures"].as_u64() > Some(1))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_of_a_unit_need_a_daemon_reload_and_its_environment_file_does_not() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    let unit = cluster.root("s1").join("etc/systemd/system/k3s.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("server \\\n", "server --token=wrong \\\n")).unwrap();
    let (_, out) = cluster
        .exec(
            "s1",
            "systemctl restart k3s; echo $?; systemctl show -p NeedDaemonReload k3s",
        )
        .await;
    assert_eq!(out, "0\nNeedDaemonReload=yes\n");
    assert_eq!(
        cluster
            .exec("s1", "systemctl daemon-reload; systemctl restart k3s")
            .await
            .0,
        1
    );
    std::fs::write(&unit, text).unwrap();
    assert_eq!(
        cluster
            .exec("s1", "systemctl daemon-reload; systemctl restart k3s")
            .await
            .0,
        0
    );
    std::fs::write(unit.with_extension("service.env"), "K3S_TOKEN=wrong\n").unwrap();
    assert_eq!(cluster.exec("s1", "systemctl restart k3s").await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_put_is_handled_after_its_client_has_gone() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.faults("s1", json!({"delay": 1.5})).await;
    let gone = tokio::time::timeout(Duration::from_millis(700), cluster.put("s1", OLD, NEW)).await;
    assert!(gone.is_err());
    assert_eq!(cluster.state().await["datastore"]["keys"], json!([fingerprint(OLD)]));
    cluster
        .until(|state| state["datastore"]["keys"] == json!([fingerprint(NEW)]))
        .await;
    // No login tells.
    assert_eq!(
        (cluster.probe("s1", OLD).await, cluster.probe("s1", NEW).await),
        (405, 401)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_server_does_not_answer_and_catches_up_afterwards() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.faults("s3", json!({"cut": true})).await;
    let answer = tokio::time::timeout(Duration::from_millis(300), cluster.probe("s3", OLD)).await;
    assert!(answer.is_err());
    assert_eq!(cluster.exec("s3", "true").await.0, 255);
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    let copy = |state: &serde_json::Value| state["servers"]["s3"]["copy"]["keys"].clone();
    assert_eq!(copy(&cluster.state().await), json!([fingerprint(OLD)]));
    cluster.faults("s3", json!({"cut": false})).await;
    cluster.until(|state| copy(state) == json!([fingerprint(NEW)])).await;
    assert_eq!(cluster.put("s3", OLD, NEW).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_shows_in_the_date_of_every_answer() {
    let cluster = Cluster::start(servers("config", 1)).await;
    cluster.faults("s1", json!({"ahead": 7200.0})).await;
    let answer = cluster.send("s1", Method::GET, "/ping", None, "").await.unwrap();
    let date = answer.headers["date"].to_str().unwrap();
    let date = k8s_openapi::jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let ahead = date.duration_since(k8s_openapi::jiff::Timestamp::now()).as_secs();
    assert!((7190..=7201).contains(&ahead), "{ahead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_log_names_users_and_no_password() {
    let cluster = Cluster::start(servers("config", 1)).await;
    cluster.probe("s1", "a-wrong-password").await;
    cluster.put("s1", OLD, NEW).await;
    let requests = cluster.control(Method::GET, "/requests", json!(null)).await;
    let last: Vec<_> = requests.as_array().unwrap().iter().rev().take(2).collect();
    assert_eq!(
        (&last[0]["method"], &last[0]["status"], &last[0]["user"]),
        (&json!("PUT"), &json!(200), &json!("server"))
    );
    assert_eq!((&last[1]["method"], &last[1]["status"]), (&json!("GET"), &json!(401)));
    let all = requests.to_string() + &cluster.state().await.to_string();
    for secret in [OLD, NEW, "a-wrong-password"] {
        assert!(!all.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_scaled_part_of_8_s() {
    let mut config = servers("config", 1);
    config["timing"] = json!({"scale": 0.125});
    let cluster = Cluster::start(config).await;
    let start = Instant::now();
    assert_eq!(cluster.post("/nodes/s1/restart", json!({})).await["ready"], true);
    assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_handed_to_systemd_outlives_the_script() {
    let cluster = Cluster::start(servers("config", 1)).await;
    let (code, _) = cluster
        .exec(
            "s1",
            "systemd-run --on-active=2 --collect systemctl --no-block restart k3s",
        )
        .await;
    assert_eq!(code, 0);
    cluster
        .until(|state| state["servers"]["s1"]["unit"]["starts"] == 2 && state["servers"]["s1"]["phase"] == "ready")
        .await;
}
