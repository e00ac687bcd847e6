//! Several targets in one command. All of them are surveyed, the user confirms once, and a limited number is rotated at
//! a time. A failure of one does not stop the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ui::Ui;
use crate::{ExitCode, Failures, failures};
use client::error::{Error, Kind};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream;
use rand::RngExt as _;

use engine::controller::Controller;
use engine::rotation::Action;

use crate::rotation::job::{Job, Ready, STOPPING};
use crate::rotation::outcome::RotationResult;
use crate::rotation::target::Target;

/// How many targets are rotated at a time, and when.
#[derive(Clone, Copy, Debug)]
pub struct Parallelism {
    /// The maximum number at a time.
    pub max: usize,
    /// The maximum random delay before each one, to spread the load.
    pub jitter: Duration,
    /// After a failure, start no other one.
    pub stop_on_failure: bool,
}

/// Whether the user agrees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Confirmation<'a> {
    /// Do not ask.
    pub yes: bool,
    /// What is said before the question; by default how many rotations begin.
    pub question: Option<&'a str>,
}

/// One of them, and how it ended.
pub struct Each<'a, C> {
    /// What it is about.
    pub target: &'a Target,
    /// What to do; `None` where it failed before.
    job: Option<Job<'a, C>>,
    /// Its result.
    pub result: RotationResult,
    /// How it ended.
    pub ended: Result<(), Error>,
    /// What follows, if it succeeds.
    then: Option<Followed<'a>>,
}

/// The second run for a target.
type Followed<'a> = BoxFuture<'a, (RotationResult, Result<(), Error>)>;

impl<'a, C: Controller> Each<'a, C> {
    /// Nothing was done yet.
    pub fn new(job: Job<'a, C>) -> Self {
        Self {
            target: job.target,
            result: RotationResult::of(job.target),
            job: Some(job),
            ended: Ok(()),
            then: None,
        }
    }

    /// Where it succeeds, this follows, and the result is that of both.
    #[must_use]
    pub fn followed_by(self, then: Followed<'a>) -> Self {
        Self {
            then: Some(then),
            ..self
        }
    }

    /// There is nothing to do, as the result says.
    pub fn done(target: &'a Target, result: RotationResult) -> Self {
        Self {
            target,
            job: None,
            result,
            ended: Ok(()),
            then: None,
        }
    }

    /// It failed before anything could be done.
    pub fn failed(target: &'a Target, mut result: RotationResult, error: Error) -> Self {
        result.fail(&error);
        Self {
            target,
            job: None,
            result,
            ended: Err(error),
            then: None,
        }
    }

    async fn prepare(&mut self) -> Option<Ready<C>> {
        let job = self.job.as_ref()?;
        match Box::pin(job.prepare(&mut self.result)).await {
            Ok(ready) => ready,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    async fn carry_out(&mut self, ready: Ready<C>) {
        let Some(job) = &self.job else { return };
        match Box::pin(job.carry_out(ready, &mut self.result)).await {
            Err(error) => self.fail(error),
            Ok(()) => {
                if let Some(then) = self.then.take() {
                    let (next, ended) = then.await;
                    self.result.continue_with(next);
                    self.ended = ended;
                }
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let error = match &self.job {
            Some(job) => job.failed(error, &mut self.result),
            None => error,
        };
        self.ended = Err(error);
    }
}

/// Rotates all of them; `ended` is called for each as it ends. Returns how many began, after the confirmation.
///
/// # Errors
/// If the user declines, or there is no terminal for the confirmation.
pub async fn run<C: Controller>(
    ui: &Ui,
    all: &mut [Each<'_, C>],
    parallelism: Parallelism,
    confirmation: Confirmation<'_>,
    ended: impl Fn(&Each<'_, C>),
) -> Result<usize, Error> {
    let _hold = ui.hold();
    let at_once = parallelism.max.max(1);
    let surveys: Vec<_> = all.iter_mut().map(Each::prepare).collect();
    let ready: Vec<Option<Ready<C>>> = stream::iter(surveys).buffered(at_once).collect().await;
    let mut failed = false;
    let mut begun = Vec::new();
    for (each, ready) in all.iter_mut().zip(ready) {
        if let Some(ready) = ready {
            begun.push((each, ready));
        } else {
            failed |= each.ended.is_err();
            print_failure(ui, each);
            ended(each);
        }
    }
    let count = begun.len();
    if count == 0 {
        return Ok(0);
    }
    if let Err(no) = agreed(ui, count, confirmation).await {
        for (_, ready) in begun {
            ready.leave().await;
        }
        return Err(no);
    }
    let (ended, failed) = (&ended, &AtomicBool::new(failed));
    let runs: Vec<_> = begun
        .into_iter()
        .map(|(each, ready)| async move {
            if !random_delay(ui, parallelism.jitter).await {
                ready.leave().await;
                each.fail(Error::new(Kind::Interrupted, "interrupted before it began"));
            } else if parallelism.stop_on_failure && failed.load(Ordering::Relaxed) {
                ready.leave().await;
                each.fail(Error::failed("not started: another rotation failed"));
            } else {
                each.carry_out(ready).await;
                failed.fetch_or(each.ended.is_err(), Ordering::Relaxed);
            }
            print_failure(ui, each);
            ended(each);
        })
        .collect();
    let mut runs = stream::iter(runs).buffer_unordered(at_once);
    let interrupted = async {
        ui.interrupt().cancelled().await;
        ui.status(STOPPING);
        std::future::pending::<()>().await;
    };
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            next = runs.next() => if next.is_none() {
                return Ok(count);
            },
            () = &mut interrupted => {}
        }
    }
}

async fn agreed(ui: &Ui, count: usize, confirmation: Confirmation<'_>) -> Result<(), Error> {
    let Confirmation { yes, question } = confirmation;
    let question = match question {
        Some(question) => question.to_owned(),
        None if count == 1 => String::new(),
        None => format!("This starts {count} rotations. Anything else that uses one of the old values stops working."),
    };
    ui.require_confirmation(&question, yes).await
}

/// Waits for a random time; `false`: the user wants to stop.
async fn random_delay(ui: &Ui, jitter: Duration) -> bool {
    let wait = jitter.mul_f64(rand::rng().random_range(0.0..=1.0));
    tokio::select! {
        biased;
        () = ui.interrupt().cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

fn print_failure<C>(ui: &Ui, each: &Each<'_, C>) {
    if let Err(error) = &each.ended {
        let mut error = error.clone();
        if !error.message.contains(&each.target.display) {
            error.message = format!("{}: {}", each.target.display, error.message);
        }
        ui.error(&error);
    }
}

/// The result for each target, and for each name of the command line that led to none, and how the whole command ends: it succeeds
/// only if all did. Pending comes before failed, since it has to be resumed.
pub fn end<C>(all: Vec<Each<'_, C>>, unknown: &Failures<'_>) -> (Vec<RotationResult>, Result<ExitCode, Error>) {
    end_of(
        all.into_iter().map(|each| (each.result, each.ended)),
        Action::ROTATE,
        unknown,
    )
}

/// The same by result.
pub fn end_of(
    all: impl IntoIterator<Item = (RotationResult, Result<(), Error>)>,
    action: Action,
    unknown: &Failures<'_>,
) -> (Vec<RotationResult>, Result<ExitCode, Error>) {
    let unknown = unknown.all();
    let (results, ended): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let errors = ended.iter().filter_map(|ended| ended.as_ref().err());
    let errors = errors.chain(unknown.iter().map(|(_, error)| error));
    let kinds: Vec<Kind> = errors.map(failures::kind_among_others).collect();
    let exit = exit(&kinds, results.len() + unknown.len(), action);
    let unknown = unknown
        .iter()
        .map(|(name, error)| RotationResult::without_target(name, error));
    (results.into_iter().chain(unknown).collect(), exit)
}

fn exit(kinds: &[Kind], total: usize, action: Action) -> Result<ExitCode, Error> {
    let Some(first) = kinds.first() else {
        return Ok(ExitCode::Done);
    };
    let by_weight = [Kind::Interrupted, Kind::Pending, Kind::Held];
    let kind = by_weight
        .into_iter()
        .find(|kind| kinds.contains(kind))
        .unwrap_or(*first);
    let message = format!("{} of {total} {}s did not succeed", kinds.len(), action.noun);
    Err(Error::new(kind, message))
}
