//! One run at a time: who holds the lock is left alone while it lives, and writes nothing once it has lost it.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;
use testbed::{Fault, FaultProxy, Moment, On, Request};

use crate::premises::{Consumer, Premises};
use crate::runner::Ended;

/// Those writes that had an effect.
fn carried_out(proxy: &FaultProxy, since: SystemTime) -> Vec<Request> {
    let accepted = |write: &Request| write.at >= since && write.status.is_some_and(|status| status < 300);
    proxy.writes().into_iter().filter(accepted).collect()
}

/// How long a holder must at least be watched before it counts as gone, but for what a clock is coarse by.
const WATCHED: Duration = Duration::from_secs(29);

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_at_once_one_wins_and_the_other_has_written_nothing() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (_first_proxy, first) = premises.order().await?;
    let first = first.start()?;
    premises.reaches("prove").await?;

    let (proxy, second) = premises.order().await?;
    let ended = second.start()?.finish().await?;
    let Some(Ended::Held(holder)) = ended else {
        anyhow::bail!("{ended:?}")
    };
    ensure!(holder.starts_with(&format!("process {} on ", first.pid()?)), "{holder}");
    ensure!(holder.contains(", renewed "), "{holder}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());

    premises.consumer(Consumer::Calls);
    first.expect(Ended::Done).await?;
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_that_begin_at_once_rotate_once() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let mut runs = Vec::new();
    for _ in 0..4 {
        let (proxy, order) = premises.order().await?;
        runs.push((order.start()?, proxy));
    }
    premises.reaches("prove").await?;
    let has_rotated = |proxy: &FaultProxy| proxy.writes().iter().any(|write| write.path.contains("/secrets/"));
    let (winners, losers): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(_, proxy)| has_rotated(proxy));
    ensure!(winners.len() == 1, "{} winners", winners.len());
    // The winner still waits, so that they see it renew its lock.
    for (process, proxy) in losers {
        let ended = process.finish().await?;
        let held = matches!(ended, Some(Ended::Held(_)));
        ensure!(held, "{ended:?}\n{}", proxy.transcript());
        // Several may have tried to create the Lease.
        let written = carried_out(&proxy, SystemTime::UNIX_EPOCH);
        ensure!(written.is_empty(), "{}", proxy.transcript());
    }
    premises.consumer(Consumer::Calls);
    for (process, _proxy) in winners {
        process.expect(Ended::Done).await?;
    }
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_of_this_host_is_taken_over_at_once() -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, order) = premises.order().await?;
    proxy.plan(On::write().path("*/secrets/consumer"), Fault::Kill(Moment::Before));
    let process = order.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    ensure!(premises.record().await?.is_some_and(|record| record.holder_is_gone()));

    let (proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Done).await?;
    let (first, taken) = asked_and_taken(&proxy)?;
    let took = taken.duration_since(first)?;
    ensure!(took < WATCHED, "{took:?}\n{}", proxy.transcript());
    premises.expect_rotated().await
}

/// When the Lease was first looked at, and when it was first written.
fn asked_and_taken(proxy: &FaultProxy) -> Result<(SystemTime, SystemTime)> {
    let first = proxy.requests().first().context("no request")?.at;
    let taken = proxy.writes().first().context("no write")?.at;
    Ok((first, taken))
}

/// Its time says nothing: whose clock wrote it is not known.
#[rstest]
#[case::an_hour_ahead(1)]
#[case::an_hour_behind(-1)]
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_elsewhere_is_taken_over_only_after_we_have_watched_it(#[case] hours: i64) -> Result<()> {
    let premises = Premises::open().await?;
    let renewed = Timestamp::now().saturating_add(SignedDuration::from_hours(hours))?;
    premises
        .plant_lease(json!({ "spec": {
            "holderIdentity": "elsewhere/5f1f6e1e-0000-4000-8000-000000000000/4026531836/1/1",
            "renewTime": format!("{renewed:.6}"), "leaseDurationSeconds": 30,
        } }))
        .await?;
    let (proxy, order) = premises.order().await?;
    let ended = order.run().await?;
    ensure!(ended == Ended::Done, "{ended:?}\n{}", proxy.transcript());
    let (first, taken) = asked_and_taken(&proxy)?;
    let took = taken.duration_since(first)?;
    ensure!(took >= WATCHED, "taken over after {took:?}\n{}", proxy.transcript());
    premises.expect_rotated().await
}

/// Stopped in the worst moment (the intent is journaled, the write not sent yet; or the write is on the wire) until a
/// colleague has taken over and finished.
#[rstest]
#[case::before_the_write(On::write().path("*/leases/*").method(http::Method::PATCH).nth(3), Moment::After)]
#[case::with_the_write_on_the_wire(On::write().path("*/secrets/consumer"), Moment::Before)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_holder_that_wakes_up_writes_nothing(#[case] on: On, #[case] moment: Moment) -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, order) = premises.order().await?;
    let stopped = proxy.plan(on, Fault::Stop(moment));
    let process = order.start()?;
    proxy.victim(process.pid()?);
    stopped.strikes().await;
    ensure!(
        premises.worn().await? == premises.start,
        "stopped too late:\n{}",
        proxy.transcript()
    );
    ensure!(
        premises.issued().await?.len() == 2,
        "stopped too early:\n{}",
        proxy.transcript()
    );

    let (_proxy, colleague) = premises.order().await?;
    colleague.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await?;

    let woken = SystemTime::now();
    let before = proxy.writes().len();
    stopped.release();
    process.go_on()?;
    let ended = process.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}\n{}", proxy.transcript());
    ensure!(carried_out(&proxy, woken).is_empty(), "{}", proxy.transcript());
    let product = |write: &Request| write.path.contains("/secrets/");
    ensure!(!proxy.writes()[before..].iter().any(product), "{}", proxy.transcript());
    let late = proxy
        .writes()
        .into_iter()
        .filter(product)
        .find(|write| write.path.ends_with("/consumer"));
    // Refused, or given up by the one who sent it before it was passed on.
    ensure!(
        late.is_none_or(|write| write.status.is_none_or(|status| status == 409)),
        "{}",
        proxy.transcript()
    );
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_taken_by_force_stops_the_former_holder() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (proxy, order) = premises.order().await?;
    let former = order.start()?;
    premises.reaches("prove").await?;
    let holder = premises.record().await?.and_then(|record| record.holder);

    let (force_proxy, mut order) = premises.order().await?;
    order.by_force = true;
    let thief = order.start()?;
    until("the theft", async || {
        let now = premises.record().await?.and_then(|record| record.holder);
        Ok((now != holder).then_some(()))
    })
    .await?;
    let (first, stolen) = asked_and_taken(&force_proxy)?;
    ensure!(stolen.duration_since(first)? < WATCHED, "{}", force_proxy.transcript());
    // Both would go on now.
    let stolen = SystemTime::now();
    premises.consumer(Consumer::Calls);
    thief.expect(Ended::Done).await?;
    // Before it has to renew its lock it may see that everything is done.
    let ended = former.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock() || ended == Ended::Done, "{ended:?}");
    ensure!(carried_out(&proxy, stolen).is_empty(), "{}", proxy.transcript());
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_under_a_run_ends_it() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (proxy, order) = premises.order().await?;
    let process = order.start()?;
    premises.reaches("prove").await?;
    let deleted = SystemTime::now();
    premises.delete_lease().await?;
    let ended = process.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}");
    ensure!(carried_out(&proxy, deleted).is_empty(), "{}", proxy.transcript());
    ensure!(premises.record().await?.is_none(), "the Lease came back");

    // Both badges still work. The journal is gone, so what was begun is not guessed at.
    ensure!(premises.issued().await?.len() == 2);
    let (_proxy, order) = premises.order().await?;
    let refused = "the issuer accepts a badge that nobody wears".to_owned();
    order.start()?.expect(Ended::Refused(refused)).await?;
    ensure!(premises.record().await?.is_none(), "a refused run leaves a Lease");
    Ok(())
}
