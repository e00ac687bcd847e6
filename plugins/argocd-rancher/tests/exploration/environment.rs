//! The model of one Argo CD, one cluster Secret, one Rancher, and whatever else may change something.
//!
//! Each move says what it imitates. A refusal in mid-run leaves the run as it is; what it asks for is a move of an operator.

mod moves;
mod safety;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use client::secret::Fingerprint;
use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Rotation as _, Timer};
use engine::run::RunId;
use kubectl_argocd_rancher::rotation::ArgocdRancher;
use kubectl_argocd_rancher::rotation::observed::{
    Backup, ClusterSync, ConfigWriter, Issued, Name, Observed, SecretState, TokenRef,
};
use kubectl_argocd_rancher::rotation::record::Record;
use kubectl_argocd_rancher::rotation::step::{Step, Which};
use model::{Environment, Help, Move, Refusal};
use moves::Moves;

use crate::mutants::Mutant;

/// A disturbance. A model has a limited number of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Disturbance {
    /// Argo CD begins to write what it has read over the Secret.
    Invalidation,
    /// Argo CD begins a sync, which keeps the token that it began with.
    Sync,
    /// A sync that Argo CD has begun with its stale copy ends later.
    LateSync,
    /// A sync of Argo CD's fails.
    FailedSync,
    /// The cluster gets its first Application.
    Application,
    /// A third party deletes or disables O or N in Rancher.
    Revocation,
    /// Time passes for O or N: it is about to expire, expires, and Rancher purges it.
    Expiry,
    /// A third party puts something else into the cluster Secret, puts O back, or deletes it.
    ThirdParty,
    /// Another writer applies the state at the start again.
    Reapply,
    /// A third party puts O into another cluster Secret too.
    Sharing,
    /// Another client than Argo CD calls with N.
    Call,
    /// A third party changes or deletes the backup Secret.
    Tampering,
    /// The process that knew a value which is stored nowhere is killed.
    Loss,
    /// The run is resumed as another user.
    OtherUser,
    /// The run is resumed at another Rancher.
    OtherRancher,
    /// The agent is offline.
    Outage,
    /// Rancher rejects a token that it accepted.
    Ban,
}

/// What the components of Argo CD have of the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArgoCd {
    /// The token that it read last.
    copy: Option<Fingerprint>,
    /// The token that it is about to write over the one that is there.
    writing: Option<Fingerprint>,
    /// The token of the sync that is running.
    sync: Option<Fingerprint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// The disturbances to come.
    left: Vec<Disturbance>,
    argo: ArgoCd,
    /// O as it really is.
    old: Option<Validity>,
    /// Whether Rancher's servers accept O.
    old_accepted: bool,
    /// The new tokens that they accept.
    accepted: BTreeSet<Name>,
    /// Every name that Rancher has drawn: none of them comes again.
    drawn: BTreeSet<Name>,
    /// The new tokens that are listed now.
    listed: BTreeSet<Name>,
    /// Rancher has not recorded the last call of ours with N yet.
    to_record: bool,
    /// The N that was called with.
    called_with: Option<Fingerprint>,
    offline: bool,
    /// A third party has put a token into the Secret that is none of ours.
    foreign_token: bool,
    /// The environment has made a rollback to O impossible.
    old_lost: bool,
    /// The environment has interfered.
    disturbed: bool,
    /// It did while a step was in flight.
    raced: bool,
    /// A token is about to expire that was not when the step in flight was intended.
    expiring_since_intent: bool,
    /// Something is broken, and not by us.
    hurt: bool,
    /// A create arrived after the end.
    late: bool,
    /// What the Secret held before the step that has just arrived.
    was: Option<Fingerprint>,
    /// What a step of ours broke.
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) disturbances: &'static [Disturbance],
    /// Argo CD calls the cluster.
    pub(crate) watched: bool,
    /// O belongs to another user, and is to stay.
    pub(crate) foreign: bool,
    /// O has expired before the rotation began.
    pub(crate) expired: bool,
    /// A new token is never accepted.
    pub(crate) never_accepted: bool,
    /// The deadline of the proof may pass at any time.
    pub(crate) late_proof: bool,
    /// There are several servers of Rancher, and they learn of a change late.
    pub(crate) many_servers: bool,
    /// Rancher does not record the last use (before 2.9).
    pub(crate) no_last_use: bool,
    /// Argo CD may be down for longer than the grace time.
    pub(crate) argo_down: bool,
    /// What a former holder was about to create may arrive late too.
    pub(crate) late_creates: bool,
    /// How many holders lose the lock with a step in hand, and how many rollbacks are asked for.
    pub(crate) others: (u8, u8),
    /// How many journals are forged.
    pub(crate) forgeries: u8,
    /// The mistake that is made.
    pub(crate) mutant: Mutant,
}

impl Model {
    pub(crate) fn with(disturbances: &'static [Disturbance]) -> Self {
        Self {
            disturbances,
            watched: true,
            foreign: false,
            expired: false,
            never_accepted: false,
            late_proof: false,
            many_servers: false,
            no_last_use: false,
            argo_down: false,
            late_creates: false,
            others: (0, 0),
            forgeries: 0,
            mutant: Mutant::None,
        }
    }
}

pub(crate) type World = model::World<Model>;
pub(crate) type Run = engine::run::Run<ArgocdRancher>;

// A digest costs more than a step.
static OLD: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("old"));
static FOREIGN: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of("foreign"));
/// The tokens that a plan issues, in order.
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

pub(crate) fn foreign() -> Fingerprint {
    *FOREIGN
}

/// The token with this value.
pub(crate) fn token(value: Fingerprint) -> TokenRef {
    let name = if value == old() {
        "token-old".to_owned()
    } else if let Some(name) = new_name(value) {
        name.0.clone()
    } else {
        "token-other".to_owned()
    };
    let name = Some(Name(name));
    TokenRef { name, value }
}

fn new_name(value: Fingerprint) -> Option<&'static Name> {
    NEW.iter().find(|new| new.1 == value).map(|new| &new.0)
}

fn value_of(name: &Name) -> Option<Fingerprint> {
    NEW.iter().find(|new| new.0 == *name).map(|new| new.1)
}

pub(crate) fn start(watched: bool) -> Observed {
    Observed {
        blockers: Vec::new(),
        user: US.to_owned(),
        same_rancher: true,
        secret: SecretState::Holds {
            held: Some(token(old())),
            mark: None,
            writer: ConfigWriter::Ours,
        },
        backup: None,
        old: Some(Validity::Valid),
        old_accepted: Acceptance::Accepted,
        old_needed_by: None,
        issued: [].into(),
        new_accepted: Acceptance::NotAsked,
        watched,
        use_forced: false,
        sync: ClusterSync::Before,
        own_calls_recorded: true,
        keep_old: false,
        discard: false,
    }
}

/// The version of the cluster Secret, by which the API server rejects a late write. The stages see no versions, and look at
/// blockers before a run only: so the model counts in them.
fn version(seen: &Observed) -> usize {
    seen.blockers.len()
}

/// Every write of the Secret gives it a new version.
fn changed(world: &mut World) {
    world.seen.blockers.push(Blocker::new("", ""));
}

/// What a user sees: of Rancher's tokens only their own.
fn visible(seen: &Observed) -> Observed {
    let mut seen = seen.clone();
    seen.blockers.clear();
    if seen.user != US || !seen.same_rancher {
        seen.issued.clear();
        seen.old = None;
    }
    seen
}

/// A rotation of anything else is not the one that is explored.
fn is_another_start(seen: &Observed) -> bool {
    held(seen) != Some(old()) || seen.user != US || !seen.same_rancher
}

/// What a step is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    /// The version of the cluster Secret.
    Secret(usize),
    Backup(Option<Backup>),
}

impl Environment for Model {
    type Rotation = ArgocdRancher;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World> {
        let argo = ArgoCd {
            copy: Some(old()),
            writing: None,
            sync: None,
        };
        let memory = Memory {
            left: self.disturbances.to_vec(),
            argo,
            old: Some(if self.expired {
                Validity::Invalid
            } else {
                Validity::Valid
            }),
            old_accepted: !self.expired,
            accepted: [].into(),
            drawn: [].into(),
            listed: [].into(),
            to_record: false,
            called_with: None,
            offline: false,
            foreign_token: false,
            old_lost: self.expired,
            disturbed: false,
            raced: false,
            expiring_since_intent: false,
            hurt: self.expired,
            late: false,
            was: Some(old()),
            fault: None,
        };
        let mut seen = start(self.watched);
        seen.keep_old = self.foreign;
        let world = World::new(seen, memory).with(self.others.0, self.others.1);
        let mut world = world.forgeries(self.forgeries);
        self.update(&mut world);
        vec![world]
    }

    fn moves(&self, world: &World) -> Vec<Move<Self>> {
        Moves::of(self, world)
    }

    fn timer(&self, world: &World, timer: Timer) -> Option<Help> {
        match timer {
            Timer::Proof if self.never_accepted => Some(Help::Helps),
            Timer::Proof => self.late_proof.then_some(Help::Disturbs),
            // By then Argo CD has read what is there now, has written what it was about to write, and has ended what it began
            // with another token.
            Timer::Quiet => {
                let ArgoCd { copy, writing, sync } = world.memory.argo;
                let held = held(&world.seen);
                let over = |other: Option<Fingerprint>| other.is_none() || other == held;
                let has_read = copy == held || self.argo_down;
                (has_read && over(writing) && over(sync)).then_some(Help::Helps)
            }
            Timer::Retry | Timer::Cache | Timer::InFlight => None,
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Condition> {
        match step {
            Step::Revoke { .. } => Some(Condition::Nothing),
            Step::Issue { .. } => self.late_creates.then_some(Condition::Nothing),
            Step::BackUp { .. } | Step::DeleteBackup => {
                let may_be_late = seen.backup.is_some() || self.late_creates;
                may_be_late.then(|| Condition::Backup(seen.backup.clone()))
            }
            Step::Place { .. } | Step::Fence => Some(Condition::Secret(version(seen))),
        }
    }

    fn applied(&self, world: &mut World, step: &Step) {
        // What was right when it was intended, and was made wrong by a third party while it was in flight: no write can be
        // conditional on two objects. A former holder's step may be in flight for any time, until the run has ended.
        // But a token that is to be revoked is never relied on again, however late that comes.
        let may_be_late = !matches!(step, Step::Revoke { which: Which::New, .. });
        let late = self.others.0 > 0 && world.memory.disturbed && world.ended.is_none();
        let excused = world.memory.raced || may_be_late && late;
        let fault = self.fault(world, step).filter(|_| !excused);
        world.memory.fault = safety::trespass(world, step).or(fault);
        match step {
            Step::Revoke { which: Which::Old, .. } => world.memory.old = None,
            Step::Place { .. } | Step::Fence => changed(world),
            Step::Issue { .. } => draw_another_name(world),
            _ => {}
        }
        if matches!(step, Step::Issue { .. } | Step::BackUp { .. }) {
            world.memory.late = world.ended.is_some();
        }
        self.update(world);
        world.memory.raced = false;
        world.memory.expiring_since_intent = false;
        world.memory.hurt = safety::unhealthy(world).is_some() && (world.memory.hurt || excused);
    }

    fn timer_passed(&self, world: &mut World, _: Timer) {
        self.update(world);
    }

    fn in_use(&self, _: &Observed, _: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        ([].into(), [].into())
    }

    /// A journal with a hostile record and with an empty one, as a replayed one may be, in every direction and of any phase that
    /// counts. Once a rotation that kept O has ended, O's value is lost: a rollback is then not possible anyway.
    fn forged(&self, world: &World) -> Vec<Run> {
        let names: BTreeSet<Name> = world.seen.issued.keys().cloned().collect();
        let empty = Record {
            user: US.to_owned(),
            old: token(old()),
            old_worked: true,
            keep_old: false,
            new: None,
            used_before: None,
            placed: [].into(),
            revoked: [].into(),
        };
        let hostile = Record {
            user: "u-other".to_owned(),
            old: token(foreign()),
            old_worked: false,
            keep_old: false,
            new: Some(token(foreign())),
            used_before: Some("never".to_owned()),
            placed: names.clone().into_iter().chain(token(foreign()).name).collect(),
            revoked: names,
        };
        let is_known = world.seen.backup.is_some() || held(&world.seen) == Some(old());
        let all = is_known || !self.foreign;
        let may_be = |direction: &Direction| all || *direction == Direction::Forward;
        let phases = [Phase::Survey, Phase::Place, Phase::Retire, Phase::Confirm];
        Direction::ALL
            .into_iter()
            .filter(may_be)
            .flat_map(|direction| phases.map(|phase| (direction, phase)))
            .flat_map(|(direction, phase)| [&empty, &hostile].map(|record| run(direction, phase, record.clone())))
            .collect()
    }

    fn refused(&self, _: &World, _: &[Blocker]) -> Result<Refusal, String> {
        Ok(Refusal::Waits)
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        let why = world.memory.fault.map(ToOwned::to_owned);
        let why = why.or_else(|| {
            safety::unhealthy(world)
                .filter(|_| !world.memory.hurt)
                .map(ToOwned::to_owned)
        });
        let why = why.or_else(|| self.ended_wrong(world));
        why.map(|why| format!("{why}: {:#?} {:#?}", world.seen, world.memory))
    }

    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        if is_another_start(seen) {
            return Err(Vec::new());
        }
        ArgocdRancher::survey(&visible(seen))
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<ArgocdRancher> {
        self.mutant.decide(visible(seen), run)
    }

    fn recall(&self, seen: &Observed, claimed: Run) -> Option<Run> {
        self.mutant.recall(&visible(seen), claimed)
    }
}

pub(crate) fn run(direction: Direction, phase: Phase, record: Record) -> Run {
    Run {
        direction,
        phase,
        ..Run::begin(RunId::placeholder(), record)
    }
}

/// [`Step::Issue`] is predicted with the first name that is free. Rancher never draws a name again.
fn draw_another_name(world: &mut World) {
    let (issued, memory) = (&mut world.seen.issued, &mut world.memory);
    let drawn = issued.keys().find(|name| !memory.listed.contains(*name)).cloned();
    let unused = NEW.iter().find(|(name, _)| !memory.drawn.contains(name));
    if let (Some(drawn), Some((name, value))) = (drawn, unused)
        && let Some(mut token) = issued.remove(&drawn)
    {
        token.value = Some(*value);
        issued.insert(name.clone(), token);
        memory.drawn.insert(name.clone());
    }
}

impl Model {
    /// What follows from the rest of the world: what is known, and what calls show.
    fn update(&self, world: &mut World) {
        // The version counts only while a step is in flight.
        if self.others.0 == 0 && !world.is_sending() {
            world.seen.blockers.clear();
        }
        let (seen, memory) = (&mut world.seen, &mut world.memory);
        seen.old = memory.old.filter(|_| !self.foreign);
        memory.was = held(seen);
        let issued = &seen.issued;
        memory.listed = issued.keys().cloned().collect();
        memory.accepted.retain(|name| {
            issued
                .get(name)
                .is_some_and(|issued| issued.validity != Validity::Invalid)
        });
        let (backup, in_secret) = (seen.backup.clone().unwrap_or_default(), held(seen));
        let in_backup = [&backup.old, &backup.new].map(|token| token.as_ref().map(|token| token.value));
        let is_stored = |value| in_secret == Some(value) || in_backup.contains(&Some(value));
        for (name, issued) in &mut seen.issued {
            issued.value = issued
                .value
                .or_else(|| value_of(name).filter(|value| is_stored(*value)));
        }
        if !self.many_servers {
            memory.old_accepted = old_is_valid(memory);
        }
        seen.old_accepted = match (is_stored(old()), memory.offline) {
            (false, _) => Acceptance::NotAsked,
            (true, true) => offline(),
            (true, false) if memory.old_accepted => Acceptance::Accepted,
            (true, false) => Acceptance::Rejected,
        };
        self.update_new(world);
    }

    fn update_new(&self, world: &mut World) {
        let value = Self::may_be_called_with(world);
        let new = world.run.as_ref().and_then(|run| run.record.new.as_ref());
        let new = new.map(|new| new.value);
        let truth = value.map(|value| answer(world, value));
        let (seen, memory) = (&mut world.seen, &mut world.memory);
        if memory.called_with != new {
            (memory.called_with, memory.to_record, seen.own_calls_recorded) = (new, false, true);
            seen.new_accepted = Acceptance::NotAsked;
        }
        match truth {
            None => seen.new_accepted = Acceptance::NotAsked,
            Some(_) if memory.offline => seen.new_accepted = offline(),
            Some(_) if matches!(seen.new_accepted, Acceptance::Unknown(_)) => {
                seen.new_accepted = Acceptance::NotAsked;
            }
            Some(Acceptance::Rejected) if seen.new_accepted.is_accepted() && !self.many_servers => {
                seen.new_accepted = Acceptance::Rejected;
            }
            Some(_) => {}
        }
    }

    /// N, if we may call with it: its value is known, and no call of Argo CD's is waited for.
    fn may_be_called_with(world: &World) -> Option<Fingerprint> {
        let (seen, run) = (&world.seen, world.run.as_ref()?);
        let new = run.record.new.as_ref()?;
        let name = new.name.as_ref()?;
        let issued = seen.issued.get(name);
        let is_usable = |issued: &Issued| {
            issued.validity == Validity::Valid && issued.value.is_some() && !run.record.revoked.contains(name)
        };
        // On the way forward one that is not usable is about to be replaced.
        let is_of_interest = run.direction == Direction::Rollback || issued.is_some_and(is_usable);
        let backup = seen.backup.as_ref().and_then(|backup| backup.new.as_ref());
        let backup = backup.map(|token| token.value);
        let in_use = held(seen) == Some(new.value);
        let is_known = in_use || backup == Some(new.value);
        let is_waited_for = in_use && seen.watched && !run.passed(Timer::Quiet);
        (is_of_interest && is_known && !is_waited_for).then_some(new.value)
    }
}

fn offline() -> Acceptance {
    Acceptance::Unknown("the agent is offline".to_owned())
}

fn answer(world: &World, value: Fingerprint) -> Acceptance {
    if works(world, value) {
        Acceptance::Accepted
    } else {
        Acceptance::Rejected
    }
}

/// The value in the Secret.
pub(crate) fn held(seen: &Observed) -> Option<Fingerprint> {
    seen.secret.held().map(|held| held.value)
}

fn old_is_valid(memory: &Memory) -> bool {
    matches!(memory.old, Some(Validity::Valid | Validity::Expiring))
}

/// Whether the token with this value is valid, and Rancher accepts it. Of a foreign one nothing is known.
fn works(world: &World, value: Fingerprint) -> bool {
    match new_name(value) {
        Some(name) => world.memory.accepted.contains(name),
        None => value != old() || old_is_valid(&world.memory),
    }
}
