//! The model of the servers. It knows the facts (`facts.rs`) and none of the rules.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Decision, Rotation as _, Timer};
use kubectl_bootstrap_token::agent_token::rotation::AgentToken;
use kubectl_bootstrap_token::agent_token::rotation::observed::{
    Clocks, Cluster, Configured, Datastore, Encryption, Login, Members, Observed, Options, Output, Purpose, PutResult,
    Role, Server,
};
use kubectl_bootstrap_token::agent_token::rotation::record::Record;
use kubectl_bootstrap_token::agent_token::rotation::step::{Change, Step};
use model::{Environment, Help, Move, Refusal};
use supervisor::SupervisorKind;
use supervisor::node::EtcdMember;

use crate::facts::{AgentFile, Disk, File, Memory, State};
use crate::mutants::Mutant;
use crate::{moves, safety};

pub(crate) type Run = engine::run::Run<AgentToken>;
pub(crate) type World = model::World<Model>;

pub(crate) fn server_token() -> Fingerprint {
    Fingerprint::of("server")
}

/// The first token that the model checker draws.
pub(crate) fn drawn() -> Fingerprint {
    Fingerprint::of("new 1")
}

pub(crate) fn name(at: usize) -> String {
    format!("s{}", at + 1)
}

/// What is explored. The numbers say how often a disturbance may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) servers: usize,
    pub(crate) purpose: Purpose,
    pub(crate) has_node_access: bool,
    /// Without node access: it is seen which servers have started.
    pub(crate) shows_starts: bool,
    /// The old token is not known.
    pub(crate) is_old_unknown: bool,
    /// An operator has begun the change on the first server, by hand.
    pub(crate) is_begun: bool,
    /// `--agents`, with an agent that has the old token and one that does not.
    pub(crate) has_agents: bool,
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
    /// A server does not come back.
    pub(crate) losses: u8,
    /// Configuration management writes the old token into a configuration.
    pub(crate) repins: u8,
    /// A server joins.
    pub(crate) joins: u8,
    /// The encryption keys are rotated.
    pub(crate) key_rotations: u8,
    /// An operator restarts a server without the change of its configuration.
    pub(crate) forgotten_edits: u8,
    /// Another operator writes a third token into the configuration of an agent.
    pub(crate) agent_edits: u8,
    /// An agent cannot be reached any more.
    pub(crate) agent_losses: u8,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            servers: 2,
            purpose: Purpose::Rotate,
            has_node_access: true,
            shows_starts: true,
            is_old_unknown: false,
            is_begun: false,
            has_agents: false,
            budget: Budget::default(),
            late_holders: 0,
            rollbacks: 0,
            forgeries: 0,
            mutant: None,
        }
    }
}

impl Model {
    pub(crate) fn old(&self) -> Fingerprint {
        match self.purpose {
            Purpose::Set => server_token(),
            Purpose::Rotate | Purpose::Remove => Fingerprint::of("old"),
        }
    }

    pub(crate) fn replacement(&self) -> Fingerprint {
        match self.purpose {
            Purpose::Remove => server_token(),
            Purpose::Set | Purpose::Rotate => drawn(),
        }
    }

    pub(crate) fn target(&self, direction: Direction) -> Fingerprint {
        if direction.is_rollback() {
            self.old()
        } else {
            self.replacement()
        }
    }

    /// The other one of the old and the new token.
    pub(crate) fn other(&self, value: Fingerprint) -> Fingerprint {
        if value == self.old() {
            self.replacement()
        } else {
            self.old()
        }
    }

    /// All servers, as a rotation finds them.
    pub(crate) fn observed(&self) -> Observed {
        let server = Server {
            role: Role::Full,
            accepts: Login::Accepts(server_token()),
            as_node: Some(Login::Unknown),
            is_ready: true,
            member: EtcdMember::Voter,
            configured: Configured::Unknown,
            has_configuration_backup: false,
            files: kubectl_bootstrap_token::server_token::rotation::observed::Files::Unknown,
            is_restarting: false,
        };
        let seen = Observed {
            cluster: Cluster {
                supervisor: SupervisorKind::K3s,
                datastore: Datastore::Etcd,
                manager: None,
                can_change_token: Some(true),
                is_ca_rotating: false,
            },
            options: Options {
                has_node_access: self.has_node_access,
                force_unmeasured: true,
                ..Options::default()
            },
            purpose: self.purpose,
            given: server_token(),
            given_new: self.is_begun.then(|| self.replacement()),
            given_old: (!self.is_old_unknown).then(|| self.old()),
            servers: (0..self.servers).map(|at| (name(at), server.clone())).collect(),
            members: Members::Same,
            joining: BTreeSet::new(),
            encryption: Encryption::Safe,
            clocks: Clocks::Close(None),
            newest: None,
            started: None,
            put: PutResult::Unknown,
            backup: None,
            output: Output::File {
                path: "token".to_owned(),
                holds: self.is_begun.then(|| self.replacement()),
            },
            may_be_in_flight: false,
            agents: BTreeMap::new(),
            writes_agents: self.has_agents,
        };
        let mut world = World::new(seen, self.memory());
        moves::show(self, &mut world);
        world.seen
    }

    pub(crate) fn configured(value: Fingerprint) -> Option<Fingerprint> {
        Some(value).filter(|value| *value != server_token())
    }

    /// One has the old token. Another has the server token, which is the new one where the agent token is removed.
    fn agents(&self) -> BTreeMap<String, AgentFile> {
        let other = match self.purpose {
            Purpose::Set => third(),
            Purpose::Rotate | Purpose::Remove => server_token(),
        };
        let agents = [("a1", self.old()), ("a2", other)];
        let file = |(name, value): (&str, Fingerprint)| (name.to_owned(), AgentFile::of(value));
        let agents = agents.into_iter().filter(|_| self.has_agents);
        agents.map(file).collect()
    }

    pub(crate) fn memory(&self) -> Memory {
        let value = self.old();
        let data = File { value, time: 0 };
        let disk = Disk {
            file: data,
            configured: Self::configured(value),
            live: value,
            encryption: 0,
            state: State::Up,
            is_in_window: false,
        };
        let mut memory = Memory {
            data,
            encryption: 0,
            disks: (0..self.servers).map(|at| (name(at), disk)).collect(),
            since_put: BTreeSet::new(),
            agents: self.agents(),
            joining: None,
            forgets: false,
            budget: self.budget,
            fault: None,
        };
        if self.is_begun {
            memory.disk("s1").configured = Self::configured(self.replacement());
            let state = State::Up;
            let started = memory.start("s1").expect("it starts once");
            memory.disks.insert("s1".to_owned(), Disk { state, ..started });
        }
        memory
    }
}

/// The token of agents that is neither the old nor the new one.
pub(crate) fn third() -> Fingerprint {
    Fingerprint::of("third")
}

/// What a step is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Nothing,
    /// The version of the backup Secret.
    Backup(Option<Record>),
    /// The hash of the file.
    Configuration(Option<Configured>),
    /// The hash of the file of an agent.
    Agent(Option<Configured>),
    /// The controller looks once more right before it sends what cannot be conditional.
    Everything(Box<Observed>),
}

impl Environment for Model {
    type Rotation = AgentToken;
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
            Timer::Proof => {
                let mut disks = world.memory.disks.values();
                disks.any(|disk| disk.state != State::Up).then_some(Help::Disturbs)
            }
            Timer::Quiet | Timer::Retry | Timer::Cache => None,
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Self::Condition> {
        match step {
            Step::BackUp(_) => Some(Condition::Backup(seen.backup.clone())),
            Step::Save(_) | Step::Restart(_) | Step::Forget => Some(Condition::Everything(Box::new(seen.clone()))),
            Step::Configure { server, .. } => {
                let configured = seen.servers.get(server).map(|server| server.configured);
                Some(Condition::Configuration(configured))
            }
            Step::ConfigureAgent { agent, .. } => {
                let configured = seen.agents.get(agent).map(|agent| agent.configured);
                Some(Condition::Agent(configured))
            }
            _ => Some(Condition::Nothing),
        }
    }

    fn applied(&self, world: &mut World, step: &Step) {
        safety::check_step(self, world, step);
        let World { seen, memory, .. } = world;
        match step {
            Step::Save(save) => {
                let is_accepted = memory.put(save.server(), save.login());
                if !is_accepted {
                    seen.put = PutResult::Unknown;
                }
            }
            Step::Restart(restart) => moves::restart(memory, restart),
            Step::Configure { server, value } => memory.disk(server).configured = *value,
            Step::ConfigureAgent { agent, value } => memory.agent(agent).write(*value),
            Step::DeleteConfigurationBackups => memory.agents.values_mut().for_each(AgentFile::forget),
            Step::BackUp(backup) if matches!(backup.change, Change::Saved(_)) => {
                seen.started = seen.started.as_ref().map(|_| memory.since_put.clone());
            }
            _ => {}
        }
        memory.rank();
        moves::show(self, world);
    }

    /// It is carried out, and the process does not see that.
    fn partly_applied(&self, world: &World, step: &Step) -> Vec<World> {
        let mut to = world.clone();
        match step {
            Step::Save(save) => _ = to.memory.put(save.server(), save.login()),
            Step::Restart(restart) => moves::restart(&mut to.memory, restart),
            _ => return Vec::new(),
        }
        to.memory.rank();
        moves::show(self, &mut to);
        vec![to]
    }

    fn arrives_late(&self, world: &World, step: &Step) -> Option<Vec<World>> {
        let mut to = world.clone();
        match step {
            Step::Save(save) => _ = to.memory.put(save.server(), save.login()),
            Step::Restart(restart) => {
                let disk = to.memory.disks.get(restart.server());
                if disk.is_some_and(|disk| disk.state == State::Up) {
                    safety::check_late_restart(&mut to.memory, restart.server());
                    moves::restart(&mut to.memory, restart);
                }
            }
            _ => return None,
        }
        to.memory.rank();
        moves::show(self, &mut to);
        Some(vec![to])
    }

    /// What another process does not know.
    fn resumed(&self, world: &mut World) {
        let seen = &mut world.seen;
        seen.put = PutResult::Unknown;
        seen.may_be_in_flight = true;
        for server in seen.servers.values_mut() {
            server.is_restarting = false;
        }
    }

    /// A run draws one token.
    fn in_use(&self, _: &Observed, _: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        (BTreeSet::new(), BTreeSet::new())
    }

    /// An attacker claims that all is done, or that nothing is armed.
    fn forged(&self, world: &World) -> Vec<Run> {
        let Some(run) = &world.run else { return Vec::new() };
        let mut record = run.record.clone();
        record.saved.token = record.new;
        record.saved.by = Some(name(0));
        let claims = [
            (Phase::Confirm, Direction::Forward),
            (Phase::Confirm, Direction::Rollback),
            (Phase::Place, Direction::Rollback),
        ];
        let forged = |(phase, direction)| Run {
            direction,
            phase,
            record: record.clone(),
            ..run.clone()
        };
        claims.into_iter().map(forged).collect()
    }

    fn refused(&self, world: &World, blockers: &[Blocker]) -> Result<Refusal, String> {
        safety::check_refusal(world, blockers)
    }

    fn unsafe_because(&self, world: &World) -> Option<String> {
        safety::unsafe_because(self, world)
    }

    fn decide(&self, seen: &Observed, run: &Run) -> Decision<AgentToken> {
        Mutant::decide(self.mutant, seen, run)
    }

    /// A second rotation is not explored.
    fn survey(&self, seen: &Observed) -> Result<Record, Vec<Blocker>> {
        let is_new = |server: &Server| server.as_node == Some(Login::Accepts(self.replacement()));
        let is_second = !self.is_begun && seen.servers.values().any(is_new);
        if is_second || seen.may_be_in_flight && seen.backup.is_none() && self.is_begun {
            return Err(Vec::new());
        }
        // That starts are not shown any more is found later.
        let started = Some(BTreeSet::new());
        AgentToken::survey(&Observed {
            started,
            ..seen.clone()
        })
    }
}
