//! The kill matrix: a rotation, and a rollback, is killed between any two of its writes, and Argo CD always has a valid
//! token. The same command finishes it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, KillPoint, Shell};
use futures::future::try_join_all;
use rstest::rstest;
use rustix::process::Signal;
use test_cluster::FaultProxy;

use crate::fixture::{Fixture, token};

/// How many points of one matrix run in parallel.
const SIDE_BY_SIDE: usize = 4;

/// The command that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Rotate,
    Rollback,
}

#[rstest]
#[case::rotate(Command::Rotate)]
#[case::rollback(Command::Rollback)]
#[tokio::test(flavor = "multi_thread")]
async fn rotate_and_rollback_resume_after_a_kill_at_any_write(#[case] command: Command) -> Result<()> {
    let began = Instant::now();
    let first = Worker::new(command, 0).await?;
    let points = first.undisturbed().await?;
    let count = points.len();
    let points = &Mutex::new(VecDeque::from(points));
    let others = (1..SIDE_BY_SIDE).map(|number| async move {
        let worker = Worker::new(command, number).await?;
        worker.run_points(points).await
    });
    tokio::try_join!(first.run_points(points), try_join_all(others))?;
    println!("{command:?}: {count} points, {:.0?}", began.elapsed());
    Ok(())
}

/// Runs one point after another on one cluster. The end of a point is the start of the next one.
struct Worker {
    fixture: Fixture,
    command: Command,
}

impl Worker {
    async fn new(command: Command, number: usize) -> Result<Self> {
        let name = format!("killed-{command:?}-{number}").to_lowercase();
        let fixture = Fixture::begin(&name).await?;
        fixture.run(&["add", fixture.id()]).run().await?.expect(0)?;
        Ok(Self { fixture, command })
    }

    /// The points of an undisturbed run.
    async fn undisturbed(&self) -> Result<Vec<KillPoint>> {
        let old = token(&self.fixture.secret().await?)?;
        let (proxy, shell) = self.start().await?;
        let before = proxy.writes().len();
        let done = self.run(&shell).await?;
        self.has_ended(&old, &done, &proxy).await?;
        let writes = proxy.writes().len() - before;
        ensure!(writes >= 6, "{}", proxy.transcript());
        Ok(KillPoint::all(writes).collect())
    }

    async fn run_points(&self, points: &Mutex<VecDeque<KillPoint>>) -> Result<()> {
        let next = || points.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some(point) = next() {
            let end = Box::pin(self.run_point(point)).await;
            end.with_context(|| format!("{:?}, {point}", self.command))?;
        }
        Ok(())
    }

    /// Kills the command at this point and runs it again.
    async fn run_point(&self, point: KillPoint) -> Result<()> {
        let old = token(&self.fixture.secret().await?)?;
        let (proxy, shell) = self.start().await?;
        point.plan(&proxy);
        let run = self.fixture.run_at(&shell, &self.args()).start().await?;
        proxy.victim(run.pid()?);
        let output = run.finish().await?;
        // A lock that is renewed once less leaves the last point without a write.
        if output.code() != Some(0) {
            output.expect_killed().with_context(|| proxy.transcript())?;
        }
        let held = token(&self.fixture.cluster_secret().await?)?;
        ensure!(
            self.fixture.accepts(&held).await?,
            "the token of Argo CD is rejected\n{}",
            proxy.transcript()
        );
        proxy.heal();
        // If the rotation ended before the kill, this run is another rotation.
        let again = self.run(&shell).await.with_context(|| proxy.transcript())?;
        self.has_ended(&old, &again, &proxy).await
    }

    /// Prepares the command, and returns a proxy for it. A rollback needs a rotation whose new token Argo CD has.
    async fn start(&self) -> Result<(FaultProxy, Shell)> {
        let (proxy, shell) = self.fixture.behind_proxy().await?;
        if self.command == Command::Rollback {
            let rotate = ["rotate", self.fixture.id(), "--grace", "10m", "--yes"];
            let run = self.fixture.run_at(&shell, &rotate).start().await?;
            self.fixture.reaches("prove").await?;
            run.signal(Signal::INT)?;
            run.finish().await?.expect(130)?;
        }
        Ok((proxy, shell))
    }

    async fn run(&self, shell: &Shell) -> Result<CommandOutput> {
        self.fixture.run_at(shell, &self.args()).run().await?.expect(0)
    }

    fn args(&self) -> [&str; 5] {
        let command = match self.command {
            Command::Rotate => "rotate",
            Command::Rollback => "rollback",
        };
        [command, self.fixture.id(), "--grace", "0s", "--yes"]
    }

    async fn has_ended(&self, old: &str, last: &CommandOutput, proxy: &FaultProxy) -> Result<()> {
        let end = async {
            let new = match self.command {
                Command::Rotate => self.fixture.is_rotated(old).await?,
                Command::Rollback => {
                    self.fixture.is_restored(old).await?;
                    old.to_owned()
                }
            };
            let text = last.to_string();
            ensure!(!text.contains(old) && !text.contains(&new), "a token was printed");
            Ok(())
        };
        end.await.with_context(|| format!("{last}\n{}", proxy.transcript()))
    }
}
