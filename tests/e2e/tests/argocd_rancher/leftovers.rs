//! What interrupted commands leave is listed, and a command ends it.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use rstest::rstest;
use rustix::process::Signal;
use test_cluster::{Fault, Moment, On, User};

use crate::fixture::{Fixture, token, user};
use crate::tokens::{interrupted_in_grace, is_valid, name_of_secret};

fn name_of(token: &str) -> Result<&str> {
    token.split(':').next().context("no name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_secret_was_deleted_is_listed_and_ended() -> Result<()> {
    let fixture = Fixture::begin("stryn").await?;
    let shell = &fixture.base.shell;
    let (old, new) = interrupted_in_grace(&fixture).await?;
    let name = name_of_secret(&fixture).await?;
    fixture.delete(&name).await?;
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    ensure!(
        listed.stderr.contains("was deleted during its rotation") && listed.stderr.contains(name_of(&new)?),
        "{listed}"
    );
    let removed = fixture.run(&["remove", fixture.id(), "--yes"]).run().await?.expect(1)?;
    ensure!(removed.stderr.contains("its rotation is not finished"), "{removed}");

    let ended = shell
        .follow(&removed, "kubectl argocd-rancher rollback", &["--grace", "0s", "--yes"])
        .await?
        .expect(0)?;
    ensure!(
        !is_valid(&fixture, name_of(&new)?).await?,
        "the new token is valid:\n{ended}"
    );
    let revoked = shell
        .follow(&ended, "kubectl argocd-rancher remove", &["--force=in-use", "--yes"])
        .await?
        .expect(0)?;
    ensure!(
        !is_valid(&fixture, name_of(&old)?).await?,
        "the old token is valid:\n{revoked}"
    );
    ensure!(
        fixture.secrets.list(&ListParams::default()).await?.items.is_empty(),
        "a Secret is left"
    );
    ensure!(
        revoked.stdout.contains(&format!("lease/{name} deleted")) && fixture.lease_names().await?.is_empty(),
        "{revoked}"
    );
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    ensure!(!listed.stderr.contains("Warning:"), "{listed}");
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_killed_add_is_revoked_although_the_cluster_has_a_secret() -> Result<()> {
    let fixture = Fixture::begin("floro").await?;
    let (proxy, shell) = fixture.base.behind_management_proxy().await?;
    proxy.plan(On::write().path("*/secrets"), Fault::Kill(Moment::Before));
    let add = fixture.run_at(&shell, &["add", fixture.id()]).start().await?;
    proxy.victim(add.pid()?);
    add.finish().await?.expect_killed()?;
    let stray = fixture.valid_tokens().await?.remove(0);
    let added = fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    ensure!(
        added.stderr.contains(&format!("has left-over tokens: {stray}")),
        "{added}"
    );
    let listed = fixture.run(&["list"]).run().await?.expect(0)?;
    ensure!(listed.commands() == added.commands(), "{listed}\n{added}");
    let held = token(&fixture.secret().await?)?;
    let shell = &fixture.base.shell;
    shell
        .follow(&listed, "kubectl argocd-rancher remove", &["--force=in-use", "--yes"])
        .await?
        .expect(0)?;
    ensure!(
        fixture.valid_tokens().await? == [name_of(&held)?],
        "another token is valid"
    );
    ensure!(fixture.accepts(&held).await?, "the token of the cluster was revoked");
    let nothing = fixture
        .run(&["remove", fixture.id(), "--leftovers"])
        .run()
        .await?
        .expect(0)?;
    ensure!(nothing.stderr.contains("Nothing is left over"), "{nothing}");
    Ok(())
}

#[rstest]
#[case::before_the_token_is_revoked("*/v3/tokens/*", Moment::Before)]
#[case::after_the_token_is_revoked("*/v3/tokens/*", Moment::After)]
#[case::before_the_secret_is_deleted("*/secrets/*", Moment::Before)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_remove_is_listed_and_repeated(#[case] path: &str, #[case] moment: Moment) -> Result<()> {
    let fixture = Fixture::begin("forde-removed").await?;
    fixture
        .run(&["add", fixture.id(), "--name", "its-own-name"])
        .run()
        .await?
        .expect(0)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().method(http::Method::DELETE).path(path), Fault::Kill(moment));
    let remove = ["remove", "its-own-name", "--yes"];
    let run = fixture.run_at(&shell, &remove).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let of_argocd = ListParams::default().labels("argocd.argoproj.io/secret-type=cluster");
    let clusters: Vec<Secret> = fixture.secrets.list(&of_argocd).await?.items;
    ensure!(clusters.is_empty(), "Argo CD still has the cluster");
    proxy.heal();
    let listed = fixture.run_at(&shell, &["list"]).run().await?.expect(0)?;
    ensure!(listed.stderr.contains("the removal of Secret"), "{listed}");
    let again = fixture.run_at(&shell, &remove).run().await?.expect(0)?;
    ensure!(fixture.valid_tokens().await?.is_empty(), "a token is valid:\n{again}");
    ensure!(
        fixture.secrets.list(&ListParams::default()).await?.items.is_empty(),
        "a Secret is left"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_kept_on_purpose_is_no_leftover() -> Result<()> {
    let fixture = Fixture::begin("volda").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    fixture
        .run(&[&rotate[..], &["--keep-old"]].concat())
        .run()
        .await?
        .expect(0)?;
    for _ in 0..2 {
        let listed = fixture.run(&["list"]).run().await?.expect(0)?;
        ensure!(!listed.stderr.contains("Warning:"), "{listed}");
        let status = fixture.status().await?;
        ensure!(status["cluster"]["keptTokens"][0] == name_of(&old)?, "{status:#}");
        // The next rotation does not forget it.
        fixture.run(&rotate).run().await?.expect(0)?;
    }
    ensure!(fixture.accepts(&old).await?, "the token was revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rotation_of_a_deleted_user_is_discarded() -> Result<()> {
    let fixture = Fixture::begin("nordfjordeid").await?;
    let owner = User {
        groups: User::admin().groups,
        ..user(&format!("gone{}", fixture.id().trim_start_matches("c-")))
    };
    let shell = fixture.shell_of(&owner).await?;
    fixture.run_at(&shell, &["add", fixture.id()]).run().await?.expect(0)?;
    let run = fixture
        .run_at(&shell, &["rotate", fixture.id(), "--grace", "10m", "--yes"])
        .start()
        .await?;
    fixture.reaches("prove").await?;
    run.signal(Signal::INT)?;
    run.finish().await?.expect(130)?;
    fixture.base.rancher.remove_user(&owner.name).await?;
    let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    let refused = fixture.run(&rotate).run().await?.expect(4)?;
    ensure!(
        refused.stderr.contains("the rotation was begun by user") && refused.stderr.contains("--force=journal"),
        "{refused}"
    );
    let old = token(&fixture.cluster_secret().await?)?;
    fixture
        .run(&[&rotate[..], &["--force=journal"]].concat())
        .run()
        .await?
        .expect(0)?;
    fixture.is_rotated(&old).await?;
    let status = fixture.status().await?;
    ensure!(status["rotation"].is_null(), "{status:#}");
    Ok(())
}
