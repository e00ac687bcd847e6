//! `kubectl argocd-rancher remove`

use anyhow::{Result, ensure};
use serde_json::json;

use crate::fixture::{Fixture, token};
use crate::tokens::{is_valid, issue_token, name_of_secret};

#[tokio::test(flavor = "multi_thread")]
async fn remove_deletes_the_secret_and_revokes_the_token() -> Result<()> {
    let fixture = Fixture::begin("porto").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let plan = fixture
        .run(&["remove", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(0)?;
    assert!(plan.stdout.contains("would be deleted, and token token-"), "{plan}");
    let asked = fixture.run(&["remove", fixture.id()]).run().await?.expect(1)?;
    assert!(asked.stderr.contains("no terminal"), "{asked}");
    assert_eq!(fixture.valid_tokens().await?.len(), 1);
    let removed = fixture.run(&["remove", fixture.id(), "--yes"]).run().await?.expect(0)?;
    assert!(removed.stderr.contains("Rancher rejects token-"), "{removed}");
    assert!(fixture.valid_tokens().await?.is_empty() && fixture.secret().await.is_err());
    let again = fixture.run(&["remove", fixture.id(), "--yes"]).run().await?.expect(1)?;
    assert!(again.stderr.contains("not found among"), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_keeps_shared_and_foreign_tokens() -> Result<()> {
    let fixture = Fixture::begin("faro").await?;
    let login = json!({"bearerToken": test_cluster::User::admin().token, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("shared", &fixture.server(), &login).await?;
    fixture
        .by_hand("other", &fixture.server().replace(fixture.id(), "local"), &login)
        .await?;
    let removed = fixture.run(&["remove", "shared", "--yes"]).run().await?.expect(1)?;
    assert!(removed.stderr.contains("it is in Secret other too"), "{removed}");
    let removed = fixture.run(&["remove", "other", "--yes"]).run().await?.expect(1)?;
    assert!(removed.stderr.contains("stays valid"), "{removed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_refuses_a_cluster_with_applications() -> Result<()> {
    let fixture = Fixture::begin("split").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    fixture.application().await?;
    let refused = fixture.run(&["remove", fixture.id(), "--yes"]).run().await?.expect(1)?;
    assert!(
        refused.stderr.contains(&format!("{}/web", fixture.namespace)),
        "{refused}"
    );
    assert_eq!(fixture.valid_tokens().await?.len(), 1);
    token(&fixture.secret().await?)?;
    let forced = fixture
        .run(&["remove", fixture.id(), "--yes", "--force=applications"])
        .run()
        .await?
        .expect(0)?;
    assert!(
        forced.stderr.contains("Applications are deployed to cluster"),
        "{forced}"
    );
    assert!(fixture.valid_tokens().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_keeps_the_token_of_another_argocd() -> Result<()> {
    let fixture = Fixture::begin("mandal").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (secret, own) = (name_of_secret(&fixture).await?, fixture.valid_tokens().await?.remove(0));
    let mark = format!(
        "kubectl-argocd-rancher run=zzzzz for={}/{secret} in=0000",
        fixture.namespace
    );
    let (other, _) = issue_token(&fixture, &mark, Some(fixture.id())).await?;
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    ensure!(!listed.stderr.contains(&other), "{listed}");
    fixture.delete(&secret).await?;
    // The token of this Argo CD was used a moment ago.
    let remove = ["remove", fixture.id(), "--yes"];
    let refused = fixture.run(&remove).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains("--force=in-use") && !refused.stderr.contains(&other),
        "{refused}"
    );
    let forced = [&remove[..], &["--force=in-use"]].concat();
    fixture.run(&forced).run().await?.expect(0)?;
    ensure!(!is_valid(&fixture, &own).await?, "the token is still valid");
    ensure!(
        is_valid(&fixture, &other).await?,
        "the token of another Argo CD was revoked"
    );
    Ok(())
}
