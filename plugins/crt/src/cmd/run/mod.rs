//! What `rotate` and `rollback` have in common: survey, plan, question, lock, engine, and the words for the end.
//!
//! Until the question is answered nothing is written, with one exception: where somebody seems to hold the lock, it is
//! tried at once, so that a living holder is reported before anybody reads a plan.

mod server_check;

use std::future::Future;
use std::time::Duration;

use kubectl_core::error::{Doing as _, Error, Kind};
use kubectl_core::secret::Secret;
use kubectl_core::ui::Ui;
use rancher::token::{self, SYSTEM};
use rotation::engine::{Engine, Outcome};
use rotation::journal::{Journal, Unreadable};
use rotation::lock::{End, Held, NotTaken, Record};
use rotation::phase::{Goal, Phase};
use rotation::plan::{self, NoPlan, Plan};
use rotation::protocol::{Actor as _, Trouble};
use tokio::sync::watch;

use crate::actor::{Check, CrtActor, Options};
use crate::rotation::Crt;
use crate::rotation::view::View;
use crate::sides::{MANAGEMENT, Path, Sides};
use crate::view::LEASE;
use crate::view::again::Again;
use crate::view::leases::{self, Rotation};
use crate::view::outcome::{self, Asked, RotationResult, called, end_of};
use crate::view::plan::{Line, deaths, lines, text};
use crate::view::terminal::Terminal;

/// How much longer than the protocol's own deadlines one wait may last, before the run is left for later.
const BEYOND_DEADLINES: Duration = Duration::from_secs(30);

/// How far to go.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// All the way
    #[default]
    None,
    /// Print the plan
    Client,
    /// Print the plan, and let the servers check what can be checked alone
    Server,
}

/// One cluster to work on.
pub(super) struct Job<'a> {
    pub(super) ui: &'a Ui,
    pub(super) sides: &'a Sides,
    pub(super) again: &'a Again,
    pub(super) options: Options,
    pub(super) asked: Asked,
    pub(super) yes: bool,
    pub(super) dry_run: DryRun,
    /// The plan of a dry run goes to stdout: it is what was asked for.
    pub(super) plan_is_data: bool,
}

/// What a survey found.
struct Survey {
    record: Record,
    journal: Option<Journal<Crt>>,
    view: View,
    /// `None` where a run under way cannot be told the end of.
    plan: Option<Plan<Crt>>,
}

impl Job<'_> {
    /// Works on it to the end. `result` tells more than the error, also where there is none.
    pub(super) async fn run(&self, result: &mut RotationResult) -> Result<(), Error> {
        let actor = CrtActor::new(self.sides, self.options.clone())?;
        let mut held = self.unless_interrupted(self.hold_if_held()).await??;
        let survey = match self.unless_interrupted(Box::pin(self.survey(&actor, result))).await {
            Ok(Ok(Some(survey))) => survey,
            other => {
                release(held).await;
                return other.and_then(|survey| survey.map(drop));
            }
        };
        if let Err(error) = self.show(&survey, result).await {
            release(held).await;
            return Err(error);
        }
        if self.dry_run != DryRun::None {
            result.end("planned");
            return Ok(());
        }
        match self.ui.confirm("", self.yes).await {
            Ok(true) => {}
            answer => {
                release(held).await;
                return answer.and(Err(Error::new(Kind::Failed, "nothing was changed")));
            }
        }
        let lock = match held.take() {
            Some((lock, _)) => lock,
            None => self.unless_interrupted(self.take(&survey.record)).await??,
        };
        let outcome = Box::pin(self.engine(&actor, lock, survey.journal)).await;
        self.finish(&actor, outcome, &survey.view, survey.plan.as_ref(), result)
            .await
    }

    /// Where the lock seems to be held by somebody alive, takes it or reports the holder. A holder that died before it
    /// had written a journal left nothing to undo but its name in the Lease.
    async fn hold_if_held(&self) -> Result<Option<(Held, Record)>, Error> {
        if self.dry_run != DryRun::None {
            return Ok(None);
        }
        let record = self.read_lease().await?;
        let forced = self.options.forced.contains(&Check::Lock);
        let left_to_undo = self.asked == Asked::Rotate || record.journal.is_some();
        if record.holder.is_none() || forced || (record.holder_is_gone() && left_to_undo) {
            return Ok(None);
        }
        self.lock().await.map(Some)
    }

    async fn read_lease(&self) -> Result<Record, Error> {
        let id = &self.sides.cluster.id;
        let lock = leases::lock(&self.sides.management, id);
        lock.read()
            .await
            .doing(format!("read Lease {id}/{LEASE} on {MANAGEMENT}"))
    }

    async fn lock(&self) -> Result<(Held, Record), Error> {
        let cluster = &self.sides.cluster;
        let forced = self.options.forced.contains(&Check::Lock);
        let watching = |holder: &str| {
            let name = called(cluster);
            self.ui.status(format!(
                "The lock of {name} is held by {holder}; watching whether it lives."
            ));
        };
        match leases::lock(&self.sides.management, &cluster.id)
            .take(forced, watching)
            .await
        {
            Ok(taken) => Ok(taken),
            Err(NotTaken::Held(holder)) => {
                let message = format!("the rotation of {} is held by {holder}", called(cluster));
                let status = self.again.status(&cluster.id);
                Err(Error::new(Kind::Held, message).hint(format!("`{status}` says where it stands")))
            }
            Err(NotTaken::Api(error)) => {
                Err(error).doing(format!("take the lock, Lease {}/{LEASE} on {MANAGEMENT}", cluster.id))
            }
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
            called(&self.sides.cluster)
        );
        Err(Error::failed(message).hint("run the same command again: it looks again"))
    }

    /// Reads what is there and says what would be done. `None`: there is nothing to do, and `result` says so.
    async fn survey(&self, actor: &CrtActor<'_>, result: &mut RotationResult) -> Result<Option<Survey>, Error> {
        let record = self.read_lease().await?;
        let journal = match Rotation::from(record.clone()).journal {
            None => None,
            Some(Ok(journal)) => Some(journal),
            Some(Err(Unreadable::Malformed { .. })) if self.options.forced.contains(&Check::Journal) => None,
            Some(Err(why)) => return Err(Error::failed(why.to_string())),
        };
        if self.asked == Asked::Rollback && journal.is_none() {
            result.end("nothing-to-do");
            result.message = Some(format!("no rotation of {} is under way", called(&self.sides.cluster)));
            return Ok(None);
        }
        let journal = journal.map(|journal| self.directed(journal)).transpose()?;
        let run = journal
            .as_ref()
            .map(|journal| journal.as_of(self.sides.management.clock.now()));
        let seen = Box::pin(actor.observe(run.as_ref())).await;
        let view = seen.map_err(|trouble| self.with_another_way(in_words(trouble)))?;
        let plan = match plan::plan(view.clone(), run) {
            Ok(plan) => Some(plan),
            Err(NoPlan::Stuck(_)) if journal.is_some() => None,
            Err(NoPlan::Stuck(what)) => {
                let message = format!(
                    "{} is not rotated: it would wait in vain for {what}",
                    called(&self.sides.cluster)
                );
                return Err(Error::failed(message));
            }
            Err(NoPlan::Refused(obstacles)) if journal.is_none() => {
                return Err(outcome::refusal(&self.sides.cluster, obstacles, result));
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

    /// The derived way rides on the agent's own tunnel, which may be what is missing.
    fn with_another_way(&self, error: Error) -> Error {
        let derived = self
            .sides
            .downstream
            .as_ref()
            .is_some_and(|downstream| downstream.path == Path::Derived);
        if !derived || error.kind != Kind::Unavailable {
            return error;
        }
        error
            .hint("Rancher reaches the cluster through its agent, whose tunnel may be down: `kubectl crt status` says more")
            .hint("a way past the agent can be given with --downstream-context")
    }

    /// Gives a journal the direction that was asked for.
    fn directed(&self, mut journal: Journal<Crt>) -> Result<Journal<Crt>, Error> {
        if self.asked == Asked::Rotate || journal.goal == Goal::Back {
            return Ok(journal);
        }
        if !journal.phase.may_be_undone() {
            let name = called(&self.sides.cluster);
            let message = format!("the rotation of {name} has begun to retire the old token and can only be finished");
            let go_on = self.again.rotate(&self.sides.cluster.id);
            return Err(Error::failed(message).hint(format!("`{go_on}` finishes it")));
        }
        journal.turn_back("asked for with rollback");
        Ok(journal)
    }

    async fn show(&self, survey: &Survey, result: &mut RotationResult) -> Result<(), Error> {
        if let Some(journal) = &survey.journal {
            self.ui.status(under_way(journal, self.asked));
        }
        let Some(plan) = &survey.plan else { return Ok(()) };
        result.old_fingerprint = Some(plan.notes.old);
        result.plan = lines(plan);
        if self.dry_run == DryRun::Server {
            server_check::check(self.sides, plan, &mut result.plan).await;
        }
        if survey.journal.is_none() {
            result.plan.insert(0, survey_line(&survey.view, plan));
        }
        let mut deaths = deaths(plan);
        let text = text(&self.title(plan.goal), &result.plan, &deaths);
        result.remarks.append(&mut deaths);
        if self.plan_is_data {
            return self.ui.write_out(&text);
        }
        self.ui.status(text.trim_end());
        Ok(())
    }

    fn title(&self, goal: Goal) -> String {
        let cluster = called(&self.sides.cluster);
        let path = self
            .sides
            .downstream
            .as_ref()
            .map_or_else(String::new, |downstream| format!(", reached {}", downstream.path));
        match goal {
            Goal::Forward => format!("Rotation of {cluster}{path}:"),
            Goal::Back => format!("Rollback of {cluster}{path}:"),
        }
    }

    async fn engine(&self, actor: &CrtActor<'_>, lock: Held, journal: Option<Journal<Crt>>) -> Outcome {
        // From the first moment on everybody who goes on with it shall go back.
        if let Some(text) = journal
            .as_ref()
            .filter(|journal| journal.goal == Goal::Back)
            .and_then(|it| it.to_text().ok())
        {
            let _ = lock.save(text).await;
        }
        let terminal = Terminal::new(self.ui);
        let (stop, stopped) = watch::channel(false);
        let engine = Engine {
            actor,
            listener: &terminal,
            stop: stopped,
            patience: self.options.timeout.max(self.options.settle) + BEYOND_DEADLINES,
            resumable_by: format!(
                "anybody with the rights on the management cluster and on {} that the rotation was begun with",
                self.sides.cluster.id
            ),
        };
        let asked_to_stop = async {
            self.ui.interrupt().cancelled().await;
            self.ui
                .status("Stopping once the call under way is answered; another Ctrl-C leaves at once.");
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
        actor: &CrtActor<'_>,
        outcome: Outcome,
        before: &View,
        plan: Option<&Plan<Crt>>,
        result: &mut RotationResult,
    ) -> Result<(), Error> {
        // Whether something is left to go on with is what the Lease says, whoever wrote it last; where it does not
        // answer, there is.
        let pending = matches!(outcome, Outcome::Pending { .. })
            && !self.read_lease().await.is_ok_and(|record| record.journal.is_none());
        let done = matches!(outcome, Outcome::Done);
        let ended = matches!(outcome, Outcome::Done | Outcome::Undone(_));
        let unproven = |token| format!("Not proven: that Rancher refuses {token}; nobody knows its value any more.");
        result
            .remarks
            .extend(actor.unproven().into_iter().filter(|_| ended).map(unproven));
        end_of(self.asked, outcome, &self.sides.cluster, self.again, pending, result)?;
        if done {
            result.new_fingerprint = self.system_now().await;
            let last = last_line(before, plan);
            result.remarks.push(last);
        }
        Ok(())
    }

    async fn system_now(&self) -> Option<kubectl_core::secret::Fingerprint> {
        let found = token::get(&self.sides.management.client, &self.sides.cluster.id, SYSTEM).await;
        found
            .ok()
            .flatten()
            .and_then(|token| token.current().map(Secret::fingerprint))
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

fn under_way(journal: &Journal<Crt>, asked: Asked) -> String {
    let (run, phase) = (&journal.run, journal.phase);
    let because = journal.reason.as_deref().unwrap_or("asked for");
    match (asked, journal.goal) {
        (_, Goal::Forward) => format!("Rotation {run} is under way, in phase {phase}: this goes on with it."),
        (Asked::Rotate, Goal::Back) => {
            format!("Rotation {run} is going back ({because}): this finishes going back, and rotates nothing.")
        }
        (Asked::Rollback, Goal::Back) => format!("Rotation {run}, which came as far as phase {phase}, is undone."),
    }
}

/// Where the rotation starts from.
fn survey_line(view: &View, plan: &Plan<Crt>) -> Line {
    let notes = &plan.notes;
    let system = match notes.system {
        Some(system) if system == notes.old => "which registration token system holds".to_owned(),
        Some(system) => format!("while registration token system holds {system}"),
        None => "and there is no registration token system yet".to_owned(),
    };
    Line {
        phase: Phase::Survey,
        what: format!(
            "the agent runs with {} from Secret {}, {system} (era {})",
            notes.old, notes.old_secret, view.era
        ),
        wait: false,
        checked: None,
    }
}

/// What was not changed, and what nobody can see.
fn last_line(before: &View, plan: Option<&Plan<Crt>>) -> String {
    let renewed = plan.map(|plan| &plan.notes.others);
    let left: Vec<&str> = before
        .others
        .keys()
        .filter(|name| renewed.is_some_and(|renewed| !renewed.contains_key(*name)))
        .map(String::as_str)
        .collect();
    let old = plan.map_or_else(|| "the old token".to_owned(), |plan| plan.notes.old.to_string());
    let unchanged = if left.is_empty() {
        "No registration token of the cluster was left as it was.".to_owned()
    } else {
        format!("Not changed: registration token {}.", left.join(", "))
    };
    format!(
        "{unchanged} A tunnel that a stranger opened earlier with {old} may still be open: a restart of Rancher \
         (kubectl -n cattle-system rollout restart deployment/rancher, on the management cluster) cuts it."
    )
}
