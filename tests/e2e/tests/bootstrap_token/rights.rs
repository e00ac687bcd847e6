//! The roles in `docs/rbac/bootstrap-token.yaml` are what the commands need: all of them work with the required ones, and
//! without any of these `rotate` is refused.

use anyhow::Result;
use e2e::{CommandOutput, Roles, Shell, succeeds};

use crate::rotation_fixture::RotationFixture;

/// The required roles for `access` of a user who is named after the fixture.
async fn grant(fixture: &RotationFixture, access: &str, user: &str) -> Result<Roles> {
    let target = fixture.target();
    let namespace = target
        .trim_start_matches("secret:")
        .split('/')
        .next()
        .unwrap_or_default();
    let own = format!("kubectl-{user}-");
    let words = [
        ("USER", user),
        ("DELIVERY_NAMESPACE", namespace),
        ("DELIVERY_SECRET", "join"),
        ("kubectl-bootstrap-token-", &own),
    ];
    let roles = Roles::read("bootstrap-token", &words)?;
    let roles = roles.labelled(&[&format!("access: {access}"), "need: required"]);
    roles.apply(&fixture.shell, &[]).await?;
    Ok(roles)
}

/// Runs a command as the user.
async fn run(shell: &Shell, user: &str, args: &[&str]) -> Result<CommandOutput> {
    shell
        .bootstrap_token(args.iter().copied().chain(["--as", user]))
        .run()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_with_the_required_roles() -> Result<()> {
    let fixture = RotationFixture::new("rights-all").await?;
    let (shell, id) = (&fixture.shell, fixture.old.id.as_str());
    let (reader, writer) = ("rights-reader", "rights-writer");
    grant(&fixture, "read", reader).await?;
    for args in [
        &["list"][..],
        &["status", id],
        &["verify", id],
        &["kubeconfig", id],
        &["rbac", "show"],
        &["version"],
    ] {
        succeeds(async || run(shell, reader, args).await).await?;
    }

    grant(&fixture, "write", writer).await?;
    let apply = ["rbac", "apply", "--group", "system:bootstrappers:rights"];
    succeeds(async || run(shell, writer, &apply).await).await?;
    let created = run(shell, writer, &["create", "--description", "rights-of-writer"])
        .await?
        .expect(0)?;
    let new = created.stdout.split('.').next().unwrap_or_default();
    run(shell, writer, &["extend", new, "--ttl", "2h"]).await?.expect(0)?;
    run(shell, writer, &["revoke", new, "--yes", "--timeout", "1m"])
        .await?
        .expect(0)?;
    let rotate = fixture.rotate(&["--overlap", "0s"]);
    run(shell, writer, &rotate.iter().map(String::as_str).collect::<Vec<_>>())
        .await?
        .expect(0)?;
    fixture.is_rotated().await?;
    run(shell, writer, &["rollback", id, "--yes"]).await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_is_refused_without_any_required_rule() -> Result<()> {
    let fixture = RotationFixture::new("rights-each").await?;
    let (shell, user) = (&fixture.shell, "rights-each");
    let roles = grant(&fixture, "write", user).await?;
    let rotate = fixture.rotate(&["--dry-run"]);
    let rotate: Vec<&str> = rotate.iter().map(String::as_str).collect();
    let rotate = async || run(shell, user, &rotate).await;
    succeeds(rotate).await?;
    roles.are_needed(("rotate", &[]), (shell, &[]), rotate).await
}
