//! `kubectl bootstrap-token rollback`

use anyhow::{Result, ensure};
use e2e::until;
use rustix::process::Signal;

use crate::cluster::is_accepted;
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_start_before_retire() -> Result<()> {
    let (fixture, run) = RotationFixture::in_overlap("roll-back").await?;
    let new = fixture.held().await?;
    ensure!(
        is_accepted(fixture.plane, &new.text).await?,
        "the token that machines read is rejected"
    );
    ensure!(
        is_accepted(fixture.plane, &fixture.old.text).await?,
        "the old token is rejected"
    );
    run.signal(Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains("kubectl bootstrap-token rollback"), "{stopped}");
    fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(0)?;
    fixture.is_restored().await?;
    ensure!(
        !is_accepted(fixture.plane, &new.text).await?,
        "the new token is accepted"
    );
    let nothing = ["rollback", &fixture.old.id, "--exit-code"];
    fixture.shell.bootstrap_token(nothing).run().await?.expect(3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_keeps_the_new_token_when_the_old_one_expired() -> Result<()> {
    let (fixture, run) = RotationFixture::in_overlap("stays").await?;
    run.signal(Signal::INT)?;
    run.finish().await?.expect(130)?;
    let sooner = ["extend", &fixture.old.id, "--ttl", "1s"];
    fixture.shell.bootstrap_token(sooner).run().await?.expect(0)?;
    until("the token cleaner", async || {
        Ok((!fixture.tokens().await?.contains(&fixture.old.id)).then_some(()))
    })
    .await?;
    let kept = fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(1)?;
    ensure!(kept.stderr.contains("is used instead"), "{kept}");
    let new = fixture.held().await?;
    ensure!(
        new.id != fixture.old.id && is_accepted(fixture.plane, &new.text).await?,
        "no machine can join"
    );
    Ok(())
}
