//! Changes that are killed, and resumed or rolled back.

use anyhow::{Result, ensure};
use e2e::until;
use http::Method;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On};

use super::fixture::{AGENT, AgentFixture};
use crate::cluster::TOKEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Resume,
    Rollback,
}

/// The writes of the backup Secret of `rotate` on one server: it is created, then the places of the configuration are recorded before the
/// edit and after it, then that the PUT begins, and that it was carried out.
const WRITES: [(Method, usize); 5] = [
    (Method::POST, 1),
    (Method::PATCH, 1),
    (Method::PATCH, 2),
    (Method::PATCH, 3),
    (Method::PATCH, 4),
];

async fn finish(fixture: &AgentFixture, end: End, old: &str) -> Result<String> {
    let (verb, expected) = match end {
        End::Resume => ("rotate", None),
        End::Rollback => ("rollback", Some(old.to_owned())),
    };
    let done = fixture.run(verb, &[]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    let expected = expected.map_or_else(|| fixture.new_token(), Ok)?;
    fixture.all_accept(&expected).await?;
    Ok(expected)
}

#[rstest]
#[case::resumed("resumed", End::Resume)]
#[case::rolled_back("rolled-back", End::Rollback)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_killed_after_each_write_of_its_backup_is_resumed_or_rolled_back(
    #[case] name: &str,
    #[case] end: End,
) -> Result<()> {
    let fixture = AgentFixture::start(&format!("agent-killed-{name}"), 1, Some(AGENT), json!({})).await?;
    let exec = fixture.rotation.node_exec()?;
    let mut old = AGENT.to_owned();
    // Once it is deleted, nothing can be rolled back.
    let last = (end == End::Resume).then_some((Method::DELETE, 1));
    for (method, nth) in WRITES.into_iter().chain(last) {
        let (proxy, shell) = fixture.rotation.behind_proxy().await?;
        let on = On::write().method(method).path("*/secrets*").nth(nth);
        let _planned = proxy.plan(on, Fault::Kill(Moment::After));
        let running = fixture.spawn(&shell, "rotate", &[&exec]).await?;
        proxy.victim(running.pid()?);
        running.finish().await?.expect_killed()?;
        old = finish(&fixture, end, &old).await?;
    }
    Ok(())
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
