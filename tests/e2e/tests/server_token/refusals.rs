//! What stands in the way of a rotation. Nothing is sent to a server then.

use anyhow::{Result, ensure};
use e2e::CommandOutput;
use serde_json::{Value, json};

use crate::cluster::{OTHER, TOKEN, file};
use crate::rotation_fixture::RotationFixture;

/// The command was refused for this reason, and no server was changed.
async fn refused(fixture: &RotationFixture, output: CommandOutput, reason: &str) -> Result<()> {
    let output = output.expect(1)?;
    ensure!(output.stderr.contains(reason), "{reason:?} is missing:\n{output}");
    ensure!(output.stderr.contains("hint:"), "{output}");
    ensure!(!output.to_string().contains(TOKEN), "the token is printed:\n{output}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    let state = fixture.servers.cluster.state().await?;
    ensure!(state["datastore"]["snapshots"] == json!([]), "a snapshot was taken");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_needs_a_place_for_the_new_token_and_the_current_token() -> Result<()> {
    let fixture = RotationFixture::start_three("refused-arguments", ["nowhere"; 3]).await?;
    let (old, other) = (
        file(fixture.shell(), "given", TOKEN, 0o600)?,
        file(fixture.shell(), "other", OTHER, 0o600)?,
    );
    let run = async |args: &[&str]| {
        let args = ["server-token", "rotate", "--yes"].iter().chain(args);
        fixture.shell().bootstrap_token(args).run().await
    };
    let output = run(&["--token-file", &old]).await?;
    refused(&fixture, output, "nothing says where the new token goes").await?;
    let output = run(&["--token-file", &other, "--write-token", "new"]).await?;
    refused(&fixture, output, "servers s1, s2, s3 reject the token").await?;
    let usage = run(&["--write-token", "new"]).await?.expect(2)?;
    ensure!(usage.stderr.contains("pass the current server token"), "{usage}");
    let agent = format!("K10{}::node:{TOKEN}", fixture.servers.ca_hash());
    let agent = file(fixture.shell(), "agent", &agent, 0o600)?;
    let usage = run(&["--token-file", &agent, "--write-token", "new"])
        .await?
        .expect(2)?;
    ensure!(usage.stderr.contains("the token is an agent token"), "{usage}");
    let usage = run(&["--token-file", &old, "--write-token", "new", "--repin"])
        .await?
        .expect(2)?;
    ensure!(usage.stderr.contains("--repin needs --node-exec"), "{usage}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_has_to_be_up_with_a_clock_that_is_right() -> Result<()> {
    let fixture = RotationFixture::start_three("refused-servers", ["nowhere"; 3]).await?;
    let cluster = &fixture.servers.cluster;
    cluster.faults("s2", &json!({ "ahead": 5.0 })).await?;
    let output = fixture.run("rotate", &[]).await?;
    refused(&fixture, output, "the clocks of the servers differ by 2 s or more").await?;
    cluster.faults("s2", &json!({ "ahead": 0.0 })).await?;

    cluster.faults("s2", &json!({ "hold": "login" })).await?;
    cluster.kill_server("s2").await?;
    let is_held = |state: &Value| state["servers"]["s2"]["phase"] == "login";
    cluster.wait_for("s2 to check logins", is_held).await?;
    // It accepts the token, and a new value would harm it.
    let output = fixture.run("rotate", &[]).await?;
    refused(&fixture, output, "server s2 is not ready").await?;
    cluster.faults("s2", &json!({ "hold": null })).await?;
    let is_ready = |state: &Value| state["servers"]["s2"]["phase"] == "ready";
    cluster.wait_for("s2 to be ready", is_ready).await?;

    cluster.stop_server("s3").await?;
    let output = fixture.run("rotate", &[]).await?;
    refused(&fixture, output, "server s3 is not ready").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_encryption_keys_is_finished_first() -> Result<()> {
    let servers = ["s1", "s2", "s3"].map(|name| json!({ "name": name, "pin": "nowhere" }));
    let cluster = json!({ "encryption": true, "servers": servers });
    let fixture = RotationFixture::start("refused-encryption", cluster).await?;
    fixture.servers.cluster.encryption("s1", "prepare").await?;
    let output = fixture.run("rotate", &["--force=unpin,unmeasured"]).await?;
    refused(&fixture, output, "could lose every Secret of the cluster").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_not_completed_is_seen() -> Result<()> {
    let fixture = RotationFixture::start_three("refused-half", ["nowhere"; 3]).await?;
    // `k3s token rotate` on the first server alone: each server still accepts the old token.
    fixture.servers.put("s1", TOKEN, OTHER).await?;
    let seen = fixture.run("rotate", &[]).await?.expect(1)?;
    ensure!(seen.stderr.contains("an earlier change was not completed"), "{seen}");
    // Without access to the nodes the first snapshots show it. They are all that was done.
    let seen = fixture.run_by_hand("rotate", &[]).await?.expect(1)?;
    ensure!(seen.stderr.contains("an earlier change was not completed"), "{seen}");
    let again = fixture.run_by_hand("rollback", &[]).await?.expect(0)?;
    ensure!(
        again.stderr.contains("no rotation of the server token is in progress"),
        "{again}"
    );
    ensure!(fixture.puts().await? == 1, "a PUT was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_measured_has_to_be_forced() -> Result<()> {
    let servers = ["s1", "s2"].map(|name| json!({ "name": name, "pin": "nowhere" }));
    let fixture = RotationFixture::start("refused-two", json!({ "servers": servers })).await?;
    let output = fixture.run("rotate", &[]).await?;
    ensure!(output.stderr.contains("--force=unmeasured"), "{output}");
    refused(&fixture, output, "the procedure was not measured on 2 servers").await?;
    fixture.run("rotate", &["--force=unmeasured"]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_etcd_cannot_be_forced() -> Result<()> {
    let servers = json!([
        { "name": "s1", "pin": "config" }, { "name": "s2", "pin": "config" },
        { "name": "s3", "pin": "config", "role": "control-plane" },
    ]);
    let fixture = RotationFixture::start("refused-role", json!({ "servers": servers })).await?;
    let output = fixture.run("rotate", &["--force=unpin,unmeasured"]).await?;
    refused(&fixture, output, "server s3 has no etcd").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rancher_and_harvester_own_the_token_of_their_clusters() -> Result<()> {
    let fixture = RotationFixture::start_three("refused-managed", ["nowhere"; 3]).await?;
    let kubectl = async |args: &[&str]| fixture.shell().kubectl(args).run().await?.expect(0);
    kubectl(&["annotate", "node", "s1", "cluster.x-k8s.io/machine=m1"]).await?;
    let output = fixture.run("rotate", &[]).await?;
    refused(&fixture, output, "Rancher has provisioned this cluster").await?;
    kubectl(&["label", "node", "s1", "harvesterhci.io/managed=true"]).await?;
    let output = fixture.run("rotate", &[]).await?;
    refused(&fixture, output, "this cluster is a Harvester").await
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_management_that_puts_the_old_token_back_stops_the_rotation() -> Result<()> {
    let fixture = RotationFixture::start_three("refused-repinned", ["config", "nowhere", "nowhere"]).await?;
    let before = (fixture.starts("s1").await?, fixture.starts("s3").await?);
    fixture.run("rotate", &["--only", "s2"]).await?.expect(4)?;
    fixture.servers.cluster.pin("s1", "config", Some(TOKEN)).await?;
    let stopped = fixture.run("rotate", &[]).await?.expect(4)?;
    ensure!(
        stopped
            .stderr
            .contains("the configuration of server s1 has another token again"),
        "{stopped}"
    );
    let now = (fixture.starts("s1").await?, fixture.starts("s3").await?);
    ensure!(
        now == before,
        "s1 and s3 were started {before:?} times, and now {now:?} times"
    );
    fixture.servers.cluster.pin("s1", "nowhere", None).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_edited_safely_is_left_to_an_operator() -> Result<()> {
    // The last argument of the unit, which no installer writes in this form.
    let fixture = RotationFixture::start_three("refused-flag", ["flag", "nowhere", "nowhere"]).await?;
    let stopped = fixture.run("rotate", &[]).await?.expect(4)?;
    ensure!(stopped.stderr.contains("by hand"), "{stopped}");
    ensure!(fixture.puts().await? == 0, "a PUT was sent");
    fixture.servers.cluster.pin("s1", "nowhere", None).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}
