//! The model of the servers. It knows the facts (`facts.rs`) and none of the rules.

pub(crate) mod facts;
mod moves;
mod safety;

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Rotation as _, Timer};
use kubectl_bootstrap_token::server_token::rotation::ServerToken;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Clocks, Cluster, Configured, Datastore, Encryption, Files, Login, Members, Needs, Observed, Options, Output, Role,
    RoundResult, Server, Snapshots,
};
use kubectl_bootstrap_token::server_token::rotation::record::{Record, RoundRecord};
use kubectl_bootstrap_token::server_token::rotation::step::{Change, SnapshotKind, Step};
use model::{Environment, Help, Move, Refusal};
use supervisor::SupervisorKind;
use supervisor::node::EtcdMember;

use self::facts::{Data, Disk, File, State};
use crate::mutants::Mutant;

pub(crate) type Run = engine::run::Run<ServerToken>;
pub(crate) type World = model::World<Model>;

pub(crate) fn old() -> Fingerprint {
    Fingerprint::of("old")
}

pub(crate) fn given() -> Fingerprint {
    Fingerprint::of("given")
}

pub(crate) fn name(at: usize) -> String {
    format!("s{}", at + 1)
}

/// What is explored. The numbers say how often a disturbance may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) servers: usize,
    pub(crate) datastore: Datastore,
    /// Each server has the old token in its configuration.
    pub(crate) is_pinned: bool,
    pub(crate) has_node_access: bool,
    /// The user has passed the new token.
    pub(crate) is_given: bool,
    /// The first server's clock is ahead of the others.
    pub(crate) is_ahead: bool,
    /// Who resumes has the new token.
    pub(crate) resumes_with_new: bool,
    pub(crate) budget: Budget,
    pub(crate) late_holders: u8,
    pub(crate) rollbacks: u8,
    pub(crate) forgeries: u8,
    pub(crate) mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// A server restarts by itself.
    pub(crate) restarts: u8,
    /// One PUT of a round goes wrong.
    pub(crate) mishaps: u8,
    /// A server does not come back.
    pub(crate) losses: u8,
    /// Configuration management writes the old token into a configuration.
    pub(crate) repins: u8,
    /// A server joins.
    pub(crate) joins: u8,
    /// The encryption keys are rotated.
    pub(crate) key_rotations: u8,
    /// Another program changes the token.
    pub(crate) foreign_puts: u8,
    /// The clock of the first server is set ahead of the others.
    pub(crate) skews: u8,
}

/// What goes wrong with one PUT of the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mishap {
    /// It is answered with 500, after the files were written.
    Fails,
    /// It does not arrive.
    Lost,
    /// Neither does the second one in the same round.
    Unreachable,
    /// It arrives, and the answer is lost.
    Unanswered,
    /// It arrives later, while no other process has waited.
    Late,
    /// The server is killed in it, at one of the points of [`facts::Point`].
    Killed(facts::Point),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    pub(crate) datastore: Data,
    pub(crate) disks: BTreeMap<String, Disk>,
    pub(crate) budget: Budget,
    pub(crate) mishaps: BTreeMap<String, Mishap>,
    /// A PUT of this process that has not arrived.
    pub(crate) flying: Option<(String, Fingerprint)>,
    /// The token with which a server is joining.
    pub(crate) joining: Option<Fingerprint>,
    /// The server that has rejected the first PUT of a round, and what it had before.
    pub(crate) rejected: Option<(String, Fingerprint)>,
    /// The server whose clock is 2 s or more ahead of the others.
    pub(crate) skewed: Option<String>,
    /// Another program has changed a token: the facts do not allow a promise any more.
    pub(crate) is_foreign: bool,
    pub(crate) fault: Option<&'static str>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            servers: 2,
            datastore: Datastore::Etcd,
            is_pinned: false,
            has_node_access: true,
            is_given: false,
            is_ahead: false,
            resumes_with_new: false,
            budget: Budget::default(),
            late_holders: 0,
            rollbacks: 0,
            forgeries: 0,
            mutant: None,
        }
    }
}

impl Model {
    /// All servers, as a rotation finds them.
    pub(crate) fn observed(&self) -> Observed {
        let is_pinned = self.is_pinned;
        let seen_value = Some(old()).filter(|_| self.has_node_access);
        let server = Server {
            role: Role::Full,
            accepts: Login::Accepts(old()),
            as_node: Some(Login::Accepts(old())),
            is_ready: true,
            member: EtcdMember::Voter,
            configured: if is_pinned {
                Configured::Token(seen_value)
            } else {
                Configured::Nowhere
            },
            has_configuration_backup: false,
            files: Files::Unknown,
            is_restarting: false,
        };
        Observed {
            cluster: Cluster {
                supervisor: SupervisorKind::K3s,
                datastore: self.datastore,
                manager: None,
                can_change_token: Some(true),
                is_ca_rotating: false,
            },
            options: Options {
                has_node_access: self.has_node_access,
                force_unmeasured: true,
                ..Options::default()
            },
            given: old(),
            given_new: self.is_given.then(given),
            servers: (0..self.servers).map(|at| (name(at), server.clone())).collect(),
            members: Members::Same,
            joining: BTreeSet::new(),
            encryption: Encryption::Safe,
            clocks: Clocks::Close(self.is_ahead.then(|| name(0))),
            backup: None,
            output: Output::File {
                path: "token".to_owned(),
                holds: self.is_given.then(given),
            },
            snapshots: Snapshots::default(),
            round: RoundResult::Unknown,
            may_be_in_flight: false,
            agents: BTreeMap::new(),
        }
    }

    fn memory(&self) -> Memory {
        let passwd = File { value: old(), time: 0 };
        let datastore = Data {
            key: old(),
            passwd,
            encryption: 0,
        };
        let disk = Disk {
            passwd,
            token: Some(old()),
            configured: self.is_pinned.then(old),
            copy: datastore,
            encryption: 0,
            live: old(),
            state: State::Up,
        };
        Memory {
            datastore,
            disks: (0..self.servers).map(|at| (name(at), disk)).collect(),
            budget: self.budget,
            mishaps: BTreeMap::new(),
            flying: None,
            joining: None,
            rejected: None,
            skewed: None,
            is_foreign: false,
            fault: None,
        }
    }

    /// The server that gives its files later times than those that are written after them.
    pub(crate) fn ahead(&self, memory: &Memory) -> Option<String> {
        memory.skewed.clone().or_else(|| self.is_ahead.then(|| name(0)))
    }
}

/// What a step is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    /// The version of the backup Secret.
    Backup(Option<Record>),
    /// The hash of the file.
    Configuration(Option<Configured>),
    /// The controller looks once more right before it sends what cannot be conditional.
    Everything(Box<Observed>),
}

/// What another process does not know.
fn forget(seen: &mut Observed) {
    seen.forget_files();
    seen.round = RoundResult::Unknown;
    seen.may_be_in_flight = true;
    for server in seen.servers.values_mut() {
        server.is_restarting = false;
    }
}

impl Environment for Model {
    type Rotation = ServerToken;
    type Memory = Memory;
    type Condition = Condition;

    fn starts(&self) -> Vec<World> {
        let world = World::new(self.observed(), self.memory());
        vec![world.with(self.late_holders, self.rollbacks).forgeries(self.forgeries)]
    }

    fn moves(&self, world: &World) -> Vec<Move<Self>> {
        moves::moves(self, world)
    }

    fn timer(&self, world: &World, timer: Timer) -> Option<Help> {
        match timer {
            Timer::InFlight => Some(Help::Helps),
            // It passes only where something is not as it should be, and never helps.
            Timer::Proof => world
                .memory
                .disks
                .values()
                .any(|disk| disk.state != State::Up)
                .then_some(Help::Disturbs),
            Timer::Quiet | Timer::Retry | Timer::Cache => None,
        }
    }

    fn timer_passed(&self, world: &mut World, timer: Timer) {
        if timer == Timer::InFlight {
            moves::land(self, world);
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Self::Condition> {
        match step {
            Step::BackUp(_) | Step::Forget => Some(Condition::Backup(seen.backup.clone())),
            Step::Round(_) | Step::Restart(_) => Some(Condition::Everything(Box::new(seen.clone()))),
            Step::Unpin { server: node } | Step::Repin { node, .. } => {
                let configured = seen.servers.get(node).map(|server| server.configured);
                Some(Condition::Configuration(configured))
            }
            _ => Some(Condition::Nothing),
        }
    }

    fn applied(&self, world: &mut World, step: &Step) {
        safety::check_step(self, world, step);
        let World { seen, memory, run, .. } = world;
        match step {
            Step::Round(round) => moves::send_round(self, world, round),
            Step::Heal(heal) => {
                memory.rejected = None;
                let is_up = matches!(memory.disks[heal.server()].state, State::Up | State::Starting);
                let ahead = self.ahead(memory);
                let is_healed = memory.put(heal.server(), heal.value(), ahead.as_ref());
                if !is_up {
                    moves::unanswered(seen, run);
                    seen.round = RoundResult::Unknown;
                } else if !is_healed {
                    seen.round = RoundResult::NotHealed(heal.server().to_owned());
                }
            }
            Step::Restart(restart) => {
                if restart.unpins() {
                    memory.disks.get_mut(restart.server()).expect("it is there").configured = None;
                }
                memory.stop(restart.server(), true);
            }
            Step::Snapshot(kind) => {
                let mut needs = BTreeSet::new();
                for (name, disk) in &memory.disks {
                    let server = seen.servers.get_mut(name).expect("it is shown");
                    server.files = match disk.token {
                        _ if !matches!(disk.state, State::Up | State::Starting) => Files::Unknown,
                        Some(value) => Files::Hold(value),
                        None => Files::Damaged,
                    };
                    needs.insert(disk.token);
                }
                let needs = match (needs.len(), needs.first()) {
                    (1, Some(Some(value))) => Needs::Token(*value),
                    _ => Needs::Unknown,
                };
                match kind {
                    SnapshotKind::First => seen.snapshots.first = Some(needs),
                    SnapshotKind::Checking => {}
                    SnapshotKind::Last => seen.snapshots.last = Some(needs),
                }
            }
            Step::Unpin { server } => memory.disks.get_mut(server).expect("it is there").configured = None,
            Step::Repin { node, value } => {
                if let Some(disk) = memory.disks.get_mut(node) {
                    disk.configured = Some(*value);
                }
            }
            _ => {}
        }
        moves::show(self, world);
    }

    /// The first PUTs of a round.
    fn partly_applied(&self, world: &World, step: &Step) -> Vec<World> {
        let Step::Round(round) = step else { return Vec::new() };
        let killed_after = |puts: usize| {
            let mut to = world.clone();
            let servers = &round.servers()[..puts];
            to.memory
                .put_all(servers, round.value(), self.ahead(&world.memory).as_ref());
            to
        };
        (1..=round.servers().len()).map(killed_after).collect()
    }

    /// Any PUT of a round, the PUT of a heal, or a restart.
    fn arrives_late(&self, world: &World, step: &Step) -> Option<Vec<World>> {
        let changed = |change: &dyn Fn(&mut Memory)| {
            let mut to = world.clone();
            change(&mut to.memory);
            moves::show(self, &mut to);
            to
        };
        let puts = |server: &String, value| {
            let (server, ahead) = (server.clone(), self.ahead(&world.memory));
            changed(&move |memory| _ = memory.put(&server, value, ahead.as_ref()))
        };
        match step {
            Step::Round(round) => Some(round.servers().iter().map(|it| puts(it, round.value())).collect()),
            Step::Heal(heal) => Some(vec![puts(&heal.server().to_owned(), heal.value())]),
            Step::Restart(restart) => Some(vec![changed(&|memory| {
                if memory
                    .disks
                    .get(restart.server())
                    .is_some_and(|disk| disk.state == State::Up)
                {
                    safety::check_late_restart(memory, restart.server());
                    memory.stop(restart.server(), true);
                }
            })]),
            _ => None,
        }
    }

    fn resumed(&self, world: &mut World) {
        let seen = &mut world.seen;
        forget(seen);
        world.memory.rejected = None;
        if let Some(backup) = &seen.backup {
            let new = backup.new.last().copied().filter(|_| self.resumes_with_new);
            seen.given = new.unwrap_or(seen.given);
        }
        if self.mutant == Some(Mutant::AnotherOrder)
            && let Some(round) = seen.backup.as_mut().and_then(|backup| backup.round.as_mut())
        {
            round.order.reverse();
        }
    }

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let records = seen.backup.iter().chain(former);
        (
            records.flat_map(|record| record.new.iter().copied()).collect(),
            BTreeSet::new(),
        )
    }

    /// An attacker claims that a round is complete, or that all is done.
    fn forged(&self, world: &World) -> Vec<Run> {
        let Some(run) = &world.run else { return Vec::new() };
        let new = run.record.new.last().copied().unwrap_or_else(given);
        let round = |value, before| RoundRecord {
            before,
            value,
            order: (0..self.servers).rev().map(name).collect(),
            mends: false,
            is_complete: true,
        };
        let rounds = [None, Some(round(new, old())), Some(round(old(), new))];
        let forged = |(round, phase, direction): (Option<RoundRecord>, Phase, Direction)| Run {
            direction,
            phase,
            record: Record {
                new: vec![new],
                round,
                ..run.record.clone()
            },
            ..run.clone()
        };
        let mut claims = Vec::new();
        for round in rounds {
            claims.push((round.clone(), Phase::Make, Direction::Forward));
            claims.push((round.clone(), Phase::Confirm, Direction::Forward));
            claims.push((round, Phase::Place, Direction::Rollback));
        }
        claims.into_iter().map(forged).collect()
    }

    /// Each refusal is about something that an operator, or `recover`, has to mend.
    fn refused(&self, world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
        safety::check_refusal(world, blockers)
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        safety::unsafe_because(self, world)
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<ServerToken> {
        Mutant::decide(self.mutant, seen, run)
    }

    fn recall(&self, seen: &Observed, claimed: Run) -> Option<Run> {
        Mutant::recall(self.mutant, seen, claimed)
    }

    /// A second rotation is not explored.
    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        if seen.given == old() {
            ServerToken::survey(seen)
        } else {
            Err(Vec::new())
        }
    }
}

/// Whether a round is in progress, by the record that counts.
pub(crate) fn is_window(seen: &Observed) -> bool {
    let round = seen.backup.as_ref().and_then(|backup| backup.round.as_ref());
    round.is_some_and(|round| !round.is_complete)
}

/// What a step of the backup Secret begins.
pub(crate) fn begins(step: &Step) -> Option<&RoundRecord> {
    match step {
        Step::BackUp(backup) if matches!(backup.change, Change::RoundBegins(_)) => backup.record.round.as_ref(),
        _ => None,
    }
}
