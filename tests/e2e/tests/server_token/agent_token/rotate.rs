//! `agent-token set`, `rotate` and `remove`, undisturbed.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::fixture::AgentFixture;
use crate::cluster::TOKEN;
use crate::leaks::{hides, objects};

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_token_of_three_servers_is_set_rotated_and_removed() -> Result<()> {
    let fixture = AgentFixture::start("agent-three", 3, None, json!({})).await?;
    let refused = fixture.rotation.servers.cluster.join_agent("a1", TOKEN).await?;
    ensure!(refused.is_none(), "the agent did not join: {refused:?}");
    let plan = fixture.run("set", &["--dry-run"]).await?.expect(0)?;
    ensure!(fixture.rotation.puts().await? == 0, "a dry run has sent a PUT");
    ensure!(plan.stdout.contains("saves its files into the datastore"), "{plan}");
    ensure!(plan.stdout.starts_with("Change of the agent token:"), "{plan}");

    let mut outputs = vec![fixture.run("set", &["-v=9"]).await?.expect(0)?];
    ensure!(outputs[0].stdout == "agent-token set\n", "{}", outputs[0]);
    ensure!(fixture.rotation.puts().await? == 1, "one PUT is enough");
    // The agent has the server token in its configuration.
    ensure!(outputs[0].stderr.contains("a1"), "{}", outputs[0]);
    let first = fixture.new_token()?;
    fixture.all_accept(&first).await?;
    fixture.verify(&first, 0).await?;
    fixture.verify(TOKEN, 1).await?;

    let agent = fixture.file("first", &first)?;
    let status = [
        "agent-token",
        "status",
        "--token-file",
        fixture.rotation.old_file(),
        "--agent-token-file",
        &agent,
    ];
    let status = fixture.shell().bootstrap_token(status).run().await?.expect(0)?;
    ensure!(status.stdout.matches("agent-token").count() >= 3, "{status}");
    ensure!(status.stdout.contains("Last rotation: set"), "{status}");
    outputs.push(status);

    outputs.push(fixture.run("rotate", &["-v=9"]).await?.expect(0)?);
    let second = fixture.new_token()?;
    ensure!(second != first, "the token was not changed");
    // The old one was read from a server, so its rejection is proven.
    ensure!(!outputs[2].to_string().contains("Not proven"), "{}", outputs[2]);
    fixture.all_accept(&second).await?;
    fixture.verify(&first, 1).await?;

    let removed = fixture.run("remove", &["-v=9", "-o", "json"]).await?.expect(0)?;
    let document: Value = serde_json::from_str(&removed.stdout)?;
    ensure!(document["outcome"] == "removed", "{removed}");
    outputs.push(removed);
    fixture.all_accept(TOKEN).await?;
    let drop_in = fixture.config("s1", "etc/rancher/k3s/config.yaml.d/90-agent-token.yaml");
    ensure!(!drop_in.exists(), "the empty file is left");
    let tokens = [TOKEN.to_owned(), first, second];
    for output in &outputs {
        hides("an output", &output.to_string(), &tokens)?;
    }
    hides("an object", &objects(&fixture.rotation).await?, &tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_token_of_one_server_with_sqlite_is_set_and_removed() -> Result<()> {
    let fixture = AgentFixture::start("agent-sqlite", 1, None, json!({ "datastore": "sqlite" })).await?;
    let given = "an-agent-token-of-the-user.2026";
    let path = fixture.file("given", given)?;
    fixture
        .run("set", &["--new-agent-token-file", &path])
        .await?
        .expect(0)?;
    fixture.all_accept(given).await?;
    fixture.run("remove", &[]).await?.expect(0)?;
    fixture.all_accept(TOKEN).await
}

/// Its file is older than that of the second one, or newer. In both cases the newest one is saved.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_that_restarts_by_itself_before_the_files_are_saved_is_saved_too() -> Result<()> {
    let fixture = AgentFixture::start("agent-by-itself", 3, None, json!({})).await?;
    let cluster = &fixture.rotation.servers.cluster;
    cluster.faults("s1", &json!({ "hold": "etcd" })).await?;
    let exec = fixture.rotation.node_exec()?;
    let running = fixture.spawn(fixture.shell(), "set", &[&exec]).await?;
    let is_held = |state: &Value| state["servers"]["s1"]["phase"] == "etcd";
    cluster.wait_for("s1 to start with the new token", is_held).await?;
    ensure!(
        fixture.rotation.puts().await? == 0,
        "the encryption of a server that is starting is not known"
    );
    cluster.kill_server("s2").await?;
    let has_new = |state: &Value| state["servers"]["s2"]["live"]["node"] == state["servers"]["s1"]["live"]["node"];
    cluster.wait_for("s2 to start with the new token", has_new).await?;
    cluster.faults("s1", &json!({ "hold": null })).await?;
    running.finish().await?.expect(0)?;
    fixture.all_accept(&fixture.new_token()?).await
}
