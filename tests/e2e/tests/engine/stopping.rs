//! Where a run stops, and what it leaves.

use std::time::Duration;

use anyhow::{Result, ensure};
use engine::phase::{Goal, Phase};
use serde_json::json;
use testbed::{Fault, On};
use tokio::sync::watch;

use crate::premises::{CLOSED, Consumer, ISSUER, Premises};
use crate::runner::{Because, Ended};

#[tokio::test(flavor = "multi_thread")]
async fn an_undisturbed_rotation_leaves_a_record() -> Result<()> {
    let premises = Premises::open().await?;
    let (_proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await?;
    // And the next one begins from there.
    let first = premises.worn().await?;
    order.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await?;
    ensure!(premises.worn().await? != first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_releases_the_lock_and_keeps_the_journal() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (_proxy, order) = premises.order().await?;
    let (stop, receiver) = watch::channel(false);
    let stopped = async {
        premises.reaches("prove").await?;
        stop.send_replace(true);
        anyhow::Ok(())
    };
    let (ended, stopped) = tokio::join!(order.run_until(receiver), stopped);
    stopped?;
    let pending = Ended::Pending {
        phase: Phase::Prove,
        goal: Goal::Forward,
        because: Because::Asked,
    };
    ensure!(ended? == pending);
    let record = premises.record().await?.unwrap_or_default();
    ensure!(record.holder.is_none() && record.journal.is_some(), "{record:?}");

    premises.consumer(Consumer::Calls);
    ensure!(order.run().await? == Ended::Done);
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_before_the_beginning_it_leaves_no_trace() -> Result<()> {
    let premises = Premises::open().await?;
    let (_proxy, order) = premises.order().await?;
    let (_stop, receiver) = watch::channel(true);
    let ended = order.run_until(receiver).await?;
    ensure!(
        matches!(
            &ended,
            Ended::Pending {
                because: Because::Asked,
                ..
            }
        ),
        "{ended:?}"
    );
    ensure!(premises.record().await?.is_none());
    premises.expect_restored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_patience_it_says_what_it_waited_for_and_can_be_gone_on_with() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (proxy, mut order) = premises.order().await?;
    order.patience = Duration::from_secs(3);
    // Nobody is left who could ask it to stop.
    let (_, receiver) = watch::channel(false);
    let ended = order.run_until(receiver).await?;
    let what = format!("a call with {}", premises.worn().await?);
    let pending = Ended::Pending {
        phase: Phase::Prove,
        goal: Goal::Forward,
        because: Because::OutOfPatience(what),
    };
    ensure!(ended == pending, "{ended:?}");
    // Three reads each 400 ms, not a spin.
    let requests = proxy.requests().len();
    ensure!(requests < 80, "{requests} requests in a few seconds");

    premises.consumer(Consumer::Calls);
    ensure!(order.run().await? == Ended::Done);
    premises.expect_rotated().await
}

/// What a run waited for that has run out of patience.
fn waited_for(ended: Ended) -> Result<String> {
    match ended {
        Ended::Pending {
            because: Because::OutOfPatience(what),
            ..
        } => Ok(what),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_without_end_run_into_the_patience() -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, mut order) = premises.order().await?;
    order.patience = Duration::from_secs(3);
    let conflict = Fault::Answer {
        status: 409,
        retry_after: None,
    };
    proxy.plan(On::write().path("*/secrets/consumer").always(), conflict);
    let what = waited_for(order.run().await?)?;
    ensure!(what == "somebody else to stop changing the same object", "{what}");
    proxy.heal();
    ensure!(order.run().await? == Ended::Done);
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_accepted_and_change_nothing_run_into_the_patience() -> Result<()> {
    let premises = Premises::open().await?;
    let (proxy, mut order) = premises.order().await?;
    order.patience = Duration::from_secs(3);
    let unchanged = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "consumer"}});
    let nothing = Fault::Say {
        status: 200,
        body: unchanged.to_string(),
    };
    let accepted = proxy.plan(On::write().path("*/secrets/consumer").always(), nothing);
    let what = waited_for(order.run().await?)?;
    ensure!(what.starts_with("an effect of \"hand "), "{what}");
    // It is tried again, but not in a spin.
    ensure!((6..20).contains(&accepted.struck()), "{} times", accepted.struck());
    proxy.heal();
    ensure!(order.run().await? == Ended::Done);
    premises.expect_rotated().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_in_time_is_undone() -> Result<()> {
    let premises = Premises::open().await?;
    premises.consumer(Consumer::Silent);
    let (_proxy, mut order) = premises.order().await?;
    order.proof = Duration::from_secs(3);
    let back = async {
        e2e::until("the turn", async || {
            let journal = premises.journal().await?.unwrap_or_default();
            Ok(journal.contains(r#""goal":"back""#).then_some(()))
        })
        .await?;
        premises.consumer(Consumer::Calls);
        anyhow::Ok(())
    };
    let (ended, back) = tokio::join!(order.run(), back);
    back?;
    let ended = ended?;
    ensure!(
        matches!(&ended, Ended::Undone(reason) if reason.starts_with("no call with ")),
        "{ended:?}"
    );
    premises.expect_restored().await?;
    ensure!(premises.record().await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unsafe_is_refused_and_leaves_no_trace() -> Result<()> {
    let premises = Premises::open().await?;
    premises
        .edit(
            ISSUER,
            json!({ "metadata": { "annotations": { CLOSED: "for stocktaking" } } }),
        )
        .await?;
    let (_proxy, order) = premises.order().await?;
    ensure!(order.run().await? == Ended::Refused("the issuer is closed".to_owned()));
    ensure!(premises.record().await?.is_none());
    premises.expect_restored().await
}
