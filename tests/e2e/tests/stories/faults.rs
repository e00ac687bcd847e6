//! What may go wrong between the plugin, the servers and the agent while a rotation is under way. It ends well each time,
//! and at no moment was the agent without a live token.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Desk, Outcome, Running, Story, until};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testbed::{Era, Fault, FaultProxy, Moment, On, Outage, Planned};

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
    story: Story,
    start: State,
    proxy: FaultProxy,
    desk: Desk,
}

impl Scene {
    async fn of(story: Story) -> Result<Self> {
        let start = State::of(&story).await?;
        let (proxy, desk) = story.behind_proxy().await?;
        Ok(Self {
            story,
            start,
            proxy,
            desk,
        })
    }

    async fn begin(era: Era) -> Result<Self> {
        Self::of(Story::begin(era, "lyon").await?).await
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
        &self.story.cluster.id
    }

    async fn rotate(&self, settle: &str) -> Result<Running> {
        let rotate = ["rotate", self.id(), "--yes", "--settle", settle];
        let running = self.desk.crt(rotate).start().await?;
        self.proxy.victim(running.pid()?);
        Ok(running)
    }

    /// The rotation comes to its end, and the world is as after one where nothing went wrong.
    async fn ends_well(&self, rotation: Running) -> Result<Outcome> {
        let outcome = self.exits_well(rotation).await?;
        state::rotated(&self.story, &self.start, Scope::All).await?;
        Ok(outcome)
    }

    async fn exits_well(&self, rotation: Running) -> Result<Outcome> {
        let outcome = rotation.finish().await?;
        outcome.expect(0).with_context(|| self.proxy.transcript())
    }

    /// The same, where the test itself has cut tunnels or taken Secrets away.
    async fn loses_nothing(&self, rotation: Running) -> Result<Outcome> {
        let outcome = self.exits_well(rotation).await?;
        let old = self.start.named();
        let state = until("only tunnels with the new token", async || {
            let state = State::of(&self.story).await?;
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

fn goes_on(rotation: &Running) -> Result<()> {
    let pid = i32::try_from(rotation.pid()?).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("no process")?, Signal::CONT)?)
}

fn status(status: u16) -> Fault {
    let retry_after = (status == 429).then_some(Duration::from_secs(1));
    Fault::Answer { status, retry_after }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_refused_once(
    #[values(Era::Plain, Era::Secret)] era: Era,
    #[values(409, 429, 500, 503)] code: u16,
) -> Result<()> {
    let scene = Scene::begin(era).await?;
    let planned = scene.each_once(&PRODUCTS, &status(code));
    // The lock renews and journals through the same servers; its first write begins the run and is not repeated.
    for nth in [2, 5, 6] {
        scene.proxy.plan(On::write().path(LEASES).nth(nth), status(code));
    }
    scene.ends_well(scene.rotate("1s").await?).await?;
    let struck: usize = planned.iter().map(Planned::struck).sum();
    let through = |write: &&testbed::Request| !is_lease(write) && write.status.is_some_and(|status| status < 300);
    let done = scene.proxy.writes().iter().filter(through).count();
    ensure!(
        struck >= 7 && struck == done,
        "{struck} refused, {done} done\n{}",
        scene.proxy.transcript()
    );
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_every_write_is_lost(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
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
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn answers_break_off_in_the_middle(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
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
async fn a_write_stalls_for_ten_seconds() -> Result<()> {
    let scene = Scene::begin(Era::Secret).await?;
    let stalled = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stall(Duration::from_secs(10)));
    scene.ends_well(scene.rotate("1s").await?).await?;
    ensure!(stalled.struck() == 1, "{}", scene.proxy.transcript());
    Ok(())
}

#[rstest]
#[case::refused_for_30s(Era::Secret, 30, Some(503))]
#[case::broken_for_12s(Era::Plain, 12, None)]
#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_agents_cluster_is_away_during_the_roll_out(
    #[case] era: Era,
    #[case] seconds: u64,
    #[case] status: Option<u16>,
) -> Result<()> {
    let scene = Scene::begin(era).await?;
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
async fn rancher_deploys_the_agent_at_the_same_time(
    #[values(Era::Plain, Era::Secret)] era: Era,
    #[values(1, 2)] write_of_the_deployment: usize,
) -> Result<()> {
    let scene = Scene::begin(era).await?;
    let here = On::write().path(PRODUCTS[2]).nth(write_of_the_deployment);
    let held = scene.proxy.plan(here, Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.story.rancher.redeploy(&scene.story.cluster).await?;
    held.release();
    goes_on(&rotation)?;
    // Rancher's own roll-out holds no old agent back until the new one is connected: a tunnel may be missing for a moment.
    scene.loses_nothing(rotation).await?;
    let without = scene.story.rancher.report(&scene.story.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let forced = scene.story.rancher.log_of(&scene.story.cluster)?;
    let landed = |line: &&serde_json::Value| line["kind"] == "redeploy" && line["step"] == "applied";
    ensure!(forced.iter().any(|line| landed(&line)), "{forced:#?}");
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_redeploy_that_was_rendered_before_lands_late(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
    let rancher = scene.story.rancher;
    rancher
        .redeploy_later(&scene.story.cluster, true, Duration::from_secs(6))
        .await?;
    // What lands late is Rancher's own roll-out, which holds no old agent back until the new one is connected.
    scene.loses_nothing(scene.rotate("10s").await?).await?;
    let without = rancher.report(&scene.story.cluster).await?.without;
    ensure!(without.restart_safety.is_empty(), "{without:#?}");
    let log = rancher.log_of(&scene.story.cluster)?;
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
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_drop_while_two_agents_run_and_the_old_one_is_back_last(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
    // The second write to the Deployment releases the roll-out: until then both agents run.
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.story.rancher.drop_tunnels(&scene.story.cluster, true).await?;
    until("the old agent to write last", async || {
        let state = State::of(&scene.story).await?;
        let both = state.report.sessions.len() == 4;
        Ok((both && state.connected.as_deref() == Some(scene.start.named())).then_some(()))
    })
    .await?;
    held.release();
    goes_on(&rotation)?;
    let outcome = scene.loses_nothing(rotation).await?;
    let restarts = outcome.stderr.matches("place    point the agent at").count()
        + outcome.stderr.matches("prove    point the agent at").count();
    // Once for the place, and once because the agent that connected last was the old one.
    ensure!(restarts >= 2, "{outcome}");
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cleans_up_the_secrets_of_both(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]).nth(2), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    let deleted = scene.story.rancher.agent_cleanup(&scene.story.cluster).await?;
    ensure!(!deleted.is_empty(), "nothing was cleaned up");
    held.release();
    goes_on(&rotation)?;
    scene.loses_nothing(rotation).await?;
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_tunnels_refuse_is_undone_over_the_living_old_one(#[case] era: Era) -> Result<()> {
    let scene = Scene::begin(era).await?;
    scene
        .story
        .rancher
        .fault(&json!({ "refuseNewTokens": [scene.id()] }))
        .await?;
    let rotate = ["rotate", scene.id(), "--yes", "--settle", "1s", "--timeout", "5s"];
    let outcome = scene
        .desk
        .crt(rotate)
        .run()
        .await?
        .expect(1)
        .with_context(|| scene.proxy.transcript())?;
    ensure!(outcome.stderr.contains("was undone"), "{outcome}");
    ensure!(outcome.stderr.contains("--timeout"), "{outcome}");
    // While the Deployment named the token that is refused, a restart would have waited; the old agent never went.
    let without = scene.story.rancher.report(&scene.story.cluster).await?.without;
    ensure!(without.way_back.is_empty() && without.tunnel.is_empty(), "{without:#?}");
    scene.story.rancher.reset(&scene.story.cluster).await?;
    state::restored(&scene.story, &scene.start, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rancher_is_upgraded_in_the_middle() -> Result<()> {
    let scene = Scene::of(Story::begin_apart(Era::Plain, "upgraded-while-rotating").await?).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.story.rancher.upgrade().await?;
    held.release();
    goes_on(&rotation)?;
    scene.loses_nothing(rotation).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ranchers_leader_is_away_and_its_replicas_lag() -> Result<()> {
    let story = Story::begin_apart(Era::Secret, "lagging").await?;
    let mut scene = Scene::of(story).await?;
    let held = scene
        .proxy
        .plan(On::write().path(PRODUCTS[2]), Fault::Stop(Moment::Before));
    let rotation = strikes(&held, scene.rotate("1s").await?).await?;
    scene.story.rancher.fault(&json!({ "leaderGap": "6s" })).await?;
    held.release();
    goes_on(&rotation)?;
    scene.ends_well(rotation).await?;

    scene
        .story
        .rancher
        .fault(&json!({ "replicaLag": "2s", "replicas": 2 }))
        .await?;
    scene.start = State::of(&scene.story).await?;
    scene.proxy.heal();
    let outcome = scene.rotate("1s").await?.finish().await?.expect(0)?;
    // The authoriser that lags knows the new token only after two seconds, and the old one for as long.
    ensure!(outcome.took > Duration::from_secs(4), "{outcome}");
    state::rotated(&scene.story, &scene.start, Scope::All).await?;
    Ok(())
}
