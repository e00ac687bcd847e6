//! A rotation with a file target that was begun on another host, which is there or lost for good.

use anyhow::{Result, ensure};

use crate::cluster::is_let_in;
use crate::place::Place;

const OTHER: &str = "the-other-host";

/// A rotation that has delivered the new token to a file, was stopped, and has been on another host.
async fn begun_elsewhere(story: &str) -> Result<Place> {
    let place = Place::with_file(story).await?;
    place.delivers_and_stops().await?;
    place.was_begun_on(OTHER).await?;
    Ok(place)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_gone_on_with_on_its_host_only() -> Result<()> {
    let place = begun_elsewhere("its-host").await?;
    let (file, new) = (place.text()?, place.held().await?);
    for args in [
        vec!["rotate", &place.old.id, "--yes"],
        vec!["rollback", &place.old.id, "--yes"],
    ] {
        let elsewhere = place.desk.bootstrap_token(args).run().await?.expect(4)?;
        let said = &elsewhere.stderr;
        ensure!(said.contains(&format!("is on {OTHER}, not here")), "{elsewhere}");
        ensure!(said.contains("--force=target"), "{elsewhere}");
    }
    ensure!(place.text()? == file, "the file of another host was written");
    for token in [&place.old, &new] {
        ensure!(is_let_in(place.plane, &token.text).await?, "a token was taken away");
    }
    place.was_begun_on(&here()).await?;
    place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(0)?;
    place.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_host_is_lost_ends_without_its_file() -> Result<()> {
    let place = begun_elsewhere("lost-forward").await?;
    let (file, new) = (place.text()?, place.held().await?);
    let rotate = ["rotate", &place.old.id, "--overlap", "0s", "--force=target"];
    let plan = place
        .desk
        .bootstrap_token(rotate.iter().chain(&["--dry-run"]))
        .run()
        .await?
        .expect(0)?;
    let leaves = format!(
        "on {OTHER} behind: whoever reads it there and finds {} will be refused",
        place.old.id
    );
    ensure!(plan.stdout.contains(&leaves), "{plan}");
    ensure!(!plan.stdout.contains("deliver bootstrap token"), "{plan}");
    let done = place
        .desk
        .bootstrap_token(rotate.iter().chain(&["--yes"]))
        .run()
        .await?
        .expect(0)?;
    ensure!(
        done.stderr.contains(&leaves) && done.stderr.contains("was left as it is"),
        "{done}"
    );
    ensure!(place.text()? == file, "the file of another host was written");
    ensure!(place.tokens().await? == [new.id.clone()], "others are left");
    ensure!(is_let_in(place.plane, &new.text).await?, "the new one is refused");
    ensure!(!is_let_in(place.plane, &place.old.text).await?, "the old one is let in");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_host_is_lost_is_undone_without_its_file() -> Result<()> {
    let place = begun_elsewhere("lost-back").await?;
    let (file, new) = (place.text()?, place.held().await?);
    let undo = place.rollback(&["--force=target"]);
    let undone = place.desk.bootstrap_token(undo).run().await?.expect(0)?;
    let leaves = format!("whoever reads it there and finds {} will be refused", new.id);
    ensure!(undone.stderr.contains(&leaves), "{undone}");
    ensure!(place.text()? == file, "the file of another host was written");
    ensure!(place.tokens().await? == [place.old.id.clone()], "others are left");
    ensure!(is_let_in(place.plane, &place.old.text).await?, "the old one is refused");
    ensure!(!is_let_in(place.plane, &new.text).await?, "the new one is let in");
    Ok(())
}

/// The name of this host, as a user reads it.
fn here() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
