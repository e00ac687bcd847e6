//! A rotation finishes despite an API server that fails, is unreachable or is slow.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use engine::direction::Direction;
use engine::phase::Phase;
use rstest::rstest;
use test_cluster::{Fault, On, Outage, TestEnvironment, TokenStorage};
use tokio::sync::watch;

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

/// No other process can have acquired the lock meanwhile. Nothing is written before a renewal is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_finishes_despite_an_outage_longer_than_the_lease() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    let outage = proxy.plan(On::write().path(CONSUMER), away(35, None));
    let ended = run.run().await?;
    ensure!(
        ended == RunResult::Done && outage.struck() > 0,
        "{ended:?}\n{}",
        proxy.transcript()
    );
    let unanswered = proxy.writes().into_iter().skip_while(|write| write.status.is_some());
    let mut accepted = unanswered.filter(|write| write.status.is_some_and(|status| status < 300));
    let first = accepted.next().context("no write after the outage")?;
    ensure!(first.path.contains("/leases/"), "{}", proxy.transcript());
    fixture.expect_rotated().await
}

/// Only this process is cut off, and another one acquires the lock after the lease duration.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_cut_off_finds_that_another_run_has_taken_over() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    let outage = proxy.plan(On::write().path(CONSUMER), away(60, None));
    let (_stop, open) = watch::channel(false);
    let taken_over = async {
        outage.strikes().await;
        let (other_proxy, other) = fixture.run().await?;
        let ended = other.start()?.finish().await?;
        ensure!(
            ended == Some(RunResult::Done),
            "{ended:?}\n{}",
            other_proxy.transcript()
        );
        proxy.heal();
        Ok(())
    };
    let (ended, taken_over) = tokio::join!(run.run_until(open), taken_over);
    taken_over?;
    let ended = ended?;
    ensure!(ended.lost_the_lock(), "{ended:?}\n{}", proxy.transcript());
    fixture.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cut_off_can_be_interrupted() -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, run) = fixture.run().await?;
    let outage = proxy.plan(On::write().path(CONSUMER), away(600, None));
    let (stop, stopped) = watch::channel(false);
    let interrupt = async {
        outage.strikes().await;
        stop.send_replace(true);
    };
    let (ended, ()) = tokio::join!(run.run_until(stopped), interrupt);
    let ended = ended?;
    ensure!(ended.was_interrupted(), "{ended:?}");
    Ok(())
}

/// What was answered with a refusal has revoked nothing.
#[rstest]
#[case::forbidden(403)]
#[case::invalid(422)]
#[case::conflict(409)]
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_revocation_leaves_the_rollback_open(#[case] status: u16) -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, mut run) = fixture.run().await?;
    run.patience = Duration::from_secs(3);
    let refusal = proxy.plan(On::write().path(ISSUER).nth(2).always(), refused(status));
    let ended = run.run().await?;
    ensure!(
        matches!(
            &ended,
            RunResult::Pending {
                phase,
                direction: Direction::Forward,
                ..
            } if phase.can_be_undone()
        ) && refusal.struck() > 0,
        "{ended:?}\n{}",
        proxy.transcript()
    );
    proxy.heal();
    let ended = run.rollback().run().await?;
    ensure!(matches!(&ended, RunResult::RolledBack(_)), "{ended:?}");
    fixture.expect_restored().await
}

/// In the second case the answer to the first attempt is lost, and its repetition is refused.
#[rstest]
#[case::never_answered(refused(500), 500)]
#[case::answered_the_second_time(Fault::LoseAnswer, 403)]
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_revocation_closes_the_rollback(#[case] first: Fault, #[case] then: u16) -> Result<()> {
    let fixture = Fixture::open().await?;
    let (proxy, mut run) = fixture.run().await?;
    run.patience = Duration::from_secs(3);
    proxy.plan(On::write().path(ISSUER).nth(2), first);
    proxy.plan(On::write().path(ISSUER).nth(3).always(), refused(then));
    let ended = run.run().await?;
    ensure!(
        matches!(
            &ended,
            RunResult::Pending {
                phase: Phase::Retire,
                ..
            }
        ),
        "{ended:?}\n{}",
        proxy.transcript()
    );
    proxy.heal();
    ensure!(run.rollback().run().await? == RunResult::NothingToRollBack);
    ensure!(run.run().await? == RunResult::Done);
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
