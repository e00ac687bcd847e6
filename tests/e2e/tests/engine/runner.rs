//! One run of the engine, in this process or in a child process that can be killed and stopped. The child is this test binary,
//! started with the one ignored test that reads its run from the environment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use client::connection::{ConnectionOptions, Environment, Server};
use engine::direction::Direction;
use engine::engine::{Engine, Outcome, Pause};
use engine::event::Event;
use engine::journal::Journal;
use engine::lock::{AcquireError, Lock, Release};
use engine::phase::Phase;
use engine::rotation::{Blocker, Rotation as _};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::badge::Badge;
use crate::controller::BadgeController;
use crate::fixture::{LEASE, PATIENCE};

const RUN: &str = "ENGINE_TEST_RUN";

/// What a run does, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EngineRun {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) report: PathBuf,
    pub(crate) namespace: String,
    pub(crate) rollback: bool,
    pub(crate) by_force: bool,
    pub(crate) patience: Duration,
    pub(crate) proof: Duration,
    /// In seconds.
    pub(crate) clock_is_off_by: i64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RunResult {
    Done,
    RolledBack(String),
    RolledForward(String),
    Refused(String),
    Pending {
        phase: Phase,
        direction: Direction,
        because: PauseReason,
    },
    Held(String),
    Unreadable(String),
    /// A rollback where no rotation is in progress, or where it has passed *retire*.
    NothingToRollBack,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PauseReason {
    Interrupted,
    TimedOut(String),
    Blocked(String),
    LockLost,
    Contested(String),
    Error(String),
}

impl RunResult {
    pub(crate) fn was_interrupted(&self) -> bool {
        matches!(
            self,
            Self::Pending {
                because: PauseReason::Interrupted,
                ..
            }
        )
    }

    pub(crate) fn lost_the_lock(&self) -> bool {
        matches!(
            self,
            Self::Pending {
                because: PauseReason::LockLost,
                ..
            }
        )
    }
}

impl EngineRun {
    fn server(&self) -> Result<Server> {
        let options = ConnectionOptions {
            kubeconfig: Some(self.kubeconfig.clone()),
            ..ConnectionOptions::default()
        };
        Ok(options.load(&Environment::silent())?.connect()?)
    }

    /// Runs it in this process.
    pub(crate) async fn run(&self) -> Result<RunResult> {
        let (_open, stop) = watch::channel(false);
        self.run_until(stop).await
    }

    /// Runs it in this process until it is stopped.
    pub(crate) async fn run_until(&self, stop: watch::Receiver<bool>) -> Result<RunResult> {
        let server = self.server()?;
        let off = SignedDuration::from_secs(self.clock_is_off_by);
        server.clock.observe(Timestamp::now().saturating_add(off)?);
        let leases = Api::namespaced(server.client.clone(), &self.namespace);
        let lock = Lock::new(leases, LEASE, Badge::KIND, Badge::FIELD_MANAGER, server.clock.clone());
        let (held, record) = match lock.acquire(self.by_force, |_| {}).await {
            Ok(taken) => taken,
            Err(AcquireError::Held(holder)) => return Ok(RunResult::Held(holder)),
            Err(AcquireError::Api(error)) => return Err(error.into()),
        };
        let mut journal = match record.journal.as_deref().map(Journal::<Badge>::read).transpose() {
            Ok(journal) => journal,
            Err(error) => {
                held.release(Release::KeepJournal).await?;
                return Ok(RunResult::Unreadable(error.to_string()));
            }
        };
        if self.rollback {
            match &mut journal {
                Some(journal) if journal.run().direction.is_rollback() => {}
                Some(journal) if journal.run().may_turn(Direction::Rollback) => {
                    journal.turn(Direction::Rollback, "requested");
                }
                _ => {
                    held.release(Release::KeepJournal).await?;
                    return Ok(RunResult::NothingToRollBack);
                }
            }
        }
        let engine = Engine {
            controller: &BadgeController::new(&server, &self.namespace, self.proof),
            listener: &|_: Event| {},
            stop,
            patience: Some(self.patience),
        };
        Ok(engine.run(held, journal).await.into())
    }

    /// Runs it in a child process.
    pub(crate) fn start(&self) -> Result<Process> {
        let child = tokio::process::Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "runner::run_in_a_child_process", "--nocapture"])
            .env(RUN, serde_json::to_string(self)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Process {
            child,
            report: self.report.clone(),
        })
    }

    /// The rollback of the same target.
    pub(crate) fn rollback(&self) -> Self {
        Self {
            rollback: true,
            ..self.clone()
        }
    }
}

impl From<Outcome> for RunResult {
    fn from(outcome: Outcome) -> Self {
        let reasons = |blockers: Vec<Blocker>| {
            let reasons: Vec<_> = blockers.into_iter().map(|blocker| blocker.reason).collect();
            reasons.join("; ")
        };
        match outcome {
            Outcome::Done | Outcome::AlreadyDone => Self::Done,
            Outcome::RolledBack(reason) => Self::RolledBack(reason),
            Outcome::RolledForward(reason) => Self::RolledForward(reason),
            Outcome::Refused(blockers) => Self::Refused(reasons(blockers)),
            Outcome::Pending {
                phase,
                direction,
                because,
            } => Self::Pending {
                phase,
                direction,
                because: match because {
                    Pause::Interrupted => PauseReason::Interrupted,
                    Pause::TimedOut(what) => PauseReason::TimedOut(what),
                    Pause::Blocked(blockers) => PauseReason::Blocked(reasons(blockers)),
                    Pause::LockLost(_) => PauseReason::LockLost,
                    Pause::Contested(writer) => PauseReason::Contested(writer),
                    Pause::Error(error) => PauseReason::Error(error.to_string()),
                },
            },
        }
    }
}

/// A run that can be killed.
pub(crate) struct Process {
    child: tokio::process::Child,
    report: PathBuf,
}

impl Process {
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("it has already ended")
    }

    pub(crate) fn resume(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()?)?).context("no pid")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::CONT)?)
    }

    /// How it ended; nothing if it was killed.
    pub(crate) async fn finish(mut self) -> Result<Option<RunResult>> {
        let status = tokio::time::timeout(2 * PATIENCE, self.child.wait()).await??;
        if std::os::unix::process::ExitStatusExt::signal(&status) == Some(9) {
            return Ok(None);
        }
        ensure!(status.success(), "the child process failed: {status}");
        let ended = serde_json::from_str(&std::fs::read_to_string(&self.report)?)?;
        Ok(Some(ended))
    }

    pub(crate) async fn expect(self, expected: RunResult) -> Result<()> {
        let ended = self.finish().await?;
        ensure!(ended.as_ref() == Some(&expected), "expected {expected:?}: {ended:?}");
        Ok(())
    }
}

fn write_report(path: &Path, ended: &RunResult) -> Result<()> {
    Ok(std::fs::write(path, serde_json::to_string(ended)?)?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test: the other tests start it as a child process"]
async fn run_in_a_child_process() -> Result<()> {
    let Some(run) = std::env::var_os(RUN) else {
        bail!("{RUN} is empty: only another test can start this one")
    };
    let run: EngineRun = serde_json::from_str(run.to_str().context("not UTF-8")?)?;
    write_report(&run.report, &run.run().await?)
}
