//! Changes that are killed, and resumed or rolled back.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use e2e::{CommandOutput, until};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On};

use super::fixture::{AGENT, AgentFixture};
use super::hook::{KILL, hooked};
use crate::cluster::TOKEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Resume,
    Rollback,
}

/// The writes after which a command is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// Of the backup Secret. `rotate` on three servers creates it, records the places of each configuration before the edit and after it, that
    /// the PUT begins, and that it was carried out. Then it deletes it.
    Secret,
    /// On nodes. `rotate` configures each server, restarts each, and deletes the backups on each.
    OnNodes,
}

/// Runs a command that is killed after this one of its writes.
async fn killed_after(fixture: &AgentFixture, verb: &str, writes: Writes, nth: usize) -> Result<CommandOutput> {
    let all = "*' replace' | *' restore' | *' forget' | *' restart'";
    let (secret, on_node) = match writes {
        Writes::Secret => (nth, usize::MAX),
        Writes::OnNodes => (usize::MAX, nth),
    };
    let kill = format!("[ \"$n\" != {on_node} ] || {KILL}");
    let exec = hooked(&fixture.rotation, all, "", &kill)?;
    let (proxy, shell) = fixture.rotation.behind_proxy().await?;
    let on = On::write().path("*/secrets*").nth(secret);
    let _planned = proxy.plan(on, Fault::Kill(Moment::After));
    let command = shell.bootstrap_token(fixture.args(verb, &[&exec]));
    // Nothing is in flight. The engine waits for 8 s at least.
    let running = command.env("KUBECTL_ROTATION_TEST_IN_FLIGHT", "1s").start().await?;
    proxy.victim(running.pid()?);
    let output = running.finish().await?;
    fixture.prints_no_token(&output)?;
    Ok(output)
}

/// Repeats a command that is killed after each of its writes, until it ends. Returns how often it was killed.
async fn killed_after_each(fixture: &AgentFixture, verb: &str, writes: Writes) -> Result<usize> {
    let mut kills = 0;
    loop {
        let output = killed_after(fixture, verb, writes, 1).await?;
        if output.status.success() {
            return Ok(kills);
        }
        let output = output.expect_killed()?;
        kills += 1;
        ensure!(kills < 20, "it does not come to an end:\n{output}");
    }
}

#[rstest]
#[case::set("set", None, Writes::Secret, 10)]
#[case::rotate("rotate", Some(AGENT), Writes::OnNodes, 9)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_three_servers_killed_after_each_write_is_resumed(
    #[case] verb: &str,
    #[case] agent: Option<&str>,
    #[case] writes: Writes,
    #[case] expected: usize,
) -> Result<()> {
    let name = format!("agent-killed-resumed-{verb}");
    let fixture = AgentFixture::start(&name, 3, agent, json!({})).await?;
    let kills = killed_after_each(&fixture, verb, writes).await?;
    ensure!(kills >= expected, "it was killed {kills} times");
    fixture.all_accept(&fixture.new_token()?).await
}

/// Each server has restarted, so the rollback has the most to do.
#[rstest]
#[case::secret("secret", Writes::Secret, 6)]
#[case::on_nodes("nodes", Writes::OnNodes, 9)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_three_servers_killed_after_each_write_is_resumed(
    #[case] name: &str,
    #[case] writes: Writes,
    #[case] expected: usize,
) -> Result<()> {
    let name = format!("agent-killed-rollback-{name}");
    let fixture = AgentFixture::start(&name, 3, Some(AGENT), json!({})).await?;
    killed_after(&fixture, "rotate", Writes::OnNodes, 6)
        .await?
        .expect_killed()?;
    let kills = killed_after_each(&fixture, "rollback", writes).await?;
    ensure!(kills >= expected, "it was killed {kills} times");
    fixture.all_accept(AGENT).await
}

#[rstest]
#[case::before_edits("1", Writes::Secret, 1..=5)]
#[case::until_saved("6", Writes::Secret, 6..=9)]
#[case::on_nodes("nodes", Writes::OnNodes, 3..=5)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_three_servers_killed_after_any_write_is_rolled_back(
    #[case] name: &str,
    #[case] writes: Writes,
    #[case] all: RangeInclusive<usize>,
) -> Result<()> {
    let name = format!("agent-killed-rolled-back-{name}");
    let fixture = AgentFixture::start(&name, 3, Some(AGENT), json!({})).await?;
    for nth in all {
        let killed = killed_after(&fixture, "rotate", writes, nth).await?;
        killed.expect_killed()?;
        let done = killed_after(&fixture, "rollback", writes, usize::MAX).await?;
        done.expect(0)?;
        fixture.accept_now(AGENT).await?;
        fixture.rotation.has_left_nothing().await?;
    }
    fixture.all_accept(AGENT).await
}

/// The server handles the PUT only after the process is gone.
#[rstest]
#[case::resumed("resumed", End::Resume)]
#[case::rolled_back("rolled-back", End::Rollback)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_killed_in_its_put_is_resumed_or_rolled_back(#[case] name: &str, #[case] end: End) -> Result<()> {
    let fixture = AgentFixture::start(&format!("agent-killed-put-{name}"), 3, None, json!({})).await?;
    let cluster = &fixture.rotation.servers.cluster;
    cluster.faults("s1", &json!({ "delay": 4.0 })).await?;
    let exec = fixture.rotation.node_exec()?;
    let running = fixture.spawn(fixture.shell(), "set", &[&exec, "-v=9"]).await?;
    // The request is recorded with its answer.
    let is_sent = |text: &str| text.contains("saves its files").then_some(());
    running.until_stderr("the PUT", is_sent).await?;
    let has_taken = async || {
        let state = cluster.state().await?;
        Ok(state["servers"]["s1"]["faults"]["delay"].is_null().then_some(()))
    };
    until("the PUT to arrive", has_taken).await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    match end {
        End::Resume => {
            fixture.run("set", &[]).await?.expect(0)?;
            fixture.all_accept(&fixture.new_token()?).await
        }
        End::Rollback => {
            fixture.run("rollback", &[]).await?.expect(0)?;
            ensure!(
                fixture.rotation.puts().await? >= 2,
                "a rollback saves the files of the server first, and again"
            );
            fixture.all_accept(TOKEN).await
        }
    }
}
