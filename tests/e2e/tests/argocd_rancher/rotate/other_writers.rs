//! Other writers and owners of the cluster Secret, and forged journals.

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use test_cluster::AnotherWriter;

use crate::fixture::{Fixture, token};
use crate::tokens::{interrupted_in_grace, is_valid, issue_token, name_of_secret};

async fn annotate(fixture: &Fixture, secret: &str, key: &str, value: &str) -> Result<()> {
    let change = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
    fixture.secrets.patch(secret, &PatchParams::default(), &change).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_with_a_forged_journal_revokes_no_other_token() -> Result<()> {
    let fixture = Fixture::begin("skien").await?;
    let (old, _) = interrupted_in_grace(&fixture).await?;
    let (victim, _) = issue_token(&fixture, "unrelated", None).await?;
    let name = name_of_secret(&fixture).await?;
    let leases = fixture.leases().await?;
    let key = "kubectl-rotation.github.io/journal";
    let lease = leases.get(&name).await?;
    let text = lease.metadata.annotations.and_then(|mut all| all.remove(key));
    let mut journal: Value = serde_json::from_str(&text.context("no journal")?)?;
    journal["phase"] = json!("retire");
    journal["deadlines"] = json!({"quiet": "2020-01-01T00:00:00Z"});
    journal["record"]["old"]["name"] = json!(victim);
    let change = json!({"metadata": {"annotations": {key: journal.to_string()}}});
    leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(change))
        .await?;

    let resumed = ["rotate", fixture.id(), "--grace", "2s", "--yes"];
    fixture.run(&resumed).run().await?.expect(0)?;
    ensure!(
        is_valid(&fixture, &victim).await?,
        "a token was revoked that only the Lease names"
    );
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_the_secret_is_reverted_repeatedly() -> Result<()> {
    let fixture = Fixture::begin("arendal").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let before = fixture.secret().await?;
    let client = fixture.base.management.client().await?;
    let writer = AnotherWriter::of(client, &before)?.replace_data().watching().start();
    let rotate = ["rotate", fixture.id(), "--grace", "5s", "--yes"];
    let back = fixture.run(&rotate).run().await?.expect(1)?;
    ensure!(
        back.stderr
            .contains("manager \"kustomize-controller\" keeps writing the old state back"),
        "{back}"
    );
    writer.stop().await?;
    fixture.is_restored(&token(&before)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_remove_refuse_a_secret_managed_by_an_application() -> Result<()> {
    let fixture = Fixture::begin("grimstad").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (name, old) = (name_of_secret(&fixture).await?, token(&fixture.secret().await?)?);
    let id = format!("clusters:/Secret:{}/{name}", fixture.namespace);
    annotate(&fixture, &name, "argocd.argoproj.io/tracking-id", &id).await?;
    for command in ["rotate", "remove"] {
        let refused = fixture.run(&[command, fixture.id(), "--yes"]).run().await?.expect(1)?;
        ensure!(
            refused
                .stderr
                .contains("is managed by Argo CD application \"clusters\"")
                && refused.stderr.contains("--force=owner"),
            "{refused}"
        );
    }
    let listed = fixture.run(&["list", "-o", "json"]).run().await?.expect(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(
        listed["items"][0]["managedBy"] == "Argo CD application \"clusters\"",
        "{listed:#}"
    );
    let rotate = ["rotate", fixture.id(), "--grace", "1s", "--yes", "--force=owner"];
    fixture.run(&rotate).run().await?.expect(0)?;
    fixture.is_rotated(&old).await?;
    Ok(())
}
