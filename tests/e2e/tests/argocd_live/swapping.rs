//! What Argo CD does when its token is exchanged under its hands: the ground on which a rotation stands.

use anyhow::Result;
use e2e::until;
use k8s_openapi::jiff::Timestamp;

use crate::bench::{Bench, PATIENCE, Token};
use crate::meddling::Meddling;
use crate::waiting::a_sync_that_waits;

async fn is_used(bench: &Bench, token: &Token, since: Timestamp) -> Result<()> {
    let what = format!("Argo CD to use {}", token.name);
    let rancher = bench.story.rancher;
    until(&what, PATIENCE, async || {
        Ok(rancher.was_used(&token.name, since)?.then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_swapped_in_place_during_a_sync_costs_no_call() -> Result<()> {
    let bench = Bench::added("graz").await?;
    let sync = a_sync_that_waits(&bench).await?;
    let (old, new) = (bench.token_in_place().await?, bench.mint().await?);
    let since = Timestamp::now();
    bench.swap(&new).await?;
    is_used(&bench, &new, since).await?;
    bench.revoke(&old).await?;
    let end = sync.goes_on_and_ends().await?;
    assert_eq!(end.phase, "Succeeded", "{end:?}");
    let refused = bench.story.rancher.refused_calls(&[&old.name, &new.name], since)?;
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(bench.becomes("Successful").await?.message, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_fails_a_running_sync_and_rancher_refuses_its_calls() -> Result<()> {
    let bench = Bench::added("linz").await?;
    let sync = a_sync_that_waits(&bench).await?;
    let dead = bench.mint().await?;
    bench.revoke(&dead).await?;
    let since = Timestamp::now();
    bench.swap(&dead).await?;
    let end = sync.goes_on_and_ends().await?;
    assert_eq!(end.phase, "Error", "{end:?}");
    let refused = bench.story.rancher.refused_calls(&[&dead.name], since)?;
    assert!(!refused.is_empty());
    assert!(!bench.story.rancher.was_used(&dead.name, since)?);
    Ok(())
}

/// Why a rotation must look again: a plain patch that has succeeded is not there to stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_does_not_look_again_is_lost_to_a_late_write_and_one_that_does_is_not() -> Result<()> {
    const SWAPS: usize = 200;
    let bench = Bench::added("wels").await?;
    let servers = [bench.server()];
    let (mut here, mut there) = (bench.token_in_place().await?, bench.mint().await?);
    let meddling = Meddling::by_invalidation(&bench, &servers, 2).and_from_a_late_copy(&bench, &servers);
    let mut lost = 0;
    for _ in 0..SWAPS {
        let before = meddling.writes();
        bench.swap(&there).await?;
        // What was under way at the swap is over once each loop has written twice.
        let what = "the writes that were under way";
        until(what, PATIENCE, async || {
            Ok((meddling.writes() >= before + 6).then_some(()))
        })
        .await?;
        if bench.token_in_place().await?.name == here.name {
            lost += 1;
            break;
        }
        std::mem::swap(&mut here, &mut there);
    }
    assert_eq!(
        lost,
        1,
        "in {SWAPS} swaps among {} writes none was lost",
        meddling.writes()
    );

    // Put right until nobody who has an older copy is left.
    let mut quiet_since = meddling.writes();
    until("the new token to stay", PATIENCE, async || {
        if bench.token_in_place().await?.name != there.name {
            bench.swap(&there).await?;
            quiet_since = meddling.writes();
        }
        Ok((meddling.writes() >= quiet_since + 12).then_some(()))
    })
    .await?;
    meddling.end().await;
    assert_eq!(bench.token_in_place().await?.name, there.name);
    // Notes of ours outlive all of it.
    let annotations = bench.secret().await?.metadata.annotations.unwrap_or_default();
    assert!(
        annotations.contains_key("kubectl-rotation.github.io/token"),
        "{annotations:?}"
    );
    Ok(())
}
