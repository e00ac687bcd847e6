//! Failures of the API servers, of Rancher and of the agent during a rotation. The rotation finishes each time, and
//! the agent always holds a valid token.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{CommandOutput, RancherFixture, Running, Shell, until};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, FaultProxy, Moment, On, Outage, Planned, TokenStorage};

use crate::state::{self, Scope, State};
use crate::writes::is_lease;

/// Where the writes of a rotation go, but for the Lease.
const PRODUCTS: [&str; 4] = [
    "*/clusterregistrationtokens*",
    "*/secrets*",
    "*/deployments/*",
    "*/management.cattle.io/v3/clusters/*",
];

const LEASES: &str = "*/leases*";

/// No rotation has so many writes of one sort.
const MANY: usize = 24;

/// A cluster, and a desk whose every request goes through the proxy.
struct Scene {
    fixture: RancherFixture,
    start: State,
    proxy: FaultProxy,
    shell: Shell,
}

impl Scene {
    async fn of(fixture: RancherFixture) -> Result<Self> {
        let start = State::of(&fixture).await?;
        let (proxy, shell) = fixture.behind_proxy().await?;
        Ok(Self {
            fixture,
            start,
            proxy,
            shell,
        })
    }

    async fn begin(storage: TokenStorage) -> Result<Self> {
        Self::of(RancherFixture::begin(storage, "lyon").await?).await
    }

    /// Every write of these sorts fails once; the next one of the sort, which is the same again, goes through.
    fn each_once(&self, sorts: &[&str], fault: &Fault) -> Vec<Planned> {
        let odd = (1..MANY).step_by(2);
        let rules = sorts.iter().flat_map(|path| odd.clone().map(move |nth| (path, nth)));
        rules
            .map(|(path, nth)| self.proxy.plan(On::write().path(*path).nth(nth), fault.clone()))
            .collect()
    }

    fn id(&self) -> &str {
        &self.fixture.cluster.id
    }

    async fn rotate(&self, settle: &str) -> Result<Running> {
        let rotate = ["rotate", self.id(), "--yes", "--settle", settle];
        let running = self.shell.crt(rotate).start().await?;
        self.proxy.victim(running.pid()?);
        Ok(running)
    }

    /// The rotation comes to its end, and the world is as after one where nothing went wrong.
    async fn ends_well(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.exits_well(rotation).await?;
        state::rotated(&self.fixture, &self.start, Scope::All).await?;
        Ok(outcome)
    }

    async fn exits_well(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = rotation.finish().await?;
        outcome.expect(0).with_context(|| self.proxy.transcript())
    }

    /// The same, where the test itself has cut tunnels or taken Secrets away.
    async fn loses_nothing(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.exits_well(rotation).await?;
        let old = self.start.named();
        let state = until("only tunnels with the new token", async || {
            let state = State::of(&self.fixture).await?;
            let new = state.named().to_owned();
            Ok((state.report.fingerprints() == [new.as_str()] && new != old).then_some(state))
        })
        .await?;
        ensure!(
            state.report.without.way_back.is_empty(),
            "without a way back: {state:#?}"
        );
        ensure!(
            !state.report.accepted.iter().any(|token| token == old),
            "{old} is alive: {state:#?}"
        );
        ensure!(
            state.system() == state.named() && state.connected.as_deref() == Some(state.named()),
            "{state:#?}"
        );
        ensure!(
            state.deployment.settings == (0, 600) && state.credentials.len() == 1,
            "{state:#?}"
        );
        ensure!(state.bridges.is_empty() && state.graces.is_empty(), "{state:#?}");
        let lease = state.lease.as_ref().context("no Lease")?;
        ensure!(lease.journal.is_none() && lease.holder.is_none(), "{state:#?}");
        Ok(outcome)
    }
}

/// Waits until a fault has struck; if the rotation never comes so far, says how it ended.
async fn strikes(planned: &Planned, rotation: Running) -> Result<Running> {
    if tokio::time::timeout(e2e::PATIENCE, planned.strikes()).await.is_err() {
        bail!("it did not come so far:\n{}", rotation.finish().await?);
    }
    Ok(rotation)
}

fn status(status: u16) -> Fault {
    let retry_after = (status == 429).then_some(Duration::from_secs(1));
    Fault::Answer { status, retry_after }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_retries_each_write_that_is_refused_once(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(409, 429, 500, 503)] code: u16,
) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let planned = scene.each_once(&PRODUCTS, &status(code));
    // The lock renews and journals through the same servers; its first write begins the run and is not repeated.
    for nth in [2, 5, 6] {
        scene.proxy.plan(On::write().path(LEASES).nth(nth), status(code));
    }
    scene.ends_well(scene.rotate("1s").await?).await?;
    let struck: usize = planned.iter().map(Planned::struck).sum();
    let through = |write: &&test_cluster::Request| !is_lease(write) && write.status.is_some_and(|status| status < 300);
    let done = scene.proxy.writes().iter().filter(through).count();
    ensure!(
        struck >= 7 && struck == done,
        "{struck} refused, {done} done\n{}",
        scene.proxy.transcript()
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_response_to_every_write_is_lost(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let planned: Vec<_> = PRODUCTS
        .iter()
        .map(|path| scene.proxy.plan(On::write().path(*path).always(), Fault::LoseAnswer))
        .collect();
    // Of the lock, that of each first try; but the very first takes it, and a run that cannot begin says so and ends.
    for nth in (2..10 * MANY).step_by(2) {
        scene.proxy.plan(On::write().path(LEASES).nth(nth), Fault::LoseAnswer);
    }
    scene.ends_well(scene.rotate("1s").await?).await?;
    // In era S no token object is written, and in era P the cluster is not touched.
    let struck: Vec<_> = planned.iter().map(Planned::struck).collect();
    ensure!(struck.iter().filter(|struck| **struck > 0).count() == 3, "{struck:?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_responses_are_truncated(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    // From the fortieth read on: until then it surveys, where a failure is told and not waited for.
    let reads: Vec<_> = (40..400)
        .step_by(9)
        .map(|nth| scene.proxy.plan(On::read().nth(nth), Fault::Cut))
        .collect();
    let writes = scene.each_once(&PRODUCTS, &Fault::Cut);
    scene.ends_well(scene.rotate("1s").await?).await?;
    let struck = |planned: &[Planned]| planned.iter().map(Planned::struck).sum::<usize>();
    ensure!(
        struck(&reads) > 3 && struck(&writes) > 3,
        "{}",
        scene.proxy.transcript()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_a_write_stalls_for_ten_seconds() -> Result<()> {
    let scene = Scene::begin(TokenStorage::Secret).await?;
    let stalled = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stall(Duration::from_secs(10)));
    scene.ends_well(scene.rotate("1s").await?).await?;
    ensure!(stalled.struck() == 1, "{}", scene.proxy.transcript());
    Ok(())
}

#[rstest]
#[case::refused_for_30s(TokenStorage::Secret, 30, Some(503))]
#[case::broken_for_12s(TokenStorage::Status, 12, None)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_waits_while_the_downstream_cluster_is_unreachable(
    #[case] storage: TokenStorage,
    #[case] seconds: u64,
    #[case] status: Option<u16>,
) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let pointed = scene.proxy.plan(On::write().path(PRODUCTS[2]), Fault::LoseAnswer);
    let rotation = strikes(&pointed, scene.rotate("1s").await?).await?;
    let lasts = Duration::from_secs(seconds);
    let prefix = format!("/k8s/clusters/{}/", scene.id());
    scene.proxy.away(Outage { prefix, lasts, status });
    let outcome = scene.ends_well(rotation).await?;
    ensure!(outcome.took > lasts, "{outcome}");
    ensure!(outcome.stderr.contains("tried again: "), "{outcome}");
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_redeploys_the_agent_meanwhile(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(1, 2)] write_of_the_deployment: usize,
) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let here = On::write().path(PRODUCTS[2]).nth(write_of_the_deployment);
    let held = scene.proxy.plan(here, Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.fixture.rancher.redeploy(&scene.fixture.cluster).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    // Rancher's own roll-out holds no old agent back until the new one is connected: a tunnel may be missing for a moment.
    scene.loses_nothing(rotation).await?;
    let without = scene.fixture.rancher.report(&scene.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let forced = scene.fixture.rancher.log_of(&scene.fixture.cluster)?;
    let landed = |line: &&serde_json::Value| line["kind"] == "redeploy" && line["step"] == "applied";
    ensure!(forced.iter().any(|line| landed(&line)), "{forced:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_an_earlier_redeploy_is_applied_late(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let rancher = scene.fixture.rancher;
    rancher
        .redeploy_later(&scene.fixture.cluster, true, Duration::from_secs(6))
        .await?;
    // What lands late is Rancher's own roll-out, which holds no old agent back until the new one is connected.
    scene.loses_nothing(scene.rotate("10s").await?).await?;
    let without = rancher.report(&scene.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let log = rancher.log_of(&scene.fixture.cluster)?;
    let old = scene.start.named();
    let late = |line: &&serde_json::Value| {
        line["kind"] == "redeploy"
            && line["reason"] == "racing"
            && line["step"] == "applied"
            && line["fingerprint"] == old
    };
    ensure!(log.iter().any(|line| late(&line)), "it has not landed: {log:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_restarts_the_agent_when_the_old_pod_reconnects_last(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    // The second write to the Deployment releases the roll-out: until then both agents run.
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.fixture.rancher.drop_tunnels(&scene.fixture.cluster, true).await?;
    until("the old agent to write last", async || {
        let state = State::of(&scene.fixture).await?;
        let both = state.report.sessions.len() == 4;
        Ok((both && state.connected.as_deref() == Some(scene.start.named())).then_some(()))
    })
    .await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = scene.loses_nothing(rotation).await?;
    let restarts = outcome.stderr.matches("place    point the agent at").count()
        + outcome.stderr.matches("prove    point the agent at").count();
    // Once for the place, and once because the agent that connected last was the old one.
    ensure!(restarts >= 2, "{outcome}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_agent_deletes_credential_secrets(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    let deleted = scene.fixture.rancher.agent_cleanup(&scene.fixture.cluster).await?;
    ensure!(!deleted.is_empty(), "nothing was cleaned up");
    held.release();
    rotation.signal(Signal::CONT)?;
    scene.loses_nothing(rotation).await?;
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_tunnels_reject_the_new_token(#[case] storage: TokenStorage) -> Result<()> {
    let scene = Scene::begin(storage).await?;
    scene
        .fixture
        .rancher
        .fault(&json!({ "refuseNewTokens": [scene.id()] }))
        .await?;
    let rotate = ["rotate", scene.id(), "--yes", "--settle", "1s", "--timeout", "5s"];
    let outcome = scene
        .shell
        .crt(rotate)
        .run()
        .await?
        .expect(1)
        .with_context(|| scene.proxy.transcript())?;
    ensure!(outcome.stderr.contains("was undone"), "{outcome}");
    ensure!(outcome.stderr.contains("--timeout"), "{outcome}");
    // While the Deployment named the token that is refused, a restart would have waited; the old agent never went.
    let without = scene.fixture.rancher.report(&scene.fixture.cluster).await?.without;
    ensure!(without.way_back.is_empty() && without.tunnel.is_empty(), "{without:#?}");
    scene.fixture.rancher.reset(&scene.fixture.cluster).await?;
    state::restored(&scene.fixture, &scene.start, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_is_upgraded_meanwhile() -> Result<()> {
    let scene = Scene::of(RancherFixture::begin_apart(TokenStorage::Status, "upgraded-while-rotating").await?).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.fixture.rancher.upgrade().await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    scene.loses_nothing(rotation).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_leader_is_down_and_when_replicas_lag() -> Result<()> {
    let fixture = RancherFixture::begin_apart(TokenStorage::Secret, "lagging").await?;
    let mut scene = Scene::of(fixture).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.fixture.rancher.fault(&json!({ "leaderGap": "6s" })).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    scene.ends_well(rotation).await?;

    scene
        .fixture
        .rancher
        .fault(&json!({ "replicaLag": "2s", "replicas": 2 }))
        .await?;
    scene.start = State::of(&scene.fixture).await?;
    scene.proxy.heal();
    let outcome = scene.rotate("1s").await?.finish().await?.expect(0)?;
    // The authoriser that lags knows the new token only after two seconds, and the old one for as long.
    ensure!(outcome.took > Duration::from_secs(4), "{outcome}");
    state::rotated(&scene.fixture, &scene.start, Scope::All).await?;
    Ok(())
}
