//! The journal of a run: what must be known to go on with it from any other terminal.
//!
//! It stands in one annotation of the Lease that is also the lock. It holds fingerprints and names, never a secret, and
//! no step trusts it alone: the engine looks at the objects again before each one.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::phase::{Goal, Phase};
use crate::protocol::{Protocol, Run, RunId, one_more};

/// The version that this program writes. A newer one is left alone, unless `--force=journal` discards it.
pub const VERSION: u32 = 2;

/// One journal. Times are those of the API server that keeps the Lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Journal<P: Protocol> {
    version: u32,
    /// The run that it belongs to.
    pub run: RunId,
    /// Which credential the run shall end on.
    pub goal: Goal,
    /// Why the goal is *back*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The farthest phase that a step was begun in.
    pub phase: Phase,
    /// The step that was begun last, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// Who can go on with it, in words ("any admin of the management cluster").
    pub resumable_by: String,
    /// Of the process that holds the lock, for whoever looks at the Lease. A resumed run starts its own.
    #[serde(default)]
    deadlines: BTreeMap<P::Timer, Timestamp>,
    /// How often the target was put right after another writer.
    #[serde(default)]
    put_back: u8,
    /// What the protocol keeps.
    pub notes: P::Notes,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Written by a newer release.
    #[error(
        "the rotation in progress was begun by a newer release (journal version {0}, this one knows {VERSION}): \
         finish it with that release, or discard its journal with --force=journal"
    )]
    Newer(u32),
    /// Not a journal of ours, or damaged.
    #[error(
        "the journal is malformed at line {line} column {column}; `--force=journal` discards it, after a look at the objects"
    )]
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

impl<P: Protocol> Journal<P> {
    /// The journal of a run that begins now.
    pub fn begin(notes: P::Notes, resumable_by: impl Into<String>, now: Timestamp) -> Self {
        Self {
            version: VERSION,
            run: RunId::draw(),
            goal: Goal::Forward,
            reason: None,
            phase: Phase::Survey,
            step: None,
            started: now,
            resumable_by: resumable_by.into(),
            deadlines: BTreeMap::new(),
            put_back: 0,
            notes,
        }
    }

    /// The journal as this process takes it over: what waits have come to elsewhere counts for nothing.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.deadlines.clear();
        self
    }

    /// Reads one from the annotation's text.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        match serde_json::from_str::<Head>(text)? {
            Head { version } if version > VERSION => Err(Unreadable::Newer(version)),
            Head { .. } => Ok(serde_json::from_str(text)?),
        }
    }

    /// The annotation's text.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The run as `decide` sees it at this moment.
    pub fn as_of(&self, now: Timestamp) -> Run<P> {
        Run {
            id: self.run.clone(),
            goal: self.goal,
            phase: self.phase,
            notes: self.notes.clone(),
            timers: self
                .deadlines
                .iter()
                .map(|(timer, deadline)| (*timer, *deadline <= now))
                .collect(),
            put_back: self.put_back,
        }
    }

    /// The same with what the objects say instead of what the Lease claims.
    #[must_use]
    pub fn with_notes(mut self, notes: P::Notes) -> Self {
        self.notes = notes;
        self
    }

    /// Notes that the target was put right once more.
    pub fn count_put_back(&mut self) {
        self.put_back = one_more(self.put_back);
    }

    /// The deadline of a timer, if it was started.
    pub fn deadline(&self, timer: P::Timer) -> Option<Timestamp> {
        self.deadlines.get(&timer).copied()
    }

    /// Starts a timer, again if it ran before.
    pub fn start(&mut self, timer: P::Timer, now: Timestamp, lasts: Duration) {
        let lasts = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
        self.deadlines
            .insert(timer, now.saturating_add(lasts).unwrap_or(Timestamp::MAX));
    }

    /// Makes a timer count as never started.
    pub fn stop(&mut self, timer: P::Timer) {
        self.deadlines.remove(&timer);
    }

    /// Makes the old credential the goal.
    pub fn turn_back(&mut self, reason: impl Into<String>) {
        self.goal = Goal::Back;
        self.reason = Some(reason.into());
        self.deadlines.clear();
        self.put_back = 0;
    }
}
