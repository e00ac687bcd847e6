//! `kubectl crt rotate`: undisturbed rotations and dry runs.

mod broken_agent;
mod concurrent_runs;
mod faults;
mod kill_matrix;
mod other_writers;
mod permissions;
mod refusals;
mod terminal;
mod without_permissions_downstream;
mod wrong_cluster;

use anyhow::{Context as _, Result, ensure};
use e2e::{RancherFixture, Shell};
use rstest::rstest;
use serde_json::{Value, json};
use test_cluster::{Registration, Request, TokenStorage};

use crate::state::{self, Scope, State};
use crate::writes::{essence, is_lease};

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_all_tokens_and_revokes_the_old_ones(#[case] storage: TokenStorage) -> Result<()> {
    // The name is unique among the tests.
    let fixture = RancherFixture::begin(storage, "helsinki").await?;
    let start = State::of(&fixture).await?;
    let rotate = ["crt", "rotate", "helsinki", "--yes", "--settle", "1s"];
    let done = fixture.shell.kubectl(rotate).run().await?.expect(0)?;
    let rotated = state::rotated(&fixture, &start, Scope::All).await?;
    redeploy_changes_nothing(&fixture, &rotated).await?;

    // The last line names the command that closes earlier connections.
    let management = ["--context", "management", "-n", "cattle-system", "create"];
    let namespace = ["namespace", "cattle-system"];
    // It may exist.
    fixture.shell.kubectl(management.iter().chain(&namespace)).run().await?;
    let deployment = ["deployment", "rancher", "--image=rancher", "--replicas=0"];
    let create = management.iter().chain(&deployment);
    fixture.shell.kubectl(create).run().await?.expect(0)?;
    let restart = "kubectl -n cattle-system rollout restart deployment/rancher";
    let restarted = fixture.shell.follow(&done, restart, &[]).await?.expect(0)?;
    ensure!(restarted.stdout.contains("restarted"), "{restarted}");
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_only_agent_changes_only_the_agents_token(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lima").await?;
    let start = State::of(&fixture).await?;
    let rotate = [
        "rotate",
        &fixture.cluster.id,
        "--only-agent",
        "--yes",
        "--settle",
        "1s",
        "-o",
        "json",
    ];
    let outcome = fixture.shell.crt(rotate).run().await?.expect(0)?;
    let rotated = state::rotated(&fixture, &start, Scope::OnlyAgent).await?;

    let document: Value = serde_json::from_str(&outcome.stdout)?;
    let values = ["outcome", "exitCode", "oldFingerprint", "newFingerprint"].map(|key| &document[key]);
    let (old, new) = (json!(start.named()), json!(rotated.named()));
    assert_eq!(values, [&json!("rotated"), &json!(0), &old, &new], "{outcome}");
    let last = document["remarks"].as_array().and_then(|remarks| remarks.last());
    let last = last.and_then(Value::as_str).context("no remarks")?;
    assert!(
        last.starts_with("Not rotated in cluster ")
            && last.contains(": registration token default-token (Rancher still accepts "),
        "{last}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_continues_after_a_name_that_is_unknown_or_ambiguous() -> Result<()> {
    let fixture = RancherFixture::begin(TokenStorage::Secret, "quito").await?;
    let twins = Registration::imported("guayaquil").quick();
    tokio::try_join!(fixture.rancher.register_as(&twins), fixture.rancher.register_as(&twins))?;
    let start = State::of(&fixture).await?;
    let rotate = ["rotate", "no-such-cluster", "guayaquil", &fixture.cluster.id];
    let flags = ["--yes", "--settle", "1s", "--jitter", "0s", "-o", "json"];
    let ended = fixture.shell.crt(rotate.iter().chain(&flags)).run().await?.expect(1)?;
    state::rotated(&fixture, &start, Scope::All).await?;
    let document: Value = serde_json::from_str(&ended.stdout)?;
    let outcomes = [0, 1, 2].map(|at| document["items"][at]["outcome"].as_str().unwrap_or_default());
    ensure!(outcomes == ["rotated", "failed", "failed"], "{ended}");
    ensure!(
        ended.stderr.contains("cluster \"no-such-cluster\" not found")
            && ended.stderr.contains("2 clusters have the name \"guayaquil\"")
            && ended.stderr.contains("2 of 3 rotations did not succeed"),
        "{ended}"
    );
    Ok(())
}

/// A redeploy by Rancher changes nothing.
async fn redeploy_changes_nothing(fixture: &RancherFixture, before: &State) -> Result<()> {
    fixture.rancher.redeploy(&fixture.cluster).await?;
    let after = State::of(fixture).await?;
    assert_eq!(after.deployment, before.deployment);
    assert_eq!(after.pods, before.pods);
    assert_eq!(after.credentials, before.credentials);
    assert_eq!(after.contents, before.contents);
    Ok(())
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn dry_run_changes_nothing_and_rotate_follows_its_plan(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "bern").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let id = fixture.cluster.id.as_str();

    let by_client = plan_of(&shell, id, "--dry-run").await?;
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    let is_dry_run = |request: &Request| request.query.contains("dryRun=All");
    assert!(!proxy.requests().iter().any(is_dry_run), "{}", proxy.transcript());

    let by_server = plan_of(&shell, id, "--dry-run=server").await?;
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    assert!(proxy.requests().iter().any(is_dry_run), "{}", proxy.transcript());
    let now = State::of(&fixture).await?;
    assert_eq!((&now.tokens, &now.credentials), (&start.tokens, &start.credentials));
    assert_eq!((&now.deployment, &now.pods), (&start.deployment, &start.pods));
    assert!(now.lease.is_none(), "{now:?}");

    let texts = |plan: &[Value]| plan.iter().map(|line| line["what"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(&by_client), texts(&by_server));
    assert!(by_client.iter().all(|line| line["checked"].is_null()), "{by_client:?}");
    // The first line describes the start.
    let writes = by_server
        .iter()
        .filter(|line| line["wait"] == false && line["phase"] != "survey");
    assert!(writes.clone().all(|line| line["checked"].is_string()), "{by_server:?}");
    assert!(
        writes.clone().any(|line| line["checked"] == "server dry run"),
        "{by_server:?}"
    );

    let rotate = ["rotate", id, "--yes", "--settle", "1s"];
    shell.crt(rotate).run().await?.expect(0)?;
    let planned: Vec<_> = writes.map(|line| request_of(storage, line)).collect::<Result<_>>()?;
    let sent: Vec<_> = proxy
        .writes()
        .iter()
        .filter(|write| !is_lease(write))
        .map(essence)
        .collect();
    assert_eq!(sent, planned, "{}", proxy.transcript());
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

/// The plan of a dry run. The text output must agree with it.
async fn plan_of(shell: &Shell, id: &str, dry_run: &str) -> Result<Vec<Value>> {
    let outcome = shell
        .crt(["rotate", id, dry_run, "-o", "json"])
        .run()
        .await?
        .expect(0)?;
    let document: Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(document["outcome"] == "planned", "{outcome}");
    let plan = document["plan"].as_array().context("no plan")?.clone();
    let text = shell.crt(["rotate", id, dry_run]).run().await?.expect(0)?;
    for line in &plan {
        let what = line["what"].as_str().context("a line without text")?;
        ensure!(text.stdout.contains(what), "{what} is not in\n{text}");
    }
    Ok(plan)
}

/// The request that a line of a plan announces.
fn request_of(storage: TokenStorage, line: &Value) -> Result<String> {
    let what = line["what"].as_str().context("a line without text")?;
    let value_of = |token: &str| match storage {
        TokenStorage::Status => format!("PATCH clusterregistrationtokens/{token}"),
        TokenStorage::Secret => format!("PATCH secrets/crt-token-{token}"),
    };
    let fixed = [
        (
            "create a temporary registration token ",
            "POST clusterregistrationtokens",
        ),
        ("create the agent's Secret ", "POST secrets"),
        ("point the agent at ", "PATCH deployments/cattle-cluster-agent"),
        ("release the rollout", "PATCH deployments/cattle-cluster-agent"),
        ("annotate the cluster,", "PATCH clusters"),
        ("delete the agent's Secret ", "DELETE secrets"),
    ];
    if let Some((_, request)) = fixed.iter().find(|(text, _)| what.starts_with(text)) {
        return Ok((*request).to_owned());
    }
    if let Some(name) = what.strip_prefix("set a new value on registration token ") {
        return Ok(value_of(name.trim_matches('"')));
    }
    if what.ends_with("drop it as the previous token of \"system\"") {
        return Ok(value_of("system"));
    }
    ensure!(
        what.ends_with("delete its temporary registration token"),
        "no request is known for {what:?}"
    );
    Ok("DELETE clusterregistrationtokens/zz-".to_owned())
}
