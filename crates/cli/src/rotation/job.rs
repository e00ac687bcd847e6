//! What `rotate` and `rollback` have in common: survey, plan, question, lock, engine, and the words for the end.
//!
//! Until the question is answered nothing is written, with one exception: where somebody seems to hold the lock, it is
//! tried at once, so that a living holder is reported before anybody reads a plan.

use std::future::Future;
use std::time::Duration;

use client::connection::Server;
use client::error::{Doing as _, Error, Kind};
use client::secret::Fingerprint;
use engine::engine::{Engine, Outcome};
use engine::journal::Journal;
use engine::lock::{End, Held, NotTaken, Record};
use engine::phase::{Goal, Phase};
use engine::plan::{self, NoPlan, Plan};
use engine::protocol::{Actor, Protocol as _, Trouble, ViewOf};
use tokio::sync::watch;

use crate::app::DryRun;
use crate::rotation::leases::Rotation;
use crate::rotation::outcome::{self, Asked, RotationResult, end_of};
use crate::rotation::plan::{Line, lines, text};
use crate::rotation::subject::{Product, Subject};
use crate::rotation::terminal::Terminal;
use crate::ui::Ui;

/// How much longer than the protocol's own deadlines one wait may last, before the run is left for later.
const BEYOND_DEADLINES: Duration = Duration::from_secs(30);

/// What is said when a run is asked to stop.
pub(crate) const STOPPING: &str = "Stopping once the call under way is answered; another Ctrl-C leaves at once.";

/// What a plugin brings to one run: the actor, and what only the product can say.
#[expect(
    async_fn_in_trait,
    reason = "a job runs on one task, and its futures are never spawned"
)]
pub trait Work {
    /// Reads and writes the world.
    type Actor: Actor<Protocol: Product>;

    /// The actor.
    fn actor(&self) -> &Self::Actor;

    /// What it is about.
    fn subject(&self) -> &Subject;

    /// The API server that keeps the Lease.
    fn server(&self) -> &Server;

    /// The longest of the protocol's deadlines: a wait may last a little longer, then the run is left for later.
    fn patience(&self) -> Duration;

    /// Who else can go on with the run, in words.
    fn resumable_by(&self) -> String;

    /// How the other side was reached, for the title of the plan: `, reached through Rancher`.
    fn reached(&self) -> String {
        String::new()
    }

    /// Adds what the product knows to help with the error that a run ended with.
    fn explain(&self, error: Error) -> Error {
        error
    }

    /// Lets the servers check what can be checked alone, and notes at each line what came of it.
    async fn check(&self, plan: &PlanOf<Self>, lines: &mut [Line]);

    /// What could not be proven at the end, a sentence each.
    fn unproven(&self) -> Vec<String> {
        Vec::new()
    }

    /// After a way back: why the new credential stays after all, if it does.
    fn kept(&self) -> Option<Kept> {
        None
    }

    /// After a rotation: the credential that is in use now, and the last word.
    async fn done(&self, before: &ViewOf<Self::Actor>, plan: Option<&PlanOf<Self>>) -> (Option<Fingerprint>, String);
}

/// A way back that ended on the new credential, since the old one could not be had back: nothing was undone.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The credential that is in use now.
    pub now: Option<Fingerprint>,
    /// Why, and what is in use now, in a sentence.
    pub message: String,
}

impl Kept {
    fn end(self, result: &mut RotationResult) -> Error {
        result.outcome = "kept";
        result.new_fingerprint = self.now;
        Error::failed(self.message)
    }
}

/// The protocol of a work's actor.
pub type ProtocolOf<W> = <<W as Work>::Actor as Actor>::Protocol;
/// The plan of a work.
pub type PlanOf<W> = Plan<ProtocolOf<W>>;
/// The journal of a work.
type JournalOf<W> = Journal<ProtocolOf<W>>;

/// One subject to work on. Alone it is worked on by [`Job::run`]; among several it is [prepared](Job::prepare) with all of
/// them, and [carried out](Job::carry_out) once the question about all of them is answered.
pub struct Job<'a, W> {
    /// The terminal.
    pub ui: &'a Ui,
    /// What the plugin brings.
    pub work: &'a W,
    /// To rotate, or to undo.
    pub asked: Asked,
    /// The question is answered already.
    pub yes: bool,
    /// How far to go.
    pub dry_run: DryRun,
    /// The plan of a dry run goes to stdout: it is what was asked for.
    pub plan_is_data: bool,
    /// One of several: its plan is told in a line, and what happens to it under its name.
    pub among: Option<&'a str>,
    /// The lock may be taken from a living holder.
    pub force_lock: bool,
    /// A journal that cannot be read counts as none.
    pub force_journal: bool,
}

/// What a survey found.
struct Survey<W: Work> {
    record: Record,
    journal: Option<JournalOf<W>>,
    view: ViewOf<W::Actor>,
    /// `None` where a run under way cannot be told the end of.
    plan: Option<PlanOf<W>>,
}

/// A subject that was looked at, with what was found.
pub struct Ready<W: Work> {
    /// The lock, where somebody seemed to hold it.
    held: Option<(Held, Record)>,
    survey: Survey<W>,
}

impl<W: Work> Ready<W> {
    /// Nothing is done after all.
    pub async fn leave(self) {
        release(self.held).await;
    }
}

impl<W: Work> Job<'_, W> {
    /// Works on it to the end. `result` tells more than the error, also where there is none.
    pub async fn run(&self, result: &mut RotationResult) -> Result<(), Error> {
        let ended = self.try_run(result).await;
        ended.map_err(|error| self.failed(error, result))
    }

    /// The error that it ended with, as it is told.
    pub(crate) fn failed(&self, error: Error, result: &mut RotationResult) -> Error {
        let error = self.ui.by_signal(self.work.explain(error));
        result.fail(&error);
        error
    }

    async fn try_run(&self, result: &mut RotationResult) -> Result<(), Error> {
        let Some(ready) = self.prepare(result).await? else {
            return Ok(());
        };
        match self.ui.confirm("", self.yes).await {
            Ok(true) => self.carry_out(ready, result).await,
            answer => {
                ready.leave().await;
                answer.and(Err(Error::new(Kind::Failed, "nothing was changed")))
            }
        }
    }

    /// Looks, and says what would be done. `None`: that is all that there is to do, and `result` says why.
    pub async fn prepare(&self, result: &mut RotationResult) -> Result<Option<Ready<W>>, Error> {
        let held = self.unless_interrupted(self.hold_if_held()).await??;
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

    /// Does it.
    pub async fn carry_out(&self, ready: Ready<W>, result: &mut RotationResult) -> Result<(), Error> {
        let Ready { held, survey } = ready;
        let lock = match held {
            Some((lock, _)) => lock,
            None => self.unless_interrupted(self.take(&survey.record)).await??,
        };
        let outcome = Box::pin(self.engine(lock, survey.journal)).await;
        self.finish(outcome, &survey.view, survey.plan.as_ref(), result).await
    }

    /// Where the lock seems to be held by somebody alive, takes it or reports the holder. A holder that died before it
    /// had written a journal left nothing to undo but its name in the Lease.
    async fn hold_if_held(&self) -> Result<Option<(Held, Record)>, Error> {
        if self.dry_run != DryRun::None {
            return Ok(None);
        }
        let record = self.read_lease().await?;
        let left_to_undo = self.asked == Asked::Rotate || record.journal.is_some();
        if record.holder.is_none() || self.force_lock || (record.holder_is_gone() && left_to_undo) {
            return Ok(None);
        }
        self.lock().await.map(Some)
    }

    async fn read_lease(&self) -> Result<Record, Error> {
        let lease = &self.work.subject().lease;
        let lock = lease.lock::<ProtocolOf<W>>(self.work.server());
        lock.read().await.doing(format!("read {lease}"))
    }

    async fn lock(&self) -> Result<(Held, Record), Error> {
        let Subject {
            called: name,
            again,
            lease,
            ..
        } = self.work.subject();
        let watching = |holder: &str| {
            self.ui.status(format!(
                "The lock of {name} is held by {holder}; watching whether it lives."
            ));
        };
        let lock = lease.lock::<ProtocolOf<W>>(self.work.server());
        match lock.take(self.force_lock, watching).await {
            Ok(taken) => Ok(taken),
            Err(NotTaken::Held(holder)) => {
                let message = format!("the rotation of {name} is held by {holder}");
                let status = again.status();
                Err(Error::new(Kind::Held, message).hint(format!("`{status}` says where it stands")))
            }
            Err(NotTaken::Api(error)) => Err(error).doing(format!("take the lock, {lease}")),
        }
    }

    /// Takes the lock after the question, unless somebody else went on with the rotation since the survey.
    async fn take(&self, surveyed: &Record) -> Result<Held, Error> {
        let (lock, record) = self.lock().await?;
        if record.journal == surveyed.journal && record.last_run == surveyed.last_run {
            return Ok(lock);
        }
        release(Some((lock, record))).await;
        let message = format!(
            "another run has changed {} since it was looked at",
            self.work.subject().called
        );
        Err(Error::failed(message).hint("run the same command again: it looks again"))
    }

    /// Reads what is there and says what would be done. `None`: there is nothing to do, and `result` says so.
    async fn survey(&self, result: &mut RotationResult) -> Result<Option<Survey<W>>, Error> {
        let record = self.read_lease().await?;
        let journal = match Rotation::<ProtocolOf<W>>::from(record.clone()).journal {
            None => None,
            Some(Ok(journal)) => Some(journal.resumed()),
            Some(Err(_)) if self.force_journal => None,
            Some(Err(why)) => return Err(Error::failed(why.to_string())),
        };
        if self.asked == Asked::Rollback && journal.is_none() {
            result.end("nothing-to-do");
            result.message = Some(format!("no rotation of {} is under way", self.work.subject().called));
            return Ok(None);
        }
        let mut journal = journal.map(|journal| self.directed(journal)).transpose()?;
        let mut view = self.observe(journal.as_ref()).await?;
        if let Some(claimed) = journal.take() {
            let goal = claimed.goal;
            journal = self.recalled(claimed, &mut view).await?;
            // A rollback never begins a rotation.
            if journal.is_none() && (goal == Goal::Back || self.asked == Asked::Rollback) {
                let hint = "discard its journal with --force=journal";
                let message = format!(
                    "nothing of the rotation of {} can be undone",
                    self.work.subject().called
                );
                return Err(Error::failed(message).hint(hint));
            }
            if journal.is_none() {
                self.ui
                    .status("The run that the Lease tells of has changed nothing; a new one begins.");
                view = self.observe(None).await?;
            }
        }
        let run = journal
            .as_ref()
            .map(|journal| journal.as_of(self.work.server().clock.now()));
        let plan = match plan::plan(view.clone(), run) {
            Ok(plan) => Some(plan),
            Err(NoPlan::Stuck(_)) if journal.is_some() => None,
            Err(NoPlan::Stuck(what)) => {
                let message = format!(
                    "{} is not rotated: it would wait in vain for {what}",
                    self.work.subject().called
                );
                return Err(Error::failed(message));
            }
            Err(NoPlan::Refused(obstacles)) if journal.is_none() => {
                return Err(outcome::refusal(self.work.subject(), obstacles, result));
            }
            // What stands in the way of going on is for the engine to say, with the command that undoes it.
            Err(NoPlan::Refused(_)) => None,
        };
        Ok(Some(Survey {
            record,
            journal,
            view,
            plan,
        }))
    }

    async fn observe(&self, journal: Option<&JournalOf<W>>) -> Result<ViewOf<W::Actor>, Error> {
        let run = journal.map(|journal| journal.as_of(self.work.server().clock.now()));
        let seen = Box::pin(self.work.actor().observe(run.as_ref())).await;
        seen.map_err(in_words)
    }

    /// What the Lease claims is replaced by what the objects say. `None`: nothing of that run stands.
    async fn recalled(
        &self,
        mut journal: JournalOf<W>,
        view: &mut ViewOf<W::Actor>,
    ) -> Result<Option<JournalOf<W>>, Error> {
        let run = journal.as_of(self.work.server().clock.now());
        match ProtocolOf::<W>::recall(view, &run) {
            Some(notes) if notes == run.notes => return Ok(Some(journal)),
            Some(notes) => journal = journal.with_notes(notes),
            None => return Ok(None),
        }
        *view = self.observe(Some(&journal)).await?;
        Ok(Some(journal))
    }

    /// Gives a journal the direction that was asked for.
    fn directed(&self, mut journal: JournalOf<W>) -> Result<JournalOf<W>, Error> {
        if self.asked == Asked::Rotate || journal.goal == Goal::Back {
            return Ok(journal);
        }
        if !journal.phase.may_be_undone() {
            let Subject { called, again, .. } = self.work.subject();
            let message =
                format!("the rotation of {called} has begun to retire the old token and can only be finished");
            let go_on = again.rotate();
            return Err(Error::failed(message).hint(format!("`{go_on}` finishes it")));
        }
        journal.turn_back("asked for with rollback");
        Ok(journal)
    }

    async fn show(&self, survey: &Survey<W>, result: &mut RotationResult) -> Result<(), Error> {
        if let Some(journal) = &survey.journal {
            let under_way = under_way(journal, self.asked);
            self.ui.status(match self.among {
                Some(_) => format!("{}: {under_way}", self.work.subject().called),
                None => under_way,
            });
        }
        let Some(plan) = &survey.plan else { return Ok(()) };
        result.old_fingerprint = Some(ProtocolOf::<W>::ends(&plan.notes).old);
        result.plan = lines(plan);
        if self.dry_run == DryRun::Server {
            self.work.check(plan, &mut result.plan).await;
        }
        if survey.journal.is_none() {
            result.plan.insert(0, survey_line::<W>(&survey.view, plan));
        }
        let mut deaths = ProtocolOf::<W>::deaths(plan);
        let text = text(&self.title(plan.goal), &result.plan, &deaths);
        result.remarks.append(&mut deaths);
        match self.among {
            _ if self.plan_is_data => return self.ui.write_out(&text),
            None => self.ui.status(text.trim_end()),
            Some(_) => {
                let from = result.plan.first().filter(|line| line.phase == Phase::Survey);
                let from = from.map_or_else(String::new, |line| format!(": {}", line.what));
                self.ui.status(format!("{}{from}", self.work.subject().called));
            }
        }
        Ok(())
    }

    fn title(&self, goal: Goal) -> String {
        let (name, reached) = (&self.work.subject().called, self.work.reached());
        match goal {
            Goal::Forward => format!("Rotation of {name}{reached}:"),
            Goal::Back => format!("Rollback of {name}{reached}:"),
        }
    }

    async fn engine(&self, lock: Held, journal: Option<JournalOf<W>>) -> Outcome {
        // From the first moment on everybody who goes on with it shall go back.
        if let Some(text) = journal
            .as_ref()
            .filter(|journal| journal.goal == Goal::Back)
            .and_then(|it| it.to_text().ok())
        {
            let _ = lock.save(text).await;
        }
        let terminal = Terminal::new(self.ui, self.among);
        let (stop, stopped) = watch::channel(false);
        let engine = Engine {
            actor: self.work.actor(),
            listener: &terminal,
            stop: stopped,
            patience: self.work.patience() + BEYOND_DEADLINES,
            resumable_by: self.work.resumable_by(),
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
        before: &ViewOf<W::Actor>,
        plan: Option<&PlanOf<W>>,
        result: &mut RotationResult,
    ) -> Result<(), Error> {
        // Whether something is left to go on with is what the Lease says, whoever wrote it last; where it does not
        // answer, there is.
        let pending = matches!(outcome, Outcome::Pending { .. })
            && !self.read_lease().await.is_ok_and(|record| record.journal.is_none());
        let done = matches!(outcome, Outcome::Done | Outcome::AlreadyDone);
        if done || matches!(outcome, Outcome::Undone(_)) {
            result.remarks.extend(self.work.unproven());
        }
        if matches!(outcome, Outcome::Undone(_))
            && let Some(kept) = self.work.kept()
        {
            return Err(kept.end(result));
        }
        end_of(self.asked, outcome, self.work.subject(), pending, result)?;
        if done {
            let (new, last) = self.work.done(before, plan).await;
            result.new_fingerprint = new;
            result.remarks.push(last);
        }
        Ok(())
    }

    /// Nothing is under way yet: Ctrl-C ends it where it is.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            done = work => Ok(done),
            () = self.ui.interrupt().cancelled() => {
                Err(Error::new(Kind::Interrupted, "interrupted before anything was changed"))
            }
        }
    }
}

async fn release(held: Option<(Held, Record)>) {
    if let Some((lock, _)) = held
        && let Err(lost) = lock.release(End::Pending).await
    {
        tracing::debug!(%lost, "the lock was not released");
    }
}

fn in_words(trouble: Trouble) -> Error {
    match trouble {
        Trouble::NotYet(error) | Trouble::Fatal(error) => error,
        Trouble::Changed => Error::failed("the objects change while they are read").hint("try again in a moment"),
        Trouble::LockLost => Error::failed("the lock was lost before anything was changed"),
    }
}

fn under_way<P: Product>(journal: &Journal<P>, asked: Asked) -> String {
    let (run, phase) = (&journal.run, journal.phase);
    let because = journal.reason.as_deref().unwrap_or("asked for");
    match (asked, journal.goal) {
        (_, Goal::Forward) => format!("Rotation {run} is under way, in phase {phase}: this goes on with it."),
        (Asked::Rotate, Goal::Back) => {
            format!("Rotation {run} is going back ({because}): this finishes going back, and rotates nothing.")
        }
        (Asked::Rollback, Goal::Back) => format!("Rotation {run} came as far as phase {phase}: this undoes it."),
    }
}

/// Where the rotation starts from.
fn survey_line<W: Work>(view: &ViewOf<W::Actor>, plan: &PlanOf<W>) -> Line {
    Line {
        phase: Phase::Survey,
        what: ProtocolOf::<W>::start(view, &plan.notes),
        wait: false,
        checked: None,
    }
}
