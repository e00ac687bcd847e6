//! A rotation into a file that was started on another host.

use anyhow::{Result, ensure};

use crate::cluster::is_let_in;
use crate::rotation_fixture::RotationFixture;

const OTHER: &str = "the-other-host";

/// A rotation that has delivered the new token to a file, was stopped, and has been on another host.
async fn begun_elsewhere(name: &str) -> Result<RotationFixture> {
    let fixture = RotationFixture::with_file(name).await?;
    fixture.delivers_and_stops().await?;
    fixture.was_begun_on(OTHER).await?;
    Ok(fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_into_a_file_resumes_only_on_its_host() -> Result<()> {
    let fixture = begun_elsewhere("its-host").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    for args in [
        vec!["rotate", &fixture.old.id, "--yes"],
        vec!["rollback", &fixture.old.id, "--yes"],
    ] {
        let elsewhere = fixture.shell.bootstrap_token(args).run().await?.expect(4)?;
        let said = &elsewhere.stderr;
        ensure!(said.contains(&format!("is on {OTHER}, not here")), "{elsewhere}");
        ensure!(said.contains("--force=target"), "{elsewhere}");
    }
    ensure!(fixture.text()? == file, "the file of another host was written");
    for token in [&fixture.old, &new] {
        ensure!(is_let_in(fixture.plane, &token.text).await?, "a token was taken away");
    }
    fixture.was_begun_on(&here()).await?;
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
    let fixture = begun_elsewhere("lost-forward").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    let rotate = ["rotate", &fixture.old.id, "--overlap", "0s", "--force=target"];
    let plan = fixture
        .shell
        .bootstrap_token(rotate.iter().chain(&["--dry-run"]))
        .run()
        .await?
        .expect(0)?;
    let leaves = format!(
        "on {OTHER} behind: whoever reads it there and finds {} will be refused",
        fixture.old.id
    );
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
    ensure!(fixture.tokens().await? == [new.id.clone()], "others are left");
    ensure!(is_let_in(fixture.plane, &new.text).await?, "the new one is refused");
    ensure!(
        !is_let_in(fixture.plane, &fixture.old.text).await?,
        "the old one is let in"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_force_target_finishes_without_the_file_of_a_lost_host() -> Result<()> {
    let fixture = begun_elsewhere("lost-back").await?;
    let (file, new) = (fixture.text()?, fixture.held().await?);
    let undo = fixture.rollback(&["--force=target"]);
    let undone = fixture.shell.bootstrap_token(undo).run().await?.expect(0)?;
    let leaves = format!("whoever reads it there and finds {} will be refused", new.id);
    ensure!(undone.stderr.contains(&leaves), "{undone}");
    ensure!(fixture.text()? == file, "the file of another host was written");
    ensure!(fixture.tokens().await? == [fixture.old.id.clone()], "others are left");
    ensure!(
        is_let_in(fixture.plane, &fixture.old.text).await?,
        "the old one is refused"
    );
    ensure!(!is_let_in(fixture.plane, &new.text).await?, "the new one is let in");
    Ok(())
}

/// The name of this host, as a user reads it.
fn here() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
