//! Restarts after a PUT: where the token is configured decides what happens.

use serde_json::json;

use crate::cluster::{Cluster, NEW, OLD, SAVE, STALE, TRAP, fingerprint, pinned, servers, unpinned};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_server_fails_with_the_old_token_and_starts_with_the_new_one() {
    let cluster = Cluster::start(pinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.fails("s1", STALE).await;
    cluster.fails("s1", STALE).await;
    cluster.pin("s1", "config", Some(NEW)).await;
    cluster.starts("s1").await;
    let log = cluster.log("s1");
    assert!(
        log.contains("Successfully reconciled with local datastore") && log.contains("Bootstrap key already exists")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_server_with_the_old_token_fails_when_it_saves_and_then_by_the_trap() {
    let cluster = Cluster::start(pinned()).await;
    cluster.round(OLD, NEW).await;
    cluster.a_minute_passes().await;
    cluster.fails("s2", SAVE).await;
    assert_eq!(
        cluster.state().await["servers"]["s2"]["files"]["cred/passwd"]["server"],
        fingerprint(OLD)
    );
    cluster.fails("s2", &format!("cred/passwd {TRAP}")).await;
    std::fs::remove_file(cluster.file("s2", "cred/passwd")).unwrap();
    cluster.pin("s2", "config", Some(NEW)).await;
    cluster.starts("s2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_server_with_the_old_token_that_its_join_server_rejects_fails_without_the_trap() {
    let cluster = Cluster::start(pinned()).await;
    cluster.round(OLD, NEW).await;
    cluster.pin("s1", "config", Some(NEW)).await;
    cluster.starts("s1").await;
    cluster.a_minute_passes().await;
    cluster.fails("s2", STALE).await;
    cluster.pin("s2", "nowhere", None).await;
    cluster.starts("s2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_token_starts_although_the_join_server_rejects_it() {
    let cluster = Cluster::start(pinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.pin("s2", "config", Some(NEW)).await;
    cluster.starts("s2").await;
    let log = cluster.log("s2");
    for line in [
        "Unable to reconcile with remote datastore: not authorized",
        "passwd will be updated from the datastore",
        "Successfully reconciled with local datastore",
        "Bootstrap key already exists",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(cluster.probe("s2", NEW).await, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configured_token_a_placed_server_starts_and_another_fails_without_the_trap() {
    let cluster = Cluster::start(unpinned()).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    assert_eq!(cluster.put("s2", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.starts("s2").await;
    cluster.fails("s3", STALE).await;
    // §12: its file alone rescues it.
    cluster.write_token("s3", NEW);
    cluster.starts("s3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_is_rejected_with_the_new_token_and_becomes_a_failed_member_with_the_old_one() {
    let cluster = Cluster::start(unpinned()).await;
    cluster.round(OLD, NEW).await;
    cluster.a_minute_passes().await;
    let join = |n: u8, token: &str| json!({"name": format!("s{n}"), "address": cluster.address(&format!("s{n}")), "token": token});
    assert_eq!(cluster.post("/nodes", join(4, NEW)).await["ready"], false);
    cluster.stop("s4").await;
    assert!(
        cluster
            .log("s4")
            .contains("failed to bootstrap cluster data: not authorized")
    );
    assert_eq!(cluster.state().await["datastore"]["members"], json!(["s1", "s2", "s3"]));
    assert_eq!(cluster.post("/nodes", join(5, OLD)).await["ready"], false);
    cluster.stop("s5").await;
    assert!(cluster.log("s5").contains(SAVE));
    assert_eq!(
        cluster.state().await["datastore"]["members"],
        json!(["s1", "s2", "s3", "s5"])
    );
    // Three of four are a quorum, two are not.
    cluster.stop("s3").await;
    assert_eq!(cluster.state().await["datastore"]["quorum"], false);
    assert_eq!(cluster.get("s1", "/readyz", None).await, 500);
    assert_eq!(cluster.put("s1", OLD, NEW).await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_down_during_the_rotation_needs_one_start_with_the_old_token() {
    let cluster = Cluster::start(pinned()).await;
    cluster.stop("s3").await;
    for server in ["s1", "s2"] {
        assert_eq!(cluster.put(server, OLD, NEW).await, 200);
    }
    for server in ["s1", "s2"] {
        cluster.pin(server, "nowhere", None).await;
        cluster.starts(server).await;
    }
    cluster.a_minute_passes().await;
    cluster.pin("s3", "nowhere", None).await;
    cluster.write_token("s3", NEW);
    cluster.fails("s3", STALE).await;
    cluster.pin("s3", "config", Some(OLD)).await;
    cluster.fails("s3", SAVE).await;
    cluster.pin("s3", "config", Some(NEW)).await;
    cluster.starts("s3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_place_of_the_token_is_read_with_its_precedence() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    let (root, url) = (cluster.root("s1"), fingerprint("env"));
    let configured = async || cluster.state().await["servers"]["s1"]["configured"].clone();
    assert_eq!(configured().await, json!(null));
    let etc = root.join("etc/rancher/k3s");
    std::fs::write(root.join("etc/systemd/system/k3s.service.env"), "K3S_TOKEN='env'\n").unwrap();
    assert_eq!(configured().await, json!(url));
    let config = std::fs::read_to_string(etc.join("config.yaml")).unwrap();
    std::fs::write(etc.join("config.yaml"), format!("{config}token: config\n")).unwrap();
    assert_eq!(configured().await, json!(fingerprint("config")));
    std::fs::write(etc.join("config.yaml.d/20.yml"), "token: dir\n").unwrap();
    std::fs::write(etc.join("config.yaml.d/10.yaml"), "token: earlier\n").unwrap();
    std::fs::write(etc.join("config.yaml.d/30.bak"), "token: backup\n").unwrap();
    assert_eq!(configured().await, json!(fingerprint("dir")));
    let unit = root.join("etc/systemd/system/k3s.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("server \\\n", "server --token=flag \\\n")).unwrap();
    assert_eq!(configured().await, json!(fingerprint("flag")));
    std::fs::write(etc.join("secret"), "file\n").unwrap();
    let line = format!("token-file: {}\n", etc.join("secret").display());
    std::fs::write(etc.join("config.yaml.d/10.yaml"), line).unwrap();
    assert_eq!(configured().await, json!(fingerprint("file")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pin_of_the_fixture_starts_and_is_kept() {
    let places = ["config", "config-dir", "env", "flag", "token-file", "nowhere"];
    let servers: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(n, pin)| json!({"name": format!("s{}", n + 1), "pin": pin}))
        .collect();
    let cluster = Cluster::start(json!({"token": OLD, "servers": servers})).await;
    let state = cluster.state().await;
    for (n, place) in places.iter().enumerate() {
        let server = &state["servers"][format!("s{}", n + 1)];
        let expected = if *place == "nowhere" {
            json!(null)
        } else {
            json!(fingerprint(OLD))
        };
        assert_eq!(server["configured"], expected, "{place}");
        assert_eq!(server["live"]["server"], fingerprint(OLD), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_form_of_the_token_starts_a_server_and_arms_the_trap() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    let full = format!("K10{}::node:{OLD}", "a".repeat(64));
    cluster.pin("s1", "config", Some(&full)).await;
    cluster.starts("s1").await;
    assert_eq!(cluster.probe("s1", &full).await, 405);
    cluster.fails("s1", TRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_only_server_needs_a_token_that_its_join_server_accepts() {
    let mut config = pinned();
    config["servers"][2]["role"] = json!("control-plane");
    let cluster = Cluster::start(config).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.starts("s3").await;
    assert_eq!(cluster.probe("s3", OLD).await, 405);
    assert_eq!(cluster.put("s3", OLD, NEW).await, 200);
    cluster.a_minute_passes().await;
    cluster.starts("s3").await;
    cluster.a_minute_passes().await;
    cluster.pin("s1", "nowhere", None).await;
    cluster.starts("s1").await;
    cluster
        .fails("s3", "failed to bootstrap cluster data: not authorized")
        .await;
    cluster.pin("s3", "config", Some(NEW)).await;
    cluster.fails("s3", TRAP).await;
    cluster.pin("s3", "nowhere", None).await;
    cluster.fails("s3", "nil pointer dereference").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_agent_token_is_fatal_at_the_second_start_unless_a_put_saves_it() {
    let cluster = Cluster::start(servers("nowhere", 1)).await;
    let drop_in = cluster.root("s1").join("etc/rancher/k3s/config.yaml.d/agent.yaml");
    std::fs::write(&drop_in, "agent-token: agents\n").unwrap();
    cluster.starts("s1").await;
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    let readyz = async |password: &str| cluster.get("s1", "/v1-k3s/readyz", Some(("node", password))).await;
    assert_eq!((readyz("agents").await, readyz(OLD).await), (200, 401));
    assert_eq!(cluster.put("s1", OLD, OLD).await, 200);
    cluster.starts("s1").await;
    // The rotation leaves the agent token alone.
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    cluster.starts("s1").await;
    cluster.until(|state| state["servers"]["s1"]["phase"] == "ready").await;
    assert_eq!(readyz("agents").await, 200);
    cluster.a_minute_passes().await;
    std::fs::write(&drop_in, "agent-token: changed\n").unwrap();
    cluster.starts("s1").await;
    cluster.fails("s1", TRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_line_fails_with_another_message() {
    let mut config = pinned();
    config["line"] = json!("1.33");
    let cluster = Cluster::start(config).await;
    assert_eq!(cluster.put("s1", OLD, NEW).await, 200);
    let message =
        "Failed to reconcile with temporary etcd: bootstrap data already found and encrypted with different token";
    cluster.fails("s1", message).await;
}
