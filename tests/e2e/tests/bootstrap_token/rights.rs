//! The roles in `docs/rbac/bootstrap-token.yaml` are what the commands need: all of them work with the required ones, without any
//! of these `rotate` is refused, and without an optional one the commands say what they do not know.

use anyhow::{Result, ensure};
use e2e::{CommandOutput, Roles, Shell, Unseen, succeeds};

use crate::rotation_fixture::RotationFixture;

/// The required roles for `access` of a user who is named after the fixture.
async fn grant(fixture: &RotationFixture, access: &str, user: &str) -> Result<Roles> {
    grant_labelled(fixture, &[&format!("access: {access}"), "need: required"], user).await
}

/// The roles of a user with all of these labels.
async fn grant_labelled(fixture: &RotationFixture, labels: &[&str], user: &str) -> Result<Roles> {
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
    let roles = roles.labelled(labels);
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
    // Without the optional permission to delete it.
    ensure!(fixture.lease().await?.is_some(), "the Lease was deleted");
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

#[tokio::test(flavor = "multi_thread")]
async fn reading_commands_say_what_they_do_not_know_without_an_optional_rule() -> Result<()> {
    let fixture = RotationFixture::new("rights-seen").await?;
    let (shell, id, user) = (&fixture.shell, fixture.old.id.as_str(), "rights-seen");
    let roles = grant_labelled(&fixture, &["access: read"], user).await?;
    let (status, verify, kubeconfig) = (["status", id], ["verify", id], ["kubeconfig", id]);
    let unseen = |rules, args, text| Unseen {
        rules,
        args,
        code: 0,
        text,
    };
    let discovery = [("configmaps", "the signature of a token")];
    let cases = [
        unseen(
            &[("leases", "rotations in progress are unknown")],
            &["list"],
            "no permission to list Leases",
        ),
        unseen(
            &[("leases", "a rotation in progress is unknown")],
            &status,
            "unknown (no permission to read Leases)",
        ),
        unseen(
            &[("secrets", "misplaced tokens in other namespaces")],
            &["list"],
            "no permission to list Secrets in all namespaces",
        ),
        unseen(
            &[("subjectaccessreviews", "may join is unknown")],
            &verify,
            "its permission to request a certificate is not known",
        ),
        unseen(&discovery, &verify, "cannot read kube-public/cluster-info"),
        unseen(
            &discovery,
            &kubeconfig,
            "no permission to read ConfigMap kube-public/cluster-info",
        ),
        unseen(
            &[("rolebindings", "bindings in namespaces")],
            &["rbac", "show"],
            "no permission to list RoleBindings",
        ),
    ];
    // Tested on a cluster of K3s.
    let others = ["which token the snapshots of etcd need is unknown"];
    let run = async |args: &[&str]| run(shell, user, args).await;
    roles.are_optional(&cases, &others, (shell, &[]), run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_commands_say_what_they_do_not_know_without_an_optional_rule() -> Result<()> {
    let fixture = RotationFixture::new("rights-unseen").await?;
    let (shell, id, user) = (&fixture.shell, fixture.old.id.as_str(), "rights-unseen");
    let roles = grant_labelled(&fixture, &["access: write"], user).await?;
    let server = fixture.plane.url();
    let cases = [
        Unseen {
            rules: &[("namespaces", "each `--api-server` belongs to this cluster")],
            args: &["revoke", id, "--api-server", server, "--dry-run", "-v=4"],
            code: 0,
            text: "whether the named API servers belong to this cluster is unknown",
        },
        Unseen {
            rules: &[("rolebindings", "bindings in namespaces")],
            args: &["rbac", "apply", "--dry-run"],
            code: 0,
            text: "no permission to list RoleBindings",
        },
    ];
    let others = [
        // `verify` says so. `create` would leave a token with each attempt.
        "whether the group of a token may join is unknown",
        "the signature of a token",
        // A token can be revoked only once. The wait is seen in the tests of `revoke`.
        "`revoke` waits for 12 seconds",
        // The Lease is seen after the rotation with the required roles.
        "the Lease of the revoked token stays",
        // The kubeconfig of the tests has the same certificate authority.
        "the certificate authority in a delivered file",
    ];
    let run = async |args: &[&str]| run(shell, user, args).await;
    roles.are_optional(&cases, &others, (shell, &[]), run).await
}
