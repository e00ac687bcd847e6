//! A rotation that is stopped or killed, and what becomes of it; a token that dies meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::until;
use k8s_openapi::jiff::Timestamp;
use rustix::process::Signal;

use crate::cluster::{self, is_let_in};
use crate::place::{Place, signal};

#[tokio::test(flavor = "multi_thread")]
async fn before_the_old_token_is_retired_everything_can_be_put_back() -> Result<()> {
    let (place, run) = Place::in_overlap("roll-back").await?;
    let new = place.held().await?;
    ensure!(
        is_let_in(place.plane, &new.text).await?,
        "what machines read is refused"
    );
    ensure!(
        is_let_in(place.plane, &place.old.text).await?,
        "whoever has read the old one is refused"
    );
    signal(&run, Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains("kubectl bootstrap-token rollback"), "{stopped}");
    place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(0)?;
    place.is_restored().await?;
    ensure!(!is_let_in(place.plane, &new.text).await?, "the new one is let in");
    let nothing = ["rollback", &place.old.id, "--exit-code"];
    place.desk.bootstrap_token(nothing).run().await?.expect(3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_ends_meanwhile_and_the_rotation_ends_well_all_the_same() -> Result<()> {
    let (place, run) = Place::in_overlap("ends-meanwhile").await?;
    let sooner = ["extend", &place.old.id, "--ttl", "1s"];
    place.desk.bootstrap_token(sooner).run().await?.expect(0)?;
    // The cleaner takes it away.
    run.finish().await?.expect(0)?;
    place.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_ends_on_the_way_back_and_the_new_one_stays() -> Result<()> {
    let (place, run) = Place::in_overlap("stays").await?;
    signal(&run, Signal::INT)?;
    run.finish().await?.expect(130)?;
    let sooner = ["extend", &place.old.id, "--ttl", "1s"];
    place.desk.bootstrap_token(sooner).run().await?.expect(0)?;
    until("the cleaner", async || {
        Ok((!place.tokens().await?.contains(&place.old.id)).then_some(()))
    })
    .await?;
    let kept = place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(1)?;
    ensure!(kept.stderr.contains("there is no way back to it"), "{kept}");
    let new = place.held().await?;
    ensure!(
        new.id != place.old.id && is_let_in(place.plane, &new.text).await?,
        "nobody can join"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_spoils_the_new_token_and_it_is_put_right_before_the_old_one_goes() -> Result<()> {
    let place = Place::new("spoiled").await?;
    let run = place.delivers(&["--overlap", "5s"]).await?;
    let name = format!("bootstrap-token-{}", place.held().await?.id);
    let spoil = r#"{"stringData":{"usage-bootstrap-authentication":"no","auth-extra-groups":"nobody"}}"#;
    let patch = [
        "-n",
        "kube-system",
        "patch",
        "secret",
        &name,
        "--type=merge",
        "-p",
        spoil,
    ];
    place.desk.kubectl(patch).run().await?.expect(0)?;
    let done = run.finish().await?.expect(0)?;
    ensure!(done.stderr.contains("right: usages, groups and time to live"), "{done}");
    place.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_stopped_process_has_the_file_nobody_else_decides_by_it() -> Result<()> {
    let place = Place::with_file("stopped").await?;
    let before = place.text()?;
    let run = place.delivers(&[]).await?;
    signal(&run, Signal::STOP)?;
    let forced = place.rollback(&["--force", "lock"]);
    let rollback = place.desk.bootstrap_token(forced).start().await?;
    // It goes back, and waits for the file.
    until("the rollback to be under way", async || {
        let lease = serde_json::to_string(&place.lease().await?)?;
        Ok(lease.contains(r#"goal\":\"back"#).then_some(()))
    })
    .await?;
    ensure!(place.text()? != before, "it has written under the lock of another");
    signal(&run, Signal::CONT)?;
    // The other one finds that it has lost its lock, and ends.
    run.finish().await?.expect(4)?;
    rollback.finish().await?.expect(0)?;
    ensure!(place.text()? == before, "the old token is not back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_that_goes_on_can_be_pasted_as_it_stands() -> Result<()> {
    let place = Place::new("pasted").await?;
    let run = place.delivers(&["--overlap", "7m", "--timeout", "3m"]).await?;
    signal(&run, Signal::INT)?;
    let stopped = run.finish().await?.expect(130)?;
    let go_on = format!(
        "`kubectl bootstrap-token rotate {} --overlap 7m0s --timeout 3m0s --deliver {}`",
        place.old.id,
        place.target()
    );
    ensure!(stopped.stderr.contains(&go_on), "{stopped}");
    let undo = format!(
        "bootstrap-token rollback {} --overlap 7m0s --timeout 3m0s",
        place.old.id
    );
    ensure!(stopped.stderr.contains(&format!("`kubectl {undo}`")), "{stopped}");
    // It is taken as it was said.
    let words = undo.split(' ').chain(["--dry-run"]);
    let plan = place.desk.kubectl(words).run().await?.expect(0)?;
    ensure!(plan.stdout.contains("deliver bootstrap token"), "{plan}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cleaner_takes_the_new_token_away_and_another_one_is_made_and_delivered() -> Result<()> {
    let place = Place::new("cleaned").await?;
    let run = place.delivers(&["--overlap", "8s"]).await?;
    let name = format!("bootstrap-token-{}", place.held().await?.id);
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
    place.desk.kubectl(patch).run().await?.expect(0)?;
    run.finish().await?.expect(0)?;
    place.is_rotated().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_clock_that_is_ten_minutes_off_the_end_is_by_the_api_servers() -> Result<()> {
    let place = Place::new("ten-minutes").await?;
    let (proxy, desk) = place.behind_proxy().await?;
    proxy.clock_ahead(Duration::from_mins(10));
    let args = place.rotate(&["--overlap", "0s", "--ttl", "1h"]);
    desk.bootstrap_token(args).run().await?.expect(0)?;
    let new = place.is_rotated().await?;
    let end: Timestamp = cluster::data_of(place.plane, &new.id).await?["expiration"].parse()?;
    let minutes = (end.as_second() - Timestamp::now().as_second()) / 60;
    ensure!((65..=70).contains(&minutes), "it ends in {minutes} minutes");
    Ok(())
}
