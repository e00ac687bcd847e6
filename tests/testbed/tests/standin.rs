//! The stand-in as the bed starts it, and how everything ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use testbed::{Bed, Era, Registration};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_each_era_is_registered_and_connected() -> Result<()> {
    let bed = Bed::shared().await?;
    for era in Era::ALL {
        let begin = Instant::now();
        let rancher = bed.rancher(era).await?;
        println!("{era:?}: up after {:?}", begin.elapsed());
        let begin = Instant::now();
        let cluster = rancher.register("berlin").await?;
        println!("{era:?}: registered after {:?}", begin.elapsed());
        let report = rancher.report(&cluster).await?;
        assert!(report.connected_since.is_some(), "{report:?}");
        assert_eq!(report.fingerprints().len(), 1, "one token for both tunnels: {report:?}");
        assert!(
            report
                .accepted
                .iter()
                .any(|accepted| accepted == report.fingerprints()[0]),
            "{report:?}"
        );
        assert!(
            rancher
                .log_of(&cluster)?
                .iter()
                .any(|line| line["kind"] == "tunnel-open")
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rancher_of_ones_own_is_upgraded_under_a_living_cluster() -> Result<()> {
    let bed = Bed::shared().await?;
    let (_management, rancher) = bed.separate_rancher("upgraded", Era::Plain, json!({})).await?;
    let cluster = rancher.register_as(&Registration::imported("riga").quick()).await?;
    let before = rancher.report(&cluster).await?;
    rancher.upgrade().await?;
    let after = rancher.report(&cluster).await?;
    assert!(
        after
            .accepted
            .iter()
            .any(|accepted| accepted == before.fingerprints()[0]),
        "{before:?} {after:?}"
    );
    Ok(())
}

/// Set for the process that the next test kills.
const VICTIM: &str = "TESTBED_TEST_VICTIM";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_process_that_was_killed() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        println!("\nalive: {}", everything().await?);
        return std::future::pending().await;
    }
    // Built before, so that the victim is only waited for while it starts.
    Bed::shared().await?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_outlives_a_process_that_was_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("no output")?).lines();
    let told = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("alive: ").map(str::to_owned));
    victim.kill()?;
    victim.wait()?;
    let (dir, pids): (String, Vec<u32>) = serde_json::from_str(&told.context("it did not come up")?)?;
    assert!(pids.len() >= 9, "{pids:?}");
    let left = || {
        let alive = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        (pids.iter().filter(alive).count(), Path::new(&dir).exists())
    };
    let killed = Instant::now();
    while left() != (0, false) {
        assert!(
            killed.elapsed() < Duration::from_secs(20),
            "still there (processes, directory): {:?}",
            left()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("everything gone after {:?}", killed.elapsed());
    Ok(())
}

/// Starts what there is, and names its directory and its processes.
async fn everything() -> Result<serde_json::Value> {
    let bed = Bed::shared().await?;
    let rancher = bed.rancher(Era::Secret).await?;
    let mut pids = vec![rancher.process().pid()];
    pids.extend(bed.management(Era::Secret).await?.pids().await);
    pids.extend(bed.downstream().await?.pids().await);
    Ok(json!([bed.dir(), pids]))
}
