//! `kubectl crt rotate` when nothing goes wrong: the new token works, the old one is dead, and nobody was cut off. What
//! a dry run says is what is done, and it does nothing.

use anyhow::{Context as _, Result, ensure};
use e2e::{Desk, Story};
use rstest::rstest;
use serde_json::{Value, json};
use testbed::{Era, Request};

use crate::state::{self, Scope, State};
use crate::writes::{essence, is_lease};

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_by_its_name_gets_new_tokens_and_the_old_ones_are_dead(#[case] era: Era) -> Result<()> {
    // A name that no other story has.
    let story = Story::begin(era, "helsinki").await?;
    let start = State::of(&story).await?;
    let rotate = ["crt", "rotate", "helsinki", "--yes", "--settle", "1s"];
    story.desk.kubectl(rotate).run().await?.expect(0)?;
    let rotated = state::rotated(&story, &start, Scope::All).await?;
    redeployed_without_a_change(&story, &rotated).await
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn only_the_agents_token_changes_where_that_is_asked_for(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "lima").await?;
    let start = State::of(&story).await?;
    let rotate = [
        "rotate",
        &story.cluster.id,
        "--only-agent",
        "--yes",
        "--settle",
        "1s",
        "-o",
        "json",
    ];
    let outcome = story.desk.crt(rotate).run().await?.expect(0)?;
    let rotated = state::rotated(&story, &start, Scope::OnlyAgent).await?;

    let document: Value = serde_json::from_str(&outcome.stdout)?;
    let said = ["outcome", "exitCode", "oldFingerprint", "newFingerprint"].map(|key| &document[key]);
    let (old, new) = (json!(start.named()), json!(rotated.named()));
    assert_eq!(said, [&json!("rotated"), &json!(0), &old, &new], "{outcome}");
    let last = document["remarks"].as_array().and_then(|remarks| remarks.last());
    let last = last.and_then(Value::as_str).context("no remarks")?;
    assert!(
        last.starts_with("Not changed: registration token default-token."),
        "{last}"
    );
    Ok(())
}

/// Rancher deploys the agent anew, and finds everything as it would have made it.
async fn redeployed_without_a_change(story: &Story, before: &State) -> Result<()> {
    story.rancher.redeploy(&story.cluster).await?;
    let after = State::of(story).await?;
    assert_eq!(after.deployment, before.deployment);
    assert_eq!(after.pods, before.pods);
    assert_eq!(after.credentials, before.credentials);
    assert_eq!(after.contents, before.contents);
    Ok(())
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_its_plan_is_what_is_done(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "bern").await?;
    let start = State::of(&story).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let id = story.cluster.id.as_str();

    let by_client = planned(&desk, id, "--dry-run").await?;
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    let tried = |request: &Request| request.query.contains("dryRun=All");
    assert!(!proxy.requests().iter().any(tried), "{}", proxy.transcript());

    let by_server = planned(&desk, id, "--dry-run=server").await?;
    assert!(proxy.writes().is_empty(), "{}", proxy.transcript());
    assert!(proxy.requests().iter().any(tried), "{}", proxy.transcript());
    let now = State::of(&story).await?;
    assert_eq!((&now.tokens, &now.credentials), (&start.tokens, &start.credentials));
    assert_eq!((&now.deployment, &now.pods), (&start.deployment, &start.pods));
    assert!(now.lease.is_none(), "{now:?}");

    let words = |plan: &[Value]| plan.iter().map(|line| line["what"].clone()).collect::<Vec<_>>();
    assert_eq!(words(&by_client), words(&by_server));
    assert!(by_client.iter().all(|line| line["checked"].is_null()), "{by_client:?}");
    // The first line says where it starts from.
    let writes = by_server
        .iter()
        .filter(|line| line["wait"] == false && line["phase"] != "survey");
    assert!(writes.clone().all(|line| line["checked"].is_string()), "{by_server:?}");
    assert!(
        writes.clone().any(|line| line["checked"] == "server dry run"),
        "{by_server:?}"
    );

    let rotate = ["rotate", id, "--yes", "--settle", "1s"];
    desk.crt(rotate).run().await?.expect(0)?;
    let promised: Vec<_> = writes.map(|line| request_of(era, line)).collect::<Result<_>>()?;
    let done: Vec<_> = proxy
        .writes()
        .iter()
        .filter(|write| !is_lease(write))
        .map(essence)
        .collect();
    assert_eq!(done, promised, "{}", proxy.transcript());
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

/// The plan of a dry run, and the text that people get agrees with it.
async fn planned(desk: &Desk, id: &str, dry_run: &str) -> Result<Vec<Value>> {
    let outcome = desk.crt(["rotate", id, dry_run, "-o", "json"]).run().await?.expect(0)?;
    let document: Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(document["outcome"] == "planned", "{outcome}");
    let plan = document["plan"].as_array().context("no plan")?.clone();
    let text = desk.crt(["rotate", id, dry_run]).run().await?.expect(0)?;
    for line in &plan {
        let what = line["what"].as_str().context("a line without words")?;
        ensure!(text.stdout.contains(what), "{what} is not in\n{text}");
    }
    Ok(plan)
}

/// The request that a line of a plan promises.
fn request_of(era: Era, line: &Value) -> Result<String> {
    let what = line["what"].as_str().context("a line without words")?;
    let value_of = |token: &str| match era {
        Era::Plain => format!("PATCH clusterregistrationtokens/{token}"),
        Era::Secret => format!("PATCH secrets/crt-token-{token}"),
    };
    let fixed = [
        ("bridge: ", "POST clusterregistrationtokens"),
        ("create the agent's Secret ", "POST secrets"),
        ("point the agent at ", "PATCH deployments/cattle-cluster-agent"),
        ("release ", "PATCH deployments/cattle-cluster-agent"),
        ("touch the cluster", "PATCH clusters"),
        ("delete the agent's Secret ", "DELETE secrets"),
    ];
    if let Some((_, request)) = fixed.iter().find(|(words, _)| what.starts_with(words)) {
        return Ok((*request).to_owned());
    }
    if let Some(name) = what.strip_prefix("renew registration token ") {
        return Ok(value_of(name));
    }
    if what.starts_with("mint: ") || what.ends_with("drop it as the previous token of system") {
        return Ok(value_of("system"));
    }
    ensure!(what.ends_with("delete its bridge"), "no request is known for {what:?}");
    Ok("DELETE clusterregistrationtokens/zz-".to_owned())
}
