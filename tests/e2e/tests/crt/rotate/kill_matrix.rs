//! The kill matrix: a rotation is killed between any two of its writes, and nothing is lost. The same command finishes
//! it. Until the old token is revoked, `rollback` restores the start.
//!
//! A proxy between the plugin and its servers kills the process; the plugin has no hook for it. A kill right before a
//! write leaves the same state as a kill right after the write before it, so each state is one point of the matrix.
//! [`state`](crate::state) checks what must hold at the end of each point.
//!
//! On a provisioned and on a hosted cluster, the points are the writes of objects. Between two of them only the Lease is
//! written, with the journal of the same steps as on an imported cluster, which is killed there too.

#![expect(clippy::print_stdout, reason = "the matrix prints one line for each point")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{CommandOutput, RancherFixture};
use futures::future::join_all;
use rstest::rstest;
use test_cluster::{Fault, Moment, On, Registration, Request, TokenStorage};

use crate::KILLED_AT_ONCE;
use crate::state::{self, Scope, State};
use crate::writes::{essence, is_lease, same_as};

/// How many clusters of one test are rotated in parallel.
const SIDE_BY_SIDE: usize = 4;

/// How often the holder of a lock renews it.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// One point of the matrix: a write of an undisturbed run, and the moment of the kill.
///
/// Writes are identified by what they change, and counted for each object separately. An additional renewal of the lock
/// on a busy machine changes only the numbers of the Lease writes.
#[derive(Clone)]
struct Point {
    /// The number of the write in that run.
    write: usize,
    /// What it changes.
    what: String,
    /// For a Lease write: how many Lease writes followed it.
    leases_after: Option<usize>,
    on: On,
    moment: Moment,
}

/// The command after the kill.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Rotate,
    Rollback,
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes(#[case] storage: TokenStorage) -> Result<()> {
    Matrix::new(storage, Kind::Imported, Then::Rotate).await?.run().await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_on_a_provisioned_cluster_and_run_again_it_finishes(#[case] storage: TokenStorage) -> Result<()> {
    Matrix::new(storage, Kind::Provisioned, Then::Rotate).await?.run().await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_on_a_hosted_cluster_and_run_again_it_finishes(#[case] storage: TokenStorage) -> Result<()> {
    Matrix::new(storage, Kind::Hosted, Then::Rotate).await?.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_a_hosted_cluster_after_a_kill() -> Result<()> {
    let storage = TokenStorage::Secret;
    Matrix::new(storage, Kind::Hosted, Then::Rollback).await?.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_a_provisioned_cluster_after_a_kill() -> Result<()> {
    let storage = TokenStorage::Secret;
    Matrix::new(storage, Kind::Provisioned, Then::Rollback)
        .await?
        .run()
        .await
}

#[rstest]
#[case::status(TokenStorage::Status)]
#[case::secret(TokenStorage::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_restores_the_start_after_a_kill_before_retire(#[case] storage: TokenStorage) -> Result<()> {
    Matrix::new(storage, Kind::Imported, Then::Rollback).await?.run().await
}

/// The kind of the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Imported,
    Provisioned,
    Hosted,
}

impl Kind {
    async fn begin(self, storage: TokenStorage, name: &str) -> Result<RancherFixture> {
        let imported = Registration::imported(name).quick();
        let registration = match self {
            Self::Imported => imported,
            Self::Provisioned => imported.provisioned(2),
            Self::Hosted => imported.kind("eks"),
        };
        RancherFixture::begin_with(storage, &registration).await
    }

    /// What the start was. Rancher's planner may have deployed its token since: the first one by name.
    async fn restored(self, fixture: &RancherFixture, start: &State, new: Option<&str>) -> Result<()> {
        if self != Self::Provisioned {
            return state::restored(fixture, start, new).await.map(drop);
        }
        let now = State::of(fixture).await?;
        ensure!((&now.tokens, &now.graces) == (&start.tokens, &start.graces), "{now:#?}");
        ensure!(now.tokens.values().any(|value| value == now.named()), "{now:#?}");
        ensure!(
            now.temporary.is_empty() && now.lease.as_ref().is_some_and(|lease| lease.journal.is_none()),
            "{now:#?}"
        );
        let accepted = &now.report.accepted;
        ensure!(
            new.is_none_or(|new| accepted.iter().all(|token| token != new)),
            "{now:#?}"
        );
        Ok(())
    }
}

struct Matrix {
    storage: TokenStorage,
    kind: Kind,
    then: Then,
    /// The number of writes of an undisturbed run.
    writes: usize,
    /// How often that run may have renewed its lock. A faster run has that many Lease writes fewer.
    renewals: usize,
    points: Mutex<VecDeque<Point>>,
    results: Mutex<Results>,
}

#[derive(Default)]
struct Results {
    /// Points whose run ended before the write at which it was to be killed.
    not_reached: Vec<String>,
    /// A run was killed in retire. From there on, nothing can be rolled back.
    reached_retire: bool,
    failed: Vec<String>,
}

impl Matrix {
    async fn new(storage: TokenStorage, kind: Kind, then: Then) -> Result<Self> {
        let fixture = kind.begin(storage, "clean").await?;
        let start = State::of(&fixture).await?;
        let (proxy, shell) = fixture.behind_proxy().await?;
        let rotated = shell.crt(command("rotate", &fixture)).run().await?.expect(0)?;
        state::rotated(&fixture, &start, Scope::All).await?;
        let writes = proxy.writes();
        let mut points = points(&writes);
        if kind != Kind::Imported {
            points.retain(|point| point.leases_after.is_none() || point.moment == Moment::Before);
        }
        Ok(Self {
            storage,
            kind,
            then,
            writes: writes.len(),
            renewals: usize::try_from(rotated.took.as_secs() / RENEWED_EVERY.as_secs())?,
            points: Mutex::new(points),
            results: Mutex::default(),
        })
    }

    async fn run(&self) -> Result<()> {
        let began = Instant::now();
        join_all((0..SIDE_BY_SIDE).map(|worker| self.work(worker))).await;
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{self}: {} writes, {:.0?}", self.writes, began.elapsed());
        ensure!(results.failed.is_empty(), "{}", results.failed.join("\n\n"));
        ensure!(
            results.reached_retire == (self.then == Then::Rollback),
            "retire was reached: {}",
            results.reached_retire
        );
        // Where Rancher's planner writes the Deployment too, a run may have to write it once less.
        let spared = if self.kind == Kind::Provisioned { 2 } else { 0 };
        ensure!(
            results.not_reached.len() <= spared,
            "never killed: {}",
            results.not_reached.join(", ")
        );
        Ok(())
    }

    /// Tests point after point on one cluster. The end of a point is a valid start for the next one, but on a provisioned cluster. After a failure, the
    /// next point gets another cluster.
    async fn work(&self, worker: usize) {
        let mut fixture = None;
        while let Some(point) = self.next() {
            let _permit = KILLED_AT_ONCE.acquire().await;
            let began = Instant::now();
            if self.kind == Kind::Provisioned {
                // `system` and the first token have the same value afterwards, and RKE2 owns the agent's Secret.
                fixture = None;
            }
            let outcome = self.on(&mut fixture, worker, &point).await;
            let took = began.elapsed();
            match outcome {
                Ok(line) => println!("{self} {point}: {line} ({took:.1?})"),
                Err(error) => {
                    println!("{self} {point}: FAILED ({took:.1?})");
                    let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.failed.push(format!("{self} {point}: {error:?}"));
                    fixture = None;
                }
            }
        }
    }

    fn next(&self) -> Option<Point> {
        let reached_retire = self
            .results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reached_retire;
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        (!reached_retire).then(|| points.pop_front()).flatten()
    }

    async fn on(&self, fixture: &mut Option<RancherFixture>, worker: usize, point: &Point) -> Result<String> {
        let fixture = match fixture {
            Some(fixture) => fixture,
            None => fixture.insert(self.kind.begin(self.storage, &format!("city-{worker}")).await?),
        };
        fixture.rancher.reset(&fixture.cluster).await?;
        let start = State::of(fixture).await?;
        if !kill(fixture, point).await? {
            state::rotated(fixture, &start, Scope::All).await?;
            if point.leases_after.is_none_or(|after| after >= self.renewals) {
                let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
                results.not_reached.push(point.to_string());
            }
            return Ok("the run ended before".to_owned());
        }
        let left = State::of(fixture).await?;
        let phase = left.phase().unwrap_or("no journal").to_owned();
        let end = match self.then {
            Then::Rotate => finish(fixture, &start).await?,
            Then::Rollback => self.roll_back(fixture, &start, &left).await?,
        };
        Ok(format!("in {phase}, {end}"))
    }

    /// Rolls back, or finishes the rotation if it can no longer be rolled back.
    async fn roll_back(&self, fixture: &RancherFixture, start: &State, left: &State) -> Result<String> {
        let rollback = fixture.shell.crt(command("rollback", fixture)).run().await?;
        match left.phase() {
            // The last write is one of the Lease too: a run with fewer renewals sends it earlier.
            None if left.tokens != start.tokens => {
                state::rotated(fixture, start, Scope::All).await?;
                Ok("the run has ended with this write".to_owned())
            }
            None => {
                let rollback = rollback.expect(0)?;
                ensure!(rollback.stderr.contains("is in progress"), "{rollback}");
                untouched(fixture, start).await?;
                Ok("nothing to roll back".to_owned())
            }
            Some("retire" | "confirm") => {
                self.results
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .reached_retire = true;
                let rollback = rollback.expect(1)?;
                ensure!(rollback.stderr.contains("can only be finished"), "{rollback}");
                Ok(format!("rollback is refused, {}", finish(fixture, start).await?))
            }
            Some(_) => {
                let rollback = rollback.expect(0)?;
                let restored = self.kind.restored(fixture, start, left.new_token()).await;
                restored.with_context(|| rollback.to_string())?;
                Ok("rolled back".to_owned())
            }
        }
    }
}

/// Before the first write, and after each write.
fn points(writes: &[Request]) -> VecDeque<Point> {
    let mut points = VecDeque::new();
    let mut counts = BTreeMap::new();
    let leases = writes.iter().filter(|write| is_lease(write)).count();
    for (index, write) in writes.iter().enumerate() {
        let what = essence(write);
        let object = if is_lease(write) { "the Lease" } else { &what };
        let nth = *counts.entry(object.to_owned()).and_modify(|nth| *nth += 1).or_insert(1);
        let before = (index == 0).then_some(Moment::Before);
        points.extend(before.into_iter().chain([Moment::After]).map(|moment| Point {
            write: index + 1,
            what: what.clone(),
            leases_after: is_lease(write).then(|| leases - nth),
            on: same_as(write).nth(nth),
            moment,
        }));
    }
    points
}

/// Runs a rotation and kills it at this point. Returns whether the run reached it.
async fn kill(fixture: &RancherFixture, point: &Point) -> Result<bool> {
    let (proxy, shell) = fixture.behind_proxy().await?;
    proxy.plan(point.on.clone(), Fault::Kill(point.moment));
    let run = shell.crt(command("rotate", fixture)).start().await?;
    proxy.victim(run.pid()?);
    let outcome = run.finish().await?;
    if outcome.code() == Some(0) {
        return Ok(false);
    }
    outcome.expect_killed().with_context(|| proxy.transcript())?;
    let writes = proxy.writes();
    let mut rest = writes.iter().skip_while(|write| write.fault.is_none());
    let last = rest.next().context("killed before its first write")?;
    // The server has answered this write or has never received it. At most one other write was in flight: a renewal of the
    // lock, or the write that was in flight beside a renewal.
    let in_flight: Vec<_> = rest.collect();
    let renewal_is_among_them = is_lease(last) || in_flight.iter().all(|write| is_lease(write));
    ensure!(in_flight.len() <= 1 && renewal_is_among_them, "{}", proxy.transcript());
    ensure!(
        last.status.is_some() == (point.moment == Moment::After),
        "{}",
        proxy.transcript()
    );
    Ok(true)
}

/// Runs the same command again.
async fn finish(fixture: &RancherFixture, start: &State) -> Result<String> {
    let resumed: CommandOutput = fixture.shell.crt(command("rotate", fixture)).run().await?.expect(0)?;
    let rotated = state::rotated(fixture, start, Scope::All).await;
    rotated.with_context(|| resumed.to_string())?;
    Ok("finished by the same command".to_owned())
}

/// The killed run has changed nothing but the Lease. Its lock may still exist; the next run takes it at once, because the
/// process of its holder has ended.
async fn untouched(fixture: &RancherFixture, start: &State) -> Result<()> {
    let now = State::of(fixture).await?;
    ensure!((&now.tokens, &now.graces) == (&start.tokens, &start.graces), "{now:#?}");
    ensure!(
        (&now.credentials, &now.pods) == (&start.credentials, &start.pods),
        "{now:#?}"
    );
    ensure!(now.deployment == start.deployment, "{now:#?}");
    Ok(())
}

fn command<'a>(verb: &'a str, fixture: &'a RancherFixture) -> [&'a str; 6] {
    [verb, &fixture.cluster.id, "--yes", "--settle=0s", "--timeout", "15m"]
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "killed {moment:<6} write {:>2} ({})", self.write, self.what)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = match self.then {
            Then::Rotate => "rotate again",
            Then::Rollback => "rollback",
        };
        let kind = match self.kind {
            Kind::Imported => "imported",
            Kind::Provisioned => "provisioned",
            Kind::Hosted => "hosted",
        };
        write!(f, "[{kind}, {} storage, {then}]", self.storage.word())
    }
}
