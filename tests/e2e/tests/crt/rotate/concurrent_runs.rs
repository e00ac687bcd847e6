//! Two runs for the same cluster: one rotates, the other writes nothing.

use anyhow::{Context as _, Result, ensure};
use e2e::RancherFixture;
use rstest::rstest;
use rustix::process::Signal;
use test_cluster::{Fault, FaultProxy, Moment, On, TokenStorage};

use crate::state::{self, Scope, State};
use crate::writes::effective;

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_rotations_only_one_writes(#[case] storage: TokenStorage) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "oslo").await?;
    let start = State::of(&fixture).await?;
    let ((left_proxy, left_shell), (right_proxy, right_shell)) =
        tokio::try_join!(fixture.behind_proxy(), fixture.behind_proxy())?;
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"];
    let (left, right) = tokio::try_join!(left_shell.crt(rotate).start(), right_shell.crt(rotate).start())?;
    let pids = [left.pid()?, right.pid()?];
    let (left, right) = tokio::try_join!(left.finish(), right.finish())?;

    let (winner, winner_pid, loser, loser_proxy) = if left.code() == Some(0) {
        (left, pids[0], right, right_proxy)
    } else {
        (right, pids[1], left, left_proxy)
    };
    winner.expect(0)?;
    let loser = loser.expect(5)?;
    assert_eq!(effective(&loser_proxy), Vec::<String>::new());
    let (before, after) = loser.stderr.split_once("error: ").context("no error")?;
    let held = format!(
        "the rotation of cluster oslo ({}) is held by process {winner_pid} on ",
        fixture.cluster.id
    );
    assert!(after.starts_with(&held), "{loser}");
    let renewed = after
        .split_once(", renewed ")
        .and_then(|(_, age)| age.split_once("s ago"));
    let seconds: u32 = renewed.context("no age of the renewal")?.0.parse()?;
    assert!(seconds <= 30, "{loser}");
    assert!(
        before.contains("Checking whether the holder still renews it."),
        "{loser}"
    );
    state::rotated(&fixture, &start, Scope::All).await.map(drop)
}

/// When the lock holder is paused: with a write in flight, or after the journal entry for the next write.
#[derive(Clone, Copy)]
enum Paused {
    InFlight,
    BeforeTheWrite,
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_writes_nothing_after_another_took_the_lock(
    #[values(TokenStorage::Status, TokenStorage::Secret)] storage: TokenStorage,
    #[values(Paused::InFlight, Paused::BeforeTheWrite)] paused: Paused,
) -> Result<()> {
    let fixture = RancherFixture::begin(storage, "lima").await?;
    let start = State::of(&fixture).await?;
    let (proxy, shell) = fixture.behind_proxy().await?;
    let pause = match paused {
        Paused::InFlight => proxy.plan(
            On::write().path("*/deployments/cattle-cluster-agent"),
            Fault::Stop(Moment::Before),
        ),
        // The journal announces the Secret, which is the next write.
        Paused::BeforeTheWrite => proxy.plan(
            On::write().path("*/leases/*").nth(lease_write_before_place(storage)),
            Fault::Stop(Moment::After),
        ),
    };
    let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s"];
    let paused = shell.crt(rotate).start().await?;
    let pid = paused.pid()?;
    proxy.victim(pid);
    pause.strikes().await;
    let left = State::of(&fixture).await?;
    ensure!(left.phase() == Some("place"), "{left:#?}");
    let holder = left
        .lease
        .and_then(|lease| lease.holder)
        .context("the lock has no holder")?;
    ensure!(holder.contains(&format!("/{pid}/")), "{holder}");

    let take_over = ["rotate", &fixture.cluster.id, "--yes", "--settle", "1s", "--force=lock"];
    fixture.shell.crt(take_over).run().await?.expect(0)?;
    let done = state::rotated(&fixture, &start, Scope::All).await?;

    let before = effective(&proxy).len();
    pause.release();
    paused.signal(Signal::CONT)?;
    let outcome = paused.finish().await?;
    // It finds that it has lost the lock, or that the rotation is done.
    let reported = match outcome.code() {
        Some(0) => outcome.stdout.contains(" rotated"),
        Some(1) => outcome.stderr.contains("another run has finished the rotation"),
        _ => false,
    };
    ensure!(reported, "{outcome}");
    nothing_since(&proxy, before)?;
    let now = state::rotated(&fixture, &start, Scope::All).await?;
    assert_eq!((now.tokens, now.deployment), (done.tokens, done.deployment));
    assert_eq!((now.credentials, now.pods), (done.credentials, done.pods));
    Ok(())
}

/// The number of this write of the existing Lease. Before it come the start, the temporary token (`status` storage only)
/// and the new value.
fn lease_write_before_place(storage: TokenStorage) -> usize {
    match storage {
        TokenStorage::Status => 4,
        TokenStorage::Secret => 3,
    }
}

/// Every write after it continued was rejected.
fn nothing_since(proxy: &FaultProxy, before: usize) -> Result<()> {
    let writes = effective(proxy);
    ensure!(
        writes.len() == before,
        "it wrote {:?}\n{}",
        &writes[before..],
        proxy.transcript()
    );
    Ok(())
}
