//! A rescue is killed between any two of its writes. The same command finishes it, and `rollback` undoes it: it removes what was made
//! valid again, and nothing else.
//!
//! Each point begins with a Rancher that was restored from a backup: all registration tokens have older values, and the agent has one
//! that Rancher rejects.

#![expect(clippy::print_stdout, reason = "the matrix prints one line for each point")]

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{CommandOutput, Invocation, KillPoint, RancherFixture, Shell, until};
use futures::future::join_all;
use rstest::rstest;
use test_cluster::{Backup, Moment, Registration, TokenStorage};

use crate::KILLED_AT_ONCE;
use crate::state::{State, fingerprint};
use crate::writes::is_lease;

/// How many clusters of one test are rescued at a time.
const SIDE_BY_SIDE: usize = 5;

/// A token that Rancher does not know.
const REVOKED: &str = "k2vq5rnt7wz9bj4hd6lcfmgspxk3vq2rnt8wz5bj7hd9lcf4mgsp6x";

/// The way to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a context that does not go through Rancher.
    Context,
    /// With the token that the agent has.
    OldToken,
    /// By a context, and all registration tokens were deleted.
    NoTokens,
    /// By the machines of a cluster that Rancher provisioned.
    Machines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Rescue,
    Rollback,
}

/// A cluster whose agent can be lost again and again.
struct Patient {
    fixture: RancherFixture,
    way: Way,
    backup: Backup,
    /// The number of writes of a rotation.
    rotation: usize,
}

/// An agent that is lost.
struct Lost {
    /// Its token.
    token: String,
    /// The values that Rancher has.
    start: State,
}

impl Patient {
    async fn begin(storage: TokenStorage, way: Way, name: &str) -> Result<Self> {
        let registration = Registration::imported(name).quick();
        let registration = match way {
            Way::Machines => registration.provisioned(2),
            _ => registration,
        };
        let fixture = RancherFixture::begin_with(storage, &registration).await?;
        let backup = fixture.rancher.backup(&[&fixture.cluster]).await?;
        let rotate = ["rotate", &fixture.cluster.id, "--yes", "--settle=0s"];
        let (proxy, shell) = fixture.behind_proxy().await?;
        shell.crt(rotate).run().await?.expect(0)?;
        Ok(Self {
            fixture,
            way,
            backup,
            rotation: proxy.writes().len(),
        })
    }

    async fn lose(&self) -> Result<Lost> {
        let (rancher, cluster) = (self.fixture.rancher, &self.fixture.cluster);
        match self.way {
            // Rancher's planner would bring the agent back with the value that is restored.
            Way::Machines => rancher.set_agent_token(cluster, REVOKED).await?,
            _ => rancher.restore(&self.backup).await?,
        }
        if self.way == Way::NoTokens {
            rancher.delete_registration_tokens(cluster).await?;
        }
        rancher.restart_agent(cluster).await?;
        until("the agent to be lost", async || {
            let report = rancher.report(cluster).await?;
            Ok(report.sessions.is_empty().then_some(()))
        })
        .await?;
        let secret = rancher.agent_secret(cluster).await?;
        let direct = format!("{}-direct", cluster.id);
        let token = [
            "get",
            "secret",
            &secret,
            "--context",
            &direct,
            "-n",
            "cattle-system",
            "-o",
        ];
        let token = token.iter().chain(&["jsonpath={.data.token}"]);
        let token = self.fixture.shell.kubectl(token).run().await?.expect(0)?.stdout;
        let start = State::of(&self.fixture).await?;
        Ok(Lost {
            token: String::from_utf8(STANDARD.decode(token.trim())?)?,
            start,
        })
    }

    fn command(&self, shell: &Shell, lost: &Lost) -> Invocation {
        let id = self.fixture.cluster.id.as_str();
        let direct = format!("{id}-direct");
        let common = ["rescue", id, "--yes", "--settle=0s"];
        let more: &[&str] = match self.way {
            Way::Context | Way::NoTokens => &["--downstream-context", &direct],
            Way::OldToken => &["--reactivate-old-token", "--token-stdin"],
            Way::Machines => &[],
        };
        let command = shell.crt(common.iter().chain(more));
        match self.way {
            Way::OldToken => command.stdin(lost.token.clone()),
            _ => command,
        }
    }

    /// The agent is back, with a new token that Rancher deploys too, and no value from before is accepted.
    async fn is_back(&self, lost: &Lost) -> Result<()> {
        let now = until("the agent to be back", async || {
            let report = self.fixture.rancher.report(&self.fixture.cluster).await?;
            let is_back = report.sessions.len() == 2 && report.fingerprints().len() == 1;
            let state = State::of(&self.fixture).await?;
            Ok((is_back && state.pods.len() == 1).then_some(state))
        })
        .await?;
        ensure!(
            now.named() == now.system() && now.report.fingerprints() == [now.named()],
            "{now:#?}"
        );
        let mut before: Vec<_> = lost.start.tokens.values().cloned().collect();
        before.push(fingerprint(&lost.token));
        let still = before.iter().find(|value| now.report.accepted.contains(value));
        ensure!(still.is_none(), "{still:?} is still accepted: {now:#?}");
        ensure!(now.temporary.is_empty() && now.graces.is_empty(), "{now:#?}");
        ensure!(now.deployment.settings == (0, 600), "{now:#?}");
        let lease = now.lease.as_ref().context("no Lease")?;
        ensure!(lease.holder.is_none() && lease.journal.is_none(), "{now:#?}");
        ensure!(lease.result.as_deref() == Some("rotated"), "{now:#?}");
        Ok(())
    }

    /// The lost value is rejected, what was accepted before is accepted, and no run is in progress.
    async fn is_undone(&self, lost: &Lost, rollback: &CommandOutput) -> Result<()> {
        let now = State::of(&self.fixture).await?;
        let accepted = &now.report.accepted;
        ensure!(!accepted.contains(&fingerprint(&lost.token)), "{now:#?}\n{rollback}");
        let missing = lost.start.tokens.values().find(|value| !accepted.contains(value));
        ensure!(
            missing.is_none(),
            "{missing:?} is not accepted any more: {now:#?}\n{rollback}"
        );
        ensure!(now.temporary.is_empty(), "{now:#?}\n{rollback}");
        ensure!(now.deployment.settings == (0, 600), "{now:#?}\n{rollback}");
        let lease = now.lease.as_ref().context("no Lease")?;
        ensure!(lease.journal.is_none(), "{now:#?}\n{rollback}");
        Ok(())
    }
}

#[rstest]
#[case::by_a_context(TokenStorage::Secret, Way::Context)]
#[case::with_the_old_token_in_status(TokenStorage::Status, Way::OldToken)]
#[case::with_the_old_token_in_secrets(TokenStorage::Secret, Way::OldToken)]
#[case::without_tokens(TokenStorage::Status, Way::NoTokens)]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_and_run_again_it_finishes(#[case] storage: TokenStorage, #[case] way: Way) -> Result<()> {
    Matrix::new(storage, way, Then::Rescue).await?.run().await
}

/// The points: before the first write, and after each write of an object. A kill after a write of the Lease leaves the same objects as
/// one after the write before it: `with_the_old_token_in_secrets` has three of those too.
///
/// Every point waits out the time in which the machines read a changed file, once or twice, which the tests shorten to 3 s.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_machines_bring_the_agent_back_it_finishes() -> Result<()> {
    Matrix::new(TokenStorage::Secret, Way::Machines, Then::Rescue)
        .await?
        .run()
        .await
}

#[rstest]
#[case::by_a_context(TokenStorage::Status, Way::Context)]
#[case::with_the_old_token_in_status(TokenStorage::Status, Way::OldToken)]
#[case::with_the_old_token_in_secrets(TokenStorage::Secret, Way::OldToken)]
#[tokio::test(flavor = "multi_thread")]
async fn rollback_removes_what_was_made_valid_again(#[case] storage: TokenStorage, #[case] way: Way) -> Result<()> {
    Matrix::new(storage, way, Then::Rollback).await?.run().await
}

struct Matrix {
    storage: TokenStorage,
    way: Way,
    then: Then,
    points: Mutex<VecDeque<KillPoint>>,
    failed: Mutex<Vec<String>>,
}

impl Matrix {
    async fn new(storage: TokenStorage, way: Way, then: Then) -> Result<Self> {
        let patient = Patient::begin(storage, way, &format!("rescue-{then:?}-{way:?}").to_lowercase()).await?;
        let lost = patient.lose().await?;
        let (proxy, shell) = patient.fixture.behind_proxy().await?;
        let done = patient.command(&shell, &lost).run().await?.expect(0)?;
        println!("{done}\n{}", proxy.transcript());
        patient.is_back(&lost).await.with_context(|| done.to_string())?;
        let writes = proxy.writes();
        // The rotation that follows has a matrix of its own. Where machines bring the agent back it is the rescue.
        let of_rescue = match way {
            Way::Machines => writes.len(),
            _ => writes.len().saturating_sub(patient.rotation),
        };
        // After what is written to the objects. Of one way, also after the first, a middle and the last write of the Lease.
        let of_lease = storage == TokenStorage::Secret && way == Way::OldToken && then == Then::Rescue;
        let leases: Vec<usize> = (1..=of_rescue).filter(|write| is_lease(&writes[write - 1])).collect();
        let leases = [leases.first(), leases.get(leases.len() / 2), leases.last()];
        let is_point = |point: &KillPoint| {
            let is_of_lease = of_lease && leases.contains(&Some(&point.write));
            point.moment == Moment::Before || is_of_lease || !is_lease(&writes[point.write - 1])
        };
        let points = KillPoint::all(of_rescue).filter(is_point);
        Ok(Self {
            storage,
            way,
            then,
            points: Mutex::new(points.collect()),
            failed: Mutex::default(),
        })
    }

    async fn run(&self) -> Result<()> {
        let began = Instant::now();
        join_all((0..SIDE_BY_SIDE).map(|worker| self.work(worker))).await;
        println!(
            "{:?} {:?} {:?}: {:.0?}",
            self.storage.word(),
            self.way,
            self.then,
            began.elapsed()
        );
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
        Ok(())
    }

    async fn work(&self, worker: usize) {
        let mut patient = None;
        loop {
            let point = self.points.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(point) = point else { return };
            let _permit = KILLED_AT_ONCE.acquire().await;
            let began = Instant::now();
            if self.then == Then::Rollback {
                // It may have a value of the backup, and would not be lost again.
                patient = None;
            }
            let name = format!("{} {:?} {:?}, {point}", self.storage.word(), self.way, self.then);
            match self.on(&mut patient, worker, point).await {
                Ok(line) => println!("{name}: {line} ({:.1?})", began.elapsed()),
                Err(error) => {
                    println!("{name}: FAILED ({:.1?})", began.elapsed());
                    patient = None;
                    let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push(format!("{name}: {error:?}"));
                }
            }
        }
    }

    async fn on(&self, patient: &mut Option<Patient>, worker: usize, point: KillPoint) -> Result<String> {
        let patient = if let Some(patient) = patient {
            patient
        } else {
            let name = format!("rescue-{:?}-{:?}-{worker}", self.then, self.way).to_lowercase();
            patient.insert(Patient::begin(self.storage, self.way, &name).await?)
        };
        let lost = patient.lose().await?;
        let (proxy, shell) = patient.fixture.behind_proxy().await?;
        point.plan(&proxy);
        let run = patient.command(&shell, &lost).start().await?;
        proxy.victim(run.pid()?);
        let run = run.finish().await?;
        if run.code() == Some(0) {
            patient.is_back(&lost).await.with_context(|| run.to_string())?;
            return Ok("the run ended before".to_owned());
        }
        run.expect_killed().with_context(|| proxy.transcript())?;
        let left = State::of(&patient.fixture).await?;
        let phase = left.phase().unwrap_or("no journal").to_owned();
        if self.then == Then::Rescue {
            let resumed = patient.command(&patient.fixture.shell, &lost).run().await?.expect(0)?;
            patient.is_back(&lost).await.with_context(|| resumed.to_string())?;
            return Ok(format!("in {phase}, finished by the same command"));
        }
        let id = patient.fixture.cluster.id.as_str();
        let direct = format!("{id}-direct");
        let mut rollback = vec!["rollback", id, "--yes", "--settle=0s"];
        if self.way == Way::Context {
            rollback.extend(["--downstream-context", direct.as_str()]);
        }
        let rollback = patient.fixture.shell.crt(rollback).run().await?;
        if rollback.code() != Some(0) {
            ensure!(rollback.stderr.contains("can only be finished"), "{rollback}");
            let resumed = patient.command(&patient.fixture.shell, &lost).run().await?.expect(0)?;
            patient.is_back(&lost).await.with_context(|| resumed.to_string())?;
            return Ok(format!("in {phase}, rollback is refused, finished by the same command"));
        }
        patient.is_undone(&lost, &rollback).await?;
        Ok(format!("in {phase}, rolled back"))
    }
}
