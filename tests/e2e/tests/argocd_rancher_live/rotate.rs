//! `rotate` with the real Argo CD: none of its calls is rejected, and none of its writes restores an old token.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;

use crate::blocked_sync::start_blocked_sync;
use crate::fixture::Fixture;
use crate::fleet::{fleet, in_place, servers, valid};
use crate::stale_writers::StaleWriters;

#[tokio::test(flavor = "multi_thread")]
async fn rotate_during_a_sync_causes_no_rejected_call() -> Result<()> {
    let fixture = Fixture::added("krems").await?;
    let sync = start_blocked_sync(&fixture).await?;
    let (old, since) = (fixture.token_in_place().await?, Timestamp::now());
    let done = fixture
        .run(&["rotate", fixture.id(), "--grace", "3s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(done.stderr.contains("wait for Argo CD to use <new>"), "{done}");
    let new = fixture.token_in_place().await?;
    ensure!(
        new.name != old.name && fixture.uses(&new, since)?,
        "Argo CD did not use the new token"
    );
    let end = sync.release_and_wait().await?;
    ensure!(end.phase == "Succeeded", "{end:?}");
    let refused = fixture.refused(&[&old, &new], since)?;
    ensure!(refused.is_empty(), "{refused:#?}");
    ensure!(
        fixture.becomes("Successful").await?.message.is_empty(),
        "Argo CD reports an error"
    );
    Ok(())
}

/// Rotates all of them with one command.
async fn rotated(fleet: &[Fixture], grace: &str) -> Result<()> {
    let together = [
        "--max-parallel",
        "15",
        "--jitter",
        "0s",
        "--timeout",
        "3m",
        "--yes",
        "--grace",
        grace,
    ];
    let ids = fleet.iter().map(Fixture::id);
    let args: Vec<&str> = ["rotate"].into_iter().chain(ids).chain(together).collect();
    fleet[0].run(&args).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_during_cache_invalidations_leaves_no_old_token() -> Result<()> {
    let fleet = fleet("stein", 15).await?;
    let writers = StaleWriters::by_invalidation(&fleet[0], &servers(&fleet), 2);
    let mut seen: BTreeSet<String> = in_place(&fleet).await?;
    for round in 1..=10 {
        rotated(&fleet, "2s").await?;
        let now = in_place(&fleet).await?;
        ensure!(now.is_disjoint(&seen), "an old token is in place after round {round}");
        ensure!(valid(&fleet).await? == now, "an old token is valid after round {round}");
        seen.extend(now);
    }
    let writes = writers.end().await;
    ensure!(
        seen.len() == 15 * 11 && writes > seen.len(),
        "{} tokens, {writes} writes",
        seen.len()
    );
    Ok(())
}

/// The grace period is longer than any copy is outdated.
#[tokio::test(flavor = "multi_thread")]
async fn rotate_overrides_stale_copies_that_are_written_back() -> Result<()> {
    let fleet = fleet("gmund", 3).await?;
    let writers = StaleWriters::by_invalidation(&fleet[0], &servers(&fleet), 1).and_from_a_late_copy(&fleet[0]);
    let before = in_place(&fleet).await?;
    for _ in 0..2 {
        rotated(&fleet, "10s").await?;
    }
    writers.end().await;
    let after = in_place(&fleet).await?;
    ensure!(after.is_disjoint(&before), "an old token is in place");
    ensure!(valid(&fleet).await? == after, "an old token is valid");
    Ok(())
}
