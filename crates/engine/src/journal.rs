//! The journal of a run: what another process needs to resume it.
//!
//! It is an annotation of the Lease that is also the lock. It contains fingerprints and names, never a secret. No step
//! relies on it alone: the engine observes the objects before each step.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::direction::Direction;
use crate::phase::Phase;
use crate::rotation::{Decision, Next, Rotation, Timer};
use crate::run::{Draw, Run, RunId};

/// The version that this release reads and writes. `--force=journal` discards a journal of another version.
pub const VERSION: u32 = 3;

/// A journal. Its times are those of the API server that stores the Lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Journal<R: Rotation> {
    version: u32,
    /// That of the rotation: one Lease can be that of several kinds. Empty: written before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
    /// The run.
    #[serde(flatten)]
    run: Run<R>,
    /// Why the direction is not forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step that was intended last, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// Who can resume it, in words ("any admin of the management cluster").
    pub resumable_by: String,
    /// The deadlines of the process that holds the lock. They are for display: a resumed run starts its own.
    #[serde(default)]
    deadlines: BTreeMap<Timer, Timestamp>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Written by another release.
    #[error(
        "the rotation in progress was begun by another release (journal version {0}, this one knows {VERSION}): \
         finish it with that release, or discard its journal with --force=journal"
    )]
    OtherRelease(u32),
    /// Of another kind of rotation, which has the same Lease.
    #[error("a rotation of another kind is in progress: {0}")]
    OtherKind(String),
    /// Not a journal of ours, or damaged.
    #[error("the journal is malformed at line {line} column {column}; --force=journal discards it")]
    Malformed {
        /// Where, in the JSON text.
        line: usize,
        /// Where, in the JSON text.
        column: usize,
    },
}

impl From<serde_json::Error> for Unreadable {
    /// Keeps the position only: the error's own text quotes the input.
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed {
            line: error.line(),
            column: error.column(),
        }
    }
}

impl<R: Rotation> Journal<R> {
    /// The journal of a run that begins now.
    pub fn begin(record: R::Record, resumable_by: impl Into<String>, now: Timestamp) -> Self {
        Self {
            version: VERSION,
            kind: R::KIND.to_owned(),
            run: Run::begin(RunId::draw(), record),
            reason: None,
            step: None,
            started: now,
            resumable_by: resumable_by.into(),
            deadlines: BTreeMap::new(),
        }
    }

    /// Parses the text of the annotation. The run gets no timers from it.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            kind: Option<String>,
        }
        match serde_json::from_str::<Head>(text)? {
            Head {
                version: VERSION,
                kind: Some(kind),
            } if kind != R::KIND => Err(Unreadable::OtherKind(kind)),
            Head { version: VERSION, .. } => Ok(serde_json::from_str(text)?),
            Head { version, .. } => Err(Unreadable::OtherRelease(version)),
        }
    }

    /// The annotation's text.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The run as it is in the Lease, without timers.
    pub fn run(&self) -> &Run<R> {
        &self.run
    }

    /// The run as the stages see it at this moment.
    pub fn run_at(&self, now: Timestamp) -> Run<R> {
        let timers = self
            .deadlines
            .iter()
            .map(|(timer, deadline)| (*timer, *deadline <= now));
        Run {
            timers: timers.collect(),
            ..self.run.clone()
        }
    }

    /// The journal without the deadlines that another process has set. This process takes over the run.
    #[must_use]
    pub fn taken_over(mut self) -> Self {
        self.deadlines.clear();
        self
    }

    /// The run as it is recorded on the objects, which counts instead of the Lease. `None` if no object of it exists.
    pub fn resumed(self, seen: &R::Observed) -> Option<Self> {
        let run = self.run.clone().resumed(seen)?;
        Some(Self {
            run,
            ..self.taken_over()
        })
    }

    /// Applies [`Run::advance`] to the journal and sets the deadlines of the timers that it starts. Returns whether
    /// anything has changed.
    pub fn advance(
        &mut self,
        seen: &R::Observed,
        decision: &Decision<R>,
        draw: &mut dyn Draw,
        now: Timestamp,
        lasts: impl Fn(Timer) -> Duration,
    ) -> bool {
        let mut run = self.run_at(now);
        let started = run.advance(seen, decision, draw);
        let timers = std::mem::take(&mut run.timers);
        let deadlines = self.deadlines.len();
        self.deadlines.retain(|timer, _| timers.contains_key(timer));
        let changed = run != self.run || self.deadlines.len() != deadlines || !started.is_empty();
        for timer in started {
            self.deadlines.insert(timer, later(now, lasts(timer)));
        }
        self.run = run;
        match &decision.next {
            Next::Step(intent) => self.step = Some(intent.step.to_string()),
            Next::Turn { reason, .. } => self.reason = Some(reason.clone()),
            Next::Wait(_) | Next::Refuse(_) | Next::Pause(_) | Next::Done => {}
        }
        changed
    }

    /// Changes the direction of the run at the user's request.
    pub fn turn(&mut self, to: Direction, reason: impl Into<String>) {
        self.run.turn(to);
        self.deadlines.clear();
        self.reason = Some(reason.into());
    }

    /// Records that a step got no response: [`Run::unanswered`].
    pub fn unanswered(&mut self, now: Timestamp, in_flight: Duration) {
        if let Some(deadline) = self.deadlines.get_mut(&Timer::InFlight) {
            *deadline = later(now, in_flight);
        }
    }

    /// Records that the server refused a step: [`Run::refused`].
    pub fn refused(&mut self, before: Phase) -> bool {
        self.run.refused(before)
    }

    /// A step has succeeded.
    pub fn succeeded(&mut self, repeats: &crate::rotation::Repeats) {
        self.run.succeeded(repeats);
    }

    /// The deadline of a timer, if it was started.
    pub fn deadline(&self, timer: Timer) -> Option<Timestamp> {
        self.deadlines.get(&timer).copied()
    }
}

fn later(now: Timestamp, lasts: Duration) -> Timestamp {
    let lasts = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
    now.saturating_add(lasts).unwrap_or(Timestamp::MAX)
}
