//! The local cluster, and Secrets that Argo CD cannot use.

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use test_cluster::Registration;

use crate::fixture::{Fixture, config};
use crate::tokens::{interrupted_in_grace, issue_token, name_of_secret};

#[tokio::test(flavor = "multi_thread")]
async fn the_local_cluster_needs_an_unscoped_token() -> Result<()> {
    let fixture = Fixture::begin("farsund").await?;
    let mut local = Registration::imported("local").kind("local");
    local.id = Some("local".to_owned());
    // Another test may have registered it. A Rancher has only one.
    let _ = fixture.base.rancher.register_as(&local).await;
    let refused = fixture.run(&["add", "local"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--unscoped"), "{refused}");
    let needless = fixture
        .run(&["add", fixture.id(), "--unscoped"])
        .run()
        .await?
        .expect(1)?;
    ensure!(
        needless.stderr.contains("an unscoped token is not needed"),
        "{needless}"
    );
    let added = fixture.run(&["add", "local", "--unscoped"]).run().await?.expect(0)?;
    ensure!(
        added.stderr.contains("works for every cluster that its owner sees"),
        "{added}"
    );
    fixture.bare(&["verify", "local"]).run().await?.expect(0)?;
    let refused = fixture.run(&["rotate", "local", "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--unscoped"), "{refused}");
    let rotate = ["rotate", "local", "--unscoped", "--grace", "1s", "--yes"];
    fixture.run(&rotate).run().await?.expect(0)?;
    fixture.bare(&["verify", "local"]).run().await?.expect(0)?;
    // `verify` does not accept a scoped token for the local cluster.
    let (_, scoped) = issue_token(&fixture, "by hand", Some("local")).await?;
    let secret = fixture.secret().await?;
    let mut login = config(&secret)?;
    login["bearerToken"] = json!(scoped);
    fixture.overwrite(&secret, &login).await?;
    let verified = fixture.bare(&["verify", "local"]).run().await?.expect(1)?;
    ensure!(
        verified.stdout.contains("redirects /k8s/clusters/local/api"),
        "{verified}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_in_hints_run_as_printed() -> Result<()> {
    let fixture = Fixture::begin("leknes").await?;
    interrupted_in_grace(&fixture).await?;
    let (id, name) = (fixture.id(), name_of_secret(&fixture).await?);
    let mut commands = Vec::new();
    let mut collect = async |args: &[&str]| -> Result<()> {
        let hints = fixture.run(args).run().await?.commands();
        ensure!(!hints.is_empty(), "no hint after {args:?}");
        commands.extend(hints);
        Ok(())
    };
    collect(&["verify", "nowhere"]).await?;
    collect(&["verify", id]).await?;
    collect(&["remove", id, "--yes"]).await?;
    collect(&["add", id, "--yes"]).await?;
    fixture
        .run(&["rollback", id, "--grace", "0s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    let secret = fixture.secret().await?;
    let mut login = config(&secret)?;
    login["bearerToken"] = json!("token-x:y\n");
    fixture.overwrite(&secret, &login).await?;
    collect(&["verify", id]).await?;
    collect(&["rotate", &name, "--yes"]).await?;
    for command in commands {
        let verb = command.split(' ').nth(2).unwrap_or_default();
        let flags: &[&str] = match verb {
            "add" | "remove" | "rotate" | "rollback" => &["--dry-run"],
            _ => &[],
        };
        // The editor changes nothing.
        let run = fixture
            .base
            .shell
            .printed(&command, flags)
            .env("KUBE_EDITOR", "/bin/true");
        let ran = run.run().await?;
        ensure!(
            ran.code() != Some(2) && !ran.stderr.contains("no connection to Rancher"),
            "{ran}"
        );
        ensure!(verb != "secret" || ran.code() == Some(0), "{ran}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_secrets_are_named_by_every_command() -> Result<()> {
    let fixture = Fixture::begin("sogndal").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let secret = fixture.secret().await?;
    let name = name_of_secret(&fixture).await?;
    let blank = json!({"stringData": {"server": format!("{}\n", fixture.server())}});
    fixture
        .secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(blank))
        .await?;
    for command in ["add", "rotate", "verify"] {
        let refused = fixture.run(&[command, fixture.id()]).run().await?.expect(1)?;
        let text = refused.to_string();
        ensure!(text.contains("has a space or a line break"), "{refused}");
        ensure!(command == "verify" || text.contains("kubectl edit secret"), "{refused}");
    }
    let right = json!({"stringData": {"server": fixture.server()}});
    fixture
        .secrets
        .patch(&name, &PatchParams::default(), &Patch::Merge(right))
        .await?;
    let mut login = config(&secret)?;
    login["username"] = json!("argo");
    fixture.overwrite(&secret, &login).await?;
    for command in ["add", "rotate"] {
        let refused = fixture.run(&[command, fixture.id()]).run().await?.expect(1)?;
        ensure!(
            refused.stderr.contains("both a bearer token and a user name")
                && refused.stderr.contains("kubectl edit secret"),
            "{refused}"
        );
    }
    // The expected name of the certificate is part of the check.
    let mut login = config(&secret)?;
    login["tlsClientConfig"]["serverName"] = json!("elsewhere.example.com");
    fixture.overwrite(&secret, &login).await?;
    fixture.run(&["verify", fixture.id()]).run().await?.expect(1)?;
    Ok(())
}
