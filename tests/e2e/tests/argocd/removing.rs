//! `remove`: the Secret, then the token, and never under an Application.

use anyhow::Result;
use serde_json::json;

use crate::bench::{Bench, token};

#[tokio::test(flavor = "multi_thread")]
async fn secret_and_token_go_and_the_token_is_shown_to_be_refused() -> Result<()> {
    let bench = Bench::begin("porto").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let plan = bench.run(&["remove", bench.id(), "--dry-run"]).run().await?.expect(0)?;
    assert!(plan.stdout.contains("would be deleted, and token token-"), "{plan}");
    let asked = bench.run(&["remove", bench.id()]).run().await?.expect(1)?;
    assert!(asked.stderr.contains("no terminal"), "{asked}");
    assert_eq!(bench.living().await?.len(), 1);
    let removed = bench.run(&["remove", bench.id(), "--yes"]).run().await?.expect(0)?;
    assert!(removed.stderr.contains("Rancher refuses token-"), "{removed}");
    assert!(bench.living().await?.is_empty() && bench.secret().await.is_err());
    let again = bench.run(&["remove", bench.id(), "--yes"]).run().await?.expect(1)?;
    assert!(again.stderr.contains("Argo CD has no cluster"), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_others_use_or_that_is_not_ours_lives_on_and_it_is_said() -> Result<()> {
    let bench = Bench::begin("faro").await?;
    let login = json!({"bearerToken": testbed::User::admin().token, "tlsClientConfig": {"insecure": false, "caData": bench.ca_data()}});
    bench.by_hand("shared", &bench.server(), &login).await?;
    bench
        .by_hand("other", &bench.server().replace(bench.id(), "local"), &login)
        .await?;
    let removed = bench.run(&["remove", "shared", "--yes"]).run().await?.expect(1)?;
    assert!(removed.stderr.contains("it is in Secret other too"), "{removed}");
    let removed = bench.run(&["remove", "other", "--yes"]).run().await?.expect(1)?;
    assert!(removed.stderr.contains("lives on"), "{removed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_point_there_are_named_and_nothing_is_touched() -> Result<()> {
    let bench = Bench::begin("split").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    bench.application().await?;
    let refused = bench.run(&["remove", bench.id(), "--yes"]).run().await?.expect(1)?;
    assert!(
        refused.stderr.contains(&format!("{}/web", bench.namespace)),
        "{refused}"
    );
    assert_eq!(bench.living().await?.len(), 1);
    token(&bench.secret().await?)?;
    let forced = bench
        .run(&["remove", bench.id(), "--yes", "--force=applications"])
        .run()
        .await?
        .expect(0)?;
    assert!(
        forced.stderr.contains("Applications are deployed to cluster"),
        "{forced}"
    );
    assert!(bench.living().await?.is_empty());
    Ok(())
}
