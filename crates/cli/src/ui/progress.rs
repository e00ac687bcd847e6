//! The steps of something long, as they happen.
//!
//! On a terminal: one line per step, the running one with a spinner, what is waited for and for how long. In a pipe: one
//! line whenever a step starts, waits for something else, or ends; no animation, nothing twice. indicatif draws; every
//! line that stays is written by [`Ui`] itself, because indicatif swallows its lines when it is not on a terminal.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Stream, Tone, Ui, clean};
use crate::age;

/// Reports steps one after the other.
#[derive(Debug)]
pub struct Progress {
    ui: Ui,
}

impl Progress {
    pub(super) fn new(ui: Ui) -> Self {
        Self { ui }
    }

    /// Starts a step: the phase that it belongs to and what is being done.
    pub fn start(&self, phase: &str, what: impl Into<String>) -> Step {
        let what = clean(&what.into());
        let phase = format!("{phase:<8}");
        let bar = self.ui.animated().then(|| self.draw(&phase, &what));
        if bar.is_none() {
            self.ui
                .status(format!("{} {phase} {what}", self.ui.symbol(Symbol::Running)));
        }
        Step {
            ui: self.ui.clone(),
            phase,
            what,
            waiting: String::new(),
            since: Instant::now(),
            bar,
            ended: false,
        }
    }

    fn draw(&self, phase: &str, what: &str) -> ProgressBar {
        let ticks: &[&str] = if self.ui.0.terminal.utf8 {
            &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "✔"]
        } else {
            &["|", "/", "-", "\\", "*"]
        };
        let style = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        // Complete before it is shown: each setter draws.
        let bar = ProgressBar::hidden()
            .with_style(style.tick_strings(ticks))
            .with_prefix(phase.to_owned())
            .with_message(what.to_owned());
        let bar = self.ui.0.bars.add(bar);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// A step in progress. If it is dropped without [`Step::done`] or [`Step::failed`], it prints that it was stopped.
#[derive(Debug)]
pub struct Step {
    ui: Ui,
    phase: String,
    what: String,
    waiting: String,
    since: Instant,
    bar: Option<ProgressBar>,
    ended: bool,
}

impl Step {
    /// Shows the reason of a wait ("2 of 3 agent pods are ready"). A repeated reason is printed once.
    pub fn waiting(&mut self, reason: impl Into<String>) {
        let reason = clean(&reason.into());
        if reason == self.waiting {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {reason}", self.what)),
            None => self.ui.status(format!("  {} waiting: {reason}", self.phase)),
        }
        self.waiting = reason;
    }

    /// The step is done; `result` replaces its text if it is not empty.
    pub fn done(mut self, result: impl Into<String>) {
        self.end(Symbol::Good, &result.into());
    }

    /// The step failed; `reason` stands after its text.
    pub fn failed(mut self, reason: impl Into<String>) {
        let reason = reason.into();
        let text = if reason.is_empty() {
            String::new()
        } else {
            format!("{}: {reason}", self.what)
        };
        self.end(Symbol::Bad, &text);
    }

    fn end(&mut self, symbol: Symbol, text: &str) {
        self.ended = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.ui.0.bars.remove(&bar);
        }
        let text = if text.is_empty() {
            Cow::Borrowed(&self.what)
        } else {
            Cow::Owned(clean(text))
        };
        let took = match self.since.elapsed().as_secs() {
            0 => String::new(),
            seconds => format!(" ({})", age::human(seconds as i64)),
        };
        self.ui
            .status(format!("{} {} {text}{took}", self.ui.symbol(symbol), self.phase));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Symbol::Stopped, "");
        }
    }
}

#[derive(Clone, Copy)]
enum Symbol {
    Running,
    Good,
    Bad,
    Stopped,
}

impl Ui {
    fn symbol(&self, symbol: Symbol) -> String {
        let (glyph, ascii, tone) = match symbol {
            Symbol::Running => ("◌", "-", Tone::Quiet),
            Symbol::Good => ("✔", "+", Tone::Good),
            Symbol::Bad => ("✖", "x", Tone::Bad),
            Symbol::Stopped => ("⚠", "!", Tone::Caution),
        };
        self.paint(Stream::Err, tone, if self.0.terminal.utf8 { glyph } else { ascii })
    }
}
