//! An operator configures and restarts each server.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fixture::{AGENT, AgentFixture};
use crate::cluster::TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_the_agent_token_of_three_servers() -> Result<()> {
    let fixture = AgentFixture::start("agent-by-hand", 3, Some(AGENT), json!({})).await?;
    let old = fixture.file("old-agent", AGENT)?;
    let running = fixture
        .spawn(fixture.shell(), "rotate", &["--agent-token-file", &old])
        .await?;
    fixture.operate(&running, &["s1", "s2", "s3"], None).await?;
    let done = running.finish().await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    ensure!(done.stderr.contains("write the new agent token, which is in"), "{done}");
    ensure!(fixture.rotation.puts().await? == 1, "one PUT is enough");
    let new = fixture.new_token()?;
    fixture.all_accept(&new).await?;
    fixture.verify(AGENT, 1).await?;

    // The first server has changed, and is restored.
    let agent = fixture.file("new-agent", &new)?;
    let flags = ["--agent-token-file", &agent, "--only", "s2"];
    let running = fixture.spawn(fixture.shell(), "remove", &flags).await?;
    fixture.configure("s2", None)?;
    let asked = |text: &str| text.contains("On server s2:").then_some(());
    running.until_stderr("an instruction for an operator", asked).await?;
    ensure!(
        fixture.rotation.servers.cluster.restart_server("s2").await?,
        "s2 does not start"
    );
    running.finish().await?.expect(4)?;
    let running = fixture.spawn(fixture.shell(), "rollback", &[]).await?;
    fixture.operate(&running, &["s2"], Some(&new)).await?;
    running.finish().await?.expect(0)?;
    fixture.all_accept(&new).await?;
    fixture.verify(TOKEN, 1).await?;
    Ok(())
}
