//! `create`, `generate` and `extend`: what is made is right, what would be wrong is refused, and the clock is the server's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Desk;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testbed::{Bed, Fault, FaultProxy, Kubeconfig, Moment, On, Upstream};

use crate::cluster::{self, KUBEADM_GROUP, Printed, Raw, bare, data_of, desk};

fn seconds_left(expiration: &str) -> Result<i64> {
    Ok(expiration.parse::<Timestamp>()?.as_second() - Timestamp::now().as_second())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_as_it_was_asked_for_and_is_let_in() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let flags = [
        "--ttl",
        "2h",
        "--groups",
        "system:bootstrappers:a,system:bootstrappers:b:c",
        "--description",
        "für Knoten 7",
        "-l",
        "rack=7,row=b",
    ];
    let token = cluster::create(&desk, &flags).await?;
    let data = data_of(plane, &token.id).await?;
    ensure!(data["auth-extra-groups"] == "system:bootstrappers:a,system:bootstrappers:b:c");
    ensure!(data["description"] == "für Knoten 7");
    ensure!(data["usage-bootstrap-authentication"] == "true" && data["usage-bootstrap-signing"] == "true");
    ensure!(
        (7190..=7200).contains(&seconds_left(&data["expiration"])?),
        "{}",
        data["expiration"]
    );
    let by_label = desk
        .bootstrap_token(["list", "-l", "rack=7,row=b", "-o", "name"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        by_label.stdout == format!("secret/bootstrap-token-{}\n", token.id),
        "{by_label}"
    );
    let verified = desk.bootstrap_token(["verify", &token.id]).run().await?.expect(0)?;
    ensure!(
        verified.stdout.contains(&format!("system:bootstrap:{}", token.id)),
        "{verified}"
    );
    ensure!(verified.stdout.contains("system:bootstrappers:b:c"), "{verified}");
    ensure!(cluster::is_let_in(plane, &token.text).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_flags_a_token_lives_an_hour_and_is_in_kubeadms_group() -> Result<()> {
    let plane = bare().await?;
    let token = cluster::create(&desk(plane).await?, &[]).await?;
    let data = data_of(plane, &token.id).await?;
    ensure!(data["auth-extra-groups"] == KUBEADM_GROUP);
    ensure!(
        (3590..=3600).contains(&seconds_left(&data["expiration"])?),
        "{}",
        data["expiration"]
    );
    Ok(())
}

#[rstest]
#[case::zero(&["--ttl", "0"], "--never-expires")]
#[case::negative(&["--ttl", "-1h"], "--never-expires")]
#[case::long(&["--ttl", "25h"], "--allow-long")]
#[case::masters(&["--groups", "system:masters"], "does not begin with system:bootstrappers:")]
#[case::space(&["--groups", "system:bootstrappers:a, system:bootstrappers:b"], "has a space in it")]
#[case::comma(&["--groups", "system:bootstrappers:a,"], "a comma too many")]
#[case::usage(&["--usages", "everything"], "authentication or signing")]
#[case::groups_of_a_signer(&["--usages", "signing", "--groups", "system:bootstrappers:a"], "not for authentication")]
#[case::secret_of_a_dry_run(&["--dry-run", "-o", "json", "--show-token"], "makes no token")]
#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_work_is_refused_before_anything_is_asked(
    #[case] flags: &[&str],
    #[case] said: &str,
) -> Result<()> {
    let desk = desk(bare().await?).await?;
    // Nobody listens there.
    let args = ["create", "--server", "https://127.0.0.1:1"].iter().chain(flags);
    let refused = desk.bootstrap_token(args).run().await?.expect(2)?;
    ensure!(refused.stdout.is_empty() && refused.stderr.contains(said), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dangerous_must_be_spelled_out() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let long = cluster::create(&desk, &["--ttl", "25h", "--allow-long"]).await?;
    ensure!(seconds_left(&data_of(plane, &long.id).await?["expiration"])? > 24 * 3600);
    let eternal = cluster::create(&desk, &["--never-expires"]).await?;
    ensure!(!data_of(plane, &eternal.id).await?.contains_key("expiration"));
    ensure!(cluster::row(&desk, &eternal.id).await?["expiresAt"].is_null());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_token_can_be_made_once() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    let generated = desk
        .bootstrap_token(["generate", "--server", "https://127.0.0.1:1"])
        .run()
        .await?
        .expect(0)?;
    let token = Printed::read(&generated.stdout)?;
    let made = desk
        .bootstrap_token(["create", "--token-stdin"])
        .stdin(generated.stdout.clone())
        .run()
        .await?
        .expect(0)?;
    ensure!(made.stdout == generated.stdout);
    let again = desk
        .bootstrap_token(["create", "--token-stdin"])
        .stdin(generated.stdout)
        .run()
        .await?
        .expect(1)?;
    ensure!(again.stderr.contains("already exists"), "{again}");
    cluster::shows_nothing_of(&again, token.secret())
}

/// A proxy in front of the cluster, and a desk behind it.
async fn behind_proxy() -> Result<(FaultProxy, Desk)> {
    let plane = bare().await?;
    let proxy = FaultProxy::start([Upstream::admin_of(plane)]).await?;
    let kubeconfig = proxy.redirect(Kubeconfig::read(plane.kubeconfig())?);
    Ok((proxy, Desk::new(Bed::shared().await?, &kubeconfig)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_id_is_drawn_again() -> Result<()> {
    let (proxy, desk) = behind_proxy().await?;
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "AlreadyExists", "code": 409,
        "message": "secrets \"bootstrap-token-xxxxxx\" already exists",
    });
    let taken = Fault::Say {
        status: 409,
        body: body.to_string(),
    };
    proxy.plan(On::write().path("*/namespaces/kube-system/secrets").times(3), taken);
    let token = cluster::create(&desk, &[]).await?;
    let posts: Vec<_> = proxy
        .writes()
        .into_iter()
        .filter(|write| write.path.ends_with("/secrets"))
        .collect();
    ensure!(posts.len() == 4, "{}", proxy.transcript());
    data_of(bare().await?, &token.id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_creation_was_not_answered_is_found_and_not_made_twice() -> Result<()> {
    let (proxy, desk) = behind_proxy().await?;
    proxy.plan(On::write().path("*/namespaces/kube-system/secrets"), Fault::LoseAnswer);
    let token = cluster::create(&desk, &["-l", "story=unanswered"]).await?;
    let listed = desk
        .bootstrap_token(["list", "-l", "story=unanswered", "-o", "name"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        listed.stdout == format!("secret/bootstrap-token-{}\n", token.id),
        "{listed}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_the_api_servers() -> Result<()> {
    let (proxy, desk) = behind_proxy().await?;
    // The client's clock is ten minutes slow, as far as the client can tell.
    proxy.clock_ahead(Duration::from_mins(10));
    let token = cluster::create(&desk, &["--ttl", "1h"]).await?;
    let left = seconds_left(&data_of(bare().await?, &token.id).await?["expiration"])?;
    ensure!((4190..=4201).contains(&left), "{left}");
    let listed = desk.bootstrap_token(["list"]).run().await?.expect(0)?;
    let line = listed
        .stdout
        .lines()
        .find(|line| line.starts_with(&token.id))
        .context("not listed")?;
    ensure!(line.contains("   59m   ") || line.contains("   60m   "), "{line}");
    let extended = desk
        .bootstrap_token(["extend", &token.id, "--ttl", "2h"])
        .run()
        .await?
        .expect(0)?;
    ensure!(extended.stdout.contains("extended"), "{extended}");
    let left = seconds_left(&data_of(bare().await?, &token.id).await?["expiration"])?;
    ensure!((7790..=7801).contains(&left), "{left}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_moves_the_end_and_keeps_what_it_does_not_know() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    Raw::new("ext001")
        .with("expiration", "2999-01-01T00:00:00Z")
        .with("usage-of-others", "kept")
        .create(plane)
        .await?;
    let shortened = desk
        .bootstrap_token(["extend", "ext001", "--ttl", "90m"])
        .run()
        .await?
        .expect(0)?;
    ensure!(
        shortened.stdout.contains("shortened from 2999-01-01T00:00:00Z"),
        "{shortened}"
    );
    let data = data_of(plane, "ext001").await?;
    ensure!((5390..=5400).contains(&seconds_left(&data["expiration"])?) && data["usage-of-others"] == "kept");
    let dry = desk
        .bootstrap_token(["extend", "ext001", "--ttl", "3h", "--dry-run=server"])
        .run()
        .await?
        .expect(0)?;
    ensure!(dry.stdout.contains("(server dry run)"), "{dry}");
    ensure!(data_of(plane, "ext001").await? == data, "a dry run has changed it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_refuses_what_cannot_be_extended() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    Raw::new("ext002").create(plane).await?;
    let api = cluster::secrets(plane, "kube-system").await?;
    let immutable = Patch::Merge(json!({ "immutable": true }));
    api.patch("bootstrap-token-ext002", &PatchParams::default(), &immutable)
        .await?;
    let refused = desk
        .bootstrap_token(["extend", "ext002", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(refused.stderr.contains("immutable"), "{refused}");
    let gone = desk
        .bootstrap_token(["extend", "zzzzzz", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(gone.stderr.contains("no bootstrap token zzzzzz"), "{gone}");
    let without = desk.bootstrap_token(["extend", "ext002"]).run().await?.expect(2)?;
    ensure!(without.stderr.contains("--ttl"), "{without}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_ended_is_not_brought_back() -> Result<()> {
    let plane = bare().await?;
    let desk = desk(plane).await?;
    // The finalizer keeps what the cleaner deletes at once.
    let mut ended = Raw::new("ended1").with("expiration", "2020-01-01T00:00:00Z");
    ended.secret.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    ended.create(plane).await?;
    let refused = desk
        .bootstrap_token(["extend", "ended1", "--ttl", "1h"])
        .run()
        .await?
        .expect(1)?;
    ensure!(refused.stderr.contains("has ended already"), "{refused}");
    e2e::until("the cleaner to delete it", async || {
        Ok((cluster::row(&desk, "ended1").await?["state"] == "deleting").then_some(()))
    })
    .await?;
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let api = cluster::secrets(plane, "kube-system").await?;
    api.patch("bootstrap-token-ended1", &PatchParams::default(), &release)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_does_not_overwrite_what_somebody_else_has_changed() -> Result<()> {
    let plane = bare().await?;
    let (proxy, desk) = behind_proxy().await?;
    Raw::new("ext003")
        .with("expiration", "2999-01-01T00:00:00Z")
        .create(plane)
        .await?;
    // The change is on its way when somebody else makes one.
    let held = proxy.plan(
        On::write().path("*/bootstrap-token-ext003"),
        Fault::Stop(Moment::Before),
    );
    let extending = desk
        .bootstrap_token(["extend", "ext003", "--ttl", "1h"])
        .start()
        .await?;
    let pid = extending.pid()?;
    proxy.victim(pid);
    tokio::time::timeout(e2e::PATIENCE, held.strikes()).await?;
    let theirs = Patch::Merge(json!({ "metadata": { "labels": { "theirs": "yes" } } }));
    let api = cluster::secrets(plane, "kube-system").await?;
    api.patch("bootstrap-token-ext003", &PatchParams::default(), &theirs)
        .await?;
    held.release();
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(pid, Signal::CONT)?;
    let refused = extending.finish().await?.expect(1)?;
    ensure!(refused.stderr.contains("somebody else has changed it"), "{refused}");
    ensure!(data_of(plane, "ext003").await?["expiration"] == "2999-01-01T00:00:00Z");
    Ok(())
}
