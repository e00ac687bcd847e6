//! The plan in words: what would be done, phase by phase, and what else stops working with the old values.

use std::fmt::Write as _;

use client::sanitize;
use engine::phase::Phase;
use engine::plan::{Plan, Planned};
use engine::rotation::Rotation;
use serde::Serialize;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The phase that it belongs to.
    pub phase: Phase,
    /// What is done, or what is waited for.
    pub what: String,
    /// It is a wait, not a step.
    pub wait: bool,
    /// What the server said to it as a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
}

/// The lines of a plan.
pub(crate) fn lines<R: Rotation>(plan: &Plan<R>) -> Vec<Line> {
    let line = |step: &Planned<R::Step>| match step {
        Planned::Step { phase, step } => Line {
            phase: *phase,
            what: step.to_string(),
            wait: false,
            checked: None,
        },
        Planned::Wait { phase, what } => Line {
            phase: *phase,
            what: format!("wait for {what}"),
            wait: true,
            checked: None,
        },
        Planned::Pause { phase, rest } => Line {
            phase: *phase,
            what: format!("stop: {rest}"),
            wait: false,
            checked: None,
        },
    };
    plan.steps.iter().map(line).collect()
}

/// The plan as text, each phase named once.
pub(crate) fn text(title: &str, lines: &[Line], also_invalidated: &[String]) -> String {
    let mut text = sanitize::line(title) + "\n";
    let mut phase = None;
    for line in lines {
        let name = if phase == Some(line.phase) {
            String::new()
        } else {
            line.phase.to_string()
        };
        phase = Some(line.phase);
        let _ = write!(text, "  {name:<8} {}", sanitize::line(&line.what));
        if let Some(checked) = &line.checked {
            let _ = write!(text, " ({})", sanitize::line(checked));
        }
        text.push('\n');
    }
    if lines.is_empty() {
        text.push_str("  nothing left to do\n");
    }
    if !also_invalidated.is_empty() {
        text.push_str("Also invalidated:\n");
        for line in also_invalidated {
            let _ = writeln!(text, "  {}", sanitize::line(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_each_phase_once_and_shows_the_server_check() {
        let line = |phase, what: &str, checked: Option<&str>| Line {
            phase,
            what: what.to_owned(),
            wait: false,
            checked: checked.map(str::to_owned),
        };
        let lines = [
            line(
                Phase::Make,
                "set a new value on registration token \"system\"",
                Some("server dry run"),
            ),
            line(Phase::Make, "wait for Rancher to accept <new>", None),
            line(
                Phase::Place,
                "point the agent at <new>, rollout held",
                Some("not checked"),
            ),
        ];
        insta::assert_snapshot!(text("Rotation of cluster oslo (c-x7k2p)", &lines, &["739e2d9420 (system): …".into()]), @r#"
        Rotation of cluster oslo (c-x7k2p)
          make     set a new value on registration token "system" (server dry run)
                   wait for Rancher to accept <new>
          place    point the agent at <new>, rollout held (not checked)
        Also invalidated:
          739e2d9420 (system): …
        "#);
    }
}
