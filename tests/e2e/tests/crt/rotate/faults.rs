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

/// The paths of the writes of a rotation, except for the Lease.
const PATHS: [&str; 4] = [
    "*/clusterregistrationtokens*",
    "*/secrets*",
    "*/deployments/*",
    "*/management.cattle.io/v3/clusters/*",
];

const LEASES: &str = "*/leases*";

/// More writes than a rotation sends to one of these paths.
const MANY: usize = 24;

/// A cluster, and a shell whose requests all go through the proxy.
struct FaultTest {
    fixture: RancherFixture,
    start: State,
    proxy: FaultProxy,
    shell: Shell,
}

impl FaultTest {
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

    /// Every write to these paths fails once. Its retry succeeds.
    fn each_once(&self, paths: &[&str], fault: &Fault) -> Vec<Planned> {
        let odd = (1..MANY).step_by(2);
        let rules = paths.iter().flat_map(|path| odd.clone().map(move |nth| (path, nth)));
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

    /// The rotation finishes, and the result is that of an undisturbed one.
    async fn finishes(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.succeeds(rotation).await?;
        state::rotated(&self.fixture, &self.start, Scope::All).await?;
        Ok(outcome)
    }

    async fn succeeds(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = rotation.finish().await?;
        outcome.expect(0).with_context(|| self.proxy.transcript())
    }

    /// The same for a test that has closed tunnels or deleted Secrets itself.
    async fn finishes_without_lockout(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.succeeds(rotation).await?;
        let old = self.start.named();
        let state = until("all tunnels to use the new token", async || {
            let state = State::of(&self.fixture).await?;
            let new = state.named().to_owned();
            Ok((state.report.fingerprints() == [new.as_str()] && new != old).then_some(state))
        })
        .await?;
        ensure!(
            state.report.without.valid_token.is_empty(),
            "no agent with a valid token: {state:#?}"
        );
        ensure!(
            !state.report.accepted.iter().any(|token| token == old),
            "{old} is valid: {state:#?}"
        );
        ensure!(
            state.system() == state.named() && state.connected.as_deref() == Some(state.named()),
            "{state:#?}"
        );
        ensure!(
            state.deployment.settings == (0, 600) && state.credentials.len() == 1,
            "{state:#?}"
        );
        ensure!(state.temporary.is_empty() && state.graces.is_empty(), "{state:#?}");
        let lease = state.lease.as_ref().context("no Lease")?;
        ensure!(lease.journal.is_none() && lease.holder.is_none(), "{state:#?}");
        Ok(outcome)
    }
}

/// Waits until a fault has happened. If the rotation ends before, the error shows its output.
async fn until_struck(planned: &Planned, rotation: Running) -> Result<Running> {
    if tokio::time::timeout(e2e::PATIENCE, planned.strikes()).await.is_err() {
        bail!("the fault did not happen:\n{}", rotation.finish().await?);
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
    let test = FaultTest::begin(storage).await?;
    let planned = test.each_once(&PATHS, &status(code));
    // The Lease is written through the same servers. Its first write starts the run and is not retried.
    for nth in [2, 5, 6] {
        test.proxy.plan(On::write().path(LEASES).nth(nth), status(code));
    }
    test.finishes(test.rotate("1s").await?).await?;
    let struck: usize = planned.iter().map(Planned::struck).sum();
    let through = |write: &&test_cluster::Request| !is_lease(write) && write.status.is_some_and(|status| status < 300);
    let done = test.proxy.writes().iter().filter(through).count();
    ensure!(
        struck >= 7 && struck == done,
        "{struck} refused, {done} done\n{}",
        test.proxy.transcript()
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_response_to_every_write_is_lost(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    let planned: Vec<_> = PATHS
        .iter()
        .map(|path| test.proxy.plan(On::write().path(*path).always(), Fault::LoseAnswer))
        .collect();
    // For the Lease, the response to each first attempt is lost, except for the write that takes the lock: a run that cannot
    // start ends with an error.
    for nth in (2..10 * MANY).step_by(2) {
        test.proxy.plan(On::write().path(LEASES).nth(nth), Fault::LoseAnswer);
    }
    test.finishes(test.rotate("1s").await?).await?;
    // With `secret` storage no token object is written, and with `status` storage the Cluster is not.
    let struck: Vec<_> = planned.iter().map(Planned::struck).collect();
    ensure!(struck.iter().filter(|struck| **struck > 0).count() == 3, "{struck:?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_responses_are_truncated(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    // From the fortieth read on. Before that it runs the preflight checks, where an error is reported and not retried.
    let reads: Vec<_> = (40..400)
        .step_by(9)
        .map(|nth| test.proxy.plan(On::read().nth(nth), Fault::Cut))
        .collect();
    let writes = test.each_once(&PATHS, &Fault::Cut);
    test.finishes(test.rotate("1s").await?).await?;
    let struck = |planned: &[Planned]| planned.iter().map(Planned::struck).sum::<usize>();
    ensure!(struck(&reads) > 3 && struck(&writes) > 3, "{}", test.proxy.transcript());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_a_write_stalls_for_ten_seconds() -> Result<()> {
    let test = FaultTest::begin(TokenStorage::Secret).await?;
    let stalled = test
        .proxy
        .plan(On::write().path(PATHS[2]), Fault::Stall(Duration::from_secs(10)));
    test.finishes(test.rotate("1s").await?).await?;
    ensure!(stalled.struck() == 1, "{}", test.proxy.transcript());
    Ok(())
}

#[rstest]
#[case::rejected_for_30s(TokenStorage::Secret, 30, Some(503))]
#[case::broken_for_12s(TokenStorage::Status, 12, None)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_waits_while_the_downstream_cluster_is_unreachable(
    #[case] storage: TokenStorage,
    #[case] seconds: u64,
    #[case] status: Option<u16>,
) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    let pointed = test.proxy.plan(On::write().path(PATHS[2]), Fault::LoseAnswer);
    let rotation = until_struck(&pointed, test.rotate("1s").await?).await?;
    let lasts = Duration::from_secs(seconds);
    let prefix = format!("/k8s/clusters/{}/", test.id());
    test.proxy.away(Outage { prefix, lasts, status });
    let outcome = test.finishes(rotation).await?;
    ensure!(outcome.took > lasts, "{outcome}");
    ensure!(outcome.stderr.contains("retrying: "), "{outcome}");
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_redeploys_the_agent_meanwhile(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(1, 2)] write_of_the_deployment: usize,
) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    let here = On::write().path(PATHS[2]).nth(write_of_the_deployment);
    let held = test.proxy.plan(here, Fault::Stop(Moment::Before));
    let rotation = until_struck(&held, test.rotate("1s").await?).await?;
    test.fixture.rancher.redeploy(&test.fixture.cluster).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    // Rancher's own rollout does not keep the old agent until the new one is connected. The tunnel may be closed for a moment.
    test.finishes_without_lockout(rotation).await?;
    let without = test.fixture.rancher.report(&test.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let forced = test.fixture.rancher.log_of(&test.fixture.cluster)?;
    let landed = |line: &&serde_json::Value| line["kind"] == "redeploy" && line["step"] == "applied";
    ensure!(forced.iter().any(|line| landed(&line)), "{forced:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_an_earlier_redeploy_is_applied_late(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    let rancher = test.fixture.rancher;
    rancher
        .redeploy_later(&test.fixture.cluster, true, Duration::from_secs(6))
        .await?;
    // The late apply is Rancher's own rollout, which does not keep the old agent until the new one is connected.
    test.finishes_without_lockout(test.rotate("10s").await?).await?;
    let without = rancher.report(&test.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let log = rancher.log_of(&test.fixture.cluster)?;
    let old = test.start.named();
    let late = |line: &&serde_json::Value| {
        line["kind"] == "redeploy"
            && line["reason"] == "racing"
            && line["step"] == "applied"
            && line["fingerprint"] == old
    };
    ensure!(log.iter().any(|line| late(&line)), "it was not applied: {log:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_restarts_the_agent_when_the_old_pod_reconnects_last(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    // The second write to the Deployment releases the rollout. Until then both agents run.
    let held = test
        .proxy
        .plan(On::write().path(PATHS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = until_struck(&held, test.rotate("1s").await?).await?;
    test.fixture.rancher.drop_tunnels(&test.fixture.cluster, true).await?;
    until("the old agent to connect last", async || {
        let state = State::of(&test.fixture).await?;
        let both = state.report.sessions.len() == 4;
        Ok((both && state.connected.as_deref() == Some(test.start.named())).then_some(()))
    })
    .await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = test.finishes_without_lockout(rotation).await?;
    let restarts = outcome.stderr.matches("place    point the agent at").count()
        + outcome.stderr.matches("prove    point the agent at").count();
    // Once for the switch, and once because the old agent connected last.
    ensure!(restarts >= 2, "{outcome}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_agent_deletes_credential_secrets(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    let held = test
        .proxy
        .plan(On::write().path(PATHS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = until_struck(&held, test.rotate("1s").await?).await?;
    let deleted = test.fixture.rancher.agent_cleanup(&test.fixture.cluster).await?;
    ensure!(!deleted.is_empty(), "no Secret was deleted");
    held.release();
    rotation.signal(Signal::CONT)?;
    test.finishes_without_lockout(rotation).await?;
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_tunnels_reject_the_new_token(#[case] storage: TokenStorage) -> Result<()> {
    let test = FaultTest::begin(storage).await?;
    test.fixture
        .rancher
        .fault(&json!({ "refuseNewTokens": [test.id()] }))
        .await?;
    let rotate = ["rotate", test.id(), "--yes", "--settle", "1s", "--timeout", "5s"];
    let outcome = test
        .shell
        .crt(rotate)
        .run()
        .await?
        .expect(1)
        .with_context(|| test.proxy.transcript())?;
    ensure!(outcome.stderr.contains("was rolled back"), "{outcome}");
    ensure!(outcome.stderr.contains("--timeout"), "{outcome}");
    // While the Deployment named the rejected token, a restarted agent would have had to wait. The old agent was never stopped.
    let without = test.fixture.rancher.report(&test.fixture.cluster).await?.without;
    ensure!(
        without.valid_token.is_empty() && without.tunnel.is_empty(),
        "{without:#?}"
    );
    test.fixture.rancher.reset(&test.fixture.cluster).await?;
    state::restored(&test.fixture, &test.start, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_is_upgraded_meanwhile() -> Result<()> {
    let test =
        FaultTest::of(RancherFixture::begin_apart(TokenStorage::Status, "upgraded-while-rotating").await?).await?;
    let held = test.proxy.plan(On::write().path(PATHS[2]), Fault::Stop(Moment::Before));
    let rotation = until_struck(&held, test.rotate("1s").await?).await?;
    test.fixture.rancher.upgrade().await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    test.finishes_without_lockout(rotation).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_leader_is_down_and_when_replicas_lag() -> Result<()> {
    let fixture = RancherFixture::begin_apart(TokenStorage::Secret, "lagging").await?;
    let mut test = FaultTest::of(fixture).await?;
    let held = test.proxy.plan(On::write().path(PATHS[2]), Fault::Stop(Moment::Before));
    let rotation = until_struck(&held, test.rotate("1s").await?).await?;
    test.fixture.rancher.fault(&json!({ "leaderGap": "6s" })).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    test.finishes(rotation).await?;

    test.fixture
        .rancher
        .fault(&json!({ "replicaLag": "2s", "replicas": 2 }))
        .await?;
    test.start = State::of(&test.fixture).await?;
    test.proxy.heal();
    let outcome = test.rotate("1s").await?.finish().await?.expect(0)?;
    // The lagging replica accepts the new token only after two seconds, and the old one for two seconds longer.
    ensure!(outcome.took > Duration::from_secs(4), "{outcome}");
    state::rotated(&test.fixture, &test.start, Scope::All).await?;
    Ok(())
}
