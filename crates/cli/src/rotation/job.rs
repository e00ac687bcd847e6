//! The common part of `rotate` and `rollback`: survey, plan, confirmation, lock, engine, and the final message.
//!
//! Nothing is written before the user confirms, with one exception. If another process seems to hold the lock, the lock
//! is acquired first, so that a holder is reported before the user reads a plan.

use std::future::Future;

use crate::app::DryRun;
use crate::ui::Ui;
use client::access;
use client::error::{Doing as _, Error, Kind};
use engine::controller::{Controller, Failure, ObservedOf, PlanOf, RotationOf};
use engine::direction::Direction;
use engine::engine::{Engine, Outcome};
use engine::journal::{Journal, Unreadable};
use engine::lock::{AcquireError, LeaseRecord, LockGuard, Release};
use engine::phase::Phase;
use engine::plan::{self, NoPlan, Planned};
use engine::rotation::{Check, Rotation};
use tokio::sync::watch;

use crate::rotation::leases::LeasedRotation;
use crate::rotation::outcome::{self, RotationResult, Verb, end_of};
use crate::rotation::plan::{Line, lines, text};
use crate::rotation::progress::Terminal;
use crate::rotation::target::Target;

/// What is printed when a run is asked to stop.
pub(crate) const STOPPING: &str = "Stopping after the call in flight. Press Ctrl-C again to stop at once.";

/// The journal of a controller's rotation.
type JournalOf<C> = Journal<RotationOf<C>>;

/// The rotation or rollback of one target. [`Job::run`] is for a single target, [`several::run`] for several: it
/// surveys all of them before the user confirms.
///
/// [`several::run`]: crate::rotation::several::run
pub struct Job<'a, C> {
    /// The terminal.
    pub ui: &'a Ui,
    /// Observes and applies.
    pub controller: &'a C,
    /// The target.
    pub target: &'a Target,
    /// To rotate, or to roll back.
    pub verb: Verb,
    /// Do not ask for confirmation.
    pub yes: bool,
    /// The value of `--dry-run`.
    pub dry_run: DryRun,
    /// The plan of a dry run goes to stdout: it is the output.
    pub plan_is_data: bool,
    /// One of several: its plan is one line, and its progress is prefixed with this name.
    pub among: Option<&'a str>,
    /// Take the lock from a process that still renews it.
    pub force_lock: bool,
    /// Ignore a journal that cannot be read.
    pub force_journal: bool,
}

/// The result of a survey.
struct Survey<C: Controller> {
    record: LeaseRecord,
    journal: Option<JournalOf<C>>,
    seen: ObservedOf<C>,
    /// `None` where the end of a run in progress cannot be predicted.
    plan: Option<PlanOf<C>>,
}

/// A target that was surveyed.
pub(crate) struct Ready<C: Controller> {
    /// The lock, where another process seemed to hold it.
    held: Option<(LockGuard, LeaseRecord)>,
    survey: Survey<C>,
}

impl<C: Controller> Ready<C> {
    /// Releases the lock without a change.
    pub(crate) async fn leave(self) {
        release(self.held).await;
    }
}

impl<C: Controller> Job<'_, C> {
    /// Rotates or rolls back, to the end. `result` says more than the error, also where there is none.
    pub async fn run(&self, result: &mut RotationResult) -> Result<(), Error> {
        let _hold = self.ui.hold();
        let ended = self.try_run(result).await;
        ended.map_err(|error| self.failed(error, result))
    }

    /// The error that it ended with, as it is printed.
    pub(crate) fn failed(&self, error: Error, result: &mut RotationResult) -> Error {
        let error = self.ui.by_signal(self.controller.explain(error));
        result.fail(&error);
        error
    }

    async fn try_run(&self, result: &mut RotationResult) -> Result<(), Error> {
        let Some(ready) = self.prepare(result).await? else {
            return Ok(());
        };
        match self.ui.require_confirmation("", self.yes).await {
            Ok(()) => self.carry_out(ready, result).await,
            Err(no) => {
                ready.leave().await;
                Err(no)
            }
        }
    }

    /// Surveys it, and prints the plan. `None`: there is nothing more to do, and `result` says why.
    pub(crate) async fn prepare(&self, result: &mut RotationResult) -> Result<Option<Ready<C>>, Error> {
        let held = self.unless_interrupted(self.acquire_if_held()).await??;
        let survey = match self.unless_interrupted(Box::pin(self.survey(result))).await {
            Ok(Ok(Some(survey))) => survey,
            other => {
                release(held).await;
                return other.and_then(|survey| survey.map(|_| None));
            }
        };
        let ready = Ready { held, survey };
        if let Err(error) = self.show(&ready.survey, result).await {
            ready.leave().await;
            return Err(error);
        }
        if self.dry_run != DryRun::None {
            result.end("planned");
            return Ok(None);
        }
        Ok(Some(ready))
    }

    /// Rotates or rolls back after the confirmation.
    pub(crate) async fn carry_out(&self, ready: Ready<C>, result: &mut RotationResult) -> Result<(), Error> {
        let Ready { held, survey } = ready;
        let lock = match held {
            Some((lock, _)) => lock,
            None => self.unless_interrupted(self.acquire(&survey.record)).await??,
        };
        let outcome = Box::pin(self.engine(lock, survey.journal)).await;
        self.finish(outcome, &survey.seen, survey.plan.as_ref(), result).await
    }

    /// If another process seems to hold the lock, acquires it or reports the holder. A holder that exited before it
    /// wrote a journal has left nothing to roll back, except its name in the Lease.
    async fn acquire_if_held(&self) -> Result<Option<(LockGuard, LeaseRecord)>, Error> {
        if self.dry_run != DryRun::None {
            return Ok(None);
        }
        let record = self.read_lease().await?;
        let left_to_undo = self.verb == Verb::Rotate || record.journal.is_some();
        if record.holder.is_none() || self.force_lock || (record.holder_has_exited() && left_to_undo) {
            return Ok(None);
        }
        self.lock().await.map(Some)
    }

    async fn read_lease(&self) -> Result<LeaseRecord, Error> {
        let lease = &self.target.lease;
        let lock = lease.lock::<RotationOf<C>>(self.controller.server());
        lock.read().await.doing(format!("read {lease}"))
    }

    async fn lock(&self) -> Result<(LockGuard, LeaseRecord), Error> {
        let Target {
            display: name,
            commands,
            lease,
            ..
        } = self.target;
        let on_wait = |holder: &str| {
            self.ui.status(format!(
                "The lock of {name} is held by {holder}. Checking whether the holder still renews it."
            ));
        };
        let lock = lease.lock::<RotationOf<C>>(self.controller.server());
        match Box::pin(lock.acquire(self.force_lock, on_wait)).await {
            Ok(taken) => Ok(taken),
            Err(AcquireError::Held(holder)) => {
                let kind = Box::pin(self.read_lease()).await.ok().and_then(|record| record.kind);
                let message = format!("{} of {name} is held by {holder}", self.run_of(kind.as_deref()));
                let status = commands.status();
                Err(Error::new(Kind::Held, message).hint(format!("`{status}` shows its progress")))
            }
            Err(AcquireError::Api(error)) => Err(error).doing(format!("acquire the lock, {lease}")),
        }
    }

    /// The run that holds a Lease of this kind, which may be another kind of rotation.
    fn run_of(&self, kind: Option<&str>) -> String {
        let kind = kind.filter(|kind| *kind != RotationOf::<C>::KIND);
        let other = kind.and_then(|kind| self.target.commands.other(kind));
        other.map_or_else(
            || format!("the {}", self.target.action.noun),
            |other| other.display.to_owned(),
        )
    }

    /// Acquires the lock after the confirmation. Fails if another run has changed something since the survey.
    async fn acquire(&self, surveyed: &LeaseRecord) -> Result<LockGuard, Error> {
        let (lock, record) = self.lock().await?;
        if record.journal == surveyed.journal && record.last_run == surveyed.last_run {
            return Ok(lock);
        }
        release(Some((lock, record))).await;
        let message = format!("another run has changed {} since the survey", self.target.display);
        Err(Error::failed(message).hint("run the same command again"))
    }

    /// Observes both sides and makes the plan. `None`: there is nothing to do, and `result` says so.
    async fn survey(&self, result: &mut RotationResult) -> Result<Option<Survey<C>>, Error> {
        let record = self.read_lease().await?;
        if self.dry_run != DryRun::None && !record.holder_has_exited() && record.holder.is_some() {
            let (name, run) = (&self.target.display, self.run_of(record.kind.as_deref()));
            let holder = record.describe_holder(self.controller.server().clock.now());
            let holder = holder.unwrap_or_default();
            self.ui.warn(format!("{run} of {name} is held by {holder}"));
        }
        let mut was_forward = false;
        let journal = match LeasedRotation::<RotationOf<C>>::from(record.clone()).journal {
            None => None,
            Some(Ok(journal)) => {
                was_forward = journal.run().direction == Direction::Forward;
                Some(self.directed(journal.taken_over())?)
            }
            Some(Err(Unreadable::OtherKind(kind))) if self.force_journal && self.may_discard(&kind) => {
                let other = self.run_of(Some(&kind));
                self.ui.status(format!("Discarding {other} in the Lease."));
                None
            }
            // It is the lock of that rotation too.
            Some(Err(Unreadable::OtherKind(kind))) => return Err(self.other_in_progress(&kind)),
            Some(Err(_)) if self.force_journal => None,
            Some(Err(why)) => return Err(Error::failed(why.to_string())),
        };
        if self.verb == Verb::Rollback && journal.is_none() {
            result.end("nothing-to-do");
            result.message = Some(format!(
                "no {} of {} is in progress",
                self.target.action.noun, self.target.display
            ));
            return Ok(None);
        }
        let is_resumed = journal.is_some();
        let surveyed = self.survey_objects(record, journal, was_forward, result).await;
        surveyed.map(Some).map_err(|error| match error.kind {
            Kind::Forbidden | Kind::Unauthorized | Kind::Unreachable | Kind::Unavailable if is_resumed => {
                let commands = &self.target.commands;
                let resume = match self.verb {
                    Verb::Rotate => commands.rotate(),
                    Verb::Rollback => commands.rollback(),
                };
                error.of_kind(Kind::Pending).hint(format!("`{resume}` resumes it"))
            }
            _ => error,
        })
    }

    /// A kind that the same product has, and whose objects this rotation knows.
    fn may_discard(&self, kind: &str) -> bool {
        self.verb == Verb::Rotate && RotationOf::<C>::KINDS.contains(&kind)
    }

    fn other_in_progress(&self, kind: &str) -> Error {
        let Some(other) = self.target.commands.other(kind) else {
            return Error::failed(Unreadable::OtherKind(kind.to_owned()).to_string());
        };
        let (rotate, rollback) = (other.commands.rotate(), other.commands.rollback());
        Error::failed(format!("{} is in progress", other.display))
            .hint(format!("`{rotate}` resumes it"))
            .hint(format!("`{rollback}` rolls it back"))
    }

    async fn survey_objects(
        &self,
        record: LeaseRecord,
        journal: Option<JournalOf<C>>,
        was_forward: bool,
        result: &mut RotationResult,
    ) -> Result<Survey<C>, Error> {
        let mut seen = self.observe(journal.as_ref()).await?;
        let journal = match journal {
            Some(claimed) => self.resumed(claimed, &mut seen).await?,
            None => None,
        };
        let run = journal.as_ref().map(|journal| journal.run().clone());
        let plan = match plan::plan(seen.clone(), run) {
            Ok(plan) => Some(plan),
            Err(NoPlan::Stuck(_)) if journal.is_some() => None,
            Err(NoPlan::Stuck(what)) => {
                let message = format!(
                    "cannot {} {}: it would wait forever for {what}",
                    self.target.action.verb, self.target.display
                );
                return Err(Error::failed(message));
            }
            Err(NoPlan::Refused(blockers)) if journal.is_none() => {
                return Err(outcome::refused(Verb::Rotate, self.target, blockers, result));
            }
            // The run stays as it is, so that it can be finished.
            Err(NoPlan::Refused(blockers)) if self.verb == Verb::Rollback && was_forward => {
                return Err(outcome::rollback_refusal(self.target, blockers, result));
            }
            // What blocks a run in progress is reported by the engine, with the command that rolls it back.
            Err(NoPlan::Refused(_)) => None,
        };
        match access::require(&self.controller.needs()).await {
            // The engine waits until the server answers again, and a refused write leaves the rollback open.
            Err(error) if journal.is_some() && error.kind.is_transient() => {
                tracing::debug!(%error, "the permissions of a resumed run could not be checked");
            }
            checked => checked?,
        }
        Ok(Survey {
            record,
            journal,
            seen,
            plan,
        })
    }

    async fn observe(&self, journal: Option<&JournalOf<C>>) -> Result<ObservedOf<C>, Error> {
        let seen = Box::pin(self.controller.observe(journal.map(Journal::run))).await;
        seen.map_err(in_words)
    }

    /// Replaces the run in the Lease with the run that is recorded on the objects. `None` if no object of it exists: a
    /// new run begins.
    async fn resumed(&self, claimed: JournalOf<C>, seen: &mut ObservedOf<C>) -> Result<Option<JournalOf<C>>, Error> {
        let claim = claimed.run().clone();
        let journal = claimed.resumed(seen);
        let unchanged = journal.as_ref().is_some_and(|journal| *journal.run() == claim);
        let is_discarded = self.force_journal && self.verb == Verb::Rotate;
        if journal.is_none() && claim.direction != Direction::Forward && !is_discarded {
            let noun = self.target.action.noun;
            let message = format!("nothing of the {noun} of {} can be rolled back", self.target.display);
            let rotate = self.target.commands.rotate_forced(Check::JOURNAL);
            let hint = format!("`{rotate}` discards its journal and starts a new {noun}");
            return Err(Error::failed(message).hint(hint));
        }
        if journal.is_none() {
            let what = if is_discarded {
                "Discarding the run in the Lease."
            } else {
                "The run in the Lease has changed nothing."
            };
            self.ui
                .status(format!("{what} Starting a new {}.", self.target.action.noun));
        }
        if !unchanged {
            *seen = self.observe(journal.as_ref()).await?;
        }
        Ok(journal)
    }

    /// Sets the direction of the journal to that of this command.
    fn directed(&self, mut journal: JournalOf<C>) -> Result<JournalOf<C>, Error> {
        if self.verb == Verb::Rotate || journal.run().direction != Direction::Forward {
            return Ok(journal);
        }
        if !journal.run().may_turn(Direction::Rollback) {
            let Target { display, commands, .. } = self.target;
            let noun = self.target.action.noun;
            let message = format!("the {noun} of {display} has begun to revoke the old token and can only be finished");
            let rotate = commands.rotate();
            return Err(Error::failed(message).hint(format!("`{rotate}` finishes it")));
        }
        journal.turn(Direction::Rollback, "requested with rollback");
        Ok(journal)
    }

    async fn show(&self, survey: &Survey<C>, result: &mut RotationResult) -> Result<(), Error> {
        if let Some(journal) = &survey.journal {
            let in_progress = in_progress(journal, self.verb);
            self.ui.status(match self.among {
                Some(_) => format!("{}: {in_progress}", self.target.display),
                None => in_progress,
            });
        }
        let Some(plan) = &survey.plan else { return Ok(()) };
        result.old_fingerprint = Some(RotationOf::<C>::credentials(&plan.record).old);
        result.plan = lines(plan);
        if self.dry_run == DryRun::Server {
            for (planned, line) in plan.steps.iter().zip(&mut result.plan) {
                if let Planned::Step { step, .. } = planned {
                    line.checked = Some(self.controller.dry_run(step).await.to_string());
                }
            }
        }
        if survey.journal.is_none() {
            result.plan.insert(0, survey_line::<C>(&survey.seen, plan));
        }
        let mut also_invalidated = RotationOf::<C>::also_invalidated(plan);
        also_invalidated.extend(self.controller.also_invalidated(plan));
        let text = text(&self.title(plan.direction), &result.plan, &also_invalidated);
        result.remarks.append(&mut also_invalidated);
        match self.among {
            _ if self.plan_is_data => self.ui.write_out(&text),
            None => self.ui.status(text.trim_end()),
            Some(_) => {
                if let Some(line) = result.plan.first().filter(|line| line.phase == Phase::Survey) {
                    self.ui.status(format!("{}: {}", self.target.display, line.what));
                }
            }
        }
        Ok(())
    }

    fn title(&self, direction: Direction) -> String {
        let (name, reached) = (&self.target.display, self.controller.reached());
        let mut what = if direction.is_rollback() {
            "rollback".to_owned()
        } else {
            self.target.action.noun.to_owned()
        };
        if let Some(first) = what.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        format!("{what} of {name}{reached}:")
    }

    async fn engine(&self, lock: LockGuard, journal: Option<JournalOf<C>>) -> Outcome {
        // The direction is journaled first, so that a killed rollback is resumed as a rollback.
        if let Some(text) = journal
            .as_ref()
            .filter(|journal| journal.run().direction != Direction::Forward)
            .and_then(|it| it.to_text().ok())
        {
            let _ = lock.save(text).await;
        }
        let terminal = Terminal::new(self.ui, self.among);
        let (stop, stopped) = watch::channel(false);
        let engine = Engine {
            controller: self.controller,
            listener: &terminal,
            stop: stopped,
            patience: None,
        };
        let asked_to_stop = async {
            self.ui.interrupt().cancelled().await;
            if self.among.is_none() {
                self.ui.status(STOPPING);
            }
            let _ = stop.send(true);
            std::future::pending::<Outcome>().await
        };
        tokio::select! {
            outcome = engine.run(lock, journal) => outcome,
            outcome = asked_to_stop => outcome,
        }
    }

    async fn finish(
        &self,
        outcome: Outcome,
        before: &ObservedOf<C>,
        plan: Option<&PlanOf<C>>,
        result: &mut RotationResult,
    ) -> Result<(), Error> {
        // The Lease says whether there is a run to resume, also if another process wrote it. If it cannot be read,
        // assume one.
        let pending = matches!(outcome, Outcome::Pending { .. })
            && !self.read_lease().await.is_ok_and(|record| record.journal.is_none());
        let done = matches!(outcome, Outcome::Done | Outcome::AlreadyDone);
        let rolled_forward = matches!(outcome, Outcome::RolledForward(_));
        if !matches!(outcome, Outcome::Pending { .. } | Outcome::Refused(_)) {
            result.remarks.extend(self.controller.unproven());
        }
        let action = plan.map_or(self.target.action, |plan| RotationOf::<C>::action(&plan.record));
        let ended = end_of(self.verb, action, outcome, self.target, pending, result);
        if rolled_forward {
            let summary = self.controller.rolled_forward();
            result.new_fingerprint = summary.in_use;
            return ended.map_err(|mut error| {
                error.message = format!("{}; {}", error.message, summary.message);
                error
            });
        }
        ended?;
        if done {
            let summary = self.controller.summary(before, plan).await;
            result.new_fingerprint = summary.in_use;
            result.remarks.push(summary.message);
        }
        Ok(())
    }

    /// Nothing is in progress yet: Ctrl-C ends it at once.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            () = self.ui.interrupt().cancelled() => {
                Err(Error::new(Kind::Interrupted, "interrupted before anything was changed"))
            }
        }
    }
}

async fn release(held: Option<(LockGuard, LeaseRecord)>) {
    if let Some((lock, _)) = held
        && let Err(lost) = lock.release(Release::KeepJournal).await
    {
        tracing::debug!(%lost, "the lock was not released");
    }
}

fn in_words(failure: Failure) -> Error {
    match failure {
        Failure::Transient(error) | Failure::Permanent(error) => error,
        Failure::Conflict => Error::failed("the objects change while they are read").hint("try again in a moment"),
        Failure::LockLost => Error::failed("the lock was lost before anything was changed"),
    }
}

fn in_progress<R: Rotation>(journal: &Journal<R>, verb: Verb) -> String {
    let run = journal.run();
    let (id, phase) = (&run.id, run.phase);
    let reason = journal.reason.as_deref().unwrap_or("requested");
    let action = R::action(&run.record);
    let (noun, done) = (capitalized(action.noun), action.done);
    match (verb, run.direction) {
        (_, Direction::Forward) => format!("{noun} {id} is in progress, in phase {phase}. Resuming it."),
        (Verb::Rotate, Direction::Rollback) => {
            format!("{noun} {id} is being rolled back ({reason}). Finishing the rollback; nothing is {done}.")
        }
        (Verb::Rollback, Direction::Rollback) => {
            format!("{noun} {id} is in progress, in phase {phase}. Rolling it back.")
        }
        (_, Direction::RollForward) => {
            format!("{noun} {id} can no longer be rolled back ({reason}). Finishing it.")
        }
    }
}

fn capitalized(noun: &str) -> String {
    let first = noun.get(..1).unwrap_or_default().to_ascii_uppercase();
    first + noun.get(1..).unwrap_or_default()
}

/// Where the rotation starts from.
fn survey_line<C: Controller>(seen: &ObservedOf<C>, plan: &PlanOf<C>) -> Line {
    Line {
        phase: Phase::Survey,
        what: RotationOf::<C>::start(seen, &plan.record),
        wait: false,
        checked: None,
    }
}
