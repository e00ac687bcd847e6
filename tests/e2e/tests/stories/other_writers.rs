//! `kubectl crt rotate` while something else writes the same objects: GitOps, whoever may write Leases, an administrator who
//! changes Rancher's address, and Rancher itself over a slow link.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Story;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{AnotherWriter, Era, Fault, Moment, On};

use crate::state::{self, Scope, State};

const DEPLOYMENT: &str = "cattle-cluster-agent";

async fn deployments(story: &Story) -> Result<Api<Deployment>> {
    let client = story.downstream.client().await?;
    Ok(Api::namespaced(client, &story.cluster.agent_namespace()))
}

/// Creates the Lease of a rotation with this journal, as anyone who may write Leases can.
async fn forge(story: &Story, journal: &Value) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(story.management.client().await?, &story.cluster.id);
    let lease = serde_json::from_value(json!({
        "metadata": {
            "name": "kubectl-crt",
            "labels": { "kubectl-rotation.github.io/kind": "crt" },
            "annotations": { "kubectl-rotation.github.io/journal": journal.to_string() },
        },
        "spec": {},
    }))?;
    leases.create(&PostParams::default(), &lease).await?;
    Ok(())
}

#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_written_back_for_the_third_time_turns_the_rotation_back(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "porto").await?;
    let start = State::of(&story).await?;
    let saved = deployments(&story).await?.get(DEPLOYMENT).await?;
    let writer = AnotherWriter::of(story.downstream.client().await?, &saved)?
        .manager("kustomize-controller")
        .watching()
        .start();
    let rotate = [
        "rotate",
        &story.cluster.id,
        "--yes",
        "--settle",
        "10s",
        "--timeout",
        "3m",
    ];
    let outcome = story.desk.crt(rotate).run().await?.expect(1)?;
    ensure!(outcome.stderr.contains("kustomize-controller"), "{outcome}");
    ensure!(writer.undone() >= 3, "written back {} times", writer.undone());
    writer.stop().await?;
    // The old token is what the agent runs with and what Rancher accepts; the new one is gone.
    let now = State::of(&story).await?;
    assert_eq!(now.named(), start.named(), "{outcome}");
    let report = story.rancher.report(&story.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.without.way_back.is_empty(), "{report:?}\n{outcome}");
    Ok(())
}

#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_passing_disturbance_is_put_right_and_the_quiet_time_begins_anew(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "faro").await?;
    let start = State::of(&story).await?;
    let saved = deployments(&story).await?.get(DEPLOYMENT).await?;
    let writer = AnotherWriter::of(story.downstream.client().await?, &saved)?
        .every(Duration::from_secs(5))
        .times(2)
        .start();
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "12s"];
    let outcome = story.desk.crt(rotate).run().await?.expect(0)?;
    writer.stop().await?;
    // The writer's own rollouts cost tunnels; an agent with a valid token was there all the time.
    ensure!(State::of(&story).await?.named() != start.named(), "{outcome}");
    let report = story.rancher.report(&story.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.without.way_back.is_empty(), "{report:?}\n{outcome}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_another_owner_is_refused_by_name() -> Result<()> {
    let story = Story::begin(Era::Secret, "braga").await?;
    let mark = json!({ "metadata": { "annotations": {
        "argocd.argoproj.io/tracking-id": "agents:apps/Deployment:cattle-system/cattle-cluster-agent"
    } } });
    let deployments = deployments(&story).await?;
    let mark = Patch::Merge(&mark);
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &mark).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let outcome = desk
        .crt(["rotate", &story.cluster.id, "--yes"])
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
    let start = State::of(&story).await?;
    let forced = ["rotate", &story.cluster.id, "--yes", "--settle", "1s", "--force=owner"];
    story.desk.crt(forced).run().await?.expect(0)?;
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

/// Whoever may write Leases and nothing else claims that everything is done but the last step.
#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_journal_rotates_nothing_away_and_sets_nothing(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "evora").await?;
    let start = State::of(&story).await?;
    let journal = json!({
        "version": 2, "run": "bcdfg", "goal": "forward", "phase": "confirm", "started": "2026-01-01T00:00:00Z",
        "resumableBy": "anybody",
        "deadlines": { "settle": "2026-01-01T00:00:00Z" },
        "notes": {
            "old": "0123456789", "new": start.named(), "others": {}, "placed": true, "worked": true,
            "oldSecret": "stv-aggregation",
            "rollout": { "minReadySeconds": 2_000_000_000, "progressDeadlineSeconds": 2_000_000_001 },
        },
    });
    forge(&story, &journal).await?;
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s"];
    let outcome = story.desk.crt(rotate).run().await?.expect(0)?;
    ensure!(
        outcome.stderr.contains("has changed nothing; a new one begins"),
        "{outcome}"
    );
    state::rotated(&story, &start, Scope::All).await?;
    let now = deployments(&story).await?.get(DEPLOYMENT).await?;
    let hold = now.spec.context("no spec")?.min_ready_seconds.unwrap_or_default();
    assert_eq!(hold, 0);
    Ok(())
}

/// Rancher's own apply takes ten seconds, and starts again whenever somebody changes the Cluster.
#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_lets_rancher_finish(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "sintra").await?;
    let start = State::of(&story).await?;
    let (proxy, desk) = story.behind_slow_link(Duration::from_millis(100)).await?;
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s"];
    desk.crt(rotate).run().await?.expect(0)?;
    let path = format!("/clusters/{}", story.cluster.id);
    let triggers = proxy
        .writes()
        .iter()
        .filter(|write| write.path.ends_with(&path))
        .count();
    ensure!(triggers <= 1, "{triggers} triggers\n{}", proxy.transcript());
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

/// Killed after it has pointed the agent at the new token, where Rancher's own apply is still to come.
#[rstest]
#[case::status(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_link_a_killed_rotation_is_finished_by_the_same_command(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lagos").await?;
    let start = State::of(&story).await?;
    let (proxy, desk) = story.behind_slow_link(Duration::from_millis(100)).await?;
    proxy.plan(On::write().path("*/deployments/*"), Fault::Kill(Moment::After));
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s"];
    let run = desk.crt(rotate).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let again = desk.crt(rotate).run().await?.expect(0)?;
    ensure!(again.stderr.contains("Going on with"), "{again}");
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

/// The Lease tells of a run of which no object shows anything, and there is no token to go back to.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_which_nothing_stands_changes_nothing_and_says_so() -> Result<()> {
    let story = Story::begin(Era::Secret, "tavira").await?;
    let gone = json!({ "spec": { "paused": true, "template": { "spec": { "volumes": [
        { "name": "cattle-credentials", "secret": { "secretName": "cattle-credentials-gone" } }
    ] } } } });
    let deployments = deployments(&story).await?;
    let patch = Patch::Strategic(&gone);
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &patch).await?;
    let journal = json!({
        "version": 2, "run": "bcdfg", "goal": "back", "phase": "place", "started": "2026-01-01T00:00:00Z",
        "resumableBy": "anybody", "deadlines": {},
        "notes": {
            "old": "0123456789", "others": {}, "worked": true, "oldSecret": "cattle-credentials-gone",
            "rollout": { "minReadySeconds": 0, "progressDeadlineSeconds": 600 },
        },
    });
    forge(&story, &journal).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let rollback = ["rollback", &story.cluster.id, "--yes"];
    let refused = desk.crt(rollback).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("can be undone"), "{refused}");
    ensure!(refused.stderr.contains("--force=journal"), "{refused}");
    ensure!(!refused.stderr.contains("begins"), "{refused}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_address_that_is_not_pushed_yet_is_refused() -> Result<()> {
    let story = Story::begin_apart(Era::Secret, "address").await?;
    let start = State::of(&story).await?;
    story
        .rancher
        .change_server_url("https://rancher.invalid", false)
        .await?;
    let rotate = [
        "rotate",
        &story.cluster.id,
        "--yes",
        "--settle",
        "1s",
        "--timeout",
        "30s",
    ];
    let outcome = story.desk.crt(rotate).run().await?.expect(1)?;
    for expected in ["has not been pushed to the agent", "--force=address"] {
        ensure!(outcome.stderr.contains(expected), "{expected:?} is missing: {outcome}");
    }
    // Taken along by force it never connects there: the old agent stays, and so does the old token.
    let forced = [&rotate[..], &["--force=address", "-o", "json"]].concat();
    let outcome = story.desk.crt(&forced).run().await?;
    let document: Value = serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())?;
    ensure!(document["outcome"] != "rotated", "{outcome}");
    let report = story.rancher.report(&story.cluster).await?;
    ensure!(report.connected_since.is_some(), "{report:?}\n{outcome}");
    ensure!(report.fingerprints().contains(&start.named()), "{report:?}\n{outcome}");
    Ok(())
}
