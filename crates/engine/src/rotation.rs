//! What a kind of rotation states about itself: [`Rotation`].
//!
//! The safety of a rotation depends on its five stages and on the pure abstraction from objects to
//! [`Rotation::Observed`]. The stages have no I/O, no clock and no randomness. Their input is names and fingerprints
//! only. So the model checker can explore them exhaustively, `--dry-run` can plan with them ([`crate::plan`]), and any
//! process can resume a run ([`crate::engine`]).
//!
//! # Staged proof A stage is a function that returns its justification, or the one step that has to come first. `?`
//! means *stop here with this step*: the code fails closed. The chain of the stages is in [`decide`], and every
//! observation starts at its first stage.
//!
//! *Retire* takes a [`Proof`] of [`Rotation::Proven`] from the same observation. Only the engine builds a `Proof`, and
//! its brand is invariant, so neither of these compiles:
//!
//! ```compile_fail,E0308
//! # use engine::rotation::{Look, Next, Proof, Rotation};
//! // Without a proof there is nothing to pass.
//! fn revoke<R: Rotation>(look: Look<'_, R>, proven: R::Proven) -> Result<R::Retired, Next<R>> {
//!     R::retire(look, &proven)
//! }
//! ```
//!
//! ```compile_fail
//! # use engine::rotation::{Look, Next, Proof, Rotation};
//! // The proof of an older look has another brand.
//! fn revoke<'now, 'before, R: Rotation>(
//!     look: Look<'now, R>,
//!     older: &Proof<'before, R::Proven>,
//! ) -> Result<R::Retired, Next<R>> {
//!     R::retire(look, older)
//! }
//! ```
//!
//! ```
//! # use engine::rotation::{Look, Next, Proof, Rotation};
//! // A proof of the same look does.
//! fn revoke<'look, R: Rotation>(
//!     look: Look<'look, R>,
//!     proven: &Proof<'look, R::Proven>,
//! ) -> Result<R::Retired, Next<R>> {
//!     R::retire(look, proven)
//! }
//! ```

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Deref;

use client::secret::Fingerprint;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::direction::Direction;
use crate::phase::Phase;
use crate::plan::Plan;
use crate::run::{Draw, Run};

/// One kind of rotation.
pub trait Rotation: Sized + Clone + Debug + Eq + Hash + 'static {
    /// The plugin, as it is typed after `kubectl`; also the label of its Leases.
    const KIND: &'static str;
    /// The kinds of the Leases that it has in common with other rotations of the same plugin, its own included.
    const KINDS: &'static [&'static str] = &[Self::KIND];
    /// The field manager of every write.
    const FIELD_MANAGER: &'static str;
    /// The flag that sets [`Timer::Quiet`], without dashes.
    const QUIET_FLAG: &'static str;
    /// The preflight checks that `--force=CHECK` overrides.
    const CHECKS: &'static [Check];

    /// The observed state of both sides: names, fingerprints and states, without secrets and times.
    type Observed: Clone + Debug + Eq + Hash;
    /// The record of a run: names, fingerprints and originals to restore. Never a secret.
    type Record: Clone + Debug + Eq + Hash + Serialize + DeserializeOwned + Send + Sync;
    /// One step. Its `Display` is the line that the plan and the progress show.
    type Step: Clone + Debug + Display + Eq + Hash + Send + Sync;

    /// Every way in which *make* is passed.
    type Made;
    /// Every way in which *place* is passed.
    type Placed;
    /// Every way in which *prove* is passed: each says what *retire* may revoke.
    type Proven;
    /// Every way in which *retire* is passed: each says what *confirm* has to check.
    type Retired;

    /// Begins a run, or refuses with all blockers.
    fn survey(seen: &Self::Observed) -> Result<Self::Record, Vec<Blocker>>;

    /// The checks of every observation and direction, such as that this is the right cluster.
    fn guard(look: Look<'_, Self>) -> Result<(), Next<Self>>;

    /// The credential that the run ends on exists and is accepted.
    fn make(look: Look<'_, Self>) -> Result<Self::Made, Next<Self>>;

    /// The consumer has it.
    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Self::Made>) -> Result<Self::Placed, Next<Self>>;

    /// The consumer works with it, and the quiet time has passed.
    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Self::Placed>) -> Result<Self::Proven, Next<Self>>;

    /// The other credential is revoked. The only stage that revokes anything.
    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Self::Proven>)
    -> Result<Self::Retired, Next<Self>>;

    /// The other credential is rejected, and nothing is left over.
    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Self::Retired>) -> Result<(), Next<Self>>;

    /// Whether the old credential worked at the start and can be restored. If so, a run that is not proven in time
    /// rolls back by itself.
    fn is_restorable(look: Look<'_, Self>) -> bool;

    /// Whether *retire* still has something to revoke. If not, no quiet time is needed.
    fn takes_away(look: Look<'_, Self>) -> bool;

    /// Whether the new credential has been proven since it was placed. If so, a server that does not respond for a
    /// moment is no reason to roll back.
    fn is_proven(run: &Run<Self>) -> bool {
        run.timers.contains_key(&Timer::Quiet)
    }

    /// The timers that an observation starts. A running timer keeps running. If this never returns a timer, a wait for
    /// it never ends.
    fn timers(_seen: &Self::Observed, _run: &Run<Self>) -> Vec<Timer> {
        Vec::new()
    }

    /// The timers that an observation makes meaningless. They count as never started.
    fn stale_timers(_seen: &Self::Observed, _run: &Run<Self>) -> Vec<Timer> {
        Vec::new()
    }

    /// The record of a run whose journal was read from the Lease. It is read from the objects, including the marks that
    /// the run itself has set on them.
    ///
    /// The Lease says how far a run came, never what it may do. An attacker who may write Leases and nothing else must
    /// not be able to have anything created, delivered or deleted. So no name, value or number of the claimed record is
    /// used unless an object confirms it.
    ///
    /// `None` if no object of this run exists, so there is nothing to resume.
    fn recall(seen: &Self::Observed, claimed: &Run<Self>) -> Option<Self::Record>;

    /// The direction of a run whose journal was read from the Lease. If a roll-forward may do more than a rollback, an
    /// object must confirm that the run rolls forward. Otherwise it rolls back.
    fn recall_direction(_seen: &Self::Observed, claimed: &Run<Self>) -> Direction {
        claimed.direction
    }

    /// The record once this step is intended: the names and fingerprints that must be known before it is sent. What has to
    /// be drawn comes from `draw`.
    fn intend(step: &Self::Step, run: &Run<Self>, draw: &mut dyn Draw) -> Self::Record;

    /// What is observed right after a step.
    fn predict(seen: &mut Self::Observed, run: &Run<Self>, step: &Self::Step);

    /// What is observed once everything has settled and no one interfered: rollouts complete, agents connect. Only the plan
    /// needs it.
    fn settle(seen: &mut Self::Observed, run: &Run<Self>);

    /// What a run does, in words.
    fn action(_record: &Self::Record) -> Action {
        Action::ROTATE
    }

    /// The credential that a run begins with, and the new one.
    fn credentials(record: &Self::Record) -> Credentials;

    /// The initial state of a rotation, as a sentence fragment.
    fn start(seen: &Self::Observed, record: &Self::Record) -> String;

    /// What else each revoked value invalidates, one line each.
    fn also_invalidated(_plan: &Plan<Self>) -> Vec<String> {
        Vec::new()
    }
}

/// What a run does, in words. Some rotations also set the first credential, or remove the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// `rotate`.
    pub verb: &'static str,
    /// `rotation`.
    pub noun: &'static str,
    /// `rotated`: how it ended, also in the Lease.
    pub done: &'static str,
}

impl Action {
    /// A credential is replaced.
    pub const ROTATE: Self = Self {
        verb: "rotate",
        noun: "rotation",
        done: "rotated",
    };
}

/// The two credentials of a run, by fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The credential at the start.
    pub old: Fingerprint,
    /// The new one, once it is drawn.
    pub new: Option<Fingerprint>,
}

/// A check that the user can override by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The value of `--force`.
    pub name: &'static str,
    /// What overriding it means, for the help.
    pub help: &'static str,
}

impl Check {
    /// No other run holds the lock.
    pub const LOCK: Self = Self {
        name: "lock",
        help: "take the lock from a process that still renews it",
    };
    /// The journal can be read.
    pub const JOURNAL: Self = Self {
        name: "journal",
        help: "discard a journal that cannot be read or resumed",
    };
}

/// A timer of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// `--timeout`: if the new credential is not proven by then, the run rolls back.
    Proof,
    /// The quiet time before *retire*: `--settle`, `--overlap`, `--grace`. It restarts when the target has changed.
    Quiet,
    /// The time before another controller is triggered again.
    Retry,
    /// How long a server may keep accepting a revoked credential from its cache.
    Cache,
    /// How long a write of a former holder, or one without a response, may still be in flight
    /// (at least [`crate::engine::LONGEST_WRITE`]). The engine restarts it after a write without a response. A rotation with
    /// writes that cannot be conditional starts it by an observation, and sends none of them before it has passed.
    InFlight,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Proof, Self::Quiet, Self::Retry, Self::Cache, Self::InFlight];

    /// What `status` calls it; `quiet_flag` is [`Rotation::QUIET_FLAG`].
    pub fn name(self, quiet_flag: &'static str) -> &'static str {
        match self {
            Self::Proof => "proof",
            Self::Quiet => quiet_flag,
            Self::Retry => "retry",
            Self::Cache => "cache",
            Self::InFlight => "in-flight",
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<R: Rotation> {
    /// Send this one step.
    Step(Intent<R>),
    /// Wait until something has changed.
    Wait(Wait),
    /// Turn to a later direction.
    Turn {
        /// Which one.
        to: Direction,
        /// Why.
        reason: String,
    },
    /// It is not known to be safe to continue.
    Refuse(Vec<Blocker>),
    /// The user wants the rest to be done later. The run stays as it is.
    Pause(Blocker),
    /// The credential that the direction asks for is in use, and the other one is rejected.
    Done,
}

/// A step that is about to be sent, and what it does to the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent<R: Rotation> {
    /// The step.
    pub step: R::Step,
    /// Timers that it starts or restarts. They run from the intent, not from the response.
    pub starts: Vec<Timer>,
    /// Timers that it makes meaningless. They count as never started.
    pub stops: Vec<Timer>,
    /// Why it may be sent again and again.
    pub repeats: Repeats,
}

/// Whether a step may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repeats {
    /// It must have an effect. If it is accepted repeatedly and changes nothing, the run stops.
    #[default]
    Never,
    /// It triggers a reconcile of another controller, which may take a while.
    Trigger,
    /// It reapplies what another writer has overwritten: the writer, in words. The run counts these.
    Reapply(String),
}

/// A wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What for, as a fragment that follows "waiting for".
    pub what: String,
    /// Timers that start with it unless they run already.
    pub starts: Vec<Timer>,
}

/// A failed check, and why it fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// The name of the check, for `--force=CHECK`. `None` if it cannot be overridden.
    pub check: Option<&'static str>,
    /// What is wrong, in one sentence.
    pub reason: String,
    /// How to fix it.
    pub hint: String,
}

impl Blocker {
    /// A blocker that cannot be overridden.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check: None,
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// Makes it overridable with `--force=CHECK`.
    #[must_use]
    pub fn unless_forced(mut self, check: &'static str) -> Self {
        self.check = Some(check);
        self
    }
}

impl<R: Rotation> Next<R> {
    /// A step that starts no timer.
    pub fn step(step: R::Step) -> Self {
        Self::Step(Intent {
            step,
            starts: Vec::new(),
            stops: Vec::new(),
            repeats: Repeats::Never,
        })
    }

    /// A wait that starts no timer and has no deadline of its own.
    pub fn wait(what: impl Into<String>) -> Self {
        Self::Wait(Wait {
            what: what.into(),
            starts: Vec::new(),
        })
    }

    /// A refusal that cannot be overridden.
    pub fn refuse(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refuse(vec![Blocker::new(reason, hint)])
    }

    /// The same step or wait, which also starts this timer.
    #[must_use]
    pub fn starting(mut self, timer: Timer) -> Self {
        match &mut self {
            Self::Step(Intent { starts, .. }) | Self::Wait(Wait { starts, .. }) => starts.push(timer),
            Self::Turn { .. } | Self::Done | Self::Refuse(_) | Self::Pause(_) => {}
        }
        self
    }

    /// The same step, which also stops this timer.
    #[must_use]
    pub fn stopping(mut self, timer: Timer) -> Self {
        if let Self::Step(Intent { stops, .. }) = &mut self {
            stops.push(timer);
        }
        self
    }

    /// The same step, which triggers a reconcile of another controller.
    #[must_use]
    pub fn triggering(mut self) -> Self {
        if let Self::Step(intent) = &mut self {
            intent.repeats = Repeats::Trigger;
        }
        self
    }
}

/// Invariant: one brand for each observation.
type Brand<'look> = PhantomData<fn(&'look ()) -> &'look ()>;

/// One observation of both sides, and the run.
pub struct Look<'look, R: Rotation> {
    /// What is there now.
    pub seen: &'look R::Observed,
    /// The run.
    pub run: &'look Run<R>,
    brand: Brand<'look>,
}

// A derive would ask for `R: Copy`.
#[expect(
    clippy::expl_impl_clone_on_copy,
    reason = "the only `Clone` that a `Copy` without bounds can have"
)]
impl<R: Rotation> Clone for Look<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Rotation> Copy for Look<'_, R> {}

/// The result of a stage in one observation. Only the engine builds it.
pub struct Proof<'look, T> {
    facts: T,
    brand: Brand<'look>,
}

impl<T> Deref for Proof<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.facts
    }
}

impl<'look, R: Rotation> Look<'look, R> {
    fn proof<T>(self, facts: T) -> Proof<'look, T> {
        Proof {
            facts,
            brand: self.brand,
        }
    }

    /// The direction of the run.
    pub fn direction(self) -> Direction {
        self.run.direction
    }

    /// The record of the run.
    pub fn record(self) -> &'look R::Record {
        &self.run.record
    }

    /// Whether the run goes forward and can still be rolled back.
    pub fn can_turn_back(self) -> bool {
        self.direction() == Direction::Forward && self.run.phase.can_be_undone() && R::is_restorable(self)
    }

    /// Whether the quiet time has passed or is no longer needed.
    pub fn is_quiet(self) -> bool {
        self.run.passed(Timer::Quiet) || !R::takes_away(self)
    }

    /// A wait for a condition. If the run is not proven and can still be rolled back, it rolls back after `--timeout`.
    pub fn wait(self, what: impl Into<String>) -> Next<R> {
        self.wait_since(what, "")
    }

    /// The same, with the reason why the condition is not met yet, for the message of the rollback.
    pub fn wait_since(self, what: impl Into<String>, why: &str) -> Next<R> {
        let what = what.into();
        let has_deadline = self.can_turn_back() && !R::is_proven(self.run);
        if has_deadline && self.run.passed(Timer::Proof) {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            return Next::Turn {
                to: Direction::Rollback,
                reason: format!("still waiting for {what} when --timeout expired{why}"),
            };
        }
        let wait = Next::wait(what);
        // A run that another process began has no deadline yet.
        if has_deadline {
            wait.starting(Timer::Proof)
        } else {
            wait
        }
    }

    /// The same step, which reapplies what `writer` has overwritten. At the third time the run rolls back, if it can.
    #[must_use]
    pub fn reapply(self, mut next: Next<R>, writer: &str) -> Next<R> {
        if self.run.is_contested() && self.can_turn_back() {
            return Next::Turn {
                to: Direction::Rollback,
                reason: format!("{writer} keeps writing the old state back"),
            };
        }
        if let Next::Step(intent) = &mut next {
            intent.repeats = Repeats::Reapply(writer.to_owned());
        }
        next
    }
}

/// The next safe step, and the phase that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<R: Rotation> {
    /// The phase.
    pub phase: Phase,
    /// The step.
    pub next: Next<R>,
}

/// Evaluates the stages in order. The first one that is not passed returns the next step.
pub fn decide<R: Rotation>(seen: &R::Observed, run: &Run<R>) -> Decision<R> {
    let walked = chain(Look {
        seen,
        run,
        brand: PhantomData,
    });
    match walked {
        Ok(()) => Decision {
            phase: Phase::Confirm,
            next: Next::Done,
        },
        Err(decision) => decision,
    }
}

/// The lifetime is that of one call, so a proof of another observation does not type-check.
fn chain<R: Rotation>(look: Look<'_, R>) -> Result<(), Decision<R>> {
    let at = |phase| move |next| Decision { phase, next };
    R::guard(look).map_err(at(look.run.phase.max(Phase::Make)))?;
    let made = look.proof(R::make(look).map_err(at(Phase::Make))?);
    let placed = look.proof(R::place(look, &made).map_err(at(Phase::Place))?);
    let proven = look.proof(R::prove(look, &placed).map_err(at(Phase::Prove))?);
    let retired = look.proof(R::retire(look, &proven).map_err(at(Phase::Retire))?);
    R::confirm(look, &retired).map_err(at(Phase::Confirm))
}
