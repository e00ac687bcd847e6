//! A rotation finishes despite an API server that fails, is unreachable or is slow.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use test_cluster::{Fault, On, Outage, TestEnvironment, TokenStorage};

use crate::fixture::{Consumer, Fixture};
use crate::runner::RunResult;

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
#[case::outage_without_an_answer(On::write().path(CONSUMER), away(5, None))]
#[case::outage_with_an_error(On::write().path(ISSUER).nth(2), away(5, Some(503)))]
#[tokio::test(flavor = "multi_thread")]
async fn rotation_finishes_despite(#[case] on: On, #[case] fault: Fault) -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    let planned = proxy.plan(on, fault);
    let ended = run.run().await?;
    ensure!(
        ended == RunResult::Done && planned.struck() > 0,
        "{ended:?}\n{}",
        proxy.transcript()
    );
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_finishes_when_the_api_server_restarts() -> Result<()> {
    // A control plane of its own, since the other tests need the shared one.
    let environment = TestEnvironment::new().await?;
    let plane = environment.management(TokenStorage::Secret).await?;
    let fixture = Fixture::open_in(plane).await?;
    fixture.consumer(Consumer::Silent);
    let (_proxy, run) = fixture.run().await?;
    let process = run.start()?;
    fixture.reaches("prove").await?;
    plane.restart_apiserver().await?;
    fixture.consumer(Consumer::Calls);
    process.expect(RunResult::Done).await?;
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_lease_leaves_the_rotation_pending() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    proxy.plan(On::write().path(CONSUMER), away(40, None));
    let ended = run.start()?.finish().await?.context("it was killed")?;
    ensure!(ended.lost_the_lock(), "{ended:?}\n{}", proxy.transcript());
    let (_proxy, run) = fixture.run().await?;
    run.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await
}

/// The deadline of the proof and the time of the last run are those of the API server.
#[rstest]
#[case::behind(-3600)]
#[case::ahead(3600)]
#[tokio::test(flavor = "multi_thread")]
async fn rotation_finishes_with_a_clock_off_by_an_hour(#[case] seconds: i64) -> Result<()> {
    let fixture = Fixture::open().await?;
    let (_proxy, mut run) = fixture.run().await?;
    run.clock_is_off_by = seconds;
    ensure!(run.run().await? == RunResult::Done);
    fixture.expect_rotated().await
}
