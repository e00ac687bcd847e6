//! One run at a time: a live holder keeps its lock, and a holder that has lost it writes nothing.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, FaultProxy, Moment, On, Request};

use crate::fixture::{Consumer, Fixture};
use crate::runner::RunResult;

/// The writes that were accepted.
fn accepted_writes(proxy: &FaultProxy, since: SystemTime) -> Vec<Request> {
    let accepted = |write: &Request| write.at >= since && write.status.is_some_and(|status| status < 300);
    proxy.writes().into_iter().filter(accepted).collect()
}

/// How long a holder is watched at least before its lock is taken, less the resolution of a clock.
const WATCHED: Duration = Duration::from_secs(29);

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_runs_only_one_writes() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (_first_proxy, first) = fixture.run().await?;
    let first = first.start()?;
    fixture.reaches("prove").await?;

    let (proxy, second) = fixture.run().await?;
    let ended = second.start()?.finish().await?;
    let Some(RunResult::Held(holder)) = ended else {
        anyhow::bail!("{ended:?}")
    };
    ensure!(holder.starts_with(&format!("process {} on ", first.pid()?)), "{holder}");
    ensure!(holder.contains(", renewed "), "{holder}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());

    fixture.consumer(Consumer::Calls);
    first.expect(RunResult::Done).await?;
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_runs_rotate_once() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let mut runs = Vec::new();
    for _ in 0..4 {
        let (proxy, run) = fixture.run().await?;
        runs.push((run.start()?, proxy));
    }
    fixture.reaches("prove").await?;
    let has_rotated = |proxy: &FaultProxy| proxy.writes().iter().any(|write| write.path.contains("/secrets/"));
    let (winners, losers): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(_, proxy)| has_rotated(proxy));
    ensure!(winners.len() == 1, "{} winners", winners.len());
    // The winner still waits, so the others see it renew its lock.
    for (process, proxy) in losers {
        let ended = process.finish().await?;
        let held = matches!(ended, Some(RunResult::Held(_)));
        ensure!(held, "{ended:?}\n{}", proxy.transcript());
        // Several may have tried to create the Lease.
        let written = accepted_writes(&proxy, SystemTime::UNIX_EPOCH);
        ensure!(written.is_empty(), "{}", proxy.transcript());
    }
    fixture.consumer(Consumer::Calls);
    for (process, _proxy) in winners {
        process.expect(RunResult::Done).await?;
    }
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_an_ended_local_process_is_taken_immediately() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    proxy.plan(On::write().path("*/secrets/consumer"), Fault::Kill(Moment::Before));
    let process = run.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    ensure!(fixture.record().await?.is_some_and(|record| record.holder_has_exited()));

    let (proxy, run) = fixture.run().await?;
    run.start()?.expect(RunResult::Done).await?;
    let (first, taken) = read_and_taken(&proxy)?;
    let took = taken.duration_since(first)?;
    ensure!(took < WATCHED, "{took:?}\n{}", proxy.transcript());
    fixture.expect_rotated().await
}

/// When the Lease was first read, and when it was first written.
fn read_and_taken(proxy: &FaultProxy) -> Result<(SystemTime, SystemTime)> {
    let first = proxy.requests().first().context("no request")?.at;
    let taken = proxy.writes().first().context("no write")?.at;
    Ok((first, taken))
}

/// The time in the Lease is not compared: it is not known whose clock wrote it.
#[rstest]
#[case::an_hour_ahead(1)]
#[case::an_hour_behind(-1)]
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_remote_holder_is_taken_after_the_lease_duration(#[case] hours: i64) -> Result<()> {
    let fixture = Fixture::open().await?;
    let renewed = Timestamp::now().saturating_add(SignedDuration::from_hours(hours))?;
    fixture
        .plant_lease(json!({ "spec": {
            "holderIdentity": "elsewhere/5f1f6e1e-0000-4000-8000-000000000000/4026531836/1/1",
            "renewTime": format!("{renewed:.6}"), "leaseDurationSeconds": 30,
        } }))
        .await?;
    let (proxy, run) = fixture.run().await?;
    let ended = run.run().await?;
    ensure!(ended == RunResult::Done, "{ended:?}\n{}", proxy.transcript());
    let (first, taken) = read_and_taken(&proxy)?;
    let took = taken.duration_since(first)?;
    ensure!(took >= WATCHED, "taken over after {took:?}\n{}", proxy.transcript());
    fixture.expect_rotated().await
}

/// The holder is paused (its intent is journaled and the step not sent yet, or the step is on the wire) until another process
/// has taken over and finished.
#[rstest]
#[case::before_the_write(On::write().path("*/leases/*").method(http::Method::PATCH).nth(3), Moment::After)]
#[case::with_the_write_on_the_wire(On::write().path("*/secrets/consumer"), Moment::Before)]
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_holder_writes_nothing_after_it_continues(#[case] on: On, #[case] moment: Moment) -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    let stopped = proxy.plan(on, Fault::Stop(moment));
    let process = run.start()?;
    proxy.victim(process.pid()?);
    stopped.strikes().await;
    ensure!(
        fixture.worn().await? == fixture.start,
        "paused too late:\n{}",
        proxy.transcript()
    );
    ensure!(
        fixture.issued().await?.len() == 2,
        "paused too early:\n{}",
        proxy.transcript()
    );

    let (_proxy, other) = fixture.run().await?;
    other.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await?;

    let resumed = SystemTime::now();
    let before = proxy.writes().len();
    stopped.release();
    process.resume()?;
    let ended = process.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}\n{}", proxy.transcript());
    ensure!(accepted_writes(&proxy, resumed).is_empty(), "{}", proxy.transcript());
    let is_step = |write: &Request| write.path.contains("/secrets/");
    ensure!(!proxy.writes()[before..].iter().any(is_step), "{}", proxy.transcript());
    let late = proxy
        .writes()
        .into_iter()
        .filter(is_step)
        .find(|write| write.path.ends_with("/consumer"));
    // It was rejected, or its sender gave up before the proxy passed it on.
    ensure!(
        late.is_none_or(|write| write.status.is_none_or(|status| status == 409)),
        "{}",
        proxy.transcript()
    );
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn forcing_the_lock_stops_the_former_holder() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (proxy, run) = fixture.run().await?;
    let former = run.start()?;
    fixture.reaches("prove").await?;
    let holder = fixture.record().await?.and_then(|record| record.holder);

    let (force_proxy, mut run) = fixture.run().await?;
    run.by_force = true;
    let successor = run.start()?;
    until("the new holder", async || {
        let now = fixture.record().await?.and_then(|record| record.holder);
        Ok((now != holder).then_some(()))
    })
    .await?;
    let (first, taken) = read_and_taken(&force_proxy)?;
    ensure!(taken.duration_since(first)? < WATCHED, "{}", force_proxy.transcript());
    // Now both could finish.
    let taken = SystemTime::now();
    fixture.consumer(Consumer::Calls);
    successor.expect(RunResult::Done).await?;
    // It may see that the rotation is done before it renews its lock.
    let ended = former.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock() || ended == RunResult::Done, "{ended:?}");
    ensure!(accepted_writes(&proxy, taken).is_empty(), "{}", proxy.transcript());
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_lease_ends_the_run() -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture.consumer(Consumer::Silent);
    let (proxy, run) = fixture.run().await?;
    let process = run.start()?;
    fixture.reaches("prove").await?;
    let deleted = SystemTime::now();
    fixture.delete_lease().await?;
    let ended = process.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}");
    ensure!(accepted_writes(&proxy, deleted).is_empty(), "{}", proxy.transcript());
    ensure!(fixture.record().await?.is_none(), "the Lease came back");

    // Both badges are still valid. Without a journal the rotation cannot be resumed.
    ensure!(fixture.issued().await?.len() == 2);
    let (_proxy, run) = fixture.run().await?;
    let refused = "the issuer accepts a badge that no consumer wears".to_owned();
    run.start()?.expect(RunResult::Refused(refused)).await?;
    ensure!(fixture.record().await?.is_none(), "a refused run leaves a Lease");
    Ok(())
}
