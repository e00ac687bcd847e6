//! Killed right before or right after any of its writes, nothing is lost: run again it finishes, or leads back.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use testbed::{Fault, Moment, On};

use crate::premises::Premises;
use crate::runner::Ended;

/// So many at a time on two cores.
const AT_ONCE: usize = 4;

/// Three writes of the product, the Lease's creation and release, and an intent for each. There are more when a phase
/// begins with a wait or the lock is renewed, which depends on how fast the world moves.
const LEAST: usize = 3 + 2 + 3;

/// How many writes an undisturbed rotation has, those of the Lease included.
async fn writes() -> Result<usize> {
    let premises = Premises::open().await?;
    let (proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Done).await?;
    premises.expect_rotated().await?;
    let all = proxy.writes();
    let of_the_product = all.iter().filter(|write| write.path.contains("/secrets/")).count();
    ensure!(of_the_product == 3 && all.len() >= LEAST, "{}", proxy.transcript());
    Ok(all.len())
}

async fn each_point(story: impl AsyncFn(usize, Moment) -> Result<()>) -> Result<()> {
    let points = (1..=writes().await?).flat_map(|nth| [(nth, Moment::Before), (nth, Moment::After)]);
    let stories = points.map(|(nth, moment)| {
        let story = &story;
        async move {
            let told = story(nth, moment).await;
            told.with_context(|| format!("killed {moment:?} write {nth}"))
        }
    });
    stream::iter(stories).buffer_unordered(AT_ONCE).try_collect().await
}

/// Starts a rotation and kills it there. False: this one had no such write, and is done.
async fn killed(premises: &Premises, nth: usize, moment: Moment) -> Result<bool> {
    let (proxy, order) = premises.order().await?;
    let strike = proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let process = order.start()?;
    proxy.victim(process.pid()?);
    let ended = process.finish().await?;
    if nth > LEAST && strike.struck() == 0 && matches!(ended, Some(Ended::Done)) {
        return Ok(false);
    }
    ensure!(
        strike.struck() == 1 && ended.is_none(),
        "{ended:?}\n{}",
        proxy.transcript()
    );
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes() -> Result<()> {
    each_point(async |nth, moment| {
        let premises = Premises::open().await?;
        if !killed(&premises, nth, moment).await? {
            return premises.expect_rotated().await;
        }
        if premises.record().await?.is_some_and(|record| record.last_run.is_some()) {
            return premises.expect_rotated().await;
        }
        let (_proxy, order) = premises.order().await?;
        order.start()?.expect(Ended::Done).await?;
        premises.expect_rotated().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_rolled_back_the_start_is_restored() -> Result<()> {
    each_point(async |nth, moment| {
        let premises = Premises::open().await?;
        if !killed(&premises, nth, moment).await? {
            return premises.expect_rotated().await;
        }
        let journal = premises.journal().await?;
        let (_proxy, order) = premises.order().await?;
        let ended = order.back().start()?.finish().await?;
        match ended.context("it was killed once more")? {
            Ended::Undone(_) => premises.expect_restored().await,
            // The lock was taken, or not even that.
            Ended::NothingToUndo if journal.is_none() && premises.worn().await? == premises.start => {
                premises.expect_restored().await
            }
            Ended::NothingToUndo if journal.is_none() => premises.expect_rotated().await,
            Ended::NothingToUndo => {
                let journal = journal.unwrap_or_default();
                ensure!(
                    journal.contains(r#""phase":"retire""#) || journal.contains(r#""phase":"confirm""#),
                    "{journal}"
                );
                ensure!(premises.journal().await? == Some(journal), "the journal was touched");
                order.start()?.expect(Ended::Done).await?;
                premises.expect_rotated().await
            }
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_the_way_back_it_goes_on_back() -> Result<()> {
    let premises = Premises::open().await?;
    // After the new badge was handed out.
    let (proxy, order) = premises.order().await?;
    let hand = On::write().path("*/secrets/consumer");
    proxy.plan(hand.clone(), Fault::Kill(Moment::After));
    let process = order.start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    // And again after the old one was handed back.
    let (proxy, order) = premises.order().await?;
    proxy.plan(hand, Fault::Kill(Moment::After));
    let process = order.back().start()?;
    proxy.victim(process.pid()?);
    ensure!(process.finish().await?.is_none());
    // Whoever runs it forward now finishes going back first.
    let (_proxy, order) = premises.order().await?;
    order.start()?.expect(Ended::Undone("asked for".to_owned())).await?;
    premises.expect_restored().await
}
