//! A rotation that is stopped or killed, and what becomes of it; a token that dies meanwhile.

use anyhow::{Context as _, Result, ensure};
use e2e::{Running, until};
use futures::future::join_all;
use testbed::{Fault, Moment, On};

use crate::cluster::{self, SOON, is_let_in};
use crate::place::Place;

/// How many rotations run side by side.
const SIDE_BY_SIDE: usize = 4;

fn interrupt(run: &Running) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.pid()?)?).context("no process")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::INT)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_old_token_is_retired_everything_can_be_put_back() -> Result<()> {
    let place = Place::new("roll-back").await?;
    let target = place.target();
    let args = ["rotate", &place.old.id, "--deliver", &target, "--yes"];
    let run = place.desk.bootstrap_token(args).start().await?;
    place.comes_to("prove").await?;
    let new = place.held().await?;
    ensure!(
        is_let_in(place.plane, &new.text).await?,
        "what machines read is refused"
    );
    ensure!(
        is_let_in(place.plane, &place.old.text).await?,
        "whoever has read the old one is refused"
    );
    interrupt(&run)?;
    let stopped = run.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains("kubectl bootstrap-token rollback"), "{stopped}");
    let undo = ["rollback", &place.old.id, "--overlap", "0s", "--yes"];
    place.desk.bootstrap_token(undo).run().await?.expect(0)?;
    place.is_restored("roll-back").await?;
    ensure!(!is_let_in(place.plane, &new.text).await?, "the new one is let in");
    let nothing = ["rollback", &place.old.id, "--exit-code"];
    place.desk.bootstrap_token(nothing).run().await?.expect(3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_ends_meanwhile_and_the_rotation_ends_well_all_the_same() -> Result<()> {
    let place = Place::new("ends-meanwhile").await?;
    let target = place.target();
    let args = ["rotate", &place.old.id, "--deliver", &target, "--yes"];
    let run = place.desk.bootstrap_token(args).start().await?;
    place.comes_to("prove").await?;
    let sooner = ["extend", &place.old.id, "--ttl", "1s"];
    place.desk.bootstrap_token(sooner).run().await?.expect(0)?;
    // The cleaner takes it away.
    run.finish().await?.expect(0)?;
    place.is_rotated("ends-meanwhile").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_ends_on_the_way_back_and_the_new_one_stays() -> Result<()> {
    let place = Place::new("stays").await?;
    let target = place.target();
    let args = ["rotate", &place.old.id, "--deliver", &target, "--yes"];
    let run = place.desk.bootstrap_token(args).start().await?;
    place.comes_to("prove").await?;
    interrupt(&run)?;
    run.finish().await?.expect(130)?;
    let sooner = ["extend", &place.old.id, "--ttl", "1s"];
    place.desk.bootstrap_token(sooner).run().await?.expect(0)?;
    until("the cleaner", SOON, async || {
        Ok((!place.tokens("stays").await?.contains(&place.old.id)).then_some(()))
    })
    .await?;
    let undo = ["rollback", &place.old.id, "--overlap", "0s", "--yes"];
    let kept = place.desk.bootstrap_token(undo).run().await?.expect(1)?;
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
    let target = place.target();
    let args = [
        "rotate",
        &place.old.id,
        "--deliver",
        &target,
        "--overlap",
        "5s",
        "--yes",
    ];
    let run = place.desk.bootstrap_token(args).start().await?;
    place.comes_to("prove").await?;
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
    place.is_rotated("spoiled").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_stopped_process_has_the_file_nobody_else_decides_by_it() -> Result<()> {
    let place = Place::new("stopped").await?;
    let path = place.kubeconfig_file()?;
    let before = std::fs::read_to_string(&path)?;
    let target = format!("file:{}", path.display());
    let args = ["rotate", &place.old.id, "--deliver", &target, "--yes"];
    let run = place.desk.bootstrap_token(args).start().await?;
    place.comes_to("prove").await?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.pid()?)?).context("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    let undo = ["rollback", &place.old.id, "--overlap", "0s", "--yes"];
    let forced = undo.iter().copied().chain(["--force", "lock"]);
    let rollback = place.desk.bootstrap_token(forced).start().await?;
    // It goes back, and waits for the file.
    until("the rollback to be under way", SOON, async || {
        let lease = serde_json::to_string(&place.lease().await?)?;
        Ok(lease.contains(r#"goal\":\"back"#).then_some(()))
    })
    .await?;
    ensure!(
        std::fs::read_to_string(&path)? != before,
        "it has written under the lock of another"
    );
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    // The other one finds that it has lost its lock, and ends.
    run.finish().await?.expect(4)?;
    rollback.finish().await?.expect(0)?;
    ensure!(std::fs::read_to_string(&path)? == before, "the old token is not back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes() -> Result<()> {
    let place = Place::new("undisturbed").await?;
    let (proxy, desk) = place.behind_proxy().await?;
    let target = place.target();
    let args = [
        "rotate",
        &place.old.id,
        "--deliver",
        &target,
        "--overlap",
        "0s",
        "--yes",
    ];
    desk.bootstrap_token(args).run().await?.expect(0)?;
    place.is_rotated("undisturbed").await?;
    let writes = proxy.writes().len();
    ensure!(writes >= 8, "{}", proxy.transcript());
    let points = (1..=writes).flat_map(|nth| [Moment::Before, Moment::After].map(|moment| (nth, moment)));
    let points: Vec<_> = points.collect();
    for some in points.chunks(SIDE_BY_SIDE) {
        let killed = some.iter().map(|(nth, moment)| async move {
            let ended = Box::pin(killed_at(*nth, *moment)).await;
            ended.with_context(|| format!("killed {moment:?} write {nth}"))
        });
        join_all(killed).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

async fn killed_at(nth: usize, moment: Moment) -> Result<()> {
    let story = format!("killed-{nth}-{moment:?}").to_lowercase();
    let place = Place::new(&story).await?;
    let (proxy, desk) = place.behind_proxy().await?;
    let target = place.target();
    let args = [
        "rotate",
        &place.old.id,
        "--deliver",
        &target,
        "--overlap",
        "0s",
        "--yes",
    ];
    proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let run = desk.bootstrap_token(args).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    // A lock that is renewed once less leaves the last point without a write.
    let done = outcome.code() == Some(0);
    if !done {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let held = place.held().await?;
    ensure!(
        is_let_in(place.plane, &held.text).await?,
        "what machines read is refused"
    );
    let finished = place.held().await?.id != place.old.id && place.tokens(&story).await? == [held.id];
    let again = place.desk.bootstrap_token(args).run().await?;
    // The end may have been reached, and the token that is rotated be gone, before the kill.
    let gone = finished && again.stderr.contains("there is no bootstrap token");
    ensure!(
        done || again.code() == Some(0) || gone,
        "{again}\n{}",
        proxy.transcript()
    );
    let rotated = place.is_rotated(&story).await;
    rotated.with_context(|| proxy.transcript())?;
    cluster::shows_nothing_of(&again, place.old.secret())
}
