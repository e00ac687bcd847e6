//! How Argo CD behaves when its token is replaced. A rotation relies on it.

use anyhow::Result;
use e2e::until;
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;

use crate::blocked_sync::start_blocked_sync;
use crate::fixture::{Fixture, Token};
use crate::fleet::{fleet, in_place, servers, valid};
use crate::stale_writers::StaleWriters;

async fn is_used(fixture: &Fixture, token: &Token, since: Timestamp) -> Result<()> {
    let what = format!("Argo CD to use {}", token.name);
    until(&what, async || Ok(fixture.uses(token, since)?.then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn swapping_the_token_during_a_sync_causes_no_rejected_call() -> Result<()> {
    let fixture = Fixture::added("graz").await?;
    let sync = start_blocked_sync(&fixture).await?;
    let (old, new) = (fixture.token_in_place().await?, fixture.issue().await?);
    let since = Timestamp::now();
    fixture.swap(&new).await?;
    is_used(&fixture, &new, since).await?;
    fixture.revoke(&old).await?;
    let end = sync.release_and_wait().await?;
    assert_eq!(end.phase, "Succeeded", "{end:?}");
    let refused = fixture.refused(&[&old, &new], since)?;
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(fixture.becomes("Successful").await?.message, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_fails_a_running_sync() -> Result<()> {
    let fixture = Fixture::added("linz").await?;
    let sync = start_blocked_sync(&fixture).await?;
    let revoked = fixture.issue().await?;
    fixture.revoke(&revoked).await?;
    let since = Timestamp::now();
    fixture.swap(&revoked).await?;
    let end = sync.release_and_wait().await?;
    assert_eq!(end.phase, "Error", "{end:?}");
    assert!(!fixture.refused(&[&revoked], since)?.is_empty());
    assert!(!fixture.uses(&revoked, since)?);
    Ok(())
}

/// A rotation must check again, because a successful patch can be reverted.
#[tokio::test(flavor = "multi_thread")]
async fn an_unchecked_swap_is_lost_to_a_stale_write() -> Result<()> {
    const SWAPS: usize = 100;
    let fixture = Fixture::added("wels").await?;
    let (mut here, mut there) = (fixture.token_in_place().await?, fixture.issue().await?);
    let writers = StaleWriters::by_invalidation(&fixture, &[fixture.server()], 2).and_from_a_late_copy(&fixture);
    for _ in 0..SWAPS {
        fixture.swap(&there).await?;
        writers.settle().await?;
        if fixture.token_in_place().await?.name == here.name {
            return Ok(());
        }
        std::mem::swap(&mut here, &mut there);
    }
    let writes = writers.end().await;
    anyhow::bail!("no swap of {SWAPS} was lost among {writes} writes")
}

/// Does by hand what a rotation does: it writes the new token until no stale writer can revert it.
async fn rotated_by_hand(fixture: &Fixture, writers: &StaleWriters) -> Result<()> {
    let (old, new) = (fixture.token_in_place().await?, fixture.issue().await?);
    loop {
        fixture.swap(&new).await?;
        writers.settle().await?;
        if fixture.token_in_place().await?.name == new.name {
            return fixture.revoke(&old).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checked_swaps_leave_no_old_token() -> Result<()> {
    let fleet = fleet("enns", 4).await?;
    let before = in_place(&fleet).await?;
    assert_eq!(valid(&fleet).await?, before);
    let writers = StaleWriters::by_invalidation(&fleet[0], &servers(&fleet), 2).and_from_a_late_copy(&fleet[0]);
    for _ in 0..2 {
        try_join_all(fleet.iter().map(|fixture| rotated_by_hand(fixture, &writers))).await?;
    }
    let writes = writers.end().await;
    assert!(writes > 4 * fleet.len(), "{writes} writes");
    let after = in_place(&fleet).await?;
    assert_eq!(valid(&fleet).await?, after);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    // The annotations of the plugin survive all writes of Argo CD.
    let annotations = fleet[0].secret().await?.metadata.annotations.unwrap_or_default();
    assert!(
        annotations.contains_key("kubectl-rotation.github.io/token"),
        "{annotations:?}"
    );
    Ok(())
}
