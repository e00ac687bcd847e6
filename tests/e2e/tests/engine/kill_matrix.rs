//! A run is killed right before or right after each of its writes. Run again, it finishes, or `rollback` restores the start.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use test_cluster::{Fault, Moment, On};

use crate::fixture::Fixture;
use crate::runner::RunResult;

/// How many kill points are tested at the same time, on two cores.
const AT_ONCE: usize = 4;

/// The three steps, the creation and the release of the Lease, and an intent for each step. There are more writes when a phase
/// begins with a wait or the lock is renewed, which depends on timing.
const LEAST: usize = 3 + 2 + 3;

/// How many writes an undisturbed rotation has, including those of the Lease.
async fn writes() -> Result<usize> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    run.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await?;
    let all = proxy.writes();
    let steps = all.iter().filter(|write| write.path.contains("/secrets/")).count();
    ensure!(steps == 3 && all.len() >= LEAST, "{}", proxy.transcript());
    Ok(all.len())
}

async fn each_point(check: impl AsyncFn(usize, Moment) -> Result<()>) -> Result<()> {
    let points = (1..=writes().await?).flat_map(|nth| [(nth, Moment::Before), (nth, Moment::After)]);
    let checks = points.map(|(nth, moment)| {
        let check = &check;
        async move {
            let checked = check(nth, moment).await;
            checked.with_context(|| format!("killed {moment:?} write {nth}"))
        }
    });
    stream::iter(checks).buffer_unordered(AT_ONCE).try_collect().await
}

/// Starts a rotation and kills it there. False: this one had no such write, and finished.
async fn killed(fixture: &Fixture, nth: usize, moment: Moment) -> Result<bool> {
    let (proxy, run) = fixture.run().await?;
    let strike = proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let process = run.start()?;
    proxy.victim(process.pid()?);
    let ended = process.finish().await?;
    if nth > LEAST && strike.struck() == 0 && matches!(ended, Some(RunResult::Done)) {
        return Ok(false);
    }
    ensure!(
        strike.struck() == 1 && ended.is_none(),
        "{ended:?}\n{}",
        proxy.transcript()
    );
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes() -> Result<()> {
    each_point(async |nth, moment| {
        let fixture = Fixture::open().await?;
        if !killed(&fixture, nth, moment).await? {
            return fixture.expect_rotated().await;
        }
        if fixture.record().await?.is_some_and(|record| record.last_run.is_some()) {
            return fixture.expect_rotated().await;
        }
        let (_proxy, run) = fixture.run().await?;
        run.start()?.expect(RunResult::Done).await?;
        fixture.expect_rotated().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_start_after_a_kill_at_any_write() -> Result<()> {
    each_point(async |nth, moment| {
        let fixture = Fixture::open().await?;
        if !killed(&fixture, nth, moment).await? {
            return fixture.expect_rotated().await;
        }
        let journal = fixture.journal().await?;
        let (_proxy, run) = fixture.run().await?;
        let ended = run.rollback().start()?.finish().await?;
        match ended.context("it was killed once more")? {
            RunResult::RolledBack(_) => fixture.expect_restored().await,
            // It was killed before it had a journal.
            RunResult::NothingToRollBack if journal.is_none() && fixture.worn().await? == fixture.start => {
                fixture.expect_restored().await
            }
            RunResult::NothingToRollBack if journal.is_none() => fixture.expect_rotated().await,
            RunResult::NothingToRollBack => {
                let journal = journal.unwrap_or_default();
                ensure!(
                    journal.contains(r#""phase":"retire""#) || journal.contains(r#""phase":"confirm""#),
                    "{journal}"
                );
                ensure!(fixture.journal().await? == Some(journal), "the journal was changed");
                run.start()?.expect(RunResult::Done).await?;
                fixture.expect_rotated().await
            }
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rollback_resumes_as_a_rollback() -> Result<()> {
    let fixture = Fixture::open().await?;
    // After the new badge was handed out.
    let (proxy, run) = fixture.run().await?;
    let hand = On::write().path("*/secrets/consumer");
    proxy.plan(hand.clone(), Fault::Kill(Moment::After));
    let process = run.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    // The rollback is killed after it handed the old badge out.
    let (proxy, run) = fixture.run().await?;
    proxy.plan(hand, Fault::Kill(Moment::After));
    let process = run.rollback().start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    // `rotate` finishes the rollback first.
    let (_proxy, run) = fixture.run().await?;
    run.start()?
        .expect(RunResult::RolledBack("requested".to_owned()))
        .await?;
    fixture.expect_restored().await
}
