//! `server-token status`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{Roles, run_until};
use serde_json::{Value, json};

use crate::cluster::{OTHER, ServerFixture, TOKEN};

/// One field of each server.
fn of_servers<'a>(status: &'a Value, field: &str) -> Vec<&'a Value> {
    let servers = status["servers"].as_array().into_iter().flatten();
    servers.map(|server| &server[field]).collect()
}

fn warnings(status: &Value) -> String {
    let all = status["warnings"].as_array().into_iter().flatten();
    all.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_without_a_token_shows_what_the_kubernetes_api_shows() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let status = fixture.json(&["status"], "", 0).await?;
    ensure!(of_servers(&status, "name") == ["s1", "s2", "s3"], "{status}");
    ensure!(of_servers(&status, "ready") == ["yes"; 3], "{status}");
    ensure!(of_servers(&status, "etcd") == ["voter"; 3], "{status}");
    ensure!(of_servers(&status, "accepted") == [&Value::Null; 3], "{status}");
    ensure!(of_servers(&status, "encryption") == [&Value::Null; 3], "{status}");
    let configured = [
        json!([]),
        json!([{ "source": "flag-or-config" }]),
        json!([{ "source": "environment" }]),
    ];
    ensure!(of_servers(&status, "configured") == configured.each_ref(), "{status}");
    // Nothing renews the Node of an agent, so it may have become unknown.
    let agent = &status["agents"][0];
    ensure!(agent["name"] == "a1" && status["agents"][1].is_null(), "{status}");
    ensure!(
        agent["configured"] == json!([{ "source": "flag-or-config" }]),
        "{status}"
    );
    ensure!(
        warnings(&status)
            .contains("a token is configured on s2 (flag or config file) and s3 (environment), but not on s1"),
        "{status}"
    );
    ensure!(
        status["rotation"].is_null() && status["rotationUnknown"] == false,
        "{status}"
    );

    let page = fixture.run(&["status"], "").await?.expect(0)?;
    for text in [
        "NAME",
        "Agents: 1 (token from: 1 flag or config file)",
        "Snapshots: <none>",
        "Rotation in progress: none",
    ] {
        ensure!(page.stdout.contains(text), "{text:?} is missing in\n{page}");
    }
    ensure!(
        page.stderr
            .contains("pass the server token with --token-file or --token-stdin"),
        "{page}"
    );
    ensure!(page.stderr.contains("Warning: a token is configured on s2"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_with_a_token_shows_which_servers_accept_it() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let status = fixture.json(&["status"], TOKEN, 0).await?;
    ensure!(of_servers(&status, "accepted") == ["yes"; 3], "{status}");
    ensure!(
        of_servers(&status, "acceptedAs") == [&json!(["server", "agent"]); 3],
        "{status}"
    );
    ensure!(of_servers(&status, "encryption") == ["off"; 3], "{status}");

    let status = fixture.json(&["status"], OTHER, 0).await?;
    ensure!(of_servers(&status, "accepted") == ["no"; 3], "{status}");
    ensure!(of_servers(&status, "encryption") == [&Value::Null; 3], "{status}");
    ensure!(
        warnings(&status).contains("the given token is rejected by s1, s2 and s3"),
        "{status}"
    );

    let wide = fixture.run(&["status", "-o", "wide"], TOKEN).await?.expect(0)?;
    ensure!(
        wide.stdout.contains("server, agent") && wide.stdout.contains("AGENT   READY"),
        "{wide}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_refuses_what_it_cannot_use() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let refused = fixture.run(&["status"], "abcdef.0123456789abcdef").await?.expect(2)?;
    ensure!(
        refused
            .stderr
            .contains("bootstrap token (ID.SECRET), not a server token"),
        "{refused}"
    );
    let refused = fixture.run(&["status", "-o", "name"], "").await?.expect(2)?;
    ensure!(refused.stderr.contains("status prints a page"), "{refused}");
    let refused = fixture
        .run(&["status", "--server-address", "S1=127.0.0.1"], "")
        .await?
        .expect(2)?;
    ensure!(refused.stderr.contains("the servers are s1, s2, s3"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_verify_show_a_rotation_that_was_not_completed() -> Result<()> {
    let fixture = ServerFixture::start_three("server-token-halfway", true).await?;
    fixture.snapshot("s1", TOKEN, "before").await?;
    let before = fixture.cluster.requests().await?.len();
    let status = fixture.json(&["status"], TOKEN, 0).await?;
    ensure!(warnings(&status).is_empty(), "{status}");
    ensure!(of_servers(&status, "encryption") == ["start"; 3], "{status}");
    ensure!(status["snapshots"][0]["needs"] == "given", "{status}");

    // What one status asks of each supervisor.
    let mut counts = BTreeMap::<String, usize>::new();
    for request in &fixture.cluster.requests().await?[before..] {
        let path = request["path"].as_str().context("a request without a path")?;
        if path == "/cacerts" || path.starts_with("/v1-") {
            *counts.entry(request["node"].to_string()).or_default() += 1;
        }
    }
    ensure!(
        counts.len() == 3 && counts.values().all(|count| *count <= 5),
        "{counts:?}"
    );

    for server in ["s1", "s2", "s3"] {
        fixture.put(server, TOKEN, OTHER).await?;
    }
    // No server was restarted: the new token is accepted nowhere.
    let status = fixture.json(&["status"], OTHER, 0).await?;
    ensure!(of_servers(&status, "accepted") == ["no"; 3], "{status}");
    fixture.json(&["verify"], TOKEN, 0).await?;

    ensure!(fixture.cluster.restart_server("s1").await?, "s1 did not start");
    let is_ready = |state: &Value| state["servers"]["s1"]["phase"] == "ready";
    fixture.cluster.wait_for("s1 to be ready", is_ready).await?;
    fixture.snapshot("s1", OTHER, "after").await?;
    let status = fixture.json(&["status"], OTHER, 0).await?;
    ensure!(of_servers(&status, "accepted") == ["yes", "no", "no"], "{status}");
    let text = warnings(&status);
    for warning in [
        "the servers accept different tokens: the given one is accepted by s1, and rejected by s2 and s3",
        "1 of 2 snapshots can be restored only with another token",
    ] {
        ensure!(text.contains(warning), "{warning:?} is missing in {status}");
    }
    for token in [TOKEN, OTHER] {
        let verified = fixture.json(&["verify"], token, 1).await?;
        ensure!(verified["accepted"] == "no", "{verified}");
    }

    // The first step of a rotation of the encryption keys, on one server.
    fixture.cluster.encryption("s2", "prepare").await?;
    let status = fixture.json(&["status"], TOKEN, 0).await?;
    ensure!(
        warnings(&status).contains("changing the token now can lose every Secret of the cluster"),
        "{status}"
    );
    Ok(())
}

/// An edit shows at once, and what cannot be read is said.
#[tokio::test(flavor = "multi_thread")]
async fn with_node_access_the_configuration_is_that_of_the_files() -> Result<()> {
    let fixture = ServerFixture::start(
        "status-files",
        json!({ "servers": [{ "name": "s1", "pin": "nowhere" }, { "name": "s2", "pin": "config" }] }),
    )
    .await?;
    let exec = format!("--node-exec={}", fixture.cluster.node_exec()?);
    let status = fixture.json(&["status", &exec], "", 0).await?;
    let of = |status: &Value, at: usize| status["servers"][at]["configured"][0].clone();
    ensure!(of(&status, 0).is_null(), "{status}");
    let config = of(&status, 1);
    ensure!(config["source"] == "config", "{status}");
    let file = config["path"].as_str().context("no path")?.to_owned();
    ensure!(file.ends_with("config.yaml"), "{status}");
    ensure!(!warnings(&status).contains("was edited"), "{status}");

    let file = fixture.cluster.root("s2").join("etc/rancher/k3s/config.yaml");
    let text = std::fs::read_to_string(&file)?;
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("token")).collect();
    let without = without.join("\n") + "\n";
    std::fs::write(&file, without)?;
    let status = fixture.json(&["status", &exec], "", 0).await?;
    ensure!(of(&status, 1).is_null(), "{status}");
    ensure!(
        warnings(&status).contains(
            "server s2 was edited after its last start: its next start takes the token from its file server/token"
        ),
        "{status}"
    );
    let status = fixture.json(&["status", "--node-exec=false {node}"], "", 0).await?;
    ensure!(of(&status, 1)["source"] == "flag-or-config", "{status}");
    ensure!(
        warnings(&status).contains("the files of server s1 could not be read"),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_are_what_status_needs() -> Result<()> {
    let fixture = ServerFixture::shared().await?;
    let user = "server-token-reader";
    let status = async || fixture.run(&["status", "--as", user], "").await;
    let refused = status().await?.expect(1)?;
    ensure!(refused.stderr.contains("nodes"), "{refused}");
    let roles = Roles::read("bootstrap-token", &[("USER", user)])?;
    let unknown = |text: &str| text.contains("no permission to list ETCDSnapshotFiles");
    // The rest is optional for status.
    for grant in [
        &["create", "clusterrole", user, "--verb=list", "--resource=nodes"][..],
        &[
            "create",
            "clusterrolebinding",
            user,
            "--clusterrole",
            user,
            "--user",
            user,
        ],
    ] {
        fixture.shell.kubectl(grant).run().await?.expect(0)?;
    }
    run_until(status, |output| {
        let is_lease_unknown = output.stdout.contains("Rotation in progress: unknown");
        output.code() == Some(0) && is_lease_unknown && unknown(&output.stderr)
    })
    .await?;
    roles.labelled(&["access: read"]).apply(&fixture.shell, &[]).await?;
    run_until(status, |output| {
        output.code() == Some(0) && output.stdout.contains("Rotation in progress: none") && !unknown(&output.stderr)
    })
    .await
}
