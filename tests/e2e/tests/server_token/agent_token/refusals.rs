//! What stands in the way of a change of the agent token. Nothing is sent to a server then.

use anyhow::{Result, ensure};
use e2e::CommandOutput;
use serde_json::json;

use super::fixture::{AGENT, AgentFixture};
use crate::cluster::{OTHER, TOKEN, file};

fn contains(output: &CommandOutput, reason: &str) -> Result<()> {
    ensure!(output.stderr.contains(reason), "{reason:?} is missing:\n{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn set_is_for_the_first_one_and_rotate_and_remove_for_a_later_one() -> Result<()> {
    let fixture = AgentFixture::start("agent-refusals", 1, None, json!({})).await?;
    for verb in ["rotate", "remove"] {
        let refused = fixture.run(verb, &[]).await?.expect(1)?;
        contains(
            &refused,
            &format!("cannot {verb} the agent token: no agent token is set"),
        )?;
        contains(&refused, "agent-token set")?;
    }
    let server = fixture.file("server-again", TOKEN)?;
    let refused = fixture
        .run("set", &["--new-agent-token-file", &server])
        .await?
        .expect(1)?;
    contains(&refused, "the new agent token is the server token")?;
    let other = file(fixture.shell(), "wrong", OTHER, 0o600)?;
    let exec = fixture.rotation.node_exec()?;
    let args = [
        "agent-token",
        "set",
        "--yes",
        "--token-file",
        &other,
        "--write-token",
        "x",
        &exec,
    ];
    let refused = fixture.shell().bootstrap_token(args).run().await?.expect(1)?;
    contains(&refused, "cannot set the agent token: server s1 rejects the token\n")?;
    let args = [
        "agent-token",
        "set",
        "--yes",
        "--token-file",
        fixture.rotation.old_file(),
        &exec,
    ];
    let refused = fixture.shell().bootstrap_token(args).run().await?.expect(1)?;
    contains(&refused, "nothing says where the new token goes")?;
    let k10 = fixture.file(
        "k10",
        &format!("K10{}::server:{OTHER}", fixture.rotation.servers.ca_hash()),
    )?;
    let refused = fixture.run("rotate", &["--agent-token-file", &k10]).await?.expect(2)?;
    contains(&refused, "the token is a server token")?;
    ensure!(fixture.rotation.puts().await? == 0, "a PUT was sent");

    let given = fixture.file("given", AGENT)?;
    fixture
        .run("set", &["--new-agent-token-file", &given])
        .await?
        .expect(0)?;
    let refused = fixture.run("set", &[]).await?.expect(1)?;
    contains(&refused, "cannot set the agent token: an agent token is already set")?;
    contains(&refused, "agent-token rotate")?;
    let refused = fixture
        .run("rotate", &["--new-agent-token-file", &given])
        .await?
        .expect(1)?;
    contains(&refused, "the new token is the old one")?;
    let wrong = fixture.file("wrong-agent", OTHER)?;
    let refused = fixture
        .run("rotate", &["--agent-token-file", &wrong])
        .await?
        .expect(1)?;
    contains(&refused, "rejects the agent token that was passed as the old one")?;
    let nothing = fixture.run("rollback", &["--exit-code"]).await?.expect(3)?;
    contains(&nothing, "no rotation of the agent token is in progress")?;
    fixture.all_accept(AGENT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_of_both_tokens_see_each_other() -> Result<()> {
    let fixture = AgentFixture::start("agent-and-server", 3, None, json!({})).await?;
    fixture.run("set", &["--only", "s1"]).await?.expect(4)?;
    for verb in ["rotate", "rollback"] {
        let refused = fixture.rotation.run(verb, &["--force=journal"]).await?.expect(1)?;
        contains(&refused, "a rotation of the agent token is in progress")?;
        contains(&refused, "agent-token rotate")?;
        contains(&refused, "agent-token rollback")?;
    }
    let status = fixture.rotation.servers.run(&["status"], TOKEN).await?.expect(0)?;
    ensure!(
        status.stdout.contains("a rotation of the agent token is in progress"),
        "{status}"
    );
    ensure!(status.stdout.contains("agent-token rollback"), "{status}");
    let recover = [
        "server-token",
        "recover",
        "--yes",
        "--token-file",
        fixture.rotation.old_file(),
    ];
    let exec = fixture.rotation.node_exec()?;
    let args = recover.iter().copied().chain([exec.as_str()]);
    let refused = fixture.shell().bootstrap_token(args).run().await?.expect(1)?;
    contains(
        &refused,
        "a rotation of the agent token is in progress: `kubectl bootstrap-token agent-token rotate",
    )?;
    fixture.run("set", &[]).await?.expect(0)?;
    fixture.all_accept(&fixture.new_token()?).await?;
    let status = fixture.rotation.servers.run(&["status"], TOKEN).await?.expect(0)?;
    ensure!(status.stdout.contains("Last rotation: set, agent-token"), "{status}");

    fixture.rotation.run("rotate", &["--only", "s2"]).await?.expect(4)?;
    let refused = fixture.run("rotate", &[]).await?.expect(1)?;
    contains(&refused, "a rotation of the server token is in progress")?;
    contains(&refused, "server-token rollback")?;
    fixture.rotation.run("rollback", &[]).await?.expect(0)?;
    fixture.all_accept(&fixture.new_token()?).await
}
