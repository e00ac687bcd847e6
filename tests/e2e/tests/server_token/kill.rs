//! Rotations that are killed, and resumed with the old token or with the new one.
//!
//! A process that takes over waits for writes in flight, here for 10 s. So each test kills once.

use anyhow::{Result, ensure};
use e2e::{CommandOutput, until};
use http::Method;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On};

use crate::cluster::TOKEN;
use crate::rotation_fixture::{RotationFixture, hash12};

/// What ends it after the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    WithOld,
    WithNew,
    Rollback,
}

async fn finish(fixture: &RotationFixture, end: End) -> Result<CommandOutput> {
    let exec = fixture.node_exec()?;
    let args = match end {
        End::WithOld => fixture.args("rotate", &[&exec]),
        End::WithNew => fixture.args_with("rotate", fixture.new_file(), &[&exec]),
        End::Rollback => fixture.args("rollback", &[&exec]),
    };
    let done = fixture.shell().bootstrap_token(args).run().await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    match end {
        End::WithOld | End::WithNew => fixture.is_rotated().await?,
        End::Rollback => fixture.is_restored().await?,
    }
    Ok(done)
}

#[rstest]
#[case::old(End::WithOld)]
#[case::new(End::WithNew)]
#[case::rollback(End::Rollback)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_in_its_round_is_resumed_or_rolled_back(#[case] end: End) -> Result<()> {
    let name = format!("killed-in-round-{end:?}").to_lowercase();
    let fixture = RotationFixture::start_three(&name, ["nowhere"; 3]).await?;
    // The second server of the round, whichever it is, handles its PUT only after the process is gone.
    for server in ["s1", "s2", "s3"] {
        fixture.servers.cluster.faults(server, &json!({ "delay": 4.0 })).await?;
    }
    let exec = fixture.node_exec()?;
    let running = fixture.spawn(fixture.shell(), &[&exec]).await?;
    until("the first PUT", async || Ok((fixture.puts().await? > 0).then_some(()))).await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    let state = fixture.servers.cluster.state().await?;
    let old = json!(hash12(TOKEN));
    let has_old = |server: &&str| state["servers"][*server]["files"]["token"]["fingerprint"] == old;
    ensure!(
        ["s1", "s2", "s3"].iter().any(has_old),
        "the round was complete: {state}"
    );
    finish(&fixture, end).await?;
    Ok(())
}

#[rstest]
#[case::backed_up("created", Method::POST, 1, End::WithOld)]
#[case::backed_up_and_resumed_with_new("created-new", Method::POST, 1, End::WithNew)]
#[case::round_recorded("recorded", Method::PATCH, 1, End::WithNew)]
#[case::round_recorded_and_rolled_back("recorded-rollback", Method::PATCH, 1, End::Rollback)]
#[case::round_complete("complete", Method::PATCH, 2, End::WithOld)]
#[case::round_complete_and_rolled_back("complete-rollback", Method::PATCH, 2, End::Rollback)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_after_a_write_of_its_backup_is_resumed_or_rolled_back(
    #[case] name: &str,
    #[case] method: Method,
    #[case] nth: usize,
    #[case] end: End,
) -> Result<()> {
    let fixture = RotationFixture::start_three(&format!("killed-{name}"), ["nowhere"; 3]).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let on = On::write().method(method).path("*/secrets*").nth(nth);
    let _planned = proxy.plan(on, Fault::Kill(Moment::After));
    let exec = fixture.node_exec()?;
    let running = fixture.spawn(&shell, &[&exec]).await?;
    proxy.victim(running.pid()?);
    running.finish().await?.expect_killed()?;
    finish(&fixture, end).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_after_its_backup_is_deleted_needs_only_its_last_snapshots() -> Result<()> {
    let fixture = RotationFixture::start_three("killed-forgotten", ["nowhere"; 3]).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let on = On::write().method(Method::DELETE).path("*/secrets/*");
    let _planned = proxy.plan(on, Fault::Kill(Moment::After));
    let exec = fixture.node_exec()?;
    let running = fixture.spawn(&shell, &[&exec]).await?;
    proxy.victim(running.pid()?);
    running.finish().await?.expect_killed()?;
    let puts = fixture.puts().await?;
    finish(&fixture, End::WithNew).await?;
    ensure!(fixture.puts().await? == puts, "a PUT was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_whose_second_server_fails_reaches_every_server() -> Result<()> {
    let fixture = RotationFixture::start_three("put-killed", ["nowhere"; 3]).await?;
    // The server kills itself after it has carried out the PUT, without an answer.
    fixture
        .servers
        .cluster
        .faults("s2", &json!({ "kill": "after-save" }))
        .await?;
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    // The order of the files was not known, so a second new token has followed.
    let kept = format!("{}.1", fixture.new_file());
    ensure!(
        std::fs::metadata(&kept).is_ok(),
        "the first new token was not kept in {kept}"
    );
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_in_a_round_takes_effect_after_it() -> Result<()> {
    let fixture = RotationFixture::start_three("signal-in-round", ["nowhere"; 3]).await?;
    for server in ["s1", "s2", "s3"] {
        fixture.servers.cluster.faults(server, &json!({ "delay": 2.0 })).await?;
    }
    let exec = fixture.node_exec()?;
    let running = fixture.spawn(fixture.shell(), &[&exec]).await?;
    until("the first PUT", async || Ok((fixture.puts().await? > 0).then_some(()))).await?;
    running.signal(Signal::TERM)?;
    running.finish().await?.expect(143)?;
    ensure!(fixture.puts().await? == 3, "the round was not completed");
    finish(&fixture, End::WithOld).await?;
    Ok(())
}
