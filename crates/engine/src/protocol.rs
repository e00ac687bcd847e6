//! What a kind of rotation must say about itself: [`Protocol`], which is pure, and [`Actor`], which touches the world.
//!
//! The safety of a rotation lives in [`Protocol::decide`] alone. It has no I/O, no clock and no randomness, and it sees
//! fingerprints only, so it can be read in one sitting, explored exhaustively (crate `model`), folded into the
//! plan that `--dry-run` prints (see [`crate::plan`]), and resumed by anybody at any time (see [`crate::engine`]).

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::hash::Hash;

use client::clock::ServerClock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lock::Fence;
use crate::phase::{Goal, Phase};

/// The pure half of a rotation.
pub trait Protocol: Sized + Clone + Debug + Eq + Hash + 'static {
    /// What is there now, on both sides: names and fingerprints, no secret and no time.
    type View: Clone + Debug + Eq + Hash;
    /// What this kind of rotation keeps in the journal: fingerprints, names, originals to restore. Never a secret.
    type Notes: Clone + Debug + Eq + Hash + Serialize + DeserializeOwned + Send + Sync;
    /// One single write. Its `Display` is the line that the plan and the progress show.
    type Write: Clone + Debug + Display + Eq + Hash + Send + Sync;
    /// The deadlines that this kind of rotation knows.
    type Timer: Copy + Debug + Ord + Hash + Serialize + DeserializeOwned + Send + Sync;

    /// Says what is the next safe step, from nothing but what is there now.
    ///
    /// `run` is `None` while no rotation of this subject is journaled; then only [`Next::Begin`] and [`Next::Refuse`]
    /// make sense.
    fn decide(view: &Self::View, run: Option<&Run<Self>>) -> Next<Self>;

    /// What the objects say of a run whose journal was read from the Lease: its notes, taken from marks that the run itself
    /// has set on them, and from what they hold.
    ///
    /// The Lease says where a run stands, never what it may do: whoever may write Leases and nothing else must not be able to
    /// have anything made, delivered or deleted. So no name, value or number of the claimed notes is used here unless an object
    /// confirms it. The engine asks once, at the first observation of a resumed run, and drops the claims.
    ///
    /// `None`: nothing of this run stands, so there is nothing to resume, and a rotation begins with its checks as any other.
    /// On the way back there is always an answer: at least that nothing was made.
    fn recall(view: &Self::View, claimed: &Run<Self>) -> Option<Self::Notes>;

    /// What the world looks like right after a write.
    fn predict(view: &mut Self::View, run: &Run<Self>, write: &Self::Write);

    /// What the world comes to by itself when nobody interferes: roll-outs settle, agents connect, deadlines pass.
    /// Only the plan needs it.
    fn rest(view: &mut Self::View, run: &mut Run<Self>);

    /// The journal's notes once this write is intended: the names and fingerprints that must be known before the write
    /// is sent. What has to be drawn comes from `draw`.
    fn intend(write: &Self::Write, run: &Run<Self>, draw: &mut dyn Draw) -> Self::Notes;
}

/// Where new values come from: the operating system in a real run, a counter in the plan and in the exploration.
pub trait Draw {
    /// The fingerprint of a new credential. The credential itself stays with whoever draws.
    fn credential(&mut self) -> client::secret::Fingerprint;
    /// A mark that no object carries yet, such as the present time.
    fn mark(&mut self) -> String;
}

/// The half of a rotation that touches the world.
#[expect(
    async_fn_in_trait,
    reason = "the engine runs one actor on one task and never spawns its futures"
)]
pub trait Actor {
    /// The protocol that this actor carries out.
    type Protocol: Protocol;

    /// Reads both sides.
    async fn observe(&self, run: Option<&RunOf<Self>>) -> Result<ViewOf<Self>, Trouble>;

    /// Where new values come from. What was drawn is kept until the write that needs it.
    fn draw(&self) -> Box<dyn Draw + '_>;

    /// Carries out one write, with the identity of the objects that were observed last as its precondition. Asks the
    /// fence right before it sends.
    async fn act(&self, write: &WriteOf<Self>, run: &RunOf<Self>, fence: &Fence) -> Result<(), Trouble>;

    /// How long a timer runs, from the moment it is started.
    fn lasts(&self, timer: <Self::Protocol as Protocol>::Timer) -> std::time::Duration;

    /// The clock by which deadlines are journaled: that of the API server which keeps the Lease.
    fn clock(&self) -> ServerClock;
}

/// The view of an actor's protocol.
pub type ViewOf<A> = <<A as Actor>::Protocol as Protocol>::View;
/// The write of an actor's protocol.
pub type WriteOf<A> = <<A as Actor>::Protocol as Protocol>::Write;
/// The run of an actor's protocol.
pub type RunOf<A> = Run<<A as Actor>::Protocol>;

/// What went wrong between us and the world, as far as the engine must know.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The object is not what was observed (409): observe again, decide again.
    #[error("the object has changed meanwhile")]
    Changed,
    /// No answer, or one that may be another in a moment: while waiting, "not yet".
    #[error("{0}")]
    NotYet(#[source] client::error::Error),
    /// An answer that will not change by asking again, such as missing rights.
    #[error("{0}")]
    Fatal(#[source] client::error::Error),
    /// The lock is not ours any more: nothing may be written.
    #[error("the lock was lost")]
    LockLost,
}

/// What may be another answer in a moment is waited for.
impl From<client::error::Error> for Trouble {
    fn from(error: client::error::Error) -> Self {
        if error.kind.is_transient() {
            Self::NotYet(error)
        } else {
            Self::Fatal(error)
        }
    }
}

/// A rotation under way, as `decide` sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run<P: Protocol> {
    /// Drawn when the rotation began; part of the name of everything that it makes.
    pub id: RunId,
    /// Which credential it shall end on.
    pub goal: Goal,
    /// The farthest phase that a step was begun in. Never moves back.
    pub phase: Phase,
    /// What the protocol has written down for itself.
    pub notes: P::Notes,
    /// The timers that this process has started, and whether their deadline has passed. A resumed run begins without any:
    /// a deadline that permits *retire* is never read from the Lease.
    pub timers: BTreeMap<P::Timer, bool>,
    /// How often the target was put right after another writer had written the old state back to it.
    pub put_back: u8,
}

impl<P: Protocol> Run<P> {
    /// What the intent of a step changes, beside the phase and the notes.
    pub fn intend(&mut self, step: &Step<P>) {
        self.timers.retain(|timer, _| !step.stops.contains(timer));
        self.timers.extend(step.starts.iter().map(|timer| (*timer, false)));
    }

    /// What the success of a step changes: one that met a conflict has put nothing right.
    pub fn succeeded(&mut self, repeats: &Repeats) {
        if matches!(repeats, Repeats::PutBack(_)) && self.goal == Goal::Forward {
            self.put_back = one_more(self.put_back);
        }
    }

    /// Whether the timer was started and its deadline has passed.
    pub fn passed(&self, timer: P::Timer) -> bool {
        self.timers.get(&timer).copied().unwrap_or(false)
    }

    /// Whether the target was put right as often as a passing disturbance explains. One more write-back is a writer who does
    /// not stop, such as GitOps.
    pub fn is_contested(&self) -> bool {
        self.put_back >= PASSING_DISTURBANCES
    }

    /// Whether the timer was started and its deadline is still to come.
    pub fn running(&self, timer: P::Timer) -> bool {
        self.timers.get(&timer).is_some_and(|passed| !passed)
    }
}

/// Rancher's own redeploy, or a colleague's command, may write the old state back once or twice.
const PASSING_DISTURBANCES: u8 = 2;

/// Counts no farther than to what matters.
pub(crate) fn one_more(put_back: u8) -> u8 {
    put_back.saturating_add(1).min(PASSING_DISTURBANCES)
}

/// The name of one run: five characters of the alphabet that Kubernetes uses for generated names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
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

    /// The one that a plan shows before any is drawn, and that explorations use.
    pub fn placeholder() -> Self {
        Self("new".to_owned())
    }
}

impl Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What `decide` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<P: Protocol> {
    /// Nothing is under way and nothing stands in the way: journal these notes.
    Begin(P::Notes),
    /// Do this single write.
    Do(Step<P>),
    /// Nothing is to be written until the world has moved.
    Wait(Wait<P>),
    /// The new credential cannot be proven in time: make the old one the goal.
    TurnBack(String),
    /// The goal is reached.
    Done,
    /// It is not safe to go on, or not known to be.
    Refuse(Vec<Obstacle>),
}

/// One write, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<P: Protocol> {
    /// The phase that it is shown under, and that the journal moves on to.
    pub phase: Phase,
    /// The write.
    pub write: P::Write,
    /// Timers that start with it, again if they ran before. They run from the intent on, not from the answer.
    pub starts: Vec<P::Timer>,
    /// Timers that it makes meaningless: they count as never started.
    pub stops: Vec<P::Timer>,
    /// Why it may be sent again and again.
    pub repeats: Repeats,
}

/// Whether a write may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repeats {
    /// It has an effect. One that is accepted each time and changes nothing ends the run.
    #[default]
    Never,
    /// It asks a controller to look, which takes its time.
    Trigger,
    /// It puts right what another writer has written back: whoever that is, in words. The run counts them.
    PutBack(String),
}

/// A wait, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait<P: Protocol> {
    /// The phase that it is shown under.
    pub phase: Phase,
    /// What is waited for, as a fragment that follows "waiting for".
    pub what: String,
    /// Timers that start with it unless they run already.
    pub starts: Vec<P::Timer>,
}

/// One reason not to go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// The name of the check, for `--force=CHECK`; none where nothing may override it.
    pub check: Option<&'static str>,
    /// What is wrong, in one sentence.
    pub reason: String,
    /// The way out.
    pub hint: String,
}

impl<P: Protocol> Next<P> {
    /// A step that starts no timer.
    pub fn write(phase: Phase, write: P::Write) -> Self {
        Self::write_and_start(phase, write, [])
    }

    /// A step that starts timers.
    pub fn write_and_start(phase: Phase, write: P::Write, starts: impl Into<Vec<P::Timer>>) -> Self {
        Self::Do(Step {
            phase,
            write,
            starts: starts.into(),
            stops: Vec::new(),
            repeats: Repeats::Never,
        })
    }

    /// The same step, which puts right what `writer` has written back. While the run may turn back, it does so at the third
    /// time.
    #[must_use]
    pub fn putting_back(mut self, run: &Run<P>, may_turn: bool, writer: &str) -> Self {
        if may_turn && run.is_contested() {
            return Self::TurnBack(format!("{writer} keeps writing the old state back"));
        }
        if let Self::Do(step) = &mut self {
            step.repeats = Repeats::PutBack(writer.to_owned());
        }
        self
    }

    /// The same step, which asks a controller to look.
    #[must_use]
    pub fn triggering(mut self) -> Self {
        if let Self::Do(step) = &mut self {
            step.repeats = Repeats::Trigger;
        }
        self
    }

    /// The same step or wait, which also starts this timer.
    #[must_use]
    pub fn and_start(mut self, timer: P::Timer) -> Self {
        match &mut self {
            Self::Do(Step { starts, .. }) | Self::Wait(Wait { starts, .. }) => starts.push(timer),
            Self::Begin(_) | Self::TurnBack(_) | Self::Done | Self::Refuse(_) => {}
        }
        self
    }

    /// The same step, which also stops this timer.
    #[must_use]
    pub fn and_stop(mut self, timer: P::Timer) -> Self {
        if let Self::Do(Step { stops, .. }) = &mut self {
            stops.push(timer);
        }
        self
    }

    /// A wait that starts no timer.
    pub fn wait(phase: Phase, what: impl Into<String>) -> Self {
        Self::Wait(Wait {
            phase,
            what: what.into(),
            starts: Vec::new(),
        })
    }
}
