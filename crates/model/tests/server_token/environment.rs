//! Servers that restart by themselves, holders that are killed within a round, and PUTs that arrive late.

use std::collections::BTreeSet;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Decision, Next, Timer, decide};
use engine::run::Run;
use model::{Environment, Help, Move, World};

use crate::rotation::{Backup, Live, Observed, Record, Server, ServerToken, Step, name};

pub(crate) fn old() -> Fingerprint {
    Fingerprint::of("old")
}

/// All servers, as a rotation finds them.
pub(crate) fn observed(servers: usize) -> Observed {
    let server = Server {
        live: Live::Accepts(old()),
        next_start: None,
        is_ready: true,
        is_voter: true,
        is_pinned: false,
    };
    Observed {
        given: old(),
        servers: vec![server; servers],
        backup: None,
        snapshots: BTreeSet::new(),
    }
}

pub(crate) struct Model {
    pub(crate) servers: usize,
    /// How many servers restart by themselves.
    pub(crate) restarts: u8,
    pub(crate) late_holders: u8,
    pub(crate) rollbacks: u8,
    pub(crate) mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// It does not look whether another server is up.
    RestartsTwo,
    /// It does not wait for writes in flight.
    DoesNotWait,
    /// It takes a round for complete that a former holder has begun.
    TrustsFormerRound,
    /// It restarts servers instead of waiting for the round.
    RestartsBeforeRound,
    /// Its rounds set the password on all servers, even on those that have it.
    SetsOnAll,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    datastore: Fingerprint,
    /// The time of the files that the datastore has saved last. Times are ranks, and all PUTs of a round have one time.
    saved: u8,
    disks: Vec<Disk>,
    /// A PUT was sent.
    is_begun: bool,
    restarts_left: u8,
    fault: Option<&'static str>,
}

/// What only the node of a server shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Disk {
    /// The password in its files.
    file: Fingerprint,
    /// When they were last changed.
    changed: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Up,
    /// By itself.
    Stopped,
    StoppedByTool,
    /// Its start has failed.
    Down,
}

impl Memory {
    fn starts(&self, server: usize) -> bool {
        let disk = &self.disks[server];
        disk.file == self.datastore && disk.changed <= self.saved
    }

    /// PUTs of one time, as measured: the datastore saves the files of the server. A server that is not ready, or whose files do
    /// not have the password of the datastore, rejects another one after it has overwritten its files.
    fn put(&mut self, value: Fingerprint, servers: &[usize]) -> bool {
        let now = self.disks.iter().map(|disk| disk.changed).fold(self.saved, u8::max) + 1;
        let mut all_accepted = true;
        for at in servers {
            let disk = &mut self.disks[*at];
            let is_up = disk.state == State::Up;
            let is_accepted = is_up && (value == self.datastore || disk.file == self.datastore);
            if disk.state != State::Down && disk.file != value {
                (disk.file, disk.changed) = (value, now);
            }
            if is_accepted {
                (self.datastore, self.saved) = (value, disk.changed);
            }
            all_accepted &= is_accepted;
        }
        self.is_begun = true;
        self.rank();
        all_accepted
    }

    fn rank(&mut self) {
        let changed = self.disks.iter().map(|disk| disk.changed);
        let times: BTreeSet<u8> = changed.chain([self.saved]).collect();
        let rank = |time: u8| times.range(..time).count() as u8;
        self.saved = rank(self.saved);
        for disk in &mut self.disks {
            disk.changed = rank(disk.changed);
        }
    }

    fn restart(&mut self, server: usize) {
        if self.disks.iter().any(|disk| disk.state == State::StoppedByTool) {
            self.fault = Some("two servers are restarted at once");
        } else if !self.starts(server) {
            self.fault = Some("a server is restarted that does not start again");
        }
        self.disks[server].state = State::StoppedByTool;
    }
}

impl Environment for Model {
    type Rotation = ServerToken;
    type Memory = Memory;
    /// The backup Secret, or the servers: the controller looks at them right before it sends the step.
    type Condition = (Option<Backup>, Vec<Server>);

    fn starts(&self) -> Vec<World<Self>> {
        let disk = Disk {
            file: old(),
            changed: 0,
            state: State::Up,
        };
        let memory = Memory {
            datastore: old(),
            saved: 0,
            disks: vec![disk; self.servers],
            is_begun: false,
            restarts_left: self.restarts,
            fault: None,
        };
        vec![World::new(observed(self.servers), memory).with(self.late_holders, self.rollbacks)]
    }

    fn moves(&self, world: &World<Self>) -> Vec<Move<Self>> {
        let of_server = |at: usize| {
            let mut to = world.clone();
            let (disk, server) = (&mut to.memory.disks[at], &mut to.seen.servers[at]);
            let (what, help) = match disk.state {
                State::Up if world.memory.restarts_left == 0 => return None,
                State::Up => {
                    to.memory.restarts_left -= 1;
                    disk.state = State::Stopped;
                    server.stop();
                    server.next_start = None;
                    ("restarts by itself", Help::Disturbs)
                }
                State::Stopped | State::StoppedByTool if world.memory.starts(at) => {
                    disk.state = State::Up;
                    server.start(disk.file);
                    ("starts", Help::Helps)
                }
                State::Stopped | State::StoppedByTool => {
                    disk.state = State::Down;
                    ("does not start", Help::Helps)
                }
                // An operator writes the password of the datastore into its files.
                State::Down => {
                    let (file, changed) = (world.memory.datastore, world.memory.saved);
                    let state = State::Up;
                    *disk = Disk { file, changed, state };
                    server.start(file);
                    ("is repaired", Help::Helps)
                }
            };
            to.memory.rank();
            let name = format!("{} {what}", name(at));
            Some(Move { name, help, to })
        };
        (0..self.servers).filter_map(of_server).collect()
    }

    fn timer(&self, _: &World<Self>, timer: Timer) -> Option<Help> {
        match timer {
            Timer::InFlight => Some(Help::Helps),
            Timer::Proof => Some(Help::Disturbs),
            Timer::Quiet | Timer::Retry | Timer::Cache => None,
        }
    }

    fn condition(&self, seen: &Observed, step: &Step) -> Option<Self::Condition> {
        Some(match step {
            Step::BackUp | Step::Forget(_) => (seen.backup.clone(), Vec::new()),
            Step::Round(_) | Step::Restart(_) => (None, seen.servers.clone()),
            Step::Snapshot => (None, Vec::new()),
        })
    }

    fn applied(&self, world: &mut World<Self>, step: &Step) {
        let World { seen, memory, .. } = world;
        match step {
            Step::Round(round) if !memory.put(round.value, round.servers()) => forget(seen),
            Step::Restart(restart) => memory.restart(restart.server()),
            Step::Snapshot => {
                for (server, disk) in seen.servers.iter_mut().zip(&memory.disks) {
                    server.next_start = (disk.state == State::Up).then_some(disk.file);
                    seen.snapshots.extend(server.next_start);
                }
            }
            Step::Round(_) | Step::BackUp | Step::Forget(_) => {}
        }
    }

    /// The first PUTs of a round.
    fn partly_applied(&self, world: &World<Self>, step: &Step) -> Vec<World<Self>> {
        let Step::Round(round) = step else { return Vec::new() };
        let killed_after = |puts: usize| {
            let mut to = world.clone();
            to.memory.put(round.value, &round.servers()[..puts]);
            if self.mutant == Some(Mutant::TrustsFormerRound) {
                let servers = to.seen.servers.iter_mut();
                servers.for_each(|server| server.next_start = Some(round.value));
            }
            to
        };
        (1..=round.servers().len()).map(killed_after).collect()
    }

    /// Any PUT of a round, or the restart.
    fn arrives_late(&self, world: &World<Self>, step: &Step) -> Option<Vec<World<Self>>> {
        let changed = |change: &dyn Fn(&mut World<Self>)| {
            let mut to = world.clone();
            change(&mut to);
            to
        };
        match step {
            Step::Round(round) => {
                let put = |at: &usize| changed(&|to| _ = to.memory.put(round.value, &[*at]));
                Some(round.servers().iter().map(put).collect())
            }
            Step::Restart(restart) => Some(vec![changed(&|to| {
                let at = restart.server();
                if to.seen.servers[at].is_up() {
                    to.seen.servers[at].stop();
                    to.memory.restart(at);
                }
            })]),
            Step::BackUp | Step::Snapshot | Step::Forget(_) => None,
        }
    }

    fn resumed(&self, world: &mut World<Self>) {
        if self.mutant != Some(Mutant::TrustsFormerRound) {
            forget(&mut world.seen);
        }
    }

    fn in_use(&self, seen: &Observed, former: Option<&Record>) -> (BTreeSet<Fingerprint>, BTreeSet<String>) {
        let backup = seen.backup.iter().map(|backup| backup.new);
        let former = former.and_then(|record| record.new);
        (backup.chain(former).collect(), BTreeSet::new())
    }

    /// The next start of every server finds the password of the datastore, unless the tool knows that its round is not complete.
    fn unsafe_because(&self, world: &World<Self>) -> Option<String> {
        let World { seen, memory, .. } = world;
        if let Some(fault) = memory.fault {
            return Some(fault.to_owned());
        }
        let first = seen.servers[0].next_start;
        let is_complete = first.is_some() && seen.servers.iter().all(|server| server.next_start == first);
        let mut fails = (0..self.servers).filter(|at| !memory.starts(*at));
        if let Some(at) = fails.next().filter(|_| is_complete || !memory.is_begun) {
            return Some(format!("the next start of {} fails", name(at)));
        }
        let is_rollback = world.ended? == Direction::Rollback;
        let is_wrong = (memory.datastore == old()) != is_rollback;
        is_wrong.then(|| "the run ended with the wrong password".to_owned())
    }

    /// Mutants tell the real stages something false.
    fn decide(&self, seen: &Observed, run: &Run<ServerToken>) -> Decision<ServerToken> {
        let decision = decide(seen, run);
        let (mut seen, mut run) = (seen.clone(), run.clone());
        let target = if run.direction.is_rollback() {
            Some(old())
        } else {
            run.record.new
        };
        match (self.mutant, &decision.next) {
            (Some(Mutant::RestartsTwo), Next::Wait(_)) if decision.phase == Phase::Prove => {
                run.timers.insert(Timer::InFlight, true);
                for server in seen.servers.iter_mut().filter(|server| !server.is_up()) {
                    server.start(server.next_start.unwrap_or(old()));
                }
            }
            (Some(Mutant::DoesNotWait), _) => drop(run.timers.insert(Timer::InFlight, true)),
            (Some(Mutant::RestartsBeforeRound), Next::Wait(_)) if decision.phase == Phase::Place => {
                run.timers.insert(Timer::InFlight, true);
                let servers = seen.servers.iter_mut();
                servers.for_each(|server| server.next_start = target);
            }
            (Some(Mutant::SetsOnAll), Next::Step(intent)) if matches!(intent.step, Step::Round(_)) => {
                let servers = seen.servers.iter_mut();
                servers.for_each(|server| server.next_start = Some(Fingerprint::of("another")));
            }
            _ => return decision,
        }
        decide(&seen, &run)
    }
}

/// It is not known any more what the servers have in their files.
fn forget(seen: &mut Observed) {
    for server in &mut seen.servers {
        server.next_start = None;
    }
}
