//! A small world of one Argo CD, one cluster Secret, one Rancher, and whoever else may change something.
//!
//! What each move imitates is said beside it. A refusal in the middle leaves the run where it is, so here it counts as a wait;
//! what it asks of the operator is then a move of its own.

mod moves;
mod safety;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::{Run, RunId};
use kubectl_argocd_rancher::rotation::Timer;
use kubectl_argocd_rancher::rotation::view::{
    Answer, Consumer, Known, Life, Minted, Name, Notes, Parked, Target, View, Writer,
};
use kubectl_argocd_rancher::rotation::write::{Which, Write};
use model::{Environment, Help, Move, World};
use moves::Moves;

use crate::mistake::{Perhaps, Seen};

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Argo CD begins to write what it has read over the Secret.
    pub(crate) invalidations: u8,
    /// Argo CD begins a sync, which keeps the token that it began with.
    pub(crate) syncs: u8,
    /// The cluster gets its first Application.
    pub(crate) applications: u8,
    /// Somebody deletes O or N in Rancher, or switches it off.
    pub(crate) revocations: u8,
    /// Time passes for O or N: it is about to expire, expires, and Rancher purges it.
    pub(crate) expiries: u8,
    /// Somebody puts something else into the cluster Secret, puts O back, or deletes it.
    pub(crate) strangers: u8,
    /// Another writer applies the state at the start again.
    pub(crate) reapplies: u8,
    /// Somebody puts O into another cluster Secret too.
    pub(crate) sharers: u8,
    /// Somebody else than Argo CD calls with N.
    pub(crate) callers: u8,
    /// A sync that Argo CD has begun with its old copy ends later.
    pub(crate) late_syncs: u8,
    /// A sync of Argo CD's fails.
    pub(crate) failures: u8,
    /// Somebody changes or deletes what is parked.
    pub(crate) tampers: u8,
    /// Whoever knew a value that stands nowhere is gone.
    pub(crate) forgets: u8,
    /// The run is gone on with as another user.
    pub(crate) users: u8,
    /// The run is gone on with at another Rancher.
    pub(crate) ranchers: u8,
    /// The agent is away.
    pub(crate) outages: u8,
    /// Rancher does not let a token in any more that it let in.
    pub(crate) bans: u8,
}

/// What the components of Argo CD have of the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArgoCd {
    /// The token that it read last.
    copy: Option<Fingerprint>,
    /// The token that it is about to write over the one that is there.
    writing: Option<Fingerprint>,
    /// The token of the sync under way.
    sync: Option<Fingerprint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    left: Budget,
    argo: ArgoCd,
    /// O as it really is.
    old: Option<Life>,
    /// Whether Rancher's servers let O in.
    old_let_in: bool,
    /// The new tokens that they let in.
    let_in: BTreeSet<Name>,
    /// Rancher has not noted our last call with N yet.
    to_note: bool,
    /// The N that was asked with.
    asked: Option<Fingerprint>,
    away: bool,
    /// What the Secret holds is no business of ours, by a stranger's hand.
    stranger: bool,
    /// The environment made O unfit for the way back.
    old_lost: bool,
    /// The environment has interfered.
    disturbed: bool,
    /// It did while a write was under way.
    raced: bool,
    /// A token is about to expire that was not when the write under way was intended.
    ending_since_intent: bool,
    /// Something is broken, and not by us.
    hurt: bool,
    /// A creation arrived after the end.
    late: bool,
    /// What the Secret held before the write that has just arrived.
    was: Option<Fingerprint>,
    /// What a write of ours broke.
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    pub(crate) budget: Budget,
    /// Argo CD calls the cluster.
    pub(crate) watched: bool,
    /// O is somebody else's, and stays.
    pub(crate) foreign: bool,
    /// O has expired before the rotation began.
    pub(crate) dead: bool,
    /// A new token is never let in.
    pub(crate) never_let_in: bool,
    /// The deadline of the proof may pass at any time.
    pub(crate) late_proof: bool,
    /// There are several servers of Rancher, and they learn of a change late.
    pub(crate) many_servers: bool,
    /// Rancher does not keep the last use (before 2.9).
    pub(crate) no_last_use: bool,
    /// Argo CD may be away for longer than the grace time.
    pub(crate) argo_away: bool,
    /// What a former holder was about to create may arrive late too.
    pub(crate) late_creations: bool,
    /// How many holders lose the lock with a write in hand, and how many rollbacks are asked for.
    pub(crate) others: (u8, u8),
    /// How many journals are forged.
    pub(crate) forgeries: u8,
}

impl Small {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            watched: true,
            foreign: false,
            dead: false,
            never_let_in: false,
            late_proof: false,
            many_servers: false,
            no_last_use: false,
            argo_away: false,
            late_creations: false,
            others: (0, 0),
            forgeries: 0,
        }
    }
}

pub(crate) type W = World<Small>;

// A digest costs more than a step.
static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));
static STRANGER: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("stranger"));
/// The tokens that a plan makes, in order.
static NEW: LazyLock<Vec<(Name, Fingerprint)>> = LazyLock::new(|| {
    let name = |count| format!("<new {count}>");
    (1..10)
        .map(name)
        .map(|name| (Name(name.clone()), Fingerprint::of(&name)))
        .collect()
});

pub(crate) const US: &str = "u-argo";

pub(crate) fn old() -> Fingerprint {
    *OLD
}

pub(crate) fn stranger() -> Fingerprint {
    *STRANGER
}

/// The token with this value.
pub(crate) fn known(value: Fingerprint) -> Known {
    let name = if value == old() {
        "token-old".to_owned()
    } else if let Some(name) = new_name(value) {
        name.0.clone()
    } else {
        "token-other".to_owned()
    };
    let name = Some(Name(name));
    Known { name, value }
}

fn new_name(value: Fingerprint) -> Option<&'static Name> {
    NEW.iter().find(|new| new.1 == value).map(|new| &new.0)
}

fn value_of(name: &Name) -> Option<Fingerprint> {
    NEW.iter().find(|new| new.0 == *name).map(|new| new.1)
}

pub(crate) fn start(watched: bool) -> View {
    View {
        obstacles: Vec::new(),
        user: US.to_owned(),
        same_rancher: true,
        target: Target::Holds {
            held: Some(known(old())),
            mark: None,
            writer: Writer::Ours,
        },
        parked: None,
        old: Some(Life::Sound),
        old_answer: Answer::Works,
        old_needed_by: None,
        minted: [].into(),
        new_answer: Answer::Unasked,
        watched,
        consumer: Consumer::Before,
        quiet: true,
        keep_old: false,
    }
}

/// What a write is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    /// The version of the Secret.
    Target(u8),
    Parked(Option<Parked>),
}

impl Environment for Small {
    type Protocol = Perhaps;
    type Memory = Memory;
    type Target = Condition;

    fn starts(&self) -> Vec<W> {
        let argo = ArgoCd {
            copy: Some(old()),
            writing: None,
            sync: None,
        };
        let memory = Memory {
            left: self.budget,
            argo,
            old: Some(if self.dead { Life::Dead } else { Life::Sound }),
            old_let_in: !self.dead,
            let_in: [].into(),
            to_note: false,
            asked: None,
            away: false,
            stranger: false,
            old_lost: self.dead,
            disturbed: false,
            raced: false,
            ending_since_intent: false,
            hurt: self.dead,
            late: false,
            was: Some(old()),
            fault: None,
        };
        let mut view = start(self.watched);
        view.keep_old = self.foreign;
        let view = Seen {
            view,
            version: 0,
            used: [].into(),
        };
        let world = World::new(view, memory).with(self.others.0, self.others.1);
        let mut world = world.forgeries(self.forgeries);
        self.settle(&mut world);
        vec![world]
    }

    fn moves(&self, world: &W) -> Vec<Move<Self>> {
        let mut moves = Moves {
            small: self,
            world,
            found: Vec::new(),
        };
        moves.all();
        moves.found
    }

    fn timer(&self, world: &W, timer: Timer) -> Option<Help> {
        match timer {
            Timer::Proof if self.never_let_in => Some(Help::Helps),
            Timer::Proof => self.late_proof.then_some(Help::Disturbs),
            // By then Argo CD has read what is there now, has written what it was about to write, and has ended what it began
            // with another token.
            Timer::Grace => {
                let ArgoCd { copy, writing, sync } = world.memory.argo;
                let held = held(&world.view);
                let over = |other: Option<Fingerprint>| other.is_none() || other == held;
                let has_read = copy == held || self.argo_away;
                (has_read && over(writing) && over(sync)).then_some(Help::Helps)
            }
        }
    }

    fn target(&self, view: &Seen, write: &Write) -> Option<Condition> {
        match write {
            Write::Keep | Write::Revoke { .. } => Some(Condition::Nothing),
            Write::Mint { .. } => self.late_creations.then_some(Condition::Nothing),
            Write::ParkOld { .. } | Write::ParkNew { .. } | Write::Unpark => {
                let may_be_late = view.parked.is_some() || self.late_creations;
                may_be_late.then(|| Condition::Parked(view.parked.clone()))
            }
            Write::Place { .. } | Write::Guard => Some(Condition::Target(view.version)),
        }
    }

    fn written(&self, world: &mut W, write: &Write) {
        // What was right when it was intended, and was made wrong by somebody else while it was under way: no write can be
        // conditional on two objects. A former holder's write may be under way for any time, until the run has ended.
        // But a token that is to be deleted is never relied on again, however late that comes.
        let may_be_late = !matches!(write, Write::Revoke { which: Which::New, .. });
        let late = self.others.0 > 0 && world.memory.disturbed && world.ended.is_none();
        let excused = world.memory.raced || may_be_late && late;
        let fault = self.fault(world, write).filter(|_| !excused);
        world.memory.fault = safety::trespass(world, write).or(fault);
        match write {
            Write::Revoke { which: Which::Old, .. } => world.memory.old = None,
            Write::Place { .. } | Write::Guard => Self::changed(world),
            Write::Mint { .. } | Write::ParkOld { .. } | Write::ParkNew { .. } => {
                world.memory.late = world.ended.is_some();
            }
            _ => {}
        }
        self.settle(world);
        world.memory.raced = false;
        world.memory.ending_since_intent = false;
        world.memory.hurt = safety::unhealthy(world).is_some() && (world.memory.hurt || excused);
    }

    fn timer_passed(&self, world: &mut W, _: Timer) {
        self.settle(world);
    }

    fn in_use(&self, _: &Seen, _: Option<&Notes>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        ([].into(), [].into())
    }

    /// A journal with hostile notes and with empty ones, as a replayed one may be, in either direction and of any phase that
    /// counts. Once a rotation that kept O has ended, nobody knows O's value: then a rollback is no forgery's doing.
    fn forged(&self, world: &W) -> Vec<Run<Perhaps>> {
        let names: BTreeSet<Name> = world.view.minted.keys().cloned().collect();
        let empty = Notes {
            user: US.to_owned(),
            old: known(old()),
            old_worked: true,
            keep_old: false,
            new: None,
            used_before: None,
            placed: [].into(),
            given_up: [].into(),
            kept: false,
        };
        let hostile = Notes {
            user: "u-other".to_owned(),
            old: known(stranger()),
            old_worked: false,
            keep_old: false,
            new: Some(known(stranger())),
            used_before: Some("never".to_owned()),
            placed: names.clone().into_iter().chain(known(stranger()).name).collect(),
            given_up: names,
            kept: true,
        };
        let goals = [Goal::Forward, Goal::Back];
        let parked = world.view.parked.as_ref();
        let is_known = parked.is_some() || held(&world.view) == Some(old());
        let back = is_known || !self.foreign;
        let goals = goals.into_iter().filter(|goal| back || *goal == Goal::Forward);
        let phases = [Phase::Survey, Phase::Place, Phase::Retire, Phase::Confirm];
        goals
            .flat_map(|goal| phases.map(|phase| (goal, phase)))
            .flat_map(|(goal, phase)| [&empty, &hostile].map(|notes| (goal, phase, notes.clone())))
            .map(|(goal, phase, notes)| Run {
                id: RunId::placeholder(),
                goal,
                phase,
                notes,
                timers: [].into(),
                put_back: 0,
            })
            .collect()
    }

    fn unsafe_because(&self, world: &W) -> Option<String> {
        let why = world.memory.fault.map(ToOwned::to_owned);
        let why = why.or_else(|| {
            safety::unhealthy(world)
                .filter(|_| !world.memory.hurt)
                .map(ToOwned::to_owned)
        });
        let why = why.or_else(|| self.ended_wrong(world));
        why.map(|why| format!("{why}: {:#?} {:#?}", world.view, world.memory))
    }
}

impl Small {
    /// Every write of the Secret gives it a new version. It counts only while a write is under way.
    fn changed(world: &mut W) {
        world.view.version += 1;
    }

    /// What follows from the rest of the world: what is known, and what calls show.
    fn settle(&self, world: &mut W) {
        if self.others.0 == 0 && !world.is_sending() {
            world.view.version = 0;
        }
        let (view, memory) = (&mut world.view.view, &mut world.memory);
        view.old = memory.old.filter(|_| !self.foreign);
        memory.was = held(view);
        let minted = &view.minted;
        memory
            .let_in
            .retain(|name| minted.get(name).is_some_and(|minted| minted.life != Life::Dead));
        let (parked, in_secret) = (view.parked.clone().unwrap_or_default(), held(view));
        let in_parked = [&parked.old, &parked.new].map(|known| known.as_ref().map(|known| known.value));
        let stands = |value| in_secret == Some(value) || in_parked.contains(&Some(value));
        for (name, minted) in &mut view.minted {
            minted.value = minted.value.or_else(|| value_of(name).filter(|value| stands(*value)));
        }
        if !self.many_servers {
            memory.old_let_in = old_lives(memory);
        }
        view.old_answer = match (stands(old()), memory.away) {
            (false, _) => Answer::Unasked,
            (true, true) => away(),
            (true, false) if memory.old_let_in => Answer::Works,
            (true, false) => Answer::Refused,
        };
        self.ask_with_new(world);
    }

    fn ask_with_new(&self, world: &mut W) {
        let value = Self::may_be_asked(world);
        let named = world.run.as_ref().and_then(|run| run.notes.new.as_ref());
        let named = named.map(|new| new.value);
        let truth = value.map(|value| answer(world, value));
        let (view, memory) = (&mut world.view.view, &mut world.memory);
        if memory.asked != named {
            (memory.asked, memory.to_note, view.quiet) = (named, false, true);
            view.new_answer = Answer::Unasked;
        }
        match truth {
            None => view.new_answer = Answer::Unasked,
            Some(_) if memory.away => view.new_answer = away(),
            Some(_) if matches!(view.new_answer, Answer::Open(_)) => view.new_answer = Answer::Unasked,
            Some(Answer::Refused) if view.new_answer == Answer::Works && !self.many_servers => {
                view.new_answer = Answer::Refused;
            }
            Some(_) => {}
        }
    }

    /// N, if we may call with it: its value is known, and no call is to be seen.
    fn may_be_asked(world: &W) -> Option<Fingerprint> {
        let (view, run) = (&world.view, world.run.as_ref()?);
        let new = run.notes.new.as_ref()?;
        let name = new.name.as_ref()?;
        let minted = view.minted.get(name);
        let is_good = |minted: &Minted| {
            minted.life == Life::Sound && minted.value.is_some() && !run.notes.given_up.contains(name)
        };
        // On the way forward one that is not good is about to be replaced.
        let wanted = run.goal == Goal::Back && !run.notes.kept || minted.is_some_and(is_good);
        let parked = view.parked.as_ref().and_then(|parked| parked.new.as_ref());
        let parked = parked.map(|known| known.value);
        let in_use = held(view) == Some(new.value);
        let is_known = in_use || parked == Some(new.value);
        let is_watched_for = in_use && view.watched && !run.passed(Timer::Grace);
        (wanted && is_known && !is_watched_for).then_some(new.value)
    }
}

fn away() -> Answer {
    Answer::Open("the agent is away".to_owned())
}

fn answer(world: &W, value: Fingerprint) -> Answer {
    if works(world, value) {
        Answer::Works
    } else {
        Answer::Refused
    }
}

/// The value in the Secret.
pub(crate) fn held(view: &View) -> Option<Fingerprint> {
    view.target.held().map(|held| held.value)
}

fn old_lives(memory: &Memory) -> bool {
    matches!(memory.old, Some(Life::Sound | Life::Ending))
}

/// Whether the token with this value lives, and Rancher lets it in. Of a stranger's we know nothing.
fn works(world: &W, value: Fingerprint) -> bool {
    match new_name(value) {
        Some(name) => world.memory.let_in.contains(name),
        None => value != old() || old_lives(&world.memory),
    }
}
