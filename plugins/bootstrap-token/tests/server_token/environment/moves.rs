//! What servers, operators and other programs do meanwhile.

use client::secret::Fingerprint;
use kubectl_bootstrap_token::server_token::rotation::dangerous::Round;
use kubectl_bootstrap_token::server_token::rotation::observed::{
    Clocks, Configured, Encryption, Files, Login, Members, Observed, RoundResult, Server,
};
use kubectl_bootstrap_token::server_token::rotation::step::Step;
use model::{Help, Move};
use supervisor::node::EtcdMember;

use super::facts::{Disk, Point, State};
use super::{Mishap, Model, Run, World, forget, old};
use crate::mutants::Mutant;

const MISHAPS: [Mishap; 10] = [
    Mishap::Fails,
    Mishap::Lost,
    Mishap::Unreachable,
    Mishap::Unanswered,
    Mishap::Late,
    Mishap::Killed(Point::Passwd),
    Mishap::Killed(Point::Token),
    Mishap::Killed(Point::Files),
    Mishap::Killed(Point::Key),
    Mishap::Killed(Point::Saved),
];

/// A server that joins.
const JOINS: &str = "s9";

struct Moves<'a> {
    model: &'a Model,
    world: &'a World,
    all: Vec<Move<Model>>,
}

pub(super) fn moves(model: &Model, world: &World) -> Vec<Move<Model>> {
    if world.ended.is_some() {
        return Vec::new();
    }
    let mut moves = Moves {
        model,
        world,
        all: Vec::new(),
    };
    for name in world.memory.disks.keys() {
        moves.server(name);
        moves.removal(name);
        moves.configuration(name);
    }
    moves.mishaps();
    moves.join();
    moves.keys();
    moves.clocks();
    moves.foreign_put();
    if matches!(world.seen.round, RoundResult::NotHealed(_)) {
        moves.push("what refuses is run again", Help::Helps, |to| forget(&mut to.seen));
    }
    let key = world.memory.datastore.key;
    let is_ended = world.run.as_ref().is_some_and(|run| run.record.is_ended);
    if world.seen.backup.is_none() && world.seen.given != key && !is_ended {
        moves.push(
            "an operator passes the token that the servers accept",
            Help::Helps,
            |to| to.seen.given = key,
        );
    }
    if world.memory.flying.is_some() {
        moves.push("a PUT without an answer arrives", Help::Disturbs, |to| land(model, to));
    }
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
        let set = |to: &mut World, disk: Disk| _ = to.memory.disks.insert(name.to_owned(), disk);
        let disk = self.world.memory.disks[name];
        match disk.state {
            State::Up if budget.restarts > 0 => {
                self.push(format!("{name} restarts by itself"), Help::Disturbs, |to| {
                    to.memory.budget.restarts -= 1;
                    to.memory.stop(name, false);
                    // An operator may repair it before it is seen again.
                    shown(to, name).files = Files::Unknown;
                });
            }
            State::Up => {}
            State::Starting => {
                let state = State::Up;
                self.push(format!("{name} is ready"), Help::Helps, |to| {
                    set(to, Disk { state, ..disk });
                });
            }
            State::Stopped { .. } => {
                match self.world.memory.start(name) {
                    Ok(disk) => self.push(format!("{name} starts"), Help::Helps, |to| {
                        set(to, disk);
                        shown(to, name).is_restarting = false;
                    }),
                    Err(disk) => {
                        let state = State::Down;
                        self.push(format!("{name} does not start"), Help::Helps, |to| {
                            set(to, Disk { state, ..disk });
                        });
                    }
                }
                if budget.losses > 0 {
                    self.push(format!("{name} does not come back"), Help::Disturbs, |to| {
                        to.memory.budget.losses -= 1;
                        set(
                            to,
                            Disk {
                                state: State::Down,
                                ..disk
                            },
                        );
                    });
                }
            }
            State::Down => self.push(format!("`recover` repairs {name}"), Help::Helps, |to| {
                let data = &mut to.memory.datastore;
                data.passwd.value = data.key;
                let data = *data;
                set(
                    to,
                    Disk {
                        passwd: data.passwd,
                        token: Some(data.key),
                        configured: disk.configured.filter(|held| *held == data.key),
                        copy: data,
                        encryption: data.encryption,
                        live: data.key,
                        state: State::Up,
                    },
                );
                let server = shown(to, name);
                server.files = Files::Unknown;
                server.is_restarting = false;
            }),
        }
    }

    /// An operator deletes the Node and the member of a server that does not come back.
    fn removal(&mut self, name: &str) {
        let is_down = self.world.memory.disks[name].state == State::Down;
        if is_down && self.world.memory.disks.len() > 2 {
            self.push(format!("{name} is removed from the cluster"), Help::Disturbs, |to| {
                to.memory.disks.remove(name);
                to.seen.servers.remove(name);
                to.memory.mishaps.remove(name);
                let flying = to.memory.flying.take();
                to.memory.flying = flying.filter(|(server, _)| server != name);
            });
        }
    }

    fn configuration(&mut self, name: &str) {
        let disk = self.world.memory.disks[name];
        let budget = self.world.memory.budget;
        let set =
            |to: &mut World, configured| to.memory.disks.get_mut(name).expect("it is there").configured = configured;
        if budget.repins > 0 && disk.configured.is_none() {
            self.push(
                format!("configuration management pins the old token on {name}"),
                Help::Disturbs,
                |to| {
                    to.memory.budget.repins -= 1;
                    set(to, Some(old()));
                },
            );
        }
        if budget.repins < self.model.budget.repins && disk.configured.is_some() {
            let name = format!("an operator removes the token from the configuration of {name}");
            self.push(name, Help::Helps, |to| set(to, None));
        }
    }

    fn mishaps(&mut self) {
        let (world, memory) = (self.world, &self.world.memory);
        let Some(Step::Round(round)) = world.sending() else {
            return;
        };
        if memory.budget.mishaps == 0 {
            return;
        }
        let is_well = |server: &&String| !memory.mishaps.contains_key(*server);
        for server in round.servers().iter().filter(is_well) {
            for mishap in MISHAPS {
                self.push(
                    format!("{mishap:?} is going to happen to the PUT on {server}"),
                    Help::Disturbs,
                    |to| {
                        to.memory.budget.mishaps -= 1;
                        to.memory.mishaps.insert(server.clone(), mishap);
                    },
                );
            }
        }
    }

    fn join(&mut self) {
        let memory = &self.world.memory;
        let key = memory.datastore.key;
        match memory.joining {
            None if memory.budget.joins > 0 => {
                self.push("a server begins to join", Help::Disturbs, |to| {
                    to.memory.budget.joins -= 1;
                    to.memory.joining = Some(key);
                    to.seen.joining.insert(JOINS.to_owned());
                    to.seen.members = Members::Differ;
                });
            }
            Some(token) if token == key => self.push("a server has joined", Help::Helps, |to| {
                to.memory.joining = None;
                to.seen.joining.clear();
                to.seen.members = Members::Same;
                let data = to.memory.datastore;
                let disk = Disk {
                    passwd: data.passwd,
                    token: Some(key),
                    configured: None,
                    copy: data,
                    encryption: data.encryption,
                    live: key,
                    state: State::Up,
                };
                to.memory.disks.insert(JOINS.to_owned(), disk);
                let like: Server = to.seen.servers["s1"].clone();
                let server = Server {
                    files: Files::Unknown,
                    configured: Configured::Nowhere,
                    has_configuration_backup: false,
                    is_restarting: false,
                    ..like
                };
                to.seen.servers.insert(JOINS.to_owned(), server);
            }),
            Some(_) => self.push("a server that joins dies, and is removed", Help::Helps, |to| {
                to.memory.joining = None;
                to.seen.joining.clear();
                to.seen.members = Members::Same;
            }),
            None => {}
        }
    }

    fn keys(&mut self) {
        let is_rotating = matches!(self.world.seen.encryption, Encryption::Unsafe(_));
        if is_rotating {
            self.push("the encryption keys are rotated", Help::Helps, |to| {
                let encryption = to.memory.datastore.encryption;
                for disk in to.memory.disks.values_mut() {
                    disk.encryption = encryption;
                }
                to.seen.encryption = Encryption::Safe;
            });
        } else if self.world.memory.budget.key_rotations > 0 && self.world.memory.disks["s1"].state == State::Up {
            self.push("a rotation of the encryption keys begins on s1", Help::Disturbs, |to| {
                to.memory.budget.key_rotations -= 1;
                to.memory.datastore.encryption += 1;
                let encryption = to.memory.datastore.encryption;
                to.memory.disks.get_mut("s1").expect("it is there").encryption = encryption;
                to.seen.encryption = Encryption::Unsafe("stage prepare".to_owned());
            });
        }
    }

    fn clocks(&mut self) {
        let (model, memory) = (self.model, &self.world.memory);
        // Some server is always the first one of a round.
        let Some(first) = memory.disks.keys().next().cloned() else {
            return;
        };
        if memory.skewed.is_some() {
            self.push("the clocks are set", Help::Helps, |to| {
                to.memory.skewed = None;
                to.seen.clocks = Clocks::Close(model.ahead(&to.memory));
            });
        } else if memory.budget.skews > 0 {
            self.push(format!("the clock of {first} is set ahead"), Help::Disturbs, |to| {
                to.memory.budget.skews -= 1;
                to.memory.skewed = Some(first);
                to.seen.clocks = Clocks::Skewed;
            });
        }
    }

    fn foreign_put(&mut self) {
        let ahead = self.model.ahead(&self.world.memory);
        if self.world.memory.budget.foreign_puts > 0 && self.world.memory.disks["s1"].state == State::Up {
            self.push("`k3s token rotate` is run on s1", Help::Disturbs, |to| {
                to.memory.budget.foreign_puts -= 1;
                to.memory.is_foreign = true;
                to.memory.put("s1", Fingerprint::of("foreign"), ahead.as_ref());
            });
        }
    }
}

fn shown<'a>(world: &'a mut World, name: &str) -> &'a mut Server {
    world.seen.servers.get_mut(name).expect("it is shown")
}

/// The PUT without an answer arrives.
pub(super) fn land(model: &Model, world: &mut World) {
    if let Some((server, value)) = world.memory.flying.take() {
        let ahead = model.ahead(&world.memory);
        world.memory.put(&server, value, ahead.as_ref());
    }
}

/// A round, as [`Round`] says that it is sent.
pub(super) fn send_round(model: &Model, world: &mut World, round: &Round) {
    let World { seen, memory, run, .. } = world;
    let (value, servers) = (round.value(), round.servers());
    if memory.joining.is_some() {
        memory.fault = Some("a round while a server joins");
    }
    let (base, ahead) = (memory.latest() + 1, model.ahead(memory));
    let time = |at: usize, name: &String| {
        let is_ahead = Some(name) == ahead.as_ref();
        base + if is_ahead { 2 * servers.len() } else { at } as u8
    };
    let (mut one_accepted, mut is_unanswered, mut failed) = (false, false, Vec::new());
    for (at, name) in servers.iter().enumerate() {
        let time = time(at, name);
        match put(memory, name, value, time) {
            Some(true) => one_accepted = true,
            Some(false) if !one_accepted => {
                let before = seen
                    .backup
                    .as_ref()
                    .and_then(|backup| backup.round.as_ref())
                    .map(|it| it.before);
                memory.rejected = before.map(|before| (name.clone(), before));
                seen.round = RoundResult::Rejected(name.clone());
                if is_unanswered {
                    unanswered(seen, run);
                }
                memory.mishaps.clear();
                memory.rank();
                show(model, world);
                return;
            }
            answer => {
                is_unanswered |= answer.is_none();
                failed.push(name);
            }
        }
        if model.mutant == Some(Mutant::StopsAtFailure) && !failed.is_empty() {
            memory.fault = Some("a round has left out a server that was up").filter(|_| at + 1 < servers.len());
            break;
        }
    }
    let again = if model.mutant == Some(Mutant::AnotherAfterFailure) {
        &[][..]
    } else {
        &failed
    };
    for (at, name) in again.iter().enumerate() {
        let is_accepted = put(memory, name, value, time(servers.len() + at, name)) == Some(true);
        one_accepted |= is_accepted;
        if !is_accepted {
            seen.servers.get_mut(*name).expect("it is shown").files = Files::Unknown;
        }
    }
    memory.mishaps.clear();
    if !failed.is_empty() {
        seen.round = if one_accepted {
            RoundResult::Repeated
        } else {
            RoundResult::Unknown
        };
    }
    if model.mutant == Some(Mutant::RepeatsOne) {
        memory.put_at(&servers[0], value, base);
    }
    if is_unanswered {
        unanswered(seen, run);
    }
    memory.rank();
    show(model, world);
}

/// The step fails with a transient error.
pub(super) fn unanswered(seen: &mut Observed, run: &mut Option<Run>) {
    seen.may_be_in_flight = true;
    if let Some(run) = run {
        run.unanswered();
    }
}

/// One PUT, and its answer.
fn put(memory: &mut super::Memory, name: &str, value: Fingerprint, time: u8) -> Option<bool> {
    let mishap = memory.mishaps.get(name).copied();
    if mishap.is_some_and(|it| it != Mishap::Unreachable) {
        memory.mishaps.remove(name);
    }
    match memory.disks[name].state {
        State::Up => {}
        State::Starting if value != memory.datastore.key => {
            memory.fault = Some("a new token is put on a server that is not ready");
        }
        State::Starting => return Some(false),
        State::Stopped { .. } | State::Down => return None,
    }
    if let Some((server, before)) = &memory.rejected
        && server == name
        && *before != value
    {
        memory.fault = Some("a server that has rejected a round gets another token than its former one");
    }
    match mishap {
        None => return Some(memory.put_at(name, value, time)),
        Some(Mishap::Fails) => {
            memory.put_fails_at(name, value, time);
            return Some(false);
        }
        Some(Mishap::Lost | Mishap::Unreachable) => {}
        Some(Mishap::Unanswered) => _ = memory.put_at(name, value, time),
        Some(Mishap::Late) => memory.flying = Some((name.to_owned(), value)),
        Some(Mishap::Killed(point)) => memory.killed_in_put(name, value, time, point),
    }
    None
}

/// What is seen of the servers.
pub(super) fn show(model: &Model, world: &mut World) {
    let World { seen, memory, run, .. } = world;
    let records = [seen.backup.as_ref(), run.as_ref().map(|run| &run.record)];
    let knows = |value| {
        records
            .iter()
            .flatten()
            .any(|it| it.old == value || it.new.contains(&value))
    };
    for (name, disk) in &memory.disks {
        let server = seen.servers.get_mut(name).expect("it is shown");
        let login = if knows(disk.live) || disk.live == old() {
            Login::Accepts(disk.live)
        } else {
            Login::Another
        };
        server.accepts = match disk.state {
            State::Up | State::Starting => login,
            State::Stopped { .. } | State::Down => Login::Unknown,
        };
        server.as_node = Some(server.accepts);
        server.is_ready = disk.state == State::Up;
        server.member = EtcdMember::Voter;
        if model.has_node_access {
            server.configured = disk
                .configured
                .map_or(Configured::Nowhere, |held| Configured::Token(Some(held)));
        } else if disk.state == State::Starting {
            server.configured = disk.configured.map_or(Configured::Nowhere, |_| Configured::Token(None));
        }
    }
}
