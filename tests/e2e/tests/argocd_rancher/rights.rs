//! The roles in `docs/rbac/argocd-rancher.yaml` are what the commands need: all of them work with the required ones, and
//! without any of these `rotate` is refused.

use anyhow::{Result, ensure};
use e2e::{Roles, Shell, make_member_of_local, succeeds};

use crate::fixture::{Fixture, user};

/// A member of the cluster who can watch it, with the required roles for `access` in Argo CD's namespace.
async fn user_with(fixture: &Fixture, access: &str) -> Result<(Shell, Roles)> {
    let user = user(&format!("{access}{}", fixture.id().replace('-', "")));
    let shell = fixture.shell_of(&user).await?;
    let own = format!("kubectl-{}-", fixture.namespace);
    let namespace = format!("namespace: {}\n", fixture.namespace);
    let words = [
        ("USER", user.name.as_str()),
        ("namespace: argocd\n", &namespace),
        ("kubectl-argocd-rancher-", &own),
    ];
    let roles = Roles::read("argocd-rancher", &words)?;
    let roles = roles.labelled(&[&format!("access: {access}"), "need: required"]);
    let admin = &["--context", "management"];
    roles.apply(&fixture.base.shell, admin).await?;
    make_member_of_local(&user.name, &fixture.base.shell, admin).await?;
    if access == "write" {
        fixture.make_member(&user).await?;
        fixture.let_watch(&user).await?;
    }
    Ok((shell, roles))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_with_the_required_roles() -> Result<()> {
    let fixture = Fixture::begin("lecce").await?;
    let id = fixture.id();
    let (writer, _) = user_with(&fixture, "write").await?;
    succeeds(async || fixture.run_as(&writer, &["add", id]).run().await).await?;
    let (reader, _) = user_with(&fixture, "read").await?;
    succeeds(async || fixture.run_as(&reader, &["verify", id]).run().await).await?;
    for args in [&["list"][..], &["status", id], &["version"]] {
        fixture.run_as(&reader, args).run().await?.expect(0)?;
    }
    let args = ["rotate", id, "--grace", "0s", "--force=use", "--yes"];
    fixture.run_as(&writer, &args).run().await?.expect(0)?;
    fixture
        .run_as(&writer, &["rollback", id, "--yes"])
        .run()
        .await?
        .expect(0)?;
    let args = ["remove", id, "--force=applications", "--yes"];
    fixture.run_as(&writer, &args).run().await?.expect(0)?;
    ensure!(fixture.valid_tokens().await?.is_empty(), "a token is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_is_refused_without_any_required_rule() -> Result<()> {
    let fixture = Fixture::begin("trani").await?;
    let (shell, roles) = user_with(&fixture, "write").await?;
    succeeds(async || fixture.run_as(&shell, &["add", fixture.id()]).run().await).await?;
    let rotate = ["rotate", fixture.id(), "--force=use", "--dry-run"];
    let rotate = async || fixture.run_as(&shell, &rotate).run().await;
    succeeds(rotate).await?;
    let admin = (&fixture.base.shell, &["--context", "management"][..]);
    roles.are_needed(("rotate", &[]), admin, rotate).await
}

/// Without permission to read its Lease, a rotation in progress is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn remove_is_refused_without_any_required_rule() -> Result<()> {
    let fixture = Fixture::begin("gaeta").await?;
    let (shell, roles) = user_with(&fixture, "write").await?;
    succeeds(async || fixture.run_as(&shell, &["add", fixture.id()]).run().await).await?;
    let remove = ["remove", fixture.id(), "--force=applications", "--dry-run"];
    let remove = async || fixture.run_as(&shell, &remove).run().await;
    let admin = (&fixture.base.shell, &["--context", "management"][..]);
    let leftovers: &[&str] = &["--leftovers"];
    roles.are_needed(("remove", leftovers), admin, remove).await
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_is_refused_where_rancher_would_issue_a_token_to_the_owner_of_the_login() -> Result<()> {
    let fixture = Fixture::begin("crema").await?;
    let refused = fixture
        .run(&["add", fixture.id(), "--as", "jane"])
        .run()
        .await?
        .expect(2)?;
    ensure!(refused.stderr.contains("cannot act as jane in Rancher"), "{refused}");
    ensure!(fixture.valid_tokens().await?.is_empty(), "a token was issued");
    // Argo CD's cluster is another side.
    let listed = fixture.bare(&["list", "--as", "jane"]).run().await?.expect(1)?;
    ensure!(listed.stderr.contains("User \"jane\" cannot list"), "{listed}");
    Ok(())
}
