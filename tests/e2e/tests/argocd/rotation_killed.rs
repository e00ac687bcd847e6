//! The kill matrix: a rotation, and its rollback, killed before and after each of their writes, and run again.

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use testbed::{Fault, Moment, On};

use crate::bench::{Bench, token};

/// How many rotations run side by side.
const SIDE_BY_SIDE: usize = 4;
const ROTATE: [&str; 3] = ["--grace", "0s", "--yes"];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes() -> Result<()> {
    let bench = begun("undisturbed").await?;
    let old = token(&bench.secret().await?)?;
    let (proxy, desk) = bench.behind_proxy().await?;
    bench
        .run_at(&desk, &with(&["rotate", bench.id()]))
        .run()
        .await?
        .expect(0)?;
    bench.is_rotated(&old).await?;
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
async fn killed_at_any_write_and_rolled_back_nothing_is_lost() -> Result<()> {
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

async fn begun(name: &str) -> Result<Bench> {
    let bench = Bench::begin(name).await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    Ok(bench)
}

fn with<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, ROTATE.as_slice()].concat()
}

async fn killed_at(nth: usize, moment: Moment) -> Result<()> {
    let bench = begun(&format!("killed-{nth}-{moment:?}").to_lowercase()).await?;
    let old = token(&bench.secret().await?)?;
    let (proxy, desk) = bench.behind_proxy().await?;
    proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let run = bench.run_at(&desk, &with(&["rotate", bench.id()])).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    // A lock that is renewed once less leaves the last point without a write.
    let done = outcome.code() == Some(0);
    if !done {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let held = token(&bench.cluster_secret().await?)?;
    ensure!(
        bench.lets_in(&held).await?,
        "what Argo CD has is refused\n{}",
        proxy.transcript()
    );
    // The end may have been reached right before the kill: then the next run is a rotation of its own.
    let again = bench.run_at(&desk, &with(&["rotate", bench.id()])).run().await?;
    ensure!(again.code() == Some(0), "{again}\n{}", proxy.transcript());
    let new = bench
        .is_rotated(&old)
        .await
        .with_context(|| format!("{again}\n{}", proxy.transcript()))?;
    let said = again.to_string();
    ensure!(!said.contains(&old) && !said.contains(&new), "a token was shown");
    Ok(())
}

async fn killed_on_the_way_back(nth: usize) -> Result<()> {
    let bench = begun(&format!("undone-{nth}")).await?;
    let old = token(&bench.secret().await?)?;
    let (proxy, desk) = bench.behind_proxy().await?;
    // Stopped while the grace time runs, everything is in place and nothing is gone.
    let rotate = ["rotate", bench.id(), "--grace", "10m", "--yes"];
    let run = bench.run_at(&desk, &rotate).start().await?;
    bench.comes_to("prove").await?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.pid()?)?).context("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    run.finish().await?.expect(130)?;
    let undo = with(&["rollback", bench.id()]);
    proxy.plan(On::write().nth(nth), Fault::Kill(Moment::After));
    let run = bench.run_at(&desk, &undo).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    let done = outcome.code() == Some(0);
    if !done {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let held = token(&bench.cluster_secret().await?)?;
    ensure!(
        bench.lets_in(&held).await?,
        "what Argo CD has is refused\n{}",
        proxy.transcript()
    );
    proxy.heal();
    let again = bench.run_at(&desk, &undo).run().await?;
    ensure!(again.code() == Some(0), "{again}\n{}", proxy.transcript());
    bench
        .is_restored(&old)
        .await
        .with_context(|| format!("{again}\n{}", proxy.transcript()))
}
