//! The API server that the kubeconfig names is away while a rotation needs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, On, Outage};

use crate::rotation_fixture::RotationFixture;

/// Longer than a restart of a server, and shorter than the lock lasts without a renewal.
const BRIEF: Duration = Duration::from_secs(12);
/// Until the end of the test.
const LONG: Duration = Duration::from_mins(10);

fn outage(lasts: Duration) -> Fault {
    Fault::Away(Outage {
        prefix: "/".to_owned(),
        lasts,
        status: None,
    })
}

#[rstest]
#[case::make("make", On::read().path("*/etcdsnapshotfiles").nth(2))]
#[case::place("place", On::write().path("*/secrets*").nth(2))]
#[case::round("round", On::read().path("*/secrets/*").nth(4))]
#[case::prove("prove", On::read().path("*/api/v1/nodes").nth(5))]
#[case::confirm("confirm", On::write().path("*/secrets*").nth(4))]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_survives_that_its_api_server_is_briefly_away(#[case] phase: &str, #[case] on: On) -> Result<()> {
    let fixture = RotationFixture::start_three(&format!("away-{phase}"), ["nowhere"; 3]).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let planned = proxy.plan(on, outage(BRIEF));
    let exec = fixture.node_exec()?;
    let rotate = fixture.args("rotate", &[&exec]);
    let done = shell.bootstrap_token(&rotate).run().await?.expect(0)?;
    ensure!(planned.struck() == 1, "there was no outage:\n{}", proxy.transcript());
    ensure!(done.took > BRIEF, "it did not need the API server:\n{done}");
    ensure!(fixture.puts().await? == 3, "another round was sent:\n{done}");
    fixture.prints_no_token(&done)?;
    fixture.is_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_api_server_is_away_for_long_loses_its_lock_to_another_run() -> Result<()> {
    let fixture = RotationFixture::start_three("away-long", ["nowhere"; 3]).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    // After the round, before the first restart.
    let planned = proxy.plan(On::read().path("*/api/v1/nodes").nth(5), outage(LONG));
    let exec = fixture.node_exec()?;
    let cut_off = fixture.spawn(&shell, &[&exec]).await?;
    planned.strikes().await;
    let other = fixture.args_with("rotate", fixture.new_file(), &[&exec]);
    let done = fixture.shell().bootstrap_token(other).run().await?.expect(0)?;
    fixture.prints_no_token(&done)?;
    let puts = fixture.puts().await?;
    proxy.heal();
    let stopped = cut_off.finish().await?.expect(1)?;
    let reason = "another run has finished the rotation of the server token";
    ensure!(
        stopped.stderr.contains(reason),
        "the other run is not named:\n{stopped}"
    );
    // That was so when it was cut off.
    ensure!(!stopped.stderr.contains("is still accepted"), "{stopped}");
    ensure!(fixture.puts().await? == puts, "a PUT was sent without the lock");
    fixture.is_rotated().await
}

#[rstest]
#[case::etcd("etcd")]
#[case::sqlite("sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn the_only_server_takes_its_api_away_while_it_restarts(#[case] datastore: &str) -> Result<()> {
    let cluster = json!({ "datastore": datastore, "servers": [{ "name": "s1", "pin": "nowhere" }] });
    let fixture = RotationFixture::start(&format!("away-only-{datastore}"), cluster).await?;
    // As long as that of a real server.
    fixture.servers.cluster.slow_down(1.0)?;
    let done = fixture.run("rotate", &[]).await?.expect(0)?;
    ensure!(
        done.took > Duration::from_secs(7),
        "the API was not away for long:\n{done}"
    );
    fixture.prints_no_token(&done)?;
    fixture.servers.cluster.slow_down(1.0 / 16.0)?;
    fixture.is_rotated().await
}
