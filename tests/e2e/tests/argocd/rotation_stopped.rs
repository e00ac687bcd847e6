//! A rotation that is stopped in the middle, and what becomes of it; what dies meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Running;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testbed::Outage;

use crate::bench::{Bench, token, user};

fn interrupt(run: &Running) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(run.pid()?)?).context("no process")?;
    Ok(kill_process(pid, Signal::INT)?)
}

/// A rotation that was stopped while the grace time ran, and the two tokens.
async fn stopped(bench: &Bench) -> Result<(String, String)> {
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let run = bench
        .run(&["rotate", bench.id(), "--grace", "10m", "--yes"])
        .start()
        .await?;
    bench.comes_to("prove").await?;
    let new = token(&bench.cluster_secret().await?)?;
    interrupt(&run)?;
    let stopped = run.finish().await?.expect(130)?;
    ensure!(stopped.stderr.contains("kubectl argocd-rancher rollback"), "{stopped}");
    Ok((old, new))
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_old_token_is_retired_everything_can_be_put_back() -> Result<()> {
    let bench = Bench::begin("floro").await?;
    let (old, new) = stopped(&bench).await?;
    ensure!(
        bench.lets_in(&old).await? && bench.lets_in(&new).await?,
        "one of them is refused"
    );
    let listed = bench.run(&["list"]).run().await?.expect(0)?;
    ensure!(
        listed.stdout.contains("rotating") && !listed.stderr.contains("was minted for"),
        "{listed}"
    );
    let removed = bench.run(&["remove", bench.id(), "--yes"]).run().await?.expect(1)?;
    ensure!(removed.stderr.contains("it is being rotated (prove)"), "{removed}");
    let undo = ["rollback", bench.id(), "--grace", "1s", "--yes"];
    bench.run(&undo).run().await?.expect(0)?;
    bench.is_restored(&old).await?;
    ensure!(!bench.lets_in(&new).await?, "the new one is let in");
    bench
        .run(&["rollback", bench.id(), "--exit-code"])
        .run()
        .await?
        .expect(3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_who_began_goes_on() -> Result<()> {
    let bench = Bench::begin("forde").await?;
    let (old, _) = stopped(&bench).await?;
    let other = bench.desk_of(&user("forde-other")).await?;
    let refused = bench.run_at(&other, &["rotate", bench.id(), "--yes"]).run().await?;
    ensure!(refused.code() != Some(0), "{refused}");
    ensure!(refused.stderr.contains("the rotation was begun as user"), "{refused}");
    bench
        .run(&["rollback", bench.id(), "--grace", "0s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    bench.is_restored(&old).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_token_dies_on_the_way_back_and_the_new_one_stays() -> Result<()> {
    let bench = Bench::begin("odda").await?;
    let (old, _) = stopped(&bench).await?;
    let name = old.split(':').next().context("no name")?;
    bench
        .story
        .rancher
        .change_token(name, &json!({"expired": true}))
        .await?;
    let undo = ["rollback", bench.id(), "--grace", "1s", "--yes"];
    let kept = bench.run(&undo).run().await?.expect(1)?;
    ensure!(kept.stderr.contains("there was no way back"), "{kept}");
    bench.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_is_lost_and_the_new_token_stays() -> Result<()> {
    let bench = Bench::begin("voss").await?;
    let (old, new) = stopped(&bench).await?;
    let parked = format!(
        "{}-rotation",
        bench.cluster_secret().await?.metadata.name.context("no name")?
    );
    bench.delete(&parked).await?;
    let undo = ["rollback", bench.id(), "--grace", "1s", "--yes"];
    bench.run(&undo).run().await?.expect(1)?;
    ensure!(
        token(&bench.secret().await?)? == new && bench.lets_in(&new).await?,
        "Argo CD has no login"
    );
    // Nobody knows its value any more, and nobody was asked to end it.
    ensure!(bench.lets_in(&old).await?, "it was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rancher_is_away_for_a_while_in_the_middle() -> Result<()> {
    let bench = Bench::begin("geilo").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let (proxy, desk) = bench.behind_proxy().await?;
    let run = bench
        .run_at(&desk, &["rotate", bench.id(), "--grace", "10s", "--yes"])
        .start()
        .await?;
    bench.comes_to("prove").await?;
    // From within the grace time until well after it; a single call is tried again for five seconds.
    proxy.away(Outage {
        prefix: "/v3/".to_owned(),
        lasts: Duration::from_secs(20),
        status: None,
    });
    let done = run.finish().await?.expect(0)?;
    ensure!(done.stderr.contains("tried again"), "{done}");
    bench.is_rotated(&old).await?;
    Ok(())
}
