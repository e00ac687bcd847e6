//! `rotate` under the eyes of the real Argo CD: no call of its is refused, and none of its writes brings an old token back.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;

use crate::bench::Bench;
use crate::fleet::{alive, fleet, in_place, servers};
use crate::meddling::Meddling;
use crate::waiting::a_sync_that_waits;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_during_a_sync_costs_no_call() -> Result<()> {
    let bench = Bench::added("krems").await?;
    let sync = a_sync_that_waits(&bench).await?;
    let (old, since) = (bench.token_in_place().await?, Timestamp::now());
    let done = bench
        .run(&["rotate", bench.id(), "--grace", "3s", "--yes"])
        .run()
        .await?
        .expect(0)?;
    ensure!(done.stderr.contains("wait for Argo CD to call with <new>"), "{done}");
    let new = bench.token_in_place().await?;
    ensure!(
        new.name != old.name && bench.uses(&new, since)?,
        "Argo CD was not seen with the new one"
    );
    let end = sync.goes_on_and_ends().await?;
    ensure!(end.phase == "Succeeded", "{end:?}");
    let refused = bench.refused(&[&old, &new], since)?;
    ensure!(refused.is_empty(), "{refused:#?}");
    ensure!(
        bench.becomes("Successful").await?.message.is_empty(),
        "Argo CD has something against it"
    );
    Ok(())
}

/// `kubectl argocd-rancher rotate`, for all of them at once.
async fn rotated(fleet: &[Bench], grace: &str) -> Result<()> {
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
    let ids = fleet.iter().map(Bench::id);
    let args: Vec<&str> = ["rotate"].into_iter().chain(ids).chain(together).collect();
    fleet[0].run(&args).run().await?.expect(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_fifty_rotations_among_invalidations_leave_no_old_token() -> Result<()> {
    let fleet = fleet("stein", 15).await?;
    let meddling = Meddling::by_invalidation(&fleet[0], &servers(&fleet), 2);
    let mut seen: BTreeSet<String> = in_place(&fleet).await?;
    for round in 1..=10 {
        rotated(&fleet, "2s").await?;
        let now = in_place(&fleet).await?;
        ensure!(now.is_disjoint(&seen), "an old token is in place after round {round}");
        ensure!(alive(&fleet).await? == now, "an old token is alive after round {round}");
        seen.extend(now);
    }
    let writes = meddling.end().await;
    ensure!(
        seen.len() == 15 * 11 && writes > seen.len(),
        "{} tokens, {writes} writes",
        seen.len()
    );
    Ok(())
}

/// The grace time is longer than any copy of theirs is old.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_is_written_back_again_and_again_loses() -> Result<()> {
    let fleet = fleet("gmund", 3).await?;
    let meddling = Meddling::by_invalidation(&fleet[0], &servers(&fleet), 1).and_from_a_late_copy(&fleet[0]);
    let before = in_place(&fleet).await?;
    for _ in 0..2 {
        rotated(&fleet, "10s").await?;
    }
    meddling.end().await;
    let after = in_place(&fleet).await?;
    ensure!(after.is_disjoint(&before), "an old token is in place");
    ensure!(alive(&fleet).await? == after, "an old token is alive");
    Ok(())
}
