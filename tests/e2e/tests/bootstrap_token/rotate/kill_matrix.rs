//! The kill matrix: a rotation, and a rollback, is killed right before and right after each of its writes, and nobody is left
//! at the door. The same command, typed again, brings it to its end.
//!
//! The kill comes from a proxy between the plugin and the API server. A file is not written through it, but between two
//! writes of the Lease: whoever is killed after the first one has not written the file, before the second one he has.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Shell, until};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rstest::rstest;
use test_cluster::{Fault, FaultProxy, Moment, On};

use crate::cluster::{self, Printed, is_let_in};
use crate::rotation_fixture::RotationFixture;

/// How many points of one matrix are walked side by side.
const SIDE_BY_SIDE: usize = 4;

/// How often a holder renews its lock.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Rotate,
    Rollback,
}

/// Where the token is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Secret,
    File,
}

#[rstest]
#[case::rotate_in_a_secret(Killed::Rotate, To::Secret)]
#[case::rotate_in_a_file(Killed::Rotate, To::File)]
#[case::rollback_in_a_secret(Killed::Rollback, To::Secret)]
#[case::rollback_in_a_file(Killed::Rollback, To::File)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes(#[case] killed: Killed, #[case] to: To) -> Result<()> {
    let began = Instant::now();
    let (writes, took) = undisturbed(killed, to).await?;
    let points = (1..=writes).flat_map(|nth| [Moment::Before, Moment::After].map(|moment| (nth, moment)));
    let walked = points.map(|(nth, moment)| async move {
        let ended = Box::pin(at(killed, to, nth, moment)).await;
        ended.with_context(|| format!("{killed:?} in a {to:?}, killed {moment:?} write {nth} of {writes}"))
    });
    let walked: Vec<bool> = stream::iter(walked)
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect()
        .await?;
    let reached = walked.iter().filter(|reached| **reached).count();
    println!(
        "{killed:?} in a {to:?}: {writes} writes, killed at {reached} of {} points, walked in {:.0?}",
        walked.len(),
        began.elapsed()
    );
    // A lock that is renewed less often leaves the last points without a write.
    let renewals = usize::try_from(took.as_secs() / RENEWED_EVERY.as_secs())?;
    let not_reached = walked.len() - reached;
    ensure!(
        not_reached <= 2 * (renewals + 2),
        "{not_reached} points were never reached"
    );
    Ok(())
}

/// How many writes there are when nobody disturbs, and how long that takes.
async fn undisturbed(killed: Killed, to: To) -> Result<(usize, Duration)> {
    let start = Start::new(killed, to, &format!("undisturbed-{killed:?}-{to:?}")).await?;
    let (proxy, shell) = start.fixture.behind_proxy().await?;
    let done = start.command_at(&shell).run().await?.expect(0)?;
    start.is_at_its_end(&done, &proxy).await?;
    let writes = proxy.writes().len();
    ensure!(writes >= 5, "{}", proxy.transcript());
    Ok((writes, done.took))
}

/// Kills it there and runs it again. Says whether it came so far.
async fn at(killed: Killed, to: To, nth: usize, moment: Moment) -> Result<bool> {
    let start = Start::new(killed, to, &format!("killed-{killed:?}-{to:?}-{nth}-{moment:?}")).await?;
    let (proxy, shell) = start.fixture.behind_proxy().await?;
    proxy.plan(On::write().nth(nth), Fault::Kill(moment));
    let run = start.command_at(&shell).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    let reached = outcome.code() != Some(0);
    if reached {
        outcome.expect_killed().with_context(|| proxy.transcript())?;
    }
    let fixture = &start.fixture;
    let held = fixture.held().await?;
    let accepted = is_let_in(fixture.plane, &held.text).await?;
    ensure!(accepted, "what machines read is refused\n{}", proxy.transcript());
    let was_at_its_end = fixture.held().await?.id != fixture.old.id && fixture.tokens().await? == [held.id];
    let again = start.command_at(&fixture.shell).run().await?;
    // The end may have been reached, and the token that is rotated be gone, before the kill.
    let gone = killed == Killed::Rotate && was_at_its_end && again.stderr.contains("there is no bootstrap token");
    let ended_well = again.code() == Some(0) || gone;
    ensure!(ended_well || !reached, "{again}\n{}", proxy.transcript());
    start.is_at_its_end(&again, &proxy).await?;
    Ok(reached)
}

/// Where a point of the matrix starts from.
struct Start {
    fixture: RotationFixture,
    killed: Killed,
    /// The new token, where it is there already.
    new: Option<Printed>,
}

impl Start {
    /// A token; for a rollback with a rotation that has delivered the new one and was stopped.
    async fn new(killed: Killed, to: To, name: &str) -> Result<Self> {
        let name = name.to_lowercase();
        let fixture = match to {
            To::Secret => RotationFixture::new(&name).await?,
            To::File => RotationFixture::with_file(&name).await?,
        };
        let mut start = Self {
            fixture,
            killed,
            new: None,
        };
        if killed == Killed::Rollback {
            start.fixture.delivers_and_stops().await?;
            start.new = Some(start.fixture.held().await?);
        }
        Ok(start)
    }

    fn command_at(&self, shell: &Shell) -> e2e::Invocation {
        shell.bootstrap_token(match self.killed {
            Killed::Rotate => self.fixture.rotate(&["--overlap", "0s"]),
            Killed::Rollback => self.fixture.rollback(&[]),
        })
    }

    async fn is_at_its_end(&self, last: &CommandOutput, proxy: &FaultProxy) -> Result<()> {
        let end = async {
            match &self.new {
                None => drop(self.fixture.is_rotated().await?),
                Some(new) => {
                    self.fixture.is_restored().await?;
                    until("the new token to be refused", async || {
                        Ok((!is_let_in(self.fixture.plane, &new.text).await?).then_some(()))
                    })
                    .await?;
                    cluster::shows_nothing_of(last, new.secret())?;
                }
            }
            cluster::shows_nothing_of(last, self.fixture.old.secret())
        };
        end.await.with_context(|| format!("{last}\n{}", proxy.transcript()))
    }
}
