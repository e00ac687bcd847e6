//! `list` shows the connection state of Argo CD beside the result of our own probe.

use anyhow::{Context as _, Result};
use e2e::until;
use serde_json::{Value, json};
use test_cluster::Content;

use crate::fixture::Fixture;

/// The cluster's row.
async fn row(fixture: &Fixture, args: &[&str]) -> Result<Value> {
    let list = [&["list", "-o", "json"], args].concat();
    let listed = fixture.run(&list).run().await?.expect(0)?;
    let document: Value = serde_json::from_str(&listed.stdout)?;
    let rows = document["items"].as_array().context("no items")?;
    let ours = rows.iter().find(|row| row["cluster"] == fixture.id());
    ours.cloned().with_context(|| format!("no row in {document:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_the_connection_state_of_argocd() -> Result<()> {
    let fixture = Fixture::added("oslo").await?;
    assert_eq!(
        row(&fixture, &[]).await?["argocd"]["connected"],
        Value::Null,
        "nothing uses it yet"
    );
    let deployed = fixture.deploy(Content::Plain).await?;
    let seen = fixture.becomes("Successful").await?;
    assert!(seen.kinds > 40, "{seen:?}");
    let connected = until("list to show the connection state", async || {
        let row = row(&fixture, &["--probe"]).await?;
        Ok((row["argocd"]["connected"] == true).then_some(row))
    })
    .await?;
    assert_eq!(
        (&connected["state"], &connected["probed"]),
        (&json!("current"), &json!("accepted"))
    );
    assert_eq!(connected["argocd"]["kinds"], seen.kinds, "{connected:#}");

    let token = fixture.token_in_place().await?;
    fixture.revoke(&token).await?;
    // Even after another comparison by Argo CD.
    let reconciled = async || {
        let application = fixture.argo.application(&deployed.application).await?;
        anyhow::Ok(application["status"]["reconciledAt"].clone())
    };
    let before = reconciled().await?;
    fixture.argo.refresh(&deployed.application).await?;
    until("Argo CD to compare again", async || {
        Ok((reconciled().await? != before).then_some(()))
    })
    .await?;
    assert_eq!(fixture.becomes("Successful").await?.kinds, seen.kinds);
    let invalid = row(&fixture, &["--probe"]).await?;
    assert_eq!(
        (&invalid["argocd"]["connected"], &invalid["state"]),
        (&json!(true), &json!("rejected")),
        "{invalid:#}"
    );
    assert_eq!(row(&fixture, &[]).await?["state"], "revoked");
    Ok(())
}
