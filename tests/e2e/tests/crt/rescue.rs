//! `kubectl crt rescue`: each way on which an agent that has lost its token comes back.

mod disconnected;
mod disturbed;
mod held;
mod interrupted;
mod read_only;
mod refusals;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture, Shell, until};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{
    Fault, FaultProxy, Kubeconfig, Moment, On, Registered, Registration, TestEnvironment, TokenStorage, Upstream, User,
};

use crate::state::{State, fingerprint};

/// What a rescue is to be quick with.
const QUICK: [&str; 3] = ["--yes", "--settle", "0s"];

/// Waits until Rancher reports the agent as not connected.
async fn is_lost(fixture: &RancherFixture, cluster: &Registered) -> Result<()> {
    until("Rancher to report the agent as not connected", async || {
        let report = fixture.rancher.report(cluster).await?;
        let is_gone = report.sessions.is_empty() && report.conditions["Connected"] == "False";
        Ok(is_gone.then_some(()))
    })
    .await
}

/// All registration tokens are deleted, and the agent is restarted. Returns its token.
pub(crate) async fn lose(fixture: &RancherFixture) -> Result<String> {
    let (rancher, cluster) = (fixture.rancher, &fixture.cluster);
    let mut values = rancher.token_values(cluster).await?;
    rancher.delete_registration_tokens(cluster).await?;
    rancher.restart_agent(cluster).await?;
    is_lost(fixture, cluster).await?;
    values.remove("system").context("no token system")
}

/// The agent is connected with a new value of `system`, and Rancher rejects `old`.
pub(crate) async fn is_rescued(fixture: &RancherFixture, old: &str, outcome: &CommandOutput) -> Result<()> {
    let old = fingerprint(old);
    let now = until("Rancher to see only the new agent", async || {
        let now = State::of(fixture).await?;
        let is_seen = now.report.connected_since.is_some() && now.report.fingerprints() == [now.system()];
        Ok(is_seen.then_some(now))
    });
    let now = now.await.with_context(|| outcome.to_string())?;
    ensure!(now.named() == now.system() && now.named() != old, "{now:#?}\n{outcome}");
    ensure!(!now.report.accepted.contains(&old), "{now:#?}\n{outcome}");
    // Rancher removes the end of a grace period itself.
    let is_valid = |grace: &String| !grace.ends_with("/status");
    ensure!(
        now.temporary.is_empty() && !now.graces.iter().any(is_valid),
        "{now:#?}\n{outcome}"
    );
    ensure!(
        now.deployment.settings == (0, 600),
        "the rollout is held: {now:#?}\n{outcome}"
    );
    let lease = now.lease.as_ref().and_then(|lease| lease.result.as_deref());
    ensure!(lease == Some("rotated"), "{now:#?}\n{outcome}");
    Ok(())
}

/// A proxy in front of Rancher and the management cluster, and this kubeconfig through it.
async fn with_proxy(fixture: &RancherFixture, kubeconfig: Kubeconfig) -> Result<(FaultProxy, Kubeconfig)> {
    let servers = [fixture.rancher.upstream(), Upstream::admin_of(fixture.management)];
    let proxy = FaultProxy::start(servers).await?;
    let kubeconfig = proxy.redirect(kubeconfig);
    Ok((proxy, kubeconfig))
}

/// A value that no registration token has. Each cluster gets another one: while it is valid, it leads to one cluster.
fn unknown_to_rancher(cluster: &Registered) -> String {
    format!("k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf{}", cluster.id)
}

fn outcome_of(output: &CommandOutput) -> Result<Value> {
    let document: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    Ok(document["outcome"].clone())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_by_a_context_after_all_tokens_were_deleted(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "odense").await?;
    let id = fixture.cluster.id.as_str();
    let old = lose(&fixture).await?;
    // `status` ends with the command, and so does each refusal.
    let status = fixture.shell.crt(["status", id]).run().await?.expect(0)?;
    let command = format!("kubectl crt rescue {id} --downstream-context CONTEXT");
    ensure!(status.stdout.trim_end().ends_with(&command), "{status}");
    let refused = fixture.shell.crt(["rescue", id, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains(&command), "{refused}");

    let listed = fixture.shell.crt(["list", id]).run().await?.expect(0)?;
    let all = "1 cluster is not connected: kubectl crt rescue --disconnected --dry-run";
    ensure!(listed.stderr.contains(all), "{listed}");

    let direct = format!("{id}-direct");
    let by_context = ["rescue", id, "--downstream-context", &direct];
    let planned = fixture
        .shell
        .crt(by_context.iter().chain(&["--dry-run"]))
        .run()
        .await?
        .expect(0)?;
    ensure!(
        planned.stdout.contains(&format!("by context {direct}")) && planned.stdout.contains("Rescue of cluster odense"),
        "{planned}"
    );
    let rescue = by_context.iter().chain(&QUICK).chain(&["-o", "json"]);
    let rescued = fixture.shell.crt(rescue).run().await?.expect(0)?;
    ensure!(outcome_of(&rescued)? == "rescued", "{rescued}");
    is_rescued(&fixture, &old, &rescued).await?;

    // A healthy cluster is left alone.
    let before = State::of(&fixture).await?;
    let again = fixture.shell.crt(["rescue", id, "--yes"]).run().await?.expect(0)?;
    ensure!(again.stderr.contains("nothing to rescue in cluster odense"), "{again}");
    assert_eq!(State::of(&fixture).await?.tokens, before.tokens);
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_with_the_old_token(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "aarhus").await?;
    let id = fixture.cluster.id.as_str();
    let old = lose(&fixture).await?;
    let with_old = ["rescue", id, "--reactivate-old-token", "--token-stdin"];
    let rescue = with_old.iter().chain(&QUICK);
    let rescued = fixture
        .shell
        .crt(rescue)
        .stdin(format!("{old}\n"))
        .run()
        .await?
        .expect(0)?;
    ensure!(rescued.stdout.contains(&format!("{id} rescued")), "{rescued}");
    ensure!(
        rescued.stderr.contains("A third party that has the token can connect"),
        "{rescued}"
    );
    ensure!(!rescued.to_string().contains(&old), "{rescued}");
    is_rescued(&fixture, &old, &rescued).await
}

/// A token that is valid again raises an alarm, and `rollback` revokes it.
#[rstest]
#[case::status(TokenStorage::Status, "*/clusterregistrationtokens*")]
#[case::secret(TokenStorage::Secret, "*/secrets/crt-token-*")]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_revokes_a_reactivated_token(#[case] storage: TokenStorage, #[case] path: &str) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "randers").await?;
    let id = fixture.cluster.id.as_str();
    let old = lose(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(On::write().path(path), Fault::Kill(Moment::After));
    let rescue = ["rescue", id, "--reactivate-old-token", "--token-stdin"];
    let rescue = shell
        .crt(rescue.iter().chain(&QUICK))
        .stdin(old.clone())
        .start()
        .await?;
    proxy.victim(rescue.pid()?);
    rescue.finish().await?.expect_killed()?;
    let alarm = format!("a rescue has made the revoked token {} valid again", fingerprint(&old));
    let listed = shell.crt(["list", id]).run().await?.expect(0)?;
    ensure!(listed.stderr.contains(&alarm), "{listed}");
    let status = shell.crt(["status", id]).run().await?.expect(0)?;
    ensure!(
        status.stdout.contains(&alarm) && status.stdout.contains("a rescue is in progress"),
        "{status}"
    );
    let rotate = shell.crt(["rotate", id, "--yes"]).run().await?.expect(1)?;
    ensure!(rotate.stderr.contains(&format!("`kubectl crt rescue {id}")), "{rotate}");
    let rolled_back = shell
        .follow(&listed, "kubectl crt rollback", &["--yes"])
        .await?
        .expect(0)?;
    ensure!(
        !fixture
            .rancher
            .report(&fixture.cluster)
            .await?
            .accepted
            .contains(&fingerprint(&old)),
        "{rolled_back}"
    );
    let listed = shell.crt(["list", id]).run().await?.expect(0)?;
    ensure!(!listed.stderr.contains(&alarm), "{listed}");
    Ok(())
}

/// The refusal of `rotate` names the command.
#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_through_rancher_as_rotate_says(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "esbjerg").await?;
    let id = fixture.cluster.id.as_str();
    let unknown = &unknown_to_rancher(&fixture.cluster);
    // The agent works until it is restarted.
    fixture.rancher.set_agent_token(&fixture.cluster, unknown).await?;
    let refused = fixture.shell.crt(["rotate", id, "--yes"]).run().await?.expect(1)?;
    let rescued = fixture
        .shell
        .follow(&refused, "kubectl crt rescue", &QUICK)
        .await?
        .expect(0)?;
    is_rescued(&fixture, unknown, &rescued).await
}

/// A command that was killed between the two runs, or in the second one.
#[rstest]
#[case::between(Moment::Before)]
#[case::in_the_rotation(Moment::After)]
#[tokio::test(flavor = "multi_thread")]
async fn rescue_resumes_with_the_rotation(#[case] moment: Moment) -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Status, "vejle").await?;
    let id = fixture.cluster.id.as_str();
    fixture.rancher.delete_agent_secret(&fixture.cluster).await?;
    let old = fixture.rancher.token_values(&fixture.cluster).await?["system"].clone();
    let (proxy, shell) = fixture.behind_proxy().await?;
    // With this token storage only the rotation writes one.
    proxy.plan(On::write().path("*/clusterregistrationtokens*"), Fault::Kill(moment));
    let rescue: Vec<&str> = ["rescue", id].into_iter().chain(QUICK).collect();
    let run = shell.crt(&rescue).start().await?;
    proxy.victim(run.pid()?);
    run.finish().await?.expect_killed()?;
    let resumed = shell.crt(&rescue).run().await?.expect(0)?;
    is_rescued(&fixture, &old, &resumed).await
}

/// The context is found by the CA of the cluster, among many.
#[tokio::test(flavor = "multi_thread")]
async fn rescue_finds_the_context_by_the_ca() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "horsens").await?;
    let id = fixture.cluster.id.as_str();
    let old = lose(&fixture).await?;
    let mut kubeconfig = Kubeconfig::read(fixture.shell.kubeconfig())?;
    for number in 0..200 {
        let name = format!("other-{number}");
        let server = format!("https://10.255.255.1:{}", 2000 + number);
        let token = test_cluster::Identity::Token("unused".to_owned());
        kubeconfig = kubeconfig.context(&name, &server, fixture.downstream.authority().ca_pem(), &token);
    }
    let own = ("own-address", &fixture.cluster, &User::admin());
    let (proxy, kubeconfig) = fixture.rancher.with_own_address(kubeconfig, own).await?;
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let rescue = ["rescue", id, "--match-contexts"];
    let rescued = shell.crt(rescue.iter().chain(&QUICK)).run().await?.expect(0)?;
    ensure!(
        rescued.stderr.contains("using context own-address, which has its CA"),
        "{rescued}"
    );
    ensure!(!proxy.writes().is_empty(), "{}", proxy.transcript());
    is_rescued(&fixture, &old, &rescued).await
}

/// A Rancher that was restored from a backup: every agent has a token that is newer, and one cluster has no context.
#[tokio::test(flavor = "multi_thread")]
async fn rescue_of_thirty_clusters_does_not_stop_after_a_failure() -> Result<()> {
    const COUNT: usize = 30;
    let fixture = RancherFixture::begin(TokenStorage::Secret, "restored-0").await?;
    let rancher = fixture.rancher;
    let names: Vec<String> = (1..COUNT).map(|number| format!("restored-{number}")).collect();
    let registered = names
        .iter()
        .map(async |name| rancher.register_as(&Registration::imported(name).quick()).await);
    let mut clusters: Vec<Registered> = stream::iter(registered).buffered(6).try_collect().await?;
    clusters.insert(0, fixture.cluster.clone());

    let backup = rancher.backup(&clusters.iter().collect::<Vec<_>>()).await?;
    let ids: Vec<&str> = clusters.iter().map(|cluster| cluster.id.as_str()).collect();
    let rotate = ["rotate"].iter().chain(&ids);
    let flags = ["--yes", "--settle", "0s", "--jitter", "0s", "--max-parallel", "10"];
    fixture.shell.crt(rotate.chain(&flags)).run().await?.expect(0)?;
    rancher.restore(&backup).await?;
    try_join_all(clusters.iter().map(|cluster| rancher.restart_agent(cluster))).await?;
    try_join_all(clusters.iter().map(|cluster| is_lost(&fixture, cluster))).await?;

    let mut kubeconfig = Kubeconfig::read(fixture.shell.kubeconfig())?;
    for cluster in &clusters[1..] {
        kubeconfig = rancher.with_cluster(kubeconfig, cluster, &User::admin());
    }
    let (proxy, kubeconfig) = with_proxy(&fixture, kubeconfig).await?;
    let shell = Shell::new(TestEnvironment::shared().await?, &kubeconfig)?;
    let contexts = ids[1..]
        .iter()
        .map(|id| format!("--downstream-context={id}={id}-direct"));
    let rescue: Vec<String> = ["rescue"]
        .iter()
        .chain(&ids)
        .map(|word| (*word).to_owned())
        .chain(contexts)
        .collect();
    let words = |flags: &[&str]| {
        rescue
            .iter()
            .cloned()
            .chain(flags.iter().map(|flag| (*flag).to_owned()))
            .collect::<Vec<_>>()
    };

    let planned = shell.crt(words(&["--dry-run", "-o", "json"])).run().await?.expect(0)?;
    let document: Value = serde_json::from_str(&planned.stdout)?;
    let rows = document["items"].as_array().context("no items")?;
    let ways: Vec<&Value> = rows.iter().map(|row| &row["way"]).collect();
    ensure!(ways.len() == COUNT && ways[0].is_null(), "{planned}");
    ensure!(ways[1..].iter().all(|way| **way == json!("context")), "{planned}");
    ensure!(proxy.writes().is_empty(), "{}", proxy.transcript());

    let rescued = shell
        .crt(words(&["--yes", "--settle", "0s", "-o", "json"]))
        .run()
        .await?
        .expect(1)?;
    let document: Value = serde_json::from_str(&rescued.stdout)?;
    let results = document["items"].as_array().context("no items")?;
    let outcomes: Vec<&Value> = results.iter().map(|result| &result["outcome"]).collect();
    ensure!(
        outcomes[0] == "failed" && outcomes[1..].iter().all(|outcome| **outcome == "rescued"),
        "{rescued}"
    );
    ensure!(rescued.stderr.contains("1 of 30 rescues did not succeed"), "{rescued}");
    for cluster in &clusters[1..] {
        let report = rancher.report(cluster).await?;
        ensure!(report.connected_since.is_some(), "{} {report:?}\n{rescued}", cluster.id);
    }
    Ok(())
}
