//! `server-token rollback`.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::TOKEN;
use crate::rotation_fixture::{RotationFixture, hash12};

#[tokio::test(flavor = "multi_thread")]
async fn rollback_without_a_rotation_does_nothing() -> Result<()> {
    let fixture = RotationFixture::start_three("rollback-nothing", ["nowhere"; 3]).await?;
    let nothing = fixture.run("rollback", &[]).await?.expect(0)?;
    ensure!(
        nothing
            .stderr
            .contains("no rotation of the server token is in progress"),
        "{nothing}"
    );
    fixture.run("rollback", &["--exit-code"]).await?.expect(3)?;
    ensure!(fixture.puts().await? == 0, "it has sent a PUT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_before_any_restart_restarts_nothing() -> Result<()> {
    let fixture = RotationFixture::start_three("rollback-before-restarts", ["nowhere"; 3]).await?;
    let mut before = Vec::new();
    for server in ["s1", "s2", "s3"] {
        before.push((server, fixture.starts(server).await?));
    }
    let running = fixture.spawn(fixture.shell(), &[]).await?;
    let cluster = &fixture.servers.cluster;
    let is_placed = |state: &Value| state["servers"]["s3"]["files"]["token"]["fingerprint"] != json!(hash12(TOKEN));
    cluster.wait_for("the round", is_placed).await?;
    running.signal(Signal::INT)?;
    running.finish().await?.expect(130)?;
    let done = fixture.run("rollback", &[]).await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    for (server, starts) in before {
        ensure!(fixture.starts(server).await? == starts, "{server} was restarted");
    }
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restarts_the_servers_that_have_loaded_the_new_token() -> Result<()> {
    let fixture = RotationFixture::start_three("rollback-after-restart", ["nowhere"; 3]).await?;
    fixture.run("rotate", &["--only", "s1"]).await?.expect(4)?;
    fixture.run("rollback", &[]).await?.expect(0)?;
    fixture.is_restored().await?;
    // It is as if nothing had happened.
    fixture.run("rotate", &[]).await?.expect(0)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_configuration() -> Result<()> {
    let pins = ["config", "env", "token-file"];
    let fixture = RotationFixture::start_three("rollback-pinned", pins).await?;
    let configurations = || {
        let cluster = &fixture.servers.cluster;
        let texts = [
            ("s1", "etc/rancher/k3s/config.yaml"),
            ("s2", "etc/systemd/system/k3s.service.env"),
        ];
        let read = |(server, file): (&str, &str)| std::fs::read_to_string(cluster.root(server).join(file));
        texts.into_iter().map(read).collect::<std::io::Result<Vec<String>>>()
    };
    let before = configurations()?;
    fixture.run("rotate", &["--only", "s1"]).await?.expect(4)?;
    ensure!(configurations()? != before, "the tokens were not removed");
    fixture.run("rollback", &[]).await?.expect(0)?;
    ensure!(configurations()? == before, "the configurations differ");
    let state = fixture.servers.cluster.state().await?;
    for server in ["s1", "s2", "s3"] {
        ensure!(
            state["servers"][server]["configured"] == json!(hash12(TOKEN)),
            "{server}: {state}"
        );
    }
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_rotation_is_not_rolled_back() -> Result<()> {
    let fixture = RotationFixture::start_three("rollback-finished", ["nowhere"; 3]).await?;
    fixture.run("rotate", &[]).await?.expect(0)?;
    let nothing = fixture.run("rollback", &[]).await?.expect(0)?;
    ensure!(
        nothing
            .stderr
            .contains("no rotation of the server token is in progress"),
        "{nothing}"
    );
    fixture.is_rotated().await
}
