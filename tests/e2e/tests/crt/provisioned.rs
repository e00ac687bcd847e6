//! Clusters that Rancher has provisioned: two controllers write the agent's Deployment, and RKE2 applies the file of each control-plane
//! machine at every start of its server.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{CommandOutput, RancherFixture};
use rstest::rstest;
use serde_json::json;
use test_cluster::{Registration, Report, TokenStorage};

use crate::state::{self, Scope, State};

const PATIENCE: Duration = Duration::from_mins(1);

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
        fixture.rancher.change_machine(&fixture.cluster, &machine, &restart).await?;
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
