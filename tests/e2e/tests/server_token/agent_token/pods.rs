//! With `--via pod`.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fixture::{AGENT, AgentFixture};

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_token_is_changed_with_pods() -> Result<()> {
    let fixture = AgentFixture::start("agent-pods", 3, Some(AGENT), json!({ "kubelet": true })).await?;
    // A pod returns no token, so the old one is not known.
    let done = fixture.run_by_hand("rotate", &["--via", "pod"]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    ensure!(
        done.stderr.contains("Not proven: that the old agent token is rejected"),
        "{done}"
    );
    ensure!(fixture.rotation.puts().await? == 1, "one PUT is enough");
    fixture.all_accept(&fixture.new_token()?).await
}
