//! What Argo CD does when its token is exchanged under its hands: the ground on which a rotation stands.

use anyhow::Result;
use e2e::until;
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;

use crate::bench::{Bench, Token};
use crate::fleet::{alive, fleet, in_place, servers};
use crate::meddling::Meddling;
use crate::waiting::a_sync_that_waits;

async fn is_used(bench: &Bench, token: &Token, since: Timestamp) -> Result<()> {
    let what = format!("Argo CD to use {}", token.name);
    until(&what, async || Ok(bench.uses(token, since)?.then_some(()))).await
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
    let refused = bench.refused(&[&old, &new], since)?;
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
    assert!(!bench.refused(&[&dead], since)?.is_empty());
    assert!(!bench.uses(&dead, since)?);
    Ok(())
}

/// Why a rotation must look again: a plain patch that has succeeded is not there to stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_nobody_looks_after_is_lost_to_a_late_write() -> Result<()> {
    const SWAPS: usize = 100;
    let bench = Bench::added("wels").await?;
    let (mut here, mut there) = (bench.token_in_place().await?, bench.mint().await?);
    let meddling = Meddling::by_invalidation(&bench, &[bench.server()], 2).and_from_a_late_copy(&bench);
    for _ in 0..SWAPS {
        bench.swap(&there).await?;
        meddling.turns_over().await?;
        if bench.token_in_place().await?.name == here.name {
            return Ok(());
        }
        std::mem::swap(&mut here, &mut there);
    }
    let writes = meddling.end().await;
    anyhow::bail!("in {SWAPS} swaps among {writes} writes none was lost")
}

/// What a rotation does, by hand: it puts the new token back until nobody is left who could take it away.
async fn rotated_by_hand(bench: &Bench, meddling: &Meddling) -> Result<()> {
    let (old, new) = (bench.token_in_place().await?, bench.mint().await?);
    loop {
        bench.swap(&new).await?;
        meddling.turns_over().await?;
        if bench.token_in_place().await?.name == new.name {
            return bench.revoke(&old).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_that_look_again_leave_no_old_token_in_place_and_none_alive() -> Result<()> {
    let fleet = fleet("enns", 4).await?;
    let before = in_place(&fleet).await?;
    assert_eq!(alive(&fleet).await?, before);
    let meddling = Meddling::by_invalidation(&fleet[0], &servers(&fleet), 2).and_from_a_late_copy(&fleet[0]);
    for _ in 0..2 {
        try_join_all(fleet.iter().map(|bench| rotated_by_hand(bench, &meddling))).await?;
    }
    let writes = meddling.end().await;
    assert!(writes > 4 * fleet.len(), "{writes} writes");
    let after = in_place(&fleet).await?;
    assert_eq!(alive(&fleet).await?, after);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    // What the plugin has noted on the Secrets outlives all of Argo CD's writes.
    let annotations = fleet[0].secret().await?.metadata.annotations.unwrap_or_default();
    assert!(
        annotations.contains_key("kubectl-rotation.github.io/token"),
        "{annotations:?}"
    );
    Ok(())
}
