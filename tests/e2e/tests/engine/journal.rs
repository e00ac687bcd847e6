//! The journal says which rotation is in progress. What is true of it is observed on the objects.

use anyhow::{Result, ensure};
use engine::journal::VERSION;
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, FaultProxy, Moment, On};

use crate::fixture::Fixture;
use crate::runner::RunResult;

const JOURNAL: &str = "kubectl-rotation.github.io/journal";

fn other_version(version: u32) -> String {
    format!(r#"{{"version":{version},"phase":"teleport","s3cr3t":1}}"#)
}

/// How many steps went through the proxy.
fn steps(proxy: &FaultProxy) -> usize {
    let writes = proxy.writes();
    writes.iter().filter(|write| write.path.contains("/secrets/")).count()
}

#[rstest]
#[case::of_an_older_release(other_version(VERSION - 1), "another release")]
#[case::of_a_newer_release(other_version(VERSION + 1), "another release")]
#[case::malformed(format!(r#"{{"version":{VERSION},"run":"s3cr3t"#), "malformed")]
#[case::of_another_program("s3cr3t".to_owned(), "malformed")]
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_journal_is_left_alone(#[case] text: String, #[case] because: &str) -> Result<()> {
    let fixture = Fixture::open().await?;
    fixture
        .plant_lease(json!({ "metadata": { "annotations": { JOURNAL: text } } }))
        .await?;
    let (proxy, run) = fixture.run().await?;
    for run in [run.clone(), run.rollback()] {
        let ended = run.run().await?;
        let RunResult::Unreadable(message) = ended else {
            anyhow::bail!("{ended:?}")
        };
        ensure!(message.contains(because) && !message.contains("s3cr3t"), "{message}");
        ensure!(fixture.journal().await?.as_ref() == Some(&text));
        ensure!(fixture.record().await?.is_some_and(|record| record.holder.is_none()));
    }
    ensure!(steps(&proxy) == 0, "{}", proxy.transcript());
    ensure!(fixture.worn().await? == fixture.start);
    Ok(())
}

/// Starts a rotation and kills it there.
async fn killed(fixture: &Fixture, on: On, moment: Moment) -> Result<()> {
    let (proxy, run) = fixture.run().await?;
    proxy.plan(on, Fault::Kill(moment));
    let process = run.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none(), "{}", proxy.transcript());
    Ok(())
}

/// Runs it again; returns how many steps it sent.
async fn finished(fixture: &Fixture) -> Result<usize> {
    let (proxy, run) = fixture.run().await?;
    run.start()?.expect(RunResult::Done).await?;
    fixture.expect_rotated().await?;
    Ok(steps(&proxy))
}

fn issuer(nth: usize) -> On {
    On::write().path("*/secrets/issuer").nth(nth)
}

async fn new_badge(fixture: &Fixture) -> Result<client::secret::Fingerprint> {
    let mut issued = fixture.issued().await?;
    issued.remove(&fixture.start);
    anyhow::Context::context(issued.pop_first(), "no new badge")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_badge_that_was_revoked_is_issued_again() -> Result<()> {
    let fixture = Fixture::open().await?;
    killed(&fixture, issuer(1), Moment::After).await?;
    let lost = new_badge(&fixture).await?;
    fixture.revoke_by_hand(lost).await?;
    ensure!(finished(&fixture).await? == 3);
    ensure!(fixture.worn().await? != lost);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_badge_that_was_restored_is_replaced_again() -> Result<()> {
    let fixture = Fixture::open().await?;
    // The journal says that the new badge is proven and that the old one is about to be revoked.
    killed(&fixture, issuer(2), Moment::Before).await?;
    ensure!(
        fixture
            .journal()
            .await?
            .unwrap_or_default()
            .contains(r#""phase":"retire""#)
    );
    fixture.hand_by_hand(fixture.start).await?;
    ensure!(finished(&fixture).await? == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_already_done_is_not_repeated() -> Result<()> {
    let fixture = Fixture::open().await?;
    killed(&fixture, issuer(2), Moment::Before).await?;
    fixture.revoke_by_hand(fixture.start).await?;
    ensure!(finished(&fixture).await? == 0);
    Ok(())
}
