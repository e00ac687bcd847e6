//! Two runs at the same cluster: one of them works, the other one touches nothing.

use anyhow::{Context as _, Result, ensure};
use e2e::Story;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use testbed::{Era, Fault, FaultProxy, Moment, On};

use crate::state::{self, Scope, State};
use crate::writes::effective;

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn one_wins_and_the_other_one_writes_nothing(#[case] era: Era) -> Result<()> {
    let story = Story::begin(era, "oslo").await?;
    let start = State::of(&story).await?;
    let ((left_proxy, left_desk), (right_proxy, right_desk)) =
        tokio::try_join!(story.behind_proxy(), story.behind_proxy())?;
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s"];
    let (left, right) = tokio::try_join!(left_desk.crt(rotate).start(), right_desk.crt(rotate).start())?;
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
        story.cluster.id
    );
    assert!(after.starts_with(&held), "{loser}");
    let renewed = after
        .split_once(", renewed ")
        .and_then(|(_, age)| age.split_once("s ago"));
    let seconds: u32 = renewed.context("no age of the renewal")?.0.parse()?;
    assert!(seconds <= 30, "{loser}");
    assert!(before.contains("watching whether it lives"), "{loser}");
    state::rotated(&story, &start, Scope::All).await.map(drop)
}

/// Where the holder is stopped: with a write on the wire, or with the leave to write in its hands.
#[derive(Clone, Copy)]
enum Stopped {
    OnTheWire,
    BeforeItIsSent,
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_stopped_and_wakes_up_writes_nothing(
    #[values(Era::Plain, Era::Secret)] era: Era,
    #[values(Stopped::OnTheWire, Stopped::BeforeItIsSent)] stopped: Stopped,
) -> Result<()> {
    let story = Story::begin(era, "lima").await?;
    let start = State::of(&story).await?;
    let (proxy, desk) = story.behind_proxy().await?;
    let stop = match stopped {
        Stopped::OnTheWire => proxy.plan(
            On::write().path("*/deployments/cattle-cluster-agent"),
            Fault::Stop(Moment::Before),
        ),
        // The intention to place the Secret is journaled; the Secret comes next.
        Stopped::BeforeItIsSent => proxy.plan(
            On::write().path("*/leases/*").nth(intention_to_place(era)),
            Fault::Stop(Moment::After),
        ),
    };
    let rotate = ["rotate", &story.cluster.id, "--yes", "--settle", "1s"];
    let sleeper = desk.crt(rotate).start().await?;
    let pid = sleeper.pid()?;
    proxy.victim(pid);
    stop.strikes().await;
    let left = State::of(&story).await?;
    ensure!(left.phase() == Some("place"), "{left:#?}");
    let holder = left
        .lease
        .and_then(|lease| lease.holder)
        .context("nobody holds the lock")?;
    ensure!(holder.contains(&format!("/{pid}/")), "{holder}");

    let take_over = ["rotate", &story.cluster.id, "--yes", "--settle", "1s", "--force=lock"];
    story.desk.crt(take_over).run().await?.expect(0)?;
    let done = state::rotated(&story, &start, Scope::All).await?;

    let before = effective(&proxy).len();
    stop.release();
    wake(pid)?;
    let outcome = sleeper.finish().await?;
    // It finds either that its lock is gone, or that all is done already.
    let says = match outcome.code() {
        Some(0) => outcome.stdout.contains(" rotated"),
        Some(1) => outcome.stderr.contains("another run has ended the rotation"),
        _ => false,
    };
    ensure!(says, "{outcome}");
    nothing_since(&proxy, before)?;
    let now = state::rotated(&story, &start, Scope::All).await?;
    assert_eq!((now.tokens, now.deployment), (done.tokens, done.deployment));
    assert_eq!((now.credentials, now.pods), (done.credentials, done.pods));
    Ok(())
}

/// Which write of an existing Lease it is: begin, intend to bridge (era P), to mint, to place.
fn intention_to_place(era: Era) -> usize {
    match era {
        Era::Plain => 4,
        Era::Secret => 3,
    }
}

fn wake(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    Ok(kill_process(pid, Signal::CONT)?)
}

/// Whatever it tried when it woke up was refused.
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
