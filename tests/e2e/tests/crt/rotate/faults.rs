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

/// The objects that a rotation writes, except the Lease.
const OBJECTS: [&str; 4] = [
    "*/clusterregistrationtokens*",
    "*/secrets*",
    "*/deployments/*",
    "*/management.cattle.io/v3/clusters/*",
];

const LEASES: &str = "*/leases*";

/// No rotation has this many writes of one kind of object.
const MANY: usize = 24;

/// A cluster, and a shell whose requests go through the proxy.
struct Run {
    fixture: RancherFixture,
    start: State,
    proxy: FaultProxy,
    shell: Shell,
}

impl Run {
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

    /// Every write to these objects fails once; the next one, which is the same again, succeeds.
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

    /// The rotation finishes, and the state is as after one without faults.
    async fn finishes(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.succeeds(rotation).await?;
        state::rotated(&self.fixture, &self.start, Scope::All).await?;
        Ok(outcome)
    }

    async fn succeeds(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = rotation.finish().await?;
        outcome.expect(0).with_context(|| self.proxy.transcript())
    }

    /// The same, where the test itself has closed tunnels or deleted Secrets.
    async fn finishes_despite_changes(&self, rotation: Running) -> Result<CommandOutput> {
        let outcome = self.succeeds(rotation).await?;
        let old = self.start.named();
        let state = until("only tunnels with the new token", async || {
            let state = State::of(&self.fixture).await?;
            let new = state.named().to_owned();
            Ok((state.report.fingerprints() == [new.as_str()] && new != old).then_some(state))
        })
        .await?;
        ensure!(
            state.report.without.way_back.is_empty(),
            "without a valid token: {state:#?}"
        );
        ensure!(
            !state.report.accepted.iter().any(|token| token == old),
            "{old} is still accepted: {state:#?}"
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

/// Waits for a fault. If the rotation does not get that far, fails with its output.
async fn strikes(planned: &Planned, rotation: Running) -> Result<Running> {
    if tokio::time::timeout(e2e::PATIENCE, planned.strikes()).await.is_err() {
        bail!("it did not get that far:\n{}", rotation.finish().await?);
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
    let run = Run::begin(storage).await?;
    let planned = run.each_once(&OBJECTS, &status(code));
    // The Lease is on the same servers; its first write begins the run and is not repeated.
    for nth in [2, 5, 6] {
        run.proxy.plan(On::write().path(LEASES).nth(nth), status(code));
    }
    run.finishes(run.rotate("1s").await?).await?;
    let struck: usize = planned.iter().map(Planned::struck).sum();
    let through = |write: &&test_cluster::Request| !is_lease(write) && write.status.is_some_and(|status| status < 300);
    let done = run.proxy.writes().iter().filter(through).count();
    ensure!(
        struck >= 7 && struck == done,
        "{struck} refused, {done} done\n{}",
        run.proxy.transcript()
    );
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_response_to_every_write_is_lost(#[case] storage: TokenStorage) -> Result<()> {
    let run = Run::begin(storage).await?;
    let planned: Vec<_> = OBJECTS
        .iter()
        .map(|path| run.proxy.plan(On::write().path(*path).always(), Fault::LoseAnswer))
        .collect();
    // Of the Lease, the response to each first try. The very first one takes the lock, and a run that cannot take it fails.
    for nth in (2..10 * MANY).step_by(2) {
        run.proxy.plan(On::write().path(LEASES).nth(nth), Fault::LoseAnswer);
    }
    run.finishes(run.rotate("1s").await?).await?;
    // With storage `secret` no token object is written, and with storage `status` the Cluster is not.
    let struck: Vec<_> = planned.iter().map(Planned::struck).collect();
    ensure!(struck.iter().filter(|struck| **struck > 0).count() == 3, "{struck:?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_responses_are_truncated(#[case] storage: TokenStorage) -> Result<()> {
    let run = Run::begin(storage).await?;
    // From the fortieth read on: during the survey a failure ends the command.
    let reads: Vec<_> = (40..400)
        .step_by(9)
        .map(|nth| run.proxy.plan(On::read().nth(nth), Fault::Cut))
        .collect();
    let writes = run.each_once(&OBJECTS, &Fault::Cut);
    run.finishes(run.rotate("1s").await?).await?;
    let struck = |planned: &[Planned]| planned.iter().map(Planned::struck).sum::<usize>();
    ensure!(struck(&reads) > 3 && struck(&writes) > 3, "{}", run.proxy.transcript());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_a_write_stalls_for_ten_seconds() -> Result<()> {
    let run = Run::begin(TokenStorage::Secret).await?;
    let stalled = run
        .proxy
        .plan(On::write().path(OBJECTS[2]), Fault::Stall(Duration::from_secs(10)));
    run.finishes(run.rotate("1s").await?).await?;
    ensure!(stalled.struck() == 1, "{}", run.proxy.transcript());
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
    let run = Run::begin(storage).await?;
    let pointed = run.proxy.plan(On::write().path(OBJECTS[2]), Fault::LoseAnswer);
    let rotation = strikes(&pointed, run.rotate("1s").await?).await?;
    let lasts = Duration::from_secs(seconds);
    let prefix = format!("/k8s/clusters/{}/", run.id());
    run.proxy.away(Outage { prefix, lasts, status });
    let outcome = run.finishes(rotation).await?;
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
    let run = Run::begin(storage).await?;
    let here = On::write().path(OBJECTS[2]).nth(write_of_the_deployment);
    let held = run.proxy.plan(here, Fault::Stop(Moment::Before));
    let rotation = strikes(&held, run.rotate("1s").await?).await?;
    run.fixture.rancher.redeploy(&run.fixture.cluster).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    // Rancher's own rollout does not keep the old agent until the new one is connected: a tunnel may be missing for a moment.
    run.finishes_despite_changes(rotation).await?;
    let without = run.fixture.rancher.report(&run.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let forced = run.fixture.rancher.log_of(&run.fixture.cluster)?;
    let is_applied = |line: &&serde_json::Value| line["kind"] == "redeploy" && line["step"] == "applied";
    ensure!(forced.iter().any(|line| is_applied(&line)), "{forced:#?}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_an_earlier_redeploy_is_applied_late(#[case] storage: TokenStorage) -> Result<()> {
    let run = Run::begin(storage).await?;
    let rancher = run.fixture.rancher;
    rancher
        .redeploy_later(&run.fixture.cluster, true, Duration::from_secs(6))
        .await?;
    // The late redeploy is Rancher's own rollout, which does not keep the old agent until the new one is connected.
    run.finishes_despite_changes(run.rotate("10s").await?).await?;
    let without = rancher.report(&run.fixture.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let log = rancher.log_of(&run.fixture.cluster)?;
    let old = run.start.named();
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
    let run = Run::begin(storage).await?;
    // The second write to the Deployment releases the rollout: until then both agents run.
    let held = run
        .proxy
        .plan(On::write().path(OBJECTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, run.rotate("1s").await?).await?;
    run.fixture.rancher.drop_tunnels(&run.fixture.cluster, true).await?;
    until("the old agent to write last", async || {
        let state = State::of(&run.fixture).await?;
        let both = state.report.sessions.len() == 4;
        Ok((both && state.connected.as_deref() == Some(run.start.named())).then_some(()))
    })
    .await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    let outcome = run.finishes_despite_changes(rotation).await?;
    let restarts = outcome.stderr.matches("place    point the agent at").count()
        + outcome.stderr.matches("prove    point the agent at").count();
    // Once in place, and once because the agent that connected last was the old one.
    ensure!(restarts >= 2, "{outcome}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_agent_deletes_credential_secrets(#[case] storage: TokenStorage) -> Result<()> {
    let run = Run::begin(storage).await?;
    let held = run
        .proxy
        .plan(On::write().path(OBJECTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, run.rotate("1s").await?).await?;
    let deleted = run.fixture.rancher.agent_cleanup(&run.fixture.cluster).await?;
    ensure!(!deleted.is_empty(), "nothing was cleaned up");
    held.release();
    rotation.signal(Signal::CONT)?;
    run.finishes_despite_changes(rotation).await?;
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_tunnels_reject_the_new_token(#[case] storage: TokenStorage) -> Result<()> {
    let run = Run::begin(storage).await?;
    run.fixture
        .rancher
        .fault(&json!({ "refuseNewTokens": [run.id()] }))
        .await?;
    let rotate = ["rotate", run.id(), "--yes", "--settle", "1s", "--timeout", "5s"];
    let outcome = run
        .shell
        .crt(rotate)
        .run()
        .await?
        .expect(1)
        .with_context(|| run.proxy.transcript())?;
    ensure!(outcome.stderr.contains("was rolled back"), "{outcome}");
    ensure!(outcome.stderr.contains("--timeout"), "{outcome}");
    // While the Deployment named the rejected token, a restarted agent would not have connected; the old agent was never removed.
    let without = run.fixture.rancher.report(&run.fixture.cluster).await?.without;
    ensure!(without.way_back.is_empty() && without.tunnel.is_empty(), "{without:#?}");
    run.fixture.rancher.reset(&run.fixture.cluster).await?;
    state::restored(&run.fixture, &run.start, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_rancher_is_upgraded_meanwhile() -> Result<()> {
    let run = Run::of(RancherFixture::begin_apart(TokenStorage::Status, "upgraded-while-rotating").await?).await?;
    let held = run
        .proxy
        .plan(On::write().path(OBJECTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, run.rotate("1s").await?).await?;
    run.fixture.rancher.upgrade().await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    run.finishes_despite_changes(rotation).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_finishes_when_the_leader_is_down_and_when_replicas_lag() -> Result<()> {
    let fixture = RancherFixture::begin_apart(TokenStorage::Secret, "lagging").await?;
    let mut run = Run::of(fixture).await?;
    let held = run
        .proxy
        .plan(On::write().path(OBJECTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, run.rotate("1s").await?).await?;
    run.fixture.rancher.fault(&json!({ "leaderGap": "6s" })).await?;
    held.release();
    rotation.signal(Signal::CONT)?;
    run.finishes(rotation).await?;

    run.fixture
        .rancher
        .fault(&json!({ "replicaLag": "2s", "replicas": 2 }))
        .await?;
    run.start = State::of(&run.fixture).await?;
    run.proxy.heal();
    let outcome = run.rotate("1s").await?.finish().await?.expect(0)?;
    // The replica that lags accepts the new token two seconds later, and the old one two seconds longer.
    ensure!(outcome.took > Duration::from_secs(4), "{outcome}");
    state::rotated(&run.fixture, &run.start, Scope::All).await?;
    Ok(())
}
