//! The kill matrix: a rotation, and a rollback, is killed between any two of its writes, and no machine is locked out.
//! The same command finishes it.
//!
//! A proxy between the plugin and the API server kills the process. The target file is not written through the proxy, but
//! between two writes of the Lease. So these two writes are two points: the file is old at the first, and new at the
//! second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, Invocation, KillPoint, Shell};
use futures::future::try_join_all;
use rstest::rstest;
use test_cluster::FaultProxy;

use crate::cluster::{self, Printed, is_accepted};
use crate::rotation_fixture::RotationFixture;

/// How many points of one matrix run in parallel.
const SIDE_BY_SIDE: usize = 8;
/// How often the holder of a lock renews it.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// The command that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Rotate,
    Rollback,
}

/// The kind of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Secret,
    File,
}

#[rstest]
#[case::rotate_into_a_secret(Command::Rotate, Target::Secret)]
#[case::rotate_into_a_file(Command::Rotate, Target::File)]
#[case::rollback_into_a_secret(Command::Rollback, Target::Secret)]
#[case::rollback_into_a_file(Command::Rollback, Target::File)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_resume_after_a_kill_at_any_write(
    #[case] command: Command,
    #[case] target: Target,
) -> Result<()> {
    let began = Instant::now();
    let mut first = Worker::new(command, target, 0).await?;
    let (points, took) = first.undisturbed().await?;
    let count = points.len();
    let points = &Mutex::new(VecDeque::from(points));
    let others = (1..SIDE_BY_SIDE).map(|number| async move {
        let mut worker = Worker::new(command, target, number).await?;
        worker.run_points(points).await
    });
    let (first, others) = tokio::try_join!(first.run_points(points), try_join_all(others))?;
    let reached = first + others.iter().sum::<usize>();
    println!(
        "{command:?} into a {target:?}: killed at {reached} of {count} points, {:.0?}",
        began.elapsed()
    );
    // A lock that is renewed less often leaves the last points without a write.
    let renewals = usize::try_from(took.as_secs() / RENEWED_EVERY.as_secs())?;
    let not_reached = count - reached;
    ensure!(not_reached <= renewals + 2, "{not_reached} points were never reached");
    Ok(())
}

/// Runs one point after another on one fixture. The end of a point is the start of the next one.
struct Worker {
    fixture: RotationFixture,
    command: Command,
    /// The new token, if the rotation exists before the command starts.
    new: Option<Printed>,
}

impl Worker {
    async fn new(command: Command, target: Target, number: usize) -> Result<Self> {
        let name = format!("killed-{command:?}-{target:?}-{number}").to_lowercase();
        let fixture = match target {
            Target::Secret => RotationFixture::new(&name).await?,
            Target::File => RotationFixture::with_file(&name).await?,
        };
        Ok(Self {
            fixture,
            command,
            new: None,
        })
    }

    /// The points of an undisturbed run, and how long it takes.
    async fn undisturbed(&mut self) -> Result<(Vec<KillPoint>, Duration)> {
        let (proxy, shell) = self.start().await?;
        let done = self.invocation(&shell).run().await?.expect(0)?;
        self.has_ended(&done, &proxy).await?;
        let writes = proxy.writes();
        ensure!(writes.len() >= 5, "{}", proxy.transcript());
        let mut points: Vec<_> = KillPoint::all(writes.len()).collect();
        if let Ok(path) = self.fixture.path() {
            let written = std::fs::metadata(path)?.modified()?;
            let next = writes.iter().position(|write| write.at > written);
            points.push(KillPoint::before(next.context("no write after that of the file")? + 1));
        }
        Ok((points, done.took))
    }

    /// Returns at how many points the run was killed. The other runs ended before.
    async fn run_points(&mut self, points: &Mutex<VecDeque<KillPoint>>) -> Result<usize> {
        let next = || points.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut reached = 0;
        while let Some(point) = next() {
            let killed = Box::pin(self.run_point(point)).await;
            let killed = killed.with_context(|| format!("{:?}, {point}", self.command))?;
            reached += usize::from(killed);
        }
        Ok(reached)
    }

    /// Kills the command at this point and runs it again. Returns whether it reached the point.
    async fn run_point(&mut self, point: KillPoint) -> Result<bool> {
        let (proxy, shell) = self.start().await?;
        point.plan(&proxy);
        let run = self.invocation(&shell).start().await?;
        proxy.victim(run.pid()?);
        let output = run.finish().await?;
        let reached = output.code() != Some(0);
        if reached {
            output.expect_killed().with_context(|| proxy.transcript())?;
        }
        let fixture = &self.fixture;
        let held = fixture.held().await?;
        ensure!(
            is_accepted(fixture.plane, &held.text).await?,
            "the token that machines read is rejected\n{}",
            proxy.transcript()
        );
        let had_ended = held.id != fixture.old.id && fixture.tokens().await? == [held.id];
        let again = self.invocation(&fixture.shell).run().await?;
        // If the rotation ended before the kill, its old token no longer exists.
        let is_gone = self.command == Command::Rotate && had_ended && again.stderr.contains("not found");
        let succeeded = again.code() == Some(0) || is_gone;
        ensure!(succeeded || !reached, "{again}\n{}", proxy.transcript());
        self.has_ended(&again, &proxy).await?;
        Ok(reached)
    }

    /// Prepares the command, and returns a proxy for it. A rollback needs a rotation that has delivered the new token.
    async fn start(&mut self) -> Result<(FaultProxy, Shell)> {
        if self.command == Command::Rollback {
            self.fixture.deliver_and_interrupt().await?;
            self.new = Some(self.fixture.held().await?);
        }
        self.fixture.behind_proxy().await
    }

    fn invocation(&self, shell: &Shell) -> Invocation {
        shell.bootstrap_token(match self.command {
            Command::Rotate => self.fixture.rotate(&["--overlap", "0s"]),
            Command::Rollback => self.fixture.rollback(&[]),
        })
    }

    /// Checks the end of the command. The token that is left is the start of the next one.
    async fn has_ended(&mut self, last: &CommandOutput, proxy: &FaultProxy) -> Result<()> {
        let end = async {
            cluster::prints_nothing_of(last, self.fixture.old.secret())?;
            match &self.new {
                None => self.fixture.is_rotated().await,
                Some(new) => {
                    self.fixture.is_restored().await?;
                    self.fixture.becomes_rejected(&new.text).await?;
                    cluster::prints_nothing_of(last, new.secret())?;
                    Ok(self.fixture.old.clone())
                }
            }
        };
        let left = end.await.with_context(|| format!("{last}\n{}", proxy.transcript()))?;
        self.fixture.old = left;
        Ok(())
    }
}
