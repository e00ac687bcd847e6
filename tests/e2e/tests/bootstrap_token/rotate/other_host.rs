//! A rotation into a file that was started on another host.

use anyhow::{Result, ensure};

use crate::cluster::is_accepted;
use crate::rotation_fixture::RotationFixture;

const OTHER: &str = "the-other-host";

/// An interrupted rotation that has delivered the new token to a file on another host.
async fn started_elsewhere(name: &str) -> Result<RotationFixture> {
    let fixture = RotationFixture::with_file(name).await?;
    fixture.deliver_and_interrupt().await?;
    fixture.was_started_on(OTHER).await?;
    Ok(fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_into_a_file_resumes_only_on_its_host() -> Result<()> {
    let fixture = started_elsewhere("its-host").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    for args in [
        vec!["rotate", &fixture.old.id, "--yes"],
        vec!["rollback", &fixture.old.id, "--yes"],
    ] {
        let output = fixture.shell.bootstrap_token(args).run().await?.expect(4)?;
        let stderr = &output.stderr;
        ensure!(stderr.contains(&format!("is on {OTHER}, not here")), "{output}");
        ensure!(stderr.contains("--force=target"), "{output}");
    }
    ensure!(fixture.text()? == file, "the file of another host was written");
    for token in [&fixture.old, &new] {
        ensure!(is_accepted(fixture.plane, &token.text).await?, "a token was revoked");
    }
    fixture.was_started_on(&here()).await?;
    fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(0)?;
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_force_target_finishes_without_the_file_of_a_lost_host() -> Result<()> {
    let fixture = started_elsewhere("lost-forward").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    let rotate = ["rotate", &fixture.old.id, "--overlap", "0s", "--force=target"];
    let plan = fixture
        .shell
        .bootstrap_token(rotate.iter().chain(&["--dry-run"]))
        .run()
        .await?
        .expect(0)?;
    let leaves = format!("on {OTHER}: nodes that read {} there will be rejected", fixture.old.id);
    ensure!(plan.stdout.contains(&leaves), "{plan}");
    ensure!(!plan.stdout.contains("deliver bootstrap token"), "{plan}");
    let done = fixture
        .shell
        .bootstrap_token(rotate.iter().chain(&["--yes"]))
        .run()
        .await?
        .expect(0)?;
    ensure!(
        done.stderr.contains(&leaves) && done.stderr.contains("was left as it is"),
        "{done}"
    );
    ensure!(fixture.text()? == file, "the file of another host was written");
    ensure!(fixture.tokens().await? == [new.id.clone()], "other tokens are left");
    ensure!(
        is_accepted(fixture.plane, &new.text).await?,
        "the new token is rejected"
    );
    ensure!(
        !is_accepted(fixture.plane, &fixture.old.text).await?,
        "the old token is accepted"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_force_target_finishes_without_the_file_of_a_lost_host() -> Result<()> {
    let fixture = started_elsewhere("lost-back").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    let undo = fixture.rollback(&["--force=target"]);
    let undone = fixture.shell.bootstrap_token(undo).run().await?.expect(0)?;
    let leaves = format!("nodes that read {} there will be rejected", new.id);
    ensure!(undone.stderr.contains(&leaves), "{undone}");
    ensure!(fixture.text()? == file, "the file of another host was written");
    ensure!(
        fixture.tokens().await? == [fixture.old.id.clone()],
        "other tokens are left"
    );
    ensure!(
        is_accepted(fixture.plane, &fixture.old.text).await?,
        "the old token is rejected"
    );
    ensure!(
        !is_accepted(fixture.plane, &new.text).await?,
        "the new token is accepted"
    );
    Ok(())
}

/// The name of this host.
fn here() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
