//! `kubectl crt rotate` on a terminal: the prompt and signals.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::RancherFixture;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Expect as _};
use rustix::process::Signal;
use test_cluster::{Fault, FaultProxy, On, Planned, TokenStorage};

use crate::state::{self, Scope, State};
use crate::terminal::{code, to_the_end};

#[tokio::test(flavor = "multi_thread")]
async fn declining_the_prompt_changes_nothing() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let before = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    for answer in ["n", "", "what?"] {
        let mut terminal = shell.crt(["rotate", &fixture.cluster.id]).on_terminal()?;
        let terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
            terminal.expect("(y/N)")?;
            terminal.send_line(answer)?;
            Ok(terminal)
        });
        let (rest, status) = to_the_end(terminal.await??).await?;
        ensure!(
            code(status) == Some(1) && rest.contains("nothing was changed"),
            "{answer:?}: {status:?} {rest}"
        );
    }
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    let after = State::of(&fixture).await?;
    ensure!(
        after.tokens == before.tokens && after.deployment == before.deployment,
        "{after:#?}"
    );
    ensure!(after.lease.is_none(), "{after:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn confirming_the_prompt_rotates_and_shows_the_phases() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "lyon").await?;
    let start = State::of(&fixture).await?;
    let mut terminal = fixture
        .shell
        .crt(["rotate", &fixture.cluster.id, "--settle", "1s"])
        .on_terminal()?;
    let terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("(y/N)")?;
        terminal.send_line("y")?;
        terminal.expect("waiting for the agent to connect with")?;
        Ok(terminal)
    });
    let (rest, status) = to_the_end(terminal.await??).await?;
    ensure!(code(status) == Some(0), "{status:?} {rest}");
    for phase in ["prove", "retire", "confirm"] {
        ensure!(rest.contains(phase), "no {phase} in {rest}");
    }
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}

/// A rotation on a terminal whose new agent never connects. It waits in the phase *prove*.
async fn start_waiting(fixture: &RancherFixture) -> Result<OsSession> {
    let fault = serde_json::json!({ "refuseNewTokens": [fixture.cluster.id] });
    fixture.rancher.fault(&fault).await?;
    let mut terminal = fixture
        .shell
        .crt(["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("waiting for the agent to connect with")?;
        Ok(terminal)
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_releases_the_lock_and_names_the_resume_command() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let start = State::of(&fixture).await?;
    let mut terminal = start_waiting(&fixture).await?;
    terminal.send(ControlCode::EndOfText)?;
    let (rest, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(130), "{status:?} {rest}");
    let id = &fixture.cluster.id;
    ensure!(rest.contains("interrupted in phase prove"), "{rest}");
    ensure!(
        rest.contains(&format!("`kubectl crt rotate {id}` resumes it")),
        "{rest}"
    );
    let rollback = format!("kubectl crt rollback {id}");
    let restores = format!("`{rollback}` restores the original state");
    ensure!(rest.contains(&restores), "{rest}");
    let state = State::of(&fixture).await?;
    let lease = state.lease.as_ref().context("no Lease")?;
    ensure!(lease.holder.is_none() && lease.journal.is_some(), "{state:#?}");

    let rollback = fixture.shell.printed(&rollback, &["--yes", "--settle", "1s"]);
    rollback.run().await?.expect(0)?;
    // The Deployment named a token that tunnels reject, as the test has arranged. The old agent was never stopped.
    ensure!(state.report.without.valid_token.is_empty(), "{state:#?}");
    fixture.rancher.reset(&fixture.cluster).await?;
    state::restored(&fixture, &start, state.new_token()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_rotation_with_exit_code_143() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "lyon").await?;
    let fault = serde_json::json!({ "refuseNewTokens": [fixture.cluster.id] });
    fixture.rancher.fault(&fault).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let held = proxy.plan(
        On::write().path("*/deployments/*"),
        Fault::Stall(Duration::from_secs(1)),
    );
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s", "-o", "json"];
    let rotation = shell.crt(rotate).start().await?;
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    rotation.signal(Signal::TERM)?;
    let outcome = rotation.finish().await?.expect(143)?;
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(
        document["exitCode"] == 143 && document["outcome"] == "interrupted",
        "{document:#}"
    );
    let lease = State::of(&fixture).await?.lease.context("no Lease")?;
    ensure!(lease.holder.is_none() && lease.journal.is_some(), "{lease:?}");
    Ok(())
}

/// Holds back the response to a write, so that the victim cannot exit in order.
fn stall_a_write(proxy: &FaultProxy) -> Planned {
    proxy.plan(
        On::write().path("*/deployments/*"),
        Fault::Stall(Duration::from_mins(2)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn second_ctrl_c_exits_immediately() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "lyon").await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let stalled = stall_a_write(&proxy);
    let mut terminal = shell
        .crt(["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"])
        .on_terminal()?;
    tokio::time::timeout(e2e::PATIENCE, stalled.strikes()).await?;
    let began = std::time::Instant::now();
    terminal.send(ControlCode::EndOfText)?;
    // The message says that a second Ctrl-C exits immediately.
    let mut terminal = tokio::task::spawn_blocking(move || -> Result<OsSession> {
        terminal.expect("Press Ctrl-C again to stop at once")?;
        Ok(terminal)
    })
    .await??;
    terminal.send(ControlCode::EndOfText)?;
    let (rest, status) = to_the_end(terminal).await?;
    ensure!(code(status) == Some(130), "{status:?} {rest}");
    ensure!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    // The write in flight may or may not have been processed. The next run observes which.
    proxy.heal();
    fixture
        .shell
        .crt(["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    Ok(())
}
