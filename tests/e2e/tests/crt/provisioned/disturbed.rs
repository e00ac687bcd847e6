//! Rotations of provisioned and of hosted clusters that something disturbs: another operator, a slow link, an upgrade of Rancher, another first token.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture, until};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On, Registration, TokenStorage};

use super::{begin, has_planned, run, survives_restarts};
use crate::state::{self, Scope, State};
use crate::writes::effective;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Provisioned,
    Hosted,
}

impl Kind {
    async fn begin(self, storage: TokenStorage, name: &str) -> Result<RancherFixture> {
        match self {
            Self::Provisioned => begin(storage, name, 2).await,
            Self::Hosted => {
                let registration = Registration::imported(name).quick().kind("eks");
                RancherFixture::begin_with(storage, &registration).await
            }
        }
    }

    async fn rotated(self, fixture: &RancherFixture, start: &State) -> Result<()> {
        match self {
            Self::Provisioned => rotated(fixture, start).await,
            Self::Hosted => state::rotated(fixture, start, Scope::All).await.map(drop),
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_only_one_writes(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Kind::Provisioned, Kind::Hosted)] kind: Kind,
) -> Result<()> {
    let fixture = kind.begin(storage, "hasselt").await?;
    let start = State::of(&fixture).await?;
    let ((one, left), (two, right)) = tokio::try_join!(fixture.behind_proxy(), fixture.behind_proxy())?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s"];
    let (left, right) = tokio::try_join!(left.crt(rotate).run(), right.crt(rotate).run())?;
    let (done, other, proxy) = if left.code() == Some(0) {
        (left, right, two)
    } else {
        (right, left, one)
    };
    done.expect(0)?;
    let other = other.expect(5)?;
    assert_eq!(effective(&proxy), Vec::<String>::new(), "{other}");
    kind.rotated(&fixture, &start).await
}

/// Every token is rotated, also in the machines' files, and stays so.
async fn rotated(fixture: &RancherFixture, start: &State) -> Result<()> {
    let rotated = state::rotated(fixture, start, Scope::All).await?;
    let report = fixture.rancher.report(&fixture.cluster).await?;
    ensure!(has_planned(&report, rotated.named()), "{report:#?}");
    survives_restarts(fixture).await
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_succeeds_over_a_slow_link(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Kind::Provisioned, Kind::Hosted)] kind: Kind,
) -> Result<()> {
    let fixture = kind.begin(storage, "oostende").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_slow_link(Duration::from_millis(100)).await?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s"];
    let done = shell.crt(rotate).run().await?.expect(0);
    done.with_context(|| proxy.transcript())?;
    kind.rotated(&fixture, &start).await
}

#[rstest]
#[case::and_resumed("rotate")]
#[case::and_rolled_back("rollback")]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_survives_an_upgrade_of_rancher(#[case] verb: &str) -> Result<()> {
    let registration = Registration::imported("upgraded").quick().provisioned(2);
    let name = format!("upgraded-provisioned-{verb}");
    let fixture = RancherFixture::begin_apart_with(TokenStorage::Status, &name, &registration).await?;
    let start = State::of(&fixture).await?;
    let left = killed(&fixture, On::write().path("*/deployments/cattle-cluster-agent").nth(2)).await?;
    ensure!(!left.temporary.is_empty(), "{left:#?}");
    fixture.rancher.upgrade().await?;
    // The restart of Rancher has cut every tunnel.
    until("the agent to connect again", async || {
        let report = fixture.rancher.report(&fixture.cluster).await?;
        Ok((report.connected_since.is_some() && report.steve_since.is_some()).then_some(()))
    })
    .await?;
    fixture.rancher.reset(&fixture.cluster).await?;
    let done = run(&fixture, verb, &[]).await?.expect(0)?;
    if verb == "rotate" {
        return rotated(&fixture, &start).await.with_context(|| done.to_string());
    }
    // Kubernetes collects the Secret of the temporary token, which is deleted.
    let now = until("the tokens to be those of the start", async || {
        let now = State::of(&fixture).await?;
        Ok((now.tokens == start.tokens).then_some(now))
    });
    let now = now.await.with_context(|| done.to_string())?;
    ensure!(now.graces.is_empty() && now.temporary.is_empty(), "{now:#?}\n{done}");
    let new = left.new_token().context("no new token")?;
    ensure!(now.report.accepted.iter().all(|token| token != new), "{now:#?}");
    survives_restarts(&fixture).await
}

/// Kills a rotation after this write. Returns what it has left.
async fn killed(fixture: &RancherFixture, on: On) -> Result<State> {
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(on, Fault::Kill(Moment::After));
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s"];
    let run = shell.crt(rotate).start().await?;
    proxy.victim(run.pid()?);
    let ended: CommandOutput = run.finish().await?;
    ended.expect_killed().with_context(|| proxy.transcript())?;
    State::of(fixture).await
}

/// Someone creates a token for a node that joins. It sorts first, so Rancher's planner deploys it from now on.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_becomes_the_first_gets_the_new_value_too(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = begin(storage, "kortrijk", 2).await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let paused = proxy.plan(
        On::write().path("*/management.cattle.io/v3/clusters/*"),
        Fault::Stop(Moment::Before),
    );
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "0s"];
    let rotation = shell.crt(rotate).start().await?;
    proxy.victim(rotation.pid()?);
    paused.strikes().await;
    let token = json!({
        "apiVersion": "management.cattle.io/v3", "kind": "ClusterRegistrationToken",
        "metadata": { "name": "crt-aaaaa" }, "spec": { "clusterName": fixture.cluster.id },
    });
    let create = [
        "--context",
        "management",
        "-n",
        &fixture.cluster.id,
        "create",
        "-f",
        "-",
    ];
    fixture
        .shell
        .kubectl(create)
        .stdin(token.to_string())
        .run()
        .await?
        .expect(0)?;
    let given = until("the value of the new token", async || {
        Ok(State::of(&fixture).await?.tokens.get("crt-aaaaa").cloned())
    })
    .await?;
    paused.release();
    rotation.signal(Signal::CONT)?;
    let done = rotation.finish().await?.expect(0)?;
    ensure!(!done.stderr.contains("Not rotated"), "{done}");
    let now = State::of(&fixture).await?;
    ensure!(now.tokens["crt-aaaaa"] == now.system(), "{now:#?}\n{done}");
    for old in start.tokens.values().chain([&given]) {
        ensure!(
            !now.report.accepted.contains(old),
            "{old} is accepted: {now:#?}\n{done}"
        );
    }
    ensure!(now.graces.is_empty() && now.temporary.is_empty(), "{now:#?}");
    ensure!(has_planned(&now.report, now.system()), "{now:#?}");
    survives_restarts(&fixture).await
}
