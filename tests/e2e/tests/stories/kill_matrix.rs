//! The kill matrix: a rotation is killed right before and right after each of its writes, and nothing is lost. Run
//! again, it finishes; and until the old token is retired, `rollback` restores the start.
//!
//! The kill comes from a proxy between the plugin and its servers; the plugin has no hook for it. What must hold at the
//! end of each point stands in [`state`](crate::state).

#![expect(
    clippy::print_stdout,
    reason = "one line for each point is what a reader of the matrix looks for"
)]

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{Outcome, Story};
use futures::future::join_all;
use rstest::rstest;
use testbed::{Era, Fault, Moment, On};

use crate::state::{self, Scope, State};
use crate::writes::essence;

/// How many clusters of one test are rotated side by side.
const SIDE_BY_SIDE: usize = 4;

/// One point of the matrix: the write, counted from 1 over product writes and writes of the Lease alike, and the moment.
#[derive(Clone, Copy)]
struct Point {
    write: usize,
    moment: Moment,
}

/// How the matrix goes on after the kill.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Rotate,
    Rollback,
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes(#[case] era: Era) -> Result<()> {
    Matrix::new(era, Then::Rotate).await?.walk().await
}

#[rstest]
#[case::plain(Era::Plain)]
#[case::secret(Era::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_before_retire_it_is_rolled_back(#[case] era: Era) -> Result<()> {
    Matrix::new(era, Then::Rollback).await?.walk().await
}

struct Matrix {
    era: Era,
    then: Then,
    /// What a run that nobody disturbs writes.
    clean: Vec<String>,
    points: Mutex<VecDeque<Point>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The writes at which a run was killed.
    struck: BTreeSet<(String, bool)>,
    /// A run was killed in retire: from there on nothing can be rolled back.
    edge: bool,
    failed: Vec<String>,
}

impl Matrix {
    async fn new(era: Era, then: Then) -> Result<Self> {
        let story = Story::begin(era, "clean").await?;
        let start = State::of(&story).await?;
        let (proxy, desk) = story.behind_proxy().await?;
        desk.crt(command("rotate", &story)).run().await?.expect(0)?;
        state::rotated(&story, &start, Scope::All).await?;
        let clean: Vec<_> = proxy.writes().iter().map(essence).collect();
        let moments = [Moment::Before, Moment::After];
        let points = (1..=clean.len()).flat_map(|write| moments.map(|moment| Point { write, moment }));
        Ok(Self {
            era,
            then,
            points: Mutex::new(points.collect()),
            clean,
            seen: Mutex::default(),
        })
    }

    async fn walk(&self) -> Result<()> {
        let began = Instant::now();
        join_all((0..SIDE_BY_SIDE).map(|worker| self.work(worker))).await;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{self}: {} writes, walked in {:.0?}", self.clean.len(), began.elapsed());
        ensure!(seen.failed.is_empty(), "{}", seen.failed.join("\n\n"));
        match self.then {
            Then::Rollback => ensure!(seen.edge, "no run was killed in retire"),
            // Under load a run may renew its lock in between, which moves the numbers; every write must have been hit
            // all the same.
            Then::Rotate => {
                let both = |write: &String| [false, true].map(|after| (write.clone(), after));
                let missed: Vec<_> = self
                    .clean
                    .iter()
                    .flat_map(both)
                    .filter(|hit| !seen.struck.contains(hit))
                    .collect();
                ensure!(missed.is_empty(), "never killed at {missed:?}");
            }
        }
        Ok(())
    }

    /// Walks point after point on a cluster of its own. Each point ends in a state that is a sound start for the next; a
    /// cluster on which one failed is left alone.
    async fn work(&self, worker: usize) {
        let mut story = None;
        while let Some(point) = self.next() {
            let began = Instant::now();
            let outcome = self.on(&mut story, worker, point).await;
            let took = began.elapsed();
            match outcome {
                Ok(line) => println!("{self} {point}: {line} ({took:.1?})"),
                Err(error) => {
                    println!("{self} {point}: FAILED ({took:.1?})");
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.failed.push(format!("{self} {point}: {error:?}"));
                    story = None;
                }
            }
        }
    }

    fn next(&self) -> Option<Point> {
        let edge = self.seen.lock().unwrap_or_else(PoisonError::into_inner).edge;
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        (!edge).then(|| points.pop_front()).flatten()
    }

    async fn on(&self, story: &mut Option<Story>, worker: usize, point: Point) -> Result<String> {
        let story = match story {
            Some(story) => story,
            None => story.insert(Story::begin(self.era, &format!("city-{worker}")).await?),
        };
        story.rancher.reset(&story.cluster).await?;
        let start = State::of(story).await?;
        let Some(write) = self.kill(story, point).await? else {
            state::rotated(story, &start, Scope::All).await?;
            return Ok("it was done before".to_owned());
        };
        let left = State::of(story).await?;
        let phase = left.phase().unwrap_or("no journal").to_owned();
        let end = match self.then {
            Then::Rotate => finish(story, &start).await?,
            Then::Rollback => self.roll_back(story, &start, &left).await?,
        };
        Ok(format!("{write} in {phase}, {end}"))
    }

    /// Runs a rotation and kills it there. Gives the write; nothing if the run ended before.
    async fn kill(&self, story: &Story, point: Point) -> Result<Option<String>> {
        let (proxy, desk) = story.behind_proxy().await?;
        proxy.plan(On::write().nth(point.write), Fault::Kill(point.moment));
        let run = desk.crt(command("rotate", story)).start().await?;
        proxy.victim(run.pid()?);
        let outcome = run.finish().await?;
        if outcome.code() == Some(0) {
            return Ok(None);
        }
        outcome.expect_killed().with_context(|| proxy.transcript())?;
        let writes = proxy.writes();
        let struck = writes.get(point.write - 1).context("it was killed before its write")?;
        // The server has answered, or has never seen it.
        ensure!(
            struck.status.is_some() == (point.moment == Moment::After),
            "{}",
            proxy.transcript()
        );
        let write = essence(struck);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.struck.insert((write.clone(), point.moment == Moment::After));
        Ok(Some(write))
    }

    /// Undoes what was begun, or finds that it is too late for that and finishes it.
    async fn roll_back(&self, story: &Story, start: &State, left: &State) -> Result<String> {
        let rollback = story.desk.crt(command("rollback", story)).run().await?;
        match left.phase() {
            None => {
                ensure!(
                    left.tokens == start.tokens,
                    "no journal, and something was done: {left:#?}"
                );
                let rollback = rollback.expect(0)?;
                ensure!(rollback.stderr.contains("is under way"), "{rollback}");
                state::restored(story, start, None).await?;
                Ok("there was nothing to roll back".to_owned())
            }
            Some("retire" | "confirm") => {
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).edge = true;
                let rollback = rollback.expect(1)?;
                ensure!(rollback.stderr.contains("can only be finished"), "{rollback}");
                Ok(format!("rollback is refused, {}", finish(story, start).await?))
            }
            Some(_) => {
                let rollback = rollback.expect(0)?;
                let restored = state::restored(story, start, left.drawn()).await;
                restored.with_context(|| rollback.to_string())?;
                Ok("rolled back".to_owned())
            }
        }
    }
}

/// The same command again.
async fn finish(story: &Story, start: &State) -> Result<String> {
    let again: Outcome = story.desk.crt(command("rotate", story)).run().await?.expect(0)?;
    let rotated = state::rotated(story, start, Scope::All).await;
    rotated.with_context(|| again.to_string())?;
    Ok("finished by the same command".to_owned())
}

fn command<'a>(verb: &'a str, story: &'a Story) -> [&'a str; 5] {
    [verb, &story.cluster.id, "--yes", "--settle", "0s"]
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "killed {moment:<6} write {:>2}", self.write)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = match self.then {
            Then::Rotate => "rotate again",
            Then::Rollback => "rollback",
        };
        write!(f, "[{} era, {then}]", self.era.word())
    }
}
