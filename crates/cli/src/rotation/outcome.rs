//! How a run ended: a sentence, an exit code, a document, and the one command that continues or undoes it.

use client::error::{Error, Kind};
use client::secret::Fingerprint;
use engine::engine::{Outcome, Pause};
use engine::phase::{Goal, Phase};
use engine::protocol::Obstacle;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ExitCode;
use crate::rotation::API_VERSION;
use crate::rotation::plan::Line;
use crate::rotation::subject::Subject;

/// The document of `-o json`: how it ended for one subject.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationResult {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    /// What it is about.
    #[serde(flatten)]
    about: Map<String, Value>,
    /// `rotated`, `undone`, `kept`, `planned`, `refused`, `pending`, `held`, `interrupted`, `failed`, `nothing-to-do`.
    pub outcome: &'static str,
    /// The exit code of a run for this subject alone.
    pub exit_code: u8,
    /// What went wrong, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The farthest phase that was begun, where it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Which way it goes on, where it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// The token before.
    pub old_fingerprint: Option<Fingerprint>,
    /// The token after; `None` where it was not changed.
    pub new_fingerprint: Option<Fingerprint>,
    /// The plan.
    pub plan: Vec<Line>,
    /// What stands in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<Obstacle>,
    /// What is to be known besides.
    pub remarks: Vec<String>,
    /// The command that goes on, where it is pending.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub go_on: Option<String>,
    /// The command that undoes it, where that is still possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Metadata {
    name: String,
}

/// The document of several subjects.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationResultList {
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
    pub fn of(subject: &Subject) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "RotationResult",
            metadata: Metadata {
                name: subject.name.clone(),
            },
            about: subject.about.clone(),
            outcome: "failed",
            exit_code: ExitCode::Failed as u8,
            message: None,
            phase: None,
            goal: None,
            old_fingerprint: None,
            new_fingerprint: None,
            plan: Vec::new(),
            obstacles: Vec::new(),
            remarks: Vec::new(),
            go_on: None,
            undo: None,
        }
    }

    /// It ended well.
    pub fn end(&mut self, outcome: &'static str) {
        self.outcome = outcome;
        self.exit_code = ExitCode::Done as u8;
    }

    /// It ended with an error, which is the word that goes with its kind unless `end_of` said a better one.
    pub fn fail(&mut self, error: &Error) {
        self.exit_code = ExitCode::from(error) as u8;
        self.message = Some(error.message.clone());
        self.outcome = match error.kind {
            Kind::Held => "held",
            Kind::Pending => "pending",
            Kind::Interrupted | Kind::Terminated => "interrupted",
            _ if ["undone", "kept", "refused"].contains(&self.outcome) => self.outcome,
            _ => "failed",
        };
    }
}

/// What the run was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To rotate.
    Rotate,
    /// To undo.
    Rollback,
}

/// Words an outcome: `Ok` where what was asked for was reached. `pending` says whether the journal is still there.
pub fn end_of(
    asked: Asked,
    outcome: Outcome,
    subject: &Subject,
    pending: bool,
    result: &mut RotationResult,
) -> Result<(), Error> {
    let name = &subject.called;
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => {
            if matches!(outcome, Outcome::AlreadyDone) {
                result.message = Some("an earlier run had finished the rotation: nothing was left to do".to_owned());
            }
            match asked {
                Asked::Rotate => {
                    result.end("rotated");
                    Ok(())
                }
                // Somebody else's run went over the edge before ours took the lock.
                Asked::Rollback => Err(Error::failed(format!(
                    "the rotation of {name} could not be undone any more: it is finished"
                ))),
            }
        }
        Outcome::Undone(reason) => {
            result.outcome = "undone";
            match asked {
                Asked::Rollback => {
                    result.end("undone");
                    Ok(())
                }
                Asked::Rotate => Err(Error::failed(format!(
                    "the rotation of {name} was undone, and {}: {reason}",
                    subject.restored
                ))),
            }
        }
        Outcome::Refused(obstacles) => Err(refusal(subject, obstacles, result)),
        Outcome::Pending {
            because: Pause::Error(error),
            ..
        } if !pending => Err(error),
        Outcome::Pending { phase, goal, because } => {
            if pending {
                result.phase = Some(phase);
                result.goal = Some(goal);
            }
            Err(stopped(subject, phase, goal, because, pending, result))
        }
    }
}

/// Why nothing was begun.
pub fn refusal(subject: &Subject, obstacles: Vec<Obstacle>, result: &mut RotationResult) -> Error {
    result.outcome = "refused";
    let reasons: Vec<&str> = obstacles.iter().map(|obstacle| obstacle.reason.as_str()).collect();
    let message = format!("{} is not rotated: {}", subject.called, reasons.join("; "));
    let error = obstacles.iter().fold(Error::failed(message), |error, obstacle| {
        let error = if obstacle.hint.is_empty() {
            error
        } else {
            error.hint(obstacle.hint.clone())
        };
        match obstacle.check {
            Some(check) => error.hint(format!("--force={check} overrides this check")),
            None => error,
        }
    });
    result.obstacles = obstacles;
    error
}

fn stopped(
    subject: &Subject,
    phase: Phase,
    goal: Goal,
    because: Pause,
    pending: bool,
    result: &mut RotationResult,
) -> Error {
    let Subject {
        called: name, again, ..
    } = subject;
    if !pending && phase > Phase::Survey {
        let status = again.status();
        let message = format!("another run has ended the rotation of {name} meanwhile");
        return Error::failed(message).hint(format!("`{status}` shows how it stands"));
    }
    if !pending {
        let message = format!("stopped before anything of {name} was changed");
        return match because {
            Pause::Asked => Error::new(Kind::Interrupted, message),
            other => Error::failed(format!("{message}: {}", reason(&other))),
        };
    }
    let kind = if matches!(because, Pause::Asked) {
        Kind::Interrupted
    } else {
        Kind::Pending
    };
    let stands = match goal {
        Goal::Forward => format!("the rotation of {name} stands in phase {phase}"),
        Goal::Back => format!("the rotation of {name} is going back"),
    };
    let mut error = Error::new(kind, format!("{stands}: {}", reason(&because)));
    match &because {
        Pause::Error(cause) => error.hints.clone_from(&cause.hints),
        Pause::Obstacles(obstacles) => {
            let hints = obstacles.iter().map(|obstacle| obstacle.hint.clone());
            error.hints.extend(hints.filter(|hint| !hint.is_empty()));
        }
        Pause::Contested(writer) => {
            error = error.hint(format!(
                "stop {writer}, or let it write the new state, before anything restarts"
            ));
        }
        _ => {}
    }
    let go_on = match goal {
        Goal::Forward => again.rotate(),
        Goal::Back => again.rollback(),
    };
    error = error.hint(format!("`{go_on}` continues it"));
    if goal == Goal::Forward && phase.may_be_undone() {
        let undo = again.rollback();
        error = error.hint(format!("`{undo}` undoes it"));
        result.undo = Some(undo);
    }
    result.go_on = Some(go_on);
    error
}

fn reason(because: &Pause) -> String {
    match because {
        Pause::Asked => "stopped as asked".to_owned(),
        Pause::OutOfPatience(what) => format!("still waiting for {what}"),
        Pause::Obstacles(obstacles) => obstacles
            .iter()
            .map(|obstacle| obstacle.reason.as_str())
            .collect::<Vec<_>>()
            .join("; "),
        Pause::Contested(writer) => {
            format!("{writer} keeps writing the old state back; the new state was written once more")
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
    use engine::lock::Lost;

    use crate::rotation::again::Again;
    use crate::rotation::subject::LeaseName;

    fn subject() -> Subject {
        Subject {
            object: "cluster.management.cattle.io/c-x7k2p".into(),
            name: "c-x7k2p".into(),
            called: "cluster oslo (c-x7k2p)".into(),
            about: Map::new(),
            restored: "its agent runs with the old token as before",
            again: Again::new("crt", "c-x7k2p", &GlobalFlags::default()),
            lease: LeaseName {
                namespace: "c-x7k2p".into(),
                name: "kubectl-crt".into(),
                side: "the management cluster",
            },
        }
    }

    fn pending(phase: Phase, goal: Goal, because: Pause) -> Outcome {
        Outcome::Pending { phase, goal, because }
    }

    fn obstacle() -> Obstacle {
        Obstacle {
            check: Some("agent"),
            reason: "its agent is away".into(),
            hint: "wait for it".into(),
        }
    }

    /// Exit code, outcome, what a user reads.
    fn told(asked: Asked, outcome: Outcome, left: bool) -> String {
        let mut result = RotationResult::of(&subject());
        let ended = end_of(asked, outcome, &subject(), left, &mut result);
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
    #[case::done(Asked::Rotate, Outcome::Done, false, "0 rotated")]
    #[case::turned_back(Asked::Rotate, Outcome::Undone("no proof in time".into()), false,
        "1 undone | the rotation of cluster oslo (c-x7k2p) was undone, and its agent runs with the old token as before: no proof in time")]
    #[case::rolled_back(Asked::Rollback, Outcome::Undone("asked for".into()), false, "0 undone")]
    #[case::refused(Asked::Rotate, Outcome::Refused(vec![obstacle()]), false,
        "1 refused | cluster oslo (c-x7k2p) is not rotated: its agent is away | wait for it | --force=agent overrides this check")]
    #[case::stopped_early(
        Asked::Rotate,
        pending(Phase::Survey, Goal::Forward, Pause::Asked),
        false,
        "130 interrupted | stopped before anything of cluster oslo (c-x7k2p) was changed"
    )]
    #[case::stopped(
        Asked::Rotate,
        pending(Phase::Prove, Goal::Forward, Pause::Asked),
        true,
        "130 interrupted | the rotation of cluster oslo (c-x7k2p) stands in phase prove: stopped as asked | \
         `kubectl crt rotate c-x7k2p` continues it | `kubectl crt rollback c-x7k2p` undoes it"
    )]
    #[case::out_of_patience(Asked::Rotate, pending(Phase::Confirm, Goal::Forward, Pause::OutOfPatience("Rancher to refuse 739e2d9420".into())), true,
        "4 pending | the rotation of cluster oslo (c-x7k2p) stands in phase confirm: still waiting for Rancher to refuse 739e2d9420 | \
         `kubectl crt rotate c-x7k2p` continues it")]
    #[case::not_safe_to_go_on(
        Asked::Rotate,
        pending(Phase::Place, Goal::Back, Pause::Obstacles(vec![obstacle()])),
        true,
        "4 pending | the rotation of cluster oslo (c-x7k2p) is going back: its agent is away | wait for it | \
         `kubectl crt rollback c-x7k2p` continues it"
    )]
    #[case::going_back(
        Asked::Rotate,
        pending(Phase::Place, Goal::Back, Pause::LockLost(Lost::TakenOver)),
        true,
        "4 pending | the rotation of cluster oslo (c-x7k2p) is going back: the lock was lost: another run has taken it over | \
         `kubectl crt rollback c-x7k2p` continues it"
    )]
    #[case::another_writer(
        Asked::Rotate,
        pending(Phase::Confirm, Goal::Forward, Pause::Contested("manager \"kustomize-controller\"".into())),
        true,
        "4 pending | the rotation of cluster oslo (c-x7k2p) stands in phase confirm: manager \"kustomize-controller\" keeps writing \
         the old state back; the new state was written once more | stop manager \"kustomize-controller\", or let it write the new \
         state, before anything restarts | `kubectl crt rotate c-x7k2p` continues it"
    )]
    #[case::another_run_ended_it(
        Asked::Rotate,
        pending(Phase::Prove, Goal::Forward, Pause::LockLost(Lost::NotRenewed)),
        false,
        "1 failed | another run has ended the rotation of cluster oslo (c-x7k2p) meanwhile | `kubectl crt status c-x7k2p` shows how it stands"
    )]
    #[case::failed_before_the_beginning(
        Asked::Rotate,
        pending(Phase::Survey, Goal::Forward, Pause::Error(Error::failed("no answer"))),
        false,
        "1 failed | no answer"
    )]
    #[case::nothing_to_undo_any_more(
        Asked::Rollback,
        Outcome::Done,
        false,
        "1 failed | the rotation of cluster oslo (c-x7k2p) could not be undone any more: it is finished"
    )]
    fn every_end_has_its_code_and_its_way_out(
        #[case] asked: Asked,
        #[case] outcome: Outcome,
        #[case] left: bool,
        #[case] expected: &str,
    ) {
        assert_eq!(told(asked, outcome, left), expected);
    }
}
