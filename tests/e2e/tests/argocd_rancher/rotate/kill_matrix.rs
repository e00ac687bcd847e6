//! The kill matrix: a rotation, and its rollback, killed before and after each of their writes, and run again.

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use test_cluster::{Fault, Moment, On};

use crate::fixture::{Fixture, token};

/// How many rotations run side by side.
const SIDE_BY_SIDE: usize = 4;

const ROTATE: [&str; 3] = ["--grace", "0s", "--yes"];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes() -> Result<()> {
    let fixture = begun("undisturbed").await?;
    let old = token(&fixture.secret().await?)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    fixture
        .run_at(&shell, &with(&["rotate", fixture.id()]))
        .run()
        .await?
        .expect(0)?;
    fixture.is_rotated(&old).await?;
    let writes = proxy.writes().len();
    // Lock, beginning; intent and write of each of six steps; release.
    ensure!(writes >= 12, "{}", proxy.transcript());
    let points = (1..=writes).flat_map(|nth| [Moment::Before, Moment::After].map(|moment| (nth, moment)));
    let points: Vec<_> = points.collect();
    for some in points.chunks(SIDE_BY_SIDE) {
        let killed = some.iter().map(|(nth, moment)| async move {
            let ended = Box::pin(killed_at(*nth, *moment)).await;
            ended.with_context(|| format!("killed {moment:?} write {nth}"))
        });
        join_all(killed).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_resumes_after_a_kill_at_any_write() -> Result<()> {
    // More than the way back has: those beyond its end are not struck.
    let points: Vec<usize> = (1..=14).collect();
    for some in points.chunks(SIDE_BY_SIDE) {
        let killed = some.iter().map(|nth| async move {
            let ended = Box::pin(killed_on_the_way_back(*nth)).await;
            ended.with_context(|| format!("killed after write {nth}"))
        });
        join_all(killed).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

async fn begun(name: &str) -> Result<Fixture> {
    let fixture = Fixture::begin(name).await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    Ok(fixture)
}

fn with<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, ROTATE.as_slice()].concat()
}

async fn killed_at(nth: usize, moment: Moment) -> Result<()> {
    let fixture = begun(&format!("killed-{nth}-{moment:?}").to_lowercase()).await?;
    let old = token(&fixture.secret().await?)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let run = fixture.run_at(&shell, &with(&["rotate", fixture.id()])).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    // A lock that is renewed once less leaves the last point without a write.
    let done = outcome.code() == Some(0);
    if !done {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let held = token(&fixture.cluster_secret().await?)?;
    ensure!(
        fixture.lets_in(&held).await?,
        "what Argo CD has is refused\n{}",
        proxy.transcript()
    );
    // The end may have been reached right before the kill: then the next run is a rotation of its own.
    let again = fixture.run_at(&shell, &with(&["rotate", fixture.id()])).run().await?;
    ensure!(again.code() == Some(0), "{again}\n{}", proxy.transcript());
    let new = fixture
        .is_rotated(&old)
        .await
        .with_context(|| format!("{again}\n{}", proxy.transcript()))?;
    let said = again.to_string();
    ensure!(!said.contains(&old) && !said.contains(&new), "a token was shown");
    Ok(())
}

async fn killed_on_the_way_back(nth: usize) -> Result<()> {
    let fixture = begun(&format!("undone-{nth}")).await?;
    let old = token(&fixture.secret().await?)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    // Stopped while the grace time runs, everything is in place and nothing is gone.
    let rotate = ["rotate", fixture.id(), "--grace", "10m", "--yes"];
    let run = fixture.run_at(&shell, &rotate).start().await?;
    fixture.comes_to("prove").await?;
    run.signal(rustix::process::Signal::INT)?;
    run.finish().await?.expect(130)?;
    let undo = with(&["rollback", fixture.id()]);
    proxy.plan(On::write().nth(nth), Fault::Kill(Moment::After));
    let run = fixture.run_at(&shell, &undo).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    let done = outcome.code() == Some(0);
    if !done {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let held = token(&fixture.cluster_secret().await?)?;
    ensure!(
        fixture.lets_in(&held).await?,
        "what Argo CD has is refused\n{}",
        proxy.transcript()
    );
    proxy.heal();
    let again = fixture.run_at(&shell, &undo).run().await?;
    ensure!(again.code() == Some(0), "{again}\n{}", proxy.transcript());
    fixture
        .is_restored(&old)
        .await
        .with_context(|| format!("{again}\n{}", proxy.transcript()))
}
