//! `rotate`: another token takes the place of the one that Argo CD has, and the old one is dead.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use client::secret::Fingerprint;
use e2e::shown;
use insta::assert_snapshot;
use serde_json::json;
use testbed::{Fault, Moment, On, User};

use crate::bench::{Bench, config, token};

/// Names that differ from run to run.
async fn plain(bench: &Bench, text: &str, old: &str) -> Result<String> {
    let secret = bench.cluster_secret().await?;
    let mut plain = text.replace(&secret.metadata.name.clone().unwrap_or_default(), "<secret>");
    let new = token(&secret)?;
    for (value, word) in [(old, "<old>"), (&new, "<new>")] {
        let name = value.split(':').next().unwrap_or_default();
        let print = Fingerprint::of(value).to_string();
        plain = plain
            .replace(name, word)
            .replace(&print, &format!("{word} fingerprint"));
    }
    Ok(shown(&plain))
}

#[tokio::test(flavor = "multi_thread")]
async fn argocd_gets_another_token_and_the_old_one_is_refused() -> Result<()> {
    let bench = Bench::begin("narvik").await?;
    bench
        .run(&["add", bench.id(), "-l", "team=blue"])
        .run()
        .await?
        .expect(0)?;
    let before = bench.secret().await?;
    let old = token(&before)?;
    let done = bench
        .run(&["rotate", bench.id(), "--grace", "1s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    let new = bench.is_rotated(&old).await?;
    assert_snapshot!(plain(&bench, &done.stderr, &old).await?, @r"
    Rotation of cluster narvik (c-id123):
      survey   Argo CD has <old> (<old> fingerprint), Rancher lets it in; Argo CD has no reason to call the cluster, so its use of the new one will not be seen
      make     park <old>, which is in use
               mint a new token for this cluster alone
               park <new>
               wait for Rancher to let <new> in
      place    put <new> into the cluster Secret
      prove    wait for Argo CD to have no old copy left that it could write back (--grace)
      retire   revoke <old>: delete it in Rancher
      confirm  wait for Rancher to refuse <old>
               delete what was parked
    What dies with the old values:
      <old> (<old> fingerprint): whatever else calls Rancher with it
    make     park <old>, which is in use
    make     mint a new token for this cluster alone
    make     park <new>
    place    put <new> into the cluster Secret
    prove    waiting for Argo CD to have no old copy left that it could write back (--grace)
    retire   revoke <old>: delete it in Rancher
    confirm  delete what was parked
    Argo CD reaches cluster narvik (c-id123) with <new>, until <time>.
    ");
    assert_snapshot!(plain(&bench, &done.stdout, &old).await?, @"secret/<secret> rotated");
    let after = bench.secret().await?;
    ensure!(after.metadata.uid == before.metadata.uid, "it was made anew");
    ensure!(after.metadata.labels == before.metadata.labels, "labels have changed");
    let (mut was, is) = (config(&before)?, config(&after)?);
    was["bearerToken"] = json!(new);
    ensure!(was == is, "more than the token has changed");
    ensure!(
        !done.to_string().contains(&new) && !done.to_string().contains(&old),
        "a token was shown"
    );
    let status = bench.status().await?;
    ensure!(
        status["rotation"].is_null() && status["lastResult"] == "rotated",
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_the_plan_and_touches_nothing() -> Result<()> {
    let bench = Bench::begin("bodo").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let before = bench.secret().await?;
    let old = token(&before)?;
    let planned = bench
        .run(&["rotate", bench.id(), "--dry-run=server"])
        .run()
        .await?
        .expect(0)?;
    assert_snapshot!(plain(&bench, &planned.stdout, &old).await?, @r"
    Rotation of cluster bodo (c-id123):
      survey   Argo CD has <old> (<old> fingerprint), Rancher lets it in; Argo CD has no reason to call the cluster, so its use of the new one will not be seen
      make     park <old>, which is in use (server dry run)
               mint a new token for this cluster alone (not checked: Rancher has no dry run)
               park <new> (not checked: Rancher has no dry run)
               wait for Rancher to let <new> in
      place    put <new> into the cluster Secret (server dry run)
      prove    wait for Argo CD to have no old copy left that it could write back (--grace)
      retire   revoke <old>: delete it in Rancher (not checked: Rancher has no dry run)
      confirm  wait for Rancher to refuse <old>
               delete what was parked (not checked: Rancher has no dry run)
    What dies with the old values:
      <old> (<old> fingerprint): whatever else calls Rancher with it
    ");
    ensure!(
        bench.secret().await? == before && bench.living().await?.len() == 1,
        "something was touched"
    );
    let asked = bench.run(&["rotate", bench.id()]).run().await?.expect(1)?;
    ensure!(asked.stderr.contains("no terminal to confirm it on"), "{asked}");
    ensure!(bench.secret().await? == before, "something was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_argocd_writes_back_is_put_right() -> Result<()> {
    let bench = Bench::begin("alta").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let before = bench.secret().await?;
    let (old, stale) = (token(&before)?, config(&before)?);
    let run = bench
        .run(&["rotate", bench.id(), "--grace", "5s", "--yes"])
        .start()
        .await?;
    e2e::until("the swap", async || {
        Ok((token(&bench.cluster_secret().await?)? != old).then_some(()))
    })
    .await?;
    bench.overwrite(&before, &stale).await?;
    let done = run.finish().await?.expect(0)?;
    bench.is_rotated(&old).await?;
    let puts = done.stderr.matches("into the cluster Secret").count();
    // One of them is the plan's.
    ensure!(puts == 3, "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_ours_or_that_others_use_is_ended_by_nobody() -> Result<()> {
    let bench = Bench::begin("vardo").await?;
    let login =
        json!({"bearerToken": User::admin().token, "tlsClientConfig": {"insecure": false, "caData": bench.ca_data()}});
    bench.by_hand("shared", &bench.server(), &login).await?;
    let not_ours = bench.run(&["rotate", "shared", "--yes"]).run().await?.expect(1)?;
    ensure!(not_ours.stderr.contains("is not a token of"), "{not_ours}");
    bench
        .by_hand("other", &bench.server().replace(bench.id(), "local"), &login)
        .await?;
    let shared = bench.run(&["rotate", "shared", "--yes"]).run().await?.expect(1)?;
    ensure!(shared.stderr.contains("is in other Secrets too: other"), "{shared}");
    let args = ["rotate", "shared", "--keep-old", "--grace", "1s", "--yes"];
    let kept = bench.run(&args).run().await?.expect(0)?;
    ensure!(kept.stderr.contains("The old token is alive still"), "{kept}");
    let secret = bench.secrets.get("shared").await?;
    ensure!(token(&secret)? != User::admin().token, "nothing was changed");
    let (labels, data) = (
        secret.metadata.labels.unwrap_or_default(),
        secret.data.unwrap_or_default(),
    );
    ensure!(
        labels["team"] == "blue" && data["shard"].0 == b"3",
        "what is not ours has changed"
    );
    ensure!(bench.lets_in(&User::admin().token).await?, "the old one is refused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_secrets_for_one_cluster_are_refused() -> Result<()> {
    let bench = Bench::begin("hammerfest").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let first = bench.secret().await?;
    bench.by_hand("second", &bench.server(), &config(&first)?).await?;
    let name = first.metadata.name.clone().context("no name")?;
    let refused = bench.run(&["rotate", &name, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("are both for"), "{refused}");
    ensure!(bench.living().await?.len() == 1, "something was minted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_is_replaced_too() -> Result<()> {
    let bench = Bench::begin("mosjoen").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let name = bench.living().await?.remove(0);
    bench
        .story
        .rancher
        .change_token(&name, &json!({"expired": true}))
        .await?;
    let args = ["rotate", "--all", "--within", "30d", "--grace", "0s", "--yes"];
    let done = bench.run(&args).run().await?.expect(0)?;
    ensure!(done.stderr.contains("Rancher refuses it"), "{done}");
    bench.is_rotated(&old).await?;
    let nothing = bench
        .run(&["rotate", "--within", "30d", "--exit-code"])
        .run()
        .await?
        .expect(3)?;
    ensure!(nothing.stderr.contains("No token ends within"), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_offline_is_no_reason_to_hang_or_to_guess() -> Result<()> {
    let bench = Bench::begin("roros").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let (rancher, cluster) = (bench.story.rancher, &bench.story.cluster);
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let refused = bench.run(&["rotate", bench.id(), "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--force=offline"), "{refused}");
    ensure!(bench.living().await?.len() == 1, "something was minted");
    ensure!(refused.took < Duration::from_mins(1), "it hung for {:?}", refused.took);
    let args = ["rotate", bench.id(), "--force=offline", "--grace", "0s", "--yes"];
    bench.run(&args).run().await?.expect(0)?;
    rancher.online(cluster).await?;
    e2e::until("the agent to be back", async || {
        Ok(bench.lets_in(&token(&bench.secret().await?)?).await?.then_some(()))
    })
    .await?;
    bench.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_goes_offline_before_the_proof_leads_back() -> Result<()> {
    let bench = Bench::begin("oppdal").await?;
    bench.run(&["add", bench.id()]).run().await?.expect(0)?;
    let old = token(&bench.secret().await?)?;
    let (rancher, cluster) = (bench.story.rancher, &bench.story.cluster);
    let (proxy, desk) = bench.behind_proxy().await?;
    // Right before the mint.
    let mint = testbed::On::write().path("*/v3/tokens*");
    let planned = proxy.plan(mint, testbed::Fault::Stall(Duration::from_secs(3)));
    let args = ["rotate", bench.id(), "--timeout", "12s", "--grace", "0s", "--yes"];
    let run = bench.run_at(&desk, &args).start().await?;
    planned.strikes().await;
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let back = run.finish().await?.expect(1)?;
    ensure!(back.stderr.contains("to let token-"), "{back}");
    rancher.online(cluster).await?;
    e2e::until("the agent to be back", async || {
        Ok(bench.lets_in(&old).await?.then_some(()))
    })
    .await?;
    bench.is_restored(&old).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_clusters_one_that_cannot_be_rotated_keeps_none_of_the_others() -> Result<()> {
    let bench = Bench::begin("namsos").await?;
    let (rancher, ids) = (bench.story.rancher, bench.id());
    let second = rancher.register("namsos-two").await?;
    bench.run(&["add", ids, &second.id]).run().await?.expect(0)?;
    rancher.offline(&second, Duration::from_mins(10)).await?;
    let args = [
        "rotate", ids, &second.id, "--grace", "0s", "--jitter", "0s", "--yes", "-o", "json",
    ];
    let ended = bench.run(&args).run().await?.expect(1)?;
    let results: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let outcome = |at: usize| results["items"][at]["outcome"].as_str().unwrap_or_default().to_owned();
    ensure!([outcome(0), outcome(1)] == ["rotated", "refused"], "{ended}");
    ensure!(ended.stderr.contains("1 of 2 did not end well"), "{ended}");
    ensure!(ended.stderr.contains("--force=offline"), "{ended}");
    rancher.online(&second).await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_link_it_finishes_at_once_and_after_a_kill() -> Result<()> {
    for killed in [false, true] {
        let bench = Bench::begin(if killed { "kirkenes" } else { "vardo" }).await?;
        bench.run(&["add", bench.id()]).run().await?.expect(0)?;
        let old = token(&bench.secret().await?)?;
        let (proxy, desk) = bench.behind_proxy().await?;
        proxy.delay(On::request(), Duration::from_millis(100));
        let rotate = ["rotate", bench.id(), "--grace", "0s", "--yes"];
        if killed {
            // Right after Rancher has given out the new token.
            proxy.plan(On::write().path("/v3/token*"), Fault::Kill(Moment::After));
            let run = bench.run_at(&desk, &rotate).start().await?;
            proxy.victim(run.pid()?);
            run.finish().await?.expect_killed()?;
        }
        bench.run_at(&desk, &rotate).run().await?.expect(0)?;
        bench.is_rotated(&old).await?;
    }
    Ok(())
}
