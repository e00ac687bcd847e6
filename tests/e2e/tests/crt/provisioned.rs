//! Clusters that Rancher has provisioned: two controllers write the agent's Deployment, and RKE2 applies the file of each control-plane
//! machine at every start of its server.

mod disturbed;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Registration, Report, TokenStorage};

use crate::state::{self, Scope, State};

async fn begin(storage: TokenStorage, name: &str, machines: u32) -> Result<RancherFixture> {
    let registration = Registration::imported(name).quick().provisioned(machines);
    RancherFixture::begin_with(storage, &registration).await
}

async fn run(fixture: &RancherFixture, verb: &str, more: &[&str]) -> Result<CommandOutput> {
    let args = [verb, &fixture.cluster.id, "--yes", "--settle", "0s"];
    fixture.shell.crt(args.iter().chain(more)).run().await
}

async fn machines(fixture: &RancherFixture) -> Result<Vec<String>> {
    let report = fixture.rancher.report(&fixture.cluster).await?;
    Ok(report.machines.into_keys().collect())
}

/// Every machine has this token in its plan, in the one that it has applied, and in its file.
fn has_planned(report: &Report, token: &str) -> bool {
    let keys = ["plan", "applied", "file"];
    let mut machines = report.machines.values();
    machines.all(|machine| keys.iter().all(|key| machine[*key] == token))
}

/// The server of each machine starts, and applies its file. Nothing changes.
async fn survives_restarts(fixture: &RancherFixture) -> Result<()> {
    let before = State::of(fixture).await?;
    for machine in machines(fixture).await? {
        let restart = json!({ "restart": true });
        fixture
            .rancher
            .change_machine(&fixture.cluster, &machine, &restart)
            .await?;
    }
    fixture.rancher.cluster_event(&fixture.cluster).await?;
    let after = State::of(fixture).await?;
    ensure!(after.named() == before.named(), "{after:?}");
    assert_eq!(after.pods, before.pods);
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(report.fingerprints() == [after.named()], "{report:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_the_token_of_the_plans_too(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = begin(storage, "gent", 2).await?;
    let start = State::of(&fixture).await?;
    let done = run(&fixture, "rotate", &[]).await?.expect(0)?;
    println!("{done}");
    let rotated = state::rotated(&fixture, &start, Scope::All).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(has_planned(&report, rotated.named()), "{report:#?}\n{done}");
    survives_restarts(&fixture).await
}

async fn change(fixture: &RancherFixture, machine: &str, change: serde_json::Value) -> Result<()> {
    fixture.rancher.change_machine(&fixture.cluster, machine, &change).await
}

/// Nothing was revoked: both old values are accepted, that of the agent and that of the first token.
async fn has_revoked_nothing(fixture: &RancherFixture, start: &Report) -> Result<Report> {
    let report = fixture.rancher.report(&fixture.cluster).await?;
    let missing = start.accepted.iter().find(|token| !report.accepted.contains(token));
    ensure!(missing.is_none(), "{missing:?} is revoked: {report:#?}");
    Ok(report)
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_answer_keeps_the_old_token_valid(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = begin(storage, "brugge", 2).await?;
    let (start, accepted) = (
        State::of(&fixture).await?,
        fixture.rancher.report(&fixture.cluster).await?,
    );
    let silent = machines(&fixture).await?.pop().context("no machine")?;
    change(&fixture, &silent, json!({ "running": false })).await?;
    let pending = run(&fixture, "rotate", &[]).await?.expect(4)?;
    ensure!(
        pending
            .stderr
            .contains(&format!("control-plane machine {silent} has not applied")),
        "{pending}"
    );
    let report = has_revoked_nothing(&fixture, &accepted).await?;
    ensure!(
        report.fingerprints() != [start.named()],
        "the agent still has the old token: {report:#?}"
    );
    // The rollout is not held while no one works on it.
    let now = State::of(&fixture).await?;
    ensure!(now.deployment.settings == start.deployment.settings, "{now:?}");
    // The server of that machine starts: the agent has a valid token all the same.
    change(&fixture, &silent, json!({ "restart": true })).await?;
    let until = days_pass(&fixture, storage, &pending).await?;
    let again = run(&fixture, "rotate", &[]).await?.expect(4)?;
    ensure!(again.stderr.contains(&silent), "{again}");
    has_revoked_nothing(&fixture, &accepted).await?;
    if let Some(until) = until {
        let extended = kept_until(&again)?;
        ensure!(extended >= until, "{extended} after {until}");
    }
    change(&fixture, &silent, json!({ "running": true })).await?;
    // RKE2's own rollout has no hold.
    fixture.rancher.reset(&fixture.cluster).await?;
    run(&fixture, "rotate", &[]).await?.expect(0)?;
    let rotated = state::rotated(&fixture, &start, Scope::All).await?;
    ensure!(has_planned(
        &fixture.rancher.report(&fixture.cluster).await?,
        rotated.named()
    ));
    survives_restarts(&fixture).await
}

/// Until when a pending run keeps the old values valid.
fn kept_until(pending: &CommandOutput) -> Result<Timestamp> {
    let text = pending.stderr.split_once("stay valid until ");
    let (_, rest) = text.with_context(|| pending.to_string())?;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}

/// With storage `secret` the old values have an end, which comes two days closer here. Returns what it was.
async fn days_pass(
    fixture: &RancherFixture,
    storage: TokenStorage,
    pending: &CommandOutput,
) -> Result<Option<Timestamp>> {
    if storage == TokenStorage::Status {
        return Ok(None);
    }
    let until = kept_until(pending)?;
    let closer = until - SignedDuration::from_hours(48);
    let patch = json!({ "stringData": { "gracePeriodExpiresAt": format!("{closer:.0}") } }).to_string();
    for secret in ["crt-token-system", "crt-token-default-token"] {
        let patch = ["patch", "secret", secret, "-p", &patch];
        let management = ["--context", "management", "-n", &fixture.cluster.id];
        let patched = fixture.shell.kubectl(management.iter().chain(&patch)).run().await?;
        patched.expect(0)?;
    }
    Ok(Some(until))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_gone_is_deleted_or_given_up() -> Result<()> {
    let fixture = begin(TokenStorage::Secret, "leuven", 3).await?;
    let start = State::of(&fixture).await?;
    let mut all = machines(&fixture).await?;
    let (gone, given_up) = all.pop().zip(all.pop()).context("no machines")?;
    for machine in [&gone, &given_up] {
        change(&fixture, machine, json!({ "running": false })).await?;
    }
    let pending = run(&fixture, "rotate", &[]).await?.expect(4)?;
    ensure!(
        pending.stderr.contains("control-plane machines") && pending.stderr.contains("--force=machine"),
        "{pending}"
    );
    change(&fixture, &gone, json!({ "delete": true })).await?;
    let pending = run(&fixture, "rotate", &[]).await?.expect(4)?;
    ensure!(
        pending
            .stderr
            .contains(&format!("control-plane machine {given_up} has not")),
        "{pending}"
    );
    run(&fixture, "rotate", &["--force=machine"]).await?.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_plans_too(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = begin(storage, "namur", 2).await?;
    let (start, before) = (
        State::of(&fixture).await?,
        fixture.rancher.report(&fixture.cluster).await?,
    );
    let silent = machines(&fixture).await?.pop().context("no machine")?;
    let first = before.machines[&silent]["file"].as_str().context("no file")?.to_owned();
    change(&fixture, &silent, json!({ "running": false })).await?;
    run(&fixture, "rotate", &[]).await?.expect(4)?;
    let pending = run(&fixture, "rollback", &[]).await?;
    println!("{pending}");
    change(&fixture, &silent, json!({ "running": true })).await?;
    if pending.code() != Some(0) {
        run(&fixture, "rollback", &[]).await?.expect(0)?;
    }
    let after = fixture.rancher.report(&fixture.cluster).await?;
    let known = [start.named(), first.as_str()];
    ensure!(
        after.fingerprints().iter().all(|token| known.contains(token)),
        "{after:#?}"
    );
    let mut accepted = [before.accepted.clone(), after.accepted.clone()];
    for all in &mut accepted {
        all.sort();
    }
    ensure!(accepted[0] == accepted[1], "{accepted:?}");
    let end = State::of(&fixture).await?;
    assert_eq!((&end.tokens, &end.graces), (&start.tokens, &start.graces));
    Ok(())
}

/// As Rancher's UI imports a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_cluster_may_look_like_a_provisioned_one() -> Result<()> {
    let registration = Registration::imported("mechelen").quick().provisioned(0);
    let fixture = RancherFixture::begin_with(TokenStorage::Secret, &registration).await?;
    let start = State::of(&fixture).await?;
    let done = run(&fixture, "rotate", &[]).await?.expect(0)?;
    ensure!(!done.stderr.contains("control-plane"), "{done}");
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}

/// Rancher answers calls to it without an agent.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hosted_cluster_is_proven_by_its_agent_alone(#[case] storage: TokenStorage) -> Result<()> {
    let registration = Registration::imported("aalst").quick().kind("eks");
    let fixture = RancherFixture::begin_with(storage, &registration).await?;
    let start = State::of(&fixture).await?;
    fixture
        .rancher
        .fault(&json!({ "refuseNewTokens": [fixture.cluster.id] }))
        .await?;
    let back = run(&fixture, "rotate", &["--timeout", "10s"]).await?.expect(1)?;
    ensure!(back.stderr.contains("rolled back"), "{back}");
    ensure!(State::of(&fixture).await?.named() == start.named());
    fixture.rancher.fault(&json!({ "admit": ["*"] })).await?;
    fixture.rancher.reset(&fixture.cluster).await?;
    run(&fixture, "rotate", &[]).await?.expect(0)?;
    state::rotated(&fixture, &start, Scope::All).await?;
    Ok(())
}
