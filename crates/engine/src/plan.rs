//! The plan: `decide` folded over its own predictions.
//!
//! What `--dry-run` shows is therefore what would be done, by the very function that does it.

use std::fmt::{self, Display};

use client::secret::Fingerprint;

use crate::phase::{Goal, Phase};
use crate::protocol::{Draw, Next, Obstacle, Protocol, Run, RunId};

/// More steps than any rotation has: a plan that gets here goes round in circles.
const ENDLESS: usize = 500;

/// What would be done, in order.
#[derive(Clone, Debug)]
pub struct Plan<P: Protocol> {
    /// The steps.
    pub steps: Vec<Planned<P::Write>>,
    /// The notes that the run would begin with, or has.
    pub notes: P::Notes,
    /// What it ends on, when all goes well.
    pub goal: Goal,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned<W> {
    /// A write.
    Write {
        /// The phase that it belongs to.
        phase: Phase,
        /// The write.
        write: W,
    },
    /// A wait.
    Wait {
        /// The phase that it belongs to.
        phase: Phase,
        /// What for.
        what: String,
    },
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// It would be refused.
    Refused(Vec<Obstacle>),
    /// It would wait for something that does not come by itself.
    Stuck(String),
}

impl<W: Display> Display for Planned<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { phase, write } => write!(f, "{phase:<8}{write}"),
            Self::Wait { phase, what } => write!(f, "{phase:<8}wait for {what}"),
        }
    }
}

impl<P: Protocol> Display for Plan<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(obstacles) => {
                let reasons: Vec<String> = obstacles
                    .iter()
                    .map(|it| format!("{}; {}", it.reason, it.hint))
                    .collect();
                write!(f, "refused: {}", reasons.join("; "))
            }
            Self::Stuck(what) => write!(f, "stuck: {what}"),
        }
    }
}

/// A new value that is not drawn yet.
pub struct Placeholder;

impl Placeholder {
    /// The fingerprint that stands for a credential that is not drawn yet. Plans print it as `<new>`.
    pub fn fingerprint() -> Fingerprint {
        Fingerprint::of("<new>")
    }
}

impl Draw for Placeholder {
    fn credential(&mut self) -> Fingerprint {
        Self::fingerprint()
    }

    fn mark(&mut self) -> String {
        "<now>".to_owned()
    }
}

/// Folds `decide` from what is there now to the end.
pub fn plan<P: Protocol>(mut view: P::View, run: Option<Run<P>>) -> Result<Plan<P>, NoPlan> {
    let mut run = match run {
        Some(run) => run,
        None => match P::decide(&view, None) {
            Next::Begin(notes) => fresh(notes),
            Next::Refuse(obstacles) => return Err(NoPlan::Refused(obstacles)),
            other => return Err(NoPlan::Stuck(format!("an unexpected beginning: {other:?}"))),
        },
    };
    let notes = run.notes.clone();
    let mut steps: Vec<Planned<P::Write>> = Vec::new();
    for _ in 0..ENDLESS {
        match P::decide(&view, Some(&run)) {
            Next::Do(step) => {
                run.notes = P::intend(&step.write, &run, &mut Placeholder);
                run.phase = run.phase.max(step.phase);
                run.intend(&step);
                P::predict(&mut view, &run, &step.write);
                steps.push(Planned::Write {
                    phase: step.phase,
                    write: step.write,
                });
            }
            Next::Wait(wait) => {
                let next = Planned::Wait {
                    phase: wait.phase,
                    what: wait.what.clone(),
                };
                for timer in wait.starts {
                    run.timers.entry(timer).or_insert(false);
                }
                let before = (view.clone(), run.timers.clone());
                P::rest(&mut view, &mut run);
                // What is waited for may need more than one look to come by itself.
                if steps.last() != Some(&next) {
                    steps.push(next);
                } else if before == (view.clone(), run.timers.clone()) {
                    return Err(NoPlan::Stuck(wait.what));
                }
            }
            Next::TurnBack(reason) => return Err(NoPlan::Stuck(reason)),
            Next::Refuse(obstacles) => return Err(NoPlan::Refused(obstacles)),
            Next::Begin(_) => return Err(NoPlan::Stuck("a second beginning".to_owned())),
            Next::Done => {
                return Ok(Plan {
                    steps,
                    notes,
                    goal: run.goal,
                });
            }
        }
    }
    Err(NoPlan::Stuck("more steps than a rotation has".to_owned()))
}

fn fresh<P: Protocol>(notes: P::Notes) -> Run<P> {
    Run {
        id: RunId::placeholder(),
        goal: Goal::Forward,
        phase: Phase::Survey,
        notes,
        timers: [].into(),
        put_back: 0,
    }
}
