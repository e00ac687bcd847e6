//! `kubectl argocd-rancher rollback`

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::fixture::{Fixture, token};
use crate::tokens::interrupted_in_grace;

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_start_before_retire() -> Result<()> {
    let fixture = Fixture::begin("floro").await?;
    let (old, new) = interrupted_in_grace(&fixture).await?;
    ensure!(
        fixture.accepts(&old).await? && fixture.accepts(&new).await?,
        "one of the tokens is rejected"
    );
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    ensure!(
        listed.stdout.contains("rotating") && !listed.stderr.contains("was issued for"),
        "{listed}"
    );
    let removed = fixture.run(&["remove", fixture.id(), "--yes"]).run().await?.expect(1)?;
    ensure!(removed.stderr.contains("it is being rotated (prove)"), "{removed}");
    let undo = ["rollback", fixture.id(), "--grace", "1s", "--yes"];
    fixture.run(&undo).run().await?.expect(0)?;
    fixture.is_restored(&old).await?;
    ensure!(!fixture.accepts(&new).await?, "the new token is accepted");
    fixture
        .run(&["rollback", fixture.id(), "--exit-code"])
        .run()
        .await?
        .expect(3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_keeps_the_new_token_when_the_old_one_expired() -> Result<()> {
    let fixture = Fixture::begin("odda").await?;
    let (old, _) = interrupted_in_grace(&fixture).await?;
    let name = old.split(':').next().context("no name")?;
    fixture
        .base
        .rancher
        .change_token(name, &json!({"expired": true}))
        .await?;
    let undo = ["rollback", fixture.id(), "--grace", "1s", "--yes"];
    let kept = fixture.run(&undo).run().await?.expect(1)?;
    ensure!(kept.stderr.contains("could not be rolled back"), "{kept}");
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_keeps_the_new_token_when_the_backup_secret_is_lost() -> Result<()> {
    let fixture = Fixture::begin("voss").await?;
    let (old, new) = interrupted_in_grace(&fixture).await?;
    let parked = format!(
        "{}-rotation",
        fixture.cluster_secret().await?.metadata.name.context("no name")?
    );
    fixture.delete(&parked).await?;
    let undo = ["rollback", fixture.id(), "--grace", "1s", "--yes"];
    fixture.run(&undo).run().await?.expect(1)?;
    ensure!(
        token(&fixture.secret().await?)? == new && fixture.accepts(&new).await?,
        "Argo CD has no login"
    );
    // Its value is lost, and no command has revoked it.
    ensure!(fixture.accepts(&old).await?, "it was revoked");
    Ok(())
}
