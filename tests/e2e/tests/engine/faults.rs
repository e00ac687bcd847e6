//! An API server that fails, lies low or is slow: the rotation gets there all the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use testbed::{Bed, Era, Fault, On, Outage};

use crate::premises::{Consumer, Premises};
use crate::runner::Ended;

const LEASE: &str = "*/leases/*";
const ISSUER: &str = "*/secrets/issuer";
const CONSUMER: &str = "*/secrets/consumer";

fn refused(status: u16) -> Fault {
    Fault::Answer {
        status,
        retry_after: (status == 429).then_some(Duration::from_secs(1)),
    }
}

fn away(seconds: u64, status: Option<u16>) -> Fault {
    Fault::Away(Outage {
        prefix: "/".to_owned(),
        lasts: Duration::from_secs(seconds),
        status,
    })
}

#[rstest]
#[case::a_conflict(On::write().path(CONSUMER), refused(409))]
#[case::some_conflicts(On::write().path(ISSUER).times(4), refused(409))]
#[case::a_conflict_of_the_lease(On::write().path(LEASE).nth(2), refused(409))]
#[case::too_many_requests(On::write().path(CONSUMER), refused(429))]
#[case::internal_errors(On::write().path(CONSUMER).times(2), refused(500))]
#[case::unavailable_for_the_lease(On::write().path(LEASE).nth(3).times(3), refused(503))]
#[case::a_lost_answer(On::write().path(ISSUER), Fault::LoseAnswer)]
#[case::a_lost_answer_to_the_revocation(On::write().path(ISSUER).nth(2), Fault::LoseAnswer)]
#[case::a_lost_answer_about_the_lease(On::write().path(LEASE).nth(2), Fault::LoseAnswer)]
#[case::a_cut_answer(On::write().path(CONSUMER), Fault::Cut)]
#[case::a_cut_read(On::read().path(CONSUMER).nth(3), Fault::Cut)]
#[case::a_stall(On::write().path(LEASE).nth(2), Fault::Stall(Duration::from_secs(10)))]
#[case::away_without_a_word(On::write().path(CONSUMER), away(5, None))]
#[case::away_with_an_excuse(On::write().path(ISSUER).nth(2), away(5, Some(503)))]
#[tokio::test(flavor = "multi_thread")]
async fn the_rotation_gets_there_in_spite_of(#[case] on: On, #[case] fault: Fault) -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, order) = premises.order().await?;
    let planned = proxy.plan(on, fault);
    let ended = order.run().await?;
    ensure!(
        ended == Ended::Done && planned.struck() > 0,
        "{ended:?}\n{}",
        proxy.transcript()
    );
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_restarted_in_the_middle() -> Result<()> {
    // One of our own, since the other stories need theirs.
    let bed = Bed::new().await?;
    let plane = bed.management(Era::Secret).await?;
    let premises = Premises::open_in(plane).await?;
    premises.consumer(Consumer::Silent);
    let (_proxy, order) = premises.order().await?;
    let process = order.start()?;
    premises.reaches("prove").await?;
    plane.restart_apiserver().await?;
    premises.consumer(Consumer::Calls);
    process.expect(Ended::Done).await?;
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_longer_than_the_lock_leaves_it_pending() -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, order) = premises.order().await?;
    proxy.plan(On::write().path(CONSUMER), away(40, None));
    let ended = order.start()?.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}\n{}", proxy.transcript());
    let (_proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await
}

/// The deadline of the proof is journaled in the API server's time, and so is the record of the run.
#[rstest]
#[case::behind(-3600)]
#[case::ahead(3600)]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_an_hour_does_not_matter(#[case] seconds: i64) -> Result<()> {
    let premises = Premises::open().await?;
    let (_proxy, mut order) = premises.order().await?;
    order.clock_is_off_by = seconds;
    ensure!(order.run().await? == Ended::Done);
    premises.expect_rotated().await
}
