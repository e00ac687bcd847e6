//! `kubectl bootstrap-token extend`

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On};

use crate::cluster::{self, Raw, bare, data_of, shell};
use crate::create::{behind_proxy, seconds_left};

#[tokio::test(flavor = "multi_thread")]
async fn extend_changes_the_expiry_and_keeps_unknown_keys() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    Raw::new("ext001")
        .with("expiration", "2999-01-01T00:00:00Z")
        .with("usage-of-others", "kept")
        .create(plane)
        .await?;
    let shortened = shell
        .bootstrap_token(["extend", "ext001", "--ttl", "90m"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        shortened.stdout.contains("shortened from 2999-01-01T00:00:00Z"),
        "{shortened}"
    );
    let data = data_of(plane, "ext001").await?;
    ensure!((5390..=5400).contains(&seconds_left(&data["expiration"])?) && data["usage-of-others"] == "kept");
    let dry = shell
        .bootstrap_token(["extend", "ext001", "--ttl", "3h", "--dry-run=server"])
        .run()
        .await?
        .expect(0)?;
    ensure!(dry.stdout.contains("(server dry run)"), "{dry}");
    ensure!(data_of(plane, "ext001").await? == data, "the dry run has changed it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_refuses_immutable_and_missing_tokens() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    Raw::new("ext002").create(plane).await?;
    let api = cluster::secrets(plane, "kube-system").await?;
    let immutable = Patch::Merge(json!({ "immutable": true }));
    api.patch("bootstrap-token-ext002", &PatchParams::default(), &immutable)
        .await?;
    let refused = shell
        .bootstrap_token(["extend", "ext002", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(refused.stderr.contains("immutable"), "{refused}");
    let created = shell
        .follow(&refused, "kubectl bootstrap-token create", &["--dry-run"])
        .await?;
    created.expect(0)?;
    let gone = shell
        .bootstrap_token(["extend", "zzzzzz", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(gone.stderr.contains("bootstrap token zzzzzz not found"), "{gone}");
    let mistyped = shell
        .bootstrap_token(["extend", "zz", "--ttl", "1h"])
        .run()
        .await?
        .expect(2)?;
    for output in [&gone, &mistyped] {
        let listed = shell
            .follow(output, "kubectl bootstrap-token list", &[])
            .await?
            .expect(0)?;
        ensure!(listed.stdout.contains("ext002"), "{listed}");
    }
    let without = shell.bootstrap_token(["extend", "ext002"]).run().await?.expect(2)?;
    ensure!(without.stderr.contains("--ttl"), "{without}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_refuses_an_expired_token() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    // The finalizer keeps the Secret, which the token cleaner deletes at once.
    let mut expired = Raw::new("ended1").with("expiration", "2020-01-01T00:00:00Z");
    expired.secret.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    expired.create(plane).await?;
    let refused = shell
        .bootstrap_token(["extend", "ended1", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(refused.stderr.contains("has expired"), "{refused}");
    e2e::until("the token cleaner to delete it", async || {
        Ok((cluster::row(&shell, "ended1").await?["state"] == "deleting").then_some(()))
    })
    .await?;
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let api = cluster::secrets(plane, "kube-system").await?;
    api.patch("bootstrap-token-ended1", &PatchParams::default(), &release)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_does_not_overwrite_concurrent_changes() -> Result<()> {
    let plane = bare().await?;
    let (proxy, shell) = behind_proxy().await?;
    Raw::new("ext003")
        .with("expiration", "2999-01-01T00:00:00Z")
        .create(plane)
        .await?;
    // Another change is made while this one is in flight.
    let held = proxy.plan(
        On::write().path("*/bootstrap-token-ext003"),
        Fault::Stop(Moment::Before),
    );
    let extending = shell
        .bootstrap_token(["extend", "ext003", "--ttl", "1h"])
        .start()
        .await?;
    proxy.victim(extending.pid()?);
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    let concurrent = Patch::Merge(json!({ "metadata": { "labels": { "theirs": "yes" } } }));
    let api = cluster::secrets(plane, "kube-system").await?;
    api.patch("bootstrap-token-ext003", &PatchParams::default(), &concurrent)
        .await?;
    held.release();
    extending.signal(Signal::CONT)?;
    let refused = extending.finish().await?.expect(1)?;
    ensure!(refused.stderr.contains("was changed concurrently"), "{refused}");
    ensure!(data_of(plane, "ext003").await?["expiration"] == "2999-01-01T00:00:00Z");
    Ok(())
}
