//! `kubectl crt rollback`: rolls back an unfinished rotation unless the old token was revoked.

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture};
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Fault, Moment, On, TokenStorage};

use crate::manual_changes::{DEPLOYMENT, deployments, forge_journal};
use crate::state::{self, Scope, State};

/// The phase in which a rotation is killed.
#[derive(Clone, Copy, Debug)]
enum Killed {
    Make,
    Place,
    Prove,
    Retire,
}

impl Killed {
    /// The write after which the kill happens.
    fn after(self, storage: TokenStorage) -> On {
        let value = match storage {
            TokenStorage::Status => "*/clusterregistrationtokens/system",
            TokenStorage::Secret => "*/secrets/crt-token-system",
        };
        match (self, storage) {
            (Self::Make, _) => On::write().path(value),
            (Self::Place, _) => On::write().path("*/namespaces/cattle-system/secrets"),
            (Self::Prove, _) => On::write().path("*/deployments/cattle-cluster-agent").nth(2),
            (Self::Retire, TokenStorage::Status) => On::write().path("*/clusterregistrationtokens/zz-*"),
            (Self::Retire, TokenStorage::Secret) => On::write().path(value).nth(2),
        }
    }

    fn phase(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Place => "place",
            Self::Prove => "prove",
            Self::Retire => "retire",
        }
    }
}

/// Runs a command and kills it after this write. Returns the state that it left.
async fn kill(fixture: &RancherFixture, verb: &str, on: On) -> Result<State> {
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(on, Fault::Kill(Moment::After));
    let command = [verb, &fixture.cluster.id, "--yes", "--settle", "0s"];
    let run = shell.crt(command).start().await?;
    proxy.victim(run.pid()?);
    run.finish()
        .await?
        .expect_killed()
        .with_context(|| proxy.transcript())?;
    State::of(fixture).await
}

async fn run(fixture: &RancherFixture, verb: &str) -> Result<CommandOutput> {
    let command = [verb, &fixture.cluster.id, "--yes", "--settle", "0s"];
    fixture.shell.crt(command).run().await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_start_from_every_phase_before_retire(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    for killed in [Killed::Make, Killed::Place, Killed::Prove] {
        fixture.rancher.reset(&fixture.cluster).await?;
        let start = State::of(&fixture).await?;
        let left = kill(&fixture, "rotate", killed.after(storage)).await?;
        assert_eq!(left.phase(), Some(killed.phase()));
        let new = left.new_token().context("no new token in the journal")?;
        assert!(left.report.accepted.iter().any(|token| token == new), "{left:?}");

        let outcome = run(&fixture, "rollback").await?.expect(0)?;
        assert_eq!(
            outcome.stdout,
            format!("cluster.management.cattle.io/{} rolled back\n", fixture.cluster.id)
        );
        let restored = state::restored(&fixture, &start, Some(new)).await?;
        let result = restored.lease.and_then(|lease| lease.result);
        assert_eq!(
            result.as_deref(),
            Some("rolled back: requested with rollback"),
            "{killed:?}"
        );
    }
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_is_refused_after_retire_and_rotate_finishes(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lima").await?;
    let start = State::of(&fixture).await?;
    let left = kill(&fixture, "rotate", Killed::Retire.after(storage)).await?;
    assert_eq!(left.phase(), Some(Killed::Retire.phase()));

    let (proxy, shell) = fixture.behind_proxy().await?;
    let rollback = ["rollback", &fixture.cluster.id, "--yes"];
    let refused = shell.crt(rollback).run().await?.expect(1)?;
    let sentence = format!(
        "error: the rotation of cluster lima ({}) has begun to revoke the old token and can only be finished",
        fixture.cluster.id
    );
    assert!(refused.stderr.contains(&sentence), "{refused}");
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());

    let flags = ["--yes", "--settle", "0s"];
    let finished = fixture.shell.follow(&refused, "kubectl crt rotate", &flags).await?;
    finished.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_without_a_rotation_writes_nothing(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "bern").await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();
    for (command, code) in [
        (vec!["rollback", id, "--yes"], 0),
        (vec!["rollback", id, "--yes", "--exit-code"], 3),
    ] {
        let outcome = shell.crt(command).run().await?.expect(code)?;
        let sentence = format!("no rotation of cluster bern ({id}) is in progress\n");
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("", sentence.as_str())
        );
    }
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_removes_the_lease_of_a_run_killed_at_its_start() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "kyiv").await?;
    let start = State::of(&fixture).await?;
    let left = kill(&fixture, "rotate", On::write().path("*/leases")).await?;
    let lease = left.lease.context("no Lease")?;
    assert!(lease.holder.is_some() && lease.journal.is_none(), "{lease:?}");

    let outcome = run(&fixture, "rollback").await?.expect(0)?;
    assert!(outcome.stderr.ends_with("is in progress\n"), "{outcome}");
    let after = State::of(&fixture).await?;
    assert!(after.lease.is_none(), "{:?}", after.lease);
    assert_eq!(after.tokens, start.tokens);
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_after_a_killed_rollback_finishes_the_rollback(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "rome").await?;
    let start = State::of(&fixture).await?;
    kill(&fixture, "rotate", Killed::Place.after(storage)).await?;
    // The first write of the rollback restores the old value of `system`.
    let left = kill(&fixture, "rollback", Killed::Make.after(storage)).await?;
    assert_eq!(
        left.lease.as_ref().and_then(|lease| lease.field("direction")),
        Some("rollback")
    );

    let outcome = run(&fixture, "rotate").await?.expect(1)?;
    assert!(
        outcome.stderr.contains("Finishing the rollback; nothing is rotated."),
        "{outcome}"
    );
    assert!(
        outcome
            .stderr
            .contains("was rolled back, and its agent runs with the old token as before"),
        "{outcome}"
    );
    state::restored(&fixture, &start, left.new_token()).await.map(drop)
}

/// The Lease describes a run that has left no trace in any object, and the old token does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn rollback_refuses_when_no_object_shows_the_rotation() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "tavira").await?;
    let gone = json!({ "spec": { "paused": true, "template": { "spec": { "volumes": [
        { "name": "cattle-credentials", "secret": { "secretName": "cattle-credentials-gone" } }
    ] } } } });
    let deployments = deployments(&fixture).await?;
    let patch = Patch::Strategic(&gone);
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &patch).await?;
    let journal = json!({
        "version": 3, "run": "bcdfg", "direction": "rollback", "phase": "place", "started": "2026-01-01T00:00:00Z",
        "resumableBy": "anyone", "deadlines": {},
        "record": {
            "old": "0123456789", "others": {}, "worked": true, "oldSecret": "cattle-credentials-gone",
            "rollout": { "minReadySeconds": 0, "progressDeadlineSeconds": 600 },
        },
    });
    forge_journal(&fixture, &journal).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let rollback = ["rollback", &fixture.cluster.id, "--yes"];
    let refused = shell.crt(rollback).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("can be rolled back"), "{refused}");
    ensure!(refused.stderr.contains("--force=journal"), "{refused}");
    ensure!(!refused.stderr.contains("Starting"), "{refused}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());
    // The journal is discarded as the hint says, and the preflight check finds the broken agent.
    let rotate = "kubectl crt rotate";
    let anew = fixture
        .shell
        .follow(&refused, rotate, &["--dry-run"])
        .await?
        .expect(1)?;
    ensure!(anew.stderr.contains("Discarding the run in the Lease"), "{anew}");
    ensure!(anew.stderr.contains("Deployment is paused"), "{anew}");
    Ok(())
}
