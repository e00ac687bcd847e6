//! `kubectl bootstrap-token revoke`: it ends when the API servers reject the token.

use anyhow::{Result, ensure};
use e2e::until;
use expectrl::Expect as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use rstest::rstest;
use serde_json::{Value, json};

use crate::cluster::{self, Raw, bare, by_kubeadm, is_accepted_at, shell};
use crate::rotation_fixture::separate_cluster;

#[tokio::test(flavor = "multi_thread")]
async fn revoke_ends_when_the_api_server_rejects_the_token() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    until("the token to be accepted", async || {
        Ok(cluster::is_accepted(plane, &token.text).await?.then_some(()))
    })
    .await?;
    let revoked = shell
        .bootstrap_token(["revoke", &token.id, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout == format!("token {} revoked\n", token.id), "{revoked}");
    ensure!(
        revoked.stderr.contains("Nodes that have joined are not affected"),
        "{revoked}"
    );
    ensure!(
        !cluster::is_accepted(plane, &token.text).await?,
        "the token is accepted"
    );
    cluster::prints_nothing_of(&revoked, token.secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_reports_when_the_timeout_is_too_short() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    until("the token to be accepted", async || {
        Ok(cluster::is_accepted(plane, &token.text).await?.then_some(()))
    })
    .await?;
    let args = ["revoke", &token.id, "--yes", "--timeout", "0s"];
    let late = shell.bootstrap_token(args).run().await?.expect(124)?;
    ensure!(late.stderr.contains("still accepts it"), "{late}");
    cluster::prints_nothing_of(&late, token.secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_without_a_terminal_requires_yes() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    let refused = shell.bootstrap_token(["revoke", &token.id]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--yes"), "{refused}");
    for dry_run in ["--dry-run", "--dry-run=server"] {
        let dry = shell
            .bootstrap_token(["revoke", &token.id, dry_run])
            .run()
            .await?
            .expect(0)?;
        ensure!(dry.stdout.contains("dry run)"), "{dry}");
    }
    cluster::data_of(plane, &token.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_by_selector_keeps_other_tokens() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let one = cluster::create(&shell, &["-l", "test=match"]).await?;
    let two = cluster::create(&shell, &["-l", "test=match"]).await?;
    let spared = cluster::create(&shell, &["-l", "test=spared"]).await?;
    let revoked = shell
        .bootstrap_token(["revoke", "-l", "test=match", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stdout.lines().count() == 2, "{revoked}");
    let api = cluster::secrets(plane, "kube-system").await?;
    for gone in [&one, &two] {
        ensure!(api.get_opt(&format!("bootstrap-token-{}", gone.id)).await?.is_none());
    }
    cluster::data_of(plane, &spared.id).await?;
    let none = shell
        .bootstrap_token(["revoke", "--expired", "-l", "test=spared", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(none.stderr.contains("No bootstrap tokens found"), "{none}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_continues_after_a_missing_token() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    let args = ["revoke", "zzzzzz", &token.id, "--yes"];
    let outcome = shell.bootstrap_token(args).run().await?.expect(1)?;
    ensure!(outcome.stdout == format!("token {} revoked\n", token.id), "{outcome}");
    ensure!(
        outcome.stderr.contains("bootstrap token zzzzzz not found")
            && outcome.stderr.contains("1 of 2 bootstrap tokens were not revoked"),
        "{outcome}"
    );
    Ok(())
}

/// A rotation that was rolled back leaves a Lease with its result.
#[rstest]
#[case::of_a_rotation_that_has_ended(json!({ "kubectl-rotation.github.io/last-result": "rolled back" }), false)]
#[case::of_a_rotation_in_progress(json!({ "kubectl-rotation.github.io/journal": "{}" }), true)]
#[tokio::test(flavor = "multi_thread")]
async fn revoke_deletes_the_lease_of_the_token(#[case] annotations: Value, #[case] stays: bool) -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    let leases: Api<Lease> = Api::namespaced(plane.client().await?, "kube-system");
    let name = format!("bootstrap-token-{}", token.id);
    let lease: Lease = serde_json::from_value(json!({ "metadata": {
        "name": name, "annotations": annotations, "labels": { "kubectl-rotation.github.io/kind": "bootstrap-token" },
    }}))?;
    leases.create(&PostParams::default(), &lease).await?;
    let dry_run = ["revoke", &token.id, "--dry-run=server"];
    shell.bootstrap_token(dry_run).run().await?.expect(0)?;
    ensure!(
        leases.get_opt(&name).await?.is_some(),
        "a dry run has deleted the Lease"
    );
    let revoke = ["revoke", &token.id, "--yes"];
    let revoked = shell.bootstrap_token(revoke).run().await?.expect(0)?;
    ensure!(leases.get_opt(&name).await?.is_some() == stays, "{revoked}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_deletes_an_incomplete_secret_without_a_check() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    Raw::new("half01").with("token-secret", "short").create(plane).await?;
    let outcome = shell
        .bootstrap_token(["revoke", "half01", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        outcome.stdout == "token half01 deleted\n" && outcome.stderr.contains("was not checked to be rejected"),
        "{outcome}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_accepts_a_whole_token_and_does_not_echo_a_typo() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    let typo = format!("{}x", token.text);
    let refused = shell
        .bootstrap_token(["revoke", &typo, "--yes"])
        .run()
        .await?
        .expect(2)?;
    // The command line in the message of this test comes from the test itself.
    ensure!(!refused.stderr.contains(token.secret()), "the typo is printed");
    let revoked = shell
        .bootstrap_token(["revoke", &token.text, "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(revoked.stderr.contains("history of the shell") && !revoked.stderr.contains(token.secret()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_keeps_a_token_recreated_during_the_prompt() -> Result<()> {
    let plane = bare().await?;
    let shell = shell(plane).await?;
    let raw = Raw::new("same01");
    raw.create(plane).await?;
    let mut session = shell.bootstrap_token(["revoke", "same01"]).on_terminal()?;
    tokio::task::block_in_place(|| session.expect("(y/N)"))?;
    let api = cluster::secrets(plane, "kube-system").await?;
    api.delete("bootstrap-token-same01", &kube::api::DeleteParams::default())
        .await?;
    api.create(&PostParams::default(), &raw.secret).await?;
    tokio::task::block_in_place(|| {
        session.send_line("y")?;
        session.expect("left alone")
    })?;
    cluster::data_of(plane, "same01").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_ends_when_every_api_server_rejects_the_token() -> Result<()> {
    let plane = by_kubeadm().await?;
    let (other, _running) = plane.another_apiserver("revoke-server").await?;
    let shell = shell(plane).await?;
    let token = cluster::create(&shell, &[]).await?;
    // The first server has not cached the token, and would reject it at once.
    until("the other server to accept it", async || {
        Ok(is_accepted_at(plane, &other, &token.text).await?.then_some(()))
    })
    .await?;
    let args = ["revoke", &token.id, "--yes", "--api-server", &other];
    shell.bootstrap_token(args).run().await?.expect(0)?;
    ensure!(
        !is_accepted_at(plane, &other, &token.text).await?,
        "the other server accepts it"
    );
    Ok(())
}

/// API servers publish their addresses in this EndpointSlice. Kubernetes accepts no loopback address there, so the test uses
/// names.
#[tokio::test(flavor = "multi_thread")]
async fn revoke_waits_for_published_api_servers_that_were_not_named() -> Result<()> {
    let plane = separate_cluster("published").await?;
    let shell = shell(plane).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(plane.client().await?, "default");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": "FQDN",
        "endpoints": [{ "addresses": ["one.example"] }, { "addresses": ["other.example"] }],
    }))?;
    slices.create(&PostParams::default(), &slice).await?;
    // No server has cached these tokens, so each one would reject them at once.
    let hasty = cluster::create(&shell, &[]).await?;
    let args = ["revoke", &hasty.id, "--yes", "--timeout", "0s"];
    let late = shell.bootstrap_token(args).run().await?.expect(124)?;
    ensure!(late.stderr.contains("may still have it in its cache"), "{late}");
    let named = cluster::create(&shell, &[]).await?;
    let (other, _running) = plane.another_apiserver("published-server").await?;
    let servers = ["--api-server", plane.url(), "--api-server", &other];
    let args = ["revoke", &named.id, "--yes", "--timeout", "5s"];
    shell
        .bootstrap_token(args.iter().chain(&servers))
        .run()
        .await?
        .expect(0)?;
    slices.delete("kubernetes", &DeleteParams::default()).await?;
    Ok(())
}
