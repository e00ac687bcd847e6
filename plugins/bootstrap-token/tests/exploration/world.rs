//! A small world of one Kubernetes, one target, a node that reads it, and whoever else may change something.
//!
//! What each move imitates is said beside it. A refusal in the middle leaves the run where it is, so here it counts as a wait;
//! what it asks of the operator is then a move of its own.

mod moves;

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::{Protocol, Run, RunId};
use kubectl_bootstrap_token::rotation::Timer;
use kubectl_bootstrap_token::rotation::view::{
    Answer, Held, Id, Known, Leg, Notes, Place, Side, Standing, Target, Token, View,
};
use kubectl_bootstrap_token::rotation::write::{Which, Write};
use model::{Environment, Help, Move, World};
use moves::Moves;

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Somebody deletes O or N.
    pub(crate) deletions: u8,
    /// Time passes for O or N: it is about to expire, expires, and the token cleaner deletes it.
    pub(crate) expiries: u8,
    /// Somebody extends what is about to expire.
    pub(crate) extensions: u8,
    /// Somebody puts something else into the target, puts O back, or deletes it.
    pub(crate) strangers: u8,
    /// Somebody changes O or N: another value, no value, no usage, no mark.
    pub(crate) tampers: u8,
    /// The signer loses an update.
    pub(crate) lost_signatures: u8,
    /// The signer is switched off.
    pub(crate) signer_offs: u8,
    /// The run is gone on with on another host than that of the file.
    pub(crate) hosts: u8,
    /// The host of the file is lost for good, and the operator says so.
    pub(crate) losses: u8,
    /// The process that knew a value which no Secret holds any more is killed.
    pub(crate) forgets: u8,
    /// The id that was drawn is taken.
    pub(crate) collisions: u8,
    /// A node reads the target, and needs what it read for a while.
    pub(crate) readers: u8,
    /// The command is run again with the login of one of the tokens, or with something of another cluster.
    pub(crate) wrong_runs: u8,
    /// Another writer writes O back: into the target, or its Secret once that is deleted.
    pub(crate) reapplies: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    left: Budget,
    /// What a node has read and not used yet.
    reader: Option<Fingerprint>,
    /// The signer has a reason to look at the tokens.
    event: bool,
    signer_off: bool,
    /// What is in the file while nobody on its host goes on.
    away: Option<Target>,
    /// The operator has said that the host of the file is lost: what is in it matters to nobody.
    given_up: bool,
    /// What the target holds is neither O nor N, by a stranger's hand.
    stranger: bool,
    /// The id that was drawn for N is somebody else's.
    theirs: bool,
    /// Somebody gave O another value: it is another token now.
    replaced: bool,
    /// The environment made O unfit for the way back.
    old_lost: bool,
    /// The environment deleted N, or took its mark: no other process can tell any more that it belongs to a run.
    new_lost: bool,
    /// The environment has interfered.
    disturbed: bool,
    /// It did while a write was under way.
    raced: bool,
    /// A token is about to expire that was not when the write under way was intended.
    ending_since_intent: bool,
    /// Something is broken, and not by us.
    hurt: bool,
    /// A creation arrived after the way back had begun.
    late_creation: bool,
    /// O was deleted by us.
    retired: bool,
    /// Another writer has written O back, and has not been quiet for a whole overlap since.
    noise: Noise,
    /// O had another value when a rotation began: all that is said here about O is about the former one.
    another: bool,
    /// What a write of ours broke.
    fault: Option<&'static str>,
}

/// How far the overlap has come since another writer has written O back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Noise {
    #[default]
    None,
    /// It has not begun anew.
    Loud,
    /// It has.
    Ebbing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Nothing,
    Secret,
    File,
}

pub(crate) struct Small<P> {
    pub(crate) to: To,
    pub(crate) budget: Budget,
    /// O and N have the signing usage, and the signer works.
    pub(crate) signing: bool,
    /// A token drawn by us is never accepted.
    pub(crate) never_accepted: bool,
    /// The deadline of the proof may pass at any time.
    pub(crate) late_proof: bool,
    /// There are several API servers, and they learn of a change one after the other.
    pub(crate) many_servers: bool,
    /// How many holders lose the lock with a write in hand, and how many rollbacks are asked for.
    pub(crate) others: (u8, u8),
    /// How often the journal is replaced by whoever may write Leases.
    pub(crate) forgeries: u8,
    /// The Secret with the id that a forged journal gives to N is somebody else's token.
    pub(crate) victim: bool,
    pub(crate) protocol: PhantomData<P>,
}

impl<P> Small<P> {
    pub(crate) fn new(to: To, budget: Budget) -> Self {
        Self {
            to,
            budget,
            signing: false,
            never_accepted: false,
            late_proof: false,
            many_servers: false,
            others: (0, 0),
            forgeries: 0,
            victim: false,
            protocol: PhantomData,
        }
    }
}

pub(crate) type W<P> = World<Small<P>>;

/// The protocol under exploration: the real one, or one with a mistake in it.
pub(crate) trait Like: Protocol<View = View, Notes = Notes, Write = Write, Timer = Timer> {}
impl<P: Protocol<View = View, Notes = Notes, Write = Write, Timer = Timer>> Like for P {}

// A digest costs more than a step.
static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));
static STRANGER: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("stranger"));
static CHANGED: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("changed"));

pub(crate) fn old() -> Fingerprint {
    *OLD
}

fn stranger() -> Fingerprint {
    *STRANGER
}

pub(crate) fn old_id() -> Id {
    Id("oldold".to_owned())
}

fn sound(value: Fingerprint) -> Token {
    Token {
        value: Some(value),
        standing: Standing::Sound,
        mark: None,
        record: None,
    }
}

/// What a target holds in which somebody else has put O.
pub(crate) fn holds_old() -> Target {
    let (id, value) = (Some(old_id()), old());
    Target::Holds {
        held: Held { id, value },
        leg: None,
        answer: Answer::Accepted,
        writer: None,
    }
}

pub(crate) fn start(to: To, signing: bool) -> View {
    let (at, host) = match to {
        To::Nothing => (None, None),
        To::Secret => (Some("secret:kube-system/join/token"), None),
        To::File => (
            Some("file:/etc/kubernetes/bootstrap-kubelet.conf"),
            Some("host-1".to_owned()),
        ),
    };
    View {
        obstacles: Vec::new(),
        id: old_id(),
        old: Side {
            token: Some(sound(old())),
            answer: Answer::Accepted,
            signed: signing,
            ..Side::default()
        },
        new: Side::default(),
        target: if to == To::Nothing {
            Target::Nothing
        } else {
            holds_old()
        },
        place: at.map(|at| Place {
            at: at.to_owned(),
            host,
        }),
        lost: false,
        login: None,
        another_cluster: None,
    }
}

/// What a write is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    Old(Option<Token>),
    New(Option<Token>),
    Target(Option<(Held, Option<Leg>)>),
}

impl<P: Like> Environment for Small<P> {
    type Protocol = P;
    type Memory = Memory;
    type Target = Condition;

    fn starts(&self) -> Vec<World<Self>> {
        let memory = Memory {
            left: self.budget,
            reader: (self.budget.readers > 0).then(old),
            event: false,
            signer_off: false,
            away: None,
            given_up: false,
            stranger: false,
            theirs: false,
            replaced: false,
            old_lost: false,
            new_lost: false,
            disturbed: false,
            raced: false,
            ending_since_intent: false,
            hurt: false,
            late_creation: false,
            retired: false,
            noise: Noise::None,
            another: false,
            fault: None,
        };
        let mut world: World<Self> = World::new(start(self.to, self.signing), memory)
            .with(self.others.0, self.others.1)
            .forgeries(self.forgeries);
        if self.victim {
            world.view.new.token = Some(sound(stranger()));
            world.view.new.answer = Answer::Accepted;
            world.memory.theirs = true;
        }
        self.settle(&mut world);
        vec![world]
    }

    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
        let mut moves = Moves {
            small: self,
            world,
            found: Vec::new(),
        };
        moves.all();
        moves.found
    }

    fn timer(&self, world: &World<Self>, timer: Timer) -> Option<Help> {
        let memory = &world.memory;
        match timer {
            Timer::Proof if self.never_accepted || memory.signer_off => Some(Help::Helps),
            Timer::Proof => self.late_proof.then_some(Help::Disturbs),
            // Who reads the target has used what he read when the overlap has passed since.
            Timer::Overlap => {
                let now = value_in(target(world));
                (memory.reader.is_none() || memory.reader == now).then_some(Help::Helps)
            }
            Timer::Touch if world.is_sending() => None,
            Timer::Touch => (!memory.event || memory.signer_off).then_some(Help::Helps),
        }
    }

    fn target(&self, view: &View, write: &Write) -> Option<Condition> {
        Some(match write {
            Write::Keep { .. } | Write::Leave { .. } => Condition::Nothing,
            // A creation may arrive late too: it is conditional on a free name.
            Write::Create { .. }
            | Write::Mend { .. }
            | Write::Clear { .. }
            | Write::Touch { .. }
            | Write::GuardToken { .. }
            | Write::Delete { which: Which::New, .. } => Condition::New(view.new.token.clone()),
            Write::Delete { which: Which::Old, .. } => Condition::Old(view.old.token.clone()),
            Write::Deliver { .. } | Write::GuardTarget { .. } => Condition::Target(match &view.target {
                Target::Holds { held, leg, .. } => Some((held.clone(), *leg)),
                _ => None,
            }),
        })
    }

    fn written(&self, world: &mut World<Self>, write: &Write) {
        // What was right when it was intended, and was made wrong by somebody else while it was under way: no write can be
        // conditional on two objects. A former holder's write may be under way for any time, until the run has ended; or
        // until a later one has, where nothing shows any more that there was another.
        let is_under_way = world.ended.is_none() || world.memory.new_lost;
        let excused = world.memory.raced || self.others.0 > 0 && world.memory.disturbed && is_under_way;
        let fault = fault(world, write).filter(|_| !excused);
        world.memory.fault = trespass(&world.memory, write).or(fault);
        world.memory.another |= world.run.as_ref().is_some_and(|run| run.notes.old.value != old());
        match write {
            Write::Create { .. } => {
                world.memory.theirs = false;
                // Who has read a token that is gone has been refused long since.
                world.memory.reader = world.memory.reader.filter(|read| Some(*read) != new_value(&world.view));
                let run = world.run.as_ref();
                let unknown = |run: &Run<P>| run.goal == Goal::Back && !run.notes.kept || run.notes.new.is_none();
                world.memory.late_creation = run.is_none_or(unknown);
                world.memory.event = true;
            }
            Write::Delete { which: Which::Old, .. } => {
                world.memory.event = true;
                world.memory.retired = true;
            }
            Write::Delete { which: Which::New, .. } => {
                world.memory.late_creation = false;
                world.memory.event = true;
            }
            Write::Mend { .. } | Write::Touch { .. } | Write::GuardToken { .. } => {
                world.memory.event = true;
            }
            _ => {}
        }
        let begins_anew = |run: &Run<P>| !run.timers.contains_key(&Timer::Overlap);
        if world.memory.noise == Noise::Loud && world.run.as_ref().is_some_and(begins_anew) {
            world.memory.noise = Noise::Ebbing;
        }
        self.settle(world);
        world.memory.raced = false;
        world.memory.ending_since_intent = false;
        world.memory.hurt = unhealthy(world).is_some() && (world.memory.hurt || excused);
    }

    fn timer_passed(&self, world: &mut World<Self>, timer: Timer) {
        if timer == Timer::Overlap && world.memory.noise == Noise::Ebbing {
            world.memory.noise = Noise::None;
        }
    }

    fn in_use(&self, view: &View, former: Option<&Notes>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let former = former.and_then(|notes| notes.new.as_ref());
        let held = match &view.target {
            Target::Holds { held, .. } => Some(held),
            _ => None,
        };
        let tokens = [&view.old.token, &view.new.token];
        let of_tokens = tokens.into_iter().flatten().filter_map(|token| token.value);
        let values = of_tokens
            .chain(held.map(|held| held.value))
            .chain(former.map(|new| new.value));
        let taken = view.new.token.iter().map(|_| "mark 1".to_owned());
        let ids = held.and_then(|held| held.id.clone()).map(|id| id.0);
        (
            values.collect(),
            taken.chain(ids).chain(former.map(|new| new.id.0.clone())).collect(),
        )
    }

    fn forged(&self, world: &World<Self>) -> Vec<Run<P>> {
        let honest = world
            .run
            .as_ref()
            .map_or_else(|| journal_of(&world.view), |run| run.notes.clone());
        let created = world.view.new.token.as_ref().is_some_and(|token| token.mark.is_some());
        let mut all = Vec::new();
        for goal in [Goal::Forward, Goal::Back] {
            for phase in [Phase::Make, Phase::Retire] {
                for lie in LIES {
                    let mut notes = honest.clone();
                    lie(&mut notes, &world.view);
                    // Whoever takes N's id out of the journal hides N: it stays until it expires.
                    if !created || notes.new == honest.new {
                        let (id, timers) = (RunId::placeholder(), [].into());
                        let put_back = 0;
                        all.push(Run {
                            id,
                            goal,
                            phase,
                            notes,
                            timers,
                            put_back,
                        });
                    }
                }
            }
        }
        all
    }

    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        if world.memory.another || world.run.as_ref().is_some_and(|run| run.notes.old.value != old()) {
            return None;
        }
        let why = world.memory.fault.map(ToOwned::to_owned);
        let why = why.or_else(|| unhealthy(world).filter(|_| !world.memory.hurt).map(ToOwned::to_owned));
        let why = why.or_else(|| ended_wrong(world));
        why.map(|why| format!("{why}: {:#?}", world.view))
    }
}

/// What a forged journal claims.
type Lie = fn(&mut Notes, &View);

const LIES: [Lie; 7] = [
    |_, _| {},
    |notes, _| (notes.new, notes.delivered) = (None, false),
    |notes, _| notes.delivered = false,
    |notes, _| notes.kept = true,
    |notes, _| (notes.left, notes.place) = (notes.place.take(), None),
    // What the target holds is O.
    |notes, view| {
        if let Target::Holds { held, .. } = &view.target {
            notes.old.value = held.value;
        }
    },
    // Somebody else's token is N.
    |notes, view| notes.new = journal_of(view).new,
];

/// A journal by what there is.
fn journal_of(view: &View) -> Notes {
    Notes {
        old: Known {
            id: old_id(),
            value: old(),
        },
        new: new_value(view).map(|value| Known {
            id: Id("mark 1".to_owned()),
            value,
        }),
        place: view.place.clone(),
        left: None,
        delivered: true,
        placed: None,
        kept: false,
    }
}

impl<P: Like> Small<P> {
    /// What follows from the rest of the view.
    fn settle(&self, world: &mut W<P>) {
        let view = &mut world.view;
        for side in [&mut view.old, &mut view.new] {
            side.signed &= side.token.is_some();
        }
        let sides = [&view.old, &view.new];
        let answer_to = |value| {
            let side = sides.iter().find(|side| side.holds(value));
            side.map_or(Answer::Refused, |side| side.answer)
        };
        if let Target::Holds { held, leg, answer, .. } = &mut view.target {
            *answer = answer_to(held.value);
            if self.to == To::File {
                *leg = None;
            }
        }
    }
}

/// What is really in the target, for those who can read it.
fn target<P: Like>(world: &W<P>) -> &Target {
    match &world.memory.away {
        Some(_) if world.memory.given_up => &Target::Nothing,
        Some(away) => away,
        None => &world.view.target,
    }
}

fn value_in(target: &Target) -> Option<Fingerprint> {
    match target {
        Target::Holds { held, .. } => Some(held.value),
        _ => None,
    }
}

fn lives(side: &Side, value: Fingerprint) -> bool {
    let lives = |token: &Token| token.value == Some(value) && token.standing != Standing::Dead;
    value != stranger() && side.token.as_ref().is_some_and(lives)
}

fn old_lives(view: &View) -> bool {
    lives(&view.old, old())
}

fn new_value(view: &View) -> Option<Fingerprint> {
    view.new.token.as_ref().and_then(|token| token.value)
}

fn new_lives(view: &View) -> bool {
    new_value(view).is_some_and(|value| lives(&view.new, value))
}

/// Whether a Secret holds this value, and every API server accepts it.
fn works(view: &View, value: Fingerprint) -> bool {
    let works = |side: &Side| lives(side, value) && side.answer == Answer::Accepted;
    works(&view.old) || works(&view.new)
}

fn unhealthy<P: Like>(world: &W<P>) -> Option<&'static str> {
    let view = &world.view;
    if !works(view, old()) && !new_value(view).is_some_and(|value| works(view, value)) {
        return Some("neither token works");
    }
    let named = value_in(target(world)).filter(|value| *value != stranger());
    if named.is_some_and(|value| !works(view, value)) {
        return Some("the target names a token that does not work");
    }
    let reader = world.memory.reader;
    (reader.is_some_and(|value| !works(view, value))).then_some("a node has read a token that does not work any more")
}

/// What no write of ours must ever have done, since each is conditional on what it changes.
fn trespass(memory: &Memory, write: &Write) -> Option<&'static str> {
    match write {
        Write::Deliver { .. } if memory.stranger => Some("a stranger's value was overwritten"),
        Write::Create { id: Some(_), .. }
        | Write::Mend { .. }
        | Write::Clear { .. }
        | Write::Touch { .. }
        | Write::GuardToken { .. }
        | Write::Delete { which: Which::New, .. }
            if memory.theirs =>
        {
            Some("somebody else's Secret was written")
        }
        Write::Delete { which: Which::Old, .. } if memory.replaced => Some("somebody else's Secret was written"),
        _ => None,
    }
}

/// What a write of ours must not have done by the look that it was decided on.
fn fault<P: Like>(world: &W<P>, write: &Write) -> Option<&'static str> {
    let view = &world.view;
    if view.another_cluster.is_some() {
        return Some("something was written that may belong to another cluster");
    }
    match write {
        Write::Delete { id, .. } if view.login.as_ref() == Some(id) => Some("the command revoked its own login"),
        Write::Deliver { which: Which::New, .. } => {
            let forward = world.run.as_ref().is_some_and(|run| run.goal == Goal::Forward);
            let early = view.old.signed && old_lives(view) && !view.new.signed;
            (forward && early && !world.memory.hurt).then_some("delivered before cluster-info was signed")
        }
        Write::Delete { which: Which::Old, .. } if world.memory.noise != Noise::None && !world.memory.retired => {
            Some("O was deleted while another writer wrote it back")
        }
        Write::Delete { .. } if !old_lives(view) && !new_lives(view) => Some("the last token that lived was deleted"),
        Write::Leave { .. } if !world.memory.given_up => Some("a target was left behind that nobody had given up"),
        _ => None,
    }
}

fn ended_wrong<P: Like>(world: &W<P>) -> Option<String> {
    let (view, memory) = (&world.view, &world.memory);
    // A former holder's write has arrived, and nothing shows any more that there was a rotation before.
    if memory.hurt && memory.new_lost {
        return None;
    }
    let names = |value| memory.stranger || value_in(&view.target).is_none_or(|named| Some(named) == value);
    let new_works = new_value(view).is_some_and(|value| works(view, value));
    let refused = |side: &Side| matches!(side.answer, Answer::Refused | Answer::Unasked);
    let right = match world.ended? {
        Goal::Forward => {
            let quiet = memory.noise == Noise::None;
            quiet && !view.old.holds(old()) && refused(&view.old) && new_works && names(new_value(view))
        }
        Goal::Back => {
            let new = view.new.token.as_ref();
            // Without its mark nobody but the process that created it knows N.
            let unknown = new.is_some_and(|new| new.mark.is_none());
            let new_is_gone =
                new.is_none() && (refused(&view.new) || memory.new_lost) || unknown || memory.late_creation;
            // A late delivery of an N that nobody knows any more, and that works.
            let holds_back = names(Some(old())) || memory.new_lost && new_works && names(new_value(view));
            let back = new_is_gone && holds_back && (works(view, old()) || memory.old_lost || memory.hurt);
            let kept = (memory.old_lost || !view.old.is_sound(old())) && new_works && names(new_value(view));
            back || kept
        }
    };
    (!right).then(|| format!("ended wrong ({:?}, {memory:?})", world.ended))
}
