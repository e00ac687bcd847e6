//! `kubectl argocd-rancher remove`

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, Moment, On};

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

#[tokio::test(flavor = "multi_thread")]
async fn remove_deletes_the_lease_of_this_cluster_only() -> Result<()> {
    let fixture = Fixture::begin("larvik").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    fixture.run(&rotate).run().await?.expect(0)?;
    let of_cluster = name_of_secret(&fixture).await?;
    let other = json!({"metadata": {
        "name": "cluster-of-another", "labels": {"kubectl-rotation.github.io/kind": "argocd-rancher"},
    }});
    let other = serde_json::from_value(other)?;
    fixture.leases().await?.create(&PostParams::default(), &other).await?;
    let names = fixture.lease_names().await?;
    ensure!(names.contains(&of_cluster) && names.len() == 2, "{names:?}");
    let remove = ["remove", fixture.id(), "--yes"];
    let planned = [&remove[..], &["--dry-run"]].concat();
    fixture.run(&planned).run().await?.expect(0)?;
    ensure!(fixture.lease_names().await? == names, "a dry run has deleted the Lease");
    fixture.run(&remove).run().await?.expect(0)?;
    ensure!(
        fixture.lease_names().await? == ["cluster-of-another"],
        "{:?}",
        fixture.lease_names().await?
    );
    Ok(())
}

#[rstest]
#[case::before_the_lease_is_deleted("*/leases/*", Moment::Before)]
#[case::after_the_lease_is_deleted("*/leases/*", Moment::After)]
#[case::before_the_secret_is_deleted("*/secrets/*", Moment::Before)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_remove_that_is_repeated_leaves_no_lease(#[case] path: &str, #[case] moment: Moment) -> Result<()> {
    let fixture = Fixture::begin("horten").await?;
    fixture
        .run(&["add", fixture.id(), "--name", "its-name-in-argocd"])
        .run()
        .await?
        .expect(0)?;
    let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    fixture.run(&rotate).run().await?.expect(0)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().method(http::Method::DELETE).path(path), Fault::Kill(moment));
    let remove = ["remove", "its-name-in-argocd", "--yes"];
    let run = fixture.run_at(&shell, &remove).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    proxy.heal();
    fixture.run_at(&shell, &remove).run().await?.expect(0)?;
    ensure!(fixture.secret().await.is_err(), "a Secret is left");
    ensure!(fixture.valid_tokens().await?.is_empty(), "a token is valid");
    ensure!(
        fixture.lease_names().await?.is_empty(),
        "{:?}",
        fixture.lease_names().await?
    );
    Ok(())
}

/// Argo CD can be configured to read Applications in other namespaces. Without the permission to list them, `remove` and `rotate` cannot
/// tell whether any is deployed to the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn applications_in_other_namespaces_are_not_taken_for_none() -> Result<()> {
    let fixture = Fixture::begin("moss").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let settings: Api<ConfigMap> = Api::namespaced(fixture.base.management.client().await?, &fixture.namespace);
    let elsewhere: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "argocd-cmd-params-cm"}, "data": {"application.namespaces": "team-*"},
    }))?;
    settings.create(&PostParams::default(), &elsewhere).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let forbidden = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    proxy.plan(On::read().path("*/v1alpha1/applications").always(), forbidden);
    let unknown = format!(
        "it is unknown whether Applications outside of namespace {} are deployed to",
        fixture.namespace
    );
    for (command, forced) in [("remove", "--force=applications"), ("rotate", "--force=use")] {
        let dry_run = [command, fixture.id(), "--dry-run"];
        let refused = fixture.run_at(&shell, &dry_run).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains(&unknown) && refused.stderr.contains(forced),
            "{refused}"
        );
        let forced = [&dry_run[..], &[forced]].concat();
        fixture.run_at(&shell, &forced).run().await?.expect(0)?;
    }
    settings
        .delete("argocd-cmd-params-cm", &DeleteParams::default())
        .await?;
    for command in ["remove", "rotate"] {
        let dry_run = [command, fixture.id(), "--dry-run"];
        fixture.run_at(&shell, &dry_run).run().await?.expect(0)?;
    }
    Ok(())
}
