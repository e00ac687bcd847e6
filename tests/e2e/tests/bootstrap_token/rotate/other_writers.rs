//! Other writers and owners of the objects, and commands with the wrong login or for the wrong cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use e2e::Shell;
use test_cluster::{AnotherWriter, Authority, Identity, Kubeconfig, TestEnvironment};

use crate::cluster::{self, is_accepted};
use crate::rotation_fixture::RotationFixture;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_the_target_is_reverted_repeatedly() -> Result<()> {
    let fixture = RotationFixture::new("written-back").await?;
    let client = fixture.plane.client().await?;
    let _writing = AnotherWriter::of(client, &fixture.secret().await?)?.watching().start();
    let undone = fixture
        .shell
        .bootstrap_token(fixture.rotate(&["--overlap", "3s"]))
        .run()
        .await?
        .expect(1)?;
    ensure!(
        undone
            .stderr
            .contains("manager \"kustomize-controller\" keeps writing the old state back"),
        "{undone}"
    );
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_reports_no_success_while_the_old_token_is_recreated() -> Result<()> {
    let fixture = RotationFixture::new("created-again").await?;
    let client = fixture.plane.client().await?;
    let secrets = cluster::secrets(fixture.plane, "kube-system").await?;
    let name = format!("bootstrap-token-{}", fixture.old.id);
    let _writing = AnotherWriter::of(client, &secrets.get(&name).await?)?
        .manager("argocd-controller")
        .every(Duration::from_secs(1))
        .start();
    let pending = fixture
        .shell
        .bootstrap_token(fixture.rotate(&["--overlap", "2s", "--timeout", "5s"]))
        .run()
        .await?
        .expect(4)?;
    ensure!(pending.stderr.contains("argocd-controller"), "{pending}");
    ensure!(
        is_accepted(fixture.plane, &fixture.held().await?.text).await?,
        "machines read a revoked token"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_managed_by_gitops_tools_are_refused() -> Result<()> {
    let fixture = RotationFixture::new("owned").await?;
    let id = fixture.old.id.as_str();
    let tracked = "argocd.argoproj.io/tracking-id=payments:/Secret:owned/join";
    let namespace = fixture.secret().await?.metadata.namespace.unwrap_or_default();
    let annotate = ["-n", &namespace, "annotate", "secret", "join", tracked];
    fixture.shell.kubectl(annotate).run().await?.expect(0)?;
    let refused = fixture
        .shell
        .bootstrap_token(fixture.rotate(&[]))
        .run()
        .await?
        .expect(1)?;
    ensure!(
        refused.stderr.contains("Argo CD application \"payments\"") && refused.stderr.contains("--force=owner"),
        "{refused}"
    );
    let name = format!("bootstrap-token-{id}");
    let flux = [
        "-n",
        "kube-system",
        "label",
        "secret",
        &name,
        "kustomize.toolkit.fluxcd.io/name=nodes",
        "kustomize.toolkit.fluxcd.io/namespace=flux-system",
    ];
    fixture.shell.kubectl(flux).run().await?.expect(0)?;
    for args in [
        vec!["rotate", id, "--yes"],
        vec!["revoke", id, "--yes"],
        vec!["extend", id, "--ttl", "2h"],
    ] {
        let refused = fixture.shell.bootstrap_token(args).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains("Flux Kustomization flux-system/nodes"),
            "{refused}"
        );
    }
    let wide = fixture
        .shell
        .bootstrap_token(["list", "-o", "wide"])
        .run()
        .await?
        .expect(0)?;
    ensure!(wide.stdout.contains("Flux Kustomization flux-system/nodes"), "{wide}");
    let status = fixture.shell.bootstrap_token(["status", id]).run().await?.expect(0)?;
    ensure!(
        status.stdout.contains("Flux Kustomization flux-system/nodes"),
        "{status}"
    );
    let forced = ["extend", id, "--ttl", "2h", "--force=owner"];
    fixture.shell.bootstrap_token(forced).run().await?.expect(0)?;
    ensure!(
        fixture.tokens().await? == [id.to_owned()],
        "a token was created or deleted"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_commands_own_login_is_never_revoked() -> Result<()> {
    let fixture = RotationFixture::new("own-login").await?;
    let id = fixture.old.id.as_str();
    let user = format!("--user=system:bootstrap:{id}");
    let binding = [
        "create",
        "clusterrolebinding",
        "own-login",
        "--clusterrole=cluster-admin",
        &user,
    ];
    fixture.shell.kubectl(binding).run().await?.expect(0)?;
    let login = Identity::Token(fixture.old.text.clone());
    let kubeconfig = Kubeconfig::new().context("here", fixture.plane.url(), fixture.plane.authority().ca_pem(), &login);
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    for args in [
        vec!["rotate", id, "--yes", "--force=owner"],
        vec!["revoke", id, "--yes", "--force=owner"],
    ] {
        let refused = shell.bootstrap_token(args).run().await?.expect(1)?;
        ensure!(refused.stderr.contains("this command logs in with"), "{refused}");
    }
    ensure!(
        fixture.tokens().await? == [id.to_owned()],
        "a token was created or deleted"
    );
    // A rollback would revoke the new token.
    fixture.deliver_and_interrupt().await?;
    let new = fixture.held().await?;
    let user = format!("--user=system:bootstrap:{}", new.id);
    let binding = [
        "create",
        "clusterrolebinding",
        "own-new-login",
        "--clusterrole=cluster-admin",
        &user,
    ];
    fixture.shell.kubectl(binding).run().await?.expect(0)?;
    let login = Identity::Token(new.text.clone());
    let kubeconfig = Kubeconfig::new().context("here", fixture.plane.url(), fixture.plane.authority().ca_pem(), &login);
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let refused = shell.bootstrap_token(fixture.rollback(&[])).run().await?.expect(4)?;
    ensure!(refused.stderr.contains("this command logs in with"), "{refused}");
    ensure!(is_accepted(fixture.plane, &new.text).await?, "the login was revoked");
    fixture
        .shell
        .bootstrap_token(fixture.rollback(&[]))
        .run()
        .await?
        .expect(0)?;
    fixture.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_kubeconfig_of_another_cluster() -> Result<()> {
    let fixture = RotationFixture::with_file("another-cluster").await?;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let text = fixture.text()?;
    let with = |ca: &str| {
        let server = format!("server: \"{}\"", fixture.plane.url());
        text.replace(
            &server,
            &format!("{server}, certificate-authority-data: {}", encode(ca)),
        )
    };
    let other = Authority::new("another cluster")?;
    std::fs::write(fixture.path()?, with(other.ca_pem()))?;
    let refused = fixture
        .shell
        .bootstrap_token(fixture.rotate(&[]))
        .run()
        .await?
        .expect(1)?;
    ensure!(refused.stderr.contains("another certificate authority"), "{refused}");
    ensure!(
        fixture.tokens().await? == [fixture.old.id.clone()],
        "a token was created"
    );
    std::fs::write(fixture.path()?, with(fixture.plane.authority().ca_pem()))?;
    let plan = fixture.rotate(&["--dry-run"]);
    fixture.shell.bootstrap_token(plan).run().await?.expect(0)?;
    Ok(())
}
