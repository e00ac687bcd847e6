//! How a run ended: a sentence, an exit code, a document, and the command that resumes it or rolls it back.

use std::collections::BTreeSet;

use crate::ExitCode;
use client::error::{Error, Kind};
use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::engine::{Outcome, Pause};
use engine::phase::Phase;
use engine::rotation::{Action, Blocker};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::rotation::API_VERSION;
use crate::rotation::plan::Line;
use crate::rotation::target::Target;

/// The document of `-o json`: how it ended for one target.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationResult {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// What it is about.
    #[serde(flatten)]
    details: Map<String, Value>,
    /// `rotated`, `rescued`, `set`, `removed`, `rolled-back`, `rolled-forward`, `planned`, `refused`, `pending`, `held`, `interrupted`, `failed`, `nothing-to-do`.
    pub outcome: &'static str,
    /// The exit code of a run for this target alone.
    pub exit_code: u8,
    /// What went wrong, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The farthest phase that was begun, where it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Its direction, where it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The token before.
    pub old_fingerprint: Option<Fingerprint>,
    /// The token after; `None` where it was not changed.
    pub new_fingerprint: Option<Fingerprint>,
    /// The plan.
    pub plan: Vec<Line>,
    /// The failed preflight checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// What else there is to know.
    pub remarks: Vec<String>,
    /// The command that resumes it, where it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The command that rolls it back, where that is still possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Metadata {
    name: String,
}

/// The document of several targets.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotationResultList {
    api_version: &'static str,
    kind: &'static str,
    metadata: serde_json::Value,
    items: Vec<RotationResult>,
}

impl From<Vec<RotationResult>> for RotationResultList {
    fn from(items: Vec<RotationResult>) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "RotationResultList",
            metadata: serde_json::json!({}),
            items,
        }
    }
}

impl RotationResult {
    /// Nothing was done yet.
    pub fn of(target: &Target) -> Self {
        Self::named(target.name.clone(), target.details.clone())
    }

    /// A name of the command line, among others, led to no target.
    pub(crate) fn without_target(name: &str, error: &Error) -> Self {
        let mut result = Self::named(name.to_owned(), Map::new());
        result.fail(error);
        result
    }

    fn named(name: String, details: Map<String, Value>) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "RotationResult",
            metadata: Metadata { name },
            details,
            outcome: "failed",
            exit_code: ExitCode::Failed as u8,
            message: None,
            phase: None,
            direction: None,
            old_fingerprint: None,
            new_fingerprint: None,
            plan: Vec::new(),
            blockers: Vec::new(),
            remarks: Vec::new(),
            resume: None,
            rollback: None,
        }
    }

    /// It succeeded.
    pub fn end(&mut self, outcome: &'static str) {
        self.outcome = outcome;
        self.exit_code = ExitCode::Done as u8;
    }

    /// Another run for the same target has followed.
    pub fn continue_with(&mut self, next: Self) {
        let before = std::mem::replace(self, next);
        self.old_fingerprint = before.old_fingerprint.or(self.old_fingerprint);
        self.plan.splice(..0, before.plan);
        self.remarks.splice(..0, before.remarks);
    }

    /// It ended with an error. The outcome follows from its kind, unless `end_of` has set a more precise one.
    pub fn fail(&mut self, error: &Error) {
        self.exit_code = ExitCode::from(error) as u8;
        self.message = Some(error.message.clone());
        self.outcome = match error.kind {
            Kind::Held => "held",
            Kind::Pending => "pending",
            Kind::Interrupted | Kind::Terminated => "interrupted",
            _ if ["rolled-back", "rolled-forward", "refused"].contains(&self.outcome) => self.outcome,
            _ => "failed",
        };
    }
}

/// The command of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `rotate`.
    Rotate,
    /// `rollback`.
    Rollback,
}

/// Converts an outcome into a result. `action`: what the run did, which another command may have begun. `pending`: the journal still exists. `Ok` if the command has done what was
/// requested.
pub(crate) fn end_of(
    verb: Verb,
    action: Action,
    outcome: Outcome,
    target: &Target,
    pending: bool,
    result: &mut RotationResult,
) -> Result<(), Error> {
    let (name, noun) = (&target.display, target.action.noun);
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => {
            if matches!(outcome, Outcome::AlreadyDone) {
                result.message = Some(format!("a previous run had finished the {noun}: nothing left to do"));
            }
            match verb {
                Verb::Rotate => {
                    result.end(action.done);
                    Ok(())
                }
                // Another run finished it before this one acquired the lock.
                Verb::Rollback => Err(Error::failed(format!(
                    "the {noun} of {name} can no longer be rolled back: it is finished"
                ))),
            }
        }
        Outcome::RolledBack(reason) => {
            result.outcome = "rolled-back";
            match verb {
                Verb::Rollback => {
                    result.end("rolled-back");
                    Ok(())
                }
                Verb::Rotate => Err(Error::failed(format!(
                    "the {noun} of {name} was rolled back, and {}: {reason}",
                    target.restored
                ))),
            }
        }
        Outcome::RolledForward(reason) => {
            result.outcome = "rolled-forward";
            Err(Error::failed(format!(
                "the {noun} of {name} could not be rolled back: {reason}"
            )))
        }
        Outcome::Refused(blockers) => Err(refused(Verb::Rotate, target, blockers, result)),
        Outcome::Pending {
            because: Pause::Error(error),
            ..
        } if !pending => Err(error),
        Outcome::Pending {
            phase,
            direction,
            because,
        } => {
            if pending {
                result.phase = Some(phase);
                result.direction = Some(direction);
            }
            Err(stopped(target, phase, direction, because, pending, result))
        }
    }
}

/// Why nothing was begun.
pub fn refusal(target: &Target, blockers: Vec<Blocker>, result: &mut RotationResult) -> Error {
    refused(Verb::Rotate, target, blockers, result)
}

/// Why a rollback was not begun. The rotation is still in progress.
pub(super) fn rollback_refusal(target: &Target, blockers: Vec<Blocker>, result: &mut RotationResult) -> Error {
    let rotate = target.commands.rotate();
    let error = refused(Verb::Rollback, target, blockers, result).of_kind(Kind::Pending);
    error.hint(format!("`{rotate}` resumes the {}", target.action.noun))
}

/// With the way out of each.
fn with_hints(error: Error, blockers: &[Blocker]) -> Error {
    let hints = blockers.iter().map(|blocker| blocker.hint.as_str());
    hints.filter(|hint| !hint.is_empty()).fold(error, Error::hint)
}

/// Why a run was not begun.
pub(super) fn refused(verb: Verb, target: &Target, blockers: Vec<Blocker>, result: &mut RotationResult) -> Error {
    result.outcome = "refused";
    let reasons: Vec<&str> = blockers.iter().map(|blocker| blocker.reason.as_str()).collect();
    let (command, what) = match verb {
        Verb::Rotate => (target.action.verb, target.action.verb),
        Verb::Rollback => ("rollback", "roll back"),
    };
    let message = format!("cannot {what} {}: {}", target.display, reasons.join("; "));
    let mut error = with_hints(Error::failed(message), &blockers);
    // Where one of them cannot be overridden, the others are not worth it.
    let checks: Option<BTreeSet<&str>> = blockers.iter().map(|blocker| blocker.check).collect();
    let checks: Vec<&str> = checks.into_iter().flatten().collect();
    let these = if checks.len() > 1 { "these checks" } else { "this check" };
    if !checks.is_empty() {
        let force = target.commands.force(command, &checks);
        error = error.hint(format!("{force} overrides {these}"));
    }
    result.blockers = blockers;
    error
}

fn stopped(
    target: &Target,
    phase: Phase,
    direction: Direction,
    because: Pause,
    pending: bool,
    result: &mut RotationResult,
) -> Error {
    let Target {
        display: name,
        commands,
        action,
        ..
    } = target;
    if !pending && phase > Phase::Survey {
        let status = commands.status();
        let message = format!("another run has finished the {} of {name}", action.noun);
        return Error::failed(message).hint(format!("`{status}` shows the result"));
    }
    if !pending {
        let message = format!("stopped before anything of {name} was changed");
        return match because {
            Pause::Interrupted => Error::new(Kind::Interrupted, message),
            other => Error::failed(format!("{message}: {}", reason(&other))),
        };
    }
    let what = if direction.is_rollback() {
        "rollback"
    } else {
        action.noun
    };
    let mut error = match &because {
        Pause::Interrupted => Error::new(
            Kind::Interrupted,
            format!("{what} of {name} interrupted in phase {phase}"),
        ),
        other => Error::new(
            Kind::Pending,
            format!("{what} of {name} stopped in phase {phase}: {}", reason(other)),
        ),
    };
    match &because {
        Pause::Error(cause) => error.hints.clone_from(&cause.hints),
        Pause::Blocked(blockers) => {
            error = with_hints(error, blockers);
        }
        Pause::Contested(writer) => {
            error = error.hint(format!(
                "stop {writer}, or let it write the new state, before anything restarts"
            ));
        }
        _ => {}
    }
    let resume = if direction == Direction::Forward {
        commands.rotate()
    } else {
        commands.rollback()
    };
    error = error.hint(format!("`{resume}` resumes it"));
    if direction == Direction::Forward && phase.can_be_undone() {
        let rollback = commands.rollback();
        error = error.hint(format!("`{rollback}` restores the original state"));
        result.rollback = Some(rollback);
    }
    result.resume = Some(resume);
    error
}

fn reason(because: &Pause) -> String {
    match because {
        Pause::Interrupted => "interrupted".to_owned(),
        Pause::TimedOut(what) => format!("still waiting for {what}"),
        Pause::Blocked(blockers) => blockers
            .iter()
            .map(|blocker| blocker.reason.as_str())
            .collect::<Vec<_>>()
            .join("; "),
        Pause::Contested(writer) => {
            format!("{writer} keeps writing the old state back; the new state was applied once more")
        }
        Pause::LockLost(lost) => lost.to_string(),
        Pause::Error(error) => {
            let text = error.to_string();
            text.strip_prefix("error: ").unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::app::GlobalFlags;
    use rstest::rstest;

    use super::*;
    use engine::lock::LockLost;

    use crate::rotation::commands::{Commands, fixture::Demo};
    use crate::rotation::target::LeaseName;

    fn target() -> Target {
        Target {
            object: "cluster.management.cattle.io/c-x7k2p".into(),
            name: "c-x7k2p".into(),
            display: "cluster oslo (c-x7k2p)".into(),
            details: Map::new(),
            action: Action::ROTATE,
            restored: "its agent runs with the old token as before",
            commands: Commands::new::<Demo>("c-x7k2p", &GlobalFlags::default()),
            lease: LeaseName {
                namespace: "c-x7k2p".into(),
                name: "kubectl-crt".into(),
                side: "the management cluster",
            },
        }
    }

    fn pending(phase: Phase, direction: Direction, because: Pause) -> Outcome {
        Outcome::Pending {
            phase,
            direction,
            because,
        }
    }

    fn blocker() -> Blocker {
        Blocker {
            check: Some("agent"),
            reason: "its agent is away".into(),
            hint: "wait for it".into(),
        }
    }

    /// Exit code, outcome, what a user reads.
    fn printed(verb: Verb, outcome: Outcome, left: bool) -> String {
        let mut result = RotationResult::of(&target());
        let ended = end_of(verb, Action::ROTATE, outcome, &target(), left, &mut result);
        if let Err(error) = &ended {
            result.fail(error);
        }
        let mut words = vec![format!("{} {}", result.exit_code, result.outcome)];
        if let Err(error) = ended {
            words.push(error.message);
            words.extend(error.hints);
        }
        words.join(" | ")
    }

    #[rstest]
    #[case::done(Verb::Rotate, Outcome::Done, false, "0 rotated")]
    #[case::turned_to_rollback(Verb::Rotate, Outcome::RolledBack("no proof in time".into()), false,
        "1 rolled-back | the rotation of cluster oslo (c-x7k2p) was rolled back, and its agent runs with the old token as before: no proof in time")]
    #[case::rolled_back(Verb::Rollback, Outcome::RolledBack("requested".into()), false, "0 rolled-back")]
    #[case::refused(Verb::Rotate, Outcome::Refused(vec![blocker()]), false,
        "1 refused | cannot rotate cluster oslo (c-x7k2p): its agent is away | wait for it | --force=agent overrides this check")]
    #[case::refused_by_two_checks(
        Verb::Rotate,
        Outcome::Refused(vec![blocker(), Blocker { check: Some("owner"), hint: String::new(), ..blocker() }]),
        false,
        "1 refused | cannot rotate cluster oslo (c-x7k2p): its agent is away; its agent is away | wait for it | \
         --force=agent,owner overrides these checks"
    )]
    #[case::refused_by_a_check_that_cannot_be_overridden(
        Verb::Rotate,
        Outcome::Refused(vec![blocker(), Blocker { check: None, hint: "repair it".into(), ..blocker() }]),
        false,
        "1 refused | cannot rotate cluster oslo (c-x7k2p): its agent is away; its agent is away | wait for it | repair it"
    )]
    #[case::stopped_early(
        Verb::Rotate,
        pending(Phase::Survey, Direction::Forward, Pause::Interrupted),
        false,
        "130 interrupted | stopped before anything of cluster oslo (c-x7k2p) was changed"
    )]
    #[case::stopped(
        Verb::Rotate,
        pending(Phase::Prove, Direction::Forward, Pause::Interrupted),
        true,
        "130 interrupted | rotation of cluster oslo (c-x7k2p) interrupted in phase prove | \
         `kubectl crt rotate c-x7k2p` resumes it | `kubectl crt rollback c-x7k2p` restores the original state"
    )]
    #[case::timed_out(Verb::Rotate, pending(Phase::Confirm, Direction::Forward, Pause::TimedOut("Rancher to reject 739e2d9420".into())), true,
        "4 pending | rotation of cluster oslo (c-x7k2p) stopped in phase confirm: still waiting for Rancher to reject 739e2d9420 | \
         `kubectl crt rotate c-x7k2p` resumes it")]
    #[case::blocked(
        Verb::Rotate,
        pending(Phase::Place, Direction::Rollback, Pause::Blocked(vec![blocker()])),
        true,
        "4 pending | rollback of cluster oslo (c-x7k2p) stopped in phase place: its agent is away | wait for it | \
         `kubectl crt rollback c-x7k2p` resumes it"
    )]
    #[case::rollback_stopped(
        Verb::Rotate,
        pending(Phase::Place, Direction::Rollback, Pause::LockLost(LockLost::TakenOver)),
        true,
        "4 pending | rollback of cluster oslo (c-x7k2p) stopped in phase place: the lock was lost: another run has taken it over | \
         `kubectl crt rollback c-x7k2p` resumes it"
    )]
    #[case::another_writer(
        Verb::Rotate,
        pending(Phase::Confirm, Direction::Forward, Pause::Contested("manager \"kustomize-controller\"".into())),
        true,
        "4 pending | rotation of cluster oslo (c-x7k2p) stopped in phase confirm: manager \"kustomize-controller\" keeps writing \
         the old state back; the new state was applied once more | stop manager \"kustomize-controller\", or let it write the new \
         state, before anything restarts | `kubectl crt rotate c-x7k2p` resumes it"
    )]
    #[case::another_run_finished_it(
        Verb::Rotate,
        pending(Phase::Prove, Direction::Forward, Pause::LockLost(LockLost::NotRenewed)),
        false,
        "1 failed | another run has finished the rotation of cluster oslo (c-x7k2p) | `kubectl crt status c-x7k2p` shows the result"
    )]
    #[case::failed_before_it_began(
        Verb::Rotate,
        pending(Phase::Survey, Direction::Forward, Pause::Error(Error::failed("no answer"))),
        false,
        "1 failed | no answer"
    )]
    #[case::too_late_to_roll_back(
        Verb::Rollback,
        Outcome::Done,
        false,
        "1 failed | the rotation of cluster oslo (c-x7k2p) can no longer be rolled back: it is finished"
    )]
    fn every_end_has_an_exit_code_and_a_next_command(
        #[case] verb: Verb,
        #[case] outcome: Outcome,
        #[case] left: bool,
        #[case] expected: &str,
    ) {
        assert_eq!(printed(verb, outcome, left), expected);
    }
}
