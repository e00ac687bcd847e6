//! Who may resume an interrupted rotation, and an outage of Rancher.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use test_cluster::Outage;

use crate::fixture::{Fixture, token, user};
use crate::tokens::{interrupted_in_grace, name_of_secret};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_who_started_a_rotation_can_resume_it() -> Result<()> {
    let fixture = Fixture::begin("forde").await?;
    let (old, _) = interrupted_in_grace(&fixture).await?;
    let other = fixture.shell_of(&user("forde-other")).await?;
    let refused = fixture.run_at(&other, &["rotate", fixture.id(), "--yes"]).run().await?;
    ensure!(refused.code() != Some(0), "{refused}");
    ensure!(refused.stderr.contains("the rotation was begun by user"), "{refused}");
    fixture
        .run(&["rollback", fixture.id(), "--grace", "0s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    fixture.is_restored(&old).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_waits_while_rancher_is_unreachable() -> Result<()> {
    let fixture = Fixture::begin("geilo").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let run = fixture
        .run_at(&shell, &["rotate", fixture.id(), "--grace", "10s", "--yes"])
        .start()
        .await?;
    fixture.reaches("prove").await?;
    // The outage starts in the grace period and ends after it. A single call is retried for five seconds.
    proxy.away(Outage {
        prefix: "/v3/".to_owned(),
        lasts: Duration::from_secs(20),
        status: None,
    });
    let done = run.finish().await?.expect(0)?;
    ensure!(done.stderr.contains("retrying"), "{done}");
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_not_resumed_through_another_rancher() -> Result<()> {
    let fixture = Fixture::begin("kragero").await?;
    let (old, _) = interrupted_in_grace(&fixture).await?;
    let name = name_of_secret(&fixture).await?;
    let right = fixture.server();
    let wrong = right
        .replace("https://", "https://elsewhere-")
        .replace("127.0.0.1", "x.invalid");
    let serve = async |server: &str| {
        let change = Patch::Merge(json!({"stringData": {"server": server}}));
        fixture.secrets.patch(&name, &PatchParams::default(), &change).await
    };
    serve(&wrong).await?;
    for command in ["rotate", "rollback"] {
        let refused = fixture.run(&[command, &name, "--grace", "1s", "--yes"]).run().await?;
        ensure!(
            refused.code() != Some(0) && refused.stderr.contains("does not point to the given Rancher"),
            "{refused}"
        );
    }
    serve(&right).await?;
    let undo = ["rollback", fixture.id(), "--grace", "1s", "--yes"];
    fixture.run(&undo).run().await?.expect(0)?;
    tokio::time::timeout(Duration::from_secs(30), fixture.is_restored(&old)).await?
}
