//! The roles in `docs/rbac/argocd-rancher.yaml` are what the commands need: all of them work with the required ones, without any
//! of these `rotate` is refused, and without an optional one the commands say what they do not know.

use anyhow::{Result, ensure};
use e2e::{Roles, Shell, Unseen, make_member_of_local, succeeds};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, user};

/// A member of the cluster who can watch it, with the required roles for `access` in Argo CD's namespace.
async fn user_with(fixture: &Fixture, access: &str) -> Result<(Shell, Roles)> {
    user_labelled(fixture, access, &["need: required"]).await
}

/// The same with the roles with all of these labels.
async fn user_labelled(fixture: &Fixture, access: &str, labels: &[&str]) -> Result<(Shell, Roles)> {
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
    let roles = roles.labelled(&[&*format!("access: {access}")]).labelled(labels);
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
async fn reading_commands_say_what_they_do_not_know_without_an_optional_rule() -> Result<()> {
    let fixture = Fixture::begin("fano").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let (shell, roles) = user_labelled(&fixture, "read", &[]).await?;
    let rule = [("leases", "rotations in progress are unknown")];
    let cases = [
        Unseen {
            rules: &rule,
            args: &["list"],
            code: 0,
            text: "no permission to list Leases",
        },
        Unseen {
            rules: &rule,
            args: &["verify", fixture.id()],
            code: 0,
            text: "no permission to list Leases",
        },
        Unseen {
            rules: &[("leases", "a rotation in progress is unknown")],
            args: &["status", fixture.id()],
            code: 0,
            text: "unknown (no permission to read Leases)",
        },
    ];
    // Without Argo CD it is unknown anyway. `rotate` gives the reason.
    let others = ["the state that Argo CD reports is unknown"];
    let admin = (&fixture.base.shell, &["--context", "management"][..]);
    let run = async |args: &[&str]| fixture.run_as(&shell, args).run().await;
    roles.are_optional(&cases, &others, admin, run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_remove_say_what_they_do_not_know_without_an_optional_rule() -> Result<()> {
    let fixture = Fixture::begin("jesi").await?;
    fixture.application().await?;
    // The Service of the metrics, without an endpoint.
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "argocd-metrics", "labels": {"app.kubernetes.io/name": "argocd-metrics"}},
        "spec": {"ports": [{"port": 8082}]},
    }))?;
    let services: Api<Service> = Api::namespaced(fixture.base.management.client().await?, &fixture.namespace);
    services.create(&PostParams::default(), &service).await?;
    let (shell, roles) = user_labelled(&fixture, "write", &[]).await?;
    // Its own token, so that the user may replace it.
    succeeds(async || fixture.run_as(&shell, &["add", fixture.id()]).run().await).await?;
    let rotate = ["rotate", fixture.id(), "--dry-run"];
    let remove = ["remove", fixture.id(), "--dry-run"];
    let refused = |rules, args, text| Unseen {
        rules,
        args,
        code: 1,
        text,
    };
    let applications = [
        ("applications", "`rotate` requires `--force=use`"),
        ("applications", "Applications in other namespaces"),
    ];
    let cases = [
        refused(&applications, &rotate, "no permission to list them"),
        refused(&applications, &remove, "cannot list resource \"applications\""),
        refused(
            &[("services", "the state that Argo CD reports")],
            &rotate,
            "cannot list resource \"services\"",
        ),
        refused(
            &[("services/proxy", "the state that Argo CD reports")],
            &rotate,
            "cannot get resource \"services/proxy\"",
        ),
    ];
    let admin = (&fixture.base.shell, &["--context", "management"][..]);
    let run = async |args: &[&str]| fixture.run_as(&shell, args).run().await;
    let others = [
        // A cluster can be removed only once. What stays is harmless.
        "the Lease of the removed cluster stays",
        // The user may list all of them. See `applications_in_other_namespaces_are_not_taken_for_none`.
        "Argo CD counts as one that reads other namespaces",
    ];
    roles.are_optional(&cases, &others, admin, run).await
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
