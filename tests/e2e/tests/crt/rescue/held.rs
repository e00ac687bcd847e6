//! A rescue and a rotation have the same Lease: while one of them is held or unfinished, the other one changes nothing, and names it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Running, until};
use rstest::rstest;
use rustix::process::Signal;
use test_cluster::TokenStorage;

use super::{QUICK, is_rescued, lose};
use crate::state::State;
use crate::writes::effective;

/// Starts a command, and waits until it holds the lock in a phase.
async fn holding<S: AsRef<str>>(fixture: &RancherFixture, command: &[S], stdin: &str, phase: &str) -> Result<Running> {
    let command = command.iter().map(AsRef::as_ref);
    let run = fixture.shell.crt(command).stdin(stdin).start().await?;
    let holder = format!("/{}/", run.pid()?);
    until(&format!("a run in phase {phase}"), async || {
        let state = State::of(fixture).await?;
        let is_holder = |lease: &crate::state::Lock| lease.holder.as_ref().is_some_and(|name| name.contains(&holder));
        let is_held = state.lease.as_ref().is_some_and(is_holder) && state.phase() == Some(phase);
        Ok(is_held.then_some(()))
    })
    .await
    .context("the run does not hold the lock")?;
    Ok(run)
}

/// The command that rescues the cluster with its agent's old token, on stdin.
fn with_the_old_token(id: &str) -> Vec<&str> {
    let rescue = ["rescue", id, "--reactivate-old-token", "--token-stdin"];
    rescue.into_iter().chain(QUICK).collect()
}

/// Such a rescue, which waits for an agent that is offline. Returns the old token too.
pub(super) async fn waiting_for_its_agent(fixture: &RancherFixture) -> Result<(String, Running)> {
    let cluster = &fixture.cluster;
    let old = lose(fixture).await?;
    fixture.rancher.offline(cluster, Duration::from_mins(10)).await?;
    let run = holding(fixture, &with_the_old_token(&cluster.id), &old, "place").await?;
    Ok((old, run))
}

async fn end(run: Running) -> Result<()> {
    run.signal(Signal::KILL)?;
    run.finish().await?.expect_killed().map(drop)
}

/// The command names the holder, and writes nothing.
async fn is_held(fixture: &RancherFixture, args: &[&str], stdin: &str, run: &str) -> Result<()> {
    let (proxy, shell) = fixture.behind_proxy().await?;
    let refused = shell.crt(args).stdin(stdin).run().await?.expect(5)?;
    let (name, id) = (&fixture.cluster.display_name, &fixture.cluster.id);
    let expected = format!("error: {run} of cluster {name} ({id}) is held by process ");
    ensure!(refused.stderr.contains(&expected), "{expected:?} is not in\n{refused}");
    let status = format!("kubectl crt status {id}");
    ensure!(
        refused.commands().iter().any(|command| command.starts_with(&status)),
        "{refused}"
    );
    assert_eq!(effective(&proxy), Vec::<String>::new(), "{refused}");
    Ok(())
}

/// A living holder is left alone. The rotation of one that was killed is finished.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_during_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "thisted").await?;
    let id = fixture.cluster.id.as_str();
    let old = fixture.rancher.token_values(&fixture.cluster).await?["system"].clone();
    let rotation = holding(&fixture, &["rotate", id, "--yes", "--settle", "10m"], "", "prove").await?;
    is_held(&fixture, &["rescue", id, "--yes"], "", "the rotation").await?;
    let planned = fixture.shell.crt(["rescue", id, "--dry-run"]).run().await?.expect(0)?;
    ensure!(planned.stderr.contains("is held by process "), "{planned}");
    end(rotation).await?;
    let rescue: Vec<&str> = ["rescue", id].into_iter().chain(QUICK).collect();
    let resumed = fixture.shell.crt(rescue).run().await?.expect(0)?;
    ensure!(
        resumed.stderr.contains("is in progress, in phase prove. Resuming it."),
        "{resumed}"
    );
    is_rescued(&fixture, &old, &resumed).await
}

/// The agent was lost after a rotation of it was killed.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_of_an_agent_that_is_lost_during_a_rotation(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "skagen").await?;
    let id = fixture.cluster.id.as_str();
    let rotation = holding(&fixture, &["rotate", id, "--yes", "--settle", "10m"], "", "prove").await?;
    end(rotation).await?;
    let old = lose(&fixture).await?;
    let direct = format!("{id}-direct");
    let rescue = ["rescue", id, "--downstream-context", &direct];
    let rescued = fixture.shell.crt(rescue.iter().chain(&QUICK)).run().await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await
}

/// A living holder is left alone. `rotate` names the command that resumes the rescue of one that was killed.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_during_a_rescue(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "hobro").await?;
    let (rancher, cluster, shell) = (fixture.rancher, &fixture.cluster, &fixture.shell);
    let id = cluster.id.as_str();
    let (old, run) = waiting_for_its_agent(&fixture).await?;
    for command in [&["rotate", id, "--yes"][..], &["rollback", id, "--yes"]] {
        let run = match command[0] {
            "rotate" => "a rescue",
            _ => "the rescue",
        };
        is_held(&fixture, command, "", run).await?;
    }
    is_held(&fixture, &with_the_old_token(id), &old, "the rescue").await?;
    end(run).await?;

    let refused = shell.crt(["rotate", id, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("error: a rescue is in progress"), "{refused}");
    let is_about = |command: &String| command.ends_with(id);
    ensure!(
        refused.commands().iter().all(is_about) && refused.commands().len() == 2,
        "{refused}"
    );
    rancher.online(cluster).await?;
    let rescued = shell.follow(&refused, "kubectl crt rescue", &QUICK).await?.expect(0)?;
    is_rescued(&fixture, &old, &rescued).await
}
