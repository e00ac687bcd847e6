//! What servers, operators and other programs do meanwhile.

use engine::rotation::{Next, decide};
use kubectl_bootstrap_token::agent_token::rotation::dangerous::Restart;
use kubectl_bootstrap_token::agent_token::rotation::observed::{Agent, Configured, Encryption, Login, Members, Server};
use kubectl_bootstrap_token::agent_token::rotation::step::Step;
use model::{Help, Move};

use crate::environment::{Model, World, server_token, third};
use crate::facts::{AgentFile, Disk, Memory, State};

/// A server that joins.
const JOINS: &str = "s9";

struct Moves<'a> {
    model: &'a Model,
    world: &'a World,
    all: Vec<Move<Model>>,
}

pub(crate) fn moves(model: &Model, world: &World) -> Vec<Move<Model>> {
    if world.ended.is_some() {
        return Vec::new();
    }
    let all = Vec::new();
    let mut moves = Moves { model, world, all };
    for name in world.memory.disks.keys() {
        moves.server(name);
        moves.configuration(name);
    }
    for name in world.memory.agents.keys() {
        moves.agent(name);
    }
    moves.operator();
    moves.join();
    moves.keys();
    moves.all
}

impl Moves<'_> {
    fn push(&mut self, name: impl Into<String>, help: Help, change: impl FnOnce(&mut World)) {
        let mut to = self.world.clone();
        change(&mut to);
        to.memory.rank();
        show(self.model, &mut to);
        let name = name.into();
        self.all.push(Move { name, help, to });
    }

    fn server(&mut self, name: &str) {
        let budget = self.world.memory.budget;
        let disk = self.world.memory.disks[name];
        let set = |to: &mut World, state| _ = to.memory.disks.insert(name.to_owned(), Disk { state, ..disk });
        match disk.state {
            State::Up | State::Starting if budget.restarts > 0 => {
                self.push(format!("{name} restarts by itself"), Help::Disturbs, |to| {
                    to.memory.budget.restarts -= 1;
                    to.memory.stop(name, false);
                });
            }
            _ => {}
        }
        match disk.state {
            State::Up => {}
            State::Starting => self.push(format!("{name} is ready"), Help::Helps, |to| set(to, State::Up)),
            State::Stopped { .. } => {
                match self.world.memory.start(name) {
                    Some(disk) => self.push(format!("{name} starts"), Help::Helps, |to| {
                        to.memory.disks.insert(name.to_owned(), disk);
                        started(to, name);
                    }),
                    None => self.push(format!("{name} does not start"), Help::Helps, |to| set(to, State::Down)),
                }
                if budget.losses > 0 {
                    self.push(format!("{name} does not come back"), Help::Disturbs, |to| {
                        to.memory.budget.losses -= 1;
                        set(to, State::Down);
                    });
                }
            }
            State::Down => {
                let what = format!("an operator deletes the files that {name} names, and starts it");
                self.push(what, Help::Helps, |to| {
                    let (data, encryption) = (to.memory.data, to.memory.encryption);
                    let disk = to.memory.disk(name);
                    (disk.file, disk.encryption) = (data, encryption);
                    set_shown(to, name).is_restarting = false;
                    let disk = to.memory.start(name).expect("it has the datastore's files");
                    to.memory.disks.insert(name.to_owned(), disk);
                    started(to, name);
                });
            }
        }
    }

    fn configuration(&mut self, name: &str) {
        let old = Model::configured(self.model.old());
        let memory = &self.world.memory;
        if memory.budget.repins > 0 && memory.disks[name].configured != old {
            let what = format!("configuration management restores the configuration of {name}");
            self.push(what, Help::Disturbs, |to| {
                to.memory.budget.repins -= 1;
                to.memory.disk(name).configured = old;
            });
        }
    }

    fn agent(&mut self, name: &str) {
        let budget = self.world.memory.budget;
        if budget.agent_edits > 0 {
            self.push(format!("another operator edits {name}"), Help::Disturbs, |to| {
                to.memory.budget.agent_edits -= 1;
                let agent = to.memory.agent(name);
                (agent.value, agent.is_edited_by_others) = (third(), true);
            });
        }
        if budget.agent_losses > 0 {
            self.push(format!("{name} cannot be reached"), Help::Disturbs, |to| {
                to.memory.budget.agent_losses -= 1;
                to.memory.agent(name).is_lost = true;
            });
        }
    }

    fn operator(&mut self) {
        let (world, memory) = (self.world, &self.world.memory);
        let is_asked = matches!(world.sending(), Some(Step::Restart(restart)) if restart.by_hand().is_some());
        if is_asked && memory.budget.forgotten_edits > 0 {
            self.push("the operator is going to forget the edit", Help::Disturbs, |to| {
                to.memory.budget.forgotten_edits -= 1;
                to.memory.forgets = true;
            });
        }
        let Some(run) = &world.run else { return };
        let refuses = || matches!(decide(&world.seen, run).next, Next::Refuse(_));
        if !world.seen.options.has_node_access && !world.is_sending() && refuses() {
            self.push("the operator adds --node-exec", Help::Helps, |to| {
                to.seen.options.has_node_access = true;
                // It takes another process.
                model::Environment::resumed(self.model, to);
            });
        }
    }

    fn join(&mut self) {
        match self.world.memory.joining {
            // A server that joins after the end is no matter of the run.
            None if self.world.memory.budget.joins > 0 && self.world.seen.backup.is_some() => {
                for token in [self.model.old(), self.model.replacement()] {
                    self.push("a server begins to join", Help::Disturbs, |to| {
                        to.memory.budget.joins -= 1;
                        to.memory.joining = Some(Model::configured(token));
                        to.seen.joining.insert(JOINS.to_owned());
                        to.seen.members = Members::Differ;
                    });
                }
            }
            Some(configured) => self.push("a server has joined", Help::Helps, |to| {
                to.memory.joining = None;
                to.seen.joining.clear();
                to.seen.members = Members::Same;
                let disk = Disk {
                    file: to.memory.data,
                    configured,
                    live: server_token(),
                    encryption: to.memory.encryption,
                    state: State::Up,
                    is_in_window: false,
                };
                to.memory.disks.insert(JOINS.to_owned(), disk);
                let disk = to.memory.start(JOINS).expect("it has the datastore's files");
                let state = State::Up;
                to.memory.disks.insert(JOINS.to_owned(), Disk { state, ..disk });
                let like: Server = to.seen.servers["s1"].clone();
                let server = Server {
                    has_configuration_backup: false,
                    is_restarting: false,
                    ..like
                };
                to.seen.servers.insert(JOINS.to_owned(), server);
                started(to, JOINS);
            }),
            None => {}
        }
    }

    fn keys(&mut self) {
        let is_rotating = matches!(self.world.seen.encryption, Encryption::Unsafe(_));
        if is_rotating {
            self.push("the encryption keys are rotated", Help::Helps, |to| {
                let encryption = to.memory.encryption;
                for disk in to.memory.disks.values_mut() {
                    disk.encryption = encryption;
                }
                to.seen.encryption = Encryption::Safe;
            });
        } else if self.world.memory.budget.key_rotations > 0 {
            for name in self.world.memory.disks.keys() {
                let what = format!("a rotation of the encryption keys begins on {name}");
                self.push(what, Help::Disturbs, |to| {
                    to.memory.budget.key_rotations -= 1;
                    to.memory.encryption += 1;
                    to.memory.disk(name).encryption = to.memory.encryption;
                    to.seen.encryption = Encryption::Unsafe("stage prepare".to_owned());
                });
            }
        }
    }
}

fn set_shown<'a>(world: &'a mut World, name: &str) -> &'a mut Server {
    world.seen.servers.get_mut(name).expect("it is shown")
}

fn started(world: &mut World, name: &str) {
    world.memory.since_put.insert(name.to_owned());
    if let Some(started) = &mut world.seen.started {
        started.insert(name.to_owned());
    }
    set_shown(world, name).is_restarting = false;
}

/// A restart, by the tool or by an operator who has changed the configuration.
pub(crate) fn restart(memory: &mut Memory, restart: &Restart) {
    let forgets = std::mem::take(&mut memory.forgets);
    if let Some(value) = restart.by_hand().filter(|_| !forgets) {
        memory.disk(restart.server()).configured = value;
    }
    memory.stop(restart.server(), true);
}

/// What is seen of the servers.
pub(crate) fn show(model: &Model, world: &mut World) {
    let World { seen, memory, .. } = world;
    let has_node_access = seen.options.has_node_access;
    let is_known = |value| !model.is_old_unknown || value != model.old();
    for (name, disk) in &memory.disks {
        let server = seen.servers.get_mut(name).expect("it is shown");
        let is_up = matches!(disk.state, State::Up | State::Starting);
        let login = if is_known(disk.live) {
            Login::Accepts(disk.live)
        } else {
            Login::Another
        };
        server.accepts = if is_up {
            Login::Accepts(server_token())
        } else {
            Login::Unknown
        };
        server.as_node = Some(if is_up { login } else { Login::Unknown });
        server.is_ready = disk.state == State::Up;
        if has_node_access {
            let token = |value| Configured::Token(Some(value));
            server.configured = disk.configured.map_or(Configured::Nowhere, token);
        }
    }
    let agents = memory.agents.iter().filter(|_| has_node_access);
    let shown = |(name, file): (&String, &AgentFile)| {
        let agent = Agent {
            configured: Configured::Token(Some(file.value).filter(|_| !file.is_lost)),
            has_configuration_backup: file.has_backup && !file.is_lost,
        };
        (name.clone(), agent)
    };
    seen.agents = agents.map(shown).collect();
    seen.newest = has_node_access.then(|| memory.newest());
    if !has_node_access && model.shows_starts {
        seen.started.get_or_insert_default();
    } else {
        seen.started = None;
    }
}
