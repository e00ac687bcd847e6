//! `add` that is killed, interrupted or rejected between the new token and the Secret.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use test_cluster::{Fault, Moment, On};

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_killed_add_is_listed_and_removed() -> Result<()> {
    let fixture = Fixture::begin("reims").await?;
    let (proxy, shell) = fixture.base.behind_management_proxy().await?;
    proxy.plan(On::write().path("*/secrets"), Fault::Kill(Moment::Before));
    let add = fixture.run_at(&shell, &["add", fixture.id()]).start().await?;
    proxy.victim(add.pid()?);
    add.finish().await?.expect_killed()?;
    assert_eq!(fixture.valid_tokens().await?.len(), 1);

    let stray = fixture.valid_tokens().await?.remove(0);
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    assert!(
        listed.stderr.contains(&format!("token {stray} was issued for Secret")),
        "{listed}"
    );
    let forced = ["remove", fixture.id(), "--yes", "--force=in-use"];
    let removed = fixture.run(&forced).run().await?.expect(0)?;
    assert!(removed.stdout.contains(&format!("token/{stray} revoked")), "{removed}");
    assert!(fixture.valid_tokens().await?.is_empty());
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_revokes_the_token_when_the_secret_is_rejected() -> Result<()> {
    let fixture = Fixture::begin("dijon").await?;
    let (proxy, shell) = fixture.base.behind_management_proxy().await?;
    let fault = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    proxy.plan(On::write().path("*/secrets"), fault);
    let refused = fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(1)?;
    assert!(refused.stderr.contains("revoked token"), "{refused}");
    assert!(fixture.valid_tokens().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn add_issues_no_token_when_the_dry_run_of_the_secret_is_rejected() -> Result<()> {
    let fixture = Fixture::begin("tours").await?;
    let (proxy, shell) = fixture.base.behind_management_proxy().await?;
    let fault = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    proxy.plan(On::request().method(http::Method::POST).path("*/secrets"), fault);
    let refused = fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(1)?;
    assert!(!refused.stderr.contains("issued token"), "{refused}");
    assert!(fixture.valid_tokens().await?.is_empty() && fixture.secret().await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_add_revokes_its_token() -> Result<()> {
    let fixture = Fixture::begin("arles").await?;
    // The check through the cluster's proxy takes a while.
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let add = fixture.run(&["add", fixture.id(), "--force=offline"]).start().await?;
    e2e::until("the new token", async || {
        Ok((!fixture.valid_tokens().await?.is_empty()).then_some(()))
    })
    .await?;
    add.signal(Signal::INT)?;
    let outcome = add.finish().await?.expect(130)?;
    assert!(outcome.stderr.contains("revoked token"), "{outcome}");
    assert!(fixture.valid_tokens().await?.is_empty() && fixture.secret().await.is_err());
    rancher.online(cluster).await
}
