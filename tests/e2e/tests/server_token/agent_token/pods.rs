//! With `--via pod`.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fixture::{AGENT, AgentFixture};
use crate::cluster::TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_token_is_changed_with_pods() -> Result<()> {
    let agents = [("a1", AGENT), ("a2", AGENT), ("a3", TOKEN)];
    let agents = agents.map(|(name, token)| json!({ "name": name, "token": token }));
    let cluster = json!({ "kubelet": true, "agents": agents });
    let fixture = AgentFixture::start("agent-pods", 3, Some(AGENT), cluster).await?;
    let cluster = &fixture.rotation.servers.cluster;
    cluster.faults("a2", &json!({ "podWaits": "ImagePullBackOff" })).await?;
    let config = |agent: &str| std::fs::read_to_string(fixture.config(agent, "etc/rancher/k3s/config.yaml"));
    // A pod returns no token, so the old one is not known, and neither is whether an agent has it.
    let flags = ["--via", "pod", "--agents"];
    let done = fixture.run_by_hand("rotate", &flags).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    ensure!(
        done.stderr.contains("Not proven: that the old agent token is rejected"),
        "{done}"
    );
    ensure!(fixture.rotation.puts().await? == 1, "one PUT is enough");
    let first = fixture.new_token()?;
    fixture.all_accept(&first).await?;
    ensure!(config("a1")?.contains(AGENT), "{}", config("a1")?);

    let old = fixture.file("first", &first)?;
    for (agent, token) in [("a1", &first), ("a2", &first)] {
        let text = config(agent)?.replace(AGENT, token);
        std::fs::write(fixture.config(agent, "etc/rancher/k3s/config.yaml"), text)?;
    }
    let flags = [&flags[..], &["--agent-token-file", &old]].concat();
    let done = fixture.run_by_hand("rotate", &flags).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    let second = fixture.new_token()?;
    ensure!(config("a1")?.contains(&second), "{}\n{done}", config("a1")?);
    ensure!(config("a2")?.contains(&first), "{}", config("a2")?);
    ensure!(config("a3")?.contains(TOKEN), "{}", config("a3")?);
    ensure!(done.stderr.contains("agent a2 is skipped: "), "{done}");
    fixture.all_accept(&second).await
}
