//! The journal says what is under way; the objects say what is true.

use anyhow::{Result, ensure};
use engine::journal::VERSION;
use rstest::rstest;
use serde_json::json;
use testbed::{Fault, Moment, On};

use crate::premises::Premises;
use crate::runner::Ended;

const JOURNAL: &str = "kubectl-rotation.github.io/journal";

#[rstest]
#[case::from_a_newer_release(format!(r#"{{"version":{},"phase":"teleport","s3cr3t":1}}"#, VERSION + 1), "newer release")]
#[case::that_is_malformed(r#"{"version":1,"run":"s3cr3t"#.to_owned(), "malformed")]
#[case::that_is_of_something_else("s3cr3t".to_owned(), "malformed")]
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_left_alone(#[case] text: String, #[case] because: &str) -> Result<()> {
    let premises = Premises::open().await?;
    premises
        .plant_lease(json!({ "metadata": { "annotations": { JOURNAL: text } } }))
        .await?;
    let (proxy, order) = premises.order().await?;
    for order in [order.clone(), order.back()] {
        let ended = order.run().await?;
        let Ended::Unreadable(message) = ended else {
            anyhow::bail!("{ended:?}")
        };
        ensure!(message.contains(because) && !message.contains("s3cr3t"), "{message}");
        ensure!(premises.journal().await?.as_ref() == Some(&text));
        ensure!(premises.record().await?.is_some_and(|record| record.holder.is_none()));
    }
    let of_the_product = proxy
        .writes()
        .iter()
        .filter(|write| write.path.contains("/secrets/"))
        .count();
    ensure!(of_the_product == 0, "{}", proxy.transcript());
    ensure!(premises.worn().await? == premises.start);
    Ok(())
}

/// Runs until it is killed there.
async fn killed(premises: &Premises, on: On, moment: Moment) -> Result<()> {
    let (proxy, order) = premises.order().await?;
    proxy.plan(on, Fault::Kill(moment));
    let process = order.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none(), "{}", proxy.transcript());
    Ok(())
}

/// Runs again; gives back how many writes of the product there were.
async fn finished(premises: &Premises) -> Result<usize> {
    let (proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await?;
    Ok(proxy
        .writes()
        .iter()
        .filter(|write| write.path.contains("/secrets/"))
        .count())
}

fn issuer(nth: usize) -> On {
    On::write().path("*/secrets/issuer").nth(nth)
}

async fn new_badge(premises: &Premises) -> Result<client::secret::Fingerprint> {
    let mut issued = premises.issued().await?;
    issued.remove(&premises.start);
    anyhow::Context::context(issued.pop_first(), "no new badge")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_badge_that_somebody_revoked_is_issued_anew() -> Result<()> {
    let premises = Premises::open().await?;
    killed(&premises, issuer(1), Moment::After).await?;
    let lost = new_badge(&premises).await?;
    premises.revoke_by_hand(lost).await?;
    ensure!(finished(&premises).await? == 3);
    ensure!(premises.worn().await? != lost);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_badge_that_somebody_handed_back_is_replaced_again() -> Result<()> {
    let premises = Premises::open().await?;
    // The journal says that the new one is proven and the old one is about to be revoked.
    killed(&premises, issuer(2), Moment::Before).await?;
    ensure!(
        premises
            .journal()
            .await?
            .unwrap_or_default()
            .contains(r#""phase":"retire""#)
    );
    premises.hand_by_hand(premises.start).await?;
    ensure!(finished(&premises).await? == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_done_already_is_not_done_again() -> Result<()> {
    let premises = Premises::open().await?;
    killed(&premises, issuer(2), Moment::Before).await?;
    premises.revoke_by_hand(premises.start).await?;
    ensure!(finished(&premises).await? == 0);
    Ok(())
}
