//! Rotations that are interrupted, and tokens that expire or change meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::until;
use k8s_openapi::jiff::Timestamp;
use rustix::process::Signal;

use crate::cluster::{self};
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_old_token_expires_meanwhile() -> Result<()> {
    let (fixture, run) = RotationFixture::in_overlap("ends-meanwhile").await?;
    let sooner = ["extend", &fixture.old.id, "--ttl", "1s"];
    fixture.shell.bootstrap_token(sooner).run().await?.expect(0)?;
    // The token cleaner deletes it.
    run.finish().await?.expect(0)?;
    fixture.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_repairs_a_damaged_new_token_before_revoking_the_old_one() -> Result<()> {
    let fixture = RotationFixture::new("damaged").await?;
    let run = fixture.start_and_deliver(&["--overlap", "5s"]).await?;
    let name = format!("bootstrap-token-{}", fixture.held().await?.id);
    let damage = r#"{"stringData":{"usage-bootstrap-authentication":"no","auth-extra-groups":"none"}}"#;
    let patch = [
        "-n",
        "kube-system",
        "patch",
        "secret",
        &name,
        "--type=merge",
        "-p",
        damage,
    ];
    fixture.shell.kubectl(patch).run().await?.expect(0)?;
    let done = run.finish().await?.expect(0)?;
    ensure!(done.stderr.contains("usages, groups and expiry"), "{done}");
    fixture.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_waits_for_the_file_lock_of_a_paused_rotation() -> Result<()> {
    let fixture = RotationFixture::with_file("stopped").await?;
    let before = fixture.text()?;
    let run = fixture.start_and_deliver(&[]).await?;
    run.signal(Signal::STOP)?;
    let forced = fixture.rollback(&["--force", "lock"]);
    let rollback = fixture.shell.bootstrap_token(forced).start().await?;
    // It has started the rollback, and waits for the file.
    until("the rollback to start", async || {
        let lease = serde_json::to_string(&fixture.lease().await?)?;
        Ok(lease.contains(r#"direction\":\"rollback"#).then_some(()))
    })
    .await?;
    ensure!(
        fixture.text()? != before,
        "it has written the file while another process holds its lock"
    );
    run.signal(Signal::CONT)?;
    // The paused run finds that it has lost the lock, and ends.
    run.finish().await?.expect(4)?;
    rollback.finish().await?.expect(0)?;
    ensure!(fixture.text()? == before, "the file does not hold the old token");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_and_rollback_commands_can_be_pasted() -> Result<()> {
    let fixture = RotationFixture::new("pasted").await?;
    let run = fixture
        .start_and_deliver(&["--overlap", "7m", "--timeout", "3m"])
        .await?;
    run.signal(Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    let resume = format!(
        "`kubectl bootstrap-token rotate {} --overlap 7m0s --timeout 3m0s --deliver {}`",
        fixture.old.id,
        fixture.target()
    );
    ensure!(stopped.stderr.contains(&resume), "{stopped}");
    let undo = format!(
        "bootstrap-token rollback {} --overlap 7m0s --timeout 3m0s",
        fixture.old.id
    );
    ensure!(stopped.stderr.contains(&format!("`kubectl {undo}`")), "{stopped}");
    for (verb, step) in [
        ("rotate", "revoke bootstrap token"),
        ("rollback", "deliver bootstrap token"),
    ] {
        let command = format!("kubectl bootstrap-token {verb}");
        let plan = fixture.shell.follow(&stopped, &command, &["--dry-run"]).await?;
        let plan = plan.expect(0)?;
        ensure!(plan.stdout.contains(step), "{plan}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_a_new_token_deleted_by_the_token_cleaner() -> Result<()> {
    let fixture = RotationFixture::new("cleaned").await?;
    let run = fixture.start_and_deliver(&["--overlap", "8s"]).await?;
    let name = format!("bootstrap-token-{}", fixture.held().await?.id);
    let ended = r#"{"stringData":{"expiration":"2020-01-01T00:00:00Z"}}"#;
    let patch = [
        "-n",
        "kube-system",
        "patch",
        "secret",
        &name,
        "--type=merge",
        "-p",
        ended,
    ];
    fixture.shell.kubectl(patch).run().await?.expect(0)?;
    run.finish().await?.expect(0)?;
    fixture.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_sets_the_expiry_by_the_clock_of_the_api_server() -> Result<()> {
    let fixture = RotationFixture::new("ten-minutes").await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.clock_ahead(Duration::from_mins(10));
    let args = fixture.rotate(&["--overlap", "0s", "--ttl", "1h"]);
    shell.bootstrap_token(args).run().await?.expect(0)?;
    let new = fixture.is_rotated().await?;
    let end: Timestamp = cluster::data_of(fixture.plane, &new.id).await?["expiration"].parse()?;
    let minutes = (end.as_second() - Timestamp::now().as_second()) / 60;
    ensure!((65..=70).contains(&minutes), "it ends in {minutes} minutes");
    Ok(())
}
