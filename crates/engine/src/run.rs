//! A run, and how it changes: the one transition that the engine, the plan and the model checker share.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Display};

use client::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::direction::Direction;
use crate::phase::Phase;
use crate::rotation::{Decision, Next, Repeats, Rotation, Timer};

/// A rotation in progress, as the stages see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Run<R: Rotation> {
    /// Drawn when the run began; part of the name of everything that it creates.
    #[serde(rename = "run")]
    pub id: RunId,
    /// Which credential it ends on.
    pub direction: Direction,
    /// The farthest phase that was begun. It moves back only when the server refuses the first step of *retire*.
    pub phase: Phase,
    /// What the rotation has written down about itself.
    pub record: R::Record,
    /// The timers that this process has started, and whether their deadline has passed. A resumed run begins without any:
    /// a deadline that permits *retire* is never read from the Lease.
    #[serde(skip)]
    pub timers: BTreeMap<Timer, bool>,
    /// How often the target was written again after another writer had overwritten it.
    #[serde(default)]
    pub reapplied: u8,
}

/// How often a redeploy by Rancher or another operator may write the old state back.
const PASSING_DISTURBANCES: u8 = 2;

impl<R: Rotation> Run<R> {
    /// A run that begins now.
    pub fn begin(id: RunId, record: R::Record) -> Self {
        Self {
            id,
            direction: Direction::Forward,
            phase: Phase::Survey,
            record,
            timers: BTreeMap::new(),
            reapplied: 0,
        }
    }

    /// How the run changes when a decision is about to be carried out: its record, its phase, its timers and its direction.
    /// Returns the timers that start now.
    pub fn advance(&mut self, seen: &R::Observed, decision: &Decision<R>, draw: &mut dyn Draw) -> Vec<Timer> {
        let mut started = Vec::new();
        if let Next::Turn { to, .. } = &decision.next {
            self.turn(*to);
        }
        if !matches!(decision.next, Next::Step(_) | Next::Wait(_)) {
            return started;
        }
        self.phase = self.phase.max(decision.phase);
        let stale = R::stale_timers(seen, self);
        self.timers.retain(|timer, _| !stale.contains(timer));
        for timer in R::timers(seen, self) {
            self.start_unless_running(timer, &mut started);
        }
        match &decision.next {
            Next::Step(intent) => {
                self.record = R::intend(&intent.step, self, draw);
                self.timers.retain(|timer, _| !intent.stops.contains(timer));
                started.retain(|timer| !intent.stops.contains(timer));
                for timer in &intent.starts {
                    self.timers.remove(timer);
                    self.start_unless_running(*timer, &mut started);
                }
            }
            Next::Wait(wait) => {
                for timer in &wait.starts {
                    self.start_unless_running(*timer, &mut started);
                }
            }
            Next::Turn { .. } | Next::Refuse(_) | Next::Pause(_) | Next::Done => {}
        }
        started
    }

    fn start_unless_running(&mut self, timer: Timer, started: &mut Vec<Timer>) {
        if let Entry::Vacant(vacant) = self.timers.entry(timer) {
            vacant.insert(false);
            started.push(timer);
        }
    }

    /// Turns to a later direction: every wait begins anew.
    pub fn turn(&mut self, to: Direction) {
        self.direction = to;
        self.timers.clear();
        self.reapplied = 0;
    }

    /// Whether a run may turn to this direction: to a later one, and back only until *retire*.
    pub fn may_turn(&self, to: Direction) -> bool {
        to > self.direction && (to != Direction::Rollback || self.phase.can_be_undone())
    }

    /// Records that a step succeeded.
    pub fn succeeded(&mut self, repeats: &Repeats) {
        if matches!(repeats, Repeats::Reapply(_)) && self.direction == Direction::Forward {
            self.reapplied = self.reapplied.saturating_add(1).min(PASSING_DISTURBANCES);
        }
    }

    /// Records that a step got no response, so it may still be in flight.
    pub fn unanswered(&mut self) {
        if let Some(passed) = self.timers.get_mut(&Timer::InFlight) {
            *passed = false;
        }
    }

    /// Records that the server refused a step that was intended in phase `before`. If it would have been the first of
    /// *retire*, nothing is revoked, so a rollback is still possible. Returns whether anything has changed.
    pub fn refused(&mut self, before: Phase) -> bool {
        let reopens = before.can_be_undone() && !self.phase.can_be_undone();
        if reopens {
            self.phase = before;
        }
        reopens
    }

    /// The run as another process takes it over: every wait starts again, and the record is read from the objects.
    /// `None` if no object of the run exists.
    #[must_use]
    pub fn resumed(mut self, seen: &R::Observed) -> Option<Self> {
        self.timers.clear();
        let record = R::recall(seen, &self)?;
        self.direction = R::recall_direction(seen, &self);
        self.record = record;
        Some(self)
    }

    /// Whether the timer was started and its deadline has passed.
    pub fn passed(&self, timer: Timer) -> bool {
        self.timers.get(&timer).copied().unwrap_or(false)
    }

    /// Whether the timer was started and its deadline is still to come.
    pub fn running(&self, timer: Timer) -> bool {
        self.timers.get(&timer).is_some_and(|passed| !passed)
    }

    /// Whether the target was reapplied as often as a passing disturbance explains. One more is a writer that does not stop,
    /// such as a GitOps tool.
    pub fn is_contested(&self) -> bool {
        self.reapplied >= PASSING_DISTURBANCES
    }
}

/// The source of new values: the operating system in a real run, a counter in the plan and in the model checker.
pub trait Draw {
    /// Draws a new credential and returns its fingerprint. The implementation keeps the credential itself.
    fn credential(&mut self) -> Fingerprint;
    /// A mark that no object carries yet, such as the current time.
    fn mark(&mut self) -> String;
}

/// The name of one run: five characters of the alphabet that Kubernetes uses for generated names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(String);

impl RunId {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

    /// Draws one from the operating system.
    pub fn draw() -> Self {
        use rand::seq::IndexedRandom as _;
        let mut rng = rand::rng();
        Self(
            (0..5)
                .filter_map(|_| Self::LETTERS.choose(&mut rng))
                .map(|letter| char::from(*letter))
                .collect(),
        )
    }

    /// The one that a plan shows before any is drawn, and that the model checker uses.
    pub fn placeholder() -> Self {
        Self("new".to_owned())
    }
}

impl Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
