//! Nodes that join while a rotation is in progress, and a server that leaves.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::TOKEN;
use crate::rotation_fixture::{RotationFixture, hash12};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_joins_between_restarts_enters_by_a_round_with_a_fresh_token() -> Result<()> {
    let mut fixture = RotationFixture::start_three("join-server", ["nowhere"; 3]).await?;
    fixture.run("rotate", &["--only", "s1"]).await?.expect(4)?;
    let first = fixture.new_token()?;
    // It joins at s1, which accepts the new token. Its configuration has it.
    ensure!(
        fixture.servers.cluster.add_server("s4", &first).await?,
        "s4 did not join:\n{}",
        fixture.servers.cluster.log("s4")?
    );
    let puts = fixture.puts().await?;
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    let second = fixture.new_token()?;
    ensure!(second != first, "no fresh token was created:\n{done}");
    let kept = std::fs::read_to_string(format!("{}.1", fixture.new_file()))?;
    ensure!(kept.contains(&first), "the first new token was not kept");
    ensure!(fixture.puts().await? == puts + 4, "one round is four PUTs:\n{done}");
    let state = fixture.servers.cluster.state().await?;
    ensure!(state["servers"]["s4"]["configured"].is_null(), "s4 is pinned: {state}");
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_joined_with_the_old_token_stops_the_rotation_until_it_is_removed() -> Result<()> {
    let mut fixture = RotationFixture::start_three("join-old", ["nowhere"; 3]).await?;
    interrupt_after_the_round(&fixture).await?;
    // Its start ends when it saves, and it is a member of etcd then.
    ensure!(
        !fixture.servers.cluster.add_server("s4", TOKEN).await?,
        "s4 has joined with the old token"
    );
    let starts = async || {
        let state = fixture.servers.cluster.state().await?;
        let of = |server: &str| state["servers"][server]["unit"]["starts"].clone();
        anyhow::Ok(["s1", "s2", "s3"].map(of))
    };
    let before = starts().await?;
    let stopped = fixture.run("rotate", &["--restart-timeout", "3s"]).await?.expect(4)?;
    ensure!(stopped.stderr.contains("s4"), "{stopped}");
    ensure!(stopped.stderr.contains("server-token rotate"), "{stopped}");
    ensure!(starts().await? == before, "a server was restarted:\n{stopped}");
    fixture.servers.cluster.stop_server("s4").await?;
    fixture
        .shell()
        .kubectl(["delete", "node", "s4"])
        .run()
        .await?
        .expect(0)?;
    let has_left = |state: &Value| state["datastore"]["members"] == json!(["s1", "s2", "s3"]);
    fixture.servers.cluster.wait_for("s4 to leave etcd", has_left).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    let new = json!(hash12(&fixture.new_token()?));
    let state = fixture.servers.cluster.state().await?;
    for server in ["s1", "s2", "s3"] {
        ensure!(state["servers"][server]["live"]["server"] == new, "{server}: {state}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_join_with_the_old_token_until_the_servers_restart() -> Result<()> {
    let fixture = RotationFixture::start_three("join-agent", ["nowhere"; 3]).await?;
    interrupt_after_the_round(&fixture).await?;
    let cluster = &fixture.servers.cluster;
    let refused = cluster.join_agent("a1", TOKEN).await?;
    ensure!(refused.is_none(), "the agent did not join: {refused:?}");
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    ensure!(
        done.stderr.contains("a1"),
        "the agent with the old token is not named:\n{done}"
    );
    let refused = cluster.join_agent("a2", TOKEN).await?;
    ensure!(refused.is_some(), "an agent has joined with the old token");
    let refused = cluster.join_agent("a3", &fixture.new_token()?).await?;
    ensure!(refused.is_none(), "the agent did not join: {refused:?}");
    fixture.is_rotated().await
}

/// The round is complete, and no server is restarted.
async fn interrupt_after_the_round(fixture: &RotationFixture) -> Result<()> {
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    let is_placed = |state: &Value| {
        let servers = ["s1", "s2", "s3"].iter();
        let file = |server: &&&str| state["servers"][**server]["files"]["token"]["fingerprint"] != json!(hash12(TOKEN));
        servers.filter(file).count() == 3
    };
    fixture.servers.cluster.wait_for("the round", is_placed).await?;
    running.signal(Signal::INT)?;
    running.finish().await?.expect(130)?;
    Ok(())
}
