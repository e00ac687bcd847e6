//! Exhaustive exploration of a protocol: every interleaving of the tool with its environment, over a small world.
//!
//! Because [`Protocol::decide`] is pure, the very function that rotates a credential can be walked through every state
//! that it can get into. The tool's own moves are the same for every protocol and are given here:
//!
//! * it observes, decides and journals its intent; it sends the write, or is killed before that, and runs again;
//! * it is paused with a write in hand, loses the lock, and wakes up later: the write goes through only when the
//!   object is still what it saw, as the API server's precondition demands, and never if it creates an object: creates
//!   are fenced by the lock itself;
//! * a colleague asks for the rollback at any moment before *retire*;
//! * a timer passes.
//!
//! What the environment does (a roll-out, an agent that connects, a redeploy) is an [`Environment`]. In every state
//! its safety property is asserted; afterwards a search backward from the ends shows that every state can reach one by
//! moves that only help, so nothing is ever stuck.

pub mod mistaken;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::{BuildHasher as _, Hash};

use foldhash::quality::RandomState;

use client::secret::Fingerprint;

use engine::phase::{Goal, Phase};
use engine::protocol::{Draw, Next, Protocol, Repeats, Run, RunId};

/// The world around a protocol.
pub trait Environment {
    /// The protocol that is explored.
    type Protocol: Protocol;
    /// What the environment remembers beyond the view, such as how many moves of a kind it has left.
    type Memory: Clone + Debug + Eq + Hash;
    /// The part of the view that a write is conditional on.
    type Target: Clone + Debug + Eq + Hash;

    /// The worlds to start from.
    fn starts(&self) -> Vec<World<Self>>;

    /// What the environment may do now.
    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>>;

    /// Whether this timer may pass now, and whether its passing is of help. `None`: not yet.
    fn timer(&self, world: &World<Self>, timer: <Self::Protocol as Protocol>::Timer) -> Option<Help>;

    /// What the tool's write is conditional on: the API server refuses it when this has changed since it was observed.
    /// `None` for a write that creates an object.
    fn target(&self, view: &<Self::Protocol as Protocol>::View, write: &WriteOf<Self>) -> Option<Self::Target>;

    /// What else a write of the tool brings about, beyond what `predict` says.
    fn written(&self, world: &mut World<Self>, write: &WriteOf<Self>);

    /// What the passing of a timer uses up.
    fn timer_passed(&self, world: &mut World<Self>, timer: <Self::Protocol as Protocol>::Timer);

    /// The credentials and marks that stand in the world or in the notes of a former holder. What is drawn is the first
    /// one that does not: the same as any other new one, and an exploration must be finite.
    fn in_use(&self, view: &ViewOf<Self>, former: Option<&NotesOf<Self>>) -> (BTreeSet<Fingerprint>, BTreeSet<String>);

    /// Journals that whoever may write Leases could put there, old ones of the same run among them.
    fn forged(&self, _world: &World<Self>) -> Vec<RunIn<Self>> {
        Vec::new()
    }

    /// Whether a refusal in the middle of a run is right here; then an operator discards the journal. Elsewhere it is an error.
    fn may_refuse(&self, _world: &World<Self>) -> bool {
        false
    }

    /// What else changes when another process takes the run over, whose timers begin anew.
    fn resumed(&self, _memory: &mut Self::Memory) {}

    /// Why this state must never be, if so.
    fn unsafe_because(&self, world: &World<Self>) -> Option<String>;
}

type ViewOf<E> = <<E as Environment>::Protocol as Protocol>::View;
type NotesOf<E> = <<E as Environment>::Protocol as Protocol>::Notes;
type RunIn<E> = Run<<E as Environment>::Protocol>;
type WriteOf<E> = <<E as Environment>::Protocol as Protocol>::Write;

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
    pub view: <E::Protocol as Protocol>::View,
    /// What the environment remembers.
    pub memory: E::Memory,
    /// What the journal says.
    pub run: Option<Run<E::Protocol>>,
    /// The goal that was reached.
    pub ended: Option<Goal>,
    /// The write that the holder of the lock has journaled and not sent yet.
    sending: Option<Sending<E>>,
    /// A write in the hand of a former holder.
    stale: Option<Sending<E>>,
    stale_left: u8,
    rollbacks_left: u8,
    forgeries_left: u8,
    forged: bool,
}

struct Sending<E: Environment + ?Sized> {
    write: WriteOf<E>,
    run: Run<E::Protocol>,
    seen: Option<E::Target>,
    repeats: Repeats,
}

impl<E: Environment + ?Sized> World<E> {
    /// A world before any run, with nobody else about.
    pub fn new(view: <E::Protocol as Protocol>::View, memory: E::Memory) -> Self {
        Self {
            view,
            memory,
            run: None,
            ended: None,
            sending: None,
            stale: None,
            stale_left: 0,
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

    /// With so many holders that lose the lock with a write in hand, and so many colleagues that ask for the rollback.
    #[must_use]
    pub fn with(mut self, stale_holders: u8, rollbacks: u8) -> Self {
        self.stale_left = stale_holders;
        self.rollbacks_left = rollbacks;
        self
    }
}

impl<E: Environment + ?Sized> World<E> {
    /// Whether the holder of the lock has journaled a write and not sent it yet.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// That write.
    pub fn sending(&self) -> Option<&WriteOf<E>> {
        self.sending.as_ref().map(|sending| &sending.write)
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
    view,
    memory,
    run,
    ended,
    sending,
    stale,
    stale_left,
    rollbacks_left,
    forgeries_left,
    forged
});
by_fields!(Sending {
    write,
    run,
    seen,
    repeats
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
    /// How many of them are the end of a rollback.
    pub undone: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            moves,
            done,
            undone,
        } = self;
        write!(
            f,
            "{states} states, {moves} moves, {done} ends of a rotation, {undone} of a rollback"
        )
    }
}

/// A way to a state that must not be.
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
    let ends = |goal| graph.states.iter().filter(|state| state.ended == Some(goal)).count();
    Ok(Explored {
        states: graph.states.len(),
        moves: graph.moves,
        done: ends(Goal::Forward),
        undone: ends(Goal::Back),
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
    ended: Option<Goal>,
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
    moves.extend(stale_holder(environment, world));
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
    let mut killed = sent.clone();
    resume(environment, &mut killed);
    if arrive(environment, &mut sent, sending)
        && let Some(run) = &mut sent.run
    {
        run.succeeded(&sending.repeats);
    }
    let mut moves = vec![
        Move {
            name: format!("sends: {}", sending.write),
            help: Help::Helps,
            to: sent,
        },
        Move {
            name: "is killed, and run again".to_owned(),
            help: Help::Disturbs,
            to: killed.clone(),
        },
    ];
    if world.stale.is_none() && world.stale_left > 0 {
        killed.stale.clone_from(&world.sending);
        killed.stale_left -= 1;
        moves.push(Move {
            name: "is paused; a colleague goes on".to_owned(),
            help: Help::Disturbs,
            to: killed,
        });
    }
    Ok(moves)
}

fn decided<E: Environment>(environment: &E, world: &World<E>) -> Result<Option<Move<E>>, String> {
    let mut to = world.clone();
    let name = match E::Protocol::decide(&world.view, world.run.as_ref()) {
        Next::Begin(notes) => {
            let id = RunId::placeholder();
            to.run = Some(Run {
                id,
                goal: Goal::Forward,
                phase: Phase::Survey,
                notes,
                timers: [].into(),
                put_back: 0,
            });
            "begins".to_owned()
        }
        Next::Do(step) => {
            let Some(run) = &mut to.run else {
                return Err("a write before a journal".to_owned());
            };
            let former = world.stale.as_ref().map(|stale| &stale.run.notes);
            let (credentials, marks) = environment.in_use(&world.view, former);
            let mut draw = FirstUnused { credentials, marks };
            run.notes = E::Protocol::intend(&step.write, run, &mut draw);
            run.phase = run.phase.max(step.phase);
            run.intend(&step);
            let seen = environment.target(&world.view, &step.write);
            let name = format!("{}: intends {}", step.phase, step.write);
            to.sending = Some(Sending {
                write: step.write,
                run: run.clone(),
                seen,
                repeats: step.repeats,
            });
            name
        }
        Next::Wait(wait) => {
            let Some(run) = &mut to.run else {
                return Err("a wait before a journal".to_owned());
            };
            run.phase = run.phase.max(wait.phase);
            for timer in &wait.starts {
                run.timers.entry(*timer).or_insert(false);
            }
            format!("{}: waits for {}", wait.phase, wait.what)
        }
        Next::TurnBack(reason) => {
            let Some(run) = &mut to.run else {
                return Err("a turn before a journal".to_owned());
            };
            if run.goal == Goal::Back || !run.phase.may_be_undone() {
                return Err(format!("turns back where it must not ({}, {})", run.goal, run.phase));
            }
            turn_back(run);
            format!("turns back: {reason}")
        }
        Next::Done => {
            to.ended = to.run.as_ref().map(|run| run.goal);
            to.run = None;
            "is done".to_owned()
        }
        Next::Refuse(_) if world.run.is_none() => return Ok(None),
        Next::Refuse(obstacles) if environment.may_refuse(world) => {
            to.run = None;
            format!("refuses ({}), and the journal is discarded", obstacles[0].reason)
        }
        Next::Refuse(obstacles) => return Err(format!("gives up in the middle: {obstacles:?}")),
    };
    Ok(Some(Move {
        name,
        help: Help::Helps,
        to,
    }))
}

/// A write reaches the API server, which holds it against what the sender had observed. Says whether it was accepted.
fn arrive<E: Environment>(environment: &E, world: &mut World<E>, sending: &Sending<E>) -> bool {
    let fits = environment.target(&world.view, &sending.write) == sending.seen;
    if fits {
        E::Protocol::predict(&mut world.view, &sending.run, &sending.write);
        environment.written(world, &sending.write);
    }
    fits
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
            environment.timer_passed(&mut to, *timer);
            Some(Move {
                name: format!("the timer {timer:?} passes"),
                help,
                to,
            })
        })
        .collect()
}

fn stale_holder<E: Environment>(environment: &E, world: &World<E>) -> Option<Move<E>> {
    let sending = world.stale.as_ref()?;
    let mut to = world.clone();
    to.stale = None;
    if sending.seen.is_some() {
        arrive(environment, &mut to, sending);
    }
    Some(Move {
        name: format!("the former holder wakes up and sends: {}", sending.write),
        help: Help::Disturbs,
        to,
    })
}

fn rollback<E: Environment>(environment: &E, world: &World<E>) -> Option<Move<E>> {
    let run = world.run.as_ref()?;
    if world.rollbacks_left == 0 || run.goal == Goal::Back || !run.phase.may_be_undone() || world.sending.is_some() {
        return None;
    }
    let mut to = world.clone();
    to.rollbacks_left -= 1;
    turn_back(to.run.as_mut()?);
    resume(environment, &mut to);
    Some(Move {
        name: "a colleague asks for the rollback".to_owned(),
        help: Help::Disturbs,
        to,
    })
}

/// Whoever may write Leases puts another journal there; the run is killed, and run again.
fn forgeries<E: Environment>(environment: &E, world: &World<E>) -> Vec<Move<E>> {
    if world.forgeries_left == 0 || world.sending.is_some() || world.ended.is_some() {
        return Vec::new();
    }
    let forged = environment.forged(world).into_iter();
    forged
        .map(|run| {
            let name = format!(
                "the journal is forged ({}, {}), and the command run again",
                run.goal, run.phase
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

/// Another process takes the run over: timers begin anew, and the notes are what the objects say.
fn resume<E: Environment + ?Sized>(environment: &E, world: &mut World<E>) {
    environment.resumed(&mut world.memory);
    let Some(run) = &mut world.run else { return };
    run.timers.clear();
    match E::Protocol::recall(&world.view, run) {
        Some(notes) => run.notes = notes,
        None => world.run = None,
    }
}

fn turn_back<P: Protocol>(run: &mut Run<P>) {
    run.goal = Goal::Back;
    run.timers.clear();
    run.put_back = 0;
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
