//! The model checker: every interleaving of a rotation with its environment, over a small model.
//!
//! The stages of a rotation are pure. So the model checker can run the same functions that rotate a credential in every
//! reachable state. The moves of the tool are the same for every rotation:
//!
//! * it observes, decides and journals its intent; it sends the step, or is killed before that, and runs again;
//! * the server refuses the first step of *retire*;
//! * it is paused with a step in hand, loses the lock, and sends the step later. It goes through only if the object is still
//!   what was observed, as the precondition of the API server demands; a create goes through if the name is still free. What
//!   cannot be conditional arrives at any moment until [`Timer::InFlight`] has passed ([`Environment::arrives_late`]), also where
//!   the tool keeps the lock and gets no answer;
//! * another operator requests the rollback at any moment before *retire*;
//! * a timer passes.
//!
//! What the environment does (a rollout, an agent that connects, a redeploy) is an [`Environment`]. In every state its safety
//! property is asserted; afterwards a search backward from the ends shows that every state can reach one by moves that only
//! help, so no run can get stuck.
//!
//! A mutant is an environment with a mistake in [`Environment::decide`], [`Environment::recall`] or
//! [`Environment::predict`]. Every mutant must be found, which tests the model itself.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::{BuildHasher as _, Hash};

use foldhash::quality::RandomState;

use client::secret::Fingerprint;

use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Next, Repeats, Rotation, Timer, decide};
use engine::run::{Draw, Run, RunId};

/// The world around a rotation.
pub trait Environment {
    /// The rotation that is explored.
    type Rotation: Rotation;
    /// What the environment remembers beyond what is observed, such as how many moves of a kind it has left.
    type Memory: Clone + Debug + Eq + Hash;
    /// What a step is conditional on.
    type Condition: Clone + Debug + Eq + Hash;

    /// The states to start from.
    fn starts(&self) -> Vec<World<Self>>;

    /// What the environment may do now.
    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>>;

    /// Whether this timer may pass now, and whether its passing is of help. `None`: not yet.
    fn timer(&self, world: &World<Self>, timer: Timer) -> Option<Help>;

    /// What the tool's step is conditional on: the API server rejects it when this has changed since it was observed. A create
    /// is conditional on a free name. `None` for a create that would do harm if it arrived late: see the rule in
    /// `docs/adding-a-rotation.md`.
    fn condition(&self, seen: &ObservedIn<Self>, step: &StepIn<Self>) -> Option<Self::Condition>;

    /// What else a step of the tool brings about, beyond what [`Rotation::predict`] says.
    fn applied(&self, world: &mut World<Self>, step: &StepIn<Self>);

    /// How far a step that consists of several requests may have come when the tool is killed in it.
    fn partly_applied(&self, _world: &World<Self>, _step: &StepIn<Self>) -> Vec<World<Self>> {
        Vec::new()
    }

    /// What one request of a former holder that is still in flight brings about when it arrives, whatever is there then: one
    /// world for each request that it may be. `None`: the step is one request, which arrives if its condition still fits.
    fn arrives_late(&self, _world: &World<Self>, _step: &StepIn<Self>) -> Option<Vec<World<Self>>> {
        None
    }

    /// What the passing of a timer uses up.
    fn timer_passed(&self, _world: &mut World<Self>, _timer: Timer) {}

    /// The credentials and marks that exist, or that the record of a former holder names. What is drawn is the first one that
    /// does not: the same as any other new one, and the number of states must be finite.
    fn in_use(
        &self,
        seen: &ObservedIn<Self>,
        former: Option<&RecordIn<Self>>,
    ) -> (BTreeSet<Fingerprint>, BTreeSet<String>);

    /// The journals that an attacker who may write Leases could write, including earlier journals of the same run.
    fn forged(&self, _world: &World<Self>) -> Vec<RunIn<Self>> {
        Vec::new()
    }

    /// What happens after a run in progress is refused. The operator discards the journal (`None`), or fixes the cause,
    /// which is a move of the environment and leaves the run as it is. An error if the refusal is wrong.
    fn refused(&self, _world: &World<Self>, blockers: &[Blocker]) -> Result<Refusal, String> {
        Err(format!("refuses in the middle of a run: {blockers:?}"))
    }

    /// What else changes when another process takes the run over, whose timers begin anew: it does not observe what only the
    /// former process could remember. The same is forgotten when a step that cannot be conditional gets no answer.
    fn resumed(&self, _world: &mut World<Self>) {}

    /// Why this state is unsafe, if it is.
    fn unsafe_because(&self, world: &World<Self>) -> Option<String>;

    /// The preflight of the rotation, or of its mutant.
    fn survey(&self, seen: &ObservedIn<Self>) -> Result<RecordIn<Self>, Vec<Blocker>> {
        Self::Rotation::survey(seen)
    }

    /// The decision of the rotation, or of its mutant.
    fn decide(&self, seen: &ObservedIn<Self>, run: &RunIn<Self>) -> Decision<Self::Rotation> {
        decide(seen, run)
    }

    /// What the rotation, or its mutant, finds of a run that it resumes.
    fn recall(&self, seen: &ObservedIn<Self>, claimed: RunIn<Self>) -> Option<RunIn<Self>> {
        claimed.resumed(seen)
    }

    /// What a step of the rotation, or of its mutant, brings about.
    fn predict(&self, seen: &mut ObservedIn<Self>, run: &RunIn<Self>, step: &StepIn<Self>) {
        Self::Rotation::predict(seen, run, step);
    }
}

/// What happens after a run in progress is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An operator discards the journal.
    Discarded,
    /// The run stays as it is. Fixing the cause is a move of the environment.
    Waits,
}

/// What the rotation of an environment observes.
pub type ObservedIn<E> = <<E as Environment>::Rotation as Rotation>::Observed;
/// Its record.
pub type RecordIn<E> = <<E as Environment>::Rotation as Rotation>::Record;
/// Its run.
pub type RunIn<E> = Run<<E as Environment>::Rotation>;
/// Its step.
pub type StepIn<E> = <<E as Environment>::Rotation as Rotation>::Step;

/// Whether a move brings the end nearer. Only such moves count for the proof that the end can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Help {
    /// The tool, Kubernetes and Rancher doing their ordinary work.
    Helps,
    /// A disturbance.
    Disturbs,
}

/// One move of the environment.
pub struct Move<E: Environment + ?Sized> {
    /// What it is called in a trace.
    pub name: String,
    /// Whether it brings the end nearer.
    pub help: Help,
    /// Where it leads.
    pub to: World<E>,
}

/// One state.
pub struct World<E: Environment + ?Sized> {
    /// What is really there.
    pub seen: ObservedIn<E>,
    /// What the environment remembers.
    pub memory: E::Memory,
    /// What the journal says.
    pub run: Option<RunIn<E>>,
    /// The direction in which the end was reached.
    pub ended: Option<Direction>,
    /// The step that the holder of the lock has journaled and not sent yet.
    sending: Option<Sending<E>>,
    /// A step in the hand of a former holder.
    late: Option<Sending<E>>,
    late_left: u8,
    rollbacks_left: u8,
    forgeries_left: u8,
    forged: bool,
}

struct Sending<E: Environment + ?Sized> {
    step: StepIn<E>,
    run: RunIn<E>,
    condition: Option<E::Condition>,
    repeats: Repeats,
    /// The phase before the step was intended.
    before: Phase,
}

impl<E: Environment + ?Sized> World<E> {
    /// A world before any run, with no other operator.
    pub fn new(seen: ObservedIn<E>, memory: E::Memory) -> Self {
        Self {
            seen,
            memory,
            run: None,
            ended: None,
            sending: None,
            late: None,
            late_left: 0,
            rollbacks_left: 0,
            forgeries_left: 0,
            forged: false,
        }
    }

    /// With a Lease whose journal is replaced so many times, and the run killed and resumed.
    #[must_use]
    pub fn forgeries(mut self, forgeries: u8) -> Self {
        self.forgeries_left = forgeries;
        self
    }

    /// Whether the journal was forged before.
    pub fn was_forged(&self) -> bool {
        self.forged
    }

    /// With so many holders that lose the lock with a step in hand, and so many operators that ask for the rollback.
    #[must_use]
    pub fn with(mut self, late_holders: u8, rollbacks: u8) -> Self {
        self.late_left = late_holders;
        self.rollbacks_left = rollbacks;
        self
    }

    /// Whether the holder of the lock has journaled a step and not sent it yet.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// That step.
    pub fn sending(&self) -> Option<&StepIn<E>> {
        self.sending.as_ref().map(|sending| &sending.step)
    }
}

macro_rules! by_fields {
    ($type:ident { $($field:ident),* }) => {
        impl<E: Environment + ?Sized> Clone for $type<E> {
            fn clone(&self) -> Self { Self { $($field: self.$field.clone()),* } }
        }
        impl<E: Environment + ?Sized> PartialEq for $type<E> {
            fn eq(&self, other: &Self) -> bool { $(self.$field == other.$field)&&* }
        }
        impl<E: Environment + ?Sized> Eq for $type<E> {}
        impl<E: Environment + ?Sized> Hash for $type<E> {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) { $(self.$field.hash(state);)* }
        }
        impl<E: Environment + ?Sized> Debug for $type<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($field), &self.$field))*.finish()
            }
        }
    };
}
// Derives would ask for bounds on the environment itself.
by_fields!(World {
    seen,
    memory,
    run,
    ended,
    sending,
    late,
    late_left,
    rollbacks_left,
    forgeries_left,
    forged
});
by_fields!(Sending {
    step,
    run,
    condition,
    repeats,
    before
});

/// What an exploration found to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// How many different states there are.
    pub states: usize,
    /// How many moves lead from one to another.
    pub moves: usize,
    /// How many of the states are the end of a rotation.
    pub done: usize,
    /// How many of them are the end of a rollback, or of one that was no longer possible.
    pub rolled_back: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            moves,
            done,
            rolled_back,
        } = self;
        write!(
            f,
            "{states} states, {moves} moves, {done} ends of a rotation, {rolled_back} of a rollback"
        )
    }
}

/// A path to an unsafe state.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What is wrong with it.
    pub because: String,
    /// The moves that lead there.
    pub trace: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.because)?;
        self.trace
            .iter()
            .enumerate()
            .try_for_each(|(at, name)| writeln!(f, "{:>3} {name}", at + 1))
    }
}

/// Explores everything.
///
/// # Errors
/// The shortest way to a state that is unsafe, or from which no end can be reached; also when there are more than
/// `limit` states, since then nothing is shown.
pub fn explore<E: Environment>(environment: &E, limit: usize) -> Result<Explored, Counterexample> {
    let mut graph = Graph::new(environment);
    while let Some((at, world)) = graph.frontier.pop_front() {
        if let Some(because) = environment.unsafe_because(&world) {
            return Err(graph.way_to(at, because));
        }
        for Move { name, help, to } in successors(environment, &world).map_err(|why| graph.way_to(at, why))? {
            graph.add(at, name, help, to);
        }
        if graph.states.len() > limit {
            return Err(graph.way_to(at, format!("more than {limit} states")));
        }
    }
    if let Some(stuck) = graph.cannot_reach_an_end() {
        return Err(graph.way_to(stuck, "no end can be reached from here".to_owned()));
    }
    let ended = |state: &&State| state.ended.is_some();
    let (done, rolled_back): (Vec<_>, Vec<_>) = graph
        .states
        .iter()
        .filter(ended)
        .partition(|state| state.ended == Some(Direction::Forward));
    Ok(Explored {
        states: graph.states.len(),
        moves: graph.moves,
        done: done.len(),
        rolled_back: rolled_back.len(),
    })
}

/// The graph of all states, with one way to each and the helpful moves backward. A state is known again by 128 bits of hash:
/// whole ones, of which there are millions, are kept only until their moves are known.
struct Graph<E: Environment> {
    states: Vec<State>,
    known: HashMap<(u64, u64), usize, RandomState>,
    hashers: [RandomState; 2],
    frontier: VecDeque<(usize, World<E>)>,
    moves: usize,
}

struct State {
    ended: Option<Direction>,
    in_progress: bool,
    came_from: Option<(usize, String)>,
    helped_from: Vec<usize>,
}

impl<E: Environment> Graph<E> {
    fn new(environment: &E) -> Self {
        let mut graph = Self {
            states: Vec::new(),
            known: HashMap::default(),
            hashers: [RandomState::default(), RandomState::default()],
            frontier: VecDeque::new(),
            moves: 0,
        };
        for start in environment.starts() {
            graph.find_or_insert(start, None);
        }
        graph
    }

    fn find_or_insert(&mut self, world: World<E>, from: Option<(usize, String)>) -> usize {
        let [one, other] = &self.hashers;
        let key = (one.hash_one(&world), other.hash_one(&world));
        if let Some(at) = self.known.get(&key) {
            return *at;
        }
        let at = self.states.len();
        self.known.insert(key, at);
        self.states.push(State {
            ended: world.ended,
            in_progress: world.run.is_some(),
            came_from: from,
            helped_from: Vec::new(),
        });
        self.frontier.push_back((at, world));
        at
    }

    fn add(&mut self, from: usize, name: String, help: Help, to: World<E>) {
        let to = self.find_or_insert(to, Some((from, name)));
        self.moves += 1;
        if help == Help::Helps && to != from {
            self.states[to].helped_from.push(from);
        }
    }

    /// A state from which helpful moves lead to no end.
    fn cannot_reach_an_end(&self) -> Option<usize> {
        // Where a refusal is right, the journal is discarded, and nothing is in progress any more.
        let is_end = |state: &State| state.ended.is_some() || !state.in_progress;
        let mut reaches: Vec<bool> = self.states.iter().map(is_end).collect();
        let mut next: Vec<usize> = (0..self.states.len()).filter(|at| reaches[*at]).collect();
        while let Some(at) = next.pop() {
            for before in &self.states[at].helped_from {
                if !std::mem::replace(&mut reaches[*before], true) {
                    next.push(*before);
                }
            }
        }
        (0..self.states.len()).find(|at| self.states[*at].in_progress && !reaches[*at])
    }

    fn way_to(&self, mut at: usize, because: String) -> Counterexample {
        let mut trace = Vec::new();
        while let Some((before, name)) = &self.states[at].came_from {
            trace.push(name.clone());
            at = *before;
        }
        trace.reverse();
        Counterexample { because, trace }
    }
}

fn successors<E: Environment>(environment: &E, world: &World<E>) -> Result<Vec<Move<E>>, String> {
    let mut moves = environment.moves(world);
    moves.extend(tool(environment, world)?);
    moves.extend(timers(environment, world));
    moves.extend(late_steps(environment, world));
    moves.extend(rollback(environment, world));
    moves.extend(forgeries(environment, world));
    Ok(moves)
}

/// The moves of the holder of the lock.
fn tool<E: Environment>(environment: &E, world: &World<E>) -> Result<Vec<Move<E>>, String> {
    if world.ended.is_some() {
        return Ok(Vec::new());
    }
    let Some(sending) = &world.sending else {
        return Ok(decided(environment, world)?.into_iter().collect());
    };
    let mut sent = world.clone();
    sent.sending = None;
    let mut interrupted = vec![sent.clone()];
    if fits(environment, &sent, sending) {
        interrupted.extend(environment.partly_applied(&sent, &sending.step));
    }
    let may_be_late = world.late.is_none() && world.late_left > 0;
    let is_unconditional = environment.arrives_late(&sent, &sending.step).is_some();
    let mut refused = sent.clone();
    let arrived = arrive(environment, &mut sent, sending);
    let reopens = refused.run.as_mut().is_some_and(|run| run.refused(sending.before));
    if !arrived {
        sent = refused.clone();
    } else if let Some(run) = &mut sent.run {
        run.succeeded(&sending.repeats);
    }
    let mut moves = vec![Move {
        name: format!("sends: {}", sending.step),
        help: Help::Helps,
        to: sent,
    }];
    if reopens {
        let name = format!("sends, and is refused: {}", sending.step);
        let help = Help::Disturbs;
        moves.push(Move {
            name,
            help,
            to: refused,
        });
    }
    let mut disturbed = |name: &str, to| {
        let (name, help) = (name.to_owned(), Help::Disturbs);
        moves.push(Move { name, help, to });
    };
    for at in interrupted {
        let mut killed = at.clone();
        resume(environment, &mut killed);
        if may_be_late {
            let late = |mut to: World<E>| {
                to.late.clone_from(&world.sending);
                to.late_left -= 1;
                to
            };
            disturbed("is paused; another process takes over", late(killed.clone()));
            if is_unconditional {
                let mut unanswered = late(at);
                environment.resumed(&mut unanswered);
                if let Some(run) = &mut unanswered.run {
                    run.unanswered();
                }
                disturbed("gets no answer", unanswered);
            }
        }
        disturbed("is killed, and run again", killed);
    }
    Ok(moves)
}

fn decided<E: Environment>(environment: &E, world: &World<E>) -> Result<Option<Move<E>>, String> {
    let mut to = world.clone();
    let name = match &mut to.run {
        None => match environment.survey(&world.seen) {
            Ok(record) => {
                to.run = Some(Run::begin(RunId::placeholder(), record));
                "begins".to_owned()
            }
            Err(_) => return Ok(None),
        },
        Some(run) => {
            let decision = environment.decide(&world.seen, run);
            let former = world.late.as_ref().map(|late| &late.run.record);
            let may_turn = match &decision.next {
                Next::Turn { to, .. } => run.may_turn(*to),
                _ => true,
            };
            if !may_turn {
                return Err(format!("turns where it must not ({}, {})", run.direction, run.phase));
            }
            // What is in use is asked for only where something may be drawn.
            let (credentials, marks) = match &decision.next {
                Next::Step(_) => environment.in_use(&world.seen, former),
                _ => Default::default(),
            };
            let before = run.phase;
            run.advance(&world.seen, &decision, &mut FirstUnused { credentials, marks });
            let phase = decision.phase;
            match decision.next {
                Next::Step(intent) => {
                    let name = format!("{phase}: intends {}", intent.step);
                    to.sending = Some(Sending {
                        condition: environment.condition(&world.seen, &intent.step),
                        step: intent.step,
                        run: run.clone(),
                        repeats: intent.repeats,
                        before,
                    });
                    name
                }
                Next::Wait(wait) => format!("{phase}: waits for {}", wait.what),
                Next::Turn { to, reason } => format!("turns to {to}: {reason}"),
                Next::Done => {
                    to.ended = Some(run.direction);
                    to.run = None;
                    "is done".to_owned()
                }
                Next::Pause(blocker) => format!("stops ({}), and is run again later", blocker.reason),
                Next::Refuse(blockers) => match environment.refused(world, &blockers)? {
                    Refusal::Waits => "refuses, and is run again later".to_owned(),
                    Refusal::Discarded => {
                        to.run = None;
                        format!("refuses ({}), and the journal is discarded", blockers[0].reason)
                    }
                },
            }
        }
    };
    Ok(Some(Move {
        name,
        help: Help::Helps,
        to,
    }))
}

/// A step reaches the API server, which compares it with what the sender had observed. Says whether it was accepted.
fn arrive<E: Environment>(environment: &E, world: &mut World<E>, sending: &Sending<E>) -> bool {
    let fits = fits(environment, world, sending);
    if fits {
        environment.predict(&mut world.seen, &sending.run, &sending.step);
        environment.applied(world, &sending.step);
    }
    fits
}

fn fits<E: Environment>(environment: &E, world: &World<E>, sending: &Sending<E>) -> bool {
    environment.condition(&world.seen, &sending.step) == sending.condition
}

fn timers<E: Environment>(environment: &E, world: &World<E>) -> Vec<Move<E>> {
    let Some(run) = &world.run else { return Vec::new() };
    let running = run.timers.iter().filter(|(_, passed)| !**passed);
    running
        .filter_map(|(timer, _)| {
            let help = environment.timer(world, *timer)?;
            let mut to = world.clone();
            if let Some(run) = &mut to.run {
                run.timers.insert(*timer, true);
            }
            if *timer == Timer::InFlight {
                to.late = None;
            }
            environment.timer_passed(&mut to, *timer);
            Some(Move {
                name: format!("the timer {timer:?} passes"),
                help,
                to,
            })
        })
        .collect()
}

fn late_steps<E: Environment>(environment: &E, world: &World<E>) -> Vec<Move<E>> {
    let Some(sending) = &world.late else { return Vec::new() };
    let mut before = world.clone();
    before.late = None;
    let arrived = environment.arrives_late(&before, &sending.step).unwrap_or_else(|| {
        if sending.condition.is_some() {
            arrive(environment, &mut before, sending);
        }
        vec![before]
    });
    let arrived = arrived.into_iter();
    arrived
        .map(|to| Move {
            name: format!("the former holder sends: {}", sending.step),
            help: Help::Disturbs,
            to,
        })
        .collect()
}

fn rollback<E: Environment>(environment: &E, world: &World<E>) -> Option<Move<E>> {
    let run = world.run.as_ref()?;
    if world.rollbacks_left == 0 || world.sending.is_some() || !run.may_turn(Direction::Rollback) {
        return None;
    }
    let mut to = world.clone();
    to.rollbacks_left -= 1;
    to.run.as_mut()?.turn(Direction::Rollback);
    resume(environment, &mut to);
    Some(Move {
        name: "another operator asks for the rollback".to_owned(),
        help: Help::Disturbs,
        to,
    })
}

/// An attacker who may write Leases replaces the journal. The run is killed and resumed.
fn forgeries<E: Environment>(environment: &E, world: &World<E>) -> Vec<Move<E>> {
    if world.forgeries_left == 0 || world.sending.is_some() || world.ended.is_some() {
        return Vec::new();
    }
    let forged = environment.forged(world).into_iter();
    forged
        .map(|run| {
            let name = format!(
                "the journal is forged ({}, {}), and the command run again",
                run.direction, run.phase
            );
            let mut to = world.clone();
            to.forgeries_left -= 1;
            to.forged = true;
            to.run = Some(run);
            resume(environment, &mut to);
            Move {
                name,
                help: Help::Disturbs,
                to,
            }
        })
        .collect()
}

/// Another process takes the run over: timers begin anew, and the record is what the objects say.
fn resume<E: Environment>(environment: &E, world: &mut World<E>) {
    environment.resumed(world);
    world.run = world.run.take().and_then(|run| environment.recall(&world.seen, run));
}

/// Draws the first value that is not in use.
struct FirstUnused {
    credentials: BTreeSet<Fingerprint>,
    marks: BTreeSet<String>,
}

impl Draw for FirstUnused {
    fn credential(&mut self) -> Fingerprint {
        let mut drawn = (1..).map(|n: u8| Fingerprint::of(&format!("new {n}")));
        drawn
            .find(|drawn| !self.credentials.contains(drawn))
            .unwrap_or_else(|| Fingerprint::of("new"))
    }

    fn mark(&mut self) -> String {
        let mut drawn = (1..).map(|n: u8| format!("mark {n}"));
        drawn.find(|drawn| !self.marks.contains(drawn)).unwrap_or_default()
    }
}
