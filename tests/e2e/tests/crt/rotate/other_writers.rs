//! `kubectl crt rotate` with other writers of the same objects, and over a slow link.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::RancherFixture;
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{AnotherWriter, Fault, Moment, On, TokenStorage};

use crate::manual_changes::{DEPLOYMENT, deployments, forge_journal};
use crate::state::{self, Scope, State};

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_the_deployment_is_reverted_three_times(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "porto").await?;
    let start = State::of(&fixture).await?;
    let saved = deployments(&fixture).await?.get(DEPLOYMENT).await?;
    let writer = AnotherWriter::of(fixture.downstream.client().await?, &saved)?
        .manager("kustomize-controller")
        .watching()
        .start();
    let rotate = [
        "rotate",
        &fixture.cluster.id,
        "--yes",
        "--settle",
        "10s",
        "--timeout",
        "3m",
    ];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(1)?;
    ensure!(outcome.stderr.contains("kustomize-controller"), "{outcome}");
    ensure!(writer.undone() >= 3, "reverted {} times", writer.undone());
    writer.stop().await?;
    // The agent runs with the old token, and Rancher accepts it. The new token no longer exists.
    let now = State::of(&fixture).await?;
    assert_eq!(now.named(), start.named(), "{outcome}");
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.without.valid_token.is_empty(), "{report:?}\n{outcome}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_repairs_a_reverted_deployment_and_settles_again(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "faro").await?;
    let start = State::of(&fixture).await?;
    let saved = deployments(&fixture).await?.get(DEPLOYMENT).await?;
    let writer = AnotherWriter::of(fixture.downstream.client().await?, &saved)?
        .every(Duration::from_secs(5))
        .times(2)
        .start();
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "12s"];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(0)?;
    writer.stop().await?;
    // The rollouts of the writer close tunnels, but there was always an agent with a valid token.
    ensure!(State::of(&fixture).await?.named() != start.named(), "{outcome}");
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.without.valid_token.is_empty(), "{report:?}\n{outcome}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_deployment_managed_by_argocd() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "braga").await?;
    let mark = json!({ "metadata": { "annotations": {
        "argocd.argoproj.io/tracking-id": "agents:apps/Deployment:cattle-system/cattle-cluster-agent"
    } } });
    let deployments = deployments(&fixture).await?;
    let mark = Patch::Merge(&mark);
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &mark).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let outcome = shell
        .crt(["rotate", &fixture.cluster.id, "--yes"])
        .run()
        .await?
        .expect(1)?;
    for expected in [
        "the agent's Deployment is managed by Argo CD application \"agents\"",
        "--force=owner",
    ] {
        ensure!(outcome.stderr.contains(expected), "{expected:?} is missing: {outcome}");
    }
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    let start = State::of(&fixture).await?;
    let forced = [
        "rotate",
        &fixture.cluster.id,
        "--yes",
        "--settle",
        "1s",
        "--force=owner",
    ];
    fixture.shell.crt(forced).run().await?.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

/// Someone who may write Leases and nothing else claims that only the last step is left.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_ignores_a_forged_journal(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "evora").await?;
    let start = State::of(&fixture).await?;
    let journal = json!({
        "version": 3, "run": "bcdfg", "direction": "forward", "phase": "confirm", "started": "2026-01-01T00:00:00Z",
        "resumableBy": "anyone",
        "deadlines": { "quiet": "2026-01-01T00:00:00Z" },
        "record": {
            "old": "0123456789", "new": start.named(), "others": {}, "worked": true,
            "oldSecret": "stv-aggregation",
            "rollout": { "minReadySeconds": 2_000_000_000, "progressDeadlineSeconds": 2_000_000_001 },
        },
    });
    forge_journal(&fixture, &journal).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(0)?;
    ensure!(
        outcome.stderr.contains("has changed nothing. Starting a new rotation."),
        "{outcome}"
    );
    state::rotated(&fixture, &start, Scope::All).await?;
    let now = deployments(&fixture).await?.get(DEPLOYMENT).await?;
    let min_ready_seconds = now.spec.context("no spec")?.min_ready_seconds.unwrap_or_default();
    assert_eq!(min_ready_seconds, 0);
    Ok(())
}

/// Rancher's own apply takes ten seconds, and starts again whenever the Cluster changes.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_over_a_slow_link_lets_rancher_finish_its_apply(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "sintra").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_slow_link(Duration::from_millis(100)).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"];
    shell.crt(rotate).run().await?.expect(0)?;
    let path = format!("/clusters/{}", fixture.cluster.id);
    let triggers = proxy
        .writes()
        .iter()
        .filter(|write| write.path.ends_with(&path))
        .count();
    ensure!(triggers <= 1, "{triggers} triggers\n{}", proxy.transcript());
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

/// The kill comes after the Deployment names the new token and before Rancher's own apply.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_over_a_slow_link_resumes_after_a_kill(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lagos").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_slow_link(Duration::from_millis(100)).await?;
    proxy.plan(On::write().path("*/deployments/*"), Fault::Kill(Moment::After));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"];
    let run = shell.crt(rotate).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let resumed = shell.crt(rotate).run().await?.expect(0)?;
    ensure!(resumed.stderr.contains("Resuming it."), "{resumed}");
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_an_address_change_that_is_not_pushed_yet() -> Result<()> {
    let fixture = RancherFixture::begin_apart(TokenStorage::Secret, "address").await?;
    let start = State::of(&fixture).await?;
    fixture
        .rancher
        .change_server_url("https://rancher.invalid", false)
        .await?;
    let rotate = [
        "rotate",
        &fixture.cluster.id,
        "--yes",
        "--settle",
        "1s",
        "--timeout",
        "30s",
    ];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(1)?;
    for expected in ["was not pushed to the agent", "--force=address"] {
        ensure!(outcome.stderr.contains(expected), "{expected:?} is missing: {outcome}");
    }
    // If it is forced, the new agent never connects there. The old agent and the old token stay.
    let forced = [&rotate[..], &["--force=address", "-o", "json"]].concat();
    let outcome = fixture.shell.crt(&forced).run().await?;
    let document: Value = serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())?;
    ensure!(document["outcome"] != "rotated", "{outcome}");
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.fingerprints().contains(&start.named()), "{report:?}\n{outcome}");
    Ok(())
}
