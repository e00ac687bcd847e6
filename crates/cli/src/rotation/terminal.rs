//! What is seen of a run while it runs: on a terminal the step at hand with how long it takes, in a pipe one line each.

use std::sync::{Mutex, PoisonError};

use engine::event::{Event, Listener};
use engine::phase::{Goal, Phase};

use crate::ui::{Progress, Step, Ui};

/// Shows the events of one run.
pub struct Terminal {
    ui: Ui,
    /// What stands before each text: the name of one of several.
    name: String,
    progress: Option<Progress>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// What is drawn on a terminal.
    step: Option<Step>,
    /// What was begun and has not ended: a write that is sent again because its object has changed is told once.
    at_hand: String,
    /// What was last said to have gone wrong in passing: an outage is told once, not twice a second.
    hiccup: String,
}

impl Terminal {
    /// On this terminal, or in this pipe; `among`: the name under which it is one of several.
    pub fn new(ui: &Ui, among: Option<&str>) -> Self {
        let terminal = ui.terminal();
        let drawn = terminal.stderr && !terminal.plain && ui.verbosity() == 0;
        Self {
            ui: ui.clone(),
            name: among.map_or_else(String::new, |name| format!("{name}: ")),
            progress: drawn.then(|| ui.progress()),
            shown: Mutex::default(),
        }
    }

    fn begin(&self, phase: Phase, what: &str) {
        let what = format!("{}{what}", self.name);
        if std::mem::replace(&mut self.shown().at_hand, what.clone()) == what {
            return;
        }
        match &self.progress {
            None => self.ui.status(format!("{phase:<8} {what}")),
            Some(progress) => {
                self.end();
                self.shown().step = Some(progress.start(&phase.to_string(), what));
            }
        }
        self.shown().hiccup.clear();
    }

    fn end(&self) {
        let step = self.shown().step.take();
        if let Some(step) = step {
            step.done("");
        }
    }

    fn hiccup(&self, text: String) {
        let mut shown = self.shown();
        if shown.hiccup == text {
            return;
        }
        match &mut shown.step {
            Some(step) => step.waiting(text.as_str()),
            None => self.ui.status(format!("{:<8} {}tried again: {text}", "", self.name)),
        }
        shown.hiccup = text;
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Terminal {
    fn hear(&self, event: Event) {
        match event {
            Event::Resumed {
                goal: Goal::Forward, ..
            } => self
                .ui
                .status(format!("{}Going on with the rotation under way.", self.name)),
            Event::Resumed {
                goal: Goal::Back,
                reason,
            } => {
                let because = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                self.ui
                    .status(format!("{}Going on with going back{because}.", self.name));
            }
            Event::NothingToResume => self.ui.status(format!(
                "{}The earlier run has changed nothing: a new one begins.",
                self.name
            )),
            Event::Step { phase, what } => self.begin(phase, &what),
            Event::Stepped | Event::Done(_) => {
                self.shown().at_hand.clear();
                self.end();
            }
            Event::Waiting { phase, what } => self.begin(phase, &format!("waiting for {what}")),
            Event::Hiccup(text) => self.hiccup(text),
            Event::TurnedBack(reason) => {
                self.end();
                self.ui
                    .status(format!("{}Going back to the old token: {reason}", self.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ui::UiFlags;

    use super::*;

    #[test]
    fn a_write_that_meets_a_conflict_is_told_once_and_two_alike_twice() {
        let (ui, captured) = Ui::buffered(crate::ui::Terminal::default(), UiFlags::default(), "");
        let terminal = Terminal::new(&ui, None);
        let release = || Event::Step {
            phase: Phase::Prove,
            what: "release the roll-out".into(),
        };
        // Refused twice, then accepted; later once more.
        for event in [release(), release(), release(), Event::Stepped, release()] {
            terminal.hear(event);
        }
        insta::assert_snapshot!(captured.err(), @r"
        prove    release the roll-out
        prove    release the roll-out
        ");
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_step_and_wait_and_an_outage_is_told_once() {
        let (ui, captured) = Ui::buffered(crate::ui::Terminal::default(), UiFlags::default(), "");
        let terminal = Terminal::new(&ui, None);
        let waiting = Event::Waiting {
            phase: Phase::Prove,
            what: "the agent to connect with 739e2d9420".into(),
        };
        for event in [
            Event::Resumed {
                goal: Goal::Back,
                reason: Some("still waiting when --timeout ran out".into()),
            },
            Event::Step {
                phase: Phase::Make,
                what: "mint: registration token system gets a new value".into(),
            },
            Event::Stepped,
            waiting,
            Event::Hiccup("no answer".into()),
            Event::Hiccup("no answer".into()),
            Event::Done(Goal::Back),
        ] {
            terminal.hear(event);
        }
        insta::assert_snapshot!(captured.err(), @r"
        Going on with going back (still waiting when --timeout ran out).
        make     mint: registration token system gets a new value
        prove    waiting for the agent to connect with 739e2d9420
                 tried again: no answer
        ");
        assert_eq!(captured.out(), "");
    }
}
