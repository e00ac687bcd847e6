//! The roles in `docs/rbac/crt.yaml` are what the commands need: all of them work with the required ones, and without any of
//! these `rotate` is refused.

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Roles, Shell, make_member_of_local, succeeds};
use test_cluster::{TokenStorage, User};

/// The roles of one side, and the admin's kubeconfig of it.
type Side = (Roles, String);

/// A user of Rancher with the required roles for `access`.
async fn user_with(fixture: &RancherFixture, access: &str) -> Result<(Shell, Vec<Side>)> {
    let id = fixture.cluster.id.as_str();
    let user = User {
        name: format!("u-{access}-{id}"),
        token: format!("token-{access}-{id}:2rnt8wz5bj7hd9lcf4mgsp6x8xk2vq5rnt7wz9bj4hd6lcfmgspxk3vq"),
        groups: Vec::new(),
    };
    fixture.rancher.add_user(&user).await?;
    let own = format!("kubectl-{id}-");
    let agent = format!("namespace: {}\n", fixture.cluster.agent_namespace());
    let words = [
        ("USER", user.name.as_str()),
        ("CLUSTER_ID", id),
        ("namespace: cattle-system\n", &agent),
        ("kubectl-crt-", &own),
    ];
    let roles = Roles::read("crt", &words)?;
    let mut sides = Vec::new();
    for (side, plane) in [("management", fixture.management), ("downstream", fixture.downstream)] {
        let labels = [&format!("access: {access}"), "need: required", &format!("side: {side}")];
        let admin = plane.kubeconfig().to_str().context("the path is not UTF-8")?.to_owned();
        sides.push((roles.labelled(&labels), admin));
    }
    for (roles, admin) in &sides {
        roles.apply(&fixture.shell, &["--kubeconfig", admin]).await?;
    }
    let admin = ["--kubeconfig", sides[0].1.as_str()];
    make_member_of_local(&user.name, &fixture.shell, &admin).await?;
    Ok((fixture.shell_of(&user).await?, sides))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_with_the_required_roles() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "bari").await?;
    let id = fixture.cluster.id.as_str();
    let (reader, _) = user_with(&fixture, "read").await?;
    succeeds(async || reader.crt(["verify", id]).run().await).await?;
    for args in [&["list"][..], &["list", id, "--probe"], &["status", id], &["version"]] {
        reader.crt(args).run().await?.expect(0)?;
    }
    let refused = reader.crt(["rotate", id, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("leases"), "{refused}");

    let (writer, _) = user_with(&fixture, "write").await?;
    succeeds(async || writer.crt(["rotate", id, "--dry-run"]).run().await).await?;
    writer
        .crt(["rotate", id, "--settle", "0s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    writer.crt(["rollback", id, "--yes"]).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_is_refused_without_any_required_rule() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "pisa").await?;
    let id = fixture.cluster.id.as_str();
    let (shell, sides) = user_with(&fixture, "write").await?;
    succeeds(async || shell.crt(["rotate", id, "--dry-run"]).run().await).await?;
    for (roles, admin) in &sides {
        let admin = (&fixture.shell, &["--kubeconfig", admin.as_str()][..]);
        let rotate = async || shell.crt(["rotate", id, "--dry-run"]).run().await;
        let of_other_routes: &[&str] = &["--downstream-context"];
        roles.are_needed(("rotate", of_other_routes), admin, rotate).await?;
    }
    Ok(())
}
