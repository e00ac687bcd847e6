//! The plan of `--dry-run`: the decisions of a rotation, applied to its own predictions.
//!
//! It is computed by the same functions that decide the steps of a run.

use std::fmt::{self, Display};

use client::secret::Fingerprint;

use crate::direction::Direction;
use crate::phase::Phase;
use crate::rotation::{Blocker, Next, Rotation, Timer, decide};
use crate::run::{Draw, Run, RunId};

/// More steps than any rotation has. A longer plan is an endless loop.
const ENDLESS: usize = 500;

/// What would be done, in order.
#[derive(Clone, Debug)]
pub struct Plan<R: Rotation> {
    /// The steps.
    pub steps: Vec<Planned<R::Step>>,
    /// The record that the run would begin with, or has.
    pub record: R::Record,
    /// The direction, if all goes well.
    pub direction: Direction,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned<S> {
    /// A step.
    Step {
        /// The phase that it belongs to.
        phase: Phase,
        /// The step.
        step: S,
    },
    /// A wait.
    Wait {
        /// The phase that it belongs to.
        phase: Phase,
        /// What for.
        what: String,
    },
    /// The rest is done later.
    Pause {
        /// The phase that it belongs to.
        phase: Phase,
        /// What the rest is.
        rest: String,
    },
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// It would be refused.
    Refused(Vec<Blocker>),
    /// It would wait forever.
    Stuck(String),
}

impl<S: Display> Display for Planned<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { phase, step } => write!(f, "{phase:<8}{step}"),
            Self::Wait { phase, what } => write!(f, "{phase:<8}wait for {what}"),
            Self::Pause { phase, rest } => write!(f, "{phase:<8}stop: {rest}"),
        }
    }
}

impl<R: Rotation> Display for Plan<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(blockers) => {
                let reasons: Vec<String> = blockers
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
    /// The fingerprint of a credential that is not drawn yet. Plans print it as `<new>`.
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

/// Plans the steps from the observed state to the end.
pub fn plan<R: Rotation>(mut seen: R::Observed, run: Option<Run<R>>) -> Result<Plan<R>, NoPlan> {
    let begin = || R::survey(&seen).map(|record| Run::begin(RunId::placeholder(), record));
    let mut run = run.map_or_else(begin, Ok).map_err(NoPlan::Refused)?;
    let record = run.record.clone();
    let mut steps: Vec<Planned<R::Step>> = Vec::new();
    for _ in 0..ENDLESS {
        let decision = decide(&seen, &run);
        run.advance(&seen, &decision, &mut Placeholder);
        let phase = decision.phase;
        match decision.next {
            Next::Step(intent) => {
                R::predict(&mut seen, &run, &intent.step);
                let step = intent.step;
                steps.push(Planned::Step { phase, step });
            }
            Next::Wait(wait) => {
                let next = Planned::Wait {
                    phase,
                    what: wait.what.clone(),
                };
                let moved = settle(&mut seen, &mut run);
                // It may take more than one iteration until the wait ends.
                if steps.last() != Some(&next) {
                    steps.push(next);
                } else if !moved {
                    return Err(NoPlan::Stuck(wait.what));
                }
            }
            Next::Turn {
                to: Direction::RollForward,
                ..
            } => {}
            Next::Turn { reason, .. } => return Err(NoPlan::Stuck(reason)),
            Next::Refuse(blockers) => return Err(NoPlan::Refused(blockers)),
            Next::Pause(Blocker { reason: rest, .. }) => {
                steps.push(Planned::Pause { phase, rest });
                return Ok(planned(steps, record, &run));
            }
            Next::Done => return Ok(planned(steps, record, &run)),
        }
    }
    Err(NoPlan::Stuck("more steps than a rotation has".to_owned()))
}

fn planned<R: Rotation>(steps: Vec<Planned<R::Step>>, record: R::Record, run: &Run<R>) -> Plan<R> {
    Plan {
        steps,
        record,
        direction: run.direction,
    }
}

/// Lets the environment settle. If nothing changes, lets the timers pass that a successful run waits for. Returns
/// whether anything has changed.
fn settle<R: Rotation>(seen: &mut R::Observed, run: &mut Run<R>) -> bool {
    let before = seen.clone();
    R::settle(seen, run);
    if *seen != before {
        return true;
    }
    let waits_for = |(timer, passed): &(&Timer, &mut bool)| {
        [Timer::Quiet, Timer::Cache, Timer::InFlight].contains(timer) && !**passed
    };
    let waits: Vec<_> = run.timers.iter_mut().filter(waits_for).collect();
    let moved = !waits.is_empty();
    for (_, passed) in waits {
        *passed = true;
    }
    moved
}
