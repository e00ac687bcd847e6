//! `kubectl crt rotate` with other writers of the same objects, and over a slow link.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Running, until};
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};
use test_cluster::{AnotherWriter, Fault, FaultProxy, Moment, On, Planned, TokenStorage};

use crate::manual_changes::{DEPLOYMENT, deployments, forge_journal, patch, replace_system, values};
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

/// A shell and a rotation that is stopped before it points the agent at the new token.
async fn stopped_in_place(fixture: &RancherFixture, args: &[&str]) -> Result<(Running, FaultProxy, Planned)> {
    stopped_at(fixture, args, "*/deployments/*", Moment::Before).await
}

/// The same, stopped before or after its first write of this path.
async fn stopped_at(
    fixture: &RancherFixture,
    args: &[&str],
    path: &str,
    moment: Moment,
) -> Result<(Running, FaultProxy, Planned)> {
    let (proxy, shell) = fixture.behind_proxy().await?;
    let held = proxy.plan(On::write().path(path), Fault::Stop(moment));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s", "-o", "json"];
    let run = shell.crt(rotate.iter().chain(args)).start().await?;
    proxy.victim(run.pid()?);
    held.strikes().await;
    Ok((run, proxy, held))
}

/// Rancher itself rotates a token once both copies of its expiry are in the past. Returns the value that it had.
async fn let_rancher_rotate(fixture: &RancherFixture, name: &str) -> Result<String> {
    let id = fixture.cluster.id.as_str();
    let before = values(fixture).await?[name].clone();
    let past = r#""expiresAt":"2020-01-01T00:00:00Z""#;
    let secret = format!("crt-token-{name}");
    patch(
        fixture,
        &["secret", &secret, "-n", id],
        &format!(r#"{{"stringData":{{{past}}}}}"#),
    )
    .await?;
    let token = ["clusterregistrationtokens.management.cattle.io", name, "-n", id];
    patch(fixture, &token, &format!(r#"{{"status":{{{past}}}}}"#)).await?;
    let previous = format!("{name}/previousToken");
    until("Rancher to rotate the token", async || {
        Ok(State::of(fixture).await?.graces.contains(&previous).then_some(()))
    })
    .await?;
    Ok(before)
}

#[rstest]
#[case::all(&[])]
#[case::only_agent(&["--only-agent"])]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_rotates_another_token(#[case] args: &[&str]) -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "tavira").await?;
    let (run, _proxy, held) = stopped_in_place(&fixture, args).await?;
    let before = state::fingerprint(&let_rancher_rotate(&fixture, "default-token").await?);
    held.release();
    run.signal(Signal::CONT)?;
    let outcome = run.finish().await?.expect(0)?;
    let now = State::of(&fixture).await?;
    let accepted = now.report.accepted.contains(&before);
    if args.is_empty() {
        ensure!(
            !accepted && !now.graces.contains("default-token/previousToken"),
            "{now:#?}\n{outcome}"
        );
    } else {
        // It is left as it was, and the result says what is still accepted, and until when.
        ensure!(accepted, "{now:#?}\n{outcome}");
        let values = format!(
            "(Rancher still accepts {}, and {before} until 20",
            now.tokens["default-token"]
        );
        ensure!(outcome.stdout.contains(&values), "{values:?} is missing: {outcome}");
    }
    Ok(())
}

/// The new value is replaced after its Secret was created in the downstream cluster.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_deletes_the_secret_of_a_value_that_was_replaced(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "olhao").await?;
    let start = State::of(&fixture).await?;
    let (run, _proxy, held) = stopped_at(&fixture, &[], "*/namespaces/cattle-system/secrets*", Moment::After).await?;
    until("the Secret with the new token", async || {
        Ok((State::of(&fixture).await?.credentials.len() == 2).then_some(()))
    })
    .await?;
    let value = "x7k2p".repeat(10);
    replace_system(&fixture, &value).await?;
    held.release();
    run.signal(Signal::CONT)?;
    let outcome = run.finish().await?.expect(0)?;
    let now = State::of(&fixture).await?;
    ensure!(now.named() == state::fingerprint(&value), "{now:#?}\n{outcome}");
    ensure!(now.credentials.len() == 1, "{now:#?}\n{outcome}");
    ensure!(
        !now.report.accepted.iter().any(|token| token == start.named()),
        "{now:#?}\n{outcome}"
    );
    Ok(())
}

/// The new value is replaced after the agent was pointed at it: it is set again, and no agent is ever without a valid token.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_sets_the_new_value_again_when_the_agent_has_it(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "aljezur").await?;
    let start = State::of(&fixture).await?;
    let (run, proxy, held) = stopped_at(&fixture, &[], "*/deployments/*", Moment::After).await?;
    let state = State::of(&fixture).await?;
    let placed = state.named().to_owned();
    ensure!(
        placed != start.named(),
        "the agent is not pointed at a new token: {state:#?}\n{}",
        proxy.transcript()
    );
    let value = "x7k2p".repeat(10);
    replace_system(&fixture, &value).await?;
    held.release();
    run.signal(Signal::CONT)?;
    let outcome = run.finish().await?.expect(0)?;
    let now = State::of(&fixture).await?;
    ensure!(now.named() == placed, "{now:#?}\n{outcome}");
    ensure!(now.report.without.valid_token.is_empty(), "{now:#?}\n{outcome}");
    for revoked in [start.named(), &state::fingerprint(&value)] {
        ensure!(
            !now.report.accepted.iter().any(|token| token == revoked),
            "{now:#?}\n{outcome}"
        );
    }
    Ok(())
}

/// What should be the agent's own Secret has another token.
#[tokio::test(flavor = "multi_thread")]
async fn rollback_names_a_secret_with_another_content() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "silves").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().path("*/deployments/*"), Fault::Kill(Moment::After));
    let id = fixture.cluster.id.as_str();
    let run = shell.crt(["rotate", id, "--yes"]).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let own = start.deployment.secret.as_str();
    let put = async |token: &str| {
        let patch = json!({ "stringData": { "token": token } }).to_string();
        let words = [
            "--context",
            id,
            "-n",
            "cattle-system",
            "patch",
            "secret",
            own,
            "-p",
            &patch,
        ];
        fixture.shell.kubectl(words).run().await?.expect(0)
    };
    let token = values(&fixture).await?;
    let token = token.values().find(|value| state::fingerprint(value) == start.named());
    let token = token.context("no object has the agent's token")?;
    put(&"x7k2p".repeat(10)).await?;
    let outcome = shell
        .crt(["rollback", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(4)?;
    let named = format!(
        "Secret cattle-system/{own} of the downstream cluster should have {}",
        start.named()
    );
    ensure!(outcome.stderr.contains(&named), "{outcome}");
    put(token).await?;
    shell
        .crt(["rollback", id, "--yes", "--settle", "1s"])
        .run()
        .await?
        .expect(0)?;
    ensure!(State::of(&fixture).await?.named() == start.named(), "{outcome}");
    Ok(())
}
