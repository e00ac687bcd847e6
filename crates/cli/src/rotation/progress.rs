//! The progress of a run: on a terminal the current step and how long it takes, in a pipe one line each.

use std::sync::{Mutex, PoisonError};

use crate::ui::{Progress, Step, Ui};
use engine::direction::Direction;
use engine::event::{Event, Listener};
use engine::phase::Phase;

/// Shows the events of one run.
pub(crate) struct Terminal {
    ui: Ui,
    /// A prefix of each text: the name of one of several.
    name: String,
    progress: Option<Progress>,
    display: Mutex<Display>,
}

#[derive(Default)]
struct Display {
    /// What is drawn on a terminal.
    step: Option<Step>,
    /// What was begun and has not ended: a step that is sent again because its object has changed is printed once.
    current: String,
    /// The transient error that was printed last: an outage is reported once, not twice a second.
    error: String,
}

impl Terminal {
    /// On this terminal, or in this pipe; `among`: the name under which it is one of several.
    pub(crate) fn new(ui: &Ui, among: Option<&str>) -> Self {
        let terminal = ui.terminal();
        let drawn = terminal.stderr && !terminal.plain && ui.verbosity() == 0;
        Self {
            ui: ui.clone(),
            name: among.map_or_else(String::new, |name| format!("{name}: ")),
            progress: drawn.then(|| ui.progress()),
            display: Mutex::default(),
        }
    }

    fn begin(&self, phase: Phase, what: &str) {
        let what = format!("{}{what}", self.name);
        if std::mem::replace(&mut self.display().current, what.clone()) == what {
            return;
        }
        match &self.progress {
            None => self.ui.status(format!("{phase:<8} {what}")),
            Some(progress) => {
                self.end();
                self.display().step = Some(progress.start(&phase.to_string(), what));
            }
        }
        self.display().error.clear();
    }

    fn end(&self) {
        let step = self.display().step.take();
        if let Some(step) = step {
            step.done("");
        }
    }

    fn transient_error(&self, text: String) {
        let mut display = self.display();
        if display.error == text {
            return;
        }
        match &mut display.step {
            Some(step) => step.waiting(text.as_str()),
            None => self.ui.status(format!("{:<8} {}retrying: {text}", "", self.name)),
        }
        display.error = text;
    }

    fn display(&self) -> std::sync::MutexGuard<'_, Display> {
        self.display.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Terminal {
    fn on(&self, event: Event) {
        match event {
            Event::NothingToResume => self.ui.status(format!(
                "{}The previous run changed nothing. Starting a new rotation.",
                self.name
            )),
            Event::Step { phase, what } => self.begin(phase, &what),
            Event::Stepped | Event::Done(_) => {
                self.display().current.clear();
                self.end();
            }
            Event::Waiting { phase, what } => self.begin(phase, &format!("waiting for {what}")),
            Event::TransientError(text) => self.transient_error(text),
            Event::Turned { to, reason } => {
                self.end();
                let what = match to {
                    Direction::RollForward => "The rollback is no longer possible",
                    Direction::Forward | Direction::Rollback => "Rolling back",
                };
                self.ui.status(format!("{}{what}: {reason}", self.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ui::UiFlags;

    use super::*;

    #[test]
    fn a_step_that_meets_a_conflict_is_printed_once_and_two_equal_steps_twice() {
        let (ui, captured) = Ui::buffered(crate::ui::Terminal::default(), UiFlags::default(), "");
        let terminal = Terminal::new(&ui, None);
        let release = || Event::Step {
            phase: Phase::Prove,
            what: "release the rollout".into(),
        };
        // Refused twice, then accepted; later once more.
        for event in [release(), release(), release(), Event::Stepped, release()] {
            terminal.on(event);
        }
        insta::assert_snapshot!(captured.err(), @r"
        prove    release the rollout
        prove    release the rollout
        ");
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_step_and_wait_and_an_outage_is_reported_once() {
        let (ui, captured) = Ui::buffered(crate::ui::Terminal::default(), UiFlags::default(), "");
        let terminal = Terminal::new(&ui, None);
        let waiting = Event::Waiting {
            phase: Phase::Prove,
            what: "the agent to connect with 739e2d9420".into(),
        };
        for event in [
            Event::Step {
                phase: Phase::Make,
                what: "set a new value on registration token \"system\"".into(),
            },
            Event::Stepped,
            waiting,
            Event::TransientError("no answer".into()),
            Event::TransientError("no answer".into()),
            Event::Done(Direction::Rollback),
        ] {
            terminal.on(event);
        }
        insta::assert_snapshot!(captured.err(), @r#"
        make     set a new value on registration token "system"
        prove    waiting for the agent to connect with 739e2d9420
                 retrying: no answer
        "#);
        assert_eq!(captured.out(), "");
    }
}
