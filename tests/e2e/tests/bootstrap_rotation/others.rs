//! Other writers of the objects, other owners, and commands with the wrong login or for the wrong cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use e2e::Desk;
use testbed::{AnotherWriter, Authority, Bed, Identity, Kubeconfig};

use crate::cluster::{self, is_let_in};
use crate::place::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_written_back_turns_the_rotation_back_and_the_writer_is_named() -> Result<()> {
    let place = Place::new("written-back").await?;
    let client = place.plane.client().await?;
    let _writing = AnotherWriter::of(client, &place.secret().await?)?.watching().start();
    let undone = place
        .desk
        .bootstrap_token(place.rotate(&["--overlap", "3s"]))
        .run()
        .await?
        .expect(1)?;
    ensure!(
        undone
            .stderr
            .contains("manager \"kustomize-controller\" keeps writing the old state back"),
        "{undone}"
    );
    place.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_that_is_created_again_is_never_called_rotated() -> Result<()> {
    let place = Place::new("created-again").await?;
    let client = place.plane.client().await?;
    let secrets = cluster::secrets(place.plane, "kube-system").await?;
    let name = format!("bootstrap-token-{}", place.old.id);
    let _writing = AnotherWriter::of(client, &secrets.get(&name).await?)?
        .manager("argocd-controller")
        .every(Duration::from_secs(1))
        .start();
    let pending = place
        .desk
        .bootstrap_token(place.rotate(&["--overlap", "2s", "--timeout", "5s"]))
        .run()
        .await?
        .expect(4)?;
    ensure!(pending.stderr.contains("argocd-controller"), "{pending}");
    ensure!(
        is_let_in(place.plane, &place.held().await?.text).await?,
        "machines read a revoked token"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_owner_writes_is_refused_by_name() -> Result<()> {
    let place = Place::new("owned").await?;
    let id = place.old.id.as_str();
    let tracked = "argocd.argoproj.io/tracking-id=payments:/Secret:owned/join";
    let namespace = place.secret().await?.metadata.namespace.unwrap_or_default();
    let annotate = ["-n", &namespace, "annotate", "secret", "join", tracked];
    place.desk.kubectl(annotate).run().await?.expect(0)?;
    let refused = place.desk.bootstrap_token(place.rotate(&[])).run().await?.expect(1)?;
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
    place.desk.kubectl(flux).run().await?.expect(0)?;
    for args in [
        vec!["rotate", id, "--yes"],
        vec!["revoke", id, "--yes"],
        vec!["extend", id, "--ttl", "2h"],
    ] {
        let refused = place.desk.bootstrap_token(args).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains("Flux Kustomization flux-system/nodes"),
            "{refused}"
        );
    }
    let wide = place
        .desk
        .bootstrap_token(["list", "-o", "wide"])
        .run()
        .await?
        .expect(0)?;
    ensure!(wide.stdout.contains("Flux Kustomization flux-system/nodes"), "{wide}");
    let status = place.desk.bootstrap_token(["status", id]).run().await?.expect(0)?;
    ensure!(
        status.stdout.contains("Flux Kustomization flux-system/nodes"),
        "{status}"
    );
    let forced = ["extend", id, "--ttl", "2h", "--force=owner"];
    place.desk.bootstrap_token(forced).run().await?.expect(0)?;
    ensure!(
        place.tokens().await? == [id.to_owned()],
        "a token was created or deleted"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_own_login_is_never_revoked() -> Result<()> {
    let place = Place::new("own-login").await?;
    let id = place.old.id.as_str();
    let user = format!("--user=system:bootstrap:{id}");
    let binding = [
        "create",
        "clusterrolebinding",
        "own-login",
        "--clusterrole=cluster-admin",
        &user,
    ];
    place.desk.kubectl(binding).run().await?.expect(0)?;
    let login = Identity::Token(place.old.text.clone());
    let kubeconfig = Kubeconfig::new().context("here", place.plane.url(), place.plane.authority().ca_pem(), &login);
    let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
    for args in [
        vec!["rotate", id, "--yes", "--force=owner"],
        vec!["revoke", id, "--yes", "--force=owner"],
    ] {
        let refused = desk.bootstrap_token(args).run().await?.expect(1)?;
        ensure!(refused.stderr.contains("this command logs in with"), "{refused}");
    }
    ensure!(
        place.tokens().await? == [id.to_owned()],
        "a token was created or deleted"
    );
    // A rollback would revoke the new one.
    place.delivers_and_stops().await?;
    let new = place.held().await?;
    let user = format!("--user=system:bootstrap:{}", new.id);
    let binding = [
        "create",
        "clusterrolebinding",
        "own-new-login",
        "--clusterrole=cluster-admin",
        &user,
    ];
    place.desk.kubectl(binding).run().await?.expect(0)?;
    let login = Identity::Token(new.text.clone());
    let kubeconfig = Kubeconfig::new().context("here", place.plane.url(), place.plane.authority().ca_pem(), &login);
    let desk = Desk::new(Bed::shared().await?, &kubeconfig)?;
    let refused = desk.bootstrap_token(place.rollback(&[])).run().await?.expect(4)?;
    ensure!(refused.stderr.contains("this command logs in with"), "{refused}");
    ensure!(is_let_in(place.plane, &new.text).await?, "the login was revoked");
    place.desk.bootstrap_token(place.rollback(&[])).run().await?.expect(0)?;
    place.is_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_of_another_cluster_is_refused_by_name() -> Result<()> {
    let place = Place::with_file("another-cluster").await?;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let text = place.text()?;
    let with = |ca: &str| {
        let server = format!("server: \"{}\"", place.plane.url());
        text.replace(
            &server,
            &format!("{server}, certificate-authority-data: {}", encode(ca)),
        )
    };
    let other = Authority::new("another cluster")?;
    std::fs::write(place.path()?, with(other.ca_pem()))?;
    let refused = place.desk.bootstrap_token(place.rotate(&[])).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("another certificate authority"), "{refused}");
    ensure!(place.tokens().await? == [place.old.id.clone()], "a token was created");
    std::fs::write(place.path()?, with(place.plane.authority().ca_pem()))?;
    let plan = place.rotate(&["--dry-run"]);
    place.desk.bootstrap_token(plan).run().await?.expect(0)?;
    Ok(())
}
