//! The roles in `docs/rbac/bootstrap-token.yaml` are what the commands need: all of them work with the required ones, and
//! without any of these `rotate` is refused.

use anyhow::Result;
use e2e::{Reduced, Roles, Shell, until};

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

/// Runs a command as the user, and fails unless it succeeds.
async fn run(shell: &Shell, user: &str, args: &[&str]) -> Result<String> {
    let args = args.iter().copied().chain(["--as", user]);
    Ok(shell.bootstrap_token(args).run().await?.expect(0)?.stdout)
}

/// Waits until a command succeeds: the API server learns of a role within milliseconds.
async fn succeeds(shell: &Shell, user: &str, args: &[&str]) -> Result<()> {
    until(&format!("{args:?} to succeed"), async || {
        let args = args.iter().copied().chain(["--as", user]);
        let output = shell.bootstrap_token(args).run().await?;
        println!("{output}");
        Ok((output.code() == Some(0)).then_some(()))
    })
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
        succeeds(shell, reader, args).await?;
    }

    grant(&fixture, "write", writer).await?;
    succeeds(
        shell,
        writer,
        &["rbac", "apply", "--group", "system:bootstrappers:rights"],
    )
    .await?;
    let created = run(shell, writer, &["create", "--description", "rights-of-writer"]).await?;
    let new = created.split('.').next().unwrap_or_default();
    run(shell, writer, &["extend", new, "--ttl", "2h"]).await?;
    run(shell, writer, &["revoke", new, "--yes", "--timeout", "1m"]).await?;
    let rotate = fixture.rotate(&["--overlap", "0s"]);
    run(shell, writer, &rotate.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    fixture.is_rotated().await?;
    run(shell, writer, &["rollback", id, "--yes"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_is_refused_without_any_required_rule() -> Result<()> {
    let fixture = RotationFixture::new("rights-each").await?;
    let (shell, user) = (&fixture.shell, "rights-each");
    let roles = grant(&fixture, "write", user).await?;
    let rotate = fixture.rotate(&["--dry-run"]);
    let rotate: Vec<&str> = rotate.iter().map(String::as_str).collect();
    succeeds(shell, user, &rotate).await?;
    for Reduced {
        role,
        reduced,
        resource,
    } in roles.without_each_rule("rotate", &[])?
    {
        reduced.apply(shell, &[]).await?;
        until(&format!("rotate to be refused without {resource}"), async || {
            let args = rotate.iter().copied().chain(["--as", user]);
            let output = shell.bootstrap_token(args).run().await?;
            let is_named = output.stderr.to_lowercase().contains(&resource);
            Ok((output.code() == Some(1) && is_named).then_some(()))
        })
        .await?;
        role.apply(shell, &[]).await?;
        succeeds(shell, user, &rotate).await?;
    }
    Ok(())
}
