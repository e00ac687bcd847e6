//! Recoveries that lose their API server, and commands that were killed and are recovered.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::until;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, On, Outage};

use super::{PINNED, THREE, UNPINNED, args, is_recovered, recover, recover_in, rotated_by_hand};
use crate::cluster::{OTHER, TOKEN};
use crate::rotation_fixture::{RotationFixture, hash12};

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_moves_to_the_api_server_of_another_server() -> Result<()> {
    let fixture = rotated_by_hand("recover-moved", PINNED).await?;
    // The restarts take longer than the lock lasts without a renewal.
    fixture.servers.cluster.slow_down(1.0)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let away = Outage {
        prefix: "/".to_owned(),
        lasts: Duration::from_mins(10),
        status: None,
    };
    // It strikes while the round is recorded.
    let planned = proxy.plan(On::write().path("*/secrets*").nth(1), Fault::Away(away));
    let exec = fixture.node_exec()?;
    let limit = "--restart-timeout=1m";
    let done = recover_in(&fixture, &shell, &[OTHER, TOKEN], &[&exec, limit])
        .await?
        .expect(0)?;
    ensure!(planned.struck() == 1, "there was no outage:\n{}", proxy.transcript());
    fixture.servers.cluster.slow_down(1.0 / 16.0)?;
    ensure!(is_recovered(&fixture, &done).await? == hash12(OTHER), "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_recovery_is_continued_with_one_of_the_tokens() -> Result<()> {
    let fixture = rotated_by_hand("recover-killed", UNPINNED).await?;
    for server in ["s2", "s3"] {
        fixture.servers.cluster.faults(server, &json!({ "delay": 4.0 })).await?;
    }
    // Without the value that the first server has, a new one is drawn.
    let running = fixture
        .shell()
        .bootstrap_token(args(&fixture, &[TOKEN], &[])?)
        .start()
        .await?;
    until("the first PUT of the new token", async || {
        Ok((fixture.puts().await? > 1).then_some(()))
    })
    .await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    let drawn = fixture.new_token()?;
    std::fs::remove_file(fixture.new_file())?;
    let done = recover(&fixture, &[TOKEN], &[]).await?.expect(0)?;
    ensure!(done.stderr.contains("writes of another process"), "{done}");
    ensure!(!done.to_string().contains(&drawn), "a token is printed:\n{done}");
    ensure!(is_recovered(&fixture, &done).await? == hash12(&drawn), "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_is_recovered_and_then_resumed() -> Result<()> {
    let fixture = RotationFixture::start_three("recover-rotation", UNPINNED).await?;
    for server in THREE {
        fixture.servers.cluster.faults(server, &json!({ "delay": 4.0 })).await?;
    }
    let exec = fixture.node_exec()?;
    let running = fixture.spawn(fixture.shell(), &[&exec]).await?;
    until("the first PUT", async || Ok((fixture.puts().await? > 0).then_some(()))).await?;
    running.signal(Signal::KILL)?;
    running.finish().await?.expect_killed()?;
    let new = fixture.new_token()?;
    // Its tokens are sealed with each other.
    let done = recover_in(&fixture, fixture.shell(), &[TOKEN], &[&exec])
        .await?
        .expect(0)?;
    ensure!(done.stderr.contains("has kept its record"), "{done}");
    let state = fixture.servers.cluster.state().await?;
    for server in THREE {
        ensure!(
            state["servers"][server]["live"]["server"] == json!(hash12(&new)),
            "{server}: {state}"
        );
    }
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}
