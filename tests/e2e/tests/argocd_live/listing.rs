//! What `list` shows of Argo CD's own opinion, beside what is true.

use anyhow::{Context as _, Result};
use e2e::until;
use serde_json::{Value, json};
use testbed::Content;

use crate::bench::Bench;

/// The cluster's row.
async fn row(bench: &Bench, args: &[&str]) -> Result<Value> {
    let list = [&["list", "-o", "json"], args].concat();
    let listed = bench.run(&list).run().await?.expect(0)?;
    let document: Value = serde_json::from_str(&listed.stdout)?;
    let rows = document["items"].as_array().context("no items")?;
    let ours = rows.iter().find(|row| row["cluster"] == bench.id());
    ours.cloned().with_context(|| format!("no row in {document:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cds_opinion_stands_beside_our_proof_and_outlives_the_token() -> Result<()> {
    let bench = Bench::added("oslo").await?;
    assert_eq!(
        row(&bench, &[]).await?["argocd"]["connected"],
        Value::Null,
        "nothing uses it yet"
    );
    let deployed = bench.deploy(Content::Plain).await?;
    let seen = bench.becomes("Successful").await?;
    assert!(seen.kinds > 40, "{seen:?}");
    let connected = until("list to show Argo CD's opinion", async || {
        let row = row(&bench, &["--probe"]).await?;
        Ok((row["argocd"]["connected"] == true).then_some(row))
    })
    .await?;
    assert_eq!(
        (&connected["state"], &connected["probed"]),
        (&json!("current"), &json!("works"))
    );
    assert_eq!(connected["argocd"]["kinds"], seen.kinds, "{connected:#}");

    let token = bench.token_in_place().await?;
    bench.revoke(&token).await?;
    // Even one that it has looked at again since.
    let reconciled = async || {
        let application = bench.argo.application(&deployed.application).await?;
        anyhow::Ok(application["status"]["reconciledAt"].clone())
    };
    let before = reconciled().await?;
    bench.argo.refresh(&deployed.application).await?;
    until("Argo CD to look again", async || {
        Ok((reconciled().await? != before).then_some(()))
    })
    .await?;
    assert_eq!(bench.becomes("Successful").await?.kinds, seen.kinds);
    let dead = row(&bench, &["--probe"]).await?;
    assert_eq!(
        (&dead["argocd"]["connected"], &dead["state"]),
        (&json!(true), &json!("dead")),
        "{dead:#}"
    );
    assert_eq!(row(&bench, &[]).await?["state"], "revoked");
    Ok(())
}
