//! Why a run stops, and what it leaves.

use std::time::Duration;

use anyhow::{Result, ensure};
use engine::direction::Direction;
use engine::phase::Phase;
use serde_json::json;
use test_cluster::{Fault, On};
use tokio::sync::watch;

use crate::fixture::{CLOSED, Consumer, Fixture, ISSUER};
use crate::runner::{PauseReason, RunResult};

#[tokio::test(flavor = "multi_thread")]
async fn an_undisturbed_rotation_leaves_a_record() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (_proxy, run) = fixture.run().await?;
    run.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await?;
    // The next rotation begins from there.
    let first = fixture.worn().await?;
    run.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await?;
    ensure!(fixture.worn().await? != first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_releases_the_lock_and_keeps_the_journal() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (_proxy, run) = fixture.run().await?;
    let (stop, receiver) = watch::channel(false);
    let stopped = async {
        fixture.reaches("prove").await?;
        stop.send_replace(true);
        anyhow::Ok(())
    };
    let (ended, stopped) = tokio::join!(run.run_until(receiver), stopped);
    stopped?;
    let pending = RunResult::Pending {
        phase: Phase::Prove,
        direction: Direction::Forward,
        because: PauseReason::Interrupted,
    };
    ensure!(ended? == pending);
    let record = fixture.record().await?.unwrap_or_default();
    ensure!(record.holder.is_none() && record.journal.is_some(), "{record:?}");

    fixture.consumer(Consumer::Calls);
    ensure!(run.run().await? == RunResult::Done);
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_before_the_start_leaves_no_lease() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (_proxy, run) = fixture.run().await?;
    let (_stop, receiver) = watch::channel(true);
    let ended = run.run_until(receiver).await?;
    ensure!(ended.was_interrupted(), "{ended:?}");
    ensure!(fixture.record().await?.is_none());
    fixture.expect_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_names_the_awaited_condition_and_the_run_resumes() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (proxy, mut run) = fixture.run().await?;
    run.patience = Duration::from_secs(3);
    // The sender is gone: nothing can stop it.
    let (_, receiver) = watch::channel(false);
    let ended = run.run_until(receiver).await?;
    let what = format!("a call with {}", fixture.worn().await?);
    let pending = RunResult::Pending {
        phase: Phase::Prove,
        direction: Direction::Forward,
        because: PauseReason::TimedOut(what),
    };
    ensure!(ended == pending, "{ended:?}");
    // It reads three objects every 400 ms, and does not spin.
    let requests = proxy.requests().len();
    ensure!(requests < 80, "{requests} requests in a few seconds");

    fixture.consumer(Consumer::Calls);
    ensure!(run.run().await? == RunResult::Done);
    fixture.expect_rotated().await
}

/// What a run waited for until its timeout.
fn waited_for(ended: RunResult) -> Result<String> {
    match ended {
        RunResult::Pending {
            because: PauseReason::TimedOut(what),
            ..
        } => Ok(what),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_conflicts_end_in_a_timeout() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, mut run) = fixture.run().await?;
    run.patience = Duration::from_secs(3);
    let conflict = Fault::Answer {
        status: 409,
        retry_after: None,
    };
    proxy.plan(On::write().path("*/secrets/consumer").always(), conflict);
    let what = waited_for(run.run().await?)?;
    ensure!(what == "other writers to stop changing the same object", "{what}");
    proxy.heal();
    ensure!(run.run().await? == RunResult::Done);
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_without_effect_end_in_a_timeout() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, mut run) = fixture.run().await?;
    run.patience = Duration::from_secs(3);
    let unchanged = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "consumer"}});
    let nothing = Fault::Say {
        status: 200,
        body: unchanged.to_string(),
    };
    let accepted = proxy.plan(On::write().path("*/secrets/consumer").always(), nothing);
    let what = waited_for(run.run().await?)?;
    ensure!(what.starts_with("an effect of \"hand "), "{what}");
    // It is repeated, and does not spin.
    ensure!((6..20).contains(&accepted.struck()), "{} times", accepted.struck());
    proxy.heal();
    ensure!(run.run().await? == RunResult::Done);
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_not_proven_in_time_is_rolled_back() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (_proxy, mut run) = fixture.run().await?;
    run.proof = Duration::from_secs(3);
    let turned = async {
        e2e::until("the turn", async || {
            let journal = fixture.journal().await?.unwrap_or_default();
            Ok(journal.contains(r#""direction":"rollback""#).then_some(()))
        })
        .await?;
        fixture.consumer(Consumer::Calls);
        anyhow::Ok(())
    };
    let (ended, turned) = tokio::join!(run.run(), turned);
    turned?;
    let ended = ended?;
    ensure!(
        matches!(&ended, RunResult::RolledBack(reason) if reason.starts_with("still waiting for a call with ")),
        "{ended:?}"
    );
    fixture.expect_restored().await?;
    ensure!(fixture.record().await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_rotation_is_refused_and_leaves_no_lease() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture
        .edit(
            ISSUER,
            json!({ "metadata": { "annotations": { CLOSED: "for maintenance" } } }),
        )
        .await?;
    let (_proxy, run) = fixture.run().await?;
    ensure!(run.run().await? == RunResult::Refused("the issuer is closed".to_owned()));
    ensure!(fixture.record().await?.is_none());
    fixture.expect_restored().await
}
