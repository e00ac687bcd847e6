//! `kubectl argocd-rancher rotate`

mod interrupted;
mod kill_matrix;
mod other_writers;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use client::secret::Fingerprint;
use e2e::{Invocation, RancherFixture, mask_output};
use insta::assert_snapshot;
use kube::api::ListParams;
use rustix::process::Signal;
use serde_json::json;
use test_cluster::{Fault, Moment, On, TokenStorage, User};

use crate::fixture::{Fixture, config, token};
use crate::tokens::{is_valid, issue_token, name_of_secret};

/// Masks the names that differ from run to run.
async fn plain(fixture: &Fixture, text: &str, old: &str) -> Result<String> {
    let secret = fixture.cluster_secret().await?;
    let mut plain = text.replace(&secret.metadata.name.clone().unwrap_or_default(), "<secret>");
    let new = token(&secret)?;
    for (value, word) in [(old, "<old>"), (&new, "<new>")] {
        let name = value.split(':').next().unwrap_or_default();
        let print = Fingerprint::of(value).to_string();
        plain = plain
            .replace(name, word)
            .replace(&print, &format!("{word} fingerprint"));
    }
    Ok(mask_output(&plain))
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_the_token_and_revokes_the_old_one() -> Result<()> {
    let fixture = Fixture::begin("narvik").await?;
    fixture
        .run(&["add", fixture.id(), "-l", "team=blue"])
        .run()
        .await?
        .expect(0)?;
    let before = fixture.secret().await?;
    let old = token(&before)?;
    let done = fixture
        .run(&["rotate", fixture.id(), "--grace", "1s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    let new = fixture.is_rotated(&old).await?;
    assert_snapshot!(plain(&fixture, &done.stderr, &old).await?, @r"
    Rotation of cluster narvik (c-id123):
      survey   Argo CD has <old> (<old> fingerprint), Rancher accepts it; Argo CD has no reason to call the cluster, so its use of the new token will not be observed
      make     back up <old>, which is in use
               issue a new token for this cluster only
               back up <new>
               wait for Rancher to accept <new>
      place    write <new> to the cluster Secret
      prove    wait for Argo CD to drop every stale copy that it could write back (--grace)
      retire   revoke <old>: delete it in Rancher
      confirm  wait for Rancher to reject <old>
               delete the backup Secret
    Also invalidated:
      <old> (<old> fingerprint): other clients that use this token
    make     back up <old>, which is in use
    make     issue a new token for this cluster only
    make     back up <new>
    place    write <new> to the cluster Secret
    prove    waiting for Argo CD to drop every stale copy that it could write back (--grace)
    retire   revoke <old>: delete it in Rancher
    confirm  delete the backup Secret
    Argo CD reaches cluster narvik (c-id123) with <new>, valid until <time>.
    ");
    assert_snapshot!(plain(&fixture, &done.stdout, &old).await?, @"secret/<secret> rotated");
    let after = fixture.secret().await?;
    ensure!(
        after.metadata.uid == before.metadata.uid,
        "the Secret was created again"
    );
    ensure!(after.metadata.labels == before.metadata.labels, "labels have changed");
    let (mut was, is) = (config(&before)?, config(&after)?);
    was["bearerToken"] = json!(new);
    ensure!(was == is, "more than the token has changed");
    ensure!(
        !done.to_string().contains(&new) && !done.to_string().contains(&old),
        "a token was printed"
    );
    let status = fixture.status().await?;
    ensure!(
        status["rotation"].is_null() && status["lastResult"] == "rotated",
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_dry_run_prints_the_plan_and_changes_nothing() -> Result<()> {
    let fixture = Fixture::begin("bodo").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let before = fixture.secret().await?;
    let old = token(&before)?;
    let planned = fixture
        .run(&["rotate", fixture.id(), "--dry-run=server"])
        .run()
        .await?
        .expect(0)?;
    assert_snapshot!(plain(&fixture, &planned.stdout, &old).await?, @r"
    Rotation of cluster bodo (c-id123):
      survey   Argo CD has <old> (<old> fingerprint), Rancher accepts it; Argo CD has no reason to call the cluster, so its use of the new token will not be observed
      make     back up <old>, which is in use (server dry run)
               issue a new token for this cluster only (not checked: Rancher has no dry run)
               back up <new> (not checked: Rancher has no dry run)
               wait for Rancher to accept <new>
      place    write <new> to the cluster Secret (server dry run)
      prove    wait for Argo CD to drop every stale copy that it could write back (--grace)
      retire   revoke <old>: delete it in Rancher (not checked: Rancher has no dry run)
      confirm  wait for Rancher to reject <old>
               delete the backup Secret (not checked: Rancher has no dry run)
    Also invalidated:
      <old> (<old> fingerprint): other clients that use this token
    ");
    ensure!(
        fixture.secret().await? == before && fixture.valid_tokens().await?.len() == 1,
        "something was changed"
    );
    let asked = fixture.run(&["rotate", fixture.id()]).run().await?.expect(1)?;
    ensure!(asked.stderr.contains("no terminal to confirm it on"), "{asked}");
    ensure!(fixture.secret().await? == before, "something was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_repairs_a_stale_copy_that_was_written_back() -> Result<()> {
    let fixture = Fixture::begin("alta").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let before = fixture.secret().await?;
    let (old, stale) = (token(&before)?, config(&before)?);
    let run = fixture
        .run(&["rotate", fixture.id(), "--grace", "5s", "--yes"])
        .start()
        .await?;
    e2e::until("the swap", async || {
        Ok((token(&fixture.cluster_secret().await?)? != old).then_some(()))
    })
    .await?;
    fixture.overwrite(&before, &stale).await?;
    let done = run.finish().await?.expect(0)?;
    fixture.is_rotated(&old).await?;
    let puts = done.stderr.matches("to the cluster Secret").count();
    // One of them is a line of the plan.
    ensure!(puts == 3, "{done}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_keeps_shared_and_foreign_tokens() -> Result<()> {
    let fixture = Fixture::begin("vardo").await?;
    let login = json!({"bearerToken": User::admin().token, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("shared", &fixture.server(), &login).await?;
    let not_ours = fixture.run(&["rotate", "shared", "--yes"]).run().await?.expect(1)?;
    ensure!(not_ours.stderr.contains("is not a token of"), "{not_ours}");
    fixture
        .by_hand("other", &fixture.server().replace(fixture.id(), "local"), &login)
        .await?;
    let shared = fixture.run(&["rotate", "shared", "--yes"]).run().await?.expect(1)?;
    ensure!(shared.stderr.contains("is in other Secrets too: other"), "{shared}");
    let args = ["rotate", "shared", "--keep-old", "--grace", "1s", "--yes"];
    let kept = fixture.run(&args).run().await?.expect(0)?;
    ensure!(kept.stderr.contains("The old token is still valid"), "{kept}");
    let secret = fixture.secrets.get("shared").await?;
    ensure!(token(&secret)? != User::admin().token, "nothing was changed");
    let (labels, data) = (
        secret.metadata.labels.unwrap_or_default(),
        secret.data.unwrap_or_default(),
    );
    ensure!(
        labels["team"] == "blue" && data["shard"].0 == b"3",
        "a foreign field has changed"
    );
    ensure!(
        fixture.accepts(&User::admin().token).await?,
        "the old token is rejected"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_two_secrets_for_one_cluster() -> Result<()> {
    let fixture = Fixture::begin("hammerfest").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let first = fixture.secret().await?;
    fixture.by_hand("second", &fixture.server(), &config(&first)?).await?;
    let name = first.metadata.name.clone().context("no name")?;
    let refused = fixture.run(&["rotate", &name, "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("are both for"), "{refused}");
    ensure!(fixture.valid_tokens().await?.len() == 1, "a token was issued");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_output_stops_no_rotation_and_leaves_no_lock() -> Result<()> {
    let fixture = Fixture::begin("tromso").await?;
    let second = RancherFixture::begin(TokenStorage::Secret, "trondheim").await?;
    let add = fixture.run(&["add", fixture.id(), &second.cluster.id]);
    add.run_with_closed_output().await?.expect(0)?;
    let tokens = async || {
        let secrets = fixture.secrets.list(&ListParams::default()).await?;
        secrets.items.iter().map(token).collect::<Result<Vec<_>>>()
    };
    let before = tokens().await?;
    ensure!(before.len() == 2, "{} clusters were added", before.len());
    let args = [
        "rotate",
        "--all",
        "--grace",
        "0s",
        "--jitter",
        "0s",
        "--max-parallel",
        "1",
        "--yes",
    ];
    fixture.run(&args).run_with_closed_output().await?.expect(0)?;
    let after = tokens().await?;
    ensure!(
        after.len() == 2 && after.iter().all(|token| !before.contains(token)),
        "not all were rotated"
    );
    let leases = fixture.leases().await?;
    for lease in leases.list(&ListParams::default()).await? {
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        ensure!(
            holder.is_none_or(|holder| holder.is_empty()),
            "{:?} is locked",
            lease.metadata.name
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_replaces_an_expired_token() -> Result<()> {
    let fixture = Fixture::begin("mosjoen").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let name = fixture.valid_tokens().await?.remove(0);
    fixture
        .base
        .rancher
        .change_token(&name, &json!({"expired": true}))
        .await?;
    let args = ["rotate", "--all", "--within", "30d", "--grace", "0s", "--yes"];
    let done = fixture.run(&args).run().await?.expect(0)?;
    ensure!(done.stderr.contains("Rancher rejects it"), "{done}");
    fixture.is_rotated(&old).await?;
    let nothing = fixture
        .run(&["rotate", "--within", "30d", "--exit-code"])
        .run()
        .await?
        .expect(3)?;
    ensure!(nothing.stderr.contains("No token expires within"), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_a_disconnected_agent_unless_forced() -> Result<()> {
    let fixture = Fixture::begin("roros").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let refused = fixture.run(&["rotate", fixture.id(), "--yes"]).run().await?.expect(1)?;
    ensure!(refused.stderr.contains("--force=offline"), "{refused}");
    ensure!(fixture.valid_tokens().await?.len() == 1, "a token was issued");
    ensure!(refused.took < Duration::from_mins(1), "it took {:?}", refused.took);
    let args = ["rotate", fixture.id(), "--force=offline", "--grace", "0s", "--yes"];
    fixture.run(&args).run().await?.expect(0)?;
    rancher.online(cluster).await?;
    e2e::until("the agent to reconnect", async || {
        Ok(fixture.accepts(&token(&fixture.secret().await?)?).await?.then_some(()))
    })
    .await?;
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_rolls_back_when_the_agent_disconnects_before_it_is_verified() -> Result<()> {
    let fixture = Fixture::begin("oppdal").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let (rancher, cluster) = (fixture.base.rancher, &fixture.base.cluster);
    let (proxy, shell) = fixture.behind_proxy().await?;
    // Right before the new token is issued.
    let issue = test_cluster::On::write().path("*/v3/tokens*");
    let planned = proxy.plan(issue, test_cluster::Fault::Stall(Duration::from_secs(3)));
    let args = ["rotate", fixture.id(), "--timeout", "12s", "--grace", "0s", "--yes"];
    let run = fixture.run_at(&shell, &args).start().await?;
    planned.strikes().await;
    rancher.offline(cluster, Duration::from_mins(10)).await?;
    let back = run.finish().await?.expect(1)?;
    ensure!(back.stderr.contains("Rancher to accept token-"), "{back}");
    rancher.online(cluster).await?;
    e2e::until("the agent to reconnect", async || {
        Ok(fixture.accepts(&old).await?.then_some(()))
    })
    .await?;
    fixture.is_restored(&old).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_continues_after_a_cluster_that_cannot_be_rotated() -> Result<()> {
    let fixture = Fixture::begin("namsos").await?;
    let (rancher, ids) = (fixture.base.rancher, fixture.id());
    let second = rancher.register("namsos-two").await?;
    fixture.run(&["add", ids, &second.id]).run().await?.expect(0)?;
    rancher.offline(&second, Duration::from_mins(10)).await?;
    let args = [
        "rotate", ids, &second.id, "--grace", "0s", "--jitter", "0s", "--yes", "-o", "json",
    ];
    let ended = fixture.run(&args).run().await?.expect(1)?;
    let results: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let outcome = |at: usize| results["items"][at]["outcome"].as_str().unwrap_or_default().to_owned();
    ensure!([outcome(0), outcome(1)] == ["rotated", "refused"], "{ended}");
    ensure!(ended.stderr.contains("1 of 2 rotations did not succeed"), "{ended}");
    ensure!(ended.stderr.contains("--force=offline"), "{ended}");
    rancher.online(&second).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_continues_after_an_unknown_cluster() -> Result<()> {
    let fixture = Fixture::begin("brekstad").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let args = ["rotate", "nowhere", fixture.id(), "--grace", "0s", "--jitter", "0s"];
    let args = [&args[..], &["--yes", "-o", "json"]].concat();
    let ended = fixture.run(&args).run().await?.expect(1)?;
    fixture.is_rotated(&old).await?;
    let results: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let outcomes = [0, 1].map(|at| results["items"][at]["outcome"].as_str().unwrap_or_default());
    ensure!(outcomes == ["rotated", "failed"], "{ended}");
    ensure!(results["items"][1]["metadata"]["name"] == "nowhere", "{ended}");
    ensure!(
        ended.stderr.contains("cluster \"nowhere\" not found")
            && ended.stderr.contains("1 of 2 rotations did not succeed"),
        "{ended}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_all_lists_what_it_refuses_and_rotates_the_rest() -> Result<()> {
    let fixture = Fixture::begin("sortland").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let name = name_of_secret(&fixture).await?;
    let old = token(&fixture.secret().await?)?;
    let login = json!({"execProviderConfig": {"command": "x"}, "tlsClientConfig": {"insecure": false}});
    let server = fixture.server().replace(fixture.id(), "c-zzzzz");
    fixture.by_hand("broken", &server, &login).await?;
    let args = ["rotate", "--all", "--grace", "0s", "--jitter", "0s", "--yes"];
    let ended = fixture.run(&args).run().await?.expect(1)?;
    ensure!(
        ended.stdout.contains(&format!("secret/{name} rotated"))
            && ended.stderr.contains("cannot rotate cluster broken (c-zzzzz)")
            && ended.stderr.contains("1 of 2 rotations did not succeed")
            && !ended.stderr.contains("cluster broken (c-zzzzz): cannot rotate cluster"),
        "{ended}"
    );
    fixture.delete("broken").await?;
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_within_leaves_tokens_of_other_users() -> Result<()> {
    let fixture = Fixture::begin("harstad").await?;
    let login = json!({"bearerToken": User::viewer().token, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("viewers", &fixture.server(), &login).await?;
    let args = ["rotate", "--within", "30d", "--exit-code", "--yes"];
    let nothing = fixture.run(&args).run().await?.expect(3)?;
    ensure!(nothing.stderr.contains("Skipping 1 clusters whose token"), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_refuses_without_the_permission_to_list_applications() -> Result<()> {
    let fixture = Fixture::begin("finnsnes").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let old = token(&fixture.secret().await?)?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let forbidden = Fault::Answer {
        status: 403,
        retry_after: None,
    };
    proxy.plan(On::read().path("*/applications").always(), forbidden);
    let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
    let refused = fixture.run_at(&shell, &rotate).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("it is unknown whether Applications are deployed")
            && refused.stderr.contains("--force=use"),
        "{refused}"
    );
    let forced = [&rotate[..], &["--force=use"]].concat();
    let forced = fixture.run_at(&shell, &forced).run().await?.expect(0)?;
    ensure!(
        forced.stderr.contains("will not be observed (--force=use)") && !forced.stderr.contains("no reason to call"),
        "{forced}"
    );
    fixture.is_rotated(&old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_tells_that_another_run_holds_the_lock() -> Result<()> {
    let fixture = Fixture::begin("bardufoss").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    let rotate = ["rotate", fixture.id(), "--grace", "10m", "--yes"];
    let run = fixture.run(&rotate).start().await?;
    fixture.reaches("prove").await?;
    let planned = fixture
        .run(&["rotate", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(0)?;
    ensure!(planned.stderr.contains("is held by"), "{planned}");
    run.signal(Signal::INT)?;
    run.finish().await?.expect(130)?;
    let planned = fixture
        .run(&["rotate", fixture.id(), "--dry-run"])
        .run()
        .await?
        .expect(0)?;
    ensure!(!planned.stderr.contains("is held by"), "{planned}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_over_a_slow_link_finishes_and_resumes_after_a_kill() -> Result<()> {
    for killed in [false, true] {
        let fixture = Fixture::begin(if killed { "kirkenes" } else { "vardo" }).await?;
        fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
        let old = token(&fixture.secret().await?)?;
        let (proxy, shell) = fixture.behind_proxy().await?;
        proxy.delay(On::request(), Duration::from_millis(100));
        let rotate = ["rotate", fixture.id(), "--grace", "0s", "--yes"];
        if killed {
            // Right after Rancher has issued the new token.
            proxy.plan(On::write().path("/v3/token*"), Fault::Kill(Moment::After));
            let run = fixture.run_at(&shell, &rotate).start().await?;
            proxy.victim(run.pid()?);
            run.finish().await?.expect_killed()?;
        }
        fixture.run_at(&shell, &rotate).run().await?.expect(0)?;
        fixture.is_rotated(&old).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_commands_own_login_is_never_revoked() -> Result<()> {
    let fixture = Fixture::begin("rjukan").await?;
    let (name, value) = issue_token(&fixture, "by hand", None).await?;
    let login = json!({"bearerToken": value, "tlsClientConfig": {"insecure": false, "caData": fixture.ca_data()}});
    fixture.by_hand("own", &fixture.server(), &login).await?;
    let (ca, file) = (
        fixture.base.shell.home().join("ca.crt"),
        fixture.base.shell.home().join("token"),
    );
    std::fs::write(&ca, fixture.base.rancher.ca_pem())?;
    std::fs::write(&file, &value)?;
    let (ca, file) = (ca.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let as_itself = |args: &[&str]| -> Invocation {
        let url = ["--rancher-url", fixture.base.rancher.url()];
        let with = ["--rancher-token-file", &file, "--rancher-certificate-authority", &ca];
        fixture.bare(&[args, url.as_slice(), with.as_slice()].concat())
    };
    let refused = as_itself(&["rotate", "own", "--yes"]).run().await?.expect(1)?;
    ensure!(
        refused.stderr.contains("this command logs in to Rancher with it"),
        "{refused}"
    );
    let removed = as_itself(&["remove", "own", "--yes", "--force=foreign-token"])
        .run()
        .await?;
    ensure!(
        removed.stderr.contains("this command logs in to Rancher with"),
        "{removed}"
    );
    ensure!(is_valid(&fixture, &name).await?, "it was revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_does_not_mistake_use_by_others_for_argocd() -> Result<()> {
    let fixture = Fixture::begin("narvik-use").await?;
    fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
    fixture.application().await?;
    let old = token(&fixture.secret().await?)?;
    // Nothing here reports the use by Argo CD.
    let rotate = ["rotate", fixture.id(), "--grace", "1s", "--yes"];
    let refused = fixture.run(&rotate).run().await?.expect(1)?;
    ensure!(
        refused
            .stderr
            .contains("Argo CD's use of the new token could not be observed")
            && refused.stderr.contains("--force=use"),
        "{refused}"
    );
    let forced = fixture
        .run(&[&rotate[..], &["--force=use"]].concat())
        .run()
        .await?
        .expect(0)?;
    ensure!(!forced.stderr.contains("Argo CD to use"), "{forced}");
    fixture.is_rotated(&old).await?;
    Ok(())
}
