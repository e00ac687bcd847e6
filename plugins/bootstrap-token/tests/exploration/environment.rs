//! A model of a cluster, a delivery, a node that reads it, and other operators and writers.
//!
//! After a refusal the run stays as it is. What the refusal requires of the operator is a separate move.

mod moves;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Timer};
use engine::run::RunId;
use kubectl_bootstrap_token::rotation::BootstrapToken;
use kubectl_bootstrap_token::rotation::observed::{Content, Delivery, Id, Observed, SecretState, TokenState};
use kubectl_bootstrap_token::rotation::record::{Place, Record, TokenRef};
use kubectl_bootstrap_token::rotation::step::{Step, Which};
use model::{Environment, Help, Move, Refusal};

use crate::mutants::Mutant;

pub(crate) type Run = engine::run::Run<BootstrapToken>;
pub(crate) type World = model::World<Model>;

/// How many moves of each disturbing kind the environment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// O or N is deleted.
    pub(crate) deletions: u8,
    /// Time passes for O or N: it is about to expire, expires, and the token cleaner deletes it.
    pub(crate) expiries: u8,
    /// A token that is about to expire is extended.
    pub(crate) extensions: u8,
    /// Another writer puts something else into the delivery, puts O back, or deletes it.
    pub(crate) foreign_writes: u8,
    /// O or N is changed: another value, no value, no usage, no mark.
    pub(crate) tampers: u8,
    /// The signer loses an update.
    pub(crate) lost_signatures: u8,
    /// The signer is switched off.
    pub(crate) signer_offs: u8,
    /// The run is resumed on another host than that of the file.
    pub(crate) hosts: u8,
    /// The host of the file is lost for good, and the operator passes `--force=target`.
    pub(crate) losses: u8,
    /// The only process that knows the value of a revoked token is killed.
    pub(crate) forgets: u8,
    /// The id that was drawn is taken.
    pub(crate) collisions: u8,
    /// A node reads the delivery, and needs the token for a while.
    pub(crate) readers: u8,
    /// The command is run again with the login of one of the tokens, or with something of another cluster.
    pub(crate) wrong_runs: u8,
    /// Another writer writes O back: into the delivery, or its deleted Secret.
    pub(crate) reapplies: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Memory {
    left: Budget,
    /// The token that a node has read, until it has joined.
    reader: Option<Fingerprint>,
    /// A change of a token triggers the signer.
    event: bool,
    signer_off: bool,
    /// The content of the file while the run is on another host.
    away: Option<Delivery>,
    /// The operator has passed `--force=target`: the content of the file does not matter.
    given_up: bool,
    /// Another writer has changed the delivery, which holds neither O nor N.
    foreign_content: bool,
    /// The id that was drawn for N belongs to another token.
    foreign_token: bool,
    /// O has another value, so it is another token.
    replaced: bool,
    /// The environment made O unfit for a rollback.
    old_lost: bool,
    /// The environment deleted N, or removed its mark: other processes cannot recognize it.
    new_lost: bool,
    /// The environment has interfered.
    disturbed: bool,
    /// It has interfered while a step was in flight.
    raced: bool,
    /// A token is about to expire that was not when the step in flight was intended.
    expiring_since_intent: bool,
    /// The environment has broken something.
    hurt: bool,
    /// A creation arrived after the rollback had begun.
    late_creation: bool,
    /// The run deleted O.
    retired: bool,
    /// An API server that is not probed has this revoked token in its cache.
    remembered: Option<Which>,
    /// Another writer has written O back, and there was no whole overlap since.
    noise: Noise,
    /// O had another value when a rotation began. The other fields are about the former value.
    another: bool,
    /// What a step of the run broke.
    fault: Option<&'static str>,
}

/// The progress of the overlap since another writer has written O back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Noise {
    #[default]
    None,
    /// It has not started again.
    Loud,
    /// It has started again.
    Ebbing,
}

/// Where the rotation delivers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum To {
    #[default]
    Nothing,
    Secret,
    File,
}

/// The environment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Model {
    pub(crate) to: To,
    pub(crate) budget: Budget,
    /// O and N have the signing usage, and the signer works.
    pub(crate) signing: bool,
    /// The new token is never accepted.
    pub(crate) never_accepted: bool,
    /// The deadline of the proof may pass at any time.
    pub(crate) late_proof: bool,
    /// There are several API servers, which learn of changes one after the other.
    pub(crate) many_servers: bool,
    /// There is one that is not probed, and has a token in its cache for a while.
    pub(crate) unasked_server: bool,
    /// How many holders lose the lock with a step in flight, and how many rollbacks are requested.
    pub(crate) others: (u8, u8),
    /// How often an attacker replaces the journal.
    pub(crate) forgeries: u8,
    /// The Secret with the id that a forged journal gives to N is another token.
    pub(crate) victim: bool,
    /// The mutant instead of the real rotation.
    pub(crate) mutant: Option<Mutant>,
}

// A digest is more expensive than a step.
static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));
static FOREIGN: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("foreign"));
static CHANGED: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("changed"));

pub(crate) fn old() -> TokenRef {
    TokenRef {
        id: Id("oldold".to_owned()),
        value: *OLD,
    }
}

/// The first id that is drawn.
fn first_id() -> Id {
    Id("mark 1".to_owned())
}

pub(crate) fn secret(value: Fingerprint) -> SecretState {
    SecretState {
        value: Some(value),
        validity: Validity::Valid,
        mark: None,
        origin: None,
    }
}

/// A delivery with this token, written by another writer.
pub(crate) fn holds(token: TokenRef, acceptance: Acceptance) -> Delivery {
    Delivery::Holds {
        content: Content {
            id: Some(token.id),
            value: token.value,
        },
        mark: None,
        acceptance,
        writer: None,
    }
}

/// A delivery with neither O nor N.
pub(crate) fn holds_neither() -> Delivery {
    Delivery::Holds {
        content: Content {
            id: None,
            value: *FOREIGN,
        },
        mark: None,
        acceptance: Acceptance::Rejected,
        writer: None,
    }
}

pub(crate) fn start(to: To, signing: bool) -> Observed {
    let (at, host) = match to {
        To::Nothing => (None, None),
        To::Secret => (Some("secret:kube-system/join/token"), None),
        To::File => (
            Some("file:/etc/kubernetes/bootstrap-kubelet.conf"),
            Some("host-1".to_owned()),
        ),
    };
    Observed {
        blockers: Vec::new(),
        id: old().id,
        old: TokenState {
            secret: Some(secret(*OLD)),
            acceptance: Acceptance::Accepted,
            signed: signing,
            ..TokenState::default()
        },
        new: TokenState::default(),
        delivery: if to == To::Nothing {
            Delivery::None
        } else {
            holds(old(), Acceptance::Accepted)
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

/// What a step is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    Secret(Which, Option<SecretState>),
    Delivery(Option<(Content, Option<Direction>)>),
}

impl Environment for Model {
    type Rotation = BootstrapToken;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World> {
        let memory = Memory {
            left: self.budget,
            reader: (self.budget.readers > 0).then_some(*OLD),
            ..Memory::default()
        };
        let mut world = World::new(start(self.to, self.signing), memory)
            .with(self.others.0, self.others.1)
            .forgeries(self.forgeries);
        if self.victim {
            world.seen.new.secret = Some(secret(*FOREIGN));
            world.seen.new.acceptance = Acceptance::Accepted;
            world.memory.foreign_token = true;
        }
        self.settle(&mut world);
        vec![world]
    }

    fn moves(&self, world: &World) -> Vec<Move<Self>> {
        moves::of(self, world)
    }

    fn timer(&self, world: &World, timer: Timer) -> Option<Help> {
        let memory = &world.memory;
        match timer {
            Timer::Proof if self.never_accepted || memory.signer_off => Some(Help::Helps),
            Timer::Proof => self.late_proof.then_some(Help::Disturbs),
            // A node has joined with what it read when the overlap has passed.
            Timer::Quiet => {
                (memory.reader.is_none() || memory.reader == value_in(delivery(world))).then_some(Help::Helps)
            }
            Timer::Retry if world.is_sending() => None,
            Timer::Retry => (!memory.event || memory.signer_off).then_some(Help::Helps),
            Timer::Cache => memory.remembered.is_none().then_some(Help::Helps),
            Timer::InFlight => None,
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Condition> {
        Some(match step {
            Step::Abandon { .. } => Condition::Nothing,
            // A creation can also arrive late. It is conditional on a free name.
            Step::Create { .. }
            | Step::Repair { .. }
            | Step::DeleteEmpty { .. }
            | Step::TriggerSigner { .. }
            | Step::FenceToken { .. } => Condition::Secret(Which::New, seen.new.secret.clone()),
            Step::Revoke { which, .. } => Condition::Secret(*which, seen.token(*which).secret.clone()),
            Step::Deliver { .. } | Step::FenceDelivery { .. } => Condition::Delivery(match &seen.delivery {
                Delivery::Holds { content, mark, .. } => Some((content.clone(), *mark)),
                _ => None,
            }),
        })
    }

    fn applied(&self, world: &mut World, step: &Step) {
        // A step that became wrong while it was in flight is excused: no step can be conditional on two objects. The step of a
        // former holder may be in flight until the run has ended, or, if the objects no longer show that run, until a later one has.
        let in_flight = world.ended.is_none() || world.memory.new_lost;
        let excused = world.memory.raced || self.others.0 > 0 && world.memory.disturbed && in_flight;
        let fault = fault(world, step).filter(|_| !excused);
        world.memory.fault = trespass(&world.memory, step).or(fault);
        let run = world.run.as_ref();
        world.memory.another |= run.is_some_and(|run| run.record.old.value != *OLD);
        world.memory.event |= !matches!(
            step,
            Step::Abandon { .. } | Step::Deliver { .. } | Step::FenceDelivery { .. } | Step::DeleteEmpty { .. }
        );
        match step {
            Step::Create { .. } => {
                let unknown = |run: &Run| run.direction.is_rollback() || run.record.new.is_none();
                world.memory.late_creation = run.is_none_or(unknown);
                world.memory.foreign_token = false;
                // A node that had read a deleted token was rejected before.
                let new = world.seen.new.value();
                world.memory.reader = world.memory.reader.filter(|read| Some(*read) != new);
            }
            Step::Revoke { which, .. } => {
                world.memory.retired |= *which == Which::Old;
                world.memory.late_creation &= *which == Which::Old;
                world.memory.remembered = self.unasked_server.then_some(*which);
            }
            _ => {}
        }
        let begins_anew = |run: &Run| !run.timers.contains_key(&Timer::Quiet);
        if world.memory.noise == Noise::Loud && world.run.as_ref().is_some_and(begins_anew) {
            world.memory.noise = Noise::Ebbing;
        }
        self.settle(world);
        world.memory.raced = false;
        world.memory.expiring_since_intent = false;
        world.memory.hurt = unhealthy(world).is_some() && (world.memory.hurt || excused);
    }

    fn timer_passed(&self, world: &mut World, timer: Timer) {
        if timer == Timer::Quiet && world.memory.noise == Noise::Ebbing {
            world.memory.noise = Noise::None;
        }
    }

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let former = former.and_then(|record| record.new.as_ref());
        let content = match &seen.delivery {
            Delivery::Holds { content, .. } => Some(content),
            _ => None,
        };
        let of_secrets = [seen.old.value(), seen.new.value()].into_iter().flatten();
        let of_others = content.map(|it| it.value).into_iter().chain(former.map(|it| it.value));
        let taken = seen.new.secret.iter().map(|_| first_id());
        let ids = content
            .and_then(|it| it.id.clone())
            .into_iter()
            .chain(former.map(|it| it.id.clone()));
        (
            of_secrets.chain(of_others).collect(),
            taken.chain(ids).map(|id| id.0).collect(),
        )
    }

    fn forged(&self, world: &World) -> Vec<Run> {
        let run = world.run.as_ref();
        let honest = run.map_or_else(|| journal_of(&world.seen), |run| run.record.clone());
        let created = world
            .seen
            .new
            .secret
            .as_ref()
            .is_some_and(|secret| secret.mark.is_some());
        let mut all = Vec::new();
        for direction in Direction::ALL {
            for phase in [Phase::Make, Phase::Retire] {
                for forge in FORGERIES {
                    let mut record = honest.clone();
                    forge(&mut record, &world.seen);
                    // An attacker who removes N's id from the journal hides N, which stays until it expires.
                    if !created || record.new == honest.new {
                        let run = Run::begin(RunId::placeholder(), record);
                        all.push(Run {
                            direction,
                            phase,
                            ..run
                        });
                    }
                }
            }
        }
        all
    }

    fn refused(&self, world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
        let (seen, memory) = (&world.seen, &world.memory);
        let wrong_run = seen.login.is_some() || seen.another_cluster.is_some();
        let delivery = memory.foreign_content || memory.new_lost || memory.hurt || world.was_forged();
        if wrong_run || delivery || memory.away.is_some() {
            return Ok(Refusal::Waits);
        }
        Err(format!("refused without a cause: {blockers:?}"))
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        let another = |run: &Run| run.record.old.value != *OLD;
        if world.memory.another || world.run.as_ref().is_some_and(another) {
            return None;
        }
        let unhealthy = || unhealthy(world).filter(|_| !world.memory.hurt);
        let why = world.memory.fault.or_else(unhealthy).map(ToOwned::to_owned);
        let why = why.or_else(|| ended_wrong(world))?;
        Some(format!("{why}: {:#?}", world.seen))
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<BootstrapToken> {
        Mutant::decide(self.mutant, seen, run)
    }

    fn recall(&self, seen: &Observed, claimed: Run) -> Option<Run> {
        Mutant::recall(self.mutant, seen, claimed)
    }
}

/// What a forged journal claims.
type Forgery = fn(&mut Record, &Observed);

const FORGERIES: [Forgery; 6] = [
    |_, _| {},
    |record, _| (record.new, record.delivered) = (None, false),
    |record, _| record.delivered = false,
    |record, _| (record.abandoned, record.place) = (record.place.take(), None),
    // The content of the delivery is O.
    |record, seen| {
        if let Delivery::Holds { content, .. } = &seen.delivery {
            record.old.value = content.value;
        }
    },
    // Another token is N.
    |record, seen| record.new = journal_of(seen).new,
];

/// A journal from the observed state.
fn journal_of(seen: &Observed) -> Record {
    Record {
        old: old(),
        new: seen.new.value().map(|value| TokenRef { id: first_id(), value }),
        place: seen.place.clone(),
        abandoned: None,
        delivered: true,
        last_delivered: None,
    }
}

impl Model {
    /// Derived observations.
    fn settle(&self, world: &mut World) {
        let seen = &mut world.seen;
        for token in [&mut seen.old, &mut seen.new] {
            token.signed &= token.secret.is_some();
        }
        let tokens = [&seen.old, &seen.new];
        let of = |value| tokens.into_iter().find(|token| token.holds(value));
        if let Delivery::Holds {
            content,
            mark,
            acceptance,
            ..
        } = &mut seen.delivery
        {
            *acceptance = of(content.value).map_or(Acceptance::Rejected, |token| token.acceptance.clone());
            if self.to == To::File {
                *mark = None;
            }
        }
    }
}

/// The real content of the delivery, also on another host.
fn delivery(world: &World) -> &Delivery {
    match &world.memory.away {
        Some(_) if world.memory.given_up => &Delivery::None,
        Some(away) => away,
        None => &world.seen.delivery,
    }
}

fn value_in(delivery: &Delivery) -> Option<Fingerprint> {
    match delivery {
        Delivery::Holds { content, .. } => Some(content.value),
        _ => None,
    }
}

fn holds_valid(token: &TokenState, value: Fingerprint) -> bool {
    value != *FOREIGN && token.works(value)
}

fn old_is_valid(seen: &Observed) -> bool {
    holds_valid(&seen.old, *OLD)
}

fn new_is_valid(seen: &Observed) -> bool {
    seen.new.value().is_some_and(|value| holds_valid(&seen.new, value))
}

/// Whether a Secret holds this value, and every API server accepts it.
fn works(seen: &Observed, value: Fingerprint) -> bool {
    let works = |token: &TokenState| holds_valid(token, value) && token.acceptance.is_accepted();
    works(&seen.old) || works(&seen.new)
}

fn unhealthy(world: &World) -> Option<&'static str> {
    let seen = &world.seen;
    let fails = |value| !works(seen, value);
    if fails(*OLD) && seen.new.value().is_none_or(fails) {
        return Some("neither token works");
    }
    let named = value_in(delivery(world)).filter(|value| *value != *FOREIGN);
    if named.is_some_and(fails) {
        return Some("the delivery names a token that does not work");
    }
    (world.memory.reader.is_some_and(fails)).then_some("a node has read a token that no longer works")
}

/// What no step of the run may ever do, since each is conditional on what it changes.
fn trespass(memory: &Memory, step: &Step) -> Option<&'static str> {
    match step {
        Step::Deliver { .. } if memory.foreign_content => Some("a foreign value was overwritten"),
        Step::Create { id: Some(_), .. }
        | Step::Repair { .. }
        | Step::DeleteEmpty { .. }
        | Step::TriggerSigner { .. }
        | Step::FenceToken { .. }
        | Step::Revoke { which: Which::New, .. }
            if memory.foreign_token =>
        {
            Some("a foreign Secret was written")
        }
        Step::Revoke { which: Which::Old, .. } if memory.replaced => Some("a foreign Secret was written"),
        _ => None,
    }
}

/// What no step of the run may do by the observation that it was decided on.
fn fault(world: &World, step: &Step) -> Option<&'static str> {
    let (seen, memory) = (&world.seen, &world.memory);
    if seen.another_cluster.is_some() {
        return Some("something was written that may belong to another cluster");
    }
    match step {
        Step::Revoke { id, .. } if seen.login.as_ref() == Some(id) => Some("the command revoked its own login"),
        Step::Deliver { which: Which::New, .. } => {
            let forward = world
                .run
                .as_ref()
                .is_some_and(|run| run.direction == Direction::Forward);
            let early = seen.old.signed && old_is_valid(seen) && !seen.new.signed;
            (forward && early && !memory.hurt).then_some("delivered before cluster-info was signed")
        }
        Step::Revoke { which: Which::Old, .. } if memory.noise != Noise::None && !memory.retired => {
            Some("O was deleted while another writer wrote it back")
        }
        Step::Revoke { .. } if !old_is_valid(seen) && !new_is_valid(seen) => Some("the last valid token was deleted"),
        Step::Abandon { .. } if !memory.given_up => Some("a delivery was abandoned without --force=target"),
        _ => None,
    }
}

fn ended_wrong(world: &World) -> Option<String> {
    let (seen, memory) = (&world.seen, &world.memory);
    // The step of a former holder has arrived, and the objects no longer show the earlier rotation.
    if memory.hurt && memory.new_lost {
        return None;
    }
    let names = |value| memory.foreign_content || value_in(&seen.delivery).is_none_or(|named| Some(named) == value);
    let ends_on_new = seen.new.value().is_some_and(|value| works(seen, value)) && names(seen.new.value());
    let on_new = (memory.old_lost || !seen.old.is_valid(*OLD)) && ends_on_new;
    let rejected = |which| !seen.token(which).acceptance.may_be_accepted() && memory.remembered != Some(which);
    let right = match world.ended? {
        Direction::Forward => {
            memory.noise == Noise::None && !seen.old.holds(*OLD) && rejected(Which::Old) && ends_on_new
        }
        Direction::Rollback => {
            let new = seen.new.secret.as_ref();
            // Without its mark, only the process that created N knows it.
            let unknown = new.is_some_and(|new| new.mark.is_none());
            let new_is_gone =
                new.is_none() && (rejected(Which::New) || memory.new_lost) || unknown || memory.late_creation;
            // A late delivery of a working N that no process knows.
            let names_old = names(Some(*OLD)) || memory.new_lost && ends_on_new;
            let restored = new_is_gone && names_old && (works(seen, *OLD) || memory.old_lost || memory.hurt);
            restored || unknown && on_new
        }
        Direction::RollForward => on_new,
    };
    (!right).then(|| format!("ended wrong ({:?}, {memory:?})", world.ended))
}
