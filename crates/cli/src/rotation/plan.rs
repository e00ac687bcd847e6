//! The plan in words: what would be done, phase by phase, and what dies with the old values.

use std::fmt::Write as _;

use engine::phase::Phase;
use engine::plan::{Plan, Planned};
use engine::protocol::Protocol;
use serde::Serialize;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The phase that it belongs to.
    pub phase: Phase,
    /// What is done, or what is waited for.
    pub what: String,
    /// It is a wait, not a write.
    pub wait: bool,
    /// What the server said to it as a dry run; only where one was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
}

/// The lines of a plan.
pub fn lines<P: Protocol>(plan: &Plan<P>) -> Vec<Line> {
    let line = |step: &Planned<P::Write>| match step {
        Planned::Write { phase, write } => Line {
            phase: *phase,
            what: write.to_string(),
            wait: false,
            checked: None,
        },
        Planned::Wait { phase, what } => Line {
            phase: *phase,
            what: format!("wait for {what}"),
            wait: true,
            checked: None,
        },
    };
    plan.steps.iter().map(line).collect()
}

/// The plan as text, each phase named once.
pub fn text(title: &str, lines: &[Line], deaths: &[String]) -> String {
    let mut text = format!("{title}\n");
    let mut phase = None;
    for line in lines {
        let name = if phase == Some(line.phase) {
            String::new()
        } else {
            line.phase.to_string()
        };
        phase = Some(line.phase);
        let _ = write!(text, "  {name:<8} {}", line.what);
        if let Some(checked) = &line.checked {
            let _ = write!(text, " ({checked})");
        }
        text.push('\n');
    }
    if lines.is_empty() {
        text.push_str("  nothing is left to do\n");
    }
    if !deaths.is_empty() {
        text.push_str("What dies with the old values:\n");
        for death in deaths {
            let _ = writeln!(text, "  {death}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_is_named_once_and_what_was_checked_stands_behind() {
        let line = |phase, what: &str, checked: Option<&str>| Line {
            phase,
            what: what.to_owned(),
            wait: false,
            checked: checked.map(str::to_owned),
        };
        let lines = [
            line(
                Phase::Make,
                "mint: registration token system gets a new value",
                Some("server dry run"),
            ),
            line(Phase::Make, "wait for Rancher to accept <new>", None),
            line(
                Phase::Place,
                "point the agent at <new>, roll-out held",
                Some("not checked"),
            ),
        ];
        insta::assert_snapshot!(text("Rotation of cluster oslo (c-x7k2p)", &lines, &["739e2d9420 (system): …".into()]), @r"
        Rotation of cluster oslo (c-x7k2p)
          make     mint: registration token system gets a new value (server dry run)
                   wait for Rancher to accept <new>
          place    point the agent at <new>, roll-out held (not checked)
        What dies with the old values:
          739e2d9420 (system): …
        ");
    }
}
