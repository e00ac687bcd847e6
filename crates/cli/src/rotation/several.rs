//! Several subjects in one command: all are looked at, one question is asked about all, and so many at once are worked on. What
//! befalls one does not keep the others from going on.

use std::time::Duration;

use client::error::{Error, Kind};
use futures::StreamExt as _;
use futures::stream;
use rand::RngExt as _;

use crate::ExitCode;
use crate::rotation::job::{Job, Ready, STOPPING, Work};
use crate::rotation::outcome::RotationResult;
use crate::ui::Ui;

/// How they are gone about.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// So many at once.
    pub at_once: usize,
    /// Each begins up to so much later than it could, by chance, so that what all of them make a server do is spread.
    pub jitter: Duration,
}

/// One of them, and how it ended.
pub struct Each<'a, W> {
    /// What is to be done.
    pub job: Job<'a, W>,
    /// What is told of it.
    pub result: RotationResult,
    /// How it ended.
    pub ended: Result<(), Error>,
}

impl<'a, W: Work> Each<'a, W> {
    /// Nothing was done yet.
    pub fn new(job: Job<'a, W>) -> Self {
        let result = RotationResult::of(job.work.subject());
        let ended = Ok(());
        Self { job, result, ended }
    }

    async fn prepare(&mut self) -> Option<Ready<W>> {
        match Box::pin(self.job.prepare(&mut self.result)).await {
            Ok(ready) => ready,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    async fn carry_out(&mut self, ready: Ready<W>) {
        if let Err(error) = Box::pin(self.job.carry_out(ready, &mut self.result)).await {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: Error) {
        self.ended = Err(self.job.failed(error, &mut self.result));
    }
}

/// Works on all of them; `ended` is told of each as it ends.
///
/// # Errors
/// The answer to the question is no, or there is nobody to ask.
pub async fn run<W: Work>(
    ui: &Ui,
    all: &mut [Each<'_, W>],
    pace: Pace,
    yes: bool,
    ended: impl Fn(&Each<'_, W>) -> Result<(), Error>,
) -> Result<(), Error> {
    let at_once = pace.at_once.max(1);
    let looks: Vec<_> = all.iter_mut().map(Each::prepare).collect();
    let ready: Vec<Option<Ready<W>>> = stream::iter(looks).buffered(at_once).collect().await;
    let mut begun = Vec::new();
    for (each, ready) in all.iter_mut().zip(ready) {
        if let Some(ready) = ready {
            begun.push((each, ready));
        } else {
            tell_failure(ui, each);
            ended(each)?;
        }
    }
    if begun.is_empty() {
        return Ok(());
    }
    if let Err(no) = agreed(ui, begun.len(), yes).await {
        for (_, ready) in begun {
            ready.leave().await;
        }
        return Err(no);
    }
    let ended = &ended;
    let works: Vec<_> = begun
        .into_iter()
        .map(|(each, ready)| async move {
            if at_most(ui, pace.jitter).await {
                each.carry_out(ready).await;
            } else {
                ready.leave().await;
                each.fail(Error::new(Kind::Interrupted, "interrupted before it was begun"));
            }
            tell_failure(ui, each);
            ended(each)
        })
        .collect();
    let mut works = stream::iter(works).buffer_unordered(at_once);
    let told = async {
        ui.interrupt().cancelled().await;
        ui.status(STOPPING);
        std::future::pending::<()>().await;
    };
    tokio::pin!(told);
    loop {
        tokio::select! {
            next = works.next() => match next {
                Some(told) => told?,
                None => return Ok(()),
            },
            () = &mut told => {}
        }
    }
}

async fn agreed(ui: &Ui, count: usize, yes: bool) -> Result<(), Error> {
    let question = if count == 1 {
        String::new()
    } else {
        format!("{count} rotations are to be begun: whatever else uses one of these values stops working with it.")
    };
    if ui.confirm(&question, yes).await? {
        Ok(())
    } else {
        Err(Error::failed("nothing was changed"))
    }
}

/// Waits for a time by chance; `false`: the user wants to stop.
async fn at_most(ui: &Ui, jitter: Duration) -> bool {
    let wait = jitter.mul_f64(rand::rng().random_range(0.0..=1.0));
    tokio::select! {
        biased;
        () = ui.interrupt().cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

fn tell_failure<W: Work>(ui: &Ui, each: &Each<'_, W>) {
    if let Err(error) = &each.ended {
        let mut told = error.clone();
        told.message = format!("{}: {}", each.job.work.subject().called, error.message);
        ui.error(&told);
    }
}

/// How the whole command ends: well only if all did. What is pending comes before what failed, since it wants somebody to go on.
pub fn exit<W>(all: &[Each<'_, W>]) -> Result<ExitCode, Error> {
    let kinds: Vec<Kind> = all
        .iter()
        .filter_map(|each| Some(each.ended.as_ref().err()?.kind))
        .collect();
    let Some(first) = kinds.first() else {
        return Ok(ExitCode::Done);
    };
    let weighty = [Kind::Interrupted, Kind::Pending, Kind::Held];
    let kind = weighty.into_iter().find(|kind| kinds.contains(kind)).unwrap_or(*first);
    let message = format!("{} of {} did not end well", kinds.len(), all.len());
    Err(Error::new(kind, message))
}
