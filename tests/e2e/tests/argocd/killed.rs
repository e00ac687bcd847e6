//! A run that is killed between the mint and the Secret leaves a token that is found again; one that is interrupted or
//! refused there leaves none.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::Desk;
use rustix::process::{Pid, Signal, kill_process};
use testbed::{Bed, Fault, FaultProxy, Kubeconfig, Moment, On, Upstream};

use crate::bench::{Bench, give_plugin};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_killed_run_left_is_named_and_ended() -> Result<()> {
    let bench = Bench::begin("reims").await?;
    let proxy = FaultProxy::start([Upstream::admin_of(bench.story.management)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(bench.story.desk.kubeconfig())?);
    let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
    give_plugin(&desk)?;
    proxy.plan(On::write().path("*/secrets"), Fault::Kill(Moment::Before));
    let add = bench.run_at(&desk, &["add", bench.id()]).start().await?;
    proxy.victim(add.pid()?);
    add.finish().await?.expect_killed()?;
    assert_eq!(bench.living().await?.len(), 1);

    let stray = bench.living().await?.remove(0);
    let listed = bench.run(&["list"]).run().await?.expect(0)?;
    assert!(
        listed.stderr.contains(&format!("token {stray} was minted for Secret")),
        "{listed}"
    );
    let forced = ["remove", bench.id(), "--yes", "--force=in-use"];
    let removed = bench.run(&forced).run().await?.expect(0)?;
    assert!(removed.stdout.contains(&format!("token/{stray} ended")), "{removed}");
    assert!(bench.living().await?.is_empty());
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_refused_ends_the_token_again() -> Result<()> {
    let bench = Bench::begin("dijon").await?;
    let proxy = FaultProxy::start([Upstream::admin_of(bench.story.management)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(bench.story.desk.kubeconfig())?);
    let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
    give_plugin(&desk)?;
    let fault = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    proxy.plan(On::write().path("*/secrets"), fault);
    let refused = bench.run_at(&desk, &["add", bench.id()]).run().await?.expect(1)?;
    assert!(refused.stderr.contains("ended again"), "{refused}");
    assert!(bench.living().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_ends_the_token_that_it_has_minted() -> Result<()> {
    let bench = Bench::begin("arles").await?;
    // The proof through the proxy takes a while.
    let (rancher, cluster) = (bench.story.rancher, &bench.story.cluster);
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let add = bench.run(&["add", bench.id(), "--force=offline"]).start().await?;
    let pid = i32::try_from(add.pid()?)
        .ok()
        .and_then(Pid::from_raw)
        .context("no pid")?;
    e2e::until("the mint", async || {
        Ok((!bench.living().await?.is_empty()).then_some(()))
    })
    .await?;
    kill_process(pid, Signal::INT)?;
    let outcome = add.finish().await?.expect(130)?;
    assert!(outcome.stderr.contains("ended again"), "{outcome}");
    assert!(bench.living().await?.is_empty() && bench.secret().await.is_err());
    rancher.online(cluster).await
}
